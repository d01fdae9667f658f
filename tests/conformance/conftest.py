"""The closing line of the scenarios in the summary of a session, however it was spread."""

from __future__ import annotations

from collections import Counter

import pytest

from .__main__ import closing_line


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts that the tests recorded."""
    counts: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            counts.update(v for k, v in report.user_properties if k == "conformance")
    if counts:
        terminalreporter.write_line(f"conformance: {closing_line(counts)}")
