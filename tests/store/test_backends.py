"""Every backend passes the conformance suite, and the suite catches a sloppy one."""

from __future__ import annotations

import inspect
import os

import pytest

from layercache.errors import LayerCacheError, UsageError
from layercache.store.backends import open_backend
from layercache.store.backends.fsspec import FsspecBackend
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.collection import collect, verify
from layercache.store.retention import KeepDuration
from layercache.store.store import Store
from layercache.testing.faults import FAULTS, FaultyBackend, SloppyBackend
from layercache.testing.storage import BackendSuite, make_record
from tests.narrow import layer_of
from tests.store.test_crashes import posix


class TestMemory(BackendSuite):
    def make(self, tmp_path):
        return MemoryBackend()


class TestLocalBatch(BackendSuite):
    durability = "batch"

    def make(self, tmp_path):
        return LocalBackend(tmp_path / "cache", durability=self.durability)

    def reopen(self, backend):
        return LocalBackend(backend.directory, durability=self.durability)


class TestLocalFull(TestLocalBatch):
    durability = "full"


class TestLocalNone(TestLocalBatch):
    durability = "none"


class TestFsspecMemory(BackendSuite):
    def make(self, tmp_path):
        return FsspecBackend(f"memory://{tmp_path}/cache")

    def reopen(self, backend):
        return FsspecBackend(backend.url)


class TestHarmlessFaults(TestLocalBatch):
    """Calls carried out twice must not show."""

    def make(self, tmp_path):
        return FaultyBackend(LocalBackend(tmp_path / "cache"), "duplicate", every=3)

    def reopen(self, backend):
        return backend

    def test_listing_is_by_prefix_and_fresh(self, tmp_path):
        """A listing with an entry twice is no fault of the backend."""

    def test_it_travels_to_other_processes(self, tmp_path):
        """A fault injector stays where it is."""


def _failures(make, tmp_path) -> set[str]:
    failed = set()
    for name, _ in inspect.getmembers(BackendSuite, inspect.isfunction):
        if name.startswith("test_") and "travels" not in name:
            suite = type("Suite", (BackendSuite,), {"make": staticmethod(make)})()
            directory = tmp_path / name
            directory.mkdir(parents=True)
            try:
                getattr(suite, name)(directory)
            except (AssertionError, LayerCacheError, KeyError, OSError, TypeError):
                failed.add(name)
    return failed


def test_a_sloppy_backend_is_caught(tmp_path):
    """Partial content, cached listings, deletions that raise and wild names all fail it."""
    assert {
        "test_a_failing_write_changes_nothing",
        "test_deleting_is_idempotent",
        "test_listing_is_by_prefix_and_fresh",
        "test_other_names_are_refused",
    } <= _failures(lambda _: SloppyBackend(), tmp_path)


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"duplicate"}))
def test_an_unreliable_backend_is_caught(tmp_path, fault):
    """Each kind of fault is seen by some test of the suite."""
    assert _failures(lambda _: FaultyBackend(MemoryBackend(), fault, every=2), tmp_path)


def test_locations(tmp_path):
    """Paths, URLs and buildx's way of writing open the backend that they say."""
    directory = str(tmp_path / "c d")
    for location in (
        directory,
        f"file://{directory}",
        "file://" + directory.replace(" ", "%20"),
        f"type=local,dest={directory}",
        f"type=local,src={directory}",
    ):
        backend = open_backend(location, durability="none")

        assert isinstance(backend, LocalBackend)
        assert directory == backend.directory
        assert backend.durability == "none"
    assert open_backend("memory://one") is open_backend("memory://one")
    assert open_backend("memory://one") is not open_backend("memory://two")


def test_object_storage_locations():
    """S3 by URL and as buildx writes it; nothing is contacted."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    assert isinstance(open_backend("s3://bucket/prefix"), FsspecBackend)
    s3 = open_backend("type=s3,bucket=b,prefix=p/,region=r")
    assert isinstance(s3, FsspecBackend)
    assert s3.url == "s3://b/p"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "file://elsewhere/x",
        "simplecache::s3://b",
        "ftp://user:secret@host/x",
        "type=local",
        "type=gha",
        "type=s3",
        "type=local,dest",
        "type=s3,region=r",
    ],
)
def test_locations_that_can_not_be(location):
    """The message says what is wrong and never repeats a password."""
    with pytest.raises(UsageError) as caught:
        open_backend(location)

    assert "secret" not in str(caught.value)


def test_a_file_is_no_directory(tmp_path):
    """A cache at a path that is a file is refused before anything is done."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="not a directory"):
        LocalBackend(tmp_path / "file")
    with pytest.raises(UsageError, match="durability"):
        LocalBackend(tmp_path, durability="some")


@posix
def test_what_is_no_object_is_left_alone(tmp_path):
    """A cache at the root of a file system, on NFS, with a note of its owner, or a link: none of
    it is listed, none of it ends a collection or is removed."""
    store = Store(LocalBackend(tmp_path / "cache"))
    record = store.records.put(make_record(store, 1))
    store.commit()
    (tmp_path / "elsewhere" / "sha256").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", tmp_path / "cache" / "index")
    os.utime(tmp_path / "cache" / "index", (1, 1), follow_symlinks=False)
    (tmp_path / "cache" / "lost+found").mkdir(mode=0)
    for name in ("cache/Note", "elsewhere/README", "elsewhere/sha256/.nfs0000000000a1"):
        (tmp_path / name).write_bytes(b"not mine")
        os.utime(tmp_path / name, (1, 1))
    os.mkfifo(tmp_path / "elsewhere" / "fifo")
    listed = sorted(info.name for info in store.backend.list(""))
    done = collect(store, [KeepDuration(1e9)], grace=0)

    assert listed == [
        f"ac/{record.key[:2]}/{record.key}",
        store.blobs.name(layer_of(record).descriptor.digest),
        "format",
    ]
    assert done.removed == ()
    assert verify(store) == ()
    assert os.path.islink(tmp_path / "cache" / "index")
