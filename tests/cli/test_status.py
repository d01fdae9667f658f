"""Exit status and what is said on standard error, for every way that a command can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Project, Ran

# What to do to a project, the options, and the status that must follow.
FAILURES: dict[str, tuple[dict[str, str], list[str], int, str]] = {
    "a command fails": ({"Dockerfile": "FROM x\nRUN exit 3\n"}, [], 1, "step-failed"),
    "a program is missing": ({"Dockerfile": 'FROM x\nRUN ["no-such"]\n'}, [], 1, "step-failed"),
    "a source is missing": ({"Dockerfile": "FROM x\nCOPY nothing /\n"}, [], 1, "source"),
    "a stage to copy from lacks it": (
        {"Dockerfile": "FROM x AS a\nFROM x\nCOPY --from=a /no /\n"},
        [],
        1,
        "source",
    ),
    "an unknown instruction": ({"Dockerfile": "FROM x\nRNU true\n"}, [], 2, "dockerfile"),
    "an unknown flag": ({"Dockerfile": "FROM x\nCOPY --foo a b\n"}, [], 2, "dockerfile"),
    "an empty Dockerfile": ({"Dockerfile": ""}, [], 2, "dockerfile"),
    "an unknown target": ({}, ["--target", "nothing"], 2, "usage"),
    "a Dockerfile that is not there": ({}, ["-f", "/no/such/file"], 2, "usage"),
    "a label without a value": ({}, ["--label", "x"], 2, "usage"),
    "a secret that can't be read": ({}, ["--secret", "id=a,src=/no/such"], 2, "usage"),
    "a secret without an id": ({}, ["--secret", "src=/etc/hostname"], 2, "usage"),
    "a host without an address": ({}, ["--add-host", "x"], 2, "usage"),
    "a bad size": ({}, ["--shm-size", "much"], 2, "usage"),
    "an unknown kind of output": ({}, ["--output", "type=what,dest=/tmp/x"], 2, "usage"),
    "an output without a place": ({}, ["--output", "type=oci"], 2, "usage"),
    "a push without a name": ({}, ["--push"], 2, "usage"),
    "a bad tag": ({}, ["-t", "UPPER CASE"], 2, "usage"),
    "a cache that no backend knows": ({}, ["--cache", "nosuch://x"], 2, "usage"),
    "two platforms": ({}, ["--platform", "linux/amd64", "--platform", "linux/arm64"], 2, "usage"),
    "a list of platforms": ({}, ["--platform", "linux/amd64,linux/arm64"], 2, "usage"),
    "a context that is not there": ({}, ["--build-context", "x=/no/such"], 2, "usage"),
    "a layout that is not there": (
        {},
        ["--build-context", "x=oci-layout:///no/such:1"],
        2,
        "usage",
    ),
    "a limit without a value": ({}, ["--ulimit", "nofile"], 2, "usage"),
    "an unknown key of a secret": ({}, ["--secret", "id=a,env=HOME,moed=1"], 2, "usage"),
    "an unknown type of secret": ({}, ["--secret", "id=a,type=moed,env=HOME"], 2, "usage"),
    "a step selector without text": ({}, ["--no-cache-step", ""], 2, "usage"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures(project: Project, name: str) -> None:
    """Each has its status and its code, and one object on standard output all the same."""
    files, options, status, code = FAILURES[name]
    project.write(**files)
    ran = project.build(*options)

    assert status == ran.status, ran.err
    report = ran.json
    assert not report["ok"]
    assert code == report["error"]["code"]
    assert {"code", "message", "line"} == set(report["error"])
    assert 1 == report["schema"]


@pytest.mark.parametrize("name", FAILURES)
def test_failures_for_people(project: Project, name: str) -> None:
    """The same without --json: one paragraph on standard error, no traceback, nothing else."""
    files, options, status, _ = FAILURES[name]
    project.write(**files)
    ran = project.run("build", "-q", *options)

    assert status == ran.status
    assert "" == ran.out
    assert ran.err.startswith("layercache: ")
    assert 1 == ran.err.count("layercache: ")
    assert "Traceback" not in ran.err
    assert "\n\n" not in ran.err.strip()


def test_the_line_is_named(project: Project) -> None:
    """An error of a step or of the Dockerfile has the number of its line."""
    project.write(Dockerfile="# comment\nFROM x\n\nRUN true\nRUN exit 3\n")
    failed = project.build()
    project.write(Dockerfile="# comment\nFROM x\nCPOY a b\n")
    malformed = project.build()
    project.write(Dockerfile="")
    empty = project.build()

    assert empty.json["error"]["line"] is None  # lines count from 1
    assert 5 == failed.json["error"]["line"]
    assert 3 == malformed.json["error"]["line"]
    assert "did you mean COPY?" in malformed.err


def test_the_steps_so_far_are_reported(project: Project) -> None:
    """What was done before the failure is in the report, and is reused by the next build."""
    project.write(Dockerfile="FROM x\nRUN echo 1 > a\nRUN exit 3\nRUN echo 2 > b\n")
    first, second = project.build(), project.build()

    assert ["miss", "miss", "skip"] == first.decisions
    assert ["hit", "miss", "skip"] == second.decisions


def test_the_output_of_a_failed_command_is_shown(project: Project) -> None:
    """Its last lines are part of the message."""
    project.write(Dockerfile="FROM x\nRUN echo what went wrong >&2; exit 3\n")
    ran = project.build()

    assert "what went wrong" in ran.json["error"]["message"]
    assert "exit status 3" in ran.json["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["build"],
        ["build", "--nonsense", "."],
        ["build", "--executor", "vm", "."],
        ["build", "--jobs", "many", "."],
        ["cache"],
        ["cache", "nonsense"],
    ],
    ids=" ".join,
)
def test_bad_usage(call: Callable[..., Ran], arguments: list[str]) -> None:
    """What can't be read ends with 2, and says how it is used."""
    ran = call(*arguments)

    assert 2 == ran.status
    assert "" == ran.out
    assert "usage: layercache" in ran.err


