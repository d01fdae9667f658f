"""Stores with others behind them: what is asked, what is sent, and what a failure costs."""

from __future__ import annotations

import io
import os
import stat
import threading
import time

import attrs
import pytest

from layercache import Dockerfile
from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import Copy, From, Run
from layercache.errors import CacheError, NotFound
from layercache.layers.writer import LayerWriter
from layercache.model.descriptors import LAYER_TAR, Layer
from layercache.model.task import Result
from layercache.model.tree import Node
from layercache.store.backend import BatchReader
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.codec import encode_record
from layercache.store.remote import Remote
from layercache.store.store import Store
from layercache.store.tiered import TieredStore, tiered
from layercache.store.trails import definition_of
from layercache.store.trust import KeyedVerifier
from layercache.testing.faults import FAULTS, CountingBackend, FaultyBackend
from layercache.testing.storage import StoreSuite, make_record
from tests.store.test_faulty_storage import RECIPE as READING
from tests.store.test_faulty_storage import Writes


class Touch:
    """`RUN touch NAME` makes a file of that name."""

    traits = ()

    def __init__(self):
        self.runs = 0

    def execute(self, task, blobs):
        self.runs += 1
        name = task.instruction.args[-1].encode()
        out = io.BytesIO()
        writer = LayerWriter(out)
        writer.add(name, Node(mode=stat.S_IFREG | 0o644, size=len(name), mtime=1), name)
        diff_id, _, _ = writer.finish()
        out.seek(0)
        return Result(Layer(blobs.add(out, LAYER_TAR), diff_id), b"touched " + name)


def _recipe(steps):
    return [From("scratch"), *(Run(["touch", f"file-{number:04}"]) for number in range(steps))]


def _build(store, recipe, executor=None, **options):
    executor = executor or Touch()
    builder = Builder(store, executor=executor, jobs=1)
    result = builder.build(recipe, project="p", **options)
    return executor.runs, [layer.diff_id for layer in result.state.layers], result


def _machine(tmp_path, name, remote, *, push=True, **options):
    """A machine of its own, with a directory and the shared remote."""
    local = Store(LocalBackend(tmp_path / name))
    return tiered(local, cache_from=[remote], cache_to=[remote] if push else [], **options)


class TestTiered(StoreSuite):
    """With another store behind it a store does what stores do."""

    def make(self, tmp_path, **options):
        local = Store(LocalBackend(tmp_path / "cache"), **options)
        return TieredStore(local, cache_from=[Store(MemoryBackend())])


@pytest.mark.parametrize("steps", [10, 100])
def test_a_clean_machine_asks_at_most_twice(tmp_path, steps):
    """An all-hit build fetches the trail and no layer, whatever the number of steps."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        ran, layers, _ = _build(store, _recipe(steps))

        assert ran == steps
    remote = CountingBackend(shared)
    with _machine(tmp_path, "two", remote, push=False) as store:
        ran, again, _ = _build(store, _recipe(steps))

    assert (ran, again) == (0, layers)
    assert remote.requests <= 2
    assert remote.round_trips == 1
    assert not any("blobs/" in name for _, name in remote.calls)


def test_copies_between_stages_fetch_no_layer(tmp_path):
    """Selection facts travel with the trail."""
    recipe = [
        From("scratch", "tools"),
        Run(["touch", "tool"]),
        Run(["touch", "other"]),
        From("scratch"),
        Copy("tool", "/tool", from_="tools"),
    ]
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _, layers, _ = _build(store, recipe)
    remote = CountingBackend(shared)
    with _machine(tmp_path, "two", remote, push=False) as store:
        ran, again, _ = _build(store, recipe)

    assert (ran, again) == (0, layers)
    assert remote.requests <= 2
    assert not any("blobs/" in name for _, name in remote.calls)


def test_sending_an_unchanged_build_asks_once(tmp_path):
    """What is there already is known by one look at the trail."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _build(store, _recipe(20))
    remote = CountingBackend(shared)
    local = Store(LocalBackend(tmp_path / "one"))
    with tiered(local, cache_to=[remote]) as store:
        ran, _, _ = _build(store, _recipe(20))
        assert store.flush(10)

    assert ran == 0
    assert remote.requests == 1
    assert remote.bytes_written == 0


