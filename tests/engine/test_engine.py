"""The engine: several steps and builds at once, other processes, cancelling, events, faults."""

from __future__ import annotations

import io
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import BindMount, Copy, From, Run, SecretMount
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import BuildError, CacheError, Cancelled, StepFailed
from layercache.events import (
    BuildFinished,
    BuildStarted,
    CacheTrouble,
    Event,
    StepExecuted,
    StepFinished,
    StepOutput,
    StepStarted,
)
from layercache.model.task import Result
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.base_images import MemoryImages
from layercache.testing.clocks import VirtualClock
from layercache.testing.executors import (
    CountingExecutor,
    FailingExecutor,
    MemoryExecutor,
    ScriptedExecutor,
    SlowExecutor,
)
from layercache.testing.faults import FAULTS, FaultyBackend
from layercache.testing.generating import SeededChoices, any_version
from layercache.testing.laws import BASE_IMAGES
from layercache.testing.memory import snapshot
from layercache.testing.observing import RecordingObserver
from layercache.testing.oracle import clean_build, oracle
from tests.narrow import layer_of, report_of, state_of
from tests.tally import SEED, tell

DIAMOND = Dockerfile.parse("""\
FROM scratch AS a
COPY a /a
RUN one
FROM scratch AS b
COPY b /b
RUN two
FROM scratch AS c
RUN three
FROM scratch
COPY --from=a / /a/
COPY --from=b / /b/
COPY --from=c / /c/
RUN four
""")

FILES = {"a": "1", "b": "2"}


def _shape(result):
    return [(s.text, s.decision, s.key, s.layer) for s in result.steps]


# -- side by side ---------------------------------------------------------------------------


def test_steps_run_side_by_side():
    """Independent steps run at once, as many as `jobs` says, and not more."""
    clock = VirtualClock()
    executor = SlowExecutor(MemoryExecutor(), 1.0, clock.sleep)
    builder = Builder(executor=executor, jobs=2)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(builder.build, DIAMOND, context=FILES)
        clock.wait_for(2)
        time.sleep(0.05)
        assert clock.sleepers == 2
        while not future.done():
            clock.advance(1.0)
            time.sleep(0.005)
        assert future.result().report.ok


def test_jobs_change_no_decision():
    """Random recipes built with one job and with four: the same decisions, keys and layers."""
    started, runs = time.perf_counter(), 30
    for seed in range(SEED, SEED + runs):
        version = any_version(SeededChoices(seed))
        shapes = []
        for jobs in (1, 4):
            builder = Builder(
                executor=MemoryExecutor(base_images=True, secrets={"token": b"t"}),
                images=MemoryImages(BASE_IMAGES),
                jobs=jobs,
            )
            try:
                for _ in range(2):
                    result = builder.build(
                        list(version.recipe), context=version.context, **version.options
                    )
                    shapes.append(_shape(result))
            except BuildError as error:
                shapes += [type(error).__name__] * 2
        if isinstance(shapes[0], str):
            assert isinstance(shapes[2], str)
        else:
            assert shapes[0] == shapes[2]
            assert shapes[1] == shapes[3]
    tell("one job and four", runs, time.perf_counter() - started)


def test_a_failure_stops_what_has_not_begun():
    """After a step failed nothing new begins; what came before stays decided."""
    executor = CountingExecutor(FailingExecutor(SlowExecutor(MemoryExecutor(), 0.01), {"one"}))
    with pytest.raises(StepFailed, match="'one' failed on purpose") as caught:
        Builder(executor=executor, jobs=1).build(DIAMOND, context=FILES)
    assert executor.texts == ["one"]
    decisions = {s.text: s.decision for s in report_of(caught.value).steps}
    assert decisions["RUN one"] == "miss"
    assert decisions["RUN four"] == "skip"
    assert caught.value.line == 3


