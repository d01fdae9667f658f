"""Capabilities of plug-ins are declared: a name that happens to be there declares nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layercache import Builder, Copy, Run, Store
from layercache.model import (
    ChecksInstructions,
    Closes,
    HardLinks,
    Linked,
    Masks,
    StepTraits,
    Timed,
    UnpacksStates,
    UsesBaseImages,
    WithSecrets,
)
from layercache.solver import ContentKeys
from layercache.store.backend import CAPABILITIES
from layercache.store.backends.memory import MemoryBackend
from layercache.testing import MemoryExecutor
from layercache.trees import DictTree, Excludes, Filtered, Lists, Ordered, Selects


def _names(*capabilities: type) -> set[str]:
    return {name for one in capabilities for name in vars(one) if not name.startswith("_")}


def _texts(inner: Any, names: set[str]) -> Any:
    """Something that passes the protocol of `inner` on, and has texts under all these names."""

    class Plain:
        def __init__(self) -> None:
            for name in names:
                setattr(self, name, "a text")
            for name in dir(inner):
                if not name.startswith("_") and name not in names:
                    setattr(self, name, getattr(inner, name))

    return Plain()


def test_attributes_of_a_backend_declare_nothing() -> None:
    """A backend whose `path` is a text is none with local files, and works by its four methods."""
    shelf = _texts(MemoryBackend(), {*_names(*CAPABILITIES), "directory"})
    for _ in range(2):
        result = Builder(Store(shelf)).build([Copy("a", "/a")], context={"a": "1"})
    assert [step.decision for step in result.steps] == ["hit"]
    assert not [one for one in CAPABILITIES if isinstance(Store(shelf).objects.medium, one)]


def test_attributes_of_an_executor_declare_nothing() -> None:
    """An executor whose `check`, `masks` or `close` is a text executes steps all the same."""
    names = _names(
        ChecksInstructions, Closes, Masks, StepTraits, UnpacksStates, UsesBaseImages, WithSecrets
    )
    with Builder(executor=_texts(MemoryExecutor(), names)) as builder:
        result = builder.build([Run("write /b 1")], context={})
    assert result.log(0) == b""
    assert [step.decision for step in result.steps] == ["miss"]


def test_attributes_of_a_tree_declare_nothing() -> None:
    """A tree that has more names than `Tree` asks for is read by those of `Tree`."""
    names = _names(Closes, Excludes, Filtered, HardLinks, Linked, Lists, Ordered, Selects, Timed)
    tree = _texts(DictTree({"d/a": "1", "d/b": "2"}), names)
    builder = Builder()
    result = builder.build([Copy("d", "/d/")], context=tree)
    with result.tree().open(b"d/b") as content:
        assert content.read() == b"2"


def test_attributes_of_a_key_strategy_declare_nothing() -> None:
    """One whose `narrows` is a text narrows nothing."""
    keys = _texts(ContentKeys(), {"narrows"})
    builder = Builder(keys=keys, executor=MemoryExecutor())
    for text in ("1", "2"):
        result = builder.build([Copy("a", "/a"), Run("write /b 1")], context={"a": text})
    assert [step.decision for step in result.steps] == ["miss", "miss"]


def test_registering_declares(tmp_path: Path) -> None:
    """A class that can't derive registers instead."""

    class Shared:
        def __init__(self) -> None:
            self.inner = MemoryBackend()
            self.asked = 0

        def read(self, name: str) -> Any:
            return self.inner.read(name)

        def write(self, name: str, content: Any) -> None:
            self.inner.write(name, content)

        def delete(self, name: str) -> None:
            self.inner.delete(name)

        def list(self, prefix: str) -> Any:
            return self.inner.list(prefix)

        def read_many(self, names: Any) -> Any:
            self.asked += 1
            return self.inner.read_many(names)

    Builder(Store(unregistered := Shared())).build([Copy("a", "/a")], context={"a": "1"})
    assert unregistered.asked == 0
    next(one for one in CAPABILITIES if one.__name__ == "BatchReader").register(Shared)  # type: ignore[attr-defined]
    Builder(Store(registered := Shared())).build([Copy("a", "/a")], context={"a": "1"})
    assert registered.asked > 0
