"""Fetched sources as trees: a file behind a URL, a Git repository at a commit."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import stat
import tempfile
import urllib.parse
import weakref
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from blake3 import blake3

from layercache._os.allowance import UnpackAllowance
from layercache.dockerfile.lowering.remote import url_name
from layercache.errors import SourceError, UsageError
from layercache.http.client import Response, masked, parse_address, reason, send
from layercache.inputs.access import NOTHING, Access
from layercache.model.descriptors import MAX_UNPACKED_SIZE
from layercache.model.digests import Digest
from layercache.model.instruction import Source
from layercache.model.sources import GitSource, UrlSource
from layercache.model.tree import Closes, Node, Tree, directory_digest, node_digest

if TYPE_CHECKING:
    from layercache.inputs.git import Git
    from layercache.store.parts import Cache

__all__ = ["FileTree", "open_remote"]

_BLOCK = 1 << 18
_TIMEOUT = 60.0
_REDIRECTS = 10
_LONGEST_DATE = 100


def open_remote(
    source: Source,
    store: Cache,
    access: Access = NOTHING,
    *,
    allowance: UnpackAllowance | None = None,
) -> Tree:
    """Fetch `source` once and return it as a tree; raises `SourceError`.

    `access` holds the credentials that may be used for it; `allowance` bounds its bytes.
    """
    allowance = allowance or UnpackAllowance(MAX_UNPACKED_SIZE)
    if isinstance(source, UrlSource):
        return _fetch(source, store, access, allowance)
    if isinstance(source, GitSource):
        return _checkout(source, access, allowance)
    fetch = getattr(source, "fetch", None)
    if fetch is None:
        raise SourceError(
            f"can't open the source {source.name}: give its type a method fetch() "
            "that returns a Tree or a mapping of paths to contents"
        )
    try:
        found = fetch()
    except OSError as error:
        raise SourceError(f"{source.name} can't be fetched: {error}") from error
    if isinstance(found, Mapping):
        from layercache.trees.in_memory import DictTree

        return DictTree(found)
    if not isinstance(found, Tree):
        raise UsageError(
            f"{source.name}: fetch() gave {type(found).__name__}, not a Tree or a mapping of paths"
        )
    return found


class FileTree:
    """A tree of one regular file at its root, stored as a blob."""

    def __init__(self, name: bytes, node: Node, store: Cache, digest: Digest) -> None:
        self._name = name
        self._node = node
        self._store = store
        self.blob = digest
        """The digest of its bytes."""

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`."""
        if not path:
            return Node(mode=stat.S_IFDIR | 0o755)
        return self._node if path == self._name else None

    def children(self, path: bytes) -> Sequence[bytes]:
        """See `Tree.children`."""
        return () if path else (self._name,)

    def digest(self, path: bytes) -> bytes:
        """See `Tree.digest`. A file's time is not part of it, so a fresh download is equal."""
        if path:
            return node_digest(self._node)
        return directory_digest([(self._name, self._node.mode, node_digest(self._node), 0, 0)])

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`."""
        if path != self._name:
            raise SourceError(f"{os.fsdecode(path)!r} was not fetched")
        return self._store.blobs.open(self.blob)


def _fetch(source: UrlSource, store: Cache, access: Access, allowance: UnpackAllowance) -> FileTree:
    content = blake3()
    checked = hashlib.sha256()
    name = url_name(source.url)
    what = f"ADD {masked(source.url)}"
    try:
        with tempfile.TemporaryFile() as spool, _answer(source.url, what, access) as answer:
            size = 0
            while block := answer.body.read(_BLOCK):
                size += len(block)
                allowance.take(len(block), what)
                content.update(block)
                checked.update(block)
                spool.write(block)
            modified = _modified(answer.headers.get("Last-Modified"))
            spool.seek(0)
            found = f"sha256:{checked.hexdigest()}"
            if source.checksum is not None and found != source.checksum:
                raise SourceError(
                    f"{what}: its digest is {found}, but --checksum says {source.checksum}"
                )
            blob = store.blobs.add(cast(BinaryIO, spool), "application/octet-stream")
    except SourceError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"{what}: the fetch failed: {reason(error)}") from error
    node = Node(mode=stat.S_IFREG | 0o600, size=size, content=content.digest(), mtime=modified)
    return FileTree(name.encode(), node, store, blob.digest)


def _answer(url: str, what: str, access: Access) -> Response:
    """The file behind `url`, with redirects followed.

    A redirect never leads from https to http, nor to another scheme; credentials are sent only to
    the host that was named. The file is stored unchanged: no content encoding is requested.
    """
    try:
        start = address = parse_address(url)
    except UsageError as error:
        raise SourceError(f"{what}: {error}") from error
    for _ in range(_REDIRECTS):
        headers = {"Accept-Encoding": "identity"}
        if address.origin == start.origin:
            named = urllib.parse.urlsplit(address.url).netloc
            authorization = access.for_url(named)
            if authorization is not None:
                headers["Authorization"] = authorization
        answer = send("GET", address, headers, timeout=_TIMEOUT)
        if answer.status not in (301, 302, 303, 307, 308):
            if answer.status != 200:
                said = answer.words
                answer.close()
                raise SourceError(
                    f"{what}: the server answers {answer.status}" + (f" ({said})" if said else "")
                )
            return answer
        target = answer.headers.get("Location", "")
        answer.close()
        try:
            address = parse_address(urllib.parse.urljoin(address.url, target))
        except ValueError as error:
            raise SourceError(f"{what}: leads to an address that is not opened: {error}") from error
        if start.scheme == "https" and address.scheme == "http":
            raise SourceError(f"{what}: the server redirects from https to http; this is refused")
    raise SourceError(f"{what}: the server redirects more than {_REDIRECTS} times")


def _modified(value: str | None) -> int:
    if not value or len(value) > _LONGEST_DATE:
        return 0
    try:
        return max(0, int(parsedate_to_datetime(value).timestamp()))
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0


class _Checkout(Closes):
    """A working tree in a temporary directory, which is removed with this object."""

    def __init__(self, directory: str, tree: Tree) -> None:
        self._tree = tree
        # This also works if the object is never closed.
        self._remove = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`."""
        return self._tree.lookup(path)

    def children(self, path: bytes) -> Sequence[bytes]:
        """See `Tree.children`."""
        return self._tree.children(path)

    def digest(self, path: bytes) -> bytes:
        """See `Tree.digest`."""
        return self._tree.digest(path)

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`."""
        return self._tree.open(path)

    def close(self) -> None:
        """Remove the working tree."""
        if isinstance(self._tree, Closes):
            self._tree.close()
        self._remove()


