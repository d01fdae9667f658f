"""A cache directory: who may read it, who may make builds wait, and where a link leads."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, UsageError
from layercache.cli import main
from layercache.engine import executions
from layercache.errors import Cancelled, NotFound
from layercache.events import Note
from layercache.store.backends.local import LocalBackend
from layercache.store.collection import collect, usage, verify
from layercache.store.store import Store
from layercache.store.store_events import StoreEvent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")

TEXT = "FROM scratch\nCOPY secret /\n"


def build(cache: Path) -> None:
    with Store(LocalBackend(cache)) as store:
        with store.records.lock("0" * 64):  # type: ignore[arg-type]
            pass
        Builder(store).build(Dockerfile.parse(TEXT), context={"secret": "s"}, tags=["app"])


def modes(cache: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"directory": set(), "file": set(), "lock": set()}
    for path in cache.rglob("*"):
        if "scan" in path.parts:
            continue
        kind = "directory" if path.is_dir() else "lock" if path.parent.name == "locks" else "file"
        found[kind].add(stat.S_IMODE(path.stat().st_mode))
    return found


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_cache_is_its_owner_s(tmp_path: Path, umask: int) -> None:
    """Layers hold files that their image keeps from others, and locks make builds wait."""
    before = os.umask(umask)
    try:
        build(tmp_path / "cache")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert modes(tmp_path / "cache") == {"directory": {0o700}, "file": {0o400}, "lock": {0o600}}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(
    ("mode", "directory", "file", "lock"),
    [
        (0o755, 0o700, 0o400, 0o600),
        (0o770, 0o770, 0o440, 0o660),
        (0o2770, 0o2770, 0o440, 0o660),
        (0o2755, 0o2770, 0o440, 0o660),
        (0o777, 0o777, 0o444, 0o666),
        (0o1777, 0o777, 0o444, 0o666),
    ],
)
def test_modes_follow_a_directory_that_is_shared_on_purpose(
    tmp_path: Path, umask: int, mode: int, directory: int, file: int, lock: int
) -> None:
    """Whatever the umask is: the group's where its group may write or set-group-ID is on it."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    before = os.umask(umask)
    try:
        build(cache)
    finally:
        os.umask(before)
    assert modes(cache) == {"directory": {directory}, "file": {file}, "lock": {lock}}
    assert stat.S_IMODE(cache.stat().st_mode) == mode


def test_a_lock_file_of_an_earlier_version_is_closed(tmp_path: Path) -> None:
    """It could be opened by everybody."""
    (tmp_path / "locks").mkdir()
    for name in ("steps", "holds"):
        (tmp_path / "locks" / name).touch()
        (tmp_path / "locks" / name).chmod(0o644)
    build(tmp_path)
    assert modes(tmp_path)["lock"] == {0o600}


KINDS = ["ac", "blobs", "blobs/sha256", "index", "results", "trails", "facts", "tmp", "staged"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "command", ["prune", "prune --all", "gc --keep-builds 0", "verify --repair"]
)
def test_a_link_in_a_cache_leads_nowhere(tmp_path: Path, kind: str, command: str) -> None:
    """What it leads to is neither listed nor removed, whatever it looks like."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    build(cache)
    other.mkdir()
    for name in ("0" * 64, "sha256/00/" + "0" * 64, "00/" + "0" * 64, "1-2-3"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text("mine")
        os.utime(other / name, (0, 0))
    place = cache / kind
    if place.exists():
        place.rename(tmp_path / "before")
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(other)
    before = sorted(path for path in other.rglob("*"))
    with Store(LocalBackend(cache)) as store:
        listed = {info.name for info in store.backend.list("")}
        collect(store, [], grace=0.0)
    main(["cache", *command.split(), "--cache", str(cache)])

    assert not [name for name in listed if name.startswith(kind + "/")]
    assert sorted(path for path in other.rglob("*")) == before
    assert {path.read_text() for path in before if path.is_file()} == {"mine"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_through_a_link(tmp_path: Path, kind: str) -> None:
    """A build over such a cache ends with the right image, and leaves what the link leads to."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    build(cache)
    other.mkdir()
    place = cache / kind
    if place.exists():
        place.rename(tmp_path / "before")
    place.symlink_to(other)
    with Store(LocalBackend(cache)) as store:
        result = Builder(store).build(Dockerfile.parse(TEXT), context={"secret": "new"})
        assert result.tree().open(b"secret").read() == b"new"
    assert list(other.iterdir()) == []


def test_an_object_that_is_a_link_is_none(tmp_path: Path) -> None:
    """Also where it leads to what the object should be."""
    build(tmp_path)
    for number, blob in enumerate(p for p in (tmp_path / "blobs").rglob("*") if p.is_file()):
        blob.rename(tmp_path / f"elsewhere{number}")
        blob.symlink_to(tmp_path / f"elsewhere{number}")
    with Store(LocalBackend(tmp_path)) as store:
        assert "blobs" not in usage(store).objects
        assert verify(store) != ()


