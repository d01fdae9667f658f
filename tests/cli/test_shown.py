"""What others wrote never steers the terminal of who looks at it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.cli.conftest import Project, Ran

STEERS = "'\x1b]0;title\x07\x1b[31m\u202e\x9b2J'"
NAME = "name\x1b[31m\u202e\x07.txt"
RECIPE = f"""\
FROM base
COPY src ./src/
RUN touch made && : {STEERS}
RUN : {STEERS}; date +%N > varies
"""


@pytest.fixture
def hostile(project: Project) -> Project:
    """A project whose Dockerfile and file names hold control sequences, built and committed
    twice, and then changed."""
    project.write(Dockerfile=RECIPE)
    file = project.context / "src" / NAME
    file.parent.mkdir()
    for number in range(3):
        file.write_text("x" * (number + 1))
        assert project.build().status == 0
        for command in ("init -q", "add .", f"-c user.name=u -c user.email=u commit -qm {number}"):
            subprocess.run(["git", "-C", str(project.context), *command.split()], check=True)
    file.write_text("changed")
    return project


def plain(text: str) -> bool:
    """Whether nothing in `text` steers a terminal."""
    return not [c for c in text if not (c.isprintable() or c in "\n\t")]


@pytest.mark.parametrize("command", ["explain", "plan", "build", "probe", "advise"])
def test_commands_over_a_hostile_project(hostile: Project, command: str) -> None:
    """Texts of instructions and names of files are shown with what can't be seen written out."""
    ran = hostile.run(command)

    assert ran.status == 0
    assert "x1b" in ran.out + ran.err
    assert plain(ran.out + ran.err)


@pytest.mark.parametrize(
    "words", ["ls", "gc --dry-run --keep-builds 0", "prune --dry-run --all", "prune --all"]
)
def test_commands_over_its_cache(hostile: Project, call: Callable[..., Ran], words: str) -> None:
    """What a cache holds is shown one line for each record, with nothing that steers."""
    ran = call("cache", *words.split(), "--cache", str(hostile.cache))

    assert ran.status == 0
    assert "x1b" in ran.out
    assert plain(ran.out)
