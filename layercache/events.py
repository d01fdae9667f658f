"""The events of a build, as one stream of frozen values.

An observer is any callable that takes one `Event`. New facts become new fields or new event
types, so an observer must ignore events that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from layercache._base.classes import frozen
from layercache.model.digests import CacheKey
from layercache.model.graph import Origin
from layercache.solver.protocol import Outcome

__all__ = [
    "BuildFinished",
    "BuildStarted",
    "CacheTrouble",
    "Event",
    "Note",
    "Observer",
    "StepExecuted",
    "StepFinished",
    "StepOutput",
    "StepStarted",
]


@frozen
class BuildStarted:
    """The graph is known: the number of its steps, and the start time (seconds since 1970)."""

    steps: int
    time: float


@frozen
class StepStarted:
    """A step begins to execute."""

    vertex: int
    origin: Origin
    key: CacheKey
    time: float


@frozen
class StepOutput:
    """Output of a running step, as it arrives; secrets are masked."""

    vertex: int
    origin: Origin
    chunk: bytes


@frozen
class StepExecuted:
    """A step ended, successfully or not; its final decision follows when the build ends."""

    vertex: int
    origin: Origin
    key: CacheKey
    time: float
    seconds: float
    error: str | None = None


@frozen
class StepFinished:
    """The final decision about a step: reused, executed (or failed), or declined while planning.

    Decisions are provisional while a build runs, so this event comes when the build ends.

    `seconds` is the duration of this execution; `saved_seconds` that of the recorded execution.
    """

    vertex: int
    origin: Origin
    outcome: Outcome
    key: CacheKey | None
    time: float
    seconds: float = 0.0
    saved_seconds: float = 0.0
    error: str | None = None


@frozen
class CacheTrouble:
    """A cache operation failed; the build continues. `kind` is a stable word."""

    kind: str
    message: str
    time: float


@frozen
class Note:
    """A message that a person should see once (the chosen executor, the place of the result)."""

    message: str
    time: float


@frozen
class BuildFinished:
    """The build has ended."""

    ok: bool
    seconds: float
    time: float
    error: str | None = None


Event: TypeAlias = (
    BuildStarted
    | StepStarted
    | StepOutput
    | StepExecuted
    | StepFinished
    | CacheTrouble
    | Note
    | BuildFinished
)
Observer: TypeAlias = Callable[[Event], None]
