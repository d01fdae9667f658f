"""Probing: which reused commands give other files each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, Request, Workspace
from layercache.cli import main
from layercache.probing import advice_for

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
