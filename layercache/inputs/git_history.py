"""The context in past commits, as recorded by Git.

Nothing is checked out and nothing runs: files are identified by Git's digests of them, so reading
a commit reads names and digests only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from layercache.errors import UsageError
from layercache.http.client import words
from layercache.model.tree import Node
from layercache.trees.in_memory import DictTree
from layercache.trees.patterns import IGNORE_FILE, Ignore

__all__ = ["past_trees"]

_SECONDS: Final = 600.0
_SETTINGS: Final = (
    "core.fsmonitor=false", "core.hooksPath=/dev/null", "core.pager=cat", "core.sshCommand=false",
    "core.gitProxy=", "core.alternateRefsCommand=", "core.askPass=", "credential.helper=",
    "protocol.allow=never", "diff.external=", "log.showSignature=false", "gpg.program=false",
)  # fmt: skip
"""Settings by which a repository, which may come from anyone, could run programs."""

_INERT: Final = (
    "--no-pager",
    "--literal-pathspecs",
    "--no-optional-locks",
    *(word for setting in _SETTINGS for word in ("-c", setting)),
)


def _environment() -> dict[str, str]:
    """The user's environment without git's own variables: nothing is fetched, nobody is asked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **kept,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


def past_trees(
    context: str, count: int, ignore_file: str = IGNORE_FILE
) -> Iterator[tuple[str, DictTree]]:
    """The first 12 digits and the files of the last `count` commits, the oldest first, preceded by
    the commit that the oldest one is compared with.

    `ignore_file` is the path in `context` of the ignore file in use. Raises `UsageError` if the
    context is not in a repository or has fewer than two commits.
    """
    root = os.path.realpath(context)
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    commits = _git(root, "rev-list", "--first-parent", f"-n{count + 1}", "HEAD").split()[::-1]
    if len(commits) < 2:
        raise UsageError(f"advise compares two commits of {context}, and its history has fewer")
    for commit in commits:
        yield commit[:12], _tree_of(root, commit, prefix, ignore_file)


def _tree_of(root: str, commit: str, prefix: str, ignore_file: str) -> DictTree:
    """The context in `commit`, as recorded by Git."""
    text = _git_bytes(root, "ls-tree", "-r", "-z", "--full-tree", commit, "--", prefix or ".")
    files: dict[str, tuple[Node, bytes]] = {}
    for row in text.split(b"\0"):
        if not row:
            continue
        head, _, path = row.partition(b"\t")
        mode, kind, digest = head.split()
        name = os.fsdecode(path).removeprefix(prefix)
        if kind != b"blob":
            continue  # a submodule is another repository
        content = blake3(digest).digest()
        if mode == b"120000":
            node = Node(mode=0o120777, link=content)
        else:
            node = Node(mode=0o100000 | int(mode[-3:], 8), content=content)
        files[name] = (node, b"")
    if ignore_file in files:
        ignore = Ignore.parse(
            _git_bytes(root, "cat-file", "blob", f"{commit}:{prefix}{ignore_file}")
        )
        files = {name: value for name, value in files.items() if not ignore.matches(name)}
    return DictTree(files)


def _git(root: str, *arguments: str) -> str:
    return os.fsdecode(_git_bytes(root, *arguments))


def _git_bytes(root: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", root, *_INERT, *arguments],
            env=_environment(),
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"git did not answer within {_SECONDS:.0f} s in {root}") from error
    except FileNotFoundError as error:
        raise UsageError("advise compares commits, which needs the program git") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()[-1:] or [b"git failed"]
        raise UsageError(
            f"advise compares commits of the context, and git can't say what was in {root}: "
            f"{words(lines[0]).removeprefix('fatal: ')}"
        ) from error
    return done.stdout
