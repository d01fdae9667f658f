"""The execution of one task in any process: the window that a running step sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

from layercache.engine.selected_window import SelectedWindow
from layercache.errors import (
    BuildError,
    LayerCacheError,
)
from layercache.executors.redaction import Redactor
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import Descriptor, Layer, State
from layercache.model.digests import Digest
from layercache.model.instruction import Source
from layercache.model.operations import CopyFiles, MakeDirectory
from layercache.model.selectors import Nothing
from layercache.model.task import Blobs, Executor, Masks, NewFile, Result, Task, UnpacksStates
from layercache.model.tree import Tree

if TYPE_CHECKING:
    from layercache._os.allowance import UnpackAllowance
    from layercache.model.layer_index import LayerIndex
    from layercache.store.parts import Cache

__all__ = ["Window", "masks_of", "perform"]

_MOST_LOGGED: Final = 4 << 20
"""Bytes of output from which on the middle is left out."""


def perform(executor: Executor | None, task: Task, blobs: Blobs) -> Result:
    """Execute one task; runs wherever the pool puts it.

    COPY, ADD and WORKDIR run no command: their layer is a function of the trees alone and is
    the same for all executors. An executor sees of the inputs what the key saw, and no more.
    Whatever is wrong with it is a `BuildError` that names it.
    """
    if isinstance(task.instruction, CopyFiles | MakeDirectory):
        from layercache.executors.copy import copy_layer

        return copy_layer(task, blobs)
    if executor is None:
        raise BuildError(f"{task.instruction.name} needs an executor, and none was given")
    kind, step = type(executor).__name__, task.instruction.name
    unpacks = isinstance(executor, UnpacksStates) and executor.unpacks_states
    try:
        result = executor.execute(task, SelectedWindow(blobs, task, unpacks=unpacks))
    except (LayerCacheError, OSError):
        raise
    except Exception as error:
        raise BuildError(
            f"the executor {kind} broke on {step}: {type(error).__name__}: {error}; this is a "
            "fault of the executor, not of the recipe: it should raise BuildError (StepFailed for "
            "a command), see the cause for where"
        ) from error
    if not isinstance(result, Result) or not isinstance(result.layer, Layer | None):
        got = result.layer if isinstance(result, Result) else result
        raise BuildError(
            f"the executor {kind} returned {type(got).__name__} for {step}; execute() returns "
            "Result(layer=...), with a Layer (see blobs.layer) or None where nothing changed"
        )
    return result


def masks_of(executor: Executor | None) -> Sequence[bytes]:
    """The secrets to be masked in the output of steps that this executor runs."""
    return executor.masks if isinstance(executor, Masks) else ()


class Window:
    """The `Blobs` of one running step. Pickled, it leaves the live build behind.

    `masks` are what must not be shown in output; `say` takes output as it comes, `stopping`
    tells whether the step should end. Without them output goes nowhere and nothing stops it.
    """

    def __init__(
        self,
        store: Cache,
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
        self._here = True
        self._told = False
        self._logged = bytearray()
        self._redactor = Redactor(self._masks)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_say": None, "_stopping": None, "_here": False}

    # -- in another process -----------------------------------------------------------------

    @property
    def here(self) -> bool:
        """Whether this is the process of the build."""
        return self._here

    def changed(self, task: Task) -> str:
        """In another process, which source of a task differs from the one in its key; "" if none
        does.
        """
        for bound in task.inputs:
            if isinstance(bound.subject, State) or isinstance(bound.selector, Nothing):
                continue
            if self._inputs.fingerprint(bound.subject, bound.selector) != bound.fingerprint:
                return f"what it reads of {bound.subject.name}"
        return ""

    def leave(self, result: Result) -> None:
        """In another process, make the blobs that were stored there durable before anything refers
        to them.
        """
        if not self._here:
            self._store.commit()
            if result.layer is not None:
                self._store.blobs.publish([result.layer.descriptor])

    def catch_up(self, output: bytes) -> None:
        """Report the output of a step that could not be reported while it ran."""
        if output and not self._told:
            self.log(output)

    # -- what an executor sees --------------------------------------------------------------

    @property
    def allowance(self) -> UnpackAllowance:
        """Optional capability `Allows`: the bound of the whole build."""
        return self._inputs.allowance

    def open(self, digest: Digest) -> BinaryIO:
        return self._inputs.open(digest)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        return self._store.blobs.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        return self._store.blobs.add_file(path, media_type, digest, size)

    @property
    def build(self) -> object:
        """Optional capability `KnowsBuild`: one object for all steps of one build."""
        return self._inputs

    def index(self, layer: Layer) -> LayerIndex:
        return self._inputs.index(layer)

    @property
    def open_layers(self) -> str | None:
        """Optional capability `KeepsOpenLayers`; another process makes archives, as it may be on
        another machine."""
        return self._store.blobs.open_layers if self._here else None

    def keep_open(self, layer: Layer, index: LayerIndex, name: str) -> None:
        """See `KeepsOpenLayers`."""
        self._store.blobs.keep_open(layer, index, name)

    def keep_index(self, layer: Layer, index: LayerIndex) -> None:
        """Optional capability `KeepsIndex`: spares reading a layer that was just written."""
        self._inputs.keep_index(layer, index)

    def tree(self, subject: State | Source) -> Tree:
        return self._inputs.tree(subject)

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        from layercache.layers.new_layer import layer_of

        return layer_of(files, self)

    def layer_from(self, directory: str | os.PathLike[str]) -> Layer | None:
        from layercache.layers.new_layer import layer_from

        return layer_from(directory, self)

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
        self._told = True
        self._logged += chunk
        if len(self._logged) > _MOST_LOGGED:
            from layercache.executors.workspace.processes import shorten

            self._logged[:] = shorten(bytes(self._logged))
        self._tell(self._redactor.feed(chunk))

    @property
    def logged(self) -> bytes:
        """The text passed to `log` so far; the middle of a long text is left out."""
        return bytes(self._logged)

    def end(self) -> None:
        """Report the output that was held back because it might have begun a secret."""
        self._tell(self._redactor.end())

    def _tell(self, chunk: bytes) -> None:
        if chunk and self._say is not None:
            self._say(chunk)

    def cancelled(self) -> bool:
        return self._stopping is not None and self._stopping()
