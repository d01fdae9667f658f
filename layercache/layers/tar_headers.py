"""The headers of a tar, one after the other: ustar, pax, GNU long names, base-256 numbers.

Only the format is checked here (checksums, lengths, numbers); the reader judges names and types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from layercache._base.classes import frozen
from layercache.errors import HostileArchive
from layercache.layers.limits import Limits

__all__ = ["Header", "Headers", "looks_like_tar", "shown"]

BLOCK: Final = 512
_ZERO: Final = bytes(BLOCK)
_XATTR: Final = b"SCHILY.xattr."
_MTIME: Final = re.compile(rb"(-?[0-9]{1,18})(?:\.[0-9]*)?")
_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,9}) ")
_MEANINGFUL: Final = frozenset(
    (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"hdrcharset", b"charset")
)
_OCTAL_MAX: Final = 0o77777777777
"""The largest size that a header can hold without pax."""

_MAX_ID: Final = 0xFFFFFFFE
"""The largest number of an account; Linux reads the next one as "leave unchanged"."""


@frozen
class Header:
    """One entry of a tar according to its headers; `kind` is the type flag."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]


class Headers:
    """Iterates over the headers of `source`, skipping the content that was not `consumed`."""

    def __init__(self, source: BinaryIO, limits: Limits, what: str) -> None:
        self._source = source
        self._limits = limits
        self._what = what
        self.offset = 0
        """The offset of the next byte of `source`."""
        self._content = 0
        self._pad = 0
        self._total = 0
        self._metadata = 0

    def consumed(self, count: int) -> None:
        """Report that `count` bytes of the current entry's content were read from the source."""
        self.offset += count
        self._content -= count

    def __iter__(self) -> Iterator[Header]:
        entries = 0
        while True:
            self._skip(self._content + self._pad)
            self._content = self._pad = 0
            header = self._next()
            if header is None:
                return
            entries += 1
            if entries > self._limits.entries:
                raise self._error(f"holds more than {self._limits.entries} entries")
            self._metadata += len(header.name) + len(header.link)
            self._metadata += sum(len(key) + len(value) for key, value in header.xattrs)
            if self._metadata > self._limits.metadata:
                raise self._error(
                    f"holds more than {self._limits.metadata} bytes of names and attributes"
                )
            self._total += header.size
            if self._total > self._limits.size:
                raise self._error(f"holds more than {self._limits.size} bytes of content")
            self._content = header.size
            self._pad = -header.size % BLOCK
            yield header

    def _error(self, why: str) -> HostileArchive:
        return HostileArchive(f"{self._what}: {why}; nothing was unpacked")

    def _read(self, count: int) -> bytes:
        data = self._source.read(count)
        while len(data) < count:
            more = self._source.read(count - len(data))
            if not more:
                break
            data += more
        self.offset += len(data)
        return data

    def _skip(self, count: int) -> None:
        while count:
            data = self._read(min(count, 1 << 18))
            if not data:
                raise self._error("the archive is cut off")
            count -= len(data)

    def _next(self) -> Header | None:
        """The next header, merged with the pax and GNU headers before it; None at the end."""
        pax: dict[bytes, bytes] = {}
        name = link = b""
        extended = 0
        while True:
            block = self._read(BLOCK)
            if block == _ZERO:
                if extended:
                    raise self._error("an extended header has no entry")
                self._check_end()
                return None
            if len(block) < BLOCK:
                raise self._error("the archive is cut off")
            kind = block[156:157]
            self._check_sum(block)
            if kind not in b"xgLK":
                return self._header(block, pax, name, link)
            size = self._number(block[124:136], "size")
            extended += size + BLOCK
            if extended > self._limits.header:
                raise self._error(f"extended headers of more than {self._limits.header} bytes")
            body = self._read(size)
            if len(body) < size:
                raise self._error("the archive is cut off")
            self._skip(-size % BLOCK)
            if kind == b"x":
                if pax:
                    raise self._error("an entry has two pax headers")
                pax = self._records(body)
            elif kind == b"g":
                self._check_global(body)
            elif kind == b"L":
                name = self._text(body.removesuffix(b"\0"), "long name")
            else:
                link = self._text(body.removesuffix(b"\0"), "long link")

    def _check_end(self) -> None:
        """Check that only zeros follow the first block of zeros."""
        while data := self._read(1 << 18):
            if data.strip(b"\0"):
                raise self._error("there is data behind the end of the archive")

    # -- fields -----------------------------------------------------------------------------

    def _check_sum(self, block: bytes) -> None:
        if not _sum_is_right(block):
            raise self._error(f"a header at byte {self.offset - BLOCK} has a wrong checksum")

    def _number(self, field: bytes, what: str) -> int:
        if field[0] & 0x80:
            if field[0] != 0x80:
                raise self._error(f"a header has a negative {what}")
            value = int.from_bytes(field[1:], "big")
            if value >= 1 << 62:
                raise self._error(f"a header has an impossible {what}")
            return value
        text = field.partition(b"\0")[0].strip(b" ")
        if not text:
            return 0
        try:
            if text.isdigit():
                return int(text, 8)
        except ValueError:
            pass
        raise self._error(f"a header has a {what} that is not a number: {shown(text)}")

    def _time(self, field: bytes) -> int:
        if field[0] == 0xFF:  # base-256, before 1970
            return max(int.from_bytes(field, "big", signed=True), -(1 << 62))
        return self._number(field, "time")

    def _text(self, value: bytes, what: str) -> bytes:
        if not value or b"\0" in value:
            raise self._error(f"a {what} is empty or holds a NUL byte")
        return value

    def _header(self, block: bytes, pax: dict[bytes, bytes], name: bytes, link: bytes) -> Header:
        kind = block[156:157]
        if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
            raise self._error(
                f"{shown(block[:100].partition(bytes(1))[0])} is stored as a sparse file, which is "
                "not supported: make the archive without --sparse"
            )
        if not name:
            name = block[:100].partition(b"\0")[0]
            if block[257:263] == b"ustar\0":
                prefix = block[345:500].partition(b"\0")[0]
                if prefix:
                    name = prefix + b"/" + name
        if not link:
            link = block[157:257].partition(b"\0")[0]
        size = self._number(block[124:136], "size")
        uid = self._number(block[108:116], "uid")
        gid = self._number(block[116:124], "gid")
        mtime = self._time(block[136:148])
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        if pax:
            name = pax.get(b"path", name)
            link = pax.get(b"linkpath", link)
            if b"size" in pax:
                said = self._decimal(pax, b"size", size)
                # If the header could hold the size, readers without pax would see other entries.
                if said != size and said <= _OCTAL_MAX:
                    raise self._error(f"{shown(name)} has two sizes, {size} and {said}")
                size = said
            uid = self._decimal(pax, b"uid", uid)
            gid = self._decimal(pax, b"gid", gid)
            if b"mtime" in pax:
                found = _MTIME.fullmatch(pax[b"mtime"])
                if not found:
                    raise self._error(
                        f"a pax header has a time that is not a number ({shown(name)})"
                    )
                mtime = int(found[1])
            pairs = [
                (key[len(_XATTR) :], value) for key, value in pax.items() if key.startswith(_XATTR)
            ]
            xattrs = tuple(sorted(pairs))
            if any(not key or b"\0" in key or len(key) > 255 for key, _ in xattrs):
                raise self._error(f"an extended attribute of {shown(name)} has an impossible name")
        if uid > _MAX_ID or gid > _MAX_ID:
            raise self._error(f"{shown(name)} has an impossible owner")
        device = (0, 0)
        if kind in (b"3", b"4"):
            device = (
                self._number(block[329:337], "device number"),
                self._number(block[337:345], "device number"),
            )
            if device[0] >= 1 << 12 or device[1] >= 1 << 20:
                raise self._error(f"{shown(name)} has impossible device numbers")
        return Header(
            name,
            kind,
            self._number(block[100:108], "mode"),
            uid,
            gid,
            size,
            mtime,
            link,
            device,
            xattrs,
        )

    def _decimal(self, pax: dict[bytes, bytes], key: bytes, default: int) -> int:
        text = pax.get(key)
        if text is None:
            return default
        if not text.isdigit() or len(text) > 18:
            raise self._error(f"a pax header has an impossible {key.decode()}: {shown(text[:40])}")
        return int(text)

    def _records(self, body: bytes) -> dict[bytes, bytes]:
        """The records `length key=value\\n` of a pax header, each key once."""
        records: dict[bytes, bytes] = {}
        at = 0
        while at < len(body):
            found = _LENGTH.match(body, at)
            if not found:
                raise self._error("a pax record has no length")
            end = at + int(found[1])
            record = body[found.end() : end]
            key, equals, value = record[:-1].partition(b"=")
            if end > len(body) or not record.endswith(b"\n") or not equals or not key:
                raise self._error("a pax record has a wrong length or form")
            if key in records:
                raise self._error(f"a pax header says {shown(key[:60])} twice")
            if key in (b"path", b"linkpath"):
                self._text(value, "pax path")
            records[key] = value
            at = end
        return records

    def _check_global(self, body: bytes) -> None:
        """Accept comments in global headers (git archive); refuse records that would change
        entries.
        """
        for key in self._records(body):
            if key in _MEANINGFUL or key.startswith((_XATTR, b"GNU.sparse.")):
                raise self._error(f"a global header sets {shown(key[:60])} for all entries")


def shown(name: bytes) -> str:
    """A name for a message: on one line, and shortened."""
    text = name.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 100 else text[:97] + "...")


def looks_like_tar(head: bytes) -> bool:
    """Whether data that begins with `head` (its first 512 bytes) is a non-empty tar."""
    return len(head) == BLOCK and head != _ZERO and _sum_is_right(head)


def _sum_is_right(block: bytes) -> bool:
    field = block[148:156]
    text = field.strip(b"\0 ")
    if not text.isdigit():
        return False
    try:
        said = int(text, 8)
    except ValueError:
        return False
    total = sum(block) - sum(field) + 8 * 32
    # Some old writers summed signed bytes; readers have always accepted both.
    return said == total or said == total - 256 * sum(1 for byte in block if byte > 127)