def _checkout(source: GitSource, access: Access, allowance: UnpackAllowance) -> Tree:
    from layercache.inputs.git import Git, size_below
    from layercache.inputs.scan.context_tree import Context

    what = f"ADD {masked(source.url)}"
    if shutil.which("git") is None:
        raise SourceError(f"{what}: this needs the program git; install it")
    directory = tempfile.mkdtemp(prefix="layercache-git-")
    try:
        root, home = os.path.join(directory, "tree"), os.path.join(directory, "home")
        os.mkdir(root, 0o755)
        os.mkdir(home, 0o700)
        git = Git(source.url, home, access, allowance, directory)
        git.run(root, "init", "-q", "--template=")
        _fetch_commit(git, source, root, what)
        commit = git.run(root, "rev-parse", "HEAD").decode().strip()
        if source.checksum is not None and not commit.startswith(source.checksum):
            raise SourceError(
                f"{what}: its commit is {commit}, but --checksum says {source.checksum}"
            )
        if source.submodules and os.path.lexists(os.path.join(root, ".gitmodules")):
            git.run(root, "submodule", "-q", "update", "--init", "--recursive", "--depth", "1")
        if source.keep_git_dir:
            _remake(git, source, root, commit, directory)
        else:
            _without_git(root)
        allowance.take(size_below(directory), what)
        below = _below(root, source.subdirectory)
        if below is None:
            raise SourceError(f"{what}: the repository has no directory {source.subdirectory!r}")
        return _Checkout(directory, Context(below).scan(write_cache=False))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _below(root: str, subdirectory: str) -> str | None:
    """The named directory of a checkout; None if it has no such directory inside it."""
    top = os.path.realpath(root)
    try:
        found = os.path.realpath(os.path.join(top, subdirectory.lstrip("/")))
    except ValueError:  # a null byte
        return None
    inside = found == top or found.startswith(top + os.sep)
    return found if inside and os.path.isdir(found) else None


