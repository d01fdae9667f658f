"""A tree in memory, written as a dictionary, for tests of selectors, keys and executors."""

from __future__ import annotations

import io
import stat
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from blake3 import blake3

from layercache._base.classes import evolve
from layercache.errors import SourceError, UsageError
from layercache.model.tree import Node, described_digest, directory_digest, node_digest

__all__ = ["DictTree", "directory", "file", "link"]


def file(content: bytes | str = b"", mode: int = 0o644, **more: object) -> tuple[Node, bytes]:
    """A regular file; `more` are further fields of `Node` (uid, gid, mtime, xattrs)."""
    data = content.encode() if isinstance(content, str) else content
    node = Node(mode=stat.S_IFREG | mode, size=len(data), content=blake3(data).digest())
    return evolve(node, **more), data  # type: ignore[arg-type]


def link(target: bytes | str) -> tuple[Node, bytes]:
    """A symbolic link."""
    text = target.encode() if isinstance(target, str) else target
    return Node(mode=stat.S_IFLNK | 0o777, size=len(text), link=text), b""


def directory(mode: int = 0o755, **more: object) -> tuple[Node, bytes]:
    """A directory with an explicit mode; other directories need not be listed."""
    return evolve(Node(mode=stat.S_IFDIR | mode), **more), b""  # type: ignore[arg-type]


class DictTree:
    """A `Tree` over `{path: content}`; missing parent directories are added (0755).

    A value is text or bytes (a file, 0644), a result of `file`, `link` or `directory`, or a pair
    of `Node` and content. `digested` counts the digests computed, `opened` the files opened.
    """

    def __init__(self, files: Mapping[str, str | bytes | tuple[Node, bytes]] | None = None) -> None:
        self._nodes: dict[bytes, Node] = {b"": directory()[0]}
        self._content: dict[bytes, bytes] = {}
        self.opened = 0
        self.digested = 0
        for name, value in (files or {}).items():
            path = name.encode("utf-8", "surrogateescape").strip(b"/")
            if path == b".":
                path = b""
            node, data = value if isinstance(value, tuple) else file(value)
            self._nodes[path] = node
            if node.is_file:
                self._content[path] = data
            while path:
                path = path.rpartition(b"/")[0]
                self._nodes.setdefault(path, directory()[0])
        self._children: dict[bytes, list[bytes]] = {}
        for path in sorted(self._nodes):
            if path:
                parent, _, base = path.rpartition(b"/")
                if not self._nodes[parent].is_dir:
                    raise UsageError(f"{parent!r} is not a directory, but {path!r} is below it")
                self._children.setdefault(parent, []).append(base)
        for names in self._children.values():
            names.sort()

    @property
    def nodes(self) -> Mapping[bytes, Node]:
        """Every path and its node; b"" is the root."""
        return self._nodes

    def content(self, path: bytes) -> bytes:
        """The bytes of a regular file; b"" for anything else."""
        return self._content.get(path, b"")

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`."""
        return self._nodes.get(path)

    def children(self, path: bytes) -> Sequence[bytes]:
        """See `Tree.children`."""
        return self._children.get(path, ())

    def digest(self, path: bytes) -> bytes:
        """See `Tree.digest`."""
        self.digested += 1
        node = self._nodes.get(path)
        if node is None:
            raise SourceError(f"{path!r} is not in the tree")
        if not node.is_dir:
            return node_digest(node)
        # Children before parents, without recursion: a tree may be deep.
        order = [path]
        for here in order:
            for name in self.children(here):
                child = here + b"/" + name if here else name
                if self._nodes[child].is_dir:
                    order.append(child)
        made: dict[bytes, bytes] = {}
        for here in reversed(order):
            rows = []
            for name in self.children(here):
                child = here + b"/" + name if here else name
                below = self._nodes[child]
                digest = made[child] if below.is_dir else node_digest(below)
                rows.append((name, below.mode, digest, below.uid, below.gid))
            made[here] = described_digest(self._nodes[here], directory_digest(rows))
        return made[path]

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`."""
        self.opened += 1
        if path not in self._content:
            raise SourceError(f"{path!r} is not a regular file")
        return io.BytesIO(self._content[path])
