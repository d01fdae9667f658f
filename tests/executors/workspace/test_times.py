"""Commands in a workspace see what was written later as newer, with make and cp of the host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult
from layercache.executors.workspace.executor import Workspace

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

MAKEFILE = b"out/all: src/a src/b\n\tcat src/a src/b > $@; echo all >> $(LOG)\n"
HEAD = "FROM scratch\n"


def build(tmp_path: Path, text: str, a: str = "a\n") -> BuildResult:
    """Build a recipe on sources in a workspace."""
    builder = Builder(tmp_path / "cache", executor=Workspace(tmp_path / "workspace"))
    context = {"Makefile": MAKEFILE, "src/a": a.encode(), "src/b": b"b\n"}
    return builder.build(Dockerfile.parse(HEAD + text), context=context)


def read(result: BuildResult, path: bytes) -> bytes:
    with result.tree().open(path) as content:
        data: bytes = content.read()
    return data


def test_a_dummy_program_gives_way_to_the_real_one(tmp_path: Path) -> None:
    """Sources that are copied over those of an earlier build are newer than its output."""
    text = (
        "COPY Makefile .\nRUN mkdir -p src out && touch src/a src/b && make -s LOG=l\n"
        "COPY src src\nRUN make -s LOG=l2"
    )
    assert read(build(tmp_path, text, "real\n"), b"out/all") == b"real\nb\n"


@pytest.mark.parametrize("over", ["", HEAD + "COPY --from=0 / /\n"])
def test_what_was_built_is_not_built_again(tmp_path: Path, over: str) -> None:
    text = f"COPY . .\nRUN mkdir out && make -s LOG=l\n{over}RUN touch l2 && make -s LOG=l2"
    assert read(build(tmp_path, text), b"l2") == b""


def test_an_edit_in_a_command_counts(tmp_path: Path) -> None:
    """What a later command wrote is newer; another mode changes no order; a copy that keeps
    times is as old as its original."""
    text = (
        "COPY . .\nRUN mkdir out && make -s LOG=l\nRUN sed -i s/a/edited/ src/a\n"
        "RUN chmod -R 750 out\nRUN cp -p src/a src/same\nRUN make -s LOG=l2\n"
        "RUN test out/all -nt src/same"
    )
    result = build(tmp_path, text)
    assert read(result, b"out/all") == b"edited\nb\n"
    assert read(result, b"l2") == b"all\n"


def test_a_reused_step_shows_the_same_order(tmp_path: Path) -> None:
    """A hit below a step that runs, in a workspace that holds something else by now."""
    text = "COPY . .\nRUN mkdir out && make -s LOG=l\nRUN touch l2 && make -s LOG=l2 && : "
    for n, a in enumerate(("one\n", "two\n", "one\n")):
        result = build(tmp_path, f"{text}{n}", a)
        assert read(result, b"out/all") == a.encode() + b"b\n"
        assert read(result, b"l2") == b""
