"""Mistakes on the command line, each said in one sentence that helps."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layercache.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context in the working directory, and a cache of its own."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    (tmp_path / "context" / "a").write_text("1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERCACHE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def status(arguments: str) -> int:
    """The exit status, also where the arguments can't be read."""
    try:
        return main(arguments.split(" "))
    except SystemExit as end:
        return int(end.code or 0)


MISTAKES = {
    "build nowhere": "there is no directory nowhere",
    "build context/a": "context/a is not a directory",
    "build -": "-f - DIRECTORY",
    "build https://example.com/x.git": "fetch it first",
    "build --buildarg A=1 context": "did you mean --build-arg?",
    "build --jobs 0 context": "--jobs: expected a number from 1 on, not '0'",
    "build --step-timeout nan context": "--step-timeout: expected a number of seconds",
    "build --secret id=nowhere context": "can't read nowhere",
    "build -t A:B:C context": "not an image reference",
    "build --platform a/b/c/d context": "not a platform",
    "cache gc --keep-builds -1": "--keep-builds: expected a number from 0 on",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_what_is_wrong_is_said_before_anything_is_done(
    project: Path, capsys: Captured, arguments: str
) -> None:
    """With exit status 2, on standard error, in few lines; no cache is made."""
    assert status(arguments) == 2
    told = capsys.readouterr()

    assert MISTAKES[arguments] in told.err
    assert told.err.count("\n") <= 2
    assert told.out == ""
    assert not (project / "cache" / "ac").exists()


def test_a_platform_has_one_spelling(project: Path, capsys: Captured) -> None:
    """However it is written, the same steps are reused."""
    (project / "context" / "Dockerfile").write_text("FROM x\nRUN true\n")
    line = "build --executor workspace --platform {} context"
    assert status(line.format("linux/x86_64")) == 0
    assert status(line.format("linux/amd64")) == 0
    assert "1 reused" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX has these signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_request_to_end_is_an_interrupt(project: Path, name: str) -> None:
    """Whoever asks, and how: the command ends, too, and the status is 130."""
    number = getattr(signal, name)
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here")
    (project / "context" / "Dockerfile").write_text("FROM x\nRUN echo begun; exec sleep 30\n")
    line = ["-m", "layercache", "build", "--executor", "workspace", "context"]
    running = subprocess.Popen([sys.executable, *line], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for shown in running.stderr:
        if shown == "    begun\n":
            break
    running.send_signal(number)
    told = running.communicate(timeout=20)[1]

    assert running.returncode == 130
    assert told.endswith("layercache: interrupted\n")
    assert "Traceback" not in told


def test_a_plan_speaks_of_what_would_be(project: Path, capsys: Captured) -> None:
    """And not as if it had been done."""
    assert status("build context") == 0
    capsys.readouterr()
    assert status("plan context") == 0

    told = capsys.readouterr().out
    assert "would reuse" in told
    assert "1 would be reused, 0 would run" in told
    assert "executed" not in told


def test_images_are_listed_as_they_were_named(project: Path, capsys: Captured) -> None:
    """Without what Docker fills in."""
    assert status("build -t mine:1 context") == 0
    capsys.readouterr()
    assert status("images") == 0
    assert capsys.readouterr().out.startswith("mine:1 ")


def test_stages_have_their_names(project: Path, capsys: Captured) -> None:
    """At the end as while the build runs."""
    (project / "context" / "Dockerfile").write_text(
        "FROM x AS one\nRUN true\nFROM x\nCOPY --from=one / /d/\n"
    )
    assert status("build --executor workspace context") == 0
    told = capsys.readouterr().err

    assert told.count("[one] RUN true") == 2
    assert told.count("[1] COPY --from=one / /d/") == 2


def test_advice_outside_of_a_repository(project: Path, capsys: Captured) -> None:
    """It says what it needs, in whatever words it was asked."""
    (project / "context" / "Dockerfile").write_text("FROM x\nCOPY a /\nRUN sleep 0.1\n")
    assert status("build --executor workspace context") == 0
    capsys.readouterr()
    assert status("advise --executor workspace context") == 2
    assert "advise compares commits" in capsys.readouterr().err


def test_pruning_everything_leaves_nothing_to_speak_of(project: Path) -> None:
    """Neither facts of states that are gone nor the roots of workspaces; a build then works."""
    (project / "context" / "Dockerfile").write_text(
        "FROM x AS one\nCOPY a /\nRUN chmod 0 a; mkdir d; touch d/e; chmod 0 d; chmod 755 d\n"
        "FROM x\nCOPY --from=one d /d/\nRUN true\n"
    )
    assert status("build --executor workspace -t mine context") == 0
    assert status("cache prune --all") == 0
    left = [p for p in (project / "cache").rglob("*") if p.is_file()]

    assert {path.relative_to(project / "cache").parts[0] for path in left} <= {
        "format", "locks", "scan", "stats", "workspaces",
    }  # fmt: skip
    assert not list((project / "cache" / "workspaces").glob("*/*/root"))
    assert status("build --executor workspace context") == 0