def test_one_changed_step_sends_one_layer(tmp_path):
    """Only what the remote lacks is sent, the trail last, and then where it begins alike."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _build(store, _recipe(5))
    remote = CountingBackend(shared)
    recipe = [*_recipe(5), Run(["touch", "more"])]
    with _machine(tmp_path, "one", remote) as store:
        ran, _, _ = _build(store, recipe)
    written = [name for method, name in remote.calls if method == "write"]

    assert ran == 1
    assert len([name for name in written if name.startswith("ac/")]) == 1
    kinds = [name.partition("/")[0] for name in written]
    assert kinds[kinds.index("trails") :] == ["trails", "trails", "beginnings", "beginnings"]
    assert len([name for name in written if name.startswith("blobs/")]) <= 3


def test_a_trail_by_definition_is_the_same_everywhere(tmp_path):
    """`prefetch` finds the trail of an equal recipe built in another place."""
    shared = MemoryBackend()
    recipe = _recipe(6)
    with _machine(tmp_path, "one", shared) as store:
        Builder(store, executor=Touch(), jobs=1).build(recipe, project="here")
        trail = next(t for t in store.trails.all() if t.steps)
    remote = CountingBackend(shared)
    name = definition_of((s.stage, s.index, s.op, s.text) for s in trail.steps)
    with _machine(tmp_path, "two", remote, push=False) as store:
        store.trails.prefetch([name])
        found = store.records.lookup(list(trail.records()))

    assert len(found) == 6
    assert remote.requests == 1


@pytest.mark.parametrize("project", ["p", "another"])
@pytest.mark.parametrize("edited", [False, True])
def test_half_of_a_long_chain_is_found_in_few_requests(tmp_path, project, edited):
    """Of 1,000 keys half are there, left by a target that begins alike, whatever it was called
    and whatever it did after: at most four round trips and 64 requests find them."""
    shared = MemoryBackend()
    known = _recipe(500)
    left = [*known, *(Run(["touch", f"other-{n}"]) for n in range(100))] if edited else known
    with _machine(tmp_path, "one", shared) as store:
        _build(store, left)
    remote = CountingBackend(shared)
    with _machine(tmp_path, "two", remote, push=False) as store:
        plan = Builder(store, executor=Touch()).plan(_recipe(1000), project=project)
    decisions = [step.decision for step in plan.steps if step.decision is not None]

    assert decisions[:500] == ["hit"] * 500
    assert "hit" not in decisions[500:]
    assert remote.round_trips <= 4
    assert remote.requests <= 64


def test_keys_that_are_known_together_are_asked_for_together(tmp_path):
    """1,000 keys, half of them there: one round trip, however many they are, and none again."""
    shared = MemoryBackend()
    maker = Store(shared)
    records = [maker.records.put(make_record(maker, number)) for number in range(500)]
    keys = [make_record(None, number).key for number in range(1000)]
    remote = CountingBackend(shared)
    with _machine(tmp_path, "two", remote, push=False) as store:
        assert set(store.records.lookup(keys)) == {record.key for record in records}
        assert set(store.records.lookup(keys)) == {record.key for record in records}

    assert remote.round_trips == 1
    assert remote.requests == 1000


def test_a_large_batch_is_given_more_time(tmp_path):
    """A remote that needs longer than one call may take, for very many keys, does not hang."""

    class Slow(MemoryBackend):
        def read_many(self, names):
            time.sleep(0.002 * len(names))
            return super().read_many(names)

    shared = Slow()
    maker = Store(shared)
    record = maker.records.put(make_record(maker, 1))
    keys = [make_record(None, number).key for number in range(300)]
    with _machine(tmp_path, "two", shared, push=False, deadline=0.3) as store:
        assert set(store.records.lookup(keys)) == {record.key}


def test_a_wrong_beginning_costs_no_hit(tmp_path):
    """It may lead nowhere, or be damaged: keys are then asked for one by one."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _, layers, _ = _build(store, _recipe(9))
    names = [info.name for info in shared.list("beginnings/")]
    assert len(names) == 3
    for data in (b"damaged", b""):
        for name in names:
            shared.write(name, io.BytesIO(data))
        for number, info in enumerate(list(shared.list("trails/"))):
            shared.write(info.name, io.BytesIO(b"damaged %d" % number))
        with _machine(tmp_path, f"two{len(data)}", shared, push=False) as store:
            ran, again, _ = _build(store, [*_recipe(9), Run(["touch", "more"])])
        assert (ran, again[:9]) == (1, layers)


