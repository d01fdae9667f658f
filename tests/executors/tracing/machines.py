"""Machines: each has an executor and unpacked layers of its own, and may share a cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult
from layercache.events import Note
from layercache.executors.rootfs import RootfsExecutor
from layercache.model.tree import Tree
from layercache.store.open import open_store
from layercache.testing.images import busybox_layer, make_layout

__all__ = ["Machine", "base_layout", "snapshot"]


class Machine:
    """A computer that builds: `cache` may be another machine's."""

    def __init__(self, directory: Path, base: Path, cache: Path | None = None, **options: Any):
        self.base = base
        self.cache = cache or directory / "cache"
        self.executor = RootfsExecutor(directory / "rootfs", **options)
        self.events: list[Any] = []
        self.builder = Builder(
            open_store(str(self.cache), durability="none"),
            executor=self.executor,
            jobs=2,
            observers=[self.events.append],
        )

    def build(self, text: str, context: Any = None, **more: Any) -> BuildResult:
        """Build a recipe `FROM base`; the context is a tree, or files by name."""
        return self.builder.build(Dockerfile.parse(text), **self._options(context, more))

    def plan(self, text: str, context: Any = None, **more: Any) -> BuildResult:
        """What `build` would do."""
        return self.builder.plan(Dockerfile.parse(text), **self._options(context, more))

    def _options(self, context: Any, more: dict[str, Any]) -> dict[str, Any]:
        contexts = {"base": f"oci-layout://{self.base}", **more.pop("contexts", {})}
        return {"context": {} if context is None else context, "contexts": contexts, **more}

    def refusal(self, result: BuildResult) -> str:
        """Why the last step of a build was not traced, where it was executed."""
        notes = [str(e.message) for e in self.events if isinstance(e, Note)]
        self.events.clear()
        return "; ".join(text for text in notes if "not traced" in text)

    def close(self) -> None:
        self.builder.store.commit()
        self.executor.close()
        self.builder.store.close()


def base_layout(directory: Path, extra: Mapping[str, bytes | str | None] | None = None) -> Path:
    """An OCI layout with a busybox image that has also `extra`."""
    layer = busybox_layer(extra=extra)
    assert layer is not None
    make_layout(directory, [layer], {"Env": ["PATH=/bin"]})
    return directory


def decisions(result: BuildResult) -> list[str]:
    """The decisions of the steps that decide, in order."""
    return [s.decision for s in result.steps if s.decision in {"hit", "miss", "would-run"}]


def evidence(result: BuildResult) -> list[str | None]:
    """Decision or, for hits, the evidence of each step that decides."""
    return [
        s.evidence if s.decision == "hit" else s.decision
        for s in result.steps
        if s.decision is not None
    ]


def snapshot(tree: Tree) -> dict[str, Any]:
    """Everything of a tree, times included: path → node, files by their content digest."""
    found: dict[str, Any] = {"": tree.lookup(b"")}
    pending = [b""]
    while pending:
        path = pending.pop()
        for name in tree.children(path):
            child = path + b"/" + name if path else name
            node = tree.lookup(child)
            assert node is not None
            found[os.fsdecode(child)] = node
            if node.is_dir:
                pending.append(child)
    return found


def has_busybox() -> bool:
    return shutil.which("busybox") is not None