def test_an_executor_with_a_bug_is_not_swallowed():
    """An error that is none of the library's becomes one that names executor and step, with a
    report and the end told, with any number of jobs; the next build works."""
    for jobs in (1, 3):
        executor = ScriptedExecutor({"one": ZeroDivisionError("a bug")})
        events: list[Event] = []
        builder = Builder(executor=executor, jobs=jobs, observers=[events.append])
        with pytest.raises(BuildError, match=r"ScriptedExecutor broke on RUN: .*a bug") as raised:
            builder.build(DIAMOND, context=FILES)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        assert raised.value.report is not None
        assert isinstance(events[-1], BuildFinished)
        assert not events[-1].ok
        executor.script.clear()
        assert builder.build(DIAMOND, context=FILES).report.ok


def test_one_builder_from_several_threads():
    """Builds of one builder at the same time: all are right, and the same step runs once where
    the store has locks."""
    executor = CountingExecutor(SlowExecutor(MemoryExecutor(), 0.01))
    builder = Builder(executor=executor, jobs=2)
    expected = oracle(DIAMOND, FILES)
    with ThreadPoolExecutor(6) as pool:
        results = list(
            pool.map(lambda _: builder.build(DIAMOND, context=FILES, project="p"), range(6))
        )
    assert all(snapshot(result.tree()) == expected for result in results)
    assert sorted(executor.texts) == ["four", "one", "three", "two"]
    assert len({state_of(result).chain_id for result in results}) == 1


def test_different_builds_from_several_threads():
    """Threads that build different versions over one store do not disturb each other."""
    builder = Builder(executor=MemoryExecutor(), jobs=2)
    contexts = [{"a": str(n % 3), "b": str(n % 2)} for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda files: builder.build(DIAMOND, context=files), contexts))
    for files, result in zip(contexts, results, strict=True):
        assert snapshot(result.tree()) == oracle(DIAMOND, files)


# -- pools ----------------------------------------------------------------------------------


def test_a_pool_of_threads():
    """Executions carried by threads of the caller's give what they give otherwise."""
    with ThreadPoolExecutor(3) as pool:
        result = Builder(executor=MemoryExecutor(), jobs=3, pool=pool).build(DIAMOND, context=FILES)
    assert snapshot(result.tree()) == oracle(DIAMOND, FILES)


