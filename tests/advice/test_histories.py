"""Advice over the histories of three real projects: the known good order, and what it saves.

The Dockerfile is in the known bad order. What is proposed is applied as the diff that it is, and
then every version is built with both files: the commands that did not run are counted.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layercache.cli import main

HISTORIES = Path(__file__).parent / "histories"

TOOL = """#!/bin/sh
# Stands for an installer: fails without what it reads, notes that it ran, takes a while.
set -e
case "$(basename "$0")" in
  pip) cat "$3" > installed ;;
  npm) cat package.json > installed ;;
esac
echo "$(basename "$0")" >> {log}
sleep 0.05
"""

PROJECTS = {
    # Requirements in a directory of their own; only one of its files is read.
    "flower": (
        "FROM x\nWORKDIR /srv\nCOPY . .\nRUN pip install -r requirements/default.txt\n"
        'CMD ["celery", "flower"]\n',
        "pip",
        "COPY requirements/default.txt /srv/requirements/",
        4,
    ),
    "glances": (
        "FROM x\nCOPY . /app\nWORKDIR /app\nRUN pip install -r requirements.txt\n"
        'CMD ["python", "-m", "glances"]\n',
        "pip",
        "COPY requirements.txt /app/",
        6,
    ),
    # Each release changes package.json: only the packages of the system can go before it.
    "http-server": (
        "FROM x\nWORKDIR /usr/src/app\nCOPY . .\n"
        "RUN apt-get update && apt-get install -y git\nRUN npm install\n"
        'CMD ["node", "bin/http-server"]\n',
        "apt-get",
        "",
        13,
    ),
}
"""Name -> the Dockerfile, the tool that ran in vain, the line to add, in how many versions."""


def versions(name: str) -> Iterator[dict[str, str]]:
    """The files of each version, by path."""
    files: dict[str, str] = {}
    for line in (HISTORIES / f"{name}.txt").read_text().splitlines():
        mark, path = line.split(" ", 1)
        if mark == "=":
            if files:
                yield dict(files)
        elif mark == "-":
            del files[path]
        else:
            files[path] = mark
    yield files


def put(root: Path, files: dict[str, str], before: dict[str, str]) -> None:
    for path in before.keys() - files.keys():
        (root / path).unlink()
    for path, content in files.items():
        if before.get(path) != content:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content + "\n")


class Project:
    """A repository with the history, tools that are counted, and a cache."""

    def __init__(self, root: Path, name: str, dockerfile: str) -> None:
        self.root, self.name, self.log = root / "project", name, root / "log"
        self.root.mkdir()
        (self.root / "Dockerfile").write_text(dockerfile)
        self._git("init", "-q")
        before: dict[str, str] = {}
        self.count = 0
        for files in versions(name):
            put(self.root, files, before)
            self._git("add", "-A", "-f")
            self._git("commit", "-qm", str(self.count))
            before = files
            self.count += 1

    def _git(self, *arguments: str) -> None:
        git = ["git", "-C", str(self.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, *arguments], check=True)

    def run(self, command: str, cache: Path, *arguments: str) -> int:
        """One command of the command line, on this project with that cache."""
        where = ["--cache", str(cache), "--executor", "workspace"]
        return main([command, *where, *arguments, str(self.root)])

    def apply(self, diff: str) -> None:
        """As a person would: the diff as it was printed."""
        subprocess.run(
            ["git", "-C", str(self.root), "apply", "-p0", "-"], input=diff, text=True, check=True
        )

    def ran(self, cache: Path, dockerfile: str) -> Counter[str]:
        """How often each tool ran while all versions but the first were built in order."""
        counts: Counter[str] = Counter()
        before = dict.fromkeys(list(versions(self.name))[-1], "")
        for number, files in enumerate(versions(self.name)):
            put(self.root, files, before)
            (self.root / "Dockerfile").write_text(dockerfile)
            self.log.write_text("")
            assert self.run("build", cache, "-q") == 0
            if number:
                counts.update(set(self.log.read_text().split()))
            before = files
        return counts


@pytest.mark.parametrize("name", sorted(PROJECTS))
def test_a_real_history_gets_the_known_good_order_and_it_saves_what_was_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Advised from the history, applied as printed, built over the same history, counted."""
    dockerfile, tool, line, rebuilds = PROJECTS[name]
    project = Project(tmp_path, name, dockerfile)
    tools = tmp_path / "tools"
    tools.mkdir()
    for each in ("pip", "npm", "apt-get"):
        (tools / each).write_text(TOOL.format(log=project.log))
        (tools / each).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    project.log.write_text("")
    assert project.run("build", tmp_path / "cache", "-q") == 0
    capsys.readouterr()
    assert project.run("build", tmp_path / "cache", "--json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    seconds = {s["text"].split()[1]: s["saved_seconds"] for s in steps if s["op"] == "RUN"}
    copying = max(s["saved_seconds"] for s in steps if s["op"] == "COPY")

    assert project.run("advise", tmp_path / "cache", "--history", "50", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["versions"] == project.count - 1
    best: dict[str, Any] = said["advice"][0]
    assert (best["rebuilds"], best["kind"]) == (rebuilds, "split" if line else "move")
    assert not line or f"+{line}\n" in best["diff"]
    assert bool(best["doubt"]) == bool(line)  # packages of the system read no project
    assert (project.root / "Dockerfile").read_text() == dockerfile
    assert best["saved_seconds"] == pytest.approx(
        rebuilds * seconds[tool], abs=copying * project.count
    )

    project.apply(best["diff"])
    edited = (project.root / "Dockerfile").read_text()
    old = project.ran(tmp_path / "old", dockerfile)
    new = project.ran(tmp_path / "new", edited)
    assert old - new == Counter({tool: rebuilds})
    assert not new - old
