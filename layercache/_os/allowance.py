"""How many bytes all that one build unpacks and fetches may come to."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast, runtime_checkable

from layercache.errors import HostileArchive

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Allows", "UnpackAllowance"]

_CHUNK: Final = 1 << 18


class UnpackAllowance:
    """Counts bytes against one bound for a whole build. Safe for threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return self._limit - self._used

    def take(self, size: int, what: str) -> None:
        """Count `size` bytes of `what`; raises `HostileArchive` where that is too much."""
        with self._lock:
            if self._used + size <= self._limit:
                self._used += size
                return
        raise HostileArchive(
            f"{what}: all that this build unpacks and fetches would be more than "
            f"{self._limit:,} bytes; if this is intended, allow more with --max-unpacked-size "
            "(max_unpacked_size=)"
        )

    def counted(self, source: BinaryIO, what: str) -> BinaryIO:
        """`source`, whose bytes are taken as they are read; closing it closes `source`."""
        return cast(BinaryIO, io.BufferedReader(_Counted(source, self, what), _CHUNK))


@runtime_checkable
class Allows(Protocol):
    """Optional for the window of a step: what the step unpacks has a bound."""

    @property
    def allowance(self) -> UnpackAllowance: ...


class _Counted(io.RawIOBase):
    def __init__(self, source: BinaryIO, allowance: UnpackAllowance, what: str) -> None:
        self._source = source
        self._allowance = allowance
        self._what = what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        self._allowance.take(len(data), self._what)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
