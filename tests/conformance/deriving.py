"""Scenarios written from the rules: a small language, and their files in `derived/`.

`rules/` holds the scenarios, one module for each section of observed rules. In a line of
decisions each instruction of the Dockerfile is one letter: `M` executed, `H` reused, `S` not
evaluated, `.` decides nothing; triggers of ONBUILD stand in parentheses after their FROM.
`python -m tests.conformance.derive` writes the files, with `--check` it only compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

__all__ = ["Build", "Scenario", "build", "failing", "op", "refused", "scenario"]

ENGINE = "buildkit-head"
_DECISIONS = {"M": "miss", "H": "hit", "S": "skip", ".": None}
_HEREDOC = re.compile(r"<<(-?)([\"']?)([a-zA-Z0-9_.]+)\2")


@attrs.frozen(kw_only=True)
class Build:
    """One build: what changes before it, what it is asked for, what has to come of it."""

    decisions: str
    mutate: tuple[Mapping[str, Any], ...] = ()
    args: Mapping[str, str | None] = attrs.field(factory=dict)
    options: Mapping[str, Any] = attrs.field(factory=dict)
    holds: Mapping[str, Any] = attrs.field(factory=dict)
    config: Mapping[str, Any] = attrs.field(factory=dict)
    error: str = ""


def build(
    decisions: str,
    *mutate: Mapping[str, Any],
    args: Mapping[str, str | None] | None = None,
    holds: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> Build:
    """A build that succeeds. `holds`: path → content, fields of a probe, or None for nothing."""
    return Build(
        decisions=decisions.replace(" ", ""),
        mutate=mutate,
        args=args or {},
        options=options,
        holds=holds or {},
        config=config or {},
    )


def failing(decisions: str, why: str, *mutate: Mapping[str, Any], **rest: Any) -> Build:
    """A build of which a step fails: that step is a miss, what it leads to is skipped."""
    return attrs.evolve(build(decisions, *mutate, **rest), error=why)


def refused(why: str, *mutate: Mapping[str, Any], **rest: Any) -> Build:
    """A build that ends before any step is evaluated."""
    return attrs.evolve(build("", *mutate, **rest), error=why)


class op:
    """Operations on the world, as the scenario format names them."""

    @staticmethod
    def write(path: str, content: Any = None, **more: Any) -> dict[str, Any]:
        inner = content if isinstance(content, Mapping) else {"content": content}
        if content is None:
            inner = {}
        return {"op": "write", "path": path, **inner, **more}

    @staticmethod
    def replace(old: str, new: str, **more: Any) -> dict[str, Any]:
        return {"op": "dockerfile_replace", "old": old, "new": new, **more}

    @staticmethod
    def dockerfile(content: str, **more: Any) -> dict[str, Any]:
        return {"op": "dockerfile", "content": content, **more}

    @staticmethod
    def of(kind: str, path: str, **more: Any) -> dict[str, Any]:
        return {"op": kind, "path": path, **more}

    @staticmethod
    def delete(path: str, **more: Any) -> dict[str, Any]:
        return {"op": "delete", "path": path, **more}

    @staticmethod
    def chmod(path: str, mode: str, **more: Any) -> dict[str, Any]:
        return {"op": "chmod", "path": path, "mode": mode, **more}

    @staticmethod
    def chown(path: str, uid: int, gid: int) -> dict[str, Any]:
        return {"op": "chown", "path": path, "uid": uid, "gid": gid}

    @staticmethod
    def touch(path: str, mtime: int | None = None) -> dict[str, Any]:
        return {"op": "touch", "path": path, **({} if mtime is None else {"mtime": mtime})}

    @staticmethod
    def rename(path: str, to: str, **more: Any) -> dict[str, Any]:
        return {"op": "rename", "path": path, "to": to, **more}

    @staticmethod
    def mkdir(path: str) -> dict[str, Any]:
        return {"op": "mkdir", "path": path}

    @staticmethod
    def symlink(path: str, target: str) -> dict[str, Any]:
        return {"op": "symlink", "path": path, "target": target}

    @staticmethod
    def image(name: str, dockerfile: str, **more: Any) -> dict[str, Any]:
        return {"op": "image", "name": name, "dockerfile": dockerfile, **more}

    @staticmethod
    def http(url: str, **more: Any) -> dict[str, Any]:
        return {"op": "http", "url": url, **more}


@attrs.frozen(kw_only=True)
class Scenario:
    """A scenario of the derived set; `rest` are the input keys of the format beside these."""

    id: str
    area: str
    title: str
    dockerfile: str
    files: Mapping[str, Any]
    builds: tuple[Build, ...]
    rest: Mapping[str, Any] = attrs.field(factory=dict)

    def to_json(self) -> str:
        """The file of the scenario, one key a line."""
        value = self.to_dict()
        lines = [f' "{key}": {json.dumps(item, ensure_ascii=False)}' for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def to_dict(self) -> dict[str, Any]:
        """The scenario as a value of the format."""
        probes = sorted({path for b in self.builds for path in b.holds})
        shown = sorted({key for b in self.builds for key in b.config})
        return {
            "id": self.id,
            "area": self.area,
            "title": self.title,
            "files": dict(self.files),
            "dockerfile": self.dockerfile,
            **self.rest,
            **({"probe": probes} if probes else {}),
            **({"show_config": shown} if shown else {}),
            "builds": [_input(b) for b in self.builds],
            "format": 1,
            "expect": {ENGINE: self._expected()},
            "observed": {ENGINE: [_observed(b) for b in self.builds]},
            "steps": [steps for steps, _ in self._steps()],
        }

    def _expected(self) -> list[Any]:
        found: list[Any] = []
        for number, (made, (steps, letters)) in enumerate(
            zip(self.builds, self._steps(), strict=True)
        ):
            if made.error and not made.decisions:
                found.append({"error": made.error})
                continue
            if len(steps) != len(letters):
                what = f"{len(steps)} instructions, {len(letters)} decisions"
                raise ValueError(f"{self.id}, build {number}: {what}")
            found.append([_DECISIONS[letter] for letter in letters])
        return found

    def _steps(self) -> list[tuple[list[dict[str, Any]], str]]:
        """For each build the steps of the Dockerfile that it uses, and their letters."""
        default = self.rest.get("dockerfile_name", "Dockerfile")
        texts = {("", default): self.dockerfile}
        for name, spec in self.rest.get("contexts", {}).items():
            texts[name, "Dockerfile"] = spec.get("dockerfile", "")
        found = []
        for made in self.builds:
            for change in made.mutate:
                place = (change.get("context", ""), change.get("name", default))
                if change["op"] == "dockerfile":
                    texts[place] = change["content"]
                elif change["op"] == "dockerfile_replace":
                    if change["old"] not in texts[place]:
                        raise ValueError(f"{self.id}: nothing to replace: {change['old']!r}")
                    texts[place] = texts[place].replace(change["old"], change["new"])
                elif change["op"] == "clone_context":
                    clones = {
                        (change["to"], n): t
                        for (context, n), t in texts.items()
                        if context == place[0]
                    }
                    texts.update(clones)
            options = made.options
            context = options.get("dockerfile_context", options.get("context", ""))
            text = texts[context, options.get("file", default)]
            found.append(_with_triggers(split(text), made.decisions))
        return found


_SCENARIOS: dict[str, Scenario] = {}


def scenario(
    id: str,
    title: str,
    dockerfile: str,
    *builds: Build,
    files: Mapping[str, Any] | None = None,
    area: str = "",
    **rest: Any,
) -> None:
    """Add a scenario to the derived set."""
    if id in _SCENARIOS:
        raise ValueError(f"there are two scenarios {id!r}")
    _SCENARIOS[id] = Scenario(
        id=id,
        area=area or id.partition("-")[0],
        title=title,
        dockerfile=dockerfile,
        files=files or {},
        builds=builds,
        rest=rest,
    )


def scenarios() -> Mapping[str, Scenario]:
    """What the rules gave so far."""
    return _SCENARIOS


def _input(made: Build) -> dict[str, Any]:
    return {
        **({"mutate": list(made.mutate)} if made.mutate else {}),
        **({"args": dict(made.args)} if made.args else {}),
        **({"options": dict(made.options)} if made.options else {}),
    }


def _observed(made: Build) -> dict[str, Any]:
    if made.error:
        return {"ok": False, "error": made.error}
    found: dict[str, Any] = {"ok": True}
    if made.holds:
        found["probe"] = {
            path: {"type": "file", "content": held} if isinstance(held, str) else held
            for path, held in made.holds.items()
        }
    if made.config:
        found["config_values"] = dict(made.config)
    return found


def _with_triggers(steps: list[dict[str, Any]], decisions: str) -> tuple[list[dict[str, Any]], str]:
    """The steps with a place for every letter that stands in parentheses."""
    found: list[dict[str, Any]] = []
    left = iter(steps)
    inside = -1
    for letter in decisions:
        if letter == "(":
            inside = 0
        elif letter == ")":
            inside = -1
        elif inside >= 0:
            base = next(s for s in reversed(found) if "onbuild" not in s)
            found.append({**base, "op": "?", "text": "?", "index": 0, "onbuild": inside})
            inside += 1
        else:
            step = next(left, None)
            if step is not None:
                found.append(step)
    found.extend(left)
    return found, decisions.replace("(", "").replace(")", "")


def split(text: str) -> list[dict[str, Any]]:
    """The instructions of a Dockerfile, found without the parser that is tested."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    escape = "\\"
    found: list[dict[str, Any]] = []
    stage, index = -1, -1
    at = 0
    directives = True
    while at < len(lines):
        line = lines[at]
        at += 1
        stripped = line.strip()
        if directives and (match := re.match(r"#\s*escape\s*=\s*(\S)", line, re.IGNORECASE)):
            escape = match[1]
        if not stripped or stripped.startswith("#"):
            continue
        directives = False
        full = line.lstrip()
        while full.rstrip(" \t").endswith(escape) and at < len(lines):
            full = full.rstrip(" \t")[:-1]
            while at < len(lines) and (not lines[at].strip() or lines[at].strip()[0] == "#"):
                at += 1
            if at < len(lines):
                full += lines[at]
                at += 1
        at = _after_heredocs(full, lines, at)
        op_name = full.split(None, 1)[0].upper()
        if op_name == "FROM":
            stage, index = stage + 1, 0
        else:
            index += 1
        found.append({"op": op_name, "text": full.strip(), "stage": stage, "index": index})
    return found


def _after_heredocs(full: str, lines: list[str], at: int) -> int:
    if full.split(None, 1)[0].upper() not in {"RUN", "COPY", "ADD", "ONBUILD"}:
        return at
    for dash, _, name in _HEREDOC.findall(full):
        while at < len(lines):
            line = lines[at]
            at += 1
            if (line.lstrip("\t") if dash else line) == name:
                break
    return at


def write(directory: str, wanted: Iterable[Scenario]) -> None:
    """Write the files, and take away those of scenarios that are no more."""
    import os

    names = set()
    for each in wanted:
        names.add(f"{each.id}.json")
        with open(os.path.join(directory, f"{each.id}.json"), "w", encoding="utf-8") as out:
            out.write(each.to_json())
    for name in os.listdir(directory):
        if name.endswith(".json") and name not in names:
            os.unlink(os.path.join(directory, name))
