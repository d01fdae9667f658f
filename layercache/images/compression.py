"""Compression of layers for transfer: gzip or zstd, deterministic for each codec."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, Final

from layercache.errors import MissingExtra
from layercache.model.descriptors import LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD, Descriptor
from layercache.model.digests import Digest

__all__ = ["MEDIA_TYPES", "write_compressed"]

MEDIA_TYPES: Final = {
    "uncompressed": LAYER_TAR,
    "gzip": LAYER_TAR_GZIP,
    "zstd": LAYER_TAR_ZSTD,
}
_GZIP_LEVEL: Final = 6
_FAST_LEVEL: Final = 2
_ZSTD_LEVEL: Final = 3
_GZIP_BITS: Final = 31
"""`wbits` for a gzip header: no name, no time."""


def _compressor(kind: str, level: int | None) -> Any:
    """An object with `compress` and `flush`. Raises `MissingExtra` for zstd without it."""
    if kind == "zstd":
        return _zstd().ZstdCompressor(level=_ZSTD_LEVEL if level is None else level)
    if level is None:
        try:
            # Some ten times faster than zlib for a tenth more bytes (extra "fastgzip").
            from isal import isal_zlib
        except ImportError:
            pass
        else:
            return isal_zlib.compressobj(_FAST_LEVEL, isal_zlib.DEFLATED, _GZIP_BITS)
    return zlib.compressobj(_GZIP_LEVEL if level is None else level, zlib.DEFLATED, _GZIP_BITS)


def _zstd() -> Any:
    """Python's zstd module, or its equivalent from the extra."""
    import importlib

    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtra("a layer compressed with zstd", "zstd")


def write_compressed(
    chunks: Iterable[bytes], out: BinaryIO, kind: str, level: int | None = None
) -> Descriptor:
    """Write `chunks` to `out` as `kind` (uncompressed, gzip, zstd); returns the written layer.

    `level` is the codec's; None selects a fast level, and the faster gzip if it is installed.
    """
    hasher = hashlib.sha256()
    size = 0

    def put(data: bytes) -> None:
        nonlocal size
        hasher.update(data)
        out.write(data)
        size += len(data)

    if kind == "uncompressed":
        for chunk in chunks:
            put(chunk)
    else:
        codec = _compressor(kind, level)
        convert: Callable[[bytes], bytes] = codec.compress
        for chunk in chunks:
            if data := convert(chunk):
                put(data)
        put(codec.flush())
    return Descriptor(MEDIA_TYPES[kind], Digest("sha256:" + hasher.hexdigest()), size)
