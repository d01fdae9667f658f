"""The bytes of tar headers: ustar blocks and pax records, in the writer's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from layercache.errors import UsageError

if TYPE_CHECKING:
    from layercache.model.tree import Node

__all__ = [
    "BLOCK",
    "ascii_tail",
    "header_block",
    "is_plain",
    "pax_record",
    "special_blocks",
    "split_name",
]

BLOCK: Final = 512
_OCTAL_7: Final = 0o7777777
_OCTAL_11: Final = 0o77777777777


def split_name(name: bytes) -> tuple[bytes, bytes | None]:
    """The ustar prefix and name of a path; the name is None if it needs a pax record."""
    if not name.isascii():
        return b"", None
    if len(name) <= 100:
        return b"", name
    at = name.rfind(b"/", 0, 156)
    if at <= 0 or not 0 < len(name) - at - 1 <= 100:
        return b"", None
    return name[:at], name[at + 1 :]


def ascii_tail(name: bytes) -> bytes:
    """The end of a name for a header field that a pax record overrides."""
    return bytes(byte if byte < 128 else 95 for byte in name[-100:])


def pax_record(key: bytes, value: bytes) -> bytes:
    """A pax record, `length key=value\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def header_block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
    device: tuple[int, int],
    prefix: bytes,
) -> bytes:
    """A ustar header with any field set."""
    head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        mode,
        uid,
        gid,
        size,
        mtime,
    )
    rest = (
        kind
        + link.ljust(100, b"\0")
        + b"ustar\00000"
        + bytes(64)
        + b"%07o\0%07o\0" % device
        + prefix.ljust(155, b"\0")
        + bytes(12)
    )
    return head + b"%06o\0 " % (sum(head) + sum(rest) + 8 * 32) + rest


def is_plain(name: bytes, node: Node, size: int, link: bytes) -> bool:
    """Whether the header of an entry is one block with short ASCII names and small numbers."""
    return not (
        len(name) > 100
        or len(link) > 100
        or node.xattrs
        or not 0 <= node.mtime <= _OCTAL_11
        or size > _OCTAL_11
        or node.uid > _OCTAL_7
        or node.gid > _OCTAL_7
        or not name.isascii()
        or not link.isascii()
        or node.device != (0, 0)
    )


def special_blocks(name: bytes, kind: bytes, node: Node, size: int, link: bytes) -> list[bytes]:
    """The header of any entry, with a pax header before it where ustar can't hold a value.

    Raises `UsageError` for what no archive can hold.
    """
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
    blocks = _pax(name, records) if records else []
    if max(node.device) > _OCTAL_7:
        raise UsageError(f"device numbers of {name!r} are too big for an archive")
    mode = 0o777 if kind == b"2" else node.mode & 0o7777
    blocks.append(header_block(short, mode, uid, gid, size, mtime, kind, link, node.device, prefix))
    return blocks


def _pax(name: bytes, records: list[tuple[bytes, bytes]]) -> list[bytes]:
    for key, _ in records:
        if b"=" in key or b"\0" in key:
            raise UsageError(f"attribute {key!r} of {name!r} can't be put into an archive")
    body = b"".join(pax_record(key, value) for key, value in sorted(records))
    label = b"PaxHeaders/" + ascii_tail(name.rstrip(b"/").rpartition(b"/")[2])[-80:]
    blocks = [header_block(label, 0o644, 0, 0, len(body), 0, b"x", b"", (0, 0), b"")]
    for start in range(0, len(body), BLOCK):
        blocks.append(body[start : start + BLOCK].ljust(BLOCK, b"\0"))
    return blocks
