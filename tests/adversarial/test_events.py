"""Trouble of the cache is told to whoever watches a build."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import BinaryIO

import pytest

from layercache import Builder, Copy, Store
from layercache.cli import main
from layercache.errors import CacheError
from layercache.events import CacheTrouble, Event
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend


def test_what_the_store_notices_reaches_the_observers(tmp_path: Path) -> None:
    """A damaged record is a miss, said when it is found and when it is healed."""
    files = {"a": "1"}
    Builder(tmp_path).build([Copy("a", "/a")], context=files)
    for record in (tmp_path / "ac").glob("*/*"):
        record.chmod(0o600)
        record.write_bytes(b"damaged")

    seen: list[Event] = []
    result = Builder(tmp_path, observers=[seen.append]).build([Copy("a", "/a")], context=files)

    assert [step.decision for step in result.steps] == ["miss"]
    kinds = [event.kind for event in seen if isinstance(event, CacheTrouble)]
    assert sorted(set(kinds)) == ["corrupt", "healed"]


class Broken(MemoryBackend):
    """A backend that can't be reached."""

    def read(self, name: str) -> BinaryIO:
        raise CacheError("no route to the cache")

    def write(self, name: str, content: BinaryIO) -> None:
        raise CacheError("no route to the cache")


def test_a_cache_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    """The build goes on without it, but not silently."""
    seen: list[Event] = []
    Builder(Store(Broken()), observers=[seen.append]).build([Copy("a", "/a")], context={"a": "1"})

    assert any(isinstance(e, CacheTrouble) and "no route" in e.message for e in seen)


def test_an_owner_of_the_store_who_listens_keeps_listening(tmp_path: Path) -> None:
    """A store that tells somebody already is left alone."""
    told: list[object] = []
    store = Store(LocalBackend(tmp_path), on_event=told.append)
    Builder(store)

    assert store.events.on_event == told.append


def test_the_command_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, beside the result."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    (tmp_path / "a").write_text("1")

    assert main(["build", "--cache", "http://127.0.0.1:1/cache", str(tmp_path)]) == 0
    assert "cache: degraded" in capsys.readouterr().err


def test_every_builder_over_a_store_hears_of_it() -> None:
    """Not the first alone; one that is gone is not called."""
    store = Store(Broken())
    seen: list[Event] = []
    gone: list[Event] = []
    Builder(store, observers=[gone.append])
    gc.collect()
    first = Builder(store)
    Builder(store, observers=[seen.append]).build([Copy("a", "/a")], context={"a": "1"})

    assert any(isinstance(e, CacheTrouble) for e in seen)
    assert gone == []
    assert first.store is store
