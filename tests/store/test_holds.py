"""Collections beside running builds, whatever the clock says: what is relied on stays."""

from __future__ import annotations

import io
import os
import random
import signal
import threading
import time

import pytest

from layercache import Builder, Dockerfile
from layercache._os.durability import boot_id
from layercache.errors import CacheError
from layercache.model.descriptors import LAYER_TAR
from layercache.store.backend import Cleans, Holds
from layercache.store.backends.local import LocalBackend
from layercache.store.collection import collect, verify
from layercache.store.retention import KeepDuration, KeepStorage
from layercache.store.store import Store
from layercache.store.tiered import tiered
from layercache.testing.faults import CountingBackend
from layercache.testing.storage import make_record
from tests.narrow import state_of
from tests.store.test_crashes import (  # noqa: F401
    SEED,
    SOAK_SECONDS,
    _child,
    fast_directory,
    posix,
)

YEARS = 10 * 365 * 86_400


def _store(directory):
    return Store(LocalBackend(directory))


def _hits(directory, keys):
    with _store(directory) as store:
        return set(store.records.lookup(keys))


def _age(directory, seconds):
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            stamp = os.stat(path).st_mtime - seconds
            os.utime(path, (stamp, stamp))


@posix
def test_what_a_build_relies_on_is_not_collected(tmp_path):
    """A hit holds its layer until the build is over, however old it looks."""
    store = _store(tmp_path)
    assert isinstance(store.backend, Holds)
    records = [store.records.put(make_record(store, number)) for number in range(4)]
    store.commit()
    reader = _store(tmp_path)
    assert reader.records.lookup([records[0].key])
    _age(tmp_path, YEARS)
    collector = _store(tmp_path)
    done = collect(collector, [], everything=True, grace=0.0)

    assert not any(records[0].key in name for name in done.removed)
    assert reader.blobs.read(records[0].layer.descriptor.digest) == b"layer 0"
    assert _hits(tmp_path, [r.key for r in records]) == {records[0].key}
    reader.commit()
    collect(collector, [], everything=True, grace=0.0)
    assert not _hits(tmp_path, [records[0].key])


@posix
def test_what_a_build_has_just_added_is_not_collected(tmp_path):
    """A blob whose record is still to come stays, also with the clock ten years on."""
    store = _store(tmp_path)
    descriptor = store.blobs.add(io.BytesIO(b"soon"), LAYER_TAR)
    _age(tmp_path, YEARS)
    collect(_store(tmp_path), [], grace=0.0)

    assert _store(tmp_path).blobs.has(descriptor)
    store.close()
    collect(_store(tmp_path), [], grace=0.0)
    assert not _store(tmp_path).blobs.has(descriptor)


@posix
@pytest.mark.parametrize("ask", ["lookup", "put"])
def test_a_record_is_found_while_it_is_acknowledged(tmp_path, ask):
    """A twin may move it from where it was staged to its place between two looks."""
    twin = _store(tmp_path)
    record = twin.records.put(make_record(twin, 1))

    class Slow(LocalBackend):
        def staged(self, name):
            twin.commit()
            return super().staged(name)

    store = Store(Slow(tmp_path))
    if ask == "lookup":
        assert set(store.records.lookup([record.key])) == {record.key}
    else:
        newer = store.records.put(make_record(store, 1), replace=True)
        assert newer.generation == record.generation + 1


@posix
def test_a_killed_build_holds_nothing(tmp_path):
    """Holds go with the process."""
    store = _store(tmp_path)
    record = store.records.put(make_record(store, 1))
    store.commit()
    reader, writer = os.pipe()

    def hold():
        holder = _store(tmp_path)
        holder.records.lookup([record.key])
        os.write(writer, b"x")
        time.sleep(60)

    pid = _child(hold)
    os.read(reader, 1)
    collect(store, [], everything=True, grace=0.0)
    assert _hits(tmp_path, [record.key])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    collect(store, [], everything=True, grace=0.0)
    assert not _hits(tmp_path, [record.key])


