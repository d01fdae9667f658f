"""Probing: which reused commands give other files each time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, Request, Workspace
from layercache.cli import main
from layercache.engine.probe import advice_for
from layercache.errors import Cancelled, StepFailed
from layercache.model.task import Blobs, Result, Task
from layercache.testing.executors import ScriptedExecutor

TEXT = (
    "FROM x\nRUN echo same > a\n"
    "RUN date +%s%N > b; mkdir -p var/log; date +%s%N > var/log/x.log; echo same > c\n"
    "RUN test -s b && echo done > d\n"
)


def test_what_differs_is_named_and_nothing_is_replaced(tmp_path: Path) -> None:
    """Steps and files; the records stay what they were, so the next build reuses everything."""
    builder = Builder(tmp_path / "cache", executor=Workspace(tmp_path / "work"))
    request = Request(recipe=Dockerfile.parse(TEXT))
    first = builder.run(request)
    probed = builder.probe(request, runs=2)
    again = builder.run(request)

    assert [p.steady for p in probed] == [True, False, True]
    assert probed[1].paths == ("b", "var/log/x.log")
    assert probed[1].results == 3
    assert probed[1].advice
    assert [s.decision for s in again.steps] == [None, "hit", "hit", "hit"]
    assert again.image == first.image


def test_a_step_that_fails_when_run_again_says_so(tmp_path: Path) -> None:
    """The probe goes on with the others."""
    marker = tmp_path / "marker"
    text = f"FROM x\nRUN test ! -e {marker}; echo 1 > a\nRUN mkdir {marker} && echo 1 > b\n"
    builder = Builder(tmp_path / "cache", executor=Workspace(tmp_path / "work"))
    request = Request(recipe=Dockerfile.parse(text))
    builder.run(request)
    probed = builder.probe(request)

    assert probed[0].steady
    assert probed[1].error is not None


def test_the_command_line_names_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each step, the files below it, what to try."""
    (tmp_path / "Dockerfile").write_text(TEXT)
    cache = ["--cache", str(tmp_path / "cache"), "--executor", "workspace", "-q"]
    assert main(["build", *cache, str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["probe", *cache, str(tmp_path)]) == 0
    shown = capsys.readouterr().out

    assert "steady   RUN echo same > a" in shown
    assert "    var/log/x.log" in shown
    assert "try: remove the log" in shown


def test_advice_fits_the_files() -> None:
    """Known files get their own remedy, others the general one."""
    assert "PYTHONDONTWRITEBYTECODE" in advice_for(["usr/lib/x.pyc"])[0]
    assert len(advice_for(["usr/lib/x.pyc"])) == 1
    assert "SOURCE_DATE_EPOCH" in advice_for(["app/out.bin"])[-1]


def test_a_probe_can_be_cancelled(tmp_path: Path) -> None:
    """As a build; the step that runs is asked to end."""
    begun = threading.Event()

    def again(task: Task, blobs: Blobs) -> Result:
        begun.set()
        deadline = time.monotonic() + 30
        while not blobs.cancelled() and time.monotonic() < deadline:
            time.sleep(0.002)
        raise StepFailed("it was ended")

    executor = ScriptedExecutor({})
    builder = Builder(executor=executor)
    request = Request(recipe=Dockerfile.parse("FROM scratch\nRUN one\nRUN two\n"))
    builder.run(request)
    executor.script.update({"one": again, "two": again})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(builder.probe, request)
        assert begun.wait(30)
        builder.cancel()
        with pytest.raises(Cancelled):
            future.result(30)


class Masking(ScriptedExecutor):
    """Has a secret."""

    masks = (b"hunter2",)


def test_a_failing_probe_tells_no_secret() -> None:
    """The last lines of the output are in the error of a step."""

    def fail(task: Task, blobs: Blobs) -> Result:
        raise StepFailed("the end of its output: hunter2")

    executor = Masking({})
    builder = Builder(executor=executor)
    request = Request(recipe=Dockerfile.parse("FROM scratch\nRUN one\n"))
    builder.run(request)
    executor.script["one"] = fail
    (probed,) = builder.probe(request)
    assert probed.error is not None
    assert "hunter2" not in probed.error