@pytest.fixture(scope="module")
def processes():
    """Two worker processes that know nothing of this one."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(int).result()
        yield pool


def _over(tmp_path, pool, executor=None, **options):
    store = Store(LocalBackend(tmp_path / "cache"))
    return Builder(store, executor=executor or MemoryExecutor(), jobs=2, pool=pool, **options)


def test_a_pool_of_processes(tmp_path, processes):
    """Executor, store and inputs travel; the result is the same, and durable in the store."""
    observer = RecordingObserver()
    result = _over(tmp_path, processes, observers=[observer]).build(DIAMOND, context=FILES)
    assert snapshot(result.tree()) == oracle(DIAMOND, FILES)
    assert {e.outcome for e in observer.of(StepFinished)} == {"miss"}

    again = _over(tmp_path, None).build(DIAMOND, context=FILES)
    assert {s.decision for s in again.steps} == {"hit", None}
    assert again.state == result.state


def test_output_comes_back_from_processes(tmp_path, processes):
    """What a command printed elsewhere is logged and observed here, secrets masked."""
    observer = RecordingObserver()
    executor = MemoryExecutor(secrets={"k": b"hunter2"})
    builder = _over(tmp_path, processes, executor, observers=[observer])
    step = Run("echo hello && cat /run/secrets/k", mounts=[SecretMount("k")])
    result = builder.build([step], context={})
    assert result.log(0) == b"hello\n***"
    assert b"".join(e.chunk for e in observer.of(StepOutput)) == b"hello\n***"


def test_failures_come_back_from_processes(tmp_path, processes):
    """A command that fails elsewhere fails the build here, with status and line."""
    builder = _over(tmp_path, processes)
    with pytest.raises(StepFailed, match="exit status 3") as caught:
        builder.build(Dockerfile.parse("FROM scratch\nRUN exit 3\n"), context={})
    assert caught.value.status == 3
    assert caught.value.line == 2


def test_base_images_in_processes(tmp_path, processes):
    """Layers of a base image are brought into the store before a step needs them elsewhere."""
    builder = _over(
        tmp_path, processes, MemoryExecutor(base_images=True), images=MemoryImages(BASE_IMAGES)
    )
    result = builder.build([From("base:1"), Run("cat /app/a.txt > /copied")], context={})
    assert snapshot(result.tree())["copied"].content == b"base"


def test_a_deep_stack_travels(tmp_path, processes):
    """A state of many hundred layers can be sent to a process: nothing recurses."""
    steps = [Run(f"echo {n} > /f{n % 7}") for n in range(700)]
    local = _over(tmp_path, None)
    local.build(steps, context={})
    result = _over(tmp_path, processes).build([*steps, Run("cat /f0 > /g")], context={})
    assert result.steps[-1].decision == "miss"
    assert snapshot(result.tree())["g"].content == b"693\n"


class _Meanwhile(MemoryExecutor):
    """An executor on whose way to another process a file changes."""

    def __init__(self, path=None):
        super().__init__()
        self.path = path

    def __getstate__(self):
        with open(self.path, "w", encoding="ascii") as file:
            file.write("2")
        return super().__getstate__()


@pytest.mark.parametrize(
    "step",
    [Copy("a", "/a"), Run("cat /m/a > /f", mounts=[BindMount("/m")])],
    ids=["copied", "mounted"],
)
def test_a_context_that_changes_before_a_process_reads_it(tmp_path, processes, step):
    """The bytes that were hashed here are those that are read there, whatever became of the file
    on the way."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("1")
    builder = _over(tmp_path, processes, _Meanwhile(str(context / "a")))
    result = builder.build([step], context=str(context))
    assert {e.content for e in snapshot(result.tree()).values() if e.type == "file"} == {b"1"}


# -- cancelling -----------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 3])
def test_cancelled_from_another_thread(jobs):
    """Every build under way ends with `Cancelled`; the builder can build again."""
    begun = threading.Event()

    def execute(task, blobs):
        begun.set()
        deadline = time.monotonic() + 30
        while not blobs.cancelled() and time.monotonic() < deadline:
            time.sleep(0.002)
        raise Cancelled("as asked")

    executor = ScriptedExecutor({"one": execute, "two": execute, "three": execute})
    observer = RecordingObserver()
    builder = Builder(executor=executor, jobs=jobs, observers=[observer])
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(builder.build, DIAMOND, context=FILES)
        assert begun.wait(30)
        builder.cancel()
        with pytest.raises(Cancelled) as caught:
            future.result(30)
    error = report_of(caught.value).error
    assert error is not None
    assert error.code == "cancelled"
    assert [e.ok for e in observer.of(BuildFinished)] == [False]
    executor.script.clear()
    assert builder.build(DIAMOND, context=FILES).report.ok


def test_an_interrupt_stops_running_steps():
    """Ctrl-C while a step runs reaches the caller; other steps are told to stop.

    What was decided until then can be had; the step that ran counts as executed.
    """
    executor = ScriptedExecutor({"one": KeyboardInterrupt()})
    for jobs in (1, 3):
        observer = RecordingObserver()
        builder = Builder(executor=executor, jobs=jobs, observers=[observer])
        with pytest.raises(KeyboardInterrupt) as caught:
            builder.build(DIAMOND, context=FILES)
        report = report_of(caught.value.__cause__)
        decisions = {step.text: step.decision for step in report.steps}
        assert report.error is not None
        assert report.error.code == "cancelled"
        assert [d for text, d in decisions.items() if "one" in text] == ["miss"]
        assert "skip" in decisions.values()
        assert [e.ok for e in observer.of(BuildFinished)] == [False]


