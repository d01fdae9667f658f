"""Conformance suites for backends and stores, in one module since they share their helpers.

Subclass a suite in a test module, override the method that makes your plug-in, and pytest does the
rest:

    class TestMine(BackendSuite):
        def make(self, tmp_path):
            return MyBackend(tmp_path)
"""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject, NotFound, UsageError
from layercache.model.descriptors import LAYER_TAR, Layer
from layercache.model.digests import CacheKey, DiffID, Fingerprint, sha256
from layercache.model.instruction import Field
from layercache.model.keys import InputMaterial, KeyMaterial, cache_key
from layercache.model.records import Record
from layercache.store.backend import (
    CAPABILITIES,
    Adopts,
    Backend,
    BatchReader,
    Locks,
    Stages,
    Stats,
    Syncs,
    Touches,
)
from layercache.store.parts import Cache
from layercache.store.store import Store, StoreEvent
from layercache.store.trails import Fact, Trail, TrailStep

__all__ = ["BackendSuite", "StoreSuite", "make_record"]

PRIVATE: Final = "correct horse battery staple"
"""The private value in each record that `make_record` makes."""


def make_record(store: Cache | None, number: int, content: bytes | None = None) -> Record:
    """A record like that of a RUN; its layer is stored in `store` (None: it has no layer).

    `content` is the layer's, the number by default.
    """
    material = KeyMaterial(
        scheme="content/2",
        name="RUN",
        fields=(
            Field("command", ("sh", "-c", f"make {number}")),
            Field("ARG TOKEN", PRIVATE, private=True),
        ),
        traits=(Field("platform", "linux/amd64"),),
        inputs=(
            InputMaterial("parent", (Field("selector", "everything"),), Fingerprint("sha256:0")),
        ),
    )
    layer = None
    if store is not None:
        data = b"layer %d" % number if content is None else content
        descriptor = store.blobs.add(io.BytesIO(data), LAYER_TAR)
        layer = Layer(descriptor, DiffID(sha256(data)))
    return Record(
        key=cache_key(material), material=material, layer=layer, seconds=1.5, created=1e9 + number
    )


# -- backends -------------------------------------------------------------------------------


