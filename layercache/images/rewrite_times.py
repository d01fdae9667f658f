"""Clamp the times in a layer: no entry is newer than a given second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from layercache.errors import HostileArchive

__all__ = ["clamped"]

_BLOCK: Final = 512
_CHUNK: Final = 256 * 1024
_HEADER_LIMIT: Final = 1 << 20


def clamped(layer: BinaryIO, epoch: int) -> Iterator[bytes]:
    """The uncompressed tar `layer` with each modification time at most `epoch` (seconds since
    1970); everything else is unchanged. Raises `HostileArchive` for data that is not a tar.
    """
    size_override: int | None = None
    while True:
        header = _exactly(layer, _BLOCK)
        if not header.strip(b"\0"):
            yield header
            break
        size = _number(header[124:136])
        kind = header[156:157]
        if kind == b"x":
            if size > _HEADER_LIMIT:
                raise HostileArchive(f"a header of {size} bytes in a layer")
            body = _exactly(layer, _padded(size))[:size]
            records = _records(body)
            found = [value for key, value in records if key == b"size"]
            size_override = int(found[-1]) if found else None
            body = b"".join(_record(key, _earlier(key, value, epoch)) for key, value in records)
            yield _patched(header, len(body), min(_number(header[136:148]), epoch))
            yield body.ljust(_padded(len(body)), b"\0")
            continue
        if size_override is not None:
            size, size_override = size_override, None
        yield _patched(header, None, min(_number(header[136:148]), epoch))
        left = _padded(size) if kind not in b"123456" else 0
        while left:
            data = layer.read(min(_CHUNK, left))
            if not data:
                raise HostileArchive("a layer ends in the middle of a file")
            left -= len(data)
            yield data
    while data := layer.read(_CHUNK):
        yield data


def _padded(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _exactly(layer: BinaryIO, size: int) -> bytes:
    parts = []
    while size:
        data = layer.read(size)
        if not data:
            raise HostileArchive("a layer ends too early")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1) if field[0] == 0x80 else -1
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise HostileArchive("a damaged number in the header of a layer") from None


def _patched(header: bytes, size: int | None, mtime: int) -> bytes:
    """`header` with another size and time, and the matching checksum."""
    unchanged = size is None and _number(header[136:148]) == mtime
    if unchanged or mtime < 0:
        return header
    new_size = header[124:136] if size is None else b"%011o\0" % size
    blank = header[:124] + new_size + b"%011o\0" % mtime + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def _records(body: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while body:
        length, space, _ = body.partition(b" ")
        known = space and length.isdigit() and len(length) < 10
        if not known or not len(length) < int(length) <= len(body):
            raise HostileArchive("a damaged extended header in a layer")
        key, _, value = body[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"size" and not (value.isdigit() and len(value) < 20):
            raise HostileArchive("a damaged extended header in a layer")
        found.append((key, value))
        body = body[int(length) :]
    return found


def _earlier(key: bytes, value: bytes, epoch: int) -> bytes:
    if key not in (b"mtime", b"atime", b"ctime"):
        return value
    try:
        return b"%d" % epoch if float(value) > epoch else value
    except ValueError:
        raise HostileArchive("a damaged time in a layer") from None


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
