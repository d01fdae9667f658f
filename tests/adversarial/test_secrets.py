"""Secrets, however they are printed, stay out of everything that is kept or shown."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, StepFailed, Workspace
from layercache.events import Event, StepOutput

SECRET = b"hunter2-is-no-password\n"
BARE = SECRET.strip()
PYTHON = shlex.quote(sys.executable)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the commands are a shell's")


def builder(directory: Path, seen: list[Event]) -> Builder:
    executor = Workspace(directory / "workspace", secrets={"s": SECRET})
    return Builder(directory / "cache", executor=executor, observers=[seen.append])


def kept(directory: Path) -> bytes:
    """Every byte of every file below the directory."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def shown(seen: list[Event]) -> bytes:
    return b"".join(event.chunk for event in seen if isinstance(event, StepOutput))


PRINT = "RUN --mount=type=secret,id=s,env=S,target=/s "


def test_without_its_line_end(tmp_path: Path) -> None:
    """A secret file ends with a line end, which a shell's substitution takes away."""
    seen: list[Event] = []
    text = f'FROM x\n{PRINT} printf "[%s]" "$(cat s)"\n'
    builder(tmp_path, seen).build(Dockerfile.parse(text), context={})

    assert b"[***]" in shown(seen)
    assert BARE not in shown(seen) + kept(tmp_path)


def test_in_pieces(tmp_path: Path) -> None:
    """A secret that comes in two reads."""
    seen: list[Event] = []
    text = f"FROM x\n{PRINT} printf hunter2-; sleep 0.2; printf is-no-password\n"
    builder(tmp_path, seen).build(Dockerfile.parse(text), context={})

    assert shown(seen) == b"***"
    assert BARE not in kept(tmp_path)


def test_where_a_long_output_is_cut(tmp_path: Path) -> None:
    """What is left out of a long output begins or ends in the middle of nothing."""
    seen: list[Event] = []
    code = shlex.quote("import os; print((os.environ['S'].strip() + '\\n') * 200_000)")
    text = f"FROM x\n{PRINT} {PYTHON} -c {code}\n"
    result = builder(tmp_path, seen).build(Dockerfile.parse(text), context={})

    assert b"hunter2" not in shown(seen) + (result.log(result.steps[1]) or b"")


def test_in_the_message_of_a_failure(tmp_path: Path) -> None:
    """The last lines of the output are in it."""
    seen: list[Event] = []
    text = f'FROM x\n{PRINT} echo "$(cat s)!"; exit 3\n'
    with pytest.raises(StepFailed) as caught:
        builder(tmp_path, seen).build(Dockerfile.parse(text), context={})

    assert "***!" in str(caught.value)
    assert BARE not in shown(seen) + kept(tmp_path)
