"""Killed processes, power cuts, full disks: nothing acknowledged is lost, nothing wrong shows."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

import attrs
import pytest

from layercache._os import durability
from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import Copy, From, Run
from layercache.errors import CacheError
from layercache.store.backends import beneath, local
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.collection import verify
from layercache.store.sealed_objects import SealedObjects
from layercache.store.store import Store
from layercache.testing.storage import make_record
from tests.store.test_faulty_storage import CONTEXT, RECIPE, Writes, _build, _diff_ids, _intact

SEED = int(os.environ.get("LAYERCACHE_SEED", "20261124"))
SOAK = int(os.environ.get("LAYERCACHE_SOAK", "1"))
"""How many times as long to go on as a quick run does."""
SOAK_SECONDS = float(os.environ.get("LAYERCACHE_SOAK_SECONDS", "6"))
"""How long processes go on beside each other."""

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")


def _child(work) -> int:
    """Run `work` in a child process that ends without any of the parent's clean-up."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            if status:
                os.write(2, traceback.format_exc().encode())
            os._exit(status)
    return pid


@pytest.fixture
def fast_directory(tmp_path):
    """In memory where there is such a place: a kill needs no disk."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    directory = tempfile.mkdtemp(dir=base)
    yield Path(directory)
    shutil.rmtree(directory, ignore_errors=True)


# -- killed processes -----------------------------------------------------------------------


@posix
def test_killed_at_random_points(fast_directory):
    """After each kill everything acknowledged is there, and whatever is there is right."""
    started = time.monotonic()
    rng = random.Random(SEED)
    directory = fast_directory / "cache"
    acknowledged: list[int] = []
    number = checked = 0
    for run in range(200 * SOAK):
        reader, writer = os.pipe()

        def work(first=number, writer=writer):
            store = Store(LocalBackend(directory))
            for count in range(first, first + 1000):
                content = b"%d" % count * (1 + count % 977)
                store.records.put(make_record(store, count, content), replace=count % 5 == 0)
                if count % 3 == 0:
                    store.references.put("latest", b"%d" % count)
                store.commit()
                os.write(writer, b"%d\n" % count)

        pid = _child(work)
        os.close(writer)
        time.sleep(rng.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with open(reader, "rb") as answers:
            done = [int(line) for line in answers.read().split()]
        acknowledged += done
        number += 1000
        if run + 1 == checked + max(10, checked // 4):  # rarer as they become many: it reads all
            checked = run + 1
            _check_apart(directory, acknowledged)
    store = Store(LocalBackend(directory))
    last = max((n for n in acknowledged if n % 3 == 0), default=None)
    if last is not None:
        assert int(store.references.get("latest")) >= last
    _check_apart(directory, acknowledged)
    wall = time.monotonic() - started
    done = len(acknowledged)
    print(f"kills: {200 * SOAK} run, seed {SEED}, wall {wall:.1f} s, {done} acknowledged")


def _check_apart(directory, acknowledged):
    """Check in a process of its own: one that has grown is forked slowly from then on."""
    pid = _child(lambda: _check(LocalBackend(directory), acknowledged))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _check(backend, acknowledged):
    """Everything acknowledged is a hit, and every record that is there has its right layer."""
    store = Store(backend)
    keys = {make_record(None, n).key: n for n in acknowledged}
    found = store.records.lookup(list(keys))
    assert set(found) == set(keys)
    for info in backend.list("ac/"):
        key = info.name.rpartition("/")[2]
        record = store.records.lookup([key])[key]
        data = store.blobs.read(record.layer.descriptor.digest)
        assert "sha256:" + hashlib.sha256(data).hexdigest() == record.layer.diff_id


# -- power cuts -----------------------------------------------------------------------------


class _Recorder:
    """Stands for `os` in the local backend and keeps a log of what changes the directory.

    Entries: ("name", name, inode) a name now leads to an inode; ("gone", name);
    ("sync",); ("ack", facts). `data` has the bytes of each inode when it first got a name.
    """

    def __init__(self, root, unlink_too=True):
        self.root = str(root) + os.sep
        self.log = []
        self.data = {}

    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, source, target, *, dst_dir_fd=None):
        os.replace(source, target, dst_dir_fd=dst_dir_fd)
        if dst_dir_fd is not None:
            target = os.path.join(os.readlink(f"/proc/self/fd/{dst_dir_fd}"), target)
        status = os.stat(target)
        inode = (status.st_ino, status.st_mtime_ns, status.st_size)  # inodes are used again
        if inode not in self.data:
            self.data[inode] = Path(target).read_bytes()
        self.log.append(("name", target.removeprefix(self.root), inode))
        if not source.startswith(self.root + "tmp"):
            self.log.append(("gone", source.removeprefix(self.root)))

    def unlink(self, path, *, dir_fd=None):
        os.unlink(path, dir_fd=dir_fd)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        self.log.append(("gone", path.removeprefix(self.root)))

    def synced(self, *_):
        self.log.append(("sync",))


def _crash(log, data, end, rng):
    """What may be on the disk when the power goes after `end` entries of the log."""
    synced = max((i for i in range(end) if log[i][0] == "sync"), default=-1)
    names, whole = {}, set()
    for entry in log[: synced + 1]:
        if entry[0] == "name":
            names[entry[1]] = entry[2]
            whole.add(entry[2])
        elif entry[0] == "gone":
            names.pop(entry[1], None)
    loose = [entry for entry in log[synced + 1 : end] if entry[0] in ("name", "gone")]
    rng.shuffle(loose)  # what was not synced may come in any order, or not at all
    share = rng.choice((0.1, 0.5, 0.9))
    for entry in loose:
        if rng.random() > share:
            continue
        if entry[0] == "name":
            names[entry[1]] = entry[2]
        else:
            names.pop(entry[1], None)
    objects = {}
    for name, inode in names.items():
        content = data[inode]
        if inode not in whole:
            cut = rng.randrange(len(content) + 1)
            content = rng.choice(
                (
                    content,
                    b"",
                    content[:cut],
                    bytes(len(content)),
                    content[:cut] + bytes(len(content) - cut),
                )
            )
        objects[name] = content
    return objects


def _power_cuts(tmp_path, monkeypatch, states):
    """Run builds, then look at `states` disks as a power cut may leave them."""
    rng = random.Random(SEED)
    root = tmp_path / "cache"
    recorder = _Recorder(root)
    monkeypatch.setattr(local, "os", recorder)
    monkeypatch.setattr(beneath, "os", recorder)
    monkeypatch.setattr(durability, "sync_filesystem", recorder.synced)
    history: dict[str, list[tuple[int, bytes]]] = {}
    references: list[tuple[int, bytes]] = []
    for build in range(12):
        store = Store(LocalBackend(root))
        fresh = {}
        for number in rng.sample(range(20), 4):
            content = b"build %d step %d " % (build, number) * rng.randrange(1, 40)
            record = store.records.put(make_record(store, number, content), replace=True)
            fresh[record.key] = content
            history.setdefault(record.key, []).append((10**9, content))
        store.derived.put("index", f"x{build}", b"derived %d" % build)
        store.references.put("tag", b"%d" % build)
        references.append((10**9, b"%d" % build))
        store.commit()
        at = len(recorder.log)
        for key in fresh:
            history[key][-1] = (at, history[key][-1][1])
        references[-1] = (at, references[-1][1])
        store.close()
    syncs = sum(entry[0] == "sync" for entry in recorder.log)

    assert syncs <= 3 * 12
    for _ in range(states):
        end = rng.randrange(len(recorder.log) + 1)
        backend = MemoryBackend()
        for name, content in _crash(recorder.log, recorder.data, end, rng).items():
            if not name.startswith(("tmp/", "locks/")):
                backend.write(name, io.BytesIO(content))
        store = Store(backend)
        found = store.records.lookup(list(history))
        for key, versions in history.items():
            acknowledged = [i for i, (at, _) in enumerate(versions) if at <= end]
            if acknowledged:
                assert key in found
            if key not in found:
                continue
            seen = store.blobs.read(found[key].layer.descriptor.digest)
            allowed = versions[acknowledged[-1] :] if acknowledged else versions
            assert seen in [content for _, content in allowed]
        tag = store.references.get("tag")
        done = [i for i, (at, _) in enumerate(references) if at <= end]
        if done:
            assert tag in [value for _, value in references[done[-1] :]]


def test_power_cuts(tmp_path, monkeypatch):
    """However unsynced writes are dropped, reordered or torn: no loss, no wrong hit.

    A record that is there after the cut has its whole layer, also when nobody acknowledged it.
    """
    started = time.monotonic()
    _power_cuts(tmp_path, monkeypatch, 3000 * SOAK)
    print(f"power cuts: {3000 * SOAK} run, seed {SEED}, wall {time.monotonic() - started:.1f} s")


@pytest.mark.parametrize("first_sync", [True, False])
def test_a_wrong_order_is_caught(tmp_path, monkeypatch, first_sync):
    """With either of the two syncs left out, power cuts do show."""

    def wrong(objects, names):
        if first_sync:
            objects.backend.sync()
        objects.backend.publish(names)
        if not first_sync:
            objects.backend.sync()

    monkeypatch.setattr(SealedObjects, "_make_durable", wrong)
    with pytest.raises(AssertionError):
        _power_cuts(tmp_path, monkeypatch, 1000)


def test_syncs_are_few(tmp_path, monkeypatch):
    """A build that changes nothing syncs nothing; one that does, two times."""
    syncs = []
    monkeypatch.setattr(durability, "sync_filesystem", lambda *_: syncs.append(1))
    counts = []
    for _ in range(2):
        store = Store(LocalBackend(tmp_path / "cache"))
        syncs.clear()
        builder = Builder(store, executor=Writes(), jobs=1)
        builder.build(RECIPE, context=CONTEXT, project="p", tags=["app:1"])
        counts.append(len(syncs))
        store.close()

    assert counts == [2, 0]


def test_a_failed_sync_acknowledges_nothing(tmp_path, monkeypatch):
    """What the kernel could not write is removed and made anew, not shown as there."""
    failing = [True]

    def sync(*_):
        if failing[0]:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(durability, "sync_filesystem", sync)
    events = []
    store = Store(LocalBackend(tmp_path / "cache"), on_event=events.append)
    record = store.records.put(make_record(store, 1))
    store.commit()

    assert [event.kind for event in events] == ["degraded"]
    assert Store(LocalBackend(tmp_path / "cache")).records.lookup([record.key]) == {}
    failing[0] = False
    store.records.put(make_record(store, 1))
    store.commit()
    assert Store(LocalBackend(tmp_path / "cache")).records.lookup([record.key])


# -- many processes -------------------------------------------------------------------------


@posix
def test_64_processes_on_one_key(fast_directory):
    """One runs the step; all adopt its result."""
    directory = fast_directory / "cache"
    ran = fast_directory / "ran"
    adopted = fast_directory / "adopted"
    start = time.time() + 0.3

    def race():
        store = Store(LocalBackend(directory))
        key = make_record(None, 7).key
        time.sleep(max(0.0, start - time.time()))
        with store.records.lock(key) as got:
            assert got
            found = store.records.lookup([key]).get(key)
            if found is None:
                with open(ran, "ab", buffering=0) as out:
                    out.write(b"x")
                time.sleep(0.05)
                found = store.records.put(make_record(store, 7))
        assert store.blobs.read(found.layer.descriptor.digest) == b"layer 7"
        store.commit()
        with open(adopted, "ab", buffering=0) as out:
            out.write(b"x")

    children = [_child(race) for _ in range(64)]
    statuses = [os.waitpid(pid, 0)[1] for pid in children]

    assert statuses == [0] * 64
    assert ran.read_bytes() == b"x"
    assert adopted.read_bytes() == b"x" * 64
    assert {path.name for path in (directory / "locks").iterdir()} == {"steps", "holds"}


@posix
def test_a_killed_holder_blocks_nobody(fast_directory):
    """The lock of a process that was killed is free at once."""
    directory = fast_directory / "cache"
    reader, writer = os.pipe()

    def hold():
        with Store(LocalBackend(directory)).records.lock("k"):
            os.write(writer, b"x")
            time.sleep(60)

    pid = _child(hold)
    os.read(reader, 1)
    store = Store(LocalBackend(directory))
    with store.records.lock("k", lambda: True) as got:
        assert not got
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with store.records.lock("k", lambda: True) as got:
        assert got


@posix
def test_builders_on_one_directory(fast_directory):
    """16 processes build what they like for a while: each image is that of a build alone."""
    started = time.monotonic()
    directory = fast_directory / "cache"
    counted = fast_directory / "counted"
    end = time.time() + SOAK_SECONDS

    def work(number):
        rng = random.Random(SEED + number)
        while time.time() < end:
            names = [rng.choice("abcd") + str(place) for place in range(rng.randrange(1, 5))]
            recipe = [From("scratch"), *(Run(["write", name]) for name in names)]
            recipe.insert(rng.randrange(1, len(recipe) + 1), Copy("input", "/input"))
            files = {"input": b"input %d" % rng.randrange(3)}
            anew = rng.random() < 0.1
            with Store(LocalBackend(directory, durability="none")) as store:
                result = Builder(store, executor=Writes(), jobs=2).build(
                    recipe, context=files, project=f"p{number % 5}", no_cache=anew
                )
                alone = Builder(executor=Writes(), jobs=1).build(recipe, context=files)
                assert _diff_ids(result) == _diff_ids(alone)
                assert _intact(store, result)
            hits = sum(step.decision == "hit" for step in result.steps)
            with open(counted, "ab", buffering=0) as out:
                out.write(b"%d\n" % hits)

    children = [_child(lambda n=n: work(n)) for n in range(16)]
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    hits = [int(line) for line in counted.read_text().split()]

    assert statuses == [0] * 16
    assert sum(hits) > 0
    assert verify(Store(LocalBackend(directory))) == ()
    wall = time.monotonic() - started
    print(f"builders on one directory: {len(hits)} run, seed {SEED}, wall {wall:.1f} s")


# -- directories that can't be written --------------------------------------------------------


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_another_users_directory(tmp_path_factory):
    """It is read like one's own; what can't be written serves the build and says so."""
    top = Path(tempfile.mkdtemp(prefix="layercache-test-"))
    os.chmod(top, 0o755)
    try:
        directory = top / "cache"
        store = Store(LocalBackend(directory))
        expected = _diff_ids(_build(store, Writes()))
        for place, _, names in os.walk(directory):  # it was its owner's; who lets others read it
            os.chmod(place, 0o755)
            for name in names:
                os.chmod(os.path.join(place, name), 0o444)

        def work():
            os.setgid(65534)
            os.setuid(65534)
            os.environ["TMPDIR"] = "/tmp"
            tempfile.tempdir = None  # the parent's may be its own
            events = []
            other = Store(LocalBackend(directory), on_event=events.append)
            executor = Writes()
            assert _diff_ids(_build(other, executor)) == expected
            assert executor.runs == 0
            record = other.records.put(make_record(other, 1))
            assert other.records.lookup([record.key])
            other.commit()
            assert "belongs to somebody else or is read-only" in events[0].message
            other.close()

        pid = _child(work)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        shutil.rmtree(top)


# -- full disks -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB with 400 inodes."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=400", "tmpfs", str(where)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("mount is not there: no small disk to fill")
    if done.returncode != 0:
        pytest.skip("mounting is not allowed here: no small disk to fill")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def _fill(path, leave):
    """Leave just so many bytes free."""
    status = os.statvfs(path.parent)
    with open(path, "wb") as out:
        out.write(bytes(max(0, status.f_bavail * status.f_frsize - leave)))


def test_a_full_disk(small_disk):
    """Wherever the space runs out, the build is right, and heals when there is space again."""
    started = time.monotonic()
    expected = _diff_ids(_build(Store(MemoryBackend()), Writes()))
    points = min(64 * SOAK, 256)  # then all of the disk, page by page
    for point in range(points):
        directory = small_disk / "cache"
        shutil.rmtree(directory, ignore_errors=True)
        filler = small_disk / "filler"
        _fill(filler, point * 4096)
        store = Store(LocalBackend(directory))
        result = _build(store, Writes())

        assert _diff_ids(result) == expected
        assert _intact(store, result)
        store.close()
        filler.unlink()
        store = Store(LocalBackend(directory))
        again = _build(store, Writes())
        assert _diff_ids(again) == expected
        assert _intact(store, again)
        store.close()
        store = Store(LocalBackend(directory))
        executor = Writes()
        assert _diff_ids(_build(store, executor)) == expected
        assert executor.runs == 0
        store.close()
    print(f"full disk: {points} run, seed none, wall {time.monotonic() - started:.1f} s")


def test_no_inodes_left(small_disk):
    """The same when files can't be created."""
    expected = _diff_ids(_build(Store(MemoryBackend()), Writes()))
    for leave in (0, 3, 7, 12, 20) if SOAK == 1 else range(64):
        directory = small_disk / "cache"
        shutil.rmtree(directory, ignore_errors=True)
        fillers = []
        while os.statvfs(small_disk).f_favail > leave:
            fillers.append(small_disk / f"f{len(fillers)}")
            fillers[-1].touch()
        store = Store(LocalBackend(directory))
        result = _build(store, Writes())

        assert _diff_ids(result) == expected
        assert _intact(store, result)
        store.close()
        for filler in fillers:
            filler.unlink()
        store = Store(LocalBackend(directory))
        assert _intact(store, _build(store, Writes()))
        store.close()


def test_a_read_only_disk(small_disk):
    """Reading works; a build that must write says so once and is right."""
    store = Store(LocalBackend(small_disk / "cache"))
    result = _build(store, Writes())
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    events = []
    store = Store(LocalBackend(small_disk / "cache"), on_event=events.append)
    executor = Writes()

    assert _diff_ids(_build(store, executor)) == _diff_ids(result)
    assert executor.runs == 0
    builder = Builder(store, executor=executor, jobs=1)
    again = builder.build(RECIPE, context=CONTEXT, project="p", no_cache=True)
    assert _diff_ids(again) == _diff_ids(result)
    assert executor.runs == 3
    assert {event.kind for event in events} == {"degraded"}
    store.close()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_errors_are_cache_errors(tmp_path):
    """What the system refuses is said as a `CacheError` with the path and the reason."""
    (tmp_path / "file").write_bytes(b"")
    backend = LocalBackend(tmp_path / "file" / "below")
    with pytest.raises(CacheError, match="below"):
        backend.write("a", io.BytesIO(b""))
    assert attrs.has(type(make_record(None, 1)))
