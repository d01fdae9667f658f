"""A report as a trace file for chrome://tracing and Perfetto. Pure."""

from __future__ import annotations

import json

from layercache.reports.report import Report

__all__ = ["chrome_trace"]


def chrome_trace(report: Report) -> str:
    """JSON with complete events in microseconds, one row per stage.

    Reused steps are instant events that carry the seconds they saved.
    """
    events: list[dict[str, object]] = []
    for step in report.steps:
        if step.decision not in {"hit", "miss"}:
            continue
        arguments = {
            "decision": step.decision,
            "key": step.key,
            "saved_seconds": step.saved_seconds,
            "cause": step.reason.cause if step.reason else None,
        }
        event: dict[str, object] = {
            "name": " ".join(step.text.split())[:120],
            "cat": step.op,
            "pid": 1,
            "tid": step.stage + 2,
            "args": arguments,
        }
        if step.decision == "miss" and step.started is not None:
            event |= {"ph": "X", "ts": step.started * 1e6, "dur": step.seconds * 1e6}
        else:
            event |= {"ph": "i", "ts": 0, "s": "t"}
        events.append(event)
    stages = {step.stage for step in report.steps if step.stage >= 0}
    events += [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": n + 2, "args": {"name": f"stage {n}"}}
        for n in sorted(stages)
    ]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
