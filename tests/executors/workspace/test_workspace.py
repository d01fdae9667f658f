"""The workspace executor, through the public API, with real commands on the host."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache import (
    Builder,
    Copy,
    Dockerfile,
    From,
    Request,
    Run,
    StepFailed,
    StepOutput,
    UsageError,
    Workdir,
)
from layercache.builds.exporting import export
from layercache.builds.result import BuildResult
from layercache.errors import BuildError, Cancelled, ExecutorUnavailable
from layercache.executors.workspace.executor import Workspace
from layercache.executors.workspace.programs import program_names
from layercache.reports.report import Report
from tests.narrow import report_of

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A context with one file and one directory."""
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True)
    (context / "a.txt").write_text("alpha\n")
    (context / "src" / "b.txt").write_text("beta\n")
    return context


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """A builder with a cache on disk and a workspace of its own."""
    return Builder(tmp_path / "cache", executor=Workspace(tmp_path / "workspace"))


def build(builder: Builder, context: Path, text: str, **options: object) -> BuildResult:
    return builder.build(Dockerfile.parse(text), context=context, **options)


def decisions(result: BuildResult) -> list[str | None]:
    return [step.decision for step in result.steps]


def content(result: BuildResult, path: str) -> bytes:
    with result.tree().open(path.encode()) as stream:
        return bytes(stream.read())


def test_a_command_runs_in_the_workdir_and_its_changes_are_a_layer(
    builder: Builder, project: Path
) -> None:
    """What a command adds, changes and removes is in the result, and restored on a hit."""
    text = (
        "FROM anything\nCOPY . /app\nWORKDIR /app\n"
        "RUN tr a-z A-Z < a.txt > out.txt && rm a.txt && echo more >> src/b.txt\n"
    )
    first = build(builder, project, text)
    second = build(builder, project, text)

    assert content(first, "app/out.txt") == b"ALPHA\n"
    assert first.tree().lookup(b"app/a.txt") is None
    assert content(second, "app/src/b.txt") == b"beta\nmore\n"
    assert decisions(second) == [None, "hit", "hit", "hit"]


def test_a_root_that_somebody_changed_is_restored_before_a_command_runs(
    builder: Builder, project: Path, tmp_path: Path
) -> None:
    """Edits, additions, removals, modes and links from outside never reach a step."""
    text = "FROM x\nCOPY . /\nRUN ls -R > listing; cat a.txt src/b.txt > both\n"
    first = build(builder, project, text)
    root = tmp_path / "workspace" / "0" / "root"
    (root / "a.txt").write_text("forged\n")
    (root / "extra").mkdir()
    (root / "extra" / "file").write_text("x")
    (root / "src" / "b.txt").unlink()
    (root / "src" / "b.txt").symlink_to("/etc/passwd")
    (root / "src").chmod(0o700)
    again = build(builder, project, text, no_cache=True)

    assert content(first, "both") == content(again, "both") == b"alpha\nbeta\n"
    assert content(first, "listing") == content(again, "listing")
    assert first.image == again.image


