"""Projects, and builds of them in processes that tell what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

WATCHED = Path(__file__).with_name("watched.py")
ROOT = Path(__file__).parents[2]

RECIPE = """\
FROM scratch
WORKDIR /app
COPY package*.json ./
RUN echo install > installed
COPY . .
RUN echo build > built
CMD ["./built"]
"""
"""Of the guide's shape."""


@attrs.frozen
class Told:
    """What one command did; see `watched`."""

    status: int
    opened: list[str]
    listed: list[str]
    written: list[str]
    asked: list[str]
    syncs: int
    modules: list[str]
    bytes_read: int

    def opened_below(self, directory: Path) -> set[str]:
        """Paths below `directory` that were opened for reading."""
        return {path for path in self.opened if path.startswith(f"{directory}{os.sep}")}


@attrs.frozen
class Project:
    """A context and a cache."""

    context: Path
    cache: Path

    def write(self, name: str, content: str | bytes) -> None:
        """A file of the context."""
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def plan(self, *options: str) -> Told:
        """As `build`, deciding only."""
        return self.build(*options, command="plan")

    def build(self, *options: str, command: str = "build") -> Told:
        """`layercache build --executor workspace`; it must succeed."""
        report = self.cache.parent / "told.json"
        words = [command, "--cache", str(self.cache)]
        if "--executor" not in options:
            words += ["--executor", "workspace"]
        done = subprocess.run(
            [sys.executable, str(WATCHED), str(report), *words, *options, str(self.context)],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return Told(**json.loads(report.read_text()))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    context = tmp_path / "context"
    context.mkdir()
    return Project(context, tmp_path / "cache")


@pytest.fixture
def python() -> Callable[[str], str]:
    """Runs a program with a bare interpreter; gives what it prints."""

    def run(program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return run
