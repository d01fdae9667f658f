"""A busybox root file system, an executor over it, and what a step needs around it."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from layercache.executors.rootfs import RootfsExecutor
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer, State
from layercache.model.digests import DiffID, Digest, Fingerprint
from layercache.model.instruction import Source
from layercache.model.operations import Exec
from layercache.model.selectors import EVERYTHING, Files
from layercache.model.sources import ContextSource
from layercache.model.task import BoundInput, NewFile, Result, Task
from layercache.model.tree import Node, Tree
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.images import busybox_layer

__all__ = ["Bench"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Window:
    """The `Blobs` of one step over a store in memory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.output = bytearray()
        self.stop = threading.Event()
        self.told = threading.Event()

    def open(self, digest: Digest) -> BinaryIO:
        return self.bench.store.blobs.open(digest)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        return self.bench.store.blobs.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        return self.bench.store.blobs.add_file(path, media_type, digest, size)

    def index(self, layer: Layer) -> Any:
        return self.bench.inputs.index(layer)

    def keep_index(self, layer: Layer, index: Any) -> None:
        self.bench.inputs.keep_index(layer, index)

    def tree(self, subject: State | Source) -> Tree:
        return self.bench.inputs.tree(subject)

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        raise NotImplementedError("no test here stores a layer that way")

    def layer_from(self, directory: str) -> Layer | None:
        raise NotImplementedError("no test here stores a layer that way")

    def log(self, chunk: bytes) -> None:
        self.output += chunk
        self.told.set()

    def cancelled(self) -> bool:
        return self.stop.is_set()


class Bench:
    """A store, a base state and an executor; `run` is one RUN on a state."""

    def __init__(self, directory: Path, base: bytes, **options: Any) -> None:
        self.directory = directory
        self.store = Store(MemoryBackend())
        self.contexts: dict[str, Callable[[], Tree]] = {}
        self.inputs = Inputs(self.store, self.contexts)
        self.options = options
        self.executor = RootfsExecutor(directory, **options)
        self.base = self.layer(base)

    def helper(self) -> tuple[int, str]:
        """The helper process: its number, and how the names of its control groups begin."""
        for thread in Path("/proc/self/task").iterdir():
            for child in (thread / "children").read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")[:-1]
                mounts = Path(f"/proc/{child}/mountinfo").read_text()
                if "serve" in words and f" {self.directory} " in mounts:
                    return int(child), words[words.index("serve") + 2]
        raise AssertionError("no helper process of this bench runs")

    def layer(self, tar: bytes, on: State = SCRATCH) -> State:
        """`on` with the layer that `tar` is."""
        descriptor = self.store.blobs.add(io.BytesIO(tar), LAYER_TAR)
        return on.plus(Layer(descriptor, DiffID(descriptor.digest)))

    def task(self, *args: str, state: State | None = None, **fields: Any) -> Task:
        inputs = fields.pop("inputs", ())
        bypass = fields.pop("bypass", False)
        env = dict(fields.pop("env", {}))
        env.setdefault("PATH", PATH)
        state = self.base if state is None else state
        parent = BoundInput("parent", state, EVERYTHING, Fingerprint(state.chain_id))
        instruction = Exec(args=args, env=tuple(env.items()), **fields)
        return Task(instruction, (parent, *inputs), bypass=bypass)

    def sh(self, script: str, **fields: Any) -> Result:
        """Run a shell command; the result."""
        return self.run("/bin/sh", "-c", script, **fields)

    def run(self, *args: str, window: Window | None = None, **fields: Any) -> Result:
        return self.executor.execute(self.task(*args, **fields), window or Window(self))

    def out(self, script: str, **fields: Any) -> str:
        """What a shell command writes."""
        return self.sh(script, **fields).output.decode()

    def after(self, result: Result, on: State | None = None) -> State:
        return (self.base if on is None else on).plus(result.layer)

    def entries(self, result: Result) -> dict[str, Node | None]:
        """The layer's own entries; None for a deletion."""
        if result.layer is None:
            return {}
        found = self.inputs.index(result.layer)
        return {os.fsdecode(e.path): e.node for e in found if not e.implied}

    def read(self, state: State, path: str) -> bytes:
        with self.inputs.tree(state).open(os.fsencode(path)) as file:
            return file.read()

    def context(self, tree: Tree, files: Files, role: str) -> BoundInput:
        """A build context as the input `role`."""
        name = f"context{len(self.contexts)}"
        self.contexts[name] = lambda: tree
        source = ContextSource(name)
        return BoundInput(role, source, files, self.inputs.fingerprint(source, files))

    def stage(self, state: State, files: Files, role: str) -> BoundInput:
        """A stage's state as the input `role`."""
        return BoundInput(role, state, files, self.inputs.fingerprint(state, files))


@pytest.fixture(scope="session")
def busybox() -> bytes:
    """The layer of a busybox root file system."""
    layer = busybox_layer()
    if layer is None:
        pytest.skip("no busybox: apt-get install busybox-static")
    return layer


@pytest.fixture
def make_bench(tmp_path: Path, busybox: bytes) -> Iterator[Callable[..., Bench]]:
    """Makes benches, each with its own options, closed after the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        directory = options.pop("directory", tmp_path / f"scratch{len(made)}")
        made.append(Bench(directory, busybox, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.executor.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A bench with default options."""
    return make_bench()


def files(*patterns: str) -> Files:
    """The selector of a mount."""
    return Files(patterns=patterns, wildcards=False, named=False)


Options = Mapping[str, Any]
Args = Sequence[str]
