"""The time policy: modification times are a function of content and instruction only.

They never depend on history, clock or machine, so cached and clean builds agree to the byte.
Consequences: different content of the same size gets a different time (checks by time and size
stay right), and a file made by a command is never older than a file that COPY wrote.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LAYER_TIME", "MAX_CODE", "clamped_time", "code_of", "coded_time", "copied_time"]

LAYER_TIME: Final = 1_600_000_000
"""The latest time of any entry of a layer, in seconds since 1970; a constant of the scheme."""

_SPREAD: Final = 3
"""Bytes of the content digest that move the time of a copied file: 2**24 s, some 194 days."""

_NARROW: Final = 1 << 20
"""Seconds from one code to the next, and bound of what content moves there: some 12 days."""

MAX_CODE: Final = 1_500
"""The greatest code, even: what is older than every instant of the layers below, as a base image's
own files are."""

_EMPTY: Final = bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
"""The BLAKE3 digest of nothing."""


def copied_time(content: bytes) -> int:
    """The mtime of a regular file that COPY writes, from the BLAKE3 digest of its bytes."""
    return LAYER_TIME - int.from_bytes(content[-_SPREAD:], "big")


def clamped_time(mtime: float) -> int:
    """The mtime of an entry written by a command or unpacked from an archive: whole seconds, from 0
    to LAYER_TIME.
    """
    return 0 if mtime < 0 else min(int(mtime), LAYER_TIME)


def coded_time(code: int, content: bytes | None) -> int:
    """The mtime in a layer that means `code`.

    `content` is the BLAKE3 digest of a regular file's bytes, None for anything else. Code 0
    gives `copied_time` for files.
    """
    moved = 0 if content is None else int.from_bytes((content or _EMPTY)[-_SPREAD:], "big")
    if not code:
        return LAYER_TIME - moved
    return LAYER_TIME - (1 << 24) - (min(code, MAX_CODE) - 1) * _NARROW - moved % _NARROW


def code_of(mtime: int, content: bytes | None) -> int | None:
    """The code that an mtime of a layer means; None for a time that was set on purpose.

    `content` as for `coded_time`.
    """
    before = LAYER_TIME - mtime
    if before <= 0:
        return None if before else 0
    moved = 0 if content is None else int.from_bytes((content or _EMPTY)[-_SPREAD:], "big")
    if before < 1 << 24:
        return 0 if moved == before else None
    code, rest = divmod(before - (1 << 24), _NARROW)
    return code + 1 if rest == moved % _NARROW and code < MAX_CODE else None
