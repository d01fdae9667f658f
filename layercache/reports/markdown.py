"""A report as Markdown, for the summary page of a CI system. Pure."""

from __future__ import annotations

from layercache.reports.reasons import describe
from layercache.reports.report import Report

__all__ = ["markdown_summary"]


def markdown_summary(report: Report, title: str = "Build") -> str:
    """A heading, one sentence, and a table of the steps."""
    names = {step.place: step.text for step in report.steps}
    reused = sum(step.decision == "hit" for step in report.steps)
    executed = sum(step.decision == "miss" for step in report.steps)
    lines = [
        f"### {title}",
        "",
        f"{reused} reused, {executed} executed in {report.seconds:.1f} s; "
        f"the cache saved {report.saved_seconds:.1f} s.",
        "",
    ]
    if report.error is not None:
        lines += [f"**Failed:** {_cell(report.error.message)}", ""]
    lines += ["| | step | seconds | why |", "|---|---|---:|---|"]
    for step in report.steps:
        if step.decision is None:
            continue
        seconds = step.seconds if step.decision == "miss" else step.saved_seconds
        why = describe(step.reason, names) if step.reason is not None else ""
        lines.append(f"| {step.decision} | `{_cell(step.text)}` | {seconds:.1f} | {_cell(why)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