@posix
@pytest.mark.skipif(boot_id() is None, reason="nothing is staged where boots have no name")
def test_what_a_dead_build_staged_is_not_acknowledged_without_its_layer(tmp_path):
    """Nobody holds its layer any more; with that gone, its record never comes to be seen."""
    dead = _store(tmp_path)
    record = dead.records.put(make_record(dead, 1))
    dead.close()
    collect(_store(tmp_path), [], grace=0.0)
    store = _store(tmp_path)
    store.records.put(make_record(store, 2))

    assert store.records.lookup([record.key]) == {}
    store.commit()
    assert verify(_store(tmp_path)) == ()


@posix
def test_debris_of_dead_processes_goes(tmp_path):
    """Unfinished files go once they are old and their process is gone; others stay."""
    backend = LocalBackend(tmp_path)
    assert isinstance(backend, Cleans)
    directory = backend.spool()
    dead = _child(lambda: None)
    os.waitpid(dead, 0)
    for pid in (dead, os.getpid()):
        for age in (0, 7200):
            path = f"{directory}/{pid:x}-{age}-x"
            with open(path, "wb") as out:
                out.write(b"12345")
            stamp = time.time() - age
            os.utime(path, (stamp, stamp))
    backend.stage("ac/x", b"1")
    lost = tmp_path / "staged" / "another-boot"
    lost.mkdir()
    (lost / "y").write_bytes(b"12")
    os.utime(lost / "y", (1, 1))

    assert backend.clean(dry_run=True) == backend.clean() == 7
    assert backend.clean() == 0
    assert len(os.listdir(directory)) == 3
    assert backend.staged("ac/x") == b"1"


@posix
def test_collections_beside_readers_and_writers(fast_directory):  # noqa: F811
    """8 readers and 8 writers, a collector, and a clock that jumps by ten years both ways."""
    started = time.monotonic()
    directory = fast_directory / "cache"
    end = time.time() + SOAK_SECONDS
    number = 60

    def content(step):
        return b"%d " % step * (1 + step * 37 % 500)

    def write(seed):
        rng = random.Random(SEED + seed)
        while time.time() < end:
            store = _store(directory)
            keys = []
            for step in rng.sample(range(number), 3):
                record = store.records.put(make_record(store, step, content(step)))
                keys.append(record.key)
            time.sleep(rng.random() * 0.01)
            found = store.records.lookup(keys)
            assert set(found) == set(keys)
            for record in found.values():  # what the build relies on is there until it ends
                store.blobs.read(record.layer.descriptor.digest)
            store.commit()
            store.close()

    def read(seed):
        rng = random.Random(SEED + 100 + seed)
        keys = [make_record(None, step).key for step in range(number)]
        while time.time() < end:
            store = _store(directory)
            found = store.records.lookup(rng.sample(keys, 5))
            time.sleep(rng.random() * 0.02)
            for record in found.values():
                store.blobs.read(record.layer.descriptor.digest)
            store.close()

    def gather(seed):
        rng = random.Random(SEED + 200 + seed)
        runs = 0
        while time.time() < end or runs < 3:
            runs += 1
            jump = rng.choice((0, 0, YEARS, -YEARS))
            try:
                _age(directory, jump) if jump else None
            except OSError:
                pass  # went meanwhile
            policy = rng.choice(([KeepStorage(2000)], [KeepDuration(1.0)], []))
            try:
                collect(_store(directory), policy, grace=0.0, everything=not policy)
            except CacheError as error:
                raise AssertionError("a collection failed") from error
            time.sleep(rng.random() * 0.05)

    work = [*[(write, n) for n in range(8)], *[(read, n) for n in range(8)], (gather, 0)]
    children = [_child(lambda w=w, n=n: w(n)) for w, n in work]
    statuses = [os.waitpid(pid, 0)[1] for pid in children]

    assert statuses == [0] * len(work)
    store = _store(directory)
    assert verify(store) == ()
    wall = time.monotonic() - started
    print(f"collections beside builds: 17 run, seed {SEED}, wall {wall:.1f} s")


