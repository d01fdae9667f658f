"""What the process that builds was started with is nothing that a command can see."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator

import pytest

from tests.adversarial.conftest import Build

LOOK = (
    "FROM base\n"
    "RUN env | sort > /seen; ulimit -s >> /seen; ulimit -f >> /seen; umask >> /seen;"
    " grep Sig[IB] /proc/self/status >> /seen; pwd >> /seen; id >> /seen\n"
)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process with another umask, limits, signals, variables and directory."""
    umask = os.umask(0o077)
    ignored = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
    limits = {n: resource.getrlimit(n) for n in (resource.RLIMIT_STACK, resource.RLIMIT_FSIZE)}
    for number, (_, hard) in limits.items():
        resource.setrlimit(number, (1 << 30, hard))
    monkeypatch.setenv("FOO", "bar")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir("/")
    yield
    os.umask(umask)
    for number, handler in ignored.items():
        signal.signal(number, handler)
    for number, pair in limits.items():
        resource.setrlimit(number, pair)


def test_a_command_sees_the_same_everywhere(build: Build, request: pytest.FixtureRequest) -> None:
    """Umask, limits, ignored signals, variables, the working directory."""
    here = build(LOOK).image
    request.getfixturevalue("elsewhere")

    assert build(LOOK, cache="other").image == here
