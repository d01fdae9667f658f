"""The Dockerfiles of the conformance scenarios, as used in each of their builds."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "conformance" / "scenarios"


def scenarios() -> list[dict[str, Any]]:
    """All scenarios, in order of their names."""
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]


def _text(entry: Any) -> str:
    return entry if isinstance(entry, str) else entry.get("content", "")


class _Contexts:
    """What of the files of each context matters here: texts by context and path."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.name = scenario.get("dockerfile_name", "Dockerfile")
        self.files: dict[str, dict[str, str]] = {"": {}}
        self._fill("", scenario, self.name)
        for name, context in scenario.get("contexts", {}).items():
            self.files[name] = {}
            self._fill(name, context, "Dockerfile")

    def _fill(self, name: str, context: dict[str, Any], dockerfile: str) -> None:
        for path, entry in context.get("files", {}).items():
            self.files[name][path] = _text(entry)
        if context.get("dockerfile") is not None:
            self.files[name][dockerfile] = context["dockerfile"]

    def apply(self, operation: dict[str, Any]) -> None:
        files = self.files.setdefault(operation.get("context") or "", {})
        path = operation.get("path", "")
        match operation["op"]:
            case "write":
                entry = operation.get("entry", operation.get("content", operation))
                files[path] = _text(entry)
            case "dockerfile":
                name = operation.get("name", self.name)
                files[name] = operation.get("text", operation.get("content", ""))
            case "dockerfile_replace":
                name = operation.get("name", self.name)
                files[name] = files[name].replace(operation["old"], operation["new"])
            case "rename":
                if path in files:
                    files[operation["to"]] = files.pop(path)
            case "clone_context":
                self.files[operation["to"]] = copy.deepcopy(files)


def dockerfiles() -> Iterator[tuple[str, int, str, list[dict[str, Any]]]]:
    """(scenario, number of the build, text of its Dockerfile, its steps) of every build."""
    for scenario in scenarios():
        contexts = _Contexts(scenario)
        for number, build in enumerate(scenario["builds"]):
            for operation in build.get("mutate", []):
                contexts.apply(operation)
            options = build.get("options", {})
            context = options.get("dockerfile_context", options.get("context")) or ""
            text = contexts.files[context].get(options.get("file", contexts.name))
            if text is None:
                text = contexts.files[""][contexts.name]
            yield scenario["id"], number, text, scenario["steps"][number]
