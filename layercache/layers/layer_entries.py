"""The entries of one changeset, in the order of a layer: checked, and indexed on the way.

What is common to writing a layer's archive (`writer`) and to listing it without one (`lister`).
Entries come depth first, siblings by their bytes; the opaque marker and deletions of a directory
before its entries (OCI image specification, layer.md).
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, BinaryIO, Final

from layercache.errors import ContextChanged, SourceError, UsageError
from layercache.model.layer_index import (
    HARDLINK,
    IMPLIED,
    NO_CONTENT,
    OPAQUE,
    WHITEOUT,
    IndexBuilder,
    sort_key,
)
from layercache.model.tree import Node

if TYPE_CHECKING:
    from layercache.model.tree_digest import Row

__all__ = ["OPAQUE_MARKER", "WHITEOUT_PREFIX", "LayerEntries"]

WHITEOUT_PREFIX: Final = b".wh."
OPAQUE_MARKER: Final = b".wh..wh..opq"

_TYPES: Final = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_LINK: Final = stat.S_IFLNK | 0o777
"""Links have no permissions of their own on Linux; other systems make some up."""


class LayerEntries(ABC):
    """Takes the entries of one changeset, in order and with final metadata (including times).

    Checks the order, the size and, if `Node.content` is set, the digest of each file. After an
    error it must not be used any more. Sockets are left out, as in every builder.
    """

    def __init__(self) -> None:
        self._builder = IndexBuilder()
        self._last = b""

    @property
    def empty(self) -> bool:
        """Whether nothing was added: the step changed nothing and has no layer."""
        return not self._builder.rows

    # -- entries ----------------------------------------------------------------------------

    def add(
        self,
        path: bytes,
        node: Node,
        content: BinaryIO | bytes | int | None = None,
        hardlink: bytes | None = None,
    ) -> None:
        """Add the entry `path` (b"" for the root directory, which is optional).

        `content` holds a regular file's bytes: as bytes, as a stream at its start, or as a file
        descriptor; None is an empty file. `hardlink` is the path of an earlier entry that this
        one is another name of; `node` must then be that entry's.

        Raises `ContextChanged` if the bytes do not match `node`, `SourceError` for an entry that a
        layer can't hold (a name that means a deletion, the device of one), `UsageError` for an
        entry out of order.
        """
        mode = node.mode
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFSOCK:
            return
        if path in self._builder.rows:
            raise UsageError(f"layer entry given twice: {path!r}")
        if path:
            _check_names(path)
        self._check_order(path)
        if hardlink is not None:
            self._add_hardlink(path, node, hardlink)
            return
        if kind == stat.S_IFCHR and node.device == (0, 0):
            raise SourceError(
                f"{os.fsdecode(path)!r} is the character device 0:0, which means a deleted file "
                "to overlay file systems: it can't be part of an image"
            )
        size = node.size if kind == stat.S_IFREG else 0
        name = path
        if kind == stat.S_IFDIR:
            name = path + b"/" if path else b"./"
        self._header(name, _TYPES[kind], node, size, node.link)
        offset, digest = 0, NO_CONTENT
        if kind == stat.S_IFREG:
            offset = self._position
            left, digest = self._content(node, content)
            if left or (node.content and node.content != digest):
                what = "size" if left else "content"
                raise ContextChanged(
                    f"the {what} of {os.fsdecode(path)!r} changed while it was being copied; "
                    "nothing was stored, build again"
                )
        elif kind == stat.S_IFLNK:
            mode = _LINK
        row: Row = (mode, node.uid, node.gid, size, node.mtime, offset, 0, digest)
        builder = self._builder
        builder.rows[path] = row
        if node.link:
            builder.links[path] = node.link
        if node.device != (0, 0):
            builder.devices[path] = node.device
        if node.xattrs:
            builder.xattrs[path] = node.xattrs

    def _add_hardlink(self, path: bytes, node: Node, target: bytes) -> None:
        row = self._builder.rows.get(target)
        if row is None or row[6] & (WHITEOUT | IMPLIED):
            raise UsageError(f"the target of a hard link is not in the layer: {target!r}")
        self._header(path, b"1", node, 0, target)
        builder = self._builder
        builder.rows[path] = (*row[:6], row[6] | HARDLINK, row[7])
        builder.hardlinks[path] = target
        if target in builder.links:
            builder.links[path] = builder.links[target]
        if target in builder.devices:
            builder.devices[path] = builder.devices[target]
        if target in builder.xattrs:
            builder.xattrs[path] = builder.xattrs[target]

    def opaque(self, directory: bytes) -> None:
        """Hide the entries of `directory` in the layers below.

        Comes right after the directory's own entry (or instead of one).
        """
        marker = directory + b"/" + OPAQUE_MARKER if directory else OPAQUE_MARKER
        if directory:
            _check_names(directory)
        self._check_marker(directory)
        self._header(marker, b"0", _MARKER, 0, b"")
        rows = self._builder.rows
        row = rows.get(directory)
        if row is None:
            rows[directory] = (0o40755, 0, 0, 0, 0, 0, IMPLIED | OPAQUE, NO_CONTENT)
        else:
            rows[directory] = (*row[:6], row[6] | OPAQUE, row[7])

    def whiteout(self, path: bytes) -> None:
        """Delete `path`, which exists in the layers below. Comes before the directory's entries."""
        directory, _, name = path.rpartition(b"/")
        if not name or path in self._builder.rows:
            raise UsageError(f"can't delete {path!r} here")
        _check_names(path)
        self._check_marker(directory)
        marker = WHITEOUT_PREFIX + name
        self._header(directory + b"/" + marker if directory else marker, b"0", _MARKER, 0, b"")
        self._builder.rows[path] = (0, 0, 0, 0, 0, 0, WHITEOUT, NO_CONTENT)

    def _check_order(self, path: bytes) -> None:
        key = path.replace(b"/", b"\0")
        if key <= self._last and (key or not self.empty):
            raise UsageError(f"layer entry out of order: {path!r}")
        self._last = key

    def _check_marker(self, directory: bytes) -> None:
        if self._last > (sort_key(directory) + b"\0" if directory else b""):
            raise UsageError(f"marker for {directory!r} comes after entries of it")

    # -- what becomes of them ---------------------------------------------------------------

    @property
    @abstractmethod
    def _position(self) -> int:
        """The size in bytes of the archive of the entries so far."""

    @abstractmethod
    def _header(self, name: bytes, kind: bytes, node: Node, size: int, link: bytes) -> None:
        """Take the header of an entry."""

    @abstractmethod
    def _content(self, node: Node, content: BinaryIO | bytes | int | None) -> tuple[int, bytes]:
        """Take a file's bytes; the number that is missing (negative: too many), and the digest."""


_MARKER: Final = Node(mode=stat.S_IFREG)
"""Deletions and opaque markers: mode 0, owner 0:0, time 0."""


_NOT_NAMES: Final = frozenset((b"", b".", b".."))


def _check_names(path: bytes) -> None:
    """Refuse a path that would lead elsewhere or delete something."""
    for name in path.split(b"/"):
        if name in _NOT_NAMES:
            raise SourceError(
                f"{os.fsdecode(path)!r} can't be part of an image: {os.fsdecode(name)!r} is not "
                "a file name"
            )
        if name.startswith(WHITEOUT_PREFIX):
            raise SourceError(
                f"{os.fsdecode(path)!r} can't be part of an image: in a layer, names that begin "
                "with .wh. mean deleted files. Rename it, or leave it out"
            )
    if b"\0" in path:
        raise SourceError(f"{os.fsdecode(path)!r} can't be part of an image: it holds a NUL byte")