def test_layers_come_when_needed_and_stay(tmp_path):
    """A blob that is read is fetched once, verified, and kept with its record."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _, _, result = _build(store, _recipe(3))
        layers = result.state.layers
    remote = CountingBackend(shared)
    with _machine(tmp_path, "two", remote, push=False) as store:
        _build(store, _recipe(3))
        for layer in layers:
            assert store.blobs.has(layer.descriptor)
            assert len(store.blobs.read(layer.descriptor.digest)) == layer.descriptor.size
            store.blobs.verified_path(layer.descriptor)
        fetched = [name for _, name in remote.calls if "blobs/" in name]
        assert len(fetched) == 3
        store.commit()
    alone = Store(LocalBackend(tmp_path / "two"))
    ran, _, _ = _build(alone, _recipe(3))
    assert ran == 0


def test_the_log_of_a_step_comes_from_afar(tmp_path):
    """Output of a step that another machine ran can be shown."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _build(store, _recipe(2))
    with _machine(tmp_path, "two", shared) as store:
        _, _, result = _build(store, _recipe(2))
        keys = [step.key for step in result.report.steps if step.key]
        log = store.records.lookup(keys)[keys[0]].log

        assert store.blobs.read(log) == b"touched file-0000"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_failing_remote_costs_hits_only(tmp_path, fault, every):
    """Whatever a remote does, builds are right, and the next one sends what is missing."""
    _, expected, _ = _build(Store(MemoryBackend()), _recipe(4))
    shared = MemoryBackend()
    for number in range(3):
        remote = FaultyBackend(shared, fault, every=every)
        with _machine(tmp_path, f"m{number}", remote, linger=1) as store:
            _, layers, result = _build(store, _recipe(4))

            assert expected == layers
            for layer in result.state.layers:
                try:
                    store.blobs.read(layer.descriptor.digest)
                except CacheError:
                    continue
    for number in (7, 8):
        with _machine(tmp_path, f"m{number}", shared) as store:
            _, layers, result = _build(store, _recipe(4))
            for layer in result.state.layers:
                try:
                    store.blobs.read(layer.descriptor.digest)
                except CacheError:
                    _build(store, _recipe(4))
            assert expected == layers
    with _machine(tmp_path, "m9", shared) as store:
        ran, layers, result = _build(store, _recipe(4))
        assert (ran, layers) == (0, expected)
        for layer in result.state.layers:
            store.blobs.read(layer.descriptor.digest)


class Hanging(BatchReader):
    """A remote that never answers."""

    def __init__(self):
        self.calls = 0
        self.end = threading.Event()

    def __repr__(self):
        return "Hanging()"

    def _hang(self, *_):
        self.calls += 1
        self.end.wait(60)
        raise CacheError("too late")

    read = write = delete = list = read_many = _hang


def test_a_hanging_remote_is_left_alone(tmp_path):
    """One call waits for the deadline, one warning is given, the build goes on."""
    remote = Hanging()
    events = []
    store = tiered(
        Store(LocalBackend(tmp_path / "c"), on_event=events.append),
        cache_from=[remote],
        cache_to=[remote],
        deadline=0.2,
        linger=0.2,
    )
    with store:
        ran, _, _ = _build(store, _recipe(8))
    remote.end.set()

    assert ran == 8
    assert remote.calls <= 2
    warnings = [event for event in events if "Hanging" in event.message]
    assert [event.kind for event in warnings][:1] == ["degraded"]
    assert len(warnings) <= 2  # it failed; and not all was sent


