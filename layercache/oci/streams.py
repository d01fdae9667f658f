"""Streams that check digest and size while they are read, and bounded reads."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO, Final

from layercache.errors import HostileArchive
from layercache.layers.limits import DEFAULT_LIMITS
from layercache.model.digests import Digest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Checked", "read_bounded"]

CHUNK: Final = 256 * 1024


class Checked(io.RawIOBase):
    """Reads `source` and raises `HostileArchive` at its end unless digest and size are right.

    The error replaces the end of file, so a consumer that copies until the end can't take wrong
    bytes for a complete blob. `size` None leaves the size open, up to `limit` bytes. Closing also
    closes `source` and `closes`.
    """

    def __init__(
        self,
        source: BinaryIO,
        digest: Digest,
        size: int | None,
        *,
        what: str,
        limit: int = DEFAULT_LIMITS.size,
        closes: BinaryIO | None = None,
    ) -> None:
        self._source = source
        self._closes = closes
        self._digest = digest
        self._size = size
        self._what = what
        self._limit = limit if size is None else size
        self._hash = hashlib.sha256()
        self.count = 0
        """Bytes read so far."""
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if self._done or not len(view):
            return 0
        data = self._source.read(len(view))
        self.count += len(data)
        if self.count > self._limit:
            raise HostileArchive(f"{self._what}: longer than {self._limit} bytes")
        if data:
            self._hash.update(data)
            view[: len(data)] = data
            return len(data)
        if self._size is not None and self.count != self._size:
            raise HostileArchive(
                f"{self._what}: {self.count} bytes instead of {self._size}; "
                "the image is damaged, fetch it again"
            )
        found = "sha256:" + self._hash.hexdigest()
        if found != self._digest:
            raise HostileArchive(
                f"{self._what}: its digest is {found} instead of {self._digest}; "
                "the image is damaged, fetch it again"
            )
        self._done = True
        return 0

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            if self._closes is not None:
                self._closes.close()
        super().close()


def read_bounded(source: BinaryIO, limit: int, *, what: str) -> bytes:
    """All of `source`, at most `limit` bytes; raises `HostileArchive` beyond; closes it."""
    with source:
        parts = []
        total = 0
        while data := source.read(min(CHUNK, limit + 1 - total)):
            parts.append(data)
            total += len(data)
            if total > limit:
                raise HostileArchive(f"{what}: longer than {limit} bytes")
    return b"".join(parts)
