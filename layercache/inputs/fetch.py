"""Fetched sources as trees: a file behind a URL, a Git repository at a commit."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from blake3 import blake3

from layercache.dockerfile.lowering.copy import url_name
from layercache.errors import SourceError, UsageError
from layercache.model.instruction import Source
from layercache.model.sources import GitSource, UrlSource
from layercache.model.tree import Node, Tree, directory_digest, node_digest

if TYPE_CHECKING:
    from layercache.store.store import Store

__all__ = ["FileTree", "open_remote"]

_BLOCK = 1 << 18
_TIMEOUT = 60.0
_MAX_BYTES = 1 << 36


def open_remote(source: Source, store: Store) -> Tree:
    """Fetch `source` once and show it as a tree; raises `SourceError`."""
    if isinstance(source, UrlSource):
        return _fetch(source, store)
    if isinstance(source, GitSource):
        return _checkout(source)
    fetch = getattr(source, "fetch", None)
    if fetch is None:
        raise SourceError(
            f"nothing here can open the source {source.name}: give its type a method fetch() "
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
    """A tree of one regular file at its root, kept as a blob of the store."""

    def __init__(self, name: bytes, node: Node, store: Store, digest: str) -> None:
        self._name = name
        self._node = node
        self._store = store
        self._digest = digest

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`."""
        if not path:
            return Node(mode=stat.S_IFDIR | 0o755)
        return self._node if path == self._name else None

    def children(self, path: bytes) -> Sequence[bytes]:
        """See `Tree.children`."""
        return () if path else (self._name,)

    def digest(self, path: bytes) -> bytes:
        """See `Tree.digest`. A file's time is no part of it, so a fresh download is the same."""
        if path:
            return node_digest(self._node)
        return directory_digest([(self._name, self._node.mode, node_digest(self._node), 0, 0)])

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`."""
        if path != self._name:
            raise SourceError(f"{os.fsdecode(path)!r} was not fetched")
        return self._store.open_blob(cast("object", self._digest))  # type: ignore[arg-type]


def _fetch(source: UrlSource, store: Store) -> FileTree:
    request = urllib.request.Request(source.url, headers={"User-Agent": "layercache"})
    content = blake3()
    checked = hashlib.sha256()
    name = url_name(source.url)
    try:
        with (
            tempfile.TemporaryFile() as spool,
            urllib.request.urlopen(request, timeout=_TIMEOUT) as answer,
        ):
            size = 0
            while block := answer.read(_BLOCK):
                size += len(block)
                if size > _MAX_BYTES:
                    raise SourceError(f"ADD {source.url}: more than {_MAX_BYTES} bytes")
                content.update(block)
                checked.update(block)
                spool.write(block)
            expected = answer.headers.get("Content-Length")
            if expected is not None and expected.isdigit() and int(expected) != size:
                raise SourceError(f"ADD {source.url}: {size} of {expected} bytes came")
            modified = _modified(answer)
            spool.seek(0)
            found = f"sha256:{checked.hexdigest()}"
            if source.checksum is not None and found != source.checksum:
                raise SourceError(
                    f"ADD {source.url}: its digest is {found}, but --checksum says "
                    f"{source.checksum}"
                )
            blob = store.add_blob(cast(BinaryIO, spool), "application/octet-stream")
    except urllib.error.HTTPError as error:
        raise SourceError(f"ADD {source.url}: the server answers {error.code}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise SourceError(f"ADD {source.url}: can't be fetched: {error}") from error
    node = Node(mode=stat.S_IFREG | 0o600, size=size, content=content.digest(), mtime=modified)
    return FileTree(name.encode(), node, store, blob.digest)


def _modified(answer: object) -> int:
    value = answer.headers.get("Last-Modified")  # type: ignore[attr-defined]
    if not value:
        return 0
    try:
        return max(0, int(parsedate_to_datetime(value).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return 0


class _Checkout:
    """A working tree in a temporary directory that goes with it.

    With its .git directory it is known by the commit alone: that directory holds times and
    packs that differ from fetch to fetch.
    """

    def __init__(self, directory: str, tree: Tree, identity: bytes | None) -> None:
        self._tree = tree
        self._identity = identity
        # Also where nobody closes it.
        self._remove = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`."""
        return self._tree.lookup(path)

    def children(self, path: bytes) -> Sequence[bytes]:
        """See `Tree.children`."""
        return self._tree.children(path)

    def digest(self, path: bytes) -> bytes:
        """See `Tree.digest`."""
        if not path and self._identity is not None:
            return self._identity
        return self._tree.digest(path)

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`."""
        return self._tree.open(path)

    def close(self) -> None:
        """Give up the working tree."""
        close = getattr(self._tree, "close", None)
        if close is not None:
            close()
        self._remove()


