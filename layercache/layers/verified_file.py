"""The bytes of one file of a layer, checked against its digest while they are read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

from layercache.errors import CorruptObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Verified"]


class Verified(io.RawIOBase):
    """`source` up to `size` bytes; its end raises `CorruptObject` unless the digest matches.

    The error replaces the end of file, so that a consumer that copies to the end can't take wrong
    bytes for right ones. Closing also closes `source`, if `owned`.
    """

    def __init__(
        self, source: BinaryIO, content: bytes, size: int, path: bytes, *, owned: bool = True
    ) -> None:
        self._source = source
        self._owned = owned
        self._content = content
        self._left = size
        self._path = path
        self._hasher = blake3()
        self._checked = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not self._left:
            if len(view) and not self._checked:
                self._check()
            return 0
        room = min(len(view), self._left)
        readinto = getattr(self._source, "readinto", None)
        if readinto is not None:
            got = readinto(view[:room]) or 0
        else:
            data = self._source.read(room)
            got = len(data)
            view[:got] = data
        if not got and room:
            raise self._damage("is cut off")
        self._hasher.update(view[:got])
        self._left -= got
        return got

    def _check(self) -> None:
        if self._hasher.digest() != self._content:
            raise self._damage("does not match its digest")
        self._checked = True

    def _damage(self, what: str) -> CorruptObject:
        name = self._path.decode("utf-8", "backslashreplace")
        return CorruptObject(f"the content of {name!r} in a layer {what}")

    def close(self) -> None:
        if self._owned and not self.closed:
            self._source.close()
        super().close()
