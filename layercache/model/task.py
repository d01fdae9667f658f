"""What an executor is given (`Task`, `Blobs`), what it gives back (`Result`), its protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, runtime_checkable

from layercache._base.classes import frozen
from layercache.model.descriptors import Descriptor, Layer, State
from layercache.model.digests import Digest, Fingerprint
from layercache.model.instruction import Field, Instruction, Source
from layercache.model.observations import Observations
from layercache.model.selectors import Selector
from layercache.model.tree import Node, Tree

if TYPE_CHECKING:
    from layercache.model.layer_index import LayerIndex

__all__ = ["Blobs", "BoundInput", "Executor", "NewFile", "Result", "StepTraits", "Task"]


@frozen
class BoundInput:
    """One input as the key saw it: its role, what it is, what is read of it, its fingerprint."""

    role: str
    subject: State | Source
    selector: Selector
    fingerprint: Fingerprint


@frozen
class Task:
    """One step to execute: exactly what its key saw, and nothing else (no ids, no names)."""

    instruction: Instruction
    inputs: tuple[BoundInput, ...]
    traits: tuple[Field, ...] = ()
    bypass: bool = False
    """Asked for with `no_cache`: cache mounts start empty."""
    observe: bool = False
    """Watch what the command looks at of the parent; changes nothing about what it gives."""

    @property
    def parent(self) -> State | None:
        """The state the step is applied to, None for a step without one."""
        for bound in self.inputs:
            if bound.role == "parent" and isinstance(bound.subject, State):
                return bound.subject
        return None


@frozen
class Result:
    """What an execution gave: a layer, or None when nothing changed; the step's output.

    `output` is what the command wrote to standard output and error, in order, possibly cut.
    `observed` is all that the result depends on of the parent, None where only the whole parent
    is known to be enough; `refusal` says why, where observing was asked for.
    """

    layer: Layer | None
    output: bytes = b""
    observed: Observations | None = None
    refusal: str = ""


NewFile: TypeAlias = "str | bytes | Node | tuple[Node, bytes | str] | None"
"""What `Blobs.layer` puts at a path: a file's text or bytes (0644), a node without content (a
directory, a link), a node with a file's content, or None, which deletes the path."""


class Blobs(Protocol):
    """The window through which an executor reads and writes content. Safe for threads."""

    def open(self, digest: Digest) -> BinaryIO:
        """The verified bytes of a blob; raises `CorruptObject` or `NotFound` (both heal)."""

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store `content`; returns its descriptor."""

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Adopt a complete file whose digest is known; it may be moved away."""

    def index(self, layer: Layer) -> LayerIndex:
        """What the layer holds, entry by entry; made from its bytes once and kept."""

    def tree(self, subject: State | Source) -> Tree:
        """What the step's key saw of an input, as a tree: of a source or a state that is read in
        part only what its selector picks, with times that do not tell. Raises `BuildError` for
        what is no input of the step."""

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        """Store a layer that writes or deletes these paths; None where there are none.

        Order, sizes, types, times and digests are made here. Owners are 0:0 unless a node says
        otherwise. Raises `UsageError` for what is no path or no file.
        """

    def layer_from(self, directory: str) -> Layer | None:
        """Store a layer of all that a directory of the host holds: files, directories, links
        with their modes, as root's; None where it is empty. No link is followed."""

    def log(self, chunk: bytes) -> None:
        """Output of the running step, as it comes."""

    def cancelled(self) -> bool:
        """Whether the build was cancelled; a long step should look now and then."""


@runtime_checkable
class Executor(Protocol):
    """Who runs a step.

    `traits` are the labelled facts about it that may change outputs; they are in the keys of
    the steps that execute commands. `execute` may be called from several threads; it raises
    `BuildError` (`StepFailed` for a command) and leaves nothing behind then.

    Optional: `unpacks_states = True` declares that it takes states apart itself to mount them
    and shows commands of each no more than the step's selectors pick; it then sees states whole.
    """

    @property
    def traits(self) -> Sequence[Field]: ...

    def execute(self, task: Task, blobs: Blobs) -> Result: ...


@runtime_checkable
class StepTraits(Protocol):
    """Optional: facts about the executor that differ from step to step."""

    def traits_of_steps(
        self, steps: Sequence[tuple[Instruction, str]]
    ) -> Sequence[Sequence[Field]]:
        """Further traits of each of a build's steps: an instruction, its stage's name or number.

        Asked once in a build for all of them, so that what they share is looked up once.
        """
