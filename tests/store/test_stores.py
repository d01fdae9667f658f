"""Stores over every backend pass the conformance suite."""

from __future__ import annotations

import shutil

import pytest

from layercache.backends.fsspec import FsspecBackend
from layercache.backends.local import LocalBackend
from layercache.backends.memory import MemoryBackend, shared_memory
from layercache.store import Store
from layercache.testing.faults import CountingBackend
from layercache.testing.storage import StoreSuite, make_record


class TestMemory(StoreSuite):
    def make(self, tmp_path, **options):
        return Store(shared_memory(str(tmp_path)), **options)


class TestLocal(StoreSuite):
    durability = "batch"

    def make(self, tmp_path, **options):
        return Store(LocalBackend(tmp_path / "cache", durability=self.durability), **options)


class TestLocalFull(TestLocal):
    durability = "full"


class TestFsspec(StoreSuite):
    def make(self, tmp_path, **options):
        return Store(FsspecBackend(f"memory://{tmp_path}"), **options)


class TestFourMethods(StoreSuite):
    """The least a backend can be."""

    class Least:
        def __init__(self, inner):
            self.inner = inner

        def read(self, name):
            return self.inner.read(name)

        def write(self, name, content):
            self.inner.write(name, content)

        def delete(self, name):
            self.inner.delete(name)

        def list(self, prefix):
            return self.inner.list(prefix)

    def make(self, tmp_path, **options):
        return Store(self.Least(shared_memory(str(tmp_path))), **options)


def test_a_suite_needs_a_maker(tmp_path):
    """Forgetting to say how to make one is an error, not a pass."""
    with pytest.raises(TypeError, match="override make"):
        StoreSuite().test_a_record_is_found_by_its_key(tmp_path)


def test_counting():
    """Requests, round trips and bytes are counted."""
    backend = CountingBackend(MemoryBackend())
    store = Store(backend)
    store.put_fact("a", "b", "c")
    before = backend.requests

    assert store.get_fact("a", "b") == "c"
    assert backend.requests - before == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_directory_that_was_removed_is_made_again(tmp_path, whole):
    """A store that lives on writes on, with its directory gone or only what was in it."""
    directory = tmp_path / "cache"
    events = []
    store = Store(LocalBackend(directory), on_event=events.append)
    store.put(make_record(store, 1))
    store.commit()
    if whole:
        shutil.rmtree(directory)
    else:
        for entry in list(directory.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    record = store.put(make_record(store, 1))
    store.commit()

    assert Store(LocalBackend(directory)).lookup([record.key]) == {record.key: record}
    assert events == []