@posix
def test_more_holds_than_are_kept_one_by_one(tmp_path):
    """From some number on everything counts as in use."""
    backend = LocalBackend(tmp_path)
    names = [f"blobs/{number}" for number in range(2100)]
    backend.hold(names)
    other = LocalBackend(tmp_path)
    with other.seize([names[0], names[-1], "blobs/never"]) as free:
        assert list(free) == []
    backend.unhold()
    with other.seize([names[0], "blobs/never"]) as free:
        assert list(free) == [names[0], "blobs/never"]


@posix
def test_thousands_are_seized_at_once_where_nobody_holds_any(tmp_path, monkeypatch):
    """With one lock, which the system need not compare with thousands; one that is held is left
    out, and nobody gets a hold while they are seized."""
    fcntl = pytest.importorskip("fcntl")
    names = [f"blobs/sha256/{number:04x}" for number in range(3000)]
    backend, other = LocalBackend(tmp_path), LocalBackend(tmp_path)
    locks = []
    real = fcntl.fcntl

    def counted(fd, command, block):
        if command == fcntl.F_OFD_SETLK:
            locks.append(block)
        return real(fd, command, block)

    monkeypatch.setattr(fcntl, "fcntl", counted)
    with backend.seize(names) as free:
        assert list(free) == names
        assert len(locks) == 1
        waiting = threading.Thread(target=other.hold, args=([names[7]],))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join()
    with backend.seize(names) as free:
        assert [name for name in names if name not in free] == [names[7]]
    other.unhold()


@posix
def test_a_plan_that_is_over_holds_nothing(tmp_path):
    """A builder that lives on and only plans is in nobody's way."""
    text = Dockerfile.parse("FROM scratch\nCOPY a /\n")
    first = Builder(_store(tmp_path)).build(text, context={"a": "1"})
    planner = Builder(_store(tmp_path))
    planner.plan(text, context={"a": "1"})
    collect(_store(tmp_path), [], everything=True, grace=0.0)

    assert not _store(tmp_path).blobs.has(state_of(first).layers[0].descriptor)


@posix
def test_a_build_holds_what_it_relies_on_beyond_the_end_of_another(tmp_path):
    """Two builds over one object: the first to end lets go of nothing that the other needs."""
    store = _store(tmp_path)
    record = store.records.put(make_record(store, 1))
    store.commit()
    with store.in_use():
        store.records.lookup([record.key])
        with store.in_use():
            store.commit()
        collect(_store(tmp_path), [], everything=True, grace=0.0)
        assert _hits(tmp_path, [record.key])
    collect(_store(tmp_path), [], everything=True, grace=0.0)
    assert not _hits(tmp_path, [record.key])


@pytest.mark.parametrize("kind", ["local", "four methods"])
def test_an_old_blob_that_is_made_again_is_renewed(tmp_path, kind):
    """No record may name it any more: by age alone it would go, before the new record is seen."""
    backend = LocalBackend(tmp_path) if kind == "local" else CountingBackend(LocalBackend(tmp_path))
    store = Store(backend)
    descriptor = store.blobs.add(io.BytesIO(b"layer"), LAYER_TAR)
    _age(tmp_path, 60)
    (before,) = store.backend.list("blobs/")
    store.blobs.add(io.BytesIO(b"layer"), LAYER_TAR)
    assert list(store.backend.list("blobs/")) == [before]
    _age(tmp_path, YEARS)
    Store(backend).blobs.add(io.BytesIO(b"layer"), LAYER_TAR)
    (after,) = store.backend.list("blobs/")
    assert time.time() - after.stamp < 60
    assert store.blobs.read(descriptor.digest) == b"layer"


def test_an_old_blob_at_a_remote_is_sent_again(tmp_path):
    """With a record that is new there: what collects there must not come between."""
    remote = CountingBackend(LocalBackend(tmp_path / "remote"))
    content = os.urandom(1 << 17)  # large enough to be looked for first
    Store(remote).blobs.add(io.BytesIO(content), LAYER_TAR)
    for number, age in enumerate((60, YEARS)):
        _age(tmp_path / "remote", age)
        with tiered(Store(LocalBackend(tmp_path / f"{number}")), cache_to=[remote]) as store:
            store.records.put(make_record(store, number, content))
        (blob,) = remote.list("blobs/")
        assert (time.time() - blob.stamp < 30) == (age == YEARS)