def test_an_observer_that_raises_is_reported_once():
    """Its error is not swallowed, and the build goes on without it."""

    def observer(event):
        if isinstance(event, StepStarted):
            raise ZeroDivisionError("its mistake")

    for jobs in (1, 3):
        builder = Builder(executor=MemoryExecutor(), jobs=jobs, observers=[observer])
        with pytest.warns(RuntimeWarning, match="ZeroDivisionError: its mistake"):
            assert builder.build(DIAMOND, context=FILES).report.ok


# -- events ---------------------------------------------------------------------------------


def test_events_tell_the_whole_build():
    """Begin, every execution with its output, every decision, end: in that order, one by one."""
    observer = RecordingObserver()
    builder = Builder(executor=MemoryExecutor(), jobs=2, observers=[observer])
    builder.build([Copy("a", "/a"), Run("echo hello"), Run("write /f 1")], context=FILES)
    kinds = [type(event) for event in observer.events]
    assert kinds[0] is BuildStarted
    assert kinds[-1] is BuildFinished
    assert observer.of(BuildStarted)[0].steps == 3
    assert len(observer.of(StepStarted)) == len(observer.of(StepExecuted)) == 3
    assert [e.chunk for e in observer.of(StepOutput)] == [b"hello\n"]
    assert observer.outcomes() == [
        ("COPY a /a", "miss"),
        ("RUN echo hello", "miss"),
        ("RUN write /f 1", "miss"),
    ]
    for started, executed in zip(observer.of(StepStarted), observer.of(StepExecuted), strict=True):
        assert kinds.index(StepStarted) < kinds.index(StepExecuted)
        assert started.key == executed.key

    observer.clear()
    builder.build([Copy("a", "/a"), Run("echo hello"), Run("write /f 1")], context=FILES)
    assert {type(e) for e in observer.events} == {BuildStarted, StepFinished, BuildFinished}
    assert [e.saved_seconds > 0 for e in observer.of(StepFinished)] == [True] * 3


def test_observers_are_called_one_at_a_time():
    """However many steps run at once, no observer is called while it is being called."""
    inside, worst = 0, 0

    def observer(event):
        nonlocal inside, worst
        inside += 1
        worst = max(worst, inside)
        time.sleep(0.001)
        inside -= 1

    Builder(executor=MemoryExecutor(), jobs=4, observers=[observer]).build(DIAMOND, context=FILES)
    assert worst == 1


# -- secrets --------------------------------------------------------------------------------

SECRET = b"correct-horse"


def _everything(builder, observer, result):
    """All that a build shows or keeps, as one text."""
    parts = [repr(observer.events).encode(), repr(result.to_dict()).encode()]
    for info in builder.store.backend.list(""):
        with builder.store.backend.read(info.name) as content:
            parts.append(content.read())
    return b"\0".join(parts)


def test_a_secret_that_is_printed_is_masked():
    """A step that echoes a secret: it is in no event, log, record, trail or report."""
    observer = RecordingObserver()
    executor = MemoryExecutor(secrets={"k": SECRET})
    builder = Builder(executor=executor, jobs=1, observers=[observer])
    step = Run("echo before && cat /run/secrets/k && echo after", mounts=[SecretMount("k")])
    result = builder.build([step], context={})
    assert result.log(0) == b"before\n***after\n"
    assert SECRET not in _everything(builder, observer, result)


def test_a_secret_cut_in_two_is_masked():
    """Output comes in pieces of any size: a secret that lies across them is masked, too."""
    for size in range(1, len(SECRET) + 3):

        def execute(task, blobs, size=size):
            output = b"x " + SECRET + b" y " + SECRET
            for at in range(0, len(output), size):
                blobs.log(output[at : at + size])
            return Result(None, output)

        observer = RecordingObserver()
        executor = ScriptedExecutor({"one": execute}, MemoryExecutor(secrets={"k": SECRET}))
        builder = Builder(executor=executor, jobs=1, observers=[observer])
        result = builder.build([Run("one")], context={})
        shown = b"".join(e.chunk for e in observer.of(StepOutput))
        assert shown == b"x *** y ***"
        assert SECRET not in _everything(builder, observer, result)