def test_a_remote_that_comes_back_is_used_again(tmp_path):
    """After a failure and a pause the remote is tried again, and said to be back."""
    shared = MemoryBackend()
    flaky = FaultyBackend(shared, "EIO", at=1)  # 0 is the look at the format
    events = []
    store = tiered(Store(LocalBackend(tmp_path / "c"), on_event=events.append), cache_from=[flaky])
    with store:
        store._sources[0]._reading.pause = 0.0  # no need to wait for it here
        store.trails.get("x")
        time.sleep(0.01)
        store.trails.get("x")

    assert [event.kind for event in events] == ["degraded", "recovered"]


def test_a_broken_remote_blob_is_made_again(tmp_path):
    """A remote hit whose layer turns out damaged or gone is taken back, and healed there."""
    shared = MemoryBackend()
    recipe = [
        From("scratch", "a"),
        Run(["touch", "x"]),
        From("scratch"),
        Copy("x", "/y", from_="a"),
    ]
    with _machine(tmp_path, "one", shared) as store:
        _, expected, _ = _build(store, recipe)
    for info in list(shared.list("blobs/")):
        if info.size >= 1024:
            shared.write(info.name, io.BytesIO(b"\0" * info.size))
    for info in [*shared.list("facts/"), *shared.list("trails/")]:
        shared.delete(info.name)
    with _machine(tmp_path, "two", shared) as store:
        ran, layers, _ = _build(store, [*recipe, Copy("x", "/z", from_="a")])

    assert layers[: len(expected)] == expected
    assert ran == 1


def test_trust_domains(tmp_path):
    """What another domain signed is no hit; what is accepted is."""
    secrets = {"release": b"r" * 32, "pull": b"p" * 32}
    backend = MemoryBackend()
    release = KeyedVerifier(secrets["release"], "release")
    pull = KeyedVerifier(secrets["pull"], "pull", accept={"release": secrets["release"]})
    stores = {
        name: Store(backend, verifier=v) for name, v in (("release", release), ("pull", pull))
    }
    trusted = stores["release"].records.put(make_record(stores["release"], 1))
    suspect = stores["pull"].records.put(make_record(stores["pull"], 2))
    keys = [trusted.key, suspect.key]
    events = []

    assert set(Store(backend, verifier=pull).records.lookup(keys)) == set(keys)
    strict = Store(backend, verifier=release, on_event=events.append)
    assert set(strict.records.lookup(keys)) == {trusted.key}
    assert [event.kind for event in events] == ["untrusted"]
    forged = KeyedVerifier(b"x" * 32, "release")
    assert Store(backend, verifier=forged).records.lookup(keys) == {}
    assert Store(backend).records.lookup(keys).keys() == set(keys)
    unsigned = Store(backend).records.put(make_record(Store(backend), 3))
    assert Store(backend, verifier=release).records.lookup([unsigned.key]) == {}


def test_namespaces_of_untrusted_writers(tmp_path):
    """A namespace is read by those who name it only."""
    backend = MemoryBackend()
    mine = Store(backend, namespace="pr-17")
    record = mine.records.put(make_record(mine, 1))

    assert Store(backend).records.lookup([record.key]) == {}
    assert Store(backend, namespace="pr-17").records.lookup([record.key])


class Raising(CountingBackend):
    """One method raises what it likes."""

    def __init__(self, inner, method, error):
        super().__init__(inner)
        self.method = method
        self.error = error

    def _count(self, method, names):
        super()._count(method, names)
        if method == self.method:
            raise self.error


@pytest.mark.parametrize("error", [OSError(5, "broken"), ValueError("broken"), CacheError("x")])
@pytest.mark.parametrize("method", ["read", "write", "list"])
def test_whatever_a_remote_raises_costs_hits_only(tmp_path, method, error):
    """And is said once, however many objects there are."""
    shared = Raising(MemoryBackend(), method, error)
    events = []
    local = Store(LocalBackend(tmp_path / "c"), on_event=events.append)
    with tiered(local, cache_from=[shared], cache_to=[shared], linger=5) as store:
        assert _build(store, _recipe(8))[0] == 8
        for number in range(8):
            store.derived.put("untraced", f"{number}", b"why")
    assert {event.kind for event in events} <= {"degraded"}
    assert len(events) <= 2  # it failed; and not all was sent


