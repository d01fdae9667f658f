"""Events as OpenTelemetry spans: one for the build, one for each decided step."""

from __future__ import annotations

import threading
from typing import Any

from layercache.errors import MissingExtra
from layercache.events import (
    BuildFinished,
    BuildStarted,
    CacheTrouble,
    Event,
    StepExecuted,
    StepFinished,
    StepStarted,
)

__all__ = ["OtelSpans"]

_NANOSECONDS = 1_000_000_000


class OtelSpans:
    """An observer; `tracer` is that of the global provider if None.

    A reused step is a span of zero length with the seconds it saved; times are those of the
    events. Raises `MissingExtra` without opentelemetry-api.
    """

    def __init__(self, tracer: Any = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingExtra("sending OpenTelemetry spans", "otel") from error
        self._trace = trace
        self._tracer = tracer if tracer is not None else trace.get_tracer("layercache")
        self._lock = threading.Lock()
        self._build: Any = None
        self._steps: dict[int, Any] = {}
        self._ends: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case BuildStarted(steps, time):
                attributes = {"layercache.steps": steps}
                self._build = self._tracer.start_span(
                    "layercache build", start_time=_ns(time), attributes=attributes
                )
            case StepStarted(vertex, origin, key, time):
                self._steps[vertex] = self._start(origin.text, time, {"layercache.key": key})
            case StepExecuted(vertex, _, _, time):
                self._ends[vertex] = time
            case StepFinished():
                self._finish(event)
            case CacheTrouble(kind, message, time):
                if self._build is not None:
                    what = {"kind": kind, "message": message}
                    self._build.add_event("cache trouble", what, timestamp=_ns(time))
            case BuildFinished(ok, _, time, error):
                self._end_build(ok, time, error)
            case _:
                pass

    def _start(self, name: str, time: float, attributes: dict[str, Any]) -> Any:
        context = None
        if self._build is not None:
            context = self._trace.set_span_in_context(self._build)
        return self._tracer.start_span(
            " ".join(name.split())[:200],
            context=context,
            start_time=_ns(time),
            attributes=attributes,
        )

    def _finish(self, event: StepFinished) -> None:
        if event.outcome == "skip":
            return
        span = self._steps.pop(event.vertex, None)
        if span is None:
            span = self._start(event.origin.text, event.time, {})
        span.set_attribute("layercache.decision", event.outcome)
        span.set_attribute("layercache.stage", event.origin.stage)
        span.set_attribute("layercache.index", event.origin.index)
        span.set_attribute("layercache.seconds", event.seconds)
        span.set_attribute("layercache.saved_seconds", event.saved_seconds)
        if event.error:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, event.error))
        span.end(end_time=_ns(self._ends.pop(event.vertex, event.time)))

    def _end_build(self, ok: bool, time: float, error: str | None) -> None:
        for span in self._steps.values():
            span.end(end_time=_ns(time))
        self._steps.clear()
        if self._build is None:
            return
        if not ok:
            self._build.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error or ""))
        self._build.end(end_time=_ns(time))
        self._build = None


def _ns(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
