"""The time policy: modification times are a function of content and instruction only.

Never of history, clock or machine, so that cached and clean builds agree to the byte. What it
gives: another content of the same size gets another time (checks by time and size stay right),
and what a command makes is never older than what COPY brought.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LAYER_TIME", "clamped_time", "copied_time"]

LAYER_TIME: Final = 1_600_000_000
"""Seconds since 1970 that no entry of a layer is newer than; a constant of the scheme."""

_SPREAD: Final = 3
"""Bytes of the content digest that move the time of a copied file: 2**24 s, some 194 days."""


def copied_time(content: bytes) -> int:
    """The mtime of a regular file that COPY writes, from the BLAKE3 digest of its bytes."""
    return LAYER_TIME - int.from_bytes(content[-_SPREAD:], "big")


def clamped_time(mtime: float) -> int:
    """The mtime of what a command wrote or an archive brought: whole seconds, 0 to LAYER_TIME."""
    return 0 if mtime < 0 else min(int(mtime), LAYER_TIME)
