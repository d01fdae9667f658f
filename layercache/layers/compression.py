"""Decompression by content: gzip, bzip2, xz and zstd, within bounds."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache.errors import HostileArchive, MissingExtra
from layercache.layers.limits import DEFAULT_LIMITS, Limits
from layercache.layers.tar_headers import BLOCK, looks_like_tar

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["compression_of", "decompressed"]

CHUNK: Final = 256 * 1024
_MEMORY: Final = 256 << 20
"""The maximum memory of an xz decoder in bytes; `xz -9` needs 65 MiB."""

_MAGICS: Final = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),  # a level and the magic of a block follow, see `compression_of`
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_BLOCKS: Final = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
"""The magics of a bzip2 block and of the end of an empty stream."""

LONGEST: Final = 10
"""The number of bytes that identify the compression."""


def compression_of(head: bytes) -> str | None:
    """The name of the compression of data that begins with `head`, None for none."""
    for magic, name in _MAGICS:
        if head.startswith(magic):
            if name == "bzip2" and not (head[3:4] in b"123456789" and head[4:10] in _BLOCKS):
                return None  # a name in a tar may begin with the same three letters
            return name
    return None


def decompressed(
    source: BinaryIO, *, limits: Limits = DEFAULT_LIMITS, what: str = "archive"
) -> BinaryIO:
    """`source` decompressed, or unchanged if it has no known compression.

    Data that begins with a valid tar header is a tar, whatever its first name looks like.
    Raises `HostileArchive` (now, or while it is read) for damaged data and beyond bounds,
    `MissingExtra` for zstd without the extra. The caller closes `source`.
    """
    head = b""
    while len(head) < BLOCK and (more := source.read(BLOCK - len(head))):
        head += more
    kind = None if looks_like_tar(head) else compression_of(head)
    raw: io.RawIOBase
    raw = _Prefixed(head, source) if kind is None else _Inflated(head, source, kind, limits, what)
    return cast(BinaryIO, io.BufferedReader(raw, CHUNK))


class _Prefixed(io.RawIOBase):
    """Bytes that were read ahead, then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
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


class _Inflated(io.RawIOBase):
    """The content of a compressed stream of one or more members."""

    def __init__(self, head: bytes, source: BinaryIO, kind: str, limits: Limits, what: str) -> None:
        self._source = source
        self._kind = kind
        self._limits = limits
        self._what = what
        self._input = head
        self._taken = len(head)
        self._made = 0
        self._fresh, self._damage = _codec(kind)
        self._object = self._fresh()
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while len(view) and not self._done:
            data = self._step(len(view))
            if data:
                self._made += len(data)
                allowed = self._limits.grace + self._taken * self._limits.ratio
                if self._made > min(allowed, self._limits.size):
                    raise HostileArchive(
                        f"{self._what}: inflates to more than {min(allowed, self._limits.size)} "
                        f"bytes ({self._taken} bytes read); refused as a decompression bomb"
                    )
                view[: len(data)] = data
                return len(data)
        return 0

    def _more(self) -> bytes:
        data = self._source.read(CHUNK)
        self._taken += len(data)
        return data

    def _step(self, room: int) -> bytes:
        """Some output, or nothing if more input is needed; sets `_done` at the end."""
        if self._object.eof:
            rest = self._object.unused_data or self._input or self._more()
            # Zeros after the last member are padding, as tools for tapes leave it.
            while rest and not rest.strip(b"\0"):
                rest = self._more()
            self._input = rest
            if not rest:
                self._done = True
                return b""
            self._object = self._fresh()
        if not self._input and getattr(self._object, "needs_input", True):
            self._input = self._more()
            if not self._input:
                raise HostileArchive(f"{self._what}: the {self._kind} data ends too early")
        data, self._input = self._input, b""
        try:
            out = self._object.decompress(data, room)
        except self._damage as error:
            raise HostileArchive(f"{self._what}: damaged {self._kind} data ({error})") from error
        # Only zlib's objects return the input that they did not use.
        self._input = getattr(self._object, "unconsumed_tail", b"")
        return bytes(out)


def _codec(kind: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """A function that makes a decompressor, and the errors that mean damage."""
    if kind == "gzip":
        import zlib

        return lambda: zlib.decompressobj(wbits=31), (zlib.error,)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, ValueError)
    if kind == "xz":
        import lzma

        def fresh() -> lzma.LZMADecompressor:
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)

        return fresh, (lzma.LZMAError,)
    zstd = _zstd()
    return zstd.ZstdDecompressor, (zstd.ZstdError,)


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise MissingExtra("an archive compressed with zstd", "zstd") from None
    return zstd
