"""Executing one task, wherever that is: the window that a running step sees, and who runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO

from layercache.descriptors import Descriptor, Layer, State
from layercache.digests import Digest
from layercache.errors import BuildError
from layercache.execution import Blobs, Executor, Result, Task
from layercache.inputs import Inputs
from layercache.instructions import Source
from layercache.operations import CopyFiles, MakeDirectory
from layercache.trees import Tree

if TYPE_CHECKING:
    from layercache.layers.index import LayerIndex
    from layercache.store import Store

__all__ = ["Window", "perform"]


def perform(executor: Executor | None, task: Task, blobs: Blobs) -> Result:
    """Execute one task; runs wherever the pool puts it.

    COPY, ADD and WORKDIR run no command: their layer is a function of the trees alone and is
    the same for all executors, unless an executor says `files = True` and takes them itself.
    """
    own = getattr(executor, "files", False)
    if not own and isinstance(task.instruction, CopyFiles | MakeDirectory):
        from layercache.copying import copy_layer

        return copy_layer(task, blobs)
    if executor is None:
        raise BuildError(f"{task.instruction.name} needs an executor, and none was given")
    return executor.execute(task, blobs)


class Window:
    """The `Blobs` of one running step. Pickled, it leaves the live build behind.

    `masks` are what must not be shown in output; `say` takes output as it comes, `stopping`
    tells whether the step should end. Without them output goes nowhere and nothing stops it.
    """

    def __init__(
        self,
        store: Store,
        inputs: Inputs,
        *,
        masks: Iterable[bytes] = (),
        say: Callable[[bytes], None] | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> None:
        self._store = store
        self._inputs = inputs
        self._masks = tuple(sorted((m for m in masks if m.strip()), key=len, reverse=True))
        self._say = say
        self._stopping = stopping

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_say": None, "_stopping": None}

    def open(self, digest: Digest) -> BinaryIO:
        return self._inputs.open(digest)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        return self._store.add_blob(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        return self._store.add_file(path, media_type, digest, size)

    def index(self, layer: Layer) -> LayerIndex:
        return self._inputs.index(layer)

    def keep_index(self, layer: Layer, index: LayerIndex) -> None:
        """Optional capability `KeepsIndex`: spares reading a layer that was just written."""
        self._inputs.keep_index(layer, index)

    def tree(self, subject: State | Source) -> Tree:
        return self._inputs.tree(subject)

    def masked(self, output: bytes) -> bytes:
        """`output` without the secrets that the executor knows."""
        for secret in self._masks:
            output = output.replace(secret, b"***")
        return output

    def masked_text(self, text: object) -> object:
        """Like `masked`, for an argument of an error."""
        if not isinstance(text, str) or not self._masks:
            return text
        return self.masked(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def log(self, chunk: bytes) -> None:
        if self._say is not None:
            self._say(self.masked(chunk))

    def cancelled(self) -> bool:
        return self._stopping is not None and self._stopping()
