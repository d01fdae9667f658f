"""What the tables of this suite need: the modes of the executor, and a program that probes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.executors.rootfs.conftest import Bench, bench, busybox, make_bench
from tests.executors.rootfs.test_rootless import ranged, single, user

from . import inside

__all__ = ["bench", "busybox", "make_bench", "ranged", "single", "user"]

MODES = ("root", "rootless", "rootless-single")

Probe = Callable[..., str]
"""Calls a function of `inside` with arguments, in one mode of the executor; what it returned."""


@pytest.fixture(scope="session")
def program() -> Iterator[str]:
    """The path of `probe.c`, compiled; every user may read it."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    place = tempfile.mkdtemp(prefix="layercache-probe-")
    os.chmod(place, 0o755)
    source = Path(__file__).parent / "probe.c"
    subprocess.run([compiler, "-O1", "-static", "-o", f"{place}/probe", str(source)], check=True)
    yield f"{place}/probe"
    shutil.rmtree(place)


@pytest.fixture(params=MODES)
def probe(request: pytest.FixtureRequest) -> Probe:
    """Calls functions of `inside`, in each mode of the executor."""
    if request.param == "root":
        made: Callable[..., Bench] = request.getfixturevalue("make_bench")

        def call(name: str, *arguments: str) -> str:
            found: str = getattr(inside, name)(made(**inside.OPTIONS.get(name, {})), *arguments)
            return found

        return call
    check = request.getfixturevalue({"rootless": "ranged"}.get(request.param, "single"))

    def ask(name: str, *arguments: str) -> str:
        found: str = check(name, *arguments, module="tests.security.inside")
        return found

    return ask
