"""Listing what a changeset holds without writing its archive.

The list is the index that `writer` would give, offsets included, and the archive is a function of
it (`write_archive`): whoever needs the archive makes it later, from the files where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, Final

from blake3 import blake3

from layercache.layers.layer_entries import LayerEntries
from layercache.layers.tar_blocks import BLOCK, is_plain, special_blocks
from layercache.layers.writer import LayerWriter
from layercache.model.digests import DiffID
from layercache.model.layer_index import HARDLINK, IMPLIED, OPAQUE, WHITEOUT, LayerIndex
from layercache.model.tree import Node

__all__ = ["LayerLister", "write_archive"]

_CHUNK: Final = 256 * 1024
_END: Final = 2 * BLOCK
"""Bytes of zeros that end an archive."""


class LayerLister(LayerEntries):
    """Indexes one changeset and digests its files; see `LayerEntries`."""

    def __init__(self) -> None:
        super().__init__()
        self._size = 0
        self._view = memoryview(bytearray(_CHUNK))

    def finish(self) -> tuple[int, LayerIndex]:
        """The size in bytes that the archive would have, and the index."""
        return self._size + _END, self._builder.build()

    @property
    def _position(self) -> int:
        return self._size

    def _header(self, name: bytes, kind: bytes, node: Node, size: int, link: bytes) -> None:
        if is_plain(name, node, size, link):
            self._size += BLOCK
        else:
            self._size += BLOCK * len(special_blocks(name, kind, node, size, link))

    def _content(self, node: Node, content: BinaryIO | bytes | int | None) -> tuple[int, bytes]:
        size = node.size
        self._size += size + -size % BLOCK
        if content is None:
            content = b""
        if isinstance(content, bytes):
            return size - len(content), blake3(content).digest()
        if isinstance(content, int):
            return self._read_descriptor(content, size)
        hasher = blake3()
        left = size
        while left >= 0:
            data = content.read(_CHUNK)
            if not data:
                break
            hasher.update(data)
            left -= len(data)
        return left, hasher.digest()

    def _read_descriptor(self, descriptor: int, size: int) -> tuple[int, bytes]:
        view, readv = self._view, os.readv
        got = readv(descriptor, [view])
        if got == size < _CHUNK:
            return 0, blake3(view[:got]).digest()  # a short read of a regular file is its end
        hasher = blake3()
        left = size
        while got:
            hasher.update(view[:got])
            left -= got
            if left < 0:
                break
            got = readv(descriptor, [view])
        return left, hasher.digest()


def write_archive(
    index: LayerIndex, sink: BinaryIO, open_file: Callable[[bytes], int]
) -> tuple[DiffID, int, LayerIndex]:
    """Write the archive of which `index` is the list; returns its diff ID, size and index.

    `open_file` gives a descriptor of the file at a path, which is closed here. Raises
    `ContextChanged` where one has other bytes than the list says, and what `open_file` raises.
    """
    writer = LayerWriter(sink)
    deletions = _deletions(index)
    for row, path in enumerate(index.paths):
        flags = index.flags(row)
        if flags & WHITEOUT:
            continue  # written with its directory, before what is in it
        if not flags & IMPLIED:
            target = index.hardlinks.get(row) if flags & HARDLINK else None
            node = index.node(row)
            if target is not None:
                writer.add(path, node, hardlink=target)
            elif node.is_file:
                descriptor = open_file(path)
                try:
                    writer.add(path, node, descriptor)
                finally:
                    os.close(descriptor)
            else:
                writer.add(path, node)
        if flags & OPAQUE:
            writer.opaque(path)
        for deleted in deletions.get(path, ()):
            writer.whiteout(deleted)
    return writer.finish()


def _deletions(index: LayerIndex) -> dict[bytes, list[bytes]]:
    """Directory → the paths in it that the layer deletes, in order."""
    found: dict[bytes, list[bytes]] = {}
    for row, path in enumerate(index.paths):
        if index.flags(row) & WHITEOUT:
            found.setdefault(path.rpartition(b"/")[0], []).append(path)
    return found
