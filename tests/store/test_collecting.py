"""Collections over real stores: nothing dangling, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.cli import main
from layercache.errors import CacheError
from layercache.store.backends.local import LocalBackend
from layercache.store.collection import collect, entries_of, usage, verify
from layercache.store.retention import KeepBuilds, KeepDuration, KeepStorage
from layercache.store.store import Store
from layercache.store.tags import list_tags

TEXT = "FROM scratch\nCOPY a /\nCOPY b /d/\n"
DAY = 86_400


def build(store: Store, number: int, **options: object) -> None:
    files = {"a": f"a{number}" * 100, "b": f"b{number % 2}" * 100}
    Builder(store).build(Dockerfile.parse(TEXT), context=files, **options)


def age(directory: Path, days: float) -> None:
    """Make everything that is there that much older."""
    for path in directory.rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime - days * DAY
            os.utime(path, (when, when))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(LocalBackend(tmp_path / "cache")) as opened:
        yield opened


def test_what_was_not_used_for_long_goes_with_its_blobs(store: Store, tmp_path: Path) -> None:
    """Records and what only they refer to; a hit renews; the rest still verifies and hits."""
    build(store, 0)
    age(tmp_path / "cache", 30)
    build(store, 1)
    before = usage(store).total
    done = collect(store, [KeepDuration(7 * DAY)])

    assert done.freed > 0
    assert usage(store).total < before
    assert verify(store) == ()
    result = Builder(store).build(
        Dockerfile.parse(TEXT), context={"a": "a1" * 100, "b": "b1" * 100}
    )
    assert [s.decision for s in result.steps] == [None, "hit", "hit"]


def test_a_dry_run_changes_nothing_and_says_the_same(store: Store, tmp_path: Path) -> None:
    """Neither stamps nor objects; the verdicts are those of the real run after it."""
    for number in range(3):
        build(store, number)
    age(tmp_path / "cache", 30)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*")}
    dry = collect(store, [KeepBuilds(1)], dry_run=True)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*")}
    real = collect(store, [KeepBuilds(1)])

    assert before == after
    assert [(v.entry.key, v.keep) for v in dry.verdicts] == [
        (v.entry.key, v.keep) for v in real.verdicts
    ]


def test_a_tag_holds_its_layers(store: Store, tmp_path: Path) -> None:
    """Until it is removed; the verdict names it."""
    build(store, 0, tags=["app:1"])
    age(tmp_path / "cache", 99)
    done = collect(store, [KeepStorage(0)])

    assert {v.reason for v in done.verdicts if v.keep} == {"pinned by docker.io/library/app:1"}
    assert verify(store) == ()


def test_what_was_written_just_now_stays(store: Store) -> None:
    """A build may be about to refer to it."""
    build(store, 0)

    assert collect(store, [KeepStorage(0)]).removed == ()


class Crashing(LocalBackend):
    """A backend whose k-th removal, and all after it, fail: the process is gone."""

    def __init__(self, backend: LocalBackend, allowed: int) -> None:
        super().__init__(backend.directory)
        self._allowed = allowed

    def delete(self, name: str) -> None:
        if self._allowed <= 0:
            raise CacheError("gone")
        self._allowed -= 1
        super().delete(name)


def test_a_crash_at_any_step_leaves_nothing_dangling(tmp_path: Path) -> None:
    """After every number of removals: what is left verifies, and a later run finishes."""
    for allowed in range(60):
        directory = tmp_path / str(allowed)
        backend = LocalBackend(directory)
        store = Store(backend)
        for number in range(3):
            build(store, number)
        age(directory, 30)
        store.backend = Crashing(backend, allowed)
        finished = True
        try:
            collect(store, [KeepDuration(DAY)])
        except CacheError:
            finished = False
        with Store(LocalBackend(directory)) as again:
            assert verify(again) == ()
            collect(again, [KeepDuration(DAY)])
            assert verify(again) == ()
            assert entries_of(again) == ()
        if finished:
            return
    pytest.fail("the collection never finished")


def test_a_clock_that_jumped_removes_nothing_in_use(store: Store, tmp_path: Path) -> None:
    """All stamps ten years back or ahead of now: a collection by age keeps what is used."""
    for years in (10, -10):
        build(store, 0)
        age(tmp_path / "cache", years * 366)
        done = collect(store, [KeepDuration(7 * DAY)])
        assert all(v.keep for v in done.verdicts)
        build(store, 0)


@pytest.mark.parametrize("seconds", [3.0, pytest.param(600.0, marks=pytest.mark.soak)])
def test_collections_beside_builds(tmp_path: Path, seconds: float) -> None:
    """Readers, writers and collectors at once: no build fails, nothing dangles afterwards."""
    directory = tmp_path / "cache"
    deadline = time.monotonic() + seconds
    errors: list[BaseException] = []
    counts = {"builds": 0, "collections": 0}

    def going_on() -> bool:
        """For some time, and until enough was done, however slow the machine is."""
        return not errors and (time.monotonic() < deadline or counts["builds"] < 300)

    def work(number: int) -> None:
        try:
            while going_on():
                with Store(LocalBackend(directory, durability="none")) as own:
                    build(own, number % 5)
                counts["builds"] += 1
                number += 1
        except Exception as error:  # noqa: BLE001  (shown by the test)
            errors.append(error)

    def clean() -> None:
        try:
            while going_on():
                with Store(LocalBackend(directory, durability="none")) as own:
                    collect(own, [KeepStorage(2_000)], grace=0.2)
                counts["collections"] += 1
        except Exception as error:  # noqa: BLE001  (shown by the test)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    threads += [threading.Thread(target=clean) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - deadline + seconds
    print(f"collections beside builds: {counts['builds']} run, seed 0, wall {wall:.0f} s")

    assert errors == []
    assert counts["collections"] > 0
    with Store(LocalBackend(directory)) as own:
        dangling = [d for d in verify(own) if "not there" in d.message]
        for damage in dangling:
            # A record may outlive its blob only as a miss: looking it up must not find it.
            key = damage.name.rpartition("/")[2]
            assert own.records.lookup([key]) == {}  # type: ignore[list-item]


def test_builds_are_kept_and_dropped_by_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the labels of their images; what builds of other labels share stays; the last label of
    a project counts; a dry run says what holds what."""
    cache = str(tmp_path / "cache")
    recipe = Dockerfile.parse("FROM scratch\nLABEL kind=test\nCOPY a /\nCOPY b /d/\n")

    def make(number: int, project: str, **labels: str) -> list[str | None]:
        files = {"a": f"a{number}", "b": f"b{number % 2}"}
        with Store(LocalBackend(cache)) as store:
            result = Builder(store).build(recipe, context=files, project=project, labels=labels)
        return [step.decision for step in result.steps if step.decision]

    def listed(*options: str) -> int:
        capsys.readouterr()
        assert main(["cache", "ls", "--json", "--cache", cache, *options]) == 0
        records = json.loads(capsys.readouterr().out)["records"]
        return len(records) // 2  # a COPY has one for the whole parent, one for less of it

    make(0, "p", ci="nightly")
    make(1, "q", release="1")
    make(2, "r")
    assert listed() == 5
    assert listed("--filter", "label=kind=test") == 5
    assert listed("--filter", "label=ci") == 1
    assert listed("--filter", "label=ci=weekly") == 0
    assert listed("--filter", "label!=release", "--filter", "label!=ci") == 1

    age(tmp_path / "cache", 9)
    gc = ["cache", "gc", "--cache", cache, "--filter", "label!=release"]
    assert main([*gc, "--keep-duration", "7d", "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sum("not used for 9 days (label!=release)" in line for line in told) == 2 * 3
    assert sum(line.endswith("labelled release=1") for line in told) == 2 * 2
    assert listed() == 5
    make(2, "r", ci="no", release="2")
    assert main(["cache", "prune", "--filter", "label=ci", "--cache", cache]) == 2
    assert main(["cache", "prune", "--all", "--filter", "label=ci=nightly", "--cache", cache]) == 0
    assert make(1, "q", release="1") == ["hit", "hit"]
    assert make(2, "r", ci="no", release="2") == ["hit", "hit"]
    assert make(0, "p", ci="nightly") == ["miss", "hit"]
    age(tmp_path / "cache", 9)
    assert main(gc) == 0
    assert listed("--filter", "label!=release") == 0
    assert make(1, "q", release="1") == make(2, "r", release="2") == ["hit", "hit"]
    with Store(LocalBackend(cache)) as store:
        assert verify(store) == ()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ls, du, gc, prune and verify on a real cache, with their exit status."""
    cache = str(tmp_path / "cache")
    with Store(LocalBackend(cache)) as store:
        build(store, 0)
    assert main(["cache", "ls", "--cache", cache]) == 0
    assert "COPY" in capsys.readouterr().out
    assert main(["cache", "du", "--cache", cache]) == 0
    assert "total" in capsys.readouterr().out
    assert main(["cache", "verify", "--cache", cache]) == 0
    blob = max((tmp_path / "cache" / "blobs").rglob("*"), key=lambda p: p.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"x")
    assert main(["cache", "verify", "--cache", cache]) == 1
    assert main(["cache", "verify", "--repair", "--cache", cache]) == 0
    assert main(["cache", "verify", "--cache", cache]) == 0
    assert main(["cache", "gc", "--cache", cache]) == 2
    assert main(["cache", "gc", "--keep-duration", "7d", "--dry-run", "--cache", cache]) == 0
    assert main(["cache", "prune", "--all", "--cache", cache]) == 0
    with Store(LocalBackend(cache)) as store:
        assert entries_of(store) == ()


class Interrupted(LocalBackend):
    """Between a collection's look and its removals, `meanwhile` happens."""

    meanwhile: Callable[[], object] | None = None

    def seize(self, names: Sequence[str]) -> AbstractContextManager[Sequence[str]]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().seize(names)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_build_that_came_and_went_meanwhile(store: Store, tmp_path: Path, damaged: bool) -> None:
    """What it acknowledged stays: an old record that it relied on, a damaged one that it made
    anew."""
    directory = tmp_path / "cache"
    build(store, 0)
    for path in (directory / "ac").rglob("*"):
        if damaged and path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    age(directory, 30)
    backend = Interrupted(directory)

    def meanwhile() -> None:
        with Store(LocalBackend(directory)) as other:
            build(other, 0)

    backend.meanwhile = meanwhile
    collect(Store(backend), [KeepDuration(DAY)])
    result = Builder(Store(LocalBackend(directory))).build(
        Dockerfile.parse(TEXT), context={"a": "a0" * 100, "b": "b0" * 100}
    )

    assert [s.decision for s in result.steps] == [None, "hit", "hit"]
    assert verify(Store(LocalBackend(directory))) == ()


def test_a_tag_that_was_set_meanwhile_holds_its_layers(store: Store, tmp_path: Path) -> None:
    """Also layers that no record refers to any more."""
    directory = tmp_path / "cache"
    build(store, 0, tags=["kept:1"])
    (kept,) = list_tags(store)
    ((name, tag),) = store.references.all().items()
    for path in (directory / "ac").rglob("*"):
        if path.is_file():
            path.unlink()
    store.references.delete(name)
    age(directory, 30)
    backend = Interrupted(directory)

    def meanwhile() -> None:
        with Store(LocalBackend(directory)) as other:
            other.references.put(name, tag)
            other.commit()

    backend.meanwhile = meanwhile
    collect(Store(backend), [])
    assert all(store.blobs.stamp(layer) is not None for layer in kept.layers)


@pytest.mark.parametrize("tags", [(), ("kept:1",)])
def test_a_build_that_changed_nothing_is_the_last(
    store: Store, tmp_path: Path, tags: tuple[str, ...]
) -> None:
    """Builds are ordered by when they were last made, not by when they last came out anew."""
    for number, project in ((0, "old"), (1, "new")):
        build(store, number, project=project, tags=tags if number == 0 else ())
        age(tmp_path / "cache", 30)
    build(store, 0, project="old", tags=tags)
    if tags:
        store.references.delete(next(iter(store.references.all())))
    collect(store, [KeepBuilds(1)], grace=0)
    with Store(LocalBackend(tmp_path / "cache")) as later:
        files = {"a": "a0" * 100, "b": "b0" * 100}
        again = Builder(later).build(Dockerfile.parse(TEXT), context=files, project="old")

    assert [s.decision for s in again.steps] == [None, "hit", "hit"]
