"""Times for a step with cache mounts: real ones, recorded beside each cache.

Files that a tool left in a cache have real times, so the files that it compares with need real
ones, too: a file that is unchanged since the last use of this cache keeps the time that it was
shown with then; any other is as new as this use. The time of the last use counts, not that of the
first appearance of a content.

    caches/<digest>/<n>.times   for each file, its identity and the time it was shown with

Files of the base image count as one: with another base, everything above it is new.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

from blake3 import blake3

from layercache._base.classes import frozen

__all__ = ["Seen", "Table", "base_of", "show"]

_MAGIC: Final = b"layercache times 2\n"
_HEAD: Final = struct.Struct("<16sI")
_OWNED: Final = struct.Struct("<3I16s")
_WIDTH: Final = 16
_CHECK: Final = 32
_TICK: Final = 1_000
"""Nanoseconds between what was written one after the other and is new in the same use."""

_COARSE: Final = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)
"""The clock of the times that the kernel gives files."""


@frozen
class Seen:
    """A file that a step is shown: its identity, and its time by the logical clock, in ns."""

    identity: bytes
    moment: int

    @classmethod
    def of(cls, mode: int, uid: int, gid: int, content: bytes, moment: int) -> Seen:
        """`content` is the digest of the bytes; `moment` in seconds."""
        return cls(_OWNED.pack(mode, uid, gid, content), moment * 10**9)


@frozen
class Table:
    """The files that one cache saw at its last use: name → identity and time (ns)."""

    base: bytes
    rows: Mapping[bytes, tuple[bytes, int]]

    @classmethod
    def read(cls, path: str) -> Table | None:
        """The table in a file; None if it is missing or unreadable."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        end = len(data) - _CHECK
        if not data.startswith(_MAGIC) or blake3(data[: max(end, 0)]).digest() != data[end:]:
            return None
        base, count = _HEAD.unpack_from(data, len(_MAGIC))
        at = len(_MAGIC) + _HEAD.size
        moments = struct.unpack_from(f"<{count}q", data, at)
        sizes = struct.unpack_from(f"<{count}I", data, at + 8 * count)
        at += 12 * count
        identities = struct.unpack_from(f"{_OWNED.size}s" * count, data, at)
        at += _OWNED.size * count
        ends = list(accumulate(sizes, initial=at))
        names = [data[first:last] for first, last in pairwise(ends)]
        return cls(base, dict(zip(names, zip(identities, moments, strict=True), strict=True)))

    def write(self, path: str) -> None:
        """Replace the file at `path` atomically."""
        names, rows = list(self.rows), list(self.rows.values())
        count = len(names)
        parts = [
            _MAGIC,
            _HEAD.pack(self.base, count),
            struct.pack(f"<{count}q", *[moment for _, moment in rows]),
            struct.pack(f"<{count}I", *map(len, names)),
            *[identity for identity, _ in rows],
            *names,
        ]
        body = b"".join(parts)
        temporary = f"{path}-{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(body + blake3(body).digest())
        os.replace(temporary, path)


def base_of(names: Iterable[str]) -> bytes:
    """The layers of a base image as one value."""
    return blake3("\n".join(names).encode()).digest(_WIDTH)


def show(
    seen: Mapping[bytes, Seen], base: bytes, tables: Sequence[Table | None], *, fresh: bool
) -> dict[bytes, int]:
    """The time (ns) with which to show each file.

    `tables` are those of the caches that the step uses, None for a cache without one. `fresh`: all
    of them are empty, so nothing in them depends on a file, and the logical clock applies.
    """
    if fresh:
        return {name: one.moment for name, one in seen.items()}
    shown: dict[bytes, int] = {}
    new = []
    for name, one in seen.items():
        times = []
        for table in tables:
            row = None if table is None or table.base != base else table.rows.get(name)
            if row is None or row[0] != one.identity:
                break
            times.append(row[1])
        else:
            shown[name] = max(times)
            continue
        new.append(name)
    if new:
        ranks = {moment: n for n, moment in enumerate(sorted({seen[name].moment for name in new}))}
        now = _after_all(len(ranks))
        for name in new:
            shown[name] = now + ranks[seen[name].moment] * _TICK
    return shown


def _after_all(count: int) -> int:
    """A time later than every time given so far, and earlier than any to come, with room for
    `count` ticks.
    """
    last = time.clock_gettime_ns(_COARSE)
    # A clock that was set back meanwhile is not waited for.
    while 0 <= time.clock_gettime_ns(_COARSE) - last <= count * _TICK:
        time.sleep(0.001)
    return last + _TICK
