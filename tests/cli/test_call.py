"""`build --check` and `--call`: what a Dockerfile is, without building it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Project, Ran

VIOLATING = "FROM scratch AS Base\nCOPY first.txt /\n"


def test_check_prints_violations_and_builds_nothing(project: Project) -> None:
    project.write(Dockerfile=VIOLATING)
    ran = project.run("build", "--check")
    assert 1 == ran.status
    assert "Dockerfile:1: note: the name of the stage Base" in ran.out
    assert "sha256:" not in ran.out


def test_a_good_file_is_said_to_be_so(project: Project) -> None:
    project.write(Dockerfile="FROM scratch\nCOPY first.txt /\n")
    ran = project.run("build", "--check")
    assert (0, "Dockerfile: no violations\n") == (ran.status, ran.out)


def test_formats(project: Project) -> None:
    project.write(Dockerfile=VIOLATING)
    plain = json.loads(project.run("build", "--call=check,format=json").out)
    sarif = json.loads(project.run("build", "--call=check,format=sarif").out)
    assert "StageNameCasing" == plain["warnings"][0]["ruleName"]
    assert "StageNameCasing" == sarif["runs"][0]["results"][0]["ruleId"]


def test_the_ignore_file_counts(project: Project) -> None:
    project.write(Dockerfile="FROM scratch\nCOPY first.txt /\n", **{".dockerignore": "*.txt\n"})
    assert "CopyIgnoredFile" in project.run("build", "--check").out


def test_targets_and_outline(project: Project) -> None:
    project.write(Dockerfile="# a is first\nFROM scratch AS a\nARG V=1\nFROM a AS b\n")
    assert (
        "TARGET        DESCRIPTION\na             is first\nb (default)\n"
        == project.run("build", "--call=targets").out
    )
    assert (
        "BUILD ARG   VALUE   DESCRIPTION\nV           1\n"
        in project.run("build", "--call=outline").out
    )


def test_wrong_calls_are_refused(project: Project) -> None:
    for call in ("lint", "check,format=xml", "targets,format=sarif", "check,x=y"):
        ran = project.run("build", f"--call={call}")
        assert 2 == ran.status
        assert call in ran.err


def test_a_file_can_make_violations_errors(project: Project) -> None:
    """`# check=error=true` ends a build before anything runs; `skip` lets it pass."""
    project.write(Dockerfile=f"# check=error=true\n{VIOLATING}")
    ran = project.run("build")
    assert 2 == ran.status
    assert "Dockerfile:2: the name of the stage Base is not lower case [StageNameCasing]" in ran.err
    project.write(Dockerfile=f"# check=skip=StageNameCasing;error=true\n{VIOLATING}")
    assert 0 == project.run("build").status


def test_several_files_are_checked_alone(call: Callable[..., Ran], tmp_path: Path) -> None:
    """`layercache check FILE …` needs no context, as a hook before a commit has none."""
    good, bad = tmp_path / "Dockerfile", tmp_path / "other.Dockerfile"
    good.write_text("FROM scratch\n")
    bad.write_text(VIOLATING)
    ran = call("check", str(good), str(bad))
    assert 1 == ran.status
    assert f"{good}: no violations\n{bad}:1: note: " in ran.out
    assert 0 == call("check", "--skip", "StageNameCasing", str(bad)).status
    assert 0 == call("check", str(good)).status
    found = call("check", "--format=json", str(good), str(bad)).json
    assert 1 == found["warnings"][0]["location"]["sourceIndex"]
    assert "did you mean StageNameCasing" in call("check", "--skip", "StageName", str(bad)).err
    assert "can't read" in call("check", str(tmp_path / "none")).err


def test_a_malformed_file_does_not_hide_the_others(
    call: Callable[..., Ran], tmp_path: Path
) -> None:
    malformed, bad = tmp_path / "a", tmp_path / "b"
    malformed.write_text("FORM scratch\n")
    bad.write_text(VIOLATING)
    ran = call("check", str(malformed), str(bad))
    assert 2 == ran.status
    assert "unknown instruction: FORM" in ran.err
    assert "[StageNameCasing]" in ran.out