def _fetch_commit(git: Git, source: GitSource, root: str, what: str) -> None:
    """Check out the commit that `source` names, with as little history as the server allows."""
    wanted = source.reference or "HEAD"
    if wanted.startswith(("-", "+")) or ":" in wanted:
        raise SourceError(f"{what}: the repository has no branch, tag or commit {wanted!r}")
    try:
        git.run(root, "fetch", "-q", "--depth", "1", "--", source.url, wanted)
    except SourceError:
        # Not every server provides a single commit, and none accepts an abbreviated one.
        everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "HEAD")
        git.run(root, "fetch", "-q", "--update-head-ok", "--", source.url, *everything)
        if source.reference:
            try:
                found = git.run(root, "rev-parse", "--verify", f"{wanted}^{{commit}}").decode()
            except SourceError as error:
                raise SourceError(
                    f"{what}: the repository has no branch, tag or commit {wanted!r}"
                ) from error
        else:
            with open(os.path.join(root, ".git", "FETCH_HEAD"), encoding="utf-8") as heads:
                found = heads.read().splitlines()[-1].split("\t")[0]
        git.run(root, "checkout", "-q", "--detach", found.strip())
    else:
        git.run(root, "checkout", "-q", "--detach", "FETCH_HEAD")


def _remake(git: Git, source: GitSource, root: str, commit: str, directory: str) -> None:
    """Replace .git by one that holds only the one commit, with the same bytes each time.

    The server's data depends on how it packs, when it was fetched, and the inodes of the files.
    Submodules become plain directories.
    """
    old = os.path.join(directory, "fetched")
    shutil.move(os.path.join(root, ".git"), old)
    _without_git(root)
    parents = git.run(old, "rev-list", "--parents", "-n", "1", commit).split()[1:]
    raw = git.run(old, "cat-file", "commit", commit)
    listed = git.run(old, "rev-list", "--objects", "-n", "1", commit)
    objects = b"".join(sorted(line[: len(commit)] + b"\n" for line in listed.splitlines()))
    new = os.path.join(root, ".git")
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        os.makedirs(os.path.join(new, name), 0o755)
    _write(os.path.join(new, "HEAD"), commit + "\n")
    algorithm = "[extensions]\n\tobjectFormat = sha256\n" if len(commit) == 64 else ""
    _write(
        os.path.join(new, "config"),
        f"[core]\n\trepositoryformatversion = {1 if algorithm else 0}\n\tfilemode = true\n"
        "\tbare = false\n"
        f'{algorithm}[remote "origin"]\n\turl = {_quoted(source.url)}\n'
        "\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
    )
    if parents or b"\nparent " in raw.partition(b"\n\n")[0]:
        _write(os.path.join(new, "shallow"), commit + "\n")
    pack = os.path.join(new, "objects", "pack", "pack")
    git.run(
        old,
        *("pack-objects", "-q", "--window=0", "--no-reuse-object", "--no-reuse-delta"),
        *("--compression=0", pack),
        data=objects,
    )
    for name in os.listdir(os.path.dirname(pack)):
        os.chmod(os.path.join(os.path.dirname(pack), name), 0o444)
    git.run(root, "read-tree", commit)  # an index without times and inodes
    shutil.rmtree(old)


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _without_git(root: str) -> None:
    """Remove the .git of the repository and of its submodules."""
    for directory, names, files in os.walk(root):
        if ".git" in names:
            names.remove(".git")
            shutil.rmtree(os.path.join(directory, ".git"))
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))
