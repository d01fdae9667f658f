"""Bounds on hostile input: all work is counted and limited.

A Dockerfile may come from anyone. Everything that reads one takes `RecipeLimits` (the maximum size
of its parts) and spends from a `Budget` (the maximum number of elementary steps in total), so the
time and memory for any input are bounded, and a test can show linearity by counting.
"""

from __future__ import annotations

from layercache._base.classes import define, frozen
from layercache.errors import DockerfileError, Problem

__all__ = ["Budget", "RecipeLimits"]


@frozen(kw_only=True)
class RecipeLimits:
    """The maximum sizes of the parts of one Dockerfile."""

    file_bytes: int = 16 << 20
    """Size of the whole file."""

    line_chars: int = 65_535
    """Length of one physical line; the value is BuildKit's."""

    instructions: int = 200_000
    """Number of instructions."""

    nesting: int = 100
    """Depth of `${a:-${b:-…}}`. Each level copies its text once, so this bounds the copies."""

    word_chars: int = 1 << 20
    """Length of one word after expansion."""

    pattern_chars: int = 4_096
    """Length of a pattern in `${a#…}`, `${a%…}` and `${a/…/…}`."""

    problems: int = 100
    """Number of problems reported for one file; reading stops there."""


@define
class Budget:
    """A counter of elementary steps: characters read, written or compared.

    Pass one budget to several calls to bound them together, as lowering a file does: many lines
    that are harmless alone can't exceed it together. `used` is the number of steps spent so far.
    """

    limit: int = 1 << 27
    used: int = 0

    def spend(self, steps: int) -> None:
        """Count `steps` more. Raises `DockerfileError` if the limit is exceeded."""
        self.used += steps
        if self.used > self.limit:
            raise DockerfileError(
                [
                    Problem(
                        f"the file takes more than {self.limit:,} steps to expand; "
                        "it was given up as too costly"
                    )
                ]
            )
