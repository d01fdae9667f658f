"""Tells what the randomised suites did, at the end of the run."""

from __future__ import annotations

import pytest

from layercache.testing.layers import Layers
from tests.core.tally import LINES


def pytest_terminal_summary(terminalreporter):
    if LINES:
        terminalreporter.section("randomised")
        for line in LINES:
            terminalreporter.write_line(line)


@pytest.fixture
def layers():
    """A project in memory; the plug-in has the same fixture for others."""
    return Layers()