@pytest.mark.parametrize("command", ["build", "plan", "explain", "advise", "probe", "cache gc"])
def test_help(call: Callable[..., Ran], command: str) -> None:
    """Help goes to standard output and says something of each option."""
    ran = call(*command.split(), "--help")

    assert 0 == ran.status
    assert "--cache" in ran.out
    assert "" == ran.err


def test_a_context_that_is_not_there(project: Project) -> None:
    """It is named, with what was wrong."""
    ran = project.build(context=str(project.directory / "nowhere"))

    assert 2 == ran.status
    assert "nowhere" in ran.json["error"]["message"]


def test_a_context_that_is_a_file(project: Project) -> None:
    """A file is no context; no traceback."""
    ran = project.build(context=str(project.context / "Dockerfile"))

    assert ran.status in {1, 2}
    assert "Traceback" not in ran.err


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupted(project: Project) -> None:
    """Ctrl-C ends a build with 130, and what its command started is gone.

    The steps so far are told, as of every build that fails.
    """
    mark = project.directory / "mark"
    project.write(Dockerfile=f"FROM x\nRUN true\nRUN touch {mark} && sleep 60\nRUN false\n")
    command = [sys.executable, "-m", "layercache", "build", "--cache", str(project.cache)]
    command += ["--executor", "workspace", "--json", str(project.context)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not mark.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert 130 == process.returncode, err
    assert "Traceback" not in err
    assert "interrupted" in err
    told = json.loads(out)
    assert (False, "cancelled") == (told["ok"], told["error"]["code"])
    assert [None, "miss", "miss", "skip"] == [step["decision"] for step in told["steps"]]


def test_a_reader_that_goes_away(project: Project) -> None:
    """A closed pipe on standard output is no traceback."""
    project.build()
    command = [sys.executable, "-m", "layercache", "explain", "--cache", str(project.cache)]
    command += ["--executor", "workspace", str(project.context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()

    assert b"Traceback" not in err


def test_a_cache_that_cannot_be_written(project: Project) -> None:
    """A cache below a file is refused with a sentence."""
    place = project.directory / "file"
    place.write_text("")
    ran = project.build("--cache", str(place / "cache"))

    assert ran.status in {0, 1, 2}
    assert "Traceback" not in ran.err
    assert ran.json["ok"] == (ran.status == 0)


def test_a_real_process(project: Project) -> None:
    """`python -m layercache` hands the status on, and prints one object and nothing else."""
    project.write(Dockerfile="FROM x\nRUN echo loud; exit 3\n")
    command = [sys.executable, "-m", "layercache", "build", "--cache", str(project.cache)]
    command += ["--executor", "workspace", "--json", str(project.context)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 1 == done.returncode
    assert 1 == len(done.stdout.splitlines())
    assert done.stdout.startswith('{"schema": 1')


def test_version(call: Callable[..., Ran]) -> None:
    """The version is that of the package."""
    from layercache import __version__

    ran = call("--version")

    assert 0 == ran.status
    assert ran.out.startswith(f"layercache {__version__}")


def test_the_other_distribution_is_named(
    call: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the unrelated project of the same import name is installed, `--version` says so."""
    other = tmp_path / "layercache-1.8.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: layercache\nVersion: 1.8.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = call("--version")

    assert 0 == ran.status
    assert "layercache 1.8.0" in ran.err
    assert "another project" in ran.err


@pytest.mark.parametrize(
    "words",
    [("build", "--json", "--no-such", "."), ("plan", "--json"), ("explain", "--json", "a", "b")],
)
def test_options_that_are_wrong_are_reported_too(
    call: Callable[..., Ran], words: tuple[str, ...]
) -> None:
    """`--json` prints its object also where the command line can't be read."""
    ran = call(*words)

    assert ran.status == 2
    assert (ran.json["ok"], ran.json["error"]["code"], ran.json["steps"]) == (False, "usage", [])
    assert ran.json["error"]["message"] in ran.err


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("FROM x\n\nRUN exit 3\n", 3),
        ("FROM x\nCOPY missing ./\n", 2),
        ("FROM x\nUSER nobody\n\nRUN true\n", 4),
        ("FROM x\nRUN --mount=type=cache,target=/c true\n", 2),
    ],
)
@pytest.mark.parametrize("name", ["Dockerfile", "build.Dockerfile", "-"])
def test_people_see_the_line_too(project: Project, recipe: str, line: int, name: str) -> None:
    """An error that belongs to a line begins with it, as errors of the Dockerfile itself do."""
    (project.context / (name if name != "-" else "Dockerfile")).write_text(recipe)
    path = name if name == "-" else str(project.context / name)
    file = [] if name == "Dockerfile" else ["-f", path]
    ran = project.run("build", "-q", *file, stdin=recipe)

    shown = "standard input" if name == "-" else name
    assert f"layercache: {shown}:{line}: " in ran.err
    assert 1 == ran.err.count(f":{line}: ")


def test_the_places_of_a_malformed_dockerfile_are_said_once(project: Project) -> None:
    project.write(Dockerfile="FROM x\nCPOY a b\n")
    assert project.run("build").err.startswith("layercache: Dockerfile:2: unknown instruction")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ssh", "default=/no/such/agent"], "/no/such/agent does not exist"),
        (["--annotation", "text"], "--annotation"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    project: Project, options: list[str], said: str
) -> None:
    ran = project.run("build", *options)
    assert ran.status == 2
    assert said in ran.err
    assert "COPY" not in ran.err


def test_a_stale_agent_is_named_by_its_variable(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/no/such/agent")
    ran = project.run("build", "--ssh", "default")
    assert ran.status == 2
    assert "/no/such/agent (from SSH_AUTH_SOCK) does not exist" in ran.err


@pytest.mark.parametrize("form", ["{}", "file://{}", "type=local,src={}"])
def test_a_cache_to_read_from_that_is_none_is_named(project: Project, form: str) -> None:
    """A wrong path would else look like a cache that misses; a right one needs no word."""
    wrong, right = project.directory / "wrong", project.directory / "right"
    project.run("build", "-q", "--cache-to", str(right))

    note = project.run("build", "--cache-from", form.format(wrong)).err
    assert f"there is no cache at {wrong}; nothing is reused from it" in note
    assert not wrong.exists()
    assert "there is no cache" not in project.run("build", "--cache-from", form.format(right)).err
    assert "" == project.run("build", "-q", "--cache-from", form.format(wrong)).err


@pytest.mark.parametrize("name", ["nothing", "./nothing", "UPPER/CASE"])
def test_what_is_nothing_to_compare_with_is_said(project: Project, name: str) -> None:
    project.run("build", "-q")
    ran = project.run("explain", "--against", name)
    assert ran.status == 2
    assert f"--against {name}: this cache has built no image of that name" in ran.err


@pytest.mark.parametrize("command", ["cache ls", "cache du", "cache verify", "stats", "images"])
def test_a_cache_to_look_at_that_is_not_there(call: Callable[..., Ran], command: str) -> None:
    """A wrong path would else look like an empty cache; the default cache may be none yet."""
    ran = call(*command.split(), "--cache", "/no/such")
    assert 2 == ran.status
    assert "there is no cache at /no/such" in ran.err


def test_a_plan_names_a_cache_that_is_not_there(project: Project) -> None:
    """Nothing is there before the first build, or a path is wrong: only the user can tell."""
    assert f"--cache {project.cache}: there is no cache" in project.run("plan").err
    project.run("build", "-q")
    assert "there is no cache" not in project.run("plan").err


def test_commands_on_a_cache_take_no_caches_behind_it(call: Callable[..., Ran]) -> None:
    """They would look at the one cache only, whatever was given."""
    ran = call("cache", "ls", "--cache-from", "x")
    assert 2 == ran.status
    assert "unrecognized arguments: --cache-from" in ran.err
