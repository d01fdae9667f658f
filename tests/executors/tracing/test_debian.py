"""Real steps in a Debian image: apt, pip, npm, make and a script, after a `COPY . .` of it all.

After each edit the steps that looked at what was edited run again, and no other; the tree is that
of a full run, unwatched, on another machine, times included.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.projects import STEPS, UNSTEADY, make_package, make_project
from layercache.builds.result import BuildResult
from tests.executors.tracing.debian import debian_layout, has, is_debian
from tests.executors.tracing.machines import Machine, snapshot

Edit = Callable[[Path], object]


def _nothing_that_matters(root: Path) -> None:
    (root / "README.md").write_text("another\n")
    (root / "debs" / "notes").write_text("new\n")
    (root / "docs" / "old").unlink()


def _newer_package(root: Path) -> None:
    (root / "debs" / "tool_1.0_all.deb").unlink()
    make_package(root / "debs" / "tool_1.0_all.deb", "1.1")


def _without_a_wheel(root: Path) -> None:
    text = (root / "requirements.txt").read_text()
    (root / "requirements.txt").write_text(text.replace("pkg1==1.0\n", ""))


def _another_name(root: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        text = (root / name).read_text().replace('"version": "1.0.0"', '"version": "1.0.1"', 1)
        (root / name).write_text(text)


EDITS: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "nothing that matters": (_nothing_that_matters, ()),
    "a package": (_newer_package, ("apt",)),
    "requirements": (_without_a_wheel, ("pip", "python")),
    "package.json": (_another_name, ("npm",)),
    "a C source": (lambda root: (root / "native" / "m1.c").write_text("int g;\n"), ("make",)),
    "a script": (lambda root: (root / "src" / "m1.py").write_text("x = 1\n"), ("python",)),
}
"""What is edited, and the kinds of steps that run again. (Any Python lists where packages are.)"""


class Debian:
    """One machine that watches, one that runs everything each time, and a project."""

    def __init__(self, directory: Path) -> None:
        self.kinds = [kind for kind in STEPS if has(kind)]
        self.text = "FROM base\nWORKDIR /app\nCOPY . .\n"
        self.text += "".join(f"RUN {STEPS[kind]}\n" for kind in self.kinds)
        base = debian_layout(directory / "base")
        self.traced, self.plain = (Machine(directory / name, base) for name in ("one", "two"))
        self.project = directory / "project"
        make_project(self.project, wheels=3, tarballs=2, modules=5, sources=4, scripts=6)
        (self.project / "docs").mkdir()
        (self.project / "docs" / "old").write_text("old\n")
        self.first = self.traced.build(self.text, str(self.project), trace="auto")
        self._edited = directory / "edited"

    def edited(self, edit: Edit) -> Path:
        """A copy of the project with `edit` applied."""
        shutil.rmtree(self._edited, ignore_errors=True)
        shutil.copytree(self.project, self._edited)
        edit(self._edited)
        return self._edited

    def executed(self, result: BuildResult) -> list[str]:
        """The kinds of steps that were executed; all others must have been hits by a trace."""
        steps = dict(zip(self.kinds, result.steps[-len(self.kinds) :], strict=True))
        for kind, step in steps.items():
            assert step.decision == "miss" or step.evidence == "trace", (kind, step)
        return [kind for kind, step in steps.items() if step.decision == "miss"]


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    if not is_debian():
        pytest.skip("not on a Debian machine with apt and make")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    found = Debian(tmp_path_factory.mktemp("debian"))
    yield found
    found.traced.close()
    found.plain.close()


def test_every_kind_of_step_is_traced(debian: Debian) -> None:
    """The first build runs them all, and none is refused."""
    assert debian.executed(debian.first) == debian.kinds
    assert [step.untraced for step in debian.first.steps if step.untraced] == []


@pytest.mark.parametrize("name", EDITS)
def test_after_an_edit_what_looked_at_it_runs_again(debian: Debian, name: str) -> None:
    """No more and no less, and with the result of a full run."""
    edit, expected = EDITS[name]
    if missing := [kind for kind in expected if kind not in debian.kinds]:
        pytest.skip(f"not installed: {missing[0]}")
    context = debian.edited(edit)
    again = debian.traced.build(debian.text, str(context), trace="auto")
    full = debian.plain.build(debian.text, str(context), no_cache=lambda o: o.op == "RUN")

    assert debian.executed(again) == [kind for kind in debian.kinds if kind in expected]
    assert _different(again, full) == []


def _different(one: BuildResult, other: BuildResult) -> list[str]:
    mine, yours = snapshot(one.tree()), snapshot(other.tree())
    differing = [path for path in mine.keys() | yours.keys() if mine.get(path) != yours.get(path)]
    return sorted(path for path in differing if not f"/{path}".startswith(UNSTEADY))
