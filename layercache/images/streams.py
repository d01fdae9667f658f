"""Streams that check while they are read: digest and size, and bounded decompression."""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache.digests import Digest
from layercache.errors import HostileArchive, MissingExtra

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Checked", "Limits", "decompressed", "read_bounded"]

CHUNK: Final = 256 * 1024


class Limits:
    """Bounds on what one layer may become. `ratio` counts beyond the first `grace` bytes."""

    size: Final = 64 << 30
    ratio: Final = 1100
    """What gzip can reach on zeros, rounded up; only other codecs go beyond."""
    grace: Final = 64 << 20


class Checked(io.RawIOBase):
    """Reads `source` and raises `HostileArchive` at its end unless digest and size are right.

    The error comes instead of the end of file, so a consumer that copies until the end can't
    take wrong bytes for complete ones. `size` None leaves the size open, up to `limit` bytes.
    """

    def __init__(
        self,
        source: BinaryIO,
        digest: Digest,
        size: int | None,
        *,
        what: str,
        limit: int = Limits.size,
    ) -> None:
        self._source = source
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
        super().close()


class _Decompressor(io.RawIOBase):
    """Inflates a gzip (or zstd) stream of any number of members, within bounds."""

    def __init__(self, source: BinaryIO, kind: str, what: str, head: bytes) -> None:
        self._source = source
        self._kind = kind
        self._what = what
        self._input = head
        self._read_bytes = len(head)
        self._made = 0
        self._zstd = _zstd() if kind == "zstd" else None
        self._damage: type[Exception] = self._zstd.ZstdError if self._zstd else zlib.error
        self._object = self._fresh()
        self._done = False

    def _fresh(self) -> Any:
        return self._zstd.ZstdDecompressor() if self._zstd else zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def _more(self) -> bytes:
        data = self._source.read(CHUNK)
        self._read_bytes += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        while not self._done:
            data = self._step(len(view))
            if data:
                self._made += len(data)
                allowed = Limits.grace + self._read_bytes * Limits.ratio
                if self._made > min(allowed, Limits.size):
                    raise HostileArchive(f"{self._what}: inflates beyond all bounds")
                view[: len(data)] = data
                return len(data)
        return 0

    def _step(self, room: int) -> bytes:
        """Some output, or nothing when the input has to go on; sets `_done` at the end."""
        if self._object.eof:
            rest = self._object.unused_data or self._input or self._more()
            # Padding of zeros after the last member is what tools like tar leave behind.
            while rest and not rest.strip(b"\0"):
                rest = self._more()
            self._input = rest
            if not rest:
                self._done = True
                return b""
            self._object = self._fresh()
        if not self._input and self._needs_input():
            self._input = self._more()
            if not self._input:
                raise HostileArchive(f"{self._what}: the compressed data ends too early")
        try:
            return self._inflate(room)
        except self._damage as error:
            raise HostileArchive(f"{self._what}: damaged compressed data ({error})") from error

    def _needs_input(self) -> bool:
        return self._zstd is None or bool(self._object.needs_input)

    def _inflate(self, room: int) -> bytes:
        data, self._input = self._input, b""
        if self._zstd:
            return bytes(self._object.decompress(data, max_length=room))
        out = self._object.decompress(data, room)
        self._input = self._object.unconsumed_tail
        return bytes(out)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def decompressed(source: BinaryIO, *, what: str) -> BinaryIO:
    """`source` inflated when it begins like gzip or zstd, else as it is.

    What it is is read from its first bytes, not from its media type: images exist whose media
    type is wrong. Raises `HostileArchive` for damaged data and beyond bounds, `MissingExtra`
    for zstd without the extra.
    """
    head = b""
    while len(head) < 4 and (more := source.read(4 - len(head))):
        head += more
    if head[:2] == b"\x1f\x8b":
        return cast(BinaryIO, _Decompressor(source, "gzip", what, head))
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return cast(BinaryIO, _Decompressor(source, "zstd", what, head))
    return cast(BinaryIO, _Prefixed(head, source))


class _Prefixed(io.RawIOBase):
    """Some bytes that were read ahead, then the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._head[: len(view)] if self._head else self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._rest.close()
        super().close()


def _zstd() -> Any:
    """Python's zstd module, or the same from the extra."""
    import importlib

    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtra("a layer compressed with zstd", "zstd")


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
