"""Reports: the result of a build as a value, the reasons of its misses, and both as text.

Imports `events`, `solver` and the packages before them, and does no I/O. Start at `report`, then
`reasons`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.reports.diagrams import dot, mermaid
    from layercache.reports.html import html_fragment, html_report
    from layercache.reports.markdown import markdown_summary
    from layercache.reports.reasons import (
        CAUSES,
        KINDS,
        WHATS,
        Change,
        Earlier,
        Reason,
        compare,
        describe,
    )
    from layercache.reports.report import ErrorReport, ImageReport, Report, StepReport
    from layercache.reports.totals import Totals

__all__ = [
    "CAUSES",
    "KINDS",
    "WHATS",
    "Change",
    "Earlier",
    "ErrorReport",
    "ImageReport",
    "Reason",
    "Report",
    "StepReport",
    "Totals",
    "compare",
    "describe",
    "dot",
    "html_fragment",
    "html_report",
    "markdown_summary",
    "mermaid",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "diagrams": "dot mermaid",
            "html": "html_fragment html_report",
            "markdown": "markdown_summary",
            "reasons": "CAUSES KINDS WHATS Change Earlier Reason compare describe",
            "report": "ErrorReport ImageReport Report StepReport",
            "totals": "Totals",
        },
    )
