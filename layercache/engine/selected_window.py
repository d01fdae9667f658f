"""The window of a step, narrowed to the part that its key covers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import BinaryIO

from layercache.errors import BuildError
from layercache.model.descriptors import Descriptor, Layer, State
from layercache.model.digests import Digest
from layercache.model.instruction import Source
from layercache.model.layer_index import KeepsIndex, LayerIndex
from layercache.model.open_layers import KeepsOpenLayers
from layercache.model.selectors import ByKey, Everything, Observed, Selector
from layercache.model.task import Blobs, NewFile, Task
from layercache.model.tree import Tree
from layercache.trees.selected_tree import SelectedTree

__all__ = ["SelectedWindow"]


class SelectedWindow:
    """`blobs` with of each input of `task` only what its selectors pick.

    `unpacks`: the executor takes states apart itself, layer by layer, to mount them, and shows
    its commands no more than what is selected; sources are narrowed for it all the same.
    """

    def __init__(self, blobs: Blobs, task: Task, *, unpacks: bool) -> None:
        self._blobs = blobs
        self._selectors: dict[State | Source, list[Selector]] = {}
        self._name = task.instruction.name
        whole: set[Digest] = set()
        part: set[Digest] = set()
        for bound in task.inputs:
            subject = bound.subject
            self._selectors.setdefault(subject, []).append(bound.selector)
            if isinstance(subject, State):
                seen = whole if unpacks or _is_all(bound.selector) else part
                seen.update(layer.descriptor.digest for layer in subject.layers)
        self._hidden = part - whole
        self._unpacks = unpacks
        self._trees: dict[State | Source, Tree] = {}

    def tree(self, subject: State | Source) -> Tree:
        selectors = self._selectors.get(subject)
        if isinstance(subject, State):
            if selectors is None:
                for layer in subject.layers:
                    self._refuse_hidden(layer.descriptor.digest)
            if selectors is None or self._unpacks or any(map(_is_all, selectors)):
                return self._blobs.tree(subject)
        if selectors is None:
            raise BuildError(
                f"the executor of {self._name} asked for {subject}, which is not an input of "
                "the step, so its key does not cover it. Name it in the instruction's reads()"
            )
        found = self._trees.get(subject)
        if found is None:
            whole = self._blobs.tree(subject)
            found = SelectedTree(whole, selectors, state=isinstance(subject, State))
            self._trees[subject] = found
        return found

    def open(self, digest: Digest) -> BinaryIO:
        self._refuse_hidden(digest)
        return self._blobs.open(digest)

    def index(self, layer: Layer) -> LayerIndex:
        self._refuse_hidden(layer.descriptor.digest)
        return self._blobs.index(layer)

    def _refuse_hidden(self, digest: Digest) -> None:
        if digest in self._hidden:
            raise BuildError(
                f"the executor of {self._name} asked for a whole layer of an input, but the "
                "step's key covers only a part of it: use blobs.tree(subject), or declare "
                "unpacks_states = True if it mounts states itself"
            )

    @property
    def open_layers(self) -> str | None:
        """See `KeepsOpenLayers`."""
        return self._blobs.open_layers if isinstance(self._blobs, KeepsOpenLayers) else None

    def keep_open(self, layer: Layer, index: LayerIndex, name: str) -> None:
        """See `KeepsOpenLayers`."""
        if isinstance(self._blobs, KeepsOpenLayers):
            self._blobs.keep_open(layer, index, name)

    def keep_index(self, layer: Layer, index: LayerIndex) -> None:
        """See `KeepsIndex`."""
        if isinstance(self._blobs, KeepsIndex):
            self._blobs.keep_index(layer, index)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        return self._blobs.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        return self._blobs.add_file(path, media_type, digest, size)

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        return self._blobs.layer(files)

    def layer_from(self, directory: str | os.PathLike[str]) -> Layer | None:
        return self._blobs.layer_from(os.fspath(directory))

    @property
    def build(self) -> object:
        """See `Window.build`; a window that does not know it stands for itself."""
        return getattr(self._blobs, "build", self)

    def log(self, chunk: bytes) -> None:
        self._blobs.log(chunk)

    def cancelled(self) -> bool:
        return self._blobs.cancelled()


def _is_all(selector: Selector) -> bool:
    """Whether the key covers all of a state: by its chain ID, by the key that made it, or by
    tracing.
    """
    return isinstance(selector, Everything | ByKey | Observed)