def test_a_secret_in_an_error_is_masked():
    """The message of a failing step quotes its output, without the secret."""
    executor = MemoryExecutor(secrets={"k": SECRET})
    observer = RecordingObserver()
    builder = Builder(executor=executor, jobs=1, observers=[observer])
    step = Run("cat /run/secrets/k; exit 1", mounts=[SecretMount("k")])
    with pytest.raises(StepFailed) as caught:
        builder.build([step], context={})
    shown = str(caught.value) + repr(caught.value.report) + repr(observer.events)
    assert SECRET.decode() not in shown
    assert "***" in str(caught.value)


def _read(builder, recipe, context):
    """The files of a build; what is found damaged while reading is made anew by the next one."""
    for _ in range(10):
        try:
            return snapshot(builder.build(recipe, context=context).tree())
        except CacheError:
            continue
    raise AssertionError("it does not heal")


# -- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_the_store_fails_a_build(fault):
    """Whatever call of the store fails, and however: the build ends well and its tree is right;
    what could not be shared is an event."""
    expected = clean_build(DIAMOND, FILES).state
    inner = MemoryBackend()
    backend = FaultyBackend(inner, fault)
    for every in (1, 2, 3, 5):
        broken = FaultyBackend(inner, fault, every=every)
        for _ in range(2):
            observer = RecordingObserver()
            builder = Builder(
                Store(broken), executor=MemoryExecutor(), jobs=1, observers=[observer]
            )
            result = builder.build(DIAMOND, context=FILES)
            assert result.report.ok
            assert result.state == expected
        assert broken.struck
    assert not backend.struck
    healed = Builder(Store(inner), executor=MemoryExecutor(), jobs=1)
    for _ in range(2):
        assert healed.build(DIAMOND, context=FILES).state == expected
    assert _read(healed, DIAMOND, FILES) == oracle(DIAMOND, FILES)


def test_one_fault_at_any_call():
    """Each single call of a build and a rebuild fails once, in each way: nothing wrong comes of
    it, and the store heals."""
    started, runs = time.perf_counter(), 0
    recipe = Dockerfile.parse(
        "FROM scratch AS a\nCOPY a /a\nRUN one\nFROM scratch\nCOPY --from=a / /x/\nRUN two\n"
    )
    expected = clean_build(recipe, FILES).state
    for fault in FAULTS:
        at = 0
        while True:
            inner = MemoryBackend()
            broken = FaultyBackend(inner, fault, at=at)
            for _ in range(2):
                builder = Builder(Store(broken), executor=MemoryExecutor(), jobs=1)
                assert builder.build(recipe, context=FILES).state == expected
            last = Builder(Store(inner), executor=MemoryExecutor(), jobs=1)
            assert last.build(recipe, context=FILES).state == expected
            runs += 1
            if not broken.struck:
                break
            at += 3
    tell("a fault at each third call", runs, time.perf_counter() - started)


def test_a_damaged_blob_is_made_again():
    """A blob that rots under a record is noticed by who reads it, taken back and made anew."""
    backend = MemoryBackend()
    text = Dockerfile.parse("FROM scratch\nCOPY a /a\nRUN one\n")
    Builder(Store(backend), executor=MemoryExecutor(), jobs=1).build(text, context=FILES)
    for info in list(backend.list("blobs/")):
        with backend.read(info.name) as content:
            data = content.read()
        backend.write(info.name, io.BytesIO(data[:-1] + bytes([data[-1] ^ 1])))
    for info in list(backend.list("index/")):
        backend.delete(info.name)
    longer = Dockerfile.parse("FROM scratch\nCOPY a /a\nRUN one\nRUN two\n")
    observer = RecordingObserver()
    builder = Builder(Store(backend), executor=MemoryExecutor(), jobs=1, observers=[observer])
    result = builder.build(longer, context=FILES)

    assert snapshot(result.tree()) == oracle(longer, FILES)
    assert observer.of(CacheTrouble)
    assert (
        Builder(Store(backend), executor=MemoryExecutor(), jobs=1)
        .build(longer, context=FILES)
        .state
        == result.state
    )