class BackendSuite:
    """The contract of every backend. Override `make`; `reopen` if another handle differs."""

    def make(self, tmp_path: Any) -> Backend:
        """A new, empty backend."""
        raise TypeError("a suite says how to make its backend: override make(self, tmp_path)")

    def reopen(self, backend: Backend) -> Backend:
        """Another handle on the same objects."""
        return backend

    def test_what_was_written_is_read(self, tmp_path: Any) -> None:
        """Content comes back to the byte: empty, binary, and larger than any buffer."""
        backend = self.make(tmp_path)
        for number, data in enumerate([b"", b"\0\r\n\xff" * 3, bytes(range(256)) * 5000]):
            backend.write(f"a/b-{number}", io.BytesIO(data))

            assert data == _read(self.reopen(backend), f"a/b-{number}")

    def test_an_absent_name_is_not_found(self, tmp_path: Any) -> None:
        """A missing object raises `NotFound`, also below another object and once deleted."""
        backend = self.make(tmp_path)
        backend.write("a/b", io.BytesIO(b"1"))
        backend.delete("a/b")
        for name in ("a/b", "a/c", "nothing/at/all"):
            assert _absent(backend, name)

    def test_a_write_replaces(self, tmp_path: Any) -> None:
        """The last complete write wins, also when it is shorter."""
        backend = self.make(tmp_path)
        for data in (b"a long first version", b"short"):
            backend.write("x", io.BytesIO(data))

        assert _read(self.reopen(backend), "x") == b"short"
        assert [info.size for info in backend.list("x")] == [5]

    def test_a_failing_write_changes_nothing(self, tmp_path: Any) -> None:
        """When the content can't be read to its end, the name is as it was before."""
        backend = self.make(tmp_path)
        backend.write("old", io.BytesIO(b"before"))
        for name in ("old", "new"):
            try:
                backend.write(name, _Breaking(200_000))
            except (CacheError, OSError):
                pass
            else:
                raise AssertionError("the error of the content was swallowed")

        assert _read(self.reopen(backend), "old") == b"before"
        assert _absent(backend, "new")
        assert sorted(info.name for info in backend.list("")) == ["old"]

    def test_deleting_is_idempotent(self, tmp_path: Any) -> None:
        """Deleting a missing object is no error."""
        backend = self.make(tmp_path)
        backend.write("a/b", io.BytesIO(b"1"))
        for name in ("a/b", "a/b", "never/there"):
            backend.delete(name)

        assert list(backend.list("")) == []

    def test_listing_is_by_prefix_and_fresh(self, tmp_path: Any) -> None:
        """Names and sizes are those of this moment; a prefix may end within a segment."""
        backend = self.make(tmp_path)
        for name in ("a/1", "a/12", "a/b/3", "ab/4", "c"):
            backend.write(name, io.BytesIO(name.encode()))

        assert _names(backend, "") == ["a/1", "a/12", "a/b/3", "ab/4", "c"]
        assert _names(backend, "a/") == ["a/1", "a/12", "a/b/3"]
        assert _names(backend, "a/1") == ["a/1", "a/12"]
        assert _names(backend, "nothing/") == []
        assert {3} == {info.size for info in backend.list("a/1") if info.name == "a/1"}
        backend.delete("a/1")
        self.reopen(backend).write("a/13", io.BytesIO(b"new"))
        assert _names(backend, "a/1") == ["a/12", "a/13"]

    def test_stamps_do_not_go_back(self, tmp_path: Any) -> None:
        """The stamp of a later write or touch is never earlier than that of the first."""
        backend = self.make(tmp_path)
        backend.write("x", io.BytesIO(b"1"))
        first = _stamp(backend)
        backend.write("x", io.BytesIO(b"2"))
        second = _stamp(backend)
        if isinstance(backend, Touches):
            backend.touch(["x", "not/there"])

        assert 0 < first <= second <= _stamp(backend)

    def test_other_names_are_refused(self, tmp_path: Any) -> None:
        """A name that could leave the place, or differ by case only, is a `UsageError`."""
        backend = self.make(tmp_path)
        bad = ("", "/a", "a/", "a//b", "..", "a/../b", "./a", "A", "a b", "a\0b", "ä", "a\n")
        for name in bad:
            for write in (True, False):
                try:
                    if write:
                        backend.write(name, io.BytesIO(b""))
                    else:
                        backend.delete(name)
                except UsageError:
                    continue
                raise AssertionError(f"the name {name!r} was accepted")

        assert list(backend.list("")) == []

    def test_many_writers_of_one_name(self, tmp_path: Any) -> None:
        """Readers see one complete version or another, never a mixture, never nothing."""
        backend = self.make(tmp_path)
        versions = [bytes([number]) * 150_000 for number in range(4)]
        backend.write("x", io.BytesIO(versions[0]))
        seen: list[bytes] = []

        def write(data: bytes) -> None:
            for _ in range(4):
                self.reopen(backend).write("x", io.BytesIO(data))

        def read() -> None:
            for _ in range(8):
                seen.append(_read(self.reopen(backend), "x"))

        _together([lambda data=data: write(data) for data in versions] + [read, read])

        assert len(seen) == 16
        assert set(seen) <= set(versions)

    def test_a_batch_leaves_out_what_is_absent(self, tmp_path: Any) -> None:
        """`read_many` returns exactly the objects that exist: one, many or none."""
        backend = self.make(tmp_path)
        if not isinstance(backend, BatchReader):
            return
        for number in range(5):
            backend.write(f"a/{number}", io.BytesIO(b"%d" % number))

        assert dict(backend.read_many(["a/1"])) == {"a/1": b"1"}
        assert dict(backend.read_many(["a/9"])) == {}
        asked = ["a/0", "a/9", "a/4", "b/none"]
        assert dict(backend.read_many(asked)) == {"a/0": b"0", "a/4": b"4"}

    def test_a_look_at_one_object(self, tmp_path: Any) -> None:
        """`stat` agrees with `list`, and is None for what is absent."""
        backend = self.make(tmp_path)
        if not isinstance(backend, Stats):
            return
        backend.write("a/b", io.BytesIO(b"12345"))

        assert list(backend.list("a/b")) == [backend.stat("a/b")]
        assert backend.stat("a") is None or backend.stat("a").size != 5  # type: ignore[union-attr]
        assert backend.stat("a/c") is None

    def test_what_is_staged_shows_only_when_published(self, tmp_path: Any) -> None:
        """Staged objects are not listed; publishing moves them into place."""
        backend = self.make(tmp_path)
        if not isinstance(backend, Stages):
            return
        backend.stage("ac/x", b"1")
        other = self.reopen(backend)
        assert isinstance(other, Stages)
        if _absent(backend, "ac/x"):
            assert other.staged("ac/x") == b"1"
            assert _names(backend, "") == []
            assert [info.name for info in backend.list_staged("ac/")] == ["ac/x"]
        other.publish(["ac/x", "ac/none"])
        backend.publish(["ac/x"])

        assert _read(backend, "ac/x") == b"1"
        assert backend.staged("ac/x") is None

    def test_a_lock_lets_one_in(self, tmp_path: Any) -> None:
        """Holders of one name follow each other; another name does not wait."""
        backend = self.make(tmp_path)
        if not isinstance(backend, Locks):
            return
        inside: list[int] = []
        most: list[int] = []

        def enter() -> None:
            other = self.reopen(backend)
            assert isinstance(other, Locks)
            with other.lock("a") as got:
                assert got
                inside.append(1)
                most.append(len(inside))
                with other.lock("b") as second:
                    assert second
                time.sleep(0.002)
                inside.pop()

        _together([enter] * 8)
        assert {1} == set(most)
        with backend.lock("a"), backend.lock("a", lambda: True) as got:
            assert not got

    def test_a_file_is_adopted_whole(self, tmp_path: Any) -> None:
        """An adopted file becomes the object and is gone from where it was."""
        backend = self.make(tmp_path)
        if not isinstance(backend, Adopts):
            return
        path = f"{backend.spool()}/complete"
        with open(path, "wb") as out:
            out.write(b"all of it")

        if backend.adopt(path, "blobs/x"):
            assert _read(self.reopen(backend), "blobs/x") == b"all of it"
            assert _names(backend, "") == ["blobs/x"]

    def test_syncing_is_repeatable(self, tmp_path: Any) -> None:
        """`sync` works before, between and after writes."""
        backend = self.make(tmp_path)
        if not isinstance(backend, Syncs):
            return
        backend.sync()
        backend.write("x", io.BytesIO(b"1"))
        backend.sync()
        backend.sync()

        assert _read(backend, "x") == b"1"

    def test_what_it_can_do_is_declared(self, tmp_path: Any) -> None:
        """A capability counts only if it is declared: a class that has all of its methods is
        derived from it."""
        kind = type(self.make(tmp_path))
        for capability in CAPABILITIES:
            names = [name for name in vars(capability) if not name.startswith("_")]
            if all(callable(getattr(kind, name, None)) for name in names):
                assert issubclass(kind, capability), f"{kind.__name__}: {capability.__name__}"

    def test_it_travels_to_other_processes(self, tmp_path: Any) -> None:
        """A pickled backend opens the same objects, or a copy of them."""
        backend = self.make(tmp_path)
        backend.write("x", io.BytesIO(b"1"))

        assert _read(pickle.loads(pickle.dumps(backend)), "x") == b"1"


