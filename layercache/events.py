"""What happens in a build, as one stream of frozen values.

An observer is any callable that takes one `Event`. New facts become new fields or new events,
so an observer must ignore what it does not know.
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
    """The graph is known: how many steps it has, and when (seconds since 1970)."""

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
    """Output of a running step, as it comes; secrets are masked."""

    vertex: int
    origin: Origin
    chunk: bytes


@frozen
class StepExecuted:
    """A step ended executing, well or not; what it means is decided when the build ends."""

    vertex: int
    origin: Origin
    key: CacheKey
    time: float
    seconds: float
    error: str | None = None


@frozen
class StepFinished:
    """A step is decided: reused, executed (or failed), or declined while planning.

    Decisions are provisional while a build runs, so this comes when the build ends.

    `seconds` is what executing took now; `saved_seconds` what it took when it was recorded.
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
    """The cache could not do something; the build goes on. `kind` is a stable word."""

    kind: str
    message: str
    time: float


@frozen
class Note:
    """Something a person should know once (which executor was chosen, where the result is)."""

    message: str
    time: float


@frozen
class BuildFinished:
    """The build is over."""

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
