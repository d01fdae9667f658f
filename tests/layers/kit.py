"""What the tests of layers and copying share: blobs in memory, trees as plain dictionaries."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import attrs

from layercache.errors import NotFound
from layercache.executors.copy import CopyPlan, copy_layer
from layercache.layers.reader import index_layer
from layercache.layers.state_tree import StateTree
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer, State
from layercache.model.digests import Digest, Fingerprint
from layercache.model.instruction import Field, Source
from layercache.model.layer_index import LayerIndex
from layercache.model.operations import CopyFiles, CopySource
from layercache.model.selectors import EVERYTHING, Files
from layercache.model.task import BoundInput, NewFile, Result, Task
from layercache.model.tree import Node, Tree
from layercache.trees.in_memory import DictTree


@attrs.frozen
class Named:
    """A source that is nothing but a name."""

    name: str

    def definition(self) -> Sequence[Field]:
        return (Field("name", self.name),)


class MemoryBlobs:
    """`Blobs` over dictionaries: real bytes, real digests, no disk."""

    def __init__(self, trees: Mapping[str, Tree] | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.trees = dict(trees or {})
        self.indexes: dict[str, LayerIndex] = {}
        self.cancel = False
        self.output: list[bytes] = []

    def open(self, digest: Digest) -> BinaryIO:
        if digest not in self.blobs:
            raise NotFound(digest)
        return io.BytesIO(self.blobs[digest])

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        data = content.read()
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        self.blobs[digest] = data
        return Descriptor(media_type, digest, len(data))

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        with open(path, "rb") as content:
            descriptor = self.add(content, media_type)
        assert (descriptor.digest, descriptor.size) == (digest, size)
        return descriptor

    def index(self, layer: Layer) -> LayerIndex:
        found = self.indexes.get(layer.archive)
        if found is None:
            found = self.indexes[layer.archive] = index_layer(self.open(layer.descriptor.digest))
        return found

    def tree(self, subject: State | Source) -> Tree:
        if isinstance(subject, State):
            layers = subject.layers

            def content(number: int, offset: int, size: int) -> BinaryIO:
                data = self.blobs[layers[number].descriptor.digest]
                return io.BytesIO(data[offset : offset + size])

            return StateTree([self.index(layer) for layer in layers], content)
        return self.trees[subject.name]

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        raise NotImplementedError("no test here stores a layer that way")

    def layer_from(self, directory: str) -> Layer | None:
        raise NotImplementedError("no test here stores a layer that way")

    def log(self, chunk: bytes) -> None:
        self.output.append(chunk)

    def cancelled(self) -> bool:
        return self.cancel

    def state(self, *tars: bytes) -> State:
        """A state of the given layer tars."""
        state = SCRATCH
        for tar in tars:
            stored = self.add(io.BytesIO(tar), LAYER_TAR)
            state = state.plus(Layer(stored, stored.digest))  # type: ignore[arg-type]
        return state


def task(instruction: object, parent: State) -> Task:
    """A task whose inputs are the parent and, for every role, the source of that name."""
    inputs = [BoundInput("parent", parent, EVERYTHING, Fingerprint(parent.chain_id))]
    if isinstance(instruction, CopyFiles):
        for role in sorted({source.role for source in instruction.sources}):
            files = Files(tuple(s.pattern for s in instruction.sources if s.role == role))
            inputs.append(BoundInput(role, Named(role), files, Fingerprint("")))
    return Task(instruction, tuple(inputs))  # type: ignore[arg-type]


def run(blobs: MemoryBlobs, instruction: object, parent: State = SCRATCH) -> tuple[State, Result]:
    """Execute a copy on `parent`; returns the new state and the result."""
    result = copy_layer(task(instruction, parent), blobs)
    return parent.plus(result.layer), result


def copy(*patterns: str, to: str, **more: object) -> CopyFiles:
    """A COPY of `patterns` from the source named "source"."""
    sources = tuple(CopySource(role="source", pattern=pattern) for pattern in patterns)
    return CopyFiles(sources=sources, destination=to, **more)  # type: ignore[arg-type]


def listing(tree: Tree, top: bytes = b"") -> dict[str, str]:
    """Everything below `top` as `path: "kind mode uid:gid content"`; times apart."""
    found = {}
    todo = [top]
    while todo:
        path = todo.pop()
        node = tree.lookup(path)
        assert node is not None, path
        if path != top:
            found[path.decode("utf-8", "surrogateescape")] = describe(tree, path, node)
        if node.is_dir:
            todo += [path + b"/" + name if path else name for name in tree.children(path)]
    return dict(sorted(found.items()))


def describe(tree: Tree, path: bytes, node: Node) -> str:
    """One line that says what a node is."""
    kind = {0o04: "dir", 0o10: "file", 0o12: "link", 0o02: "chr", 0o06: "blk", 0o01: "fifo"}
    text = f"{kind[node.mode >> 12]} {node.mode & 0o7777:04o} {node.uid}:{node.gid}"
    if node.is_file:
        with tree.open(path) as content:
            text += f" {content.read()!r}"
    elif node.is_link:
        text += f" -> {node.link.decode()}"
    elif node.device != (0, 0):
        text += f" {node.device[0]},{node.device[1]}"
    return text


__all__ = [
    "CopyPlan",
    "DictTree",
    "MemoryBlobs",
    "Named",
    "copy",
    "describe",
    "listing",
    "run",
    "task",
]
