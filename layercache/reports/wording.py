"""The words of reports for decisions, sizes and long lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DECISIONS", "one_line", "shortened", "size_text"]

DECISIONS: Final[Mapping[str, str]] = {
    "hit": "reused",
    "miss": "executed",
    "skip": "not needed",
    "would-run": "would run",
    "undetermined": "undetermined",
}
"""What was decided for a step → how reports call it."""


def size_text(size: int, *, rounded: bool = False) -> str:
    """A number of bytes in units of 1000; `rounded` leaves out the decimal of 10 and more."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    whole = unit == "B" or (rounded and value >= 10)
    return f"{value:.0f} {unit}" if whole else f"{value:.1f} {unit}"


def shortened(text: str, width: int) -> str:
    """`text`, cut to `width` characters where it is longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def one_line(text: str, width: int = 72) -> str:
    """`text` on one line of at most `width` characters."""
    return shortened(" ".join(text.split()), width)
