"""The protocol between the build and its helper process: typed values in length-prefixed frames.

Plain data only, over a private socket pair. Implemented here so that the helper, which is started
for each build, imports nothing for it.
"""

from __future__ import annotations

__all__ = ["decode", "encode", "receive", "send"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol, TypeAlias

    Sendable: TypeAlias = (
        "bool | int | bytes | str | Sequence[Sendable] | Mapping[str, Sendable] | None"
    )

    class Stream(Protocol):
        """The two methods used of a socket."""

        def recv(self, size: int, /) -> bytes: ...
        def sendall(self, data: bytes, /) -> None: ...


MAX_FRAME = 1 << 30
"""Bytes of one frame; here-documents and secrets are the largest things in one."""


def encode(value: Sendable) -> bytes:
    """`value` as bytes."""
    if value is None:
        return b"n"
    if value is True:
        return b"t"
    if value is False:
        return b"f"
    if isinstance(value, int):
        return b"i%d;" % value
    if isinstance(value, bytes):
        return b"b%d;" % len(value) + value
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return b"s%d;" % len(data) + data
    if isinstance(value, dict):
        flat = [part for pair in value.items() for part in (encode(pair[0]), encode(pair[1]))]
        return b"d%d;" % len(value) + b"".join(flat)
    if isinstance(value, list | tuple):
        return b"l%d;" % len(value) + b"".join([encode(item) for item in value])
    raise TypeError(f"can't send {type(value).__name__}")


def decode(data: bytes):  # type: ignore[no-untyped-def]  # the shape is the sender's to know
    """The value that `encode` made; sequences come back as lists."""
    value, end = _decode(data, 0)
    if end != len(data):
        raise ValueError("a frame is longer than its value")
    return value


def _decode(data: bytes, at: int):  # type: ignore[no-untyped-def]
    kind = data[at : at + 1]
    if kind in b"ntf":
        return {b"n": None, b"t": True, b"f": False}[kind], at + 1
    end = data.index(b";", at)
    number = int(data[at + 1 : end])
    at = end + 1
    if kind == b"i":
        return number, at
    if kind == b"b":
        return data[at : at + number], at + number
    if kind == b"s":
        return data[at : at + number].decode("utf-8", "surrogateescape"), at + number
    items = []
    for _ in range(number * 2 if kind == b"d" else number):
        item, at = _decode(data, at)
        items.append(item)
    if kind == b"d":
        return dict(zip(items[::2], items[1::2], strict=True)), at
    return items, at


def send(stream: Stream, value: Sendable) -> None:
    """Send one frame."""
    data = encode(value)
    stream.sendall(b"%010d" % len(data) + data)


def receive(stream: Stream):  # type: ignore[no-untyped-def]
    """The next value; None if the other side is gone."""
    head = _exactly(stream, 10)
    if head is None:
        return None
    size = int(head)
    if size > MAX_FRAME:
        raise ValueError("a frame is too long")
    data = _exactly(stream, size)
    return None if data is None else decode(data)


def _exactly(stream: Stream, size: int) -> bytes | None:
    parts = []
    while size:
        part = stream.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