def test_equal_stamps_with_other_bytes_are_seen(
    builder: Builder, project: Path, tmp_path: Path
) -> None:
    """A file of the root that was overwritten with its size and time kept is restored."""
    text = "FROM x\nCOPY a.txt /\nRUN cat a.txt > copy\n"
    build(builder, project, text)
    file = tmp_path / "workspace" / "0" / "root" / "a.txt"
    times = file.stat()
    file.write_text("ALPHA\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = build(builder, project, text, no_cache=True)

    assert content(again, "copy") == b"alpha\n"


def test_each_stage_has_a_root_and_starts_empty_or_with_its_stage(
    builder: Builder, project: Path, tmp_path: Path
) -> None:
    """FROM stage begins with that stage's tree, FROM name with nothing."""
    text = (
        "FROM x AS one\nRUN echo 1 > one\n"
        "FROM one AS two\nRUN ls > names\n"
        "FROM y\nRUN ls -a | wc -l > count\nCOPY --from=two names /names\n"
    )
    result = build(builder, project, text)

    assert content(result, "names").split() == [b"names", b"one"]
    assert result.tree().lookup(b"one") is None
    assert sorted(p.name for p in (tmp_path / "workspace").iterdir()) == ["2", "one", "two"]


def test_the_name_of_the_base_is_an_identity(builder: Builder, project: Path) -> None:
    """Another base name runs the commands again; the same name does not."""
    text = "FROM node:20\nRUN echo 1 > one\n"

    assert decisions(build(builder, project, text)) == [None, "miss"]
    assert decisions(build(builder, project, text.replace("20", "22"))) == [None, "miss"]
    assert decisions(build(builder, project, text)) == [None, "hit"]


def test_commands_see_env_and_arguments_and_an_allowed_few_of_the_host(
    builder: Builder, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENV, ARG and LAYERCACHE_ROOT are seen; other variables of the host are not."""
    monkeypatch.setenv("NOT_ALLOWED", "1")
    text = "FROM x\nENV A=1\nARG B\nRUN env > seen\n"
    seen = content(build(builder, project, text, args={"B": "2"}), "seen").decode()

    assert "A=1\n" in seen
    assert "B=2\n" in seen
    assert "LAYERCACHE_ROOT=" in seen
    assert "NOT_ALLOWED" not in seen


def test_a_failing_command_leaves_nothing_and_keeps_what_came_before(
    builder: Builder, project: Path
) -> None:
    """The error has the status, the last lines and the line; the steps before are reused."""
    text = "FROM x\nCOPY a.txt /\nRUN echo went wrong >&2; exit 3\n"
    with pytest.raises(StepFailed) as failure:
        build(builder, project, text)
    report = failure.value.report
    assert isinstance(report, Report)
    with pytest.raises(StepFailed) as again:
        build(builder, project, text)

    assert failure.value.status == 3
    assert "went wrong" in str(failure.value)
    assert failure.value.line == 3
    assert [s.decision for s in report.steps] == [None, "miss", "miss"]
    assert [s.decision for s in report_of(again.value).steps] == [None, "hit", "miss"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("USER app\nRUN true", "USER app"),
        ("COPY --chown=1:1 a.txt /", "--chown"),
        ("RUN --mount=type=cache,target=/c true", "type=cache"),
        ("RUN --mount=type=bind,target=/c true", "type=bind"),
        ("RUN --mount=type=tmpfs,target=/c true", "type=tmpfs"),
        ("RUN --network=none true", "--network=none"),
        ("RUN --security=insecure true", "--security=insecure"),
    ],
)
def test_what_a_plain_directory_cannot_honour_is_refused(
    builder: Builder, project: Path, line: str, what: str
) -> None:
    """Never a silent no-op: an error that names it, before anything ran."""
    with pytest.raises(UsageError, match=what) as failure:
        build(builder, project, f"FROM x\nRUN echo 1 > ran\n{line}\n")

    assert "executed" not in str(failure.value)
    assert failure.value.line is not None


def test_secrets_reach_the_command_and_nothing_else(tmp_path: Path, project: Path) -> None:
    """As a file and as a variable; neither in the tree, nor in the output, nor in the cache."""
    secret = b"s3cr3t-value-of-the-test"
    executor = Workspace(tmp_path / "workspace", secrets={"token": secret})
    builder = Builder(tmp_path / "cache", executor=executor)
    text = (
        "FROM x\n"
        "RUN --mount=type=secret,id=token,target=/run/secrets/token"
        " --mount=type=secret,id=token,env=TOKEN"
        " cat run/secrets/token && echo $TOKEN && wc -c < run/secrets/token > size\n"
    )
    result = build(builder, project, text)

    assert int(content(result, "size")) == len(secret)
    assert result.tree().lookup(b"run") is None
    assert secret not in result.log(1)
    assert b"***" in result.log(1)
    for path in (tmp_path / "cache").rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def test_a_required_secret_that_is_missing_fails_the_build(builder: Builder, project: Path) -> None:
    """The error says how to pass it."""
    with pytest.raises(BuildError, match="--secret id=token"):
        build(builder, project, "FROM x\nRUN --mount=type=secret,id=token,required true\n")


def test_symlinks_that_leave_the_root_are_not_followed(
    builder: Builder, project: Path, tmp_path: Path
) -> None:
    """A link to a place outside is kept as a link; what it points at is not captured."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("private")
    result = build(builder, project, f"FROM x\nRUN ln -s {outside} away\n")
    node = result.tree().lookup(b"away")

    assert node is not None
    assert node.is_link
    assert result.tree().lookup(b"away/file") is None
    with pytest.raises(BuildError, match="leaves the workspace"):
        build(builder, project, f"FROM x\nRUN ln -s {outside} away\nWORKDIR /away\nRUN pwd\n")
    assert [p.name for p in outside.iterdir()] == ["file"]


def test_times_are_a_function_of_content(builder: Builder, project: Path, tmp_path: Path) -> None:
    """Two machines, two times: the same layers; a command's files are never older than COPY's."""
    text = "FROM x\nCOPY . /\nRUN cat a.txt > made\n"
    one = build(builder, project, text)
    for path in [*project.rglob("*"), project]:
        os.utime(path, (1, 1))
    other = Builder(tmp_path / "other", executor=Workspace(tmp_path / "workspace"))
    two = build(other, project, text)

    assert one.image == two.image
    made, copied = one.tree().lookup(b"made"), one.tree().lookup(b"a.txt")
    assert made is not None
    assert copied is not None
    assert made.mtime >= copied.mtime


def test_modes_links_and_fifos_survive(builder: Builder, project: Path) -> None:
    """Permission bits, symbolic links, FIFOs and empty directories come back as they were."""
    text = (
        "FROM x\nRUN echo x > f && chmod 640 f && ln -s f l && mkfifo p && mkdir -m 700 d\n"
        "RUN stat -c '%n %a %F' f l p d > seen\n"
    )
    first = build(builder, project, text)
    again = build(builder, project, text + "RUN stat -c '%n %a %F' f l p d > again\n")

    assert content(again, "again") == content(first, "seen")
    node = first.tree().lookup(b"f")
    assert node is not None
    assert stat.S_IMODE(node.mode) == 0o640


def test_a_command_can_time_out(tmp_path: Path, project: Path) -> None:
    """Its processes are gone afterwards."""
    executor = Workspace(tmp_path / "workspace", step_timeout=0.3)
    builder = Builder(tmp_path / "cache", executor=executor)
    with pytest.raises(StepFailed, match=r"longer than 0\.3 s"):
        build(builder, project, "FROM x\nRUN sleep 61.25 & sleep 61.25\n")

    assert not _running(b"61.25")


def test_a_build_can_be_cancelled(builder: Builder, project: Path) -> None:
    """From another thread; the command ends and the builder works afterwards."""
    timer = threading.Timer(0.5, builder.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        build(builder, project, "FROM x\nRUN sleep 62.25\n")
    timer.join()

    assert not _running(b"62.25")
    assert decisions(build(builder, project, "FROM x\nRUN true\n")) == [None, "miss"]


def test_a_daemon_is_ended_though_it_holds_the_output_open(builder: Builder, project: Path) -> None:
    """A step ends with its command: what began a session of its own is not waited for."""
    timer = threading.Timer(20, lambda: _kill_running(b"63.25"))
    timer.start()
    result = build(builder, project, "FROM x\nRUN (setsid sleep 63.25 &); echo started\n")
    waited = not timer.is_alive()
    timer.cancel()

    assert (decisions(result), waited) == ([None, "miss"], False)
    assert not _running(b"63.25")


def test_an_observer_that_fails_is_reported_and_left_out(tmp_path: Path, project: Path) -> None:
    """The build goes on, and the others hear of it once."""

    def observer(event: object) -> None:
        if isinstance(event, StepOutput):
            raise RuntimeError("a mistake of the observer")

    events: list[object] = []
    executor = Workspace(tmp_path / "workspace", step_timeout=20)
    builder = Builder(tmp_path / "cache", executor=executor, observers=[observer, events.append])
    with pytest.warns(RuntimeWarning, match="a mistake of the observer"):
        result = build(builder, project, "FROM x\nRUN echo one; echo two\n")

    assert result.report.ok
    told = [str(event) for event in events if "a mistake of the observer" in str(event)]
    assert len(told) == 1


def _kill_running(argument: bytes) -> None:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if argument in Path(f"/proc/{name}/cmdline").read_bytes():
                os.kill(int(name), signal.SIGKILL)


def _running(argument: bytes) -> bool:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as text:
                    found.append(text.read())
            except OSError:
                continue
    return any(argument in text and b"sleep" in text for text in found)


def test_another_program_of_the_same_name_runs_the_command_again(
    builder: Builder, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content of the program that a command names first counts, not its path's time."""
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "greet"
    tool.write_text("#!/bin/sh\necho one\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    text = "FROM x\nRUN greet > out\n"
    build(builder, project, text)
    os.utime(tool, (1, 1))
    touched = build(builder, project, text)
    tool.write_text("#!/bin/sh\necho two\n")
    changed = build(builder, project, text)

    assert decisions(touched) == [None, "hit"]
    assert decisions(changed) == [None, "miss"]
    assert content(changed, "out") == b"two\n"
    assert changed.steps[1].reason is not None
    assert changed.steps[1].reason.cause == "executor"


@given(st.text("ab if do while ! {=A_1./-:,+@%\t", max_size=20))
def test_plain_commands_are_read_like_others(text: str) -> None:
    """A text without quotes and operators names what the shell's lexer finds in it."""
    lexed = program_names(["sh", "-c", text + " #"])  # a comment is for the lexer

    assert program_names(["sh", "-c", text]) == lexed


def test_instructions_as_values(builder: Builder, project: Path) -> None:
    """A recipe can be a list of instructions, with or without FROM."""
    recipe = [Workdir("/app"), Copy("a.txt", "."), Run(f"{PYTHON} -c 'print(1)' > one")]
    first = builder.build(recipe, context=project)
    second = builder.build([From("x"), *recipe], context=project)

    assert content(first, "app/one") == b"1\n"
    assert decisions(first) == ["miss", "miss", "miss"]
    assert [step.index for step in first.steps] == [0, 1, 2]
    assert second.steps[0].decision is None


def test_output_types(builder: Builder, project: Path, tmp_path: Path) -> None:
    """type=local writes the directory; type=oci needs FROM scratch."""
    result = build(builder, project, "FROM scratch\nCOPY . /\nRUN echo 1 > one\n")
    export(result, f"type=local,dest={tmp_path / 'out'}")
    export(result, f"type=oci,dest={tmp_path / 'out.tar'}")

    assert (tmp_path / "out" / "one").read_text() == "1\n"
    assert (tmp_path / "out" / "src" / "b.txt").read_text() == "beta\n"
    assert (tmp_path / "out.tar").stat().st_size > 0
    with pytest.raises(UsageError, match="scratch"):
        export(build(builder, project, "FROM x\nCOPY . /\n"), f"type=oci,dest={tmp_path / 'o'}")


def test_builds_of_one_project_at_once(tmp_path: Path, project: Path) -> None:
    """Threads with builders of their own share a cache and a workspace; each result is right."""

    def run(number: int) -> bytes:
        builder = Builder(tmp_path / "cache", executor=Workspace(tmp_path / "workspace"))
        text = f"FROM x\nCOPY . /\nRUN cat a.txt > out && echo {number % 3} >> out\n"
        return content(build(builder, project, text), "out")

    with ThreadPoolExecutor(9) as pool:
        results = list(pool.map(run, range(9)))

    assert results == [b"alpha\n%d\n" % (number % 3) for number in range(9)]


def test_plan_writes_nothing_at_all(builder: Builder, project: Path, tmp_path: Path) -> None:
    """Neither in the cache nor in the workspace."""
    plan = builder.plan(Dockerfile.parse("FROM x\nCOPY . /\nRUN true\n"), context=project)

    assert decisions(plan) == [None, "would-run", "would-run"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["context"]


def test_auto_is_never_the_host() -> None:
    """The error that says nothing can run here is one of usage, and names the way out."""
    assert issubclass(ExecutorUnavailable, UsageError)
    assert Request(recipe=[]).recipe == []


@pytest.mark.parametrize("stage", ["..", ".", "...", "../..", "/", ""])
def test_the_root_of_a_stage_stays_in_its_directory(tmp_path: Path, stage: str) -> None:
    """Whatever a stage is called."""
    place = tmp_path / "work"
    root = Path(Workspace(place).root(stage))
    assert place == root.parent.parent
    assert root.resolve().is_relative_to(place.resolve())
    assert root.parent != place
