"""The tar writer: one canonical form, so that equal trees give equal bytes.

ustar headers, with pax records only for values that ustar can't hold (POSIX.1-2017 pax;
`SCHILY.xattr.` as in GNU tar and star): long or non-ASCII paths and links, big numbers, extended
attributes. Whole seconds, no atime, ctime or names of owners. The order is that of
`layer_entries`.

Content is read once, into one buffer of fixed size, from which SHA-256 of the tar and BLAKE3 of
each file are computed. Small files share a buffer with their headers, so a write and a hash update
serve many of them.
"""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO, Final

from blake3 import blake3

from layercache.layers.layer_entries import OPAQUE_MARKER, WHITEOUT_PREFIX, LayerEntries
from layercache.layers.tar_blocks import BLOCK, is_plain, special_blocks
from layercache.model.digests import DiffID
from layercache.model.layer_index import LayerIndex
from layercache.model.tree import Node

__all__ = ["OPAQUE_MARKER", "WHITEOUT_PREFIX", "LayerWriter"]

BUFFER: Final = 256 * 1024
"""The size of the buffer in bytes; larger ones were measured to be slower (page faults)."""

_ZEROS: Final = bytes(BLOCK)
_NO_LINK: Final = bytes(100)
_TAIL: Final = b"ustar\00000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_TAIL_SUM: Final = sum(_TAIL) + 8 * 32
"""Checksum of everything after the link name, with the checksum field as blanks."""


class LayerWriter(LayerEntries):
    """Writes one changeset to `sink` and indexes it on the way; see `LayerEntries`."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self._sink = sink
        self._hash = hashlib.sha256()
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._used = 0
        self._written = 0
        self._owners: dict[tuple[int, int, int], tuple[bytes, int]] = {}

    def finish(self) -> tuple[DiffID, int, LayerIndex]:
        """End the archive; returns its diff ID, its size in bytes and its index."""
        for _ in range(2):
            self._put(_ZEROS)
        self._flush()
        return (
            DiffID("sha256:" + self._hash.hexdigest()),
            self._written,
            self._builder.build(),
        )

    # -- headers ----------------------------------------------------------------------------

    def _header(self, name: bytes, kind: bytes, node: Node, size: int, link: bytes) -> None:
        mtime = node.mtime
        if not is_plain(name, node, size, link):
            for block in special_blocks(name, kind, node, size, link):
                self._put(block)
            return
        owner, owner_sum = self._owner(node, kind)
        numbers = b"%011o\0%011o\0" % (size, mtime)
        total = sum(name) + owner_sum + sum(numbers) + _TAIL_SUM + kind[0]
        if link:
            total += sum(link)
            link = link.ljust(100, b"\0")
        self._put(
            b"".join(
                (
                    name.ljust(100, b"\0"),
                    owner,
                    numbers,
                    b"%06o\0 " % total,
                    kind,
                    link or _NO_LINK,
                    _TAIL,
                )
            )
        )

    def _owner(self, node: Node, kind: bytes) -> tuple[bytes, int]:
        # Links have no permissions of their own on Linux; other systems make some up.
        key = (0o777 if kind == b"2" else node.mode & 0o7777, node.uid, node.gid)
        known = self._owners.get(key)
        if known is None:
            text = b"%07o\0%07o\0%07o\0" % key
            known = self._owners[key] = (text, sum(text))
        return known

    # -- bytes ------------------------------------------------------------------------------

    def _put(self, block: bytes) -> None:
        """Write one block of 512 bytes."""
        used = self._used
        if used == BUFFER:
            self._flush()
            used = 0
        self._buffer[used : used + BLOCK] = block
        self._used = used + BLOCK

    @property
    def _position(self) -> int:
        return self._written + self._used

    def _content(self, node: Node, content: BinaryIO | bytes | int | None) -> tuple[int, bytes]:
        if content is None:
            content = b""
        if isinstance(content, int):
            left, digest = self._read_descriptor(content, node.size)
        elif isinstance(content, bytes):
            left, digest = self._read_bytes(content, node.size)
        else:
            left, digest = self._read_stream(content, node.size)
        pad = -node.size % BLOCK
        if pad and not left:
            used = self._used
            self._buffer[used : used + pad] = _ZEROS[:pad]
            self._used = used + pad
        return left, digest

    def _read_descriptor(self, descriptor: int, size: int) -> tuple[int, bytes]:
        """The number of missing bytes (negative: too many), and the digest."""
        left = size
        hasher = None
        view, readv = self._view, os.readv
        while True:
            used = self._used
            if used == BUFFER:
                self._flush()
                used = 0
            # One byte more than is left, if there is room, detects growth at no cost.
            want = min(left + 1, BUFFER - used)
            got = readv(descriptor, [view[used : used + want]])
            if got > left or not got:
                return left - got, (hasher or blake3()).digest()
            piece = view[used : used + got]
            left -= got
            self._used = used + got
            if not left and got < want:
                # A short read of a regular file is its end.
                if hasher is None:
                    return 0, blake3(piece).digest()
                return 0, hasher.update(piece).digest()
            hasher = blake3(piece) if hasher is None else hasher.update(piece)

    def _read_stream(self, stream: BinaryIO, size: int) -> tuple[int, bytes]:
        hasher = blake3()
        left = size
        view = self._view
        readinto = getattr(stream, "readinto", None)
        while True:
            used = self._used
            if used == BUFFER:
                self._flush()
                used = 0
            room = min(left + 1, BUFFER - used)
            if readinto is not None:
                got = readinto(view[used : used + room]) or 0
            else:
                data = stream.read(room)
                got = len(data)
                view[used : used + got] = data
            if got > left or not got:
                return left - got, hasher.digest()
            hasher.update(view[used : used + got])
            left -= got
            self._used = used + got

    def _read_bytes(self, data: bytes, size: int) -> tuple[int, bytes]:
        if len(data) == size:
            for start in range(0, size, BLOCK):
                piece = data[start : start + BLOCK]
                used = self._used
                if used == BUFFER:
                    self._flush()
                    used = 0
                self._buffer[used : used + len(piece)] = piece
                self._used = used + len(piece)
        return size - len(data), blake3(data).digest()

    def _flush(self) -> None:
        ready = self._view[: self._used]
        self._hash.update(ready)
        while ready:
            count = self._sink.write(ready)
            ready = ready[count:] if count is not None else ready[len(ready) :]
        self._written += self._used
        self._used = 0