def _checkout(source: GitSource) -> Tree:
    from layercache.inputs.scan.context_tree import Context

    if shutil.which("git") is None:
        raise SourceError(f"ADD {source.url}: the program git is needed for it; install git")
    directory = tempfile.mkdtemp(prefix="layercache-git-")
    try:
        root = os.path.join(directory, "tree")
        os.mkdir(root, 0o755)
        _git(source, root, "init", "-q", "--template=")
        _fetch_commit(source, root)
        commit = _git(source, root, "rev-parse", "HEAD").strip()
        if source.checksum is not None and not commit.startswith(source.checksum):
            raise SourceError(
                f"ADD {source.url}: its commit is {commit}, but --checksum says {source.checksum}"
            )
        if os.path.lexists(os.path.join(root, ".gitmodules")):
            _git(source, root, "submodule", "-q", "update", "--init", "--recursive")
        if not source.keep_git_dir:
            _without_git(root)
        below = os.path.realpath(os.path.join(root, source.subdirectory.lstrip("/")))
        inside = below == os.path.realpath(root) or below.startswith(
            os.path.realpath(root) + os.sep
        )
        if not inside or not os.path.isdir(below):
            raise SourceError(f"ADD {source.url}: there is no directory {source.subdirectory!r}")
        tree = Context(below).scan(write_cache=False)
        whole = source.keep_git_dir and below == os.path.realpath(root)
        identity = blake3(b"git commit " + commit.encode()).digest() if whole else None
        return _Checkout(directory, tree, identity)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _fetch_commit(source: GitSource, root: str) -> None:
    """Check out the commit that `source` names, with as little history as the server allows."""
    wanted = source.reference or "HEAD"
    try:
        _git(source, root, "fetch", "-q", "--depth", "1", "--", source.url, wanted)
    except SourceError:
        # Not every server gives a single commit, and none an abbreviated one.
        everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "HEAD")
        _git(source, root, "fetch", "-q", "--update-head-ok", "--", source.url, *everything)
        if source.reference:
            if source.reference.startswith("-"):
                raise
            try:
                found = _git(source, root, "rev-parse", "--verify", f"{wanted}^{{commit}}")
            except SourceError as error:
                raise SourceError(
                    f"ADD {source.url}: there is no branch, tag or commit {wanted!r}"
                ) from error
        else:
            with open(os.path.join(root, ".git", "FETCH_HEAD"), encoding="utf-8") as heads:
                found = heads.read().splitlines()[-1].split("\t")[0]
        _git(source, root, "checkout", "-q", "--detach", found.strip())
    else:
        _git(source, root, "checkout", "-q", "--detach", "FETCH_HEAD")


def _without_git(root: str) -> None:
    """Take away the .git of the repository and of its submodules."""
    for directory, names, files in os.walk(root):
        if ".git" in names:
            names.remove(".git")
            shutil.rmtree(os.path.join(directory, ".git"))
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))


_OF_A_REPOSITORY = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_SHALLOW_FILE",
)  # fmt: skip
"""Set where a build is started by a hook of git, they would make it work on that repository."""


def _git(source: GitSource, directory: str, *arguments: str) -> str:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    for name in _OF_A_REPOSITORY:
        environment.pop(name, None)
    safe = ("-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null")
    try:
        done = subprocess.run(
            ["git", "-C", directory, *safe, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            umask=0o022,  # modes are content: they must not be those of whoever builds
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or ["git failed"]
        raise SourceError(f"ADD {source.url}: {reason[0]}") from error
    return done.stdout
