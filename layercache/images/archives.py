"""Random access to the members of an untrusted, uncompressed tar archive.

Image archives (`docker save`, an OCI layout as one file) are read in the order of their
manifests, not of the file. Only names, sizes and offsets are read here; nothing is unpacked.
"""

from __future__ import annotations

import io
import os
import posixpath
from typing import BinaryIO, Final

from layercache._base.classes import frozen
from layercache.errors import HostileArchive

__all__ = ["ArchiveFile", "Member", "list_members"]

_BLOCK: Final = 512
_MEMBERS: Final = 100_000
_HEADER: Final = 1 << 20
_HOPS: Final = 16


@frozen
class Member:
    """A member of an archive: offset and size of its bytes, or the target of a link."""

    offset: int
    size: int
    link: str | None = None


class ArchiveFile:
    """A tar file whose members can be opened by name, any number at a time."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        """Take over `file`, which must be a real one. Raises `HostileArchive`."""
        self._file = file
        try:
            self._members = list_members(file, what)
        except BaseException:
            file.close()
            raise
        self._what = what

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        """The bytes and their number of a regular member; None if it does not exist."""
        member = self._find(name)
        if member is None:
            return None
        return _window(self._file, member), member.size

    def close(self) -> None:
        self._file.close()

    def _find(self, name: str) -> Member | None:
        """The regular member behind `name`, through links within the archive only."""
        for _ in range(_HOPS):
            member = self._members.get(posixpath.normpath(name))
            if member is None or member.link is None:
                return member
            name = member.link
        raise HostileArchive(f"{self._what}: the links of {name!r} lead nowhere")


class _Window(io.RawIOBase):
    """One range of a file, read by position: several may be open at once."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")[: self._left]
        count = os.preadv(self._descriptor, [view], self._offset) if len(view) else 0
        self._offset += count
        self._left -= count
        return count


def _window(file: BinaryIO, member: Member) -> BinaryIO:
    return io.BufferedReader(_Window(file.fileno(), member.offset, member.size), 1 << 16)


def list_members(file: BinaryIO, what: str) -> dict[str, Member]:
    """All regular members and links of the tar archive `file`, by cleaned name.

    Raises `HostileArchive` for damage, for a name that leaves the archive, for a duplicate name,
    and beyond the bounds.
    """
    end = file.seek(0, io.SEEK_END)
    found: dict[str, Member] = {}
    position = count = 0
    extended: dict[str, str] = {}
    while position + _BLOCK <= end:
        file.seek(position)
        header = file.read(_BLOCK)
        if not header.strip(b"\0"):
            break
        _check(header, what)
        size = _number(header[124:136], what)
        kind = header[156:157]
        data = position + _BLOCK
        position = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        count += 1
        if data + size > end:
            raise HostileArchive(f"{what}: a member of the archive is cut off")
        if count > _MEMBERS:
            raise HostileArchive(f"{what}: more than {_MEMBERS} members in the archive")
        if kind in (b"x", b"L", b"K", b"g"):
            if size > _HEADER:
                raise HostileArchive(f"{what}: a header of {size} bytes in the archive")
            file.seek(data)
            if kind != b"g":
                extended |= _extended(kind, file.read(size), what)
            continue
        if "size" in extended:
            size = int(extended["size"])
            position = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
            if data + size > end:
                raise HostileArchive(f"{what}: a member of the archive is cut off")
        name = extended.get("path") or _name(header)
        link = extended.get("linkpath") or _text(header[157:257])
        extended = {}
        if kind in (b"0", b"\0", b"7", b"1", b"2"):
            name = _clean(name, what)
            if name in found:
                raise HostileArchive(f"{what}: {name!r} is in the archive twice")
            found[name] = Member(data, size, _target(name, kind, link, what))
    return found


def _target(name: str, kind: bytes, link: str, what: str) -> str | None:
    if kind == b"1":
        return _clean(link, what)
    if kind == b"2":
        return _clean(posixpath.join(posixpath.dirname(name), link), what)
    return None


def _clean(name: str, what: str) -> str:
    cleaned = posixpath.normpath(name)
    if name.startswith("/") or cleaned == ".." or cleaned.startswith("../") or not name:
        raise HostileArchive(f"{what}: the name {name!r} leaves the archive")
    return cleaned


def _check(header: bytes, what: str) -> None:
    claimed = _number(header[148:156], what)
    if claimed != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise HostileArchive(f"{what}: not a tar archive, or damaged (checksum of a header)")


def _number(field: bytes, what: str) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        value = int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise HostileArchive(f"{what}: not a tar archive, or damaged (a number in a header)")
    return value


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _extended(kind: bytes, data: bytes, what: str) -> dict[str, str]:
    if kind in (b"L", b"K"):
        return {"path" if kind == b"L" else "linkpath": _text(data)}
    found: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        known = space and length.isdigit() and len(length) < 10
        if not known or not len(length) < int(length) <= len(data):
            raise HostileArchive(f"{what}: a damaged extended header in the archive")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"size" and not (value.isdigit() and len(value) < 20):
            raise HostileArchive(f"{what}: a damaged extended header in the archive")
        if key in (b"path", b"linkpath", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found
