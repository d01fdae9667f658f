"""Sources of ADD other than the context: files behind URLs, Git repositories."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

from layercache._base.regex import expression
from layercache._base.urls import user_of
from layercache.dockerfile.instructions import Add, Copy
from layercache.dockerfile.lowering.origins import AnyInstruction, problem
from layercache.errors import UsageError
from layercache.model.digests import check_digest
from layercache.model.instruction import Source
from layercache.model.sources import GitSource, UrlSource

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["check_trigger", "file_name", "remote_source", "url_name"]

_SCP = expression(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^:]")
_COMMIT = expression(r"[0-9a-f]{7,64}")
_SCHEMES: Final = ("http", "https", "git", "ssh")
_LONGEST_NAME: Final = 255
_QUERY: Final = frozenset(
    {"ref", "tag", "branch", "commit", "checksum", "subdir", "keep-git-dir", "submodules"}
)
_SWITCHES: Final = {"": True, "1": True, "true": True, "0": False, "false": False}


def url_name(url: str) -> str:
    """The file name in a URL: the last component of its path, without the query.

    A name sent by the server does not count (as observed in BuildKit); `__unnamed__` if the URL
    has none.
    """
    from urllib.parse import unquote, urlsplit

    path = unquote(urlsplit(url).path).rstrip("/")
    return posixpath.basename(path) or "__unnamed__"


def file_name(instruction: AnyInstruction, name: str, what: str) -> str:
    """`name`, if a new file can have it; otherwise a problem."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise problem(instruction, f"{what} gives a file name that is not valid text") from None
    reserved = name in ("", ".", "..") or name.startswith(".wh.")  # a layer's deletion
    if reserved or "/" in name or "\0" in name or size > _LONGEST_NAME:
        shown = repr(name if len(name) < 60 else name[:60] + "…")
        raise problem(instruction, f"{what} gives the file name {shown}, which no file can have")
    return name


def remote_source(text: str, copy: Copy | Add, checksum: str | None) -> Source | None:
    """The URL or repository that a source names, None for a path. COPY accepts neither.

    A scheme may be written in capitals (RFC 3986): `HTTPS://` is no path.
    """
    scheme, colon, rest = text.partition("://")
    if colon and scheme.lower() in _SCHEMES:
        text = scheme.lower() + colon + rest
    web = text.startswith(("http://", "https://"))
    if isinstance(copy, Copy):
        if web or _is_git(text, copy):
            raise problem(copy, f"COPY can't take a URL or a Git repository ({text}): use ADD")
        return None
    if _is_git(text, copy):
        return _git_source(text, copy, checksum)
    if not web:
        return None
    _without_user(text, copy)
    try:
        digest = None if checksum is None else check_digest(checksum)
    except UsageError as error:
        raise problem(copy, str(error)) from error
    return UrlSource(text, digest)


def check_trigger(onbuild: AnyInstruction, trigger: object) -> None:
    """Refuse a URL with user information in a trigger, which would be stored in the image."""
    for word in trigger.sources if isinstance(trigger, Add) else ():
        if isinstance(word, str) and "://" in word:
            _without_user(word, onbuild, named=word[:6].lower() == "ssh://")


def _without_user(url: str, copy: AnyInstruction, *, named: bool = False) -> None:
    """Refuse user information, except a user name alone if `named` permits it."""
    rest = url.partition("://")[2]
    user = user_of(rest)
    if user or rest.startswith("@"):
        if named and ":" not in user:
            return
        raise problem(
            copy,
            "a URL can't hold user information: it would be kept with the image. "
            "Give the build a secret (HTTP_AUTH_TOKEN_<host>, GIT_AUTH_TOKEN) instead",
        )


def _is_git(text: str, copy: Add | Copy) -> bool:
    """Git URLs as BuildKit knows them: user@host:path, ssh://, git://, or http(s)://….git."""
    url = text.partition("#")[0]
    if url.startswith(("http://", "https://")):
        return _parsed(url, copy).path.rstrip("/").endswith(".git")
    return url.startswith(("git://", "ssh://")) or _SCP.match(url) is not None


def _parsed(url: str, copy: AnyInstruction) -> SplitResult:
    """The parts of a URL; a problem where its host is none."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(url)
    except ValueError:
        raise problem(copy, "the source begins like a URL but is not a valid one") from None


def _git_source(text: str, add: Add, checksum: str | None) -> GitSource:
    """`URL#ref:directory`, or `URL?ref=…&subdir=…` with the other options of the reference."""
    located, _, fragment = text.partition("#")
    url, _, query = located.partition("?")
    _without_user(url, add, named=url.startswith("ssh://"))
    if any(not c.isprintable() or c in " \\" for c in url):
        raise problem(add, "a Git URL holds a space, a backslash or a control character")
    _parsed(url, add)
    if url.startswith("-") or "://-" in url or "@-" in url:
        raise problem(add, "a Git URL whose host or user begins with '-'")
    reference, _, directory = fragment.partition(":")
    given = _query(query, add)
    if given and fragment:
        raise problem(add, "a Git URL has either a query (?ref=…) or a fragment (#ref), not both")
    named = [given[name] for name in ("ref", "tag", "branch") if name in given]
    if len(named) > 1:
        raise problem(add, "a Git URL names one of ref, tag and branch")
    if named:
        prefix = "refs/tags/" if "tag" in given else "refs/heads/" if "branch" in given else ""
        reference = prefix + named[0]
    commits = {given[name] for name in ("commit", "checksum") if name in given}
    commits |= {checksum} if checksum is not None else set()
    if len(commits) > 1:
        raise problem(add, "two different commits are named for one Git repository")
    commit = commits.pop() if commits else None
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise problem(add, f"not a commit: {commit[:80]!r} (at least 7 hexadecimal digits)")
    if commit is not None and not reference and checksum is None:
        reference = commit
    directory = given.get("subdir", directory)
    odd = reference.startswith(("-", "+")) or any(
        not c.isprintable() or c in " :~^?*[\\" for c in reference
    )
    if odd or ".." in reference or "@{" in reference:
        raise problem(add, f"not a branch, tag or commit: {reference[:80]!r}")
    if "\0" in directory or ".." in directory.split("/"):
        raise problem(add, f"a directory outside of the repository: {directory[:80]!r}")
    keep = _switch(given, "keep-git-dir", add.keep_git_dir, add)
    return GitSource(
        url, reference, directory, keep, commit, _switch(given, "submodules", True, add)
    )


def _query(query: str, add: Add) -> dict[str, str]:
    from urllib.parse import parse_qsl

    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise problem(add, "the query of a Git URL can't be read") from None
    for name, value in pairs:
        if name not in _QUERY:
            known = ", ".join(sorted(_QUERY))
            raise problem(add, f"the query of a Git URL knows {known}, not {name[:40]!r}")
        if name in found:
            raise problem(add, f"the query of a Git URL names {name} twice")
        found[name] = value
    return found


def _switch(given: dict[str, str], name: str, otherwise: bool, add: Add) -> bool:
    if name not in given:
        return otherwise
    value = _SWITCHES.get(given[name].lower())
    if value is None:
        raise problem(add, f"the query of a Git URL has {name}=1 or {name}=0")
    return value
