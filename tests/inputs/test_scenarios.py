"""Observed decisions of COPY, replayed on fingerprints alone: equal where a builder reused.

Each scenario's context is really made and changed; a step's key here is only its parent's, what
the instruction says, and the fingerprint of what it selects, so that nothing but selection and
scanning can be wrong.
"""

from __future__ import annotations

import json
import os
import posixpath
import shlex
from pathlib import Path
from typing import Any

import pytest

from layercache.errors import SourceError
from layercache.inputs.scan.context_tree import Context
from layercache.model.selectors import Files
from layercache.trees.patterns import Ignore
from tests.conformance.worlds import EPOCH, World

FOLDER = Path(__file__).parent.parent / "conformance" / "scenarios"

AREAS = (
    "copy", "symlink", "exclude", "parents", "name", "perm", "emptydir", "ignore", "mtime",
    "owner", "special", "xattr", "chmod", "chown",
)  # fmt: skip

STALE = {
    "mtime-racy-inplace",
    "mtime-racy-then-touch",
    "parents-dir-mode",
    "perm-dir-mode",
    "xattr-capability",
}
"""Where the builder was seen to reuse what is outdated: a miss is right."""

BETTER = {"copy-glob-expands-to-one", "mtime-racy-then-touch"}
"""Where a hit is right though the builder missed: the copied tree is the same."""

ELSEWHERE = {
    "mtime-preserved-in-image",
    "chown-passwd-changes",
    "chown-root-explicit",
    "chmod-flag-change",
}
"""What depends on more than selection: bypassing the cache, accounts, the meaning of flags."""


def scenarios() -> list[str]:
    """The ids that are about what COPY takes, in this folder."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        if path.stem.split("-")[0] in AREAS and path.stem not in ELSEWHERE:
            scenario = json.loads(path.read_text())
            if "buildkit-head" in scenario["expect"] and not scenario.get("images"):
                found.append(path.stem)
    return found


class Replay:
    """One scenario: its context directories, and the keys seen so far."""

    def __init__(self, scenario: dict[str, Any], place: str) -> None:
        self.scenario = scenario
        self.place = place
        self.worlds = {"": World(os.path.join(place, "main"), scenario["files"])}
        for name, more in (scenario.get("contexts") or {}).items():
            self.worlds[name] = World(os.path.join(place, "x-" + name), more.get("files") or {})
        self.dockerfiles = {
            name: world.get("dockerfile")
            for name, world in [("", scenario), *(scenario.get("contexts") or {}).items()]
        }
        self.seen: set[object] = set()
        for name, text in self.dockerfiles.items():
            if text is not None and not scenario.get("no_dockerfile_in_context"):
                self.worlds[name].write("Dockerfile", text, EPOCH)

    def mutate(self, operation: dict[str, Any], now: int) -> None:
        name = operation.get("context", "")
        text = self.dockerfiles[name] or ""
        if operation["op"] == "dockerfile":
            self.dockerfiles[name] = operation["text"]
        elif operation["op"] == "dockerfile_replace":
            self.dockerfiles[name] = text.replace(operation["old"], operation["new"])
        elif operation["op"] == "clone_context":
            pytest.skip("clones contexts")
        else:
            self.worlds[name].mutate(operation, now)
            return
        if not self.scenario.get("no_dockerfile_in_context"):
            self.worlds[name].write("Dockerfile", self.dockerfiles[name], now)

    def build(self, number: int) -> list[str | None]:
        """The decisions of one build; None for what makes none, and after a failure "skip"."""
        options = self.scenario["builds"][number].get("options") or {}
        world = self.worlds[options.get("context") or ""]
        ignore_file = world.path(".dockerignore")
        ignore = Ignore()
        if os.path.exists(ignore_file):
            ignore = Ignore.parse(Path(ignore_file).read_bytes())
        context = Context(world.root, ignore, cache=os.path.join(self.place, "scans", "cache"))
        with context.scan() as tree:
            key: object = "base"
            directory = "/"
            env: dict[str, str] = {}
            found: list[str | None] = []
            new: set[object] = set()
            for step in self.scenario["steps"][number]:
                op, text = step["op"], step["text"]
                words = text.partition(" ")[2]
                if op == "ENV":
                    for word in shlex.split(words):
                        variable, _, value = word.partition("=")
                        env[variable] = value
                if op in {"COPY", "ADD"}:
                    try:
                        said = self._copy(tree, words, env, directory)
                    except SourceError:
                        found.append("miss")
                        break
                elif op in {"RUN", "WORKDIR"}:
                    said = (op, words, directory, tuple(sorted(env.items())) if op == "RUN" else ())
                    if op == "WORKDIR":
                        directory = posixpath.join(directory, words)
                else:
                    found.append(None)
                    continue
                key = (key, said)
                found.append("hit" if key in self.seen else "miss")
                new.add(key)
            self.seen |= new
            return found

    def _copy(self, tree: Any, words: str, env: dict[str, str], directory: str) -> object:
        flags: list[str] = []
        while words.startswith("--"):
            flag, _, words = words.partition(" ")
            flags.append(flag)
        names = json.loads(words) if words.startswith("[") else words.split()
        for name, value in env.items():
            names = [word.replace(f"${name}", value) for word in names]
        *sources, target = names
        exclude = tuple(f.partition("=")[2] for f in flags if f.startswith("--exclude="))
        files = Files(tuple(sources), exclude, "--parents" in flags)
        other = tuple(sorted(f for f in flags if not f.startswith("--exclude=")))
        slash = "/" if target.endswith(("/", ".")) else ""
        target = posixpath.normpath(posixpath.join(directory, target)).rstrip("/") + slash
        definition = tuple((field.label, field.value) for field in files.definition())
        return ("COPY", definition, tree.fingerprint(files), target, other)


@pytest.mark.parametrize("name", scenarios())
def test_replay(name: str, tmp_path: Path) -> None:
    """The decisions of COPY steps are those observed, or rightly differ."""
    scenario = json.loads((FOLDER / f"{name}.json").read_text())
    needs_root = any(part in json.dumps(scenario) for part in ('"device"', '"setcap"', '"chown"'))
    if needs_root and os.geteuid() != 0:
        pytest.skip("needs root")
    replay = Replay(scenario, str(tmp_path))
    for number, build in enumerate(scenario["builds"]):
        for operation in build.get("mutate") or []:
            replay.mutate(operation, EPOCH + 1000 * number)
        actual = replay.build(number)
        expected = scenario["expect"]["buildkit-head"][number]
        if not isinstance(expected, list):
            continue
        ops = [step["op"] for step in scenario["steps"][number]]
        for op, mine, theirs in zip(ops, actual, expected, strict=False):
            if op not in {"COPY", "ADD"} or theirs not in {"hit", "miss"} or mine == theirs:
                continue
            assert (mine, theirs) in {("miss", "hit"), ("hit", "miss")}
            assert name in (STALE if mine == "miss" else BETTER), (number, op, mine, theirs)


def test_there_is_something_to_replay() -> None:
    """The folder holds the scenarios that this is about."""
    assert len(scenarios()) > 60
