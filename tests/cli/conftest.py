"""The command line as its users see it: status, standard output, standard error."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from layercache.cli import main

RECIPE = """\
FROM base
COPY first.txt ./
RUN cat first.txt > made.txt
COPY . .
CMD ["true"]
"""


@attrs.frozen
class Ran:
    """How one command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON object that it must be."""
        return json.loads(self.out)

    @property
    def decisions(self) -> list[str]:
        """Decisions of the steps that decide something."""
        return [s["decision"] for s in self.json["steps"] if s["decision"] is not None]


@attrs.define
class Project:
    """A context, a cache of its own, and commands over both."""

    directory: Path
    _call: Callable[..., Ran]

    @property
    def context(self) -> Path:
        return self.directory / "app"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def write(self, **files: str) -> None:
        """Files of the context; `Dockerfile=...`, `first_txt=...` (the last `_` is a dot)."""
        for name, text in files.items():
            (self.context / ".".join(name.rsplit("_", 1))).write_text(text)

    def run(self, command: str, *options: str, context: str = "", stdin: str = "") -> Ran:
        """`layercache COMMAND --cache ... --executor workspace OPTIONS CONTEXT`."""
        base = ["--cache", str(self.cache)]
        if "--executor" not in options:
            base += ["--executor", "workspace"]
        return self._call(command, *base, *options, context or str(self.context), stdin=stdin)

    def build(self, *options: str, **more: str) -> Ran:
        """`layercache build --json`."""
        return self.run("build", "--json", *options, **more)

    def plan(self, *options: str, **more: str) -> Ran:
        """`layercache plan --json`."""
        return self.run("plan", "--json", *options, **more)

    def made(self, *options: str) -> dict[str, str]:
        """What a build leaves, written with `--output type=local`."""
        out = self.directory / "out"
        ran = self.build("--output", f"type=local,dest={out}", *options)
        assert ran.status == 0, ran.err
        return {
            str(path.relative_to(out)): path.read_text()
            for path in out.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run one command in this process."""

    def run(*arguments: str, stdin: str = "") -> Ran:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                status = main(list(arguments))
            except SystemExit as end:
                status = int(end.code or 0)
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture
def project(tmp_path: Path, call: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A context with two files and a recipe that takes one of them early."""
    monkeypatch.setenv("LAYERCACHE_CACHE", str(tmp_path / "default-cache"))
    found = Project(tmp_path, call)
    found.context.mkdir()
    found.write(Dockerfile=RECIPE, first_txt="1", second_txt="2")
    return found
