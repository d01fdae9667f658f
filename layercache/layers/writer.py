"""The tar writer: one canonical form, so that equal trees give equal bytes.

ustar headers, with pax records only for values that ustar can't hold (POSIX.1-2017 pax;
`SCHILY.xattr.` as in GNU tar and star): long or non-ASCII paths and links, big numbers, extended
attributes. Whole seconds, no atime, ctime or names of owners. Entries come depth first, siblings
by their bytes; the opaque marker and deletions of a directory before its entries (OCI image
specification, layer.md).

Content is read once, into one buffer of fixed size, from which SHA-256 of the tar and BLAKE3 of
each file are computed. Small files share a buffer with their headers, so a write and a hash update
serve many of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import BinaryIO, Final

from blake3 import blake3

from layercache.errors import ContextChanged, SourceError, UsageError
from layercache.layers.tar_blocks import ascii_tail, header_block, pax_record, split_name
from layercache.model.digests import DiffID
from layercache.model.layer_index import (
    HARDLINK,
    IMPLIED,
    NO_CONTENT,
    OPAQUE,
    WHITEOUT,
    IndexBuilder,
    LayerIndex,
    Row,
    sort_key,
)
from layercache.model.tree import Node

__all__ = ["OPAQUE_MARKER", "WHITEOUT_PREFIX", "LayerWriter"]

BLOCK: Final = 512
BUFFER: Final = 256 * 1024
"""The size of the buffer in bytes; larger ones were measured to be slower (page faults)."""

WHITEOUT_PREFIX: Final = b".wh."
OPAQUE_MARKER: Final = b".wh..wh..opq"

_ZEROS: Final = bytes(BLOCK)
_TYPES: Final = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_OCTAL_7: Final = 0o7777777
_OCTAL_11: Final = 0o77777777777
_NO_LINK: Final = bytes(100)
_TAIL: Final = b"ustar\00000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_TAIL_SUM: Final = sum(_TAIL) + 8 * 32
"""Checksum of everything after the link name, with the checksum field as blanks."""


class LayerWriter:
    """Writes one changeset to `sink` and indexes it on the way.

    The caller passes entries in order and with final metadata (including times); the writer checks
    the order, the size and, if `Node.content` is set, the digest of each file. After an error the
    writer must not be used any more. Sockets are left out, as in every builder.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._used = 0
        self._written = 0
        self._builder = IndexBuilder()
        self._owners: dict[tuple[int, int, int], tuple[bytes, int]] = {}
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
            offset = self._written + self._used
            digest = self._content(path, node, content)
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

    def _check_order(self, path: bytes) -> None:
        key = path.replace(b"/", b"\0")
        if key <= self._last and (key or not self.empty):
            raise UsageError(f"layer entry out of order: {path!r}")
        self._last = key

    def _check_marker(self, directory: bytes) -> None:
        if self._last > (sort_key(directory) + b"\0" if directory else b""):
            raise UsageError(f"marker for {directory!r} comes after entries of it")

    # -- headers ----------------------------------------------------------------------------

    def _header(self, name: bytes, kind: bytes, node: Node, size: int, link: bytes) -> None:
        mtime = node.mtime
        if len(name) > 100 or len(link) > 100 or node.xattrs or not 0 <= mtime <= _OCTAL_11:
            special = True
        else:
            special = (
                size > _OCTAL_11
                or node.uid > _OCTAL_7
                or node.gid > _OCTAL_7
                or not name.isascii()
                or not link.isascii()
            )
        if special or node.device != (0, 0):
            self._special_header(name, kind, node, size, link)
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

    def _special_header(self, name: bytes, kind: bytes, node: Node, size: int, link: bytes) -> None:
        records: list[tuple[bytes, bytes]] = []
        prefix, short = split_name(name)
        if short is None:
            records.append((b"path", name))
            prefix, short = b"", ascii_tail(name)
        if len(link) > 100 or not link.isascii():
            records.append((b"linkpath", link))
            link = ascii_tail(link)
        uid, gid, mtime = node.uid, node.gid, node.mtime
        if uid > _OCTAL_7:
            records.append((b"uid", b"%d" % uid))
            uid = 0
        if gid > _OCTAL_7:
            records.append((b"gid", b"%d" % gid))
            gid = 0
        if not 0 <= mtime <= _OCTAL_11:
            records.append((b"mtime", b"%d" % mtime))
            mtime = 0
        if size > _OCTAL_11:
            records.append((b"size", b"%d" % size))
            size = 0
        if kind != b"1":
            records += [(b"SCHILY.xattr." + key, value) for key, value in node.xattrs]
        if records:
            self._pax(name, records)
        if max(node.device) > _OCTAL_7:
            raise UsageError(f"device numbers of {name!r} are too big for an archive")
        mode = 0o777 if kind == b"2" else node.mode & 0o7777
        self._put(header_block(short, mode, uid, gid, size, mtime, kind, link, node.device, prefix))

    def _pax(self, name: bytes, records: list[tuple[bytes, bytes]]) -> None:
        for key, _ in records:
            if b"=" in key or b"\0" in key:
                raise UsageError(f"attribute {key!r} of {name!r} can't be put into an archive")
        body = b"".join(pax_record(key, value) for key, value in sorted(records))
        label = b"PaxHeaders/" + ascii_tail(name.rstrip(b"/").rpartition(b"/")[2])[-80:]
        self._put(header_block(label, 0o644, 0, 0, len(body), 0, b"x", b"", (0, 0), b""))
        for start in range(0, len(body), BLOCK):
            self._put(body[start : start + BLOCK].ljust(BLOCK, b"\0"))

    # -- bytes ------------------------------------------------------------------------------

    def _put(self, block: bytes) -> None:
        """Write one block of 512 bytes."""
        used = self._used
        if used == BUFFER:
            self._flush()
            used = 0
        self._buffer[used : used + BLOCK] = block
        self._used = used + BLOCK

    def _content(self, path: bytes, node: Node, content: BinaryIO | bytes | int | None) -> bytes:
        if content is None:
            content = b""
        if isinstance(content, int):
            left, digest = self._read_descriptor(content, node.size)
        elif isinstance(content, bytes):
            left, digest = self._read_bytes(content, node.size)
        else:
            left, digest = self._read_stream(content, node.size)
        if left or (node.content and node.content != digest):
            what = "size" if left else "content"
            raise ContextChanged(
                f"the {what} of {os.fsdecode(path)!r} changed while it was being copied; "
                "nothing was stored, build again"
            )
        pad = -node.size % BLOCK
        if pad:
            used = self._used
            self._buffer[used : used + pad] = _ZEROS[:pad]
            self._used = used + pad
        return digest

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
