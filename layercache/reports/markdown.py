"""A report as Markdown, for the summary page of a CI system. Pure."""

from __future__ import annotations

from typing import Final

from layercache.reports.reasons import describe
from layercache.reports.report import Report
from layercache.reports.visible import visible

__all__ = ["markdown_summary"]


def markdown_summary(report: Report, title: str = "Build") -> str:
    """A heading, one sentence, and a table of the steps."""
    names = {step.place: step.text for step in report.steps}
    reused = sum(step.decision == "hit" for step in report.steps)
    executed = sum(step.decision == "miss" for step in report.steps)
    lines = [
        f"### {_text(title)}",
        "",
        f"{reused} reused, {executed} executed in {report.seconds:.1f} s; "
        f"the cache saved {report.saved_seconds:.1f} s.",
        "",
    ]
    if report.error is not None:
        lines += [f"**Failed:** {_text(report.error.message)}", ""]
    lines += ["| | step | seconds | why |", "|---|---|---:|---|"]
    for step in report.steps:
        if step.decision is None:
            continue
        seconds = step.seconds if step.decision == "miss" else step.saved_seconds
        why = describe(step.reason, names) if step.reason is not None else ""
        lines.append(f"| {step.decision} | `{_code(step.text)}` | {seconds:.1f} | {_text(why)} |")
    return "\n".join(lines) + "\n"


_MEANT: Final = str.maketrans(
    {c: "\\" + c for c in "\\`*_[]|~$!#@"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)
"""Characters with a special meaning in Markdown, in its HTML, or to a forge."""


def _text(text: str) -> str:
    """One line of plain text, without markup."""
    return visible(" ".join(text.split())).translate(_MEANT)


def _code(text: str) -> str:
    """One line between backticks in a table: without backticks, and without a pipe that would end
    the cell.
    """
    line = visible(" ".join(text.split())).replace("`", "'")
    return line.replace("\\|", "\\ |").replace("|", "\\|")
