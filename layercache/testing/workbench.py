"""One step at a time: a store, trees and a window for executors, without a build around them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import BinaryIO

from layercache.engine.window import perform
from layercache.inputs.inputs import Inputs
from layercache.layers.new_layer import layer_from, layer_of
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer, State
from layercache.model.digests import Digest, Fingerprint
from layercache.model.instruction import Field, Instruction, Source
from layercache.model.layer_index import LayerIndex
from layercache.model.operations import PARENT
from layercache.model.selectors import EVERYTHING, Everything, Nothing, Selector
from layercache.model.sources import ContextSource
from layercache.model.task import BoundInput, Executor, NewFile, Result, Task
from layercache.model.tree import Node, Tree
from layercache.store.backends.memory import MemoryBackend
from layercache.store.parts import Cache
from layercache.store.store import Store
from layercache.testing.memory import MemoryFiles
from layercache.trees.in_memory import DictTree

__all__ = ["Workbench"]

Files = Mapping[str, "str | bytes | tuple[Node, bytes]"]


class Workbench:
    """Executes single steps; it is itself the `Blobs` that executors see.

    `contexts` are trees or mappings by name ("" is the main one). `output` collects what steps
    log, `stop` makes `cancelled` true.
    """

    def __init__(
        self, contexts: Mapping[str, Tree | Files] | None = None, store: Cache | None = None
    ) -> None:
        self.store = store or Store(MemoryBackend())
        self._contexts = {
            name: DictTree(tree) if isinstance(tree, Mapping) else tree
            for name, tree in (contexts or {}).items()
        }
        self.inputs = Inputs(
            self.store, {name: partial(self._contexts.__getitem__, name) for name in self._contexts}
        )
        self.output = bytearray()
        self.stop = False

    # -- states and tasks -------------------------------------------------------------------

    def state(self, files: Files, parent: State = SCRATCH) -> State:
        """`parent` with a layer of these files on top."""
        tree = DictTree(files)
        made = MemoryFiles(self.tree(parent))
        made.become(tree)
        return parent.plus(made.layer(self))

    def task(
        self,
        instruction: Instruction,
        parent: State | None = SCRATCH,
        inputs: Mapping[str, tuple[State | Source, Selector]] | None = None,
        *,
        traits: Sequence[Field] = (),
        bypass: bool = False,
    ) -> Task:
        """A task on `parent` (None: a step without one), with further inputs by role."""
        bound = []
        if parent is not None:
            chain = Fingerprint(parent.chain_id)
            bound.append(BoundInput(PARENT, parent, EVERYTHING, chain))
        for role, (subject, selector) in (inputs or {}).items():
            found = self.fingerprint(subject, selector)
            bound.append(BoundInput(role, subject, selector, found))
        return Task(instruction, tuple(bound), tuple(traits), bypass)

    def fingerprint(self, subject: State | Source, selector: Selector) -> Fingerprint:
        """What `selector` picks from `subject`, as a walk would be told."""
        if isinstance(selector, Nothing):
            return Fingerprint("")
        if isinstance(selector, Everything) and isinstance(subject, State):
            return Fingerprint(subject.chain_id)
        return self.inputs.fingerprint(subject, selector)

    def execute(self, executor: Executor, task: Task) -> Result:
        """Execute as the engine would: COPY, ADD and WORKDIR by the library, the rest by it."""
        return perform(executor, task, self)

    def apply(self, executor: Executor, task: Task) -> State:
        """Execute, and return the resulting state."""
        return (task.parent or SCRATCH).plus(self.execute(executor, task).layer)

    @staticmethod
    def context(name: str = "") -> ContextSource:
        """The source behind a context."""
        return ContextSource(name)

    # -- the window -------------------------------------------------------------------------

    def open(self, digest: Digest) -> BinaryIO:
        return self.store.blobs.open(digest)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        return self.store.blobs.add(content, media_type)

    def add_bytes(self, data: bytes, media_type: str = LAYER_TAR) -> Descriptor:
        """Store bytes."""
        return self.add(io.BytesIO(data), media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        return self.store.blobs.add_file(path, media_type, digest, size)

    def index(self, layer: Layer) -> LayerIndex:
        return self.inputs.index(layer)

    def tree(self, subject: State | Source) -> Tree:
        return self.inputs.tree(subject)

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        return layer_of(files, self)

    def layer_from(self, directory: str | os.PathLike[str]) -> Layer | None:
        return layer_from(directory, self)

    def log(self, chunk: bytes) -> None:
        self.output += chunk

    def cancelled(self) -> bool:
        return self.stop
