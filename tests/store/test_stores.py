"""Stores over every backend pass the conformance suite."""

from __future__ import annotations

import contextlib
import io
import os
import shutil

import pytest

from layercache import Builder, Dockerfile
from layercache.errors import CacheError
from layercache.model.descriptors import LAYER_TAR
from layercache.model.digests import Fingerprint
from layercache.store.backend import Holds, Locks, Releases, Stats, Syncs, Touches
from layercache.store.backends.fsspec import FsspecBackend
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend, shared_memory
from layercache.store.collection import collect
from layercache.store.store import Store
from layercache.store.store_events import StoreEvent
from layercache.testing.faults import CountingBackend
from layercache.testing.storage import StoreSuite, make_record
from tests.narrow import layer_of, state_of
from tests.store.test_crashes import _child, posix


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
    store.facts.put("a", "b", Fingerprint("c"))
    before = backend.requests

    assert store.facts.get("a", "b") == "c"
    assert backend.requests - before == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_directory_that_was_removed_is_made_again(tmp_path, whole):
    """A store that lives on writes on, with its directory gone or only what was in it."""
    directory = tmp_path / "cache"
    events: list[StoreEvent] = []
    store = Store(LocalBackend(directory), on_event=events.append)
    store.records.put(make_record(store, 1))
    store.commit()
    if whole:
        shutil.rmtree(directory)
    else:
        for entry in list(directory.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    record = store.records.put(make_record(store, 1))
    store.commit()

    assert Store(LocalBackend(directory)).records.lookup([record.key]) == {record.key: record}
    assert events == []


class Raises:
    """Four methods, of which one raises what its author forgot to translate."""

    def __init__(self, method, error):
        self.inner = MemoryBackend()
        self.method = method
        self.error = error

    def _call(self, method, *arguments):
        if method == self.method:
            raise self.error
        return getattr(self.inner, method)(*arguments)

    def read(self, name):
        return self._call("read", name)

    def write(self, name, content):
        self._call("write", name, content)

    def delete(self, name):
        self._call("delete", name)

    def list(self, prefix):
        return self._call("list", prefix)


class RaisesMore(Raises, Holds, Locks, Releases, Stats, Syncs, Touches):
    """And all that a backend may offer beyond."""

    def hold(self, names):
        self._call("hold")

    def unhold(self):
        self._call("unhold")

    def seize(self, names):
        return self._call("seize") or contextlib.nullcontext(names)

    def lock(self, name, give_up=None):
        return self._call("lock") or contextlib.nullcontext(True)

    def sync(self):
        self._call("sync")

    def release(self):
        self._call("release")

    def stat(self, name):
        return self._call("stat", name)

    def touch(self, names):
        self._call("touch", names)

    def _call(self, method, *arguments):
        if method == self.method or hasattr(self.inner, method):
            return super()._call(method, *arguments)
        return None


@pytest.mark.parametrize(
    "error", [OSError(5, "broken"), RuntimeError("broken"), KeyError(0)], ids=repr
)
@pytest.mark.parametrize(
    "method",
    ["read", "write", "list", "stat", "touch", "hold", "unhold", "lock", "sync", "release"],
)
def test_whatever_a_backend_raises_costs_hits_only(method, error):
    """An error of any kind is a failure of the medium: said once, and the build goes on."""
    kind = Raises if method in {"read", "write", "list"} else RaisesMore
    backend = kind(method, error)
    events: list[StoreEvent] = []
    text = "FROM scratch\nCOPY a /\nCOPY b /\nCOPY c /\n"
    for _ in range(2):
        with Store(backend, on_event=events.append) as store:
            result = Builder(store).build(
                Dockerfile.parse(text), context={"a": "1", "b": "2", "c": "3"}
            )
            assert len(state_of(result).layers) == 3
    assert len(events) <= 4
    assert {event.kind for event in events} <= {"degraded"}
    with pytest.raises(CacheError):
        collect(Store(Raises("list", error)), [])
    assert repr(Store(backend)) == f"Store({backend!r})"
    assert Store(backend).backend is backend


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise OSError(116, "Stale file handle")


def test_a_record_that_can_not_be_read_ends_a_collection(tmp_path):
    """It may be intact: what it refers to is not free."""

    class Stale(LocalBackend):
        def read(self, name):
            return Broken() if name.startswith("ac/") else super().read(name)

    store = Store(Stale(tmp_path))
    record = store.records.put(make_record(store, 1))
    store.commit()
    with pytest.raises(CacheError, match="Stale"):
        collect(store, [], grace=0)
    assert store.blobs.has(layer_of(record).descriptor)


@posix
def test_a_forked_child_removes_nothing_of_its_parent(tmp_path):
    """What is kept aside stays when a child closes its copy of the store, or just ends."""
    with Store(Raises("write", OSError(28, "full"))) as store:
        descriptor = store.blobs.add(io.BytesIO(b"aside"), LAYER_TAR)
        os.waitpid(_child(store.close), 0)
        assert store.blobs.intact(descriptor)
        path = store.blobs.verified_path(descriptor)
    assert not os.path.exists(path)


@pytest.mark.parametrize("name", ["plain", "trusted writer", "has format 2"])
@pytest.mark.parametrize(("kind", "at"), [("newer", 3), ("corrupt", -1)])
def test_an_object_is_reported_for_what_it_is(name, kind, at):
    """A later format and damage are told apart, whatever the object is called."""
    backend = MemoryBackend()
    events: list[StoreEvent] = []
    Store(backend).references.put(name, b"payload")
    place = next(info.name for info in backend.list("") if info.name != "format")
    with backend.read(place) as content:
        data = bytearray(content.read())
    data[at] += 1
    backend.write(place, io.BytesIO(bytes(data)))
    assert Store(backend, on_event=events.append).references.get(name) is None
    assert [event.kind for event in events] == [kind]
