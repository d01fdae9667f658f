"""The bytes of tar headers: ustar blocks and pax records, in the writer's form."""

from __future__ import annotations

__all__ = ["ascii_tail", "header_block", "pax_record", "split_name"]


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
