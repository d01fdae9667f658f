"""Verified reading of blobs: the last bytes are delivered only after the check."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import BinaryIO, Final

from layercache.errors import CacheError, CorruptObject
from layercache.model.digests import Digest

__all__ = ["VerifyingReader"]

_CHUNK: Final = 1 << 18


class VerifyingReader(io.RawIOBase):
    """Reads a blob and raises `CorruptObject` at its end unless size and digest are right.

    The last bytes are delivered only after the check, so a consumer that has read all bytes knows
    that they are right; until then, nothing is known. `size` None takes the source's own length, if
    any.
    """

    def __init__(
        self,
        source: BinaryIO,
        digest: Digest,
        size: int | None = None,
        on_end: Callable[[CacheError | None], None] | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._digest = digest
        self._expected = size
        self._size = _length(source) if size is None else size
        self._on_end = on_end
        self._seen = 0
        self._hasher = hashlib.sha256()
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while data := self.read(_CHUNK):
            parts.append(data)
        return b"".join(parts)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if size == 0:
            return b""
        data = self._take(size)
        if not data or self._seen == self._size:
            # One more look, so that bytes past the end are seen too.
            self._finish(trailing=bool(data and self._take(1)))
        elif self._expected is not None and self._seen > self._expected:
            self._finish(trailing=True)
        return data

    def _take(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except Exception as error:
            failure = CacheError(f"blob {self._digest} can't be read: {error}")
            self._tell(failure)
            raise failure from error
        self._seen += len(data)
        self._hasher.update(data)
        return data

    def _finish(self, trailing: bool) -> None:
        if self._done and not trailing:
            return
        self._done = True
        intact = (
            not trailing
            and self._expected in (None, self._seen)
            and "sha256:" + self._hasher.hexdigest() == self._digest
        )
        if not intact:
            failure = CorruptObject(
                f"blob {self._digest} is damaged: its bytes have another digest"
            )
            self._tell(failure)
            raise failure
        self._tell(None)

    def _tell(self, how: CacheError | None) -> None:
        if self._on_end is not None:
            self._on_end(how)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _length(source: BinaryIO) -> int | None:
    try:
        if isinstance(source, io.BytesIO):
            return source.getbuffer().nbytes
        return os.fstat(source.fileno()).st_size
    except (OSError, AttributeError, ValueError):
        return None