def test_two_copies_of_a_stage_whose_layer_is_lost():
    """The loss is met by the first of them and taken back; the second one, which was asked for
    already, waits until the layer is made again. No build succeeds without a result."""
    stage = "FROM scratch AS s\nCOPY . /x/\nRUN one\nFROM scratch\n"
    files = {"a": "1", "b": "2"}
    backend = MemoryBackend()
    first = Dockerfile.parse(stage + "COPY --from=s /x /x\n")
    Builder(Store(backend), executor=MemoryExecutor(), jobs=1).build(first, context=files)
    for info in list(backend.list("")):
        if info.name.startswith("blobs/"):
            with backend.read(info.name) as content:
                data = content.read()
            backend.write(info.name, io.BytesIO(data[:-1] + bytes([data[-1] ^ 1])))
        elif info.name.startswith(("index/", "facts/")):
            backend.delete(info.name)
    text = Dockerfile.parse(stage + "COPY --from=s /x/a* /p/\nCOPY --from=s /x/b* /q/\n")
    result = Builder(Store(backend), executor=MemoryExecutor(), jobs=1).build(text, context=files)
    assert result.report.ok
    assert snapshot(result.tree()) == oracle(text, files)


def test_a_step_that_meets_damage_in_what_it_made_itself_runs_once_more():
    """A blob has rotted that a step makes again: it is there, so it is not written, and an executor
    that reads it meets the damage. The build goes on and heals it."""

    class Reading(MemoryExecutor):
        def execute(self, task, blobs):
            result = super().execute(task, blobs)
            with blobs.open(layer_of(result).descriptor.digest) as content:
                while content.read(100):
                    pass
            return result

    backend = MemoryBackend()
    text = Dockerfile.parse("FROM scratch\nRUN one\n")
    expected = Builder(Store(backend), executor=Reading(), jobs=1).build(text, context={}).state
    for info in list(backend.list("")):
        if info.name.startswith("blobs/"):
            with backend.read(info.name) as content:
                data = content.read()
            backend.write(info.name, io.BytesIO(data[:-1] + bytes([data[-1] ^ 1])))
        elif not info.name.startswith("format"):
            backend.delete(info.name)
    executor = Reading()
    result = Builder(Store(backend), executor=executor, jobs=1).build(text, context={})

    assert result.state == expected
    assert len(executor.calls) == 2
    assert snapshot(result.tree()) == oracle(text, {})


def test_a_base_image_is_fetched_again():
    """A layer of a base image that is gone or damaged is fetched anew, however it is read."""
    text = Dockerfile.parse("FROM base:1\nRUN cat /app/a.txt > /f\nCOPY --from=base:2 /old /o\n")
    for spoil in ("delete", "flip"):
        for forget in (True, False):
            backend = MemoryBackend()
            options: dict[str, Any] = {
                "executor": MemoryExecutor(base_images=True),
                "images": MemoryImages(BASE_IMAGES),
                "jobs": 1,
            }
            expected = Builder(Store(backend), **options).build(text, context={}).state
            for info in list(backend.list("")):
                if info.name.startswith(("ac/", "facts/")) or (forget and "index/" in info.name):
                    backend.delete(info.name)
                elif info.name.startswith("blobs/"):
                    with backend.read(info.name) as content:
                        data = content.read()
                    backend.delete(info.name)
                    if spoil == "flip":
                        rotten = bytes([data[0] ^ 1]) + data[1:]
                        backend.write(info.name, io.BytesIO(rotten))
            builder = Builder(Store(backend), **options)
            assert builder.build(text, context={}).state == expected
            assert _read(builder, text, {})["f"].content == b"base"
