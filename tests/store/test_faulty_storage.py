"""A build over storage that fails in every way, at every call: right, and healed afterwards."""

from __future__ import annotations

import io
import multiprocessing
import shutil
import stat
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import Copy, From, Run
from layercache.errors import CacheError
from layercache.layers.writer import LayerWriter
from layercache.model.descriptors import LAYER_TAR, Layer
from layercache.model.task import Result
from layercache.model.tree import Node
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.faults import FAULTS, FaultyBackend

RECIPE = [
    From("scratch", "tools"),
    Run(["write", "tool"]),
    From("scratch"),
    Copy("input", "/input"),
    Run(["write", "first"]),
    Copy("tool", "/tool", from_="tools"),
    Run(["write", "second"]),
]
CONTEXT = {"input": b"from the context"}


class Writes:
    """`RUN write NAME` makes a file that holds all files that were there."""

    traits = ()

    def __init__(self):
        self.runs = 0

    def execute(self, task, blobs):
        self.runs += 1
        name = task.instruction.args[-1].encode()
        parts = [name]
        if task.parent is not None:
            tree = blobs.tree(task.parent)
            for child in tree.children(b""):
                with tree.open(child) as content:
                    parts.append(child + b"=(" + content.read() + b")")
        data = b" ".join(parts)
        out = io.BytesIO()
        writer = LayerWriter(out)
        writer.add(name, Node(mode=stat.S_IFREG | 0o644, size=len(data), mtime=1), data)
        diff_id, _, _ = writer.finish()
        out.seek(0)
        return Result(Layer(blobs.add(out, LAYER_TAR), diff_id), b"wrote " + name)


def _build(store, executor):
    builder = Builder(store, executor=executor, jobs=1)
    return builder.build(RECIPE, context=CONTEXT, project="p")


def _diff_ids(result):
    return [layer.diff_id for layer in result.state.layers]


def _intact(store, result) -> bool:
    """Reads everything, as an export would."""
    try:
        for layer in result.state.layers:
            store.blobs.read(layer.descriptor.digest)
    except CacheError:
        return False
    return True


def _make(kind, path):
    if kind == "memory":
        return MemoryBackend()
    return LocalBackend(path, durability=kind)


def _calls(kind, path, warm):
    """How many calls a build makes."""
    backend = _make(kind, path)
    if warm:
        _build(Store(backend), Writes())
    counting = FaultyBackend(backend, "EIO")
    _build(Store(counting), Writes())
    return counting.calls


@pytest.mark.parametrize("kind", ["memory", "batch"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_failing(tmp_path, kind, fault):
    """Whichever call fails, the build succeeds with the right image and the next one heals."""
    started = time.monotonic()
    expected = _diff_ids(_build(Store(MemoryBackend()), Writes()))
    run = 0
    for warm in (False, True):
        total = _calls(kind, tmp_path / f"count-{warm}", warm)
        for at in range(total):
            directory = tmp_path / "cache"
            shutil.rmtree(directory, ignore_errors=True)
            backend = _make(kind, directory)
            if warm:
                _build(Store(backend), Writes())
            faulty = FaultyBackend(backend, fault, at=at)
            store = Store(faulty)
            result = _build(store, Writes())
            run += 1

            assert expected == _diff_ids(result), at
            store.close()
            store = Store(backend)
            again = _build(store, Writes())
            if not _intact(store, again):
                again = _build(store, Writes())
            assert _intact(store, again), at
            assert expected == _diff_ids(again)
            store.close()
            store = Store(backend)
            executor = Writes()
            last = _build(store, executor)
            assert executor.runs == 0, at
            assert expected == _diff_ids(last)
            assert _intact(store, last)
            store.close()
    print(f"{kind} {fault}: {run} run, seed none, wall {time.monotonic() - started:.1f} s")


@pytest.mark.parametrize("every", [2, 3, 7])
@pytest.mark.parametrize("fault", FAULTS)
def test_many_calls_failing(tmp_path, fault, every):
    """With every second, third or seventh call failing, builds still come out right."""
    expected = _diff_ids(_build(Store(MemoryBackend()), Writes()))
    backend = FaultyBackend(LocalBackend(tmp_path / "cache"), fault, every=every)
    for _ in range(4):
        store = Store(backend)

        assert expected == _diff_ids(_build(store, Writes()))
        store.close()


class Full(LocalBackend):
    """Takes nothing."""

    def write(self, name, content):
        raise CacheError("no space left")

    def adopt(self, path, name):
        raise CacheError("no space left")


def test_a_full_cache_and_steps_in_other_processes(tmp_path):
    """What is kept aside is in this process only: steps that need it run here."""
    wanted = _diff_ids(_build(Store(MemoryBackend()), Writes()))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool, Store(Full(tmp_path)) as store:
        builder = Builder(store, executor=Writes(), jobs=1, pool=pool)
        result = builder.build(RECIPE, context=CONTEXT, project="p")
        assert _diff_ids(result) == wanted
        assert _intact(store, result)
