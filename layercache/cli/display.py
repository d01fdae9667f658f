"""What a person sees while a build runs and when it is over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any, TextIO

from layercache.events import (
    BuildFinished,
    CacheTrouble,
    Event,
    Note,
    StepFinished,
    StepOutput,
    StepStarted,
)
from layercache.explain import describe
from layercache.report import Report, StepReport

__all__ = ["JsonLines", "Plain", "summary"]


class Plain:
    """Events as lines of text; the output of a step is shown as it comes."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._lock = threading.Lock()
        self._partial: dict[int, bytes] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case StepStarted(vertex, origin):
                self._line(f"[{origin.stage_name or origin.stage}] {_short(origin.text)}")
            case StepOutput(vertex, _, chunk):
                whole, _, rest = (self._partial.pop(vertex, b"") + chunk).rpartition(b"\n")
                self._partial[vertex] = rest
                if whole or chunk.endswith(b"\n"):
                    for line in whole.split(b"\n"):
                        self._line("    " + line.decode("utf-8", "replace"))
            case StepFinished(vertex):
                if rest := self._partial.pop(vertex, b""):
                    self._line("    " + rest.decode("utf-8", "replace"))
            case CacheTrouble(kind, message):
                self._line(f"cache: {kind}: {message}")
            case Note(message):
                self._line(message)
            case _:
                pass

    def _line(self, text: str) -> None:
        with self._lock:
            print(text, file=self._out, flush=True)


class JsonLines:
    """Events as one JSON object a line."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr

    def __call__(self, event: Event) -> None:
        import json

        import attrs

        def plain(_: Any, __: Any, value: Any) -> Any:
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

        value = attrs.asdict(event, value_serializer=plain)
        print(json.dumps({"event": type(event).__name__, **value}), file=self._out, flush=True)


_VERBS = {
    "hit": "reused",
    "miss": "executed",
    "would-run": "would run",
    "undetermined": "undetermined",
}


def summary(report: Report) -> str:
    """The build at a glance: what was reused, what was executed and why, what that saved."""
    names = {step.place: step.text for step in report.steps}
    lines = []
    many = len({step.stage for step in report.steps if step.stage >= 0}) > 1
    for step in report.steps:
        if step.decision in {None, "skip"}:
            continue
        place = f"[{step.stage}] " if many else ""
        verb = "failed" if step.error else _VERBS[str(step.decision)]
        took = step.seconds if step.decision == "miss" else step.saved_seconds
        time = f"{took:7.1f} s" if step.decision in {"hit", "miss"} else " " * 9
        lines.append(f"  {verb:12} {time}  {place}{_short(step.text)}")
        if step.reason is not None and not step.error:
            lines.append(f"{'':26}{describe(step.reason, names)}")
    lines.append(_totals(report))
    if line := advice(report.steps):
        lines.append(line)
    return "\n".join(lines)


def _totals(report: Report) -> str:
    reused = sum(step.decision == "hit" for step in report.steps)
    executed = sum(step.decision == "miss" for step in report.steps)
    saved = f"; the cache saved {report.saved_seconds:.1f} s" if reused else ""
    return f"{reused} reused, {executed} executed in {report.seconds:.1f} s{saved}"


def advice(steps: Sequence[StepReport]) -> str:
    """One line on the order of steps, where this build shows that it cost something."""
    by_place = {step.place: step for step in steps}
    costs: dict[tuple[int, int], float] = {}
    slowest: dict[tuple[int, int], StepReport] = {}
    for step in steps:
        reason = step.reason
        if reason is None or reason.cause != "parent" or reason.step is None or step.op != "RUN":
            continue
        costs[reason.step] = costs.get(reason.step, 0.0) + step.seconds
        if reason.step not in slowest or slowest[reason.step].seconds < step.seconds:
            slowest[reason.step] = step
    for place, cost in sorted(costs.items(), key=lambda item: -item[1]):
        cause = by_place.get(place)
        if cause is None or cause.op not in {"COPY", "ADD"} or cost < 0.05:
            continue
        slow = slowest[place]
        return (
            f"advice: {_short(cause.text)!r} changed and made {_short(slow.text)!r} run again "
            f"({cost:.1f} s): copy only what that needs before it, and the rest after it"
        )
    return ""


def _short(text: str, width: int = 72) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def finished(event: Event) -> bool:
    """Whether an event ends the build."""
    return isinstance(event, BuildFinished)
