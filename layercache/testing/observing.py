"""Recorders of builds, for assertions: an observer, and a walker that remembers."""

from __future__ import annotations

import threading
from typing import TypeVar

from layercache.events import Event, StepFinished
from layercache.model.graph import Graph
from layercache.model.keys import KeyStrategy
from layercache.solver.protocol import Outcome, Walk, Walker
from layercache.solver.walker import GraphWalker

__all__ = ["RecordingObserver", "RecordingWalker"]

E = TypeVar("E")


class RecordingObserver:
    """Keeps every event, in order; safe for threads."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._guard = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._guard:
            self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def outcomes(self) -> list[tuple[str, Outcome]]:
        """Text and outcome of each step of the builds so far, in graph order."""
        return [(event.origin.text, event.outcome) for event in self.of(StepFinished)]

    def clear(self) -> None:
        """Forget all events."""
        with self._guard:
            self.events.clear()


class RecordingWalker:
    """Remembers another walker's walks with their graphs, the newest last."""

    def __init__(self, inner: Walker | None = None) -> None:
        self.inner = inner or GraphWalker()
        self.walks: list[tuple[Graph, Walk]] = []

    def start(self, graph: Graph, keys: KeyStrategy) -> Walk:
        """See `Walker.start`."""
        walk = self.inner.start(graph, keys)
        self.walks.append((graph, walk))
        return walk

    @property
    def last(self) -> tuple[Graph, Walk]:
        """Graph and walk of the newest build."""
        return self.walks[-1]
