"""Observers, which follow the events of a build: a live display, OpenTelemetry.

Imports `events`, `reports` and the ground. Start at `layercache.events` (what is to be seen),
then `live`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.observers.live import Live
    from layercache.observers.otel import OtelSpans

__all__ = [
    "Live",
    "OtelSpans",
]

if not TYPE_CHECKING:  # a type checker shall know a misspelt name when it sees one
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "live": "Live",
            "otel": "OtelSpans",
        },
    )