@pytest.mark.skipif(sys.platform != "linux", reason="unpacked layers are Linux's")
@pytest.mark.parametrize("name", ["rootfs", "workspaces"])
def test_prune_clears_no_scratch_directory_that_is_a_link(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    build(cache)
    for folder in ("caches/mine", "unpacked/mine", "0/root", "work/1-1"):
        (other / folder).mkdir(parents=True)
        (other / folder / "file").write_text("mine")
    (cache / name).symlink_to(other)
    assert main(["cache", "prune", "--all", "--cache", str(cache)]) == 2
    assert "is a symbolic link" in capsys.readouterr().err
    assert len(list(other.rglob("file"))) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="unpacked layers are Linux's")
@pytest.mark.parametrize("name", ["unpacked", "caches", "trash", "work"])
def test_a_scratch_directory_with_a_link_in_it_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing that the link leads to is discarded."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    build(cache)
    (other / "1-1").mkdir(parents=True)
    (other / "1-1" / "file").write_text("mine")
    (cache / "rootfs").mkdir()
    (cache / "rootfs" / name).symlink_to(other)
    assert main(["cache", "prune", "--all", "--cache", str(cache)]) != 0
    assert (other / "1-1" / "file").read_text() == "mine"


def test_a_wait_for_a_collection_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what it waited for; the build goes on."""
    from layercache.store.backends import range_locks

    build(tmp_path)
    monkeypatch.setattr(range_locks, "_LONGEST_HOLD", 0.05)
    events: list[StoreEvent] = []
    backend = LocalBackend(tmp_path)
    names = [info.name for info in backend.list("blobs/")]
    with backend.seize(names), Store(LocalBackend(tmp_path), on_event=events.append) as store:
        result = Builder(store).build(Dockerfile.parse(TEXT), context={"secret": "s"})
    assert result.tree().open(b"secret").read() == b"s"
    assert any("a collection has blobs/" in event.message for event in events)


def test_the_error_is_one_of_usage(tmp_path: Path) -> None:
    """For whoever embeds the library."""
    from layercache.store import scratch_directory

    (tmp_path / "rootfs").symlink_to("/")
    with (
        Store(LocalBackend(tmp_path)) as store,
        pytest.raises(UsageError, match="is a symbolic link"),
    ):
        scratch_directory(store)


WAYS = ["ac", "ac/*", "blobs", "blobs/sha256", "blobs/sha256/*", "facts", "refs", "staged/*"]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_read_through_a_link(tmp_path: Path, way: str) -> None:
    """Not even what is right: an object is below its cache, or nowhere."""
    build(tmp_path / "cache")
    LocalBackend(tmp_path / "cache").stage("ac/00/new", b"staged")
    backend = LocalBackend(tmp_path / "cache")
    names = [info.name for info in backend.list("")]
    (tmp_path / "away").mkdir()
    for number, folder in enumerate(sorted((tmp_path / "cache").glob(way))):
        folder.rename(tmp_path / "away" / str(number))
        folder.symlink_to(tmp_path / "away" / str(number))
    away = [
        name
        for name in names
        if (tmp_path / "away") in (tmp_path / "cache" / name).resolve().parents
    ]
    before = {path: path.stat().st_mtime for path in (tmp_path / "away").rglob("*")}

    fresh = LocalBackend(tmp_path / "cache")
    for name in away:
        with pytest.raises(NotFound):
            fresh.read(name)
        assert fresh.stat(name) is None
    assert not set(fresh.read_many(names)) & set(away)
    fresh.touch(names)
    if way.startswith("staged"):
        assert fresh.staged("ac/00/new") is None
        assert list(fresh.list_staged("")) == []
        fresh.publish(["ac/00/new"])
        assert fresh.stat("ac/00/new") is None
    else:
        assert away or way in ("facts", "refs")
    assert {path: path.stat().st_mtime for path in (tmp_path / "away").rglob("*")} == before


def test_no_lock_is_made_through_a_link(tmp_path: Path) -> None:
    """Builds go on without."""
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "other").mkdir()
    (tmp_path / "cache" / "locks").symlink_to(tmp_path / "other")
    build(tmp_path / "cache")
    LocalBackend(tmp_path / "cache").clean()
    assert list((tmp_path / "other").iterdir()) == []


def test_a_wait_for_another_build_is_announced_and_ends_with_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the lock of a step holds up nobody for good, or unseen."""
    monkeypatch.setattr(executions, "_SILENT_WAIT", 0.05)
    with Store(LocalBackend(tmp_path)) as store:
        recipe = Dockerfile.parse(TEXT)
        recorded = Builder(store).plan(recipe, context={"secret": "s"}).steps[-1].key
        assert recorded is not None
        said: list[str] = []
        builder = Builder(store)

        def watch(event: object) -> None:
            if isinstance(event, Note):
                said.append(event.message)
                builder.cancel()

        builder = Builder(store, observers=[watch])
        with LocalBackend(tmp_path).lock(store.records.name(recorded)) as held:
            assert held
            with pytest.raises(Cancelled):
                builder.build(recipe, context={"secret": "s"})
    assert said == ["waiting for another build that runs this step: COPY secret /"]
