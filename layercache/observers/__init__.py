"""Observers that follow the events of a build: a live display and OpenTelemetry spans.

Imports `events`, `reports` and the base packages. Start at `layercache.events` (the events
themselves), then `live`.
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

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "live": "Live",
            "otel": "OtelSpans",
        },
    )
