"""Bounds on the work and memory that an archive may cause; an archive beyond them is rejected."""

from __future__ import annotations

from typing import Final

from layercache._base.classes import frozen

__all__ = ["DEFAULT_LIMITS", "Limits"]


@frozen(kw_only=True)
class Limits:
    """The limits of one archive.

    `entries` counts names, `size` bytes when uncompressed, `path` bytes and `depth` components
    of a path, `name` bytes of a component, `header` bytes of the extended headers of one entry,
    `metadata` bytes of all names, links and attributes together, which are held in memory.
    `ratio` bounds uncompressed to compressed bytes beyond the first `grace` bytes; its default
    is the ratio that gzip reaches on zeros, rounded up.
    """

    entries: int = 1_000_000
    size: int = 64 << 30
    path: int = 4095
    name: int = 255
    depth: int = 512
    header: int = 1 << 20
    metadata: int = 256 << 20
    ratio: int = 1100
    grace: int = 64 << 20


DEFAULT_LIMITS: Final = Limits()
