"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest

from layercache.testing.layers import Layers
from tests.counted import Counted, add_options

# A shell starts background jobs with interrupts ignored, and what they start inherits it: tests
# that interrupt a build would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the options of `tests.counted`."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Count cases and skips."""
    config.pluginmanager.register(Counted(config), "counted")


@pytest.fixture
def layers() -> Layers:
    """A project in memory; the plug-in of the kit gives the same fixture to others."""
    return Layers()
