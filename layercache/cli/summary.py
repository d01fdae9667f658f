"""The display for people, while a build runs and when it has ended."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Any, TextIO

from layercache.events import (
    BuildFinished,
    CacheTrouble,
    Event,
    Note,
    StepExecuted,
    StepOutput,
    StepStarted,
)
from layercache.reports.hint import hint
from layercache.reports.report import Report
from layercache.reports.visible import visible, without_sequences
from layercache.reports.wording import DECISIONS, shortened

__all__ = ["JsonLines", "Plain", "plan_summary", "summary"]


_SHOWN_TROUBLES = 3
"""Maximum messages of each kind: an unreachable cache would cause one for every object."""


_LONGEST_LINE = 64 * 1024
"""The maximum number of bytes held without a newline before they are shown as a line."""


class Plain:
    """Events as lines of text; the output of a step is shown as it arrives.

    Terminal control sequences are escaped or, in the output of steps, removed, unless `raw`. Time
    and memory are linear in the output, however it is split and with or without lines.
    """

    def __init__(self, out: TextIO | None = None, *, raw: bool = False) -> None:
        self._out = out or sys.stderr
        self._raw = raw
        self._lock = threading.Lock()
        self._partial: dict[int, bytearray] = {}
        self._troubles: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        match event:
            case StepStarted(vertex, origin):
                self._line(f"[{origin.stage_name or origin.stage}] {_shown(origin.text)}")
            case StepOutput(vertex, _, chunk):
                self._output(self._partial.setdefault(vertex, bytearray()), chunk)
            case StepExecuted(vertex):
                if rest := self._partial.pop(vertex, None):
                    self._written(rest)
            case CacheTrouble(kind, message):
                self._troubles[kind] += 1
                if self._troubles[kind] <= _SHOWN_TROUBLES:
                    self._line(f"cache: {kind}: {message}")
                elif self._troubles[kind] == _SHOWN_TROUBLES + 1:
                    self._line(f"cache: {kind}: and more of the same")
            case Note(message):
                self._line(message)
            case _:
                pass

    def _output(self, held: bytearray, chunk: bytes) -> None:
        """Show the lines that `chunk` completes; the remainder is held."""
        lines, newline, rest = chunk.rpartition(b"\n")
        if newline:
            held += lines
            for line in held.split(b"\n"):
                self._written(line)
            held[:] = rest
        else:
            held += chunk
        if len(held) > _LONGEST_LINE:
            self._written(held)
            held.clear()

    def _written(self, line: bytes | bytearray) -> None:
        text = line.decode("utf-8", "replace")
        self._line("    " + (text if self._raw else without_sequences(text)), visible_already=True)

    def _line(self, text: str, *, visible_already: bool = False) -> None:
        with self._lock:
            print(text if visible_already else visible(text), file=self._out, flush=True)


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


_OBVIOUS = {
    "first-build": "not known here before",
    "no-cache": "on request, without the cache",
}
"""Causes that many steps of a build share; shown once, with the totals."""


def plan_summary(report: Report) -> str:
    """A short summary of the build that a plan describes."""
    return summary(report, planned=True)


def summary(report: Report, *, planned: bool = False) -> str:
    """A short summary of a build: reused steps, executed steps and why, time saved."""
    names = {step.place: step.text for step in report.steps}
    lines = []
    stages = _stages(report)
    for step in report.steps:
        if step.decision in {None, "skip"}:
            continue
        place = f"[{stages[step.stage]}] " if len(stages) > 1 else ""
        verb = "failed" if step.error else DECISIONS[str(step.decision)]
        if planned and step.decision == "hit":
            verb = "would reuse"
        time = {
            "hit": f"{'saves' if planned else 'saved'} {step.saved_seconds:6.1f} s",
            "miss": f"{step.seconds:12.1f} s",
        }.get(str(step.decision), "")
        lines.append(f"  {verb:12} {time:14}  {place}{_shown(step.text)}")
        reason = step.reason
        if reason is not None and reason.cause not in _OBVIOUS and not step.error:
            from layercache.reports.reasons import describe

            lines.append(f"{'':31}{describe(reason, names)}")
        if step.decision == "undetermined":
            waits = ", ".join(repr(_shown(names.get(place, "?"), 40)) for place in step.until)
            lines.append(f"{'':31}waits for {waits}")
    lines.append(_planned_totals(report) if planned else _totals(report))
    if line := hint(report.steps):
        lines.append(f"advice: {line}")
    return visible("\n".join(lines))


def _stages(report: Report) -> dict[int, str]:
    """Each stage with its name, otherwise its number."""
    found: dict[int, str] = {}
    for step in report.steps:
        if step.stage >= 0:
            found.setdefault(step.stage, str(step.stage))
        if step.op == "FROM" and step.onbuild is None:
            words = step.text.split()
            if len(words) > 3 and words[-2].upper() == "AS":
                found[step.stage] = words[-1].lower()
    return found


def _totals(report: Report) -> str:
    counts = Counter(step.decision for step in report.steps)
    causes = Counter(step.reason.cause for step in report.steps if step.reason)
    number = {c: "" if causes[c] == counts["miss"] else f"{causes[c]} " for c in _OBVIOUS}
    why = ", ".join(f"{number[c]}{text}" for c, text in _OBVIOUS.items() if causes[c])
    executed = f"{counts['miss']} executed" + (f" ({why})" if why else "")
    saved = f"; the cache saved {report.saved_seconds:.1f} s" if counts["hit"] else ""
    return f"{counts['hit']} reused, {executed} in {report.seconds:.1f} s{saved}"


def _planned_totals(report: Report) -> str:
    counts = Counter(step.decision for step in report.steps)
    parts = [f"{counts['hit']} would be reused", f"{counts['would-run']} would run"]
    if counts["undetermined"]:
        parts.append(f"{counts['undetermined']} undetermined")
    saved = f"; the cache would save {report.saved_seconds:.1f} s" if counts["hit"] else ""
    return ", ".join(parts) + saved


def _shown(text: str, width: int = 72) -> str:
    return shortened(visible(" ".join(text.split())), width)


def finished(event: Event) -> bool:
    """Whether an event ends the build."""
    return isinstance(event, BuildFinished)