class _Breaking(io.BytesIO):
    """Content that breaks off after `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(b"x" * size)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data or size is None or size < 0:
            raise OSError(5, "the content broke off")
        return data


def _read(backend: Backend, name: str) -> bytes:
    with backend.read(name) as content:
        return content.read()


def _absent(backend: Backend, name: str) -> bool:
    try:
        backend.read(name).close()
    except NotFound:
        return True
    return False


def _stamp(backend: Backend) -> float:
    stamps = [info.stamp for info in backend.list("x")]
    assert len(set(stamps)) == 1
    return stamps[0]


def _names(backend: Backend, prefix: str) -> list[str]:
    return sorted(info.name for info in backend.list(prefix))


def _together(calls: Sequence[Callable[[], None]]) -> None:
    """Run `calls` in threads; the first error is raised here."""
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  (carried to the test)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# -- stores ---------------------------------------------------------------------------------


class StoreSuite:
    """The contract of every store, over any backend. Override `make`.

    `make` is called several times with one `tmp_path` and must open the same objects then.
    """

    def make(self, tmp_path: Any, **options: Any) -> Cache:
        """Another store over the same objects; `options` go to its constructor."""
        raise TypeError("a suite says how to make its store: override make(self, tmp_path, …)")

    def test_a_record_is_found_by_its_key(self, tmp_path: Any) -> None:
        """After commit another store finds every record, with its layer's bytes."""
        store = self.make(tmp_path)
        records = [make_record(store, number) for number in range(20)]
        for record in records:
            store.records.put(record)
        store.commit()
        other = self.make(tmp_path)
        absent = CacheKey("0" * 64)
        found = other.records.lookup([absent, *(record.key for record in records)])

        assert {record.key for record in records} == set(found)
        for number, record in enumerate(records):
            layer = found[record.key].layer
            assert layer == record.layer
            assert layer is not None
            assert b"layer %d" % number == other.blobs.read(layer.descriptor.digest)

    def test_a_step_that_changed_nothing_has_no_layer(self, tmp_path: Any) -> None:
        """A record without a layer is a hit."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(None, 1))
        store.commit()

        assert record == self.make(tmp_path).records.lookup([record.key])[record.key]

    def test_every_flipped_byte_of_a_record_is_a_miss(self, tmp_path: Any) -> None:
        """No damage to a record goes unnoticed, and the next write heals it."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(store, 1))
        store.commit()
        name = next(i.name for i in store.backend.list("") if record.key in i.name)
        good = _read(store.backend, name)
        damages = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
        damages += [good[:at] for at in range(0, len(good), 7)] + [good + b"\0", b""]
        for damage in damages:
            store.backend.write(name, io.BytesIO(damage))
            events: list[StoreEvent] = []
            other = self.make(tmp_path, on_event=events.append)

            assert other.records.lookup([record.key]) == {}
            assert {"corrupt", "newer", "untrusted"} >= {event.kind for event in events} != set()
        other.records.put(make_record(other, 1))
        other.commit()
        assert record.key in self.make(tmp_path).records.lookup([record.key])

    def test_a_record_under_another_key_is_a_miss(self, tmp_path: Any) -> None:
        """A valid record counts under its own key only."""
        store = self.make(tmp_path)
        first, second = (store.records.put(make_record(store, number)) for number in (1, 2))
        store.commit()
        names = {
            key: next(i.name for i in store.backend.list("") if key in i.name)
            for key in (first.key, second.key)
        }
        data = _read(store.backend, names[first.key])
        store.backend.write(names[second.key], io.BytesIO(data))

        assert {first.key} == set(self.make(tmp_path).records.lookup([first.key, second.key]))

    def test_every_flipped_byte_of_a_blob_is_seen(self, tmp_path: Any) -> None:
        """Reading damaged, cut or lengthened bytes raises; the next write heals."""
        store = self.make(tmp_path)
        good = bytes(range(256))
        descriptor = store.blobs.add(io.BytesIO(good), LAYER_TAR)
        name = store.local.blobs.name(descriptor.digest)
        damages = [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in range(256)]
        damages += [good[:at] for at in range(0, 256, 5)] + [good + b"\0"]
        for damage in damages:
            store.backend.write(name, io.BytesIO(damage))
            other = self.make(tmp_path)
            for read, arguments in (
                (other.blobs.read, (descriptor.digest,)),
                (other.blobs.verified_path, (descriptor,)),
                (other.blobs.open_range, (descriptor, 3, 4)),
            ):
                try:
                    read(*arguments)
                except (CorruptObject, NotFound):
                    continue
                raise AssertionError("a damaged blob was given out")
            assert not other.blobs.intact(descriptor)
        assert not other.blobs.has(descriptor)
        other.blobs.add(io.BytesIO(good), LAYER_TAR)
        assert good == self.make(tmp_path).blobs.read(descriptor.digest)

    def test_a_damaged_blob_heals_after_its_record_was_taken_back(self, tmp_path: Any) -> None:
        """Whoever saw the damage misses, makes the blob again, and everybody hits."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(store, 1))
        store.commit()
        assert record.layer is not None
        name = store.local.blobs.name(record.layer.descriptor.digest)
        store.backend.write(name, io.BytesIO(b"layer 2"))
        other = self.make(tmp_path)
        try:
            other.blobs.read(record.layer.descriptor.digest)
        except CorruptObject:
            pass

        assert other.records.lookup([record.key]) == {}
        other.records.put(make_record(other, 1), replace=True)
        other.commit()
        third = self.make(tmp_path)
        assert record.key in third.records.lookup([record.key])
        assert third.blobs.read(record.layer.descriptor.digest) == b"layer 1"

    def test_ranges_are_of_the_verified_blob(self, tmp_path: Any) -> None:
        """Reading by offset gives the bytes at that offset."""
        store = self.make(tmp_path)
        descriptor = store.blobs.add(io.BytesIO(b"0123456789"), LAYER_TAR)

        assert store.blobs.open_range(descriptor, 3, 3).read() == b"345"
        with open(store.blobs.verified_path(descriptor), "rb") as content:
            assert content.read() == b"0123456789"

    def test_one_preferred_record(self, tmp_path: Any) -> None:
        """The higher (generation, digest) stands, in any order of arrival; `replace` wins."""
        store = self.make(tmp_path)
        pair = [evolve(make_record(store, 1), seconds=float(n)) for n in (1, 2)]
        stands = []
        for order in (pair, pair[::-1]):
            fresh = self.make(tmp_path, namespace=f"order {order[0].seconds}")
            make_record(fresh, 1)
            for record in order:
                last = fresh.records.put(record)
            fresh.commit()
            stands.append(last.seconds)
            forced = fresh.records.put(evolve(record, seconds=9.0), replace=True)
            fresh.commit()
            again = self.make(tmp_path, namespace=f"order {order[0].seconds}")

            assert forced.generation == 1
            assert again.records.lookup([record.key])[record.key].seconds == 9.0

        assert stands[0] == stands[1]

    def test_private_values_reach_the_store_as_digests_only(self, tmp_path: Any) -> None:
        """Nothing stored holds a private value; equal values compare equal within a record."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(store, 1))
        step = TrailStep(
            stage=0,
            index=1,
            op="RUN",
            text="RUN make",
            key=record.key,
            record=record,
            fields=(Field("x", PRIVATE, private=True),),
        )
        store.trails.put(Trail("t", (step,)))
        store.commit()
        stored = {i.name: _read(store.backend, i.name) for i in store.backend.list("")}

        assert len(stored) >= 4
        assert [name for name, data in stored.items() if PRIVATE.encode() in data] == []
        assert record == self.make(tmp_path).records.lookup([record.key])[record.key]

    def test_namespaces_and_salts_keep_apart(self, tmp_path: Any) -> None:
        """Records of one are no hits in another."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(store, 1))
        store.commit()
        for options in ({"namespace": "pull/request"}, {"salt": "2"}):
            assert self.make(tmp_path, **options).records.lookup([record.key]) == {}

        assert record.key in self.make(tmp_path).records.lookup([record.key])

    def test_small_objects_come_back(self, tmp_path: Any) -> None:
        """Trails, facts, derived objects and references are kept by name."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(store, 1))
        trail = Trail(
            "t1",
            (TrailStep(stage=0, index=1, op="RUN", text="t", key=record.key, record=record),),
            (Fact("sha256:1", "2", Fingerprint("3")),),
        )
        store.trails.put(trail)
        store.facts.put("sha256:12", "34", Fingerprint("56"))
        store.facts.put("", "34", Fingerprint("78"))
        store.derived.put("index", "sha256:9", b"\0derived")
        names = ["app:1.0", "Host:5000/a_b/c@sha256:1", "x" * 300, "ünï/." + "y" * 300]
        for name in names:
            store.references.put(name, name.encode())
        store.commit()
        other = self.make(tmp_path)

        assert trail == other.trails.get("t1")
        assert None is other.trails.get("t2")
        assert [other.facts.get(s, "34") for s in ("sha256:12", "", "x")] == ["56", "78", None]
        assert other.derived.get("index", "sha256:9") == b"\0derived"
        assert {name: name.encode() for name in names} == other.references.all()
        assert names[1].encode() == other.references.get(names[1])
        assert other.references.delete(names[0])
        assert not other.references.delete(names[0])
        assert sorted(names[1:]) == list(self.make(tmp_path).references.all())

    def test_damage_to_small_objects_is_a_miss(self, tmp_path: Any) -> None:
        """A flipped byte in a trail, fact, derived object or reference never shows through."""
        store = self.make(tmp_path)
        store.trails.put(Trail("t1", ()))
        store.facts.put("sha256:12", "34", Fingerprint("56"))
        store.derived.put("index", "sha256:9", b"derived")
        store.references.put("r", b"payload")
        store.commit()
        names = [i.name for i in store.backend.list("") if i.name != "format"]
        for name in names:
            good = _read(store.backend, name)
            for at in range(len(good)):
                damage = good[:at] + bytes([good[at] ^ 0x80]) + good[at + 1 :]
                store.backend.write(name, io.BytesIO(damage))
                other = self.make(tmp_path)
                answers = (
                    other.trails.get("t1"),
                    other.facts.get("sha256:12", "34"),
                    other.derived.get("index", "sha256:9"),
                    other.references.get("r"),
                )

                assert answers.count(None) == 1
            store.backend.write(name, io.BytesIO(good))

        assert len(names) == 4

    def test_a_later_format_is_refused_with_the_reason(self, tmp_path: Any) -> None:
        """A store of a newer version is not touched; the message says what to do."""
        store = self.make(tmp_path)
        store.blobs.add(io.BytesIO(b"1"), LAYER_TAR)
        store.backend.write("format", io.BytesIO(b"layercache store, format 99\n"))
        try:
            self.make(tmp_path).blobs.add(io.BytesIO(b"2"), LAYER_TAR)
        except UsageError as error:
            text = str(error)
        else:
            raise AssertionError("a store of a later format was written to")
        assert "99" in text
        assert "newer version" in text

    def test_racers_run_a_step_once(self, tmp_path: Any) -> None:
        """If the backend has locks, only one of many threads with one key runs the step."""
        if not isinstance(self.make(tmp_path).backend, Locks):
            return
        runs: list[int] = []
        got: list[Record] = []

        def race() -> None:
            store = self.make(tmp_path)
            key = make_record(None, 7).key
            with store.records.lock(key):
                found = store.records.lookup([key]).get(key)
                if found is None:
                    runs.append(1)
                    found = store.records.put(make_record(store, 7))
            got.append(found)
            store.commit()

        _together([race] * 16)

        assert runs == [1]
        assert {got[0].key} == {record.key for record in got}

    def test_it_travels_to_other_processes(self, tmp_path: Any) -> None:
        """A pickled store reads and writes the same objects, or a copy of them."""
        store = self.make(tmp_path)
        record = store.records.put(make_record(store, 1))
        store.commit()
        other: Store = pickle.loads(pickle.dumps(store))

        assert record.key in other.records.lookup([record.key])