def test_what_can_be_read_and_not_written_gives_its_hits(tmp_path):
    """A failing write is no reason to do without what is there, and reading ends no warning."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _build(store, _recipe(6))
    refusing = Raising(shared, "write", OSError(13, "Permission denied"))
    events = []
    local = Store(LocalBackend(tmp_path / "two"), on_event=events.append)
    with tiered(local, cache_from=[refusing], cache_to=[refusing], linger=5) as store:
        changed = [*_recipe(0), Run(["touch", "first"])]
        assert _build(store, changed)[0] == 1
        store.flush(5)
        assert not store._pushers[0].remote.writable
        store._pushers[0].remote._writing.until = 0.0
        assert _build(store, _recipe(6))[0] == 0
        store.derived.put("untraced", "x", b"why")
        store.flush(5)

    assert [event.kind for event in events] == ["degraded", "degraded"]
    assert events[0].message.startswith("nothing is sent to")


def test_remotes_are_told_apart_by_what_they_are(tmp_path):
    """Not by what they are called: two of one name, or one in two domains of trust."""
    empty, full = MemoryBackend(), MemoryBackend()
    _build(Store(full), _recipe(3))
    for name in list(full._objects):
        if not name.startswith("ac/") and not name.startswith("blobs/"):
            full.delete(name)
    empty._objects = {f"x/{number}": (b"", 0.0) for number in range(len(full._objects))}
    assert repr(empty) == repr(full)
    with tiered(Store(MemoryBackend()), cache_from=[empty, full]) as store:
        assert _build(store, _recipe(3))[0] == 0

    mine, theirs = KeyedVerifier(b"m" * 32, "mine"), KeyedVerifier(b"t" * 32, "theirs")
    shared = MemoryBackend()
    signed = [Store(shared, verifier=theirs)], [Store(shared, verifier=mine)]
    local = Store(MemoryBackend(), verifier=mine)
    with tiered(local, cache_from=signed[0], cache_to=signed[1]) as store:
        _build(store, _recipe(3))
    assert len(Store(shared, verifier=mine).records.all(9) or ()) == 3


class Dripping(MemoryBackend):
    """Layers come a byte at a time, for ever."""

    def __init__(self):
        super().__init__()
        self.drips = 0

    def read(self, name):
        if "blobs/" not in name:
            return super().read(name)
        backend = self

        class Drip(io.RawIOBase):
            def read(self, size=-1):
                backend.drips += 1
                time.sleep(0.01)
                return b"x"

        return Drip()


def test_a_remote_that_claims_much_and_sends_little_is_left_alone(tmp_path):
    """A record may claim any size: time is given for what comes. What nobody waits for ends."""
    shared = Dripping()
    writer = Store(shared)
    _build(writer, _recipe(1))
    (record,) = writer.records.all(9)
    descriptor = attrs.evolve(record.layer.descriptor, size=1 << 60)
    layer = attrs.evolve(record.layer, descriptor=descriptor)
    for name in [n for n in shared._objects if not n.startswith("blobs/")]:
        shared.delete(name)
    writer.records.put(attrs.evolve(record, layer=layer), replace=True)
    store = tiered(Store(LocalBackend(tmp_path)), cache_from=[shared], deadline=0.2)
    store._sources[0].call(lambda: None, 1 << 62)
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, store:
        patch.setattr("layercache.store.remote._AT_ONCE", 0)
        found = store.records.lookup([record.key])
        with pytest.raises(NotFound):
            store.blobs.open(found[record.key].layer.descriptor.digest)
        assert time.monotonic() - began < 5
        time.sleep(0.1)
        drips = shared.drips
        time.sleep(0.2)
        assert shared.drips == drips
    assert os.listdir(tmp_path / "tmp") == []


def test_content_that_keeps_coming_is_waited_for(tmp_path):
    """Longer than a deadline, in steps that none exceeds."""

    class Slow(MemoryBackend):
        def read(self, name):
            content = super().read(name)
            if "blobs/" not in name:
                return content

            class Steady(io.RawIOBase):
                def read(self, size=-1):
                    time.sleep(0.1)
                    return content.read(1 << 18)

            return Steady()

    shared = Slow()
    record = Store(shared).records.put(make_record(Store(shared), 1, b"x" * (5 << 18)))
    with tiered(Store(LocalBackend(tmp_path)), cache_from=[shared], deadline=0.3) as store:
        store.records.lookup([record.key])
        assert len(store.blobs.read(record.layer.descriptor.digest)) == 5 << 18


def test_what_replaces_is_above_what_others_have(tmp_path):
    """The last that was made without the cache stands, whichever machine made it."""
    shared = MemoryBackend()

    def build(name, **options):
        with _machine(tmp_path, name, shared) as store:
            _build(store, _recipe(2), **options)
        return {record.generation for record in Store(shared).records.all(9)}

    assert build("one") == {0}
    assert build("one", no_cache=True) == {1}
    assert build("two", no_cache=True) == {2}
    assert build("one", no_cache=True) == {3}
    assert build("two") == {3}


def test_builds_side_by_side_over_one_object(tmp_path):
    """What one build forgets at its end is not missed by another that is under way."""
    shared = MemoryBackend()
    with _machine(tmp_path, "one", shared) as store:
        _build(store, _recipe(3))
    store = tiered(Store(MemoryBackend()), cache_from=[shared])
    trails, derived = Remote.trails, Remote.derived

    def forgetful(method):
        def call(*arguments):
            found = method(*arguments)
            store.commit()  # as another build does when it ends
            return found

        return call

    with pytest.MonkeyPatch.context() as patch, store:
        patch.setattr(Remote, "trails", forgetful(trails))
        patch.setattr(Remote, "derived", forgetful(derived))
        assert _build(store, _recipe(3))[0] == 0
        assert store.derived.get("untraced", "x") is None
        assert store.trails.get("0" * 64) is None


@pytest.mark.parametrize("lie", [{"size": 7}, {"digest": "sha256:" + "0" * 64}])
def test_a_layer_that_is_not_what_its_record_says_is_made_again(tmp_path, lie):
    """And the state that was opened by it is opened by the right one from then on."""
    shared = MemoryBackend()
    with tiered(Store(MemoryBackend()), cache_to=[shared]) as store:
        wanted = _whole(store)
    writer = Store(shared)
    for name in [name for name in shared._objects if name.startswith(("trails/", "beg"))]:
        shared.delete(name)
    for record in writer.records.all(99):
        descriptor = attrs.evolve(record.layer.descriptor, **lie)
        layer = attrs.evolve(record.layer, descriptor=descriptor)
        shared.write(
            writer.records.name(record.key),
            io.BytesIO(encode_record(attrs.evolve(record, layer=layer))),
        )
    with tiered(Store(LocalBackend(tmp_path)), cache_from=[shared]) as store:
        assert _whole(store, b"changed") != wanted
    with tiered(Store(LocalBackend(tmp_path)), cache_from=[shared]) as store:
        assert _whole(store) == wanted


def _whole(store, content=b"from the context"):
    """A build in which every step reads all that was there before."""
    recipe = [*READING, Run(["write", "third"]), Run(["write", "fourth"])]
    builder = Builder(store, executor=Writes(), jobs=1)
    result = builder.build(recipe, context={"input": content}, project="p")
    return [layer.diff_id for layer in result.state.layers]


def test_a_build_that_is_complete_here_asks_nobody(tmp_path):
    """Not even for a trail; what another recipe lacks is asked for as before."""
    remote = MemoryBackend()
    first = "FROM scratch AS x\nCOPY a /\nFROM scratch\nCOPY --from=x /a /b\n"
    other = "FROM scratch\nCOPY a /\nCOPY b /\n"

    def build(text):
        counting = CountingBackend(remote)
        store = TieredStore(Store(LocalBackend(tmp_path / "c")), cache_from=[Store(counting)])
        with store:
            recipe = Dockerfile.parse(text)
            result = Builder(store).build(recipe, context={"a": "1", "b": "2"})
        return [step.decision for step in result.steps if step.decision], counting.round_trips

    assert build(first)[0] == ["miss", "miss"]
    for _ in range(2):
        assert build(first) == (["hit", "hit"], 0)
    decisions, round_trips = build(other)
    assert decisions == ["hit", "miss"]
    assert 1 <= round_trips <= 6
    assert build(other) == (["hit", "hit"], 0)
