"""The input of an executor (`Task`, `Blobs`), its output (`Result`), and its protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeAlias, runtime_checkable

from layercache._base.classes import frozen
from layercache.model.descriptors import Descriptor, Layer, State
from layercache.model.digests import Digest, Fingerprint
from layercache.model.instruction import Field, Instruction, Source
from layercache.model.observations import Observations
from layercache.model.selectors import Selector
from layercache.model.tree import Node, Tree

if TYPE_CHECKING:
    from layercache.model.layer_index import LayerIndex

__all__ = [
    "CAPABILITIES",
    "Blobs",
    "BoundInput",
    "ChecksInstructions",
    "Executor",
    "Masks",
    "NewFile",
    "Result",
    "StepTraits",
    "Task",
    "UnpacksStates",
    "UsesBaseImages",
    "WithSecrets",
]


@frozen
class BoundInput:
    """One input as the key covers it: role, subject, selector, fingerprint."""

    role: str
    subject: State | Source
    selector: Selector
    fingerprint: Fingerprint


@frozen
class Task:
    """One step to execute: exactly the facts that its key covers (no ids, no names)."""

    instruction: Instruction
    inputs: tuple[BoundInput, ...]
    traits: tuple[Field, ...] = ()
    bypass: bool = False
    """The step was requested with `no_cache`: cache mounts start empty."""
    observe: bool = False
    """Watch what the command reads of the parent; this does not change the result."""

    @property
    def parent(self) -> State | None:
        """The state that the step is applied to, None for a step without one."""
        for bound in self.inputs:
            if bound.role == "parent" and isinstance(bound.subject, State):
                return bound.subject
        return None


@frozen
class Result:
    """The result of an execution: a layer, or None if nothing changed; the step's output.

    `output` is what the command wrote to standard output and error, in order, possibly cut.
    `observed` are all facts of the parent that the result depends on, None if only the whole
    parent is known to be enough; if tracing was requested, `refusal` then gives the reason.
    """

    layer: Layer | None
    output: bytes = b""
    observed: Observations | None = None
    refusal: str = ""


NewFile: TypeAlias = "str | bytes | Node | tuple[Node, bytes | str] | None"
"""The value of a path in `Blobs.layer`: a file's text or bytes (0644), a node without content (a
directory, a link), a node with a file's content, or None, which deletes the path."""


class Blobs(Protocol):
    """The interface through which an executor reads and writes content. Safe for threads."""

    def open(self, digest: Digest) -> BinaryIO:
        """The verified bytes of a blob; raises `CorruptObject` or `NotFound`, from which a build
        recovers.
        """

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store `content`; returns its descriptor."""

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Adopt a complete file whose digest is known; the file may be moved away."""

    def index(self, layer: Layer) -> LayerIndex:
        """The entries of the layer, made from its bytes once and kept."""

    def tree(self, subject: State | Source) -> Tree:
        """The part of an input that the step's key covers, as a tree.

        For a source, or a state of which the step reads a part, the tree holds only the selected
        files, with constant times. Raises `BuildError` for anything that is not an input of the
        step.
        """

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        """Store a layer that writes or deletes these paths; None if there are none.

        Order, sizes, types, times and digests are determined here. Owners are 0:0 unless a node
        says otherwise. Raises `UsageError` for an invalid path or content.
        """

    def layer_from(self, directory: str) -> Layer | None:
        """Store a layer of everything in a host directory: files, directories and links with their
        modes, owned by root; None if it is empty. No link is followed.
        """

    def log(self, chunk: bytes) -> None:
        """Pass on output of the running step as it arrives."""

    def cancelled(self) -> bool:
        """Whether the build was cancelled; a long step should check now and then."""


@runtime_checkable
class Executor(Protocol):
    """Runs steps.

    `traits` are the labelled facts about the executor that may change outputs; they are in the
    keys of the steps that execute commands. `execute` may be called from several threads; on
    failure it raises `BuildError` (`StepFailed` for a command) and leaves nothing behind.

    What else one can do it declares by deriving from `StepTraits`, `Masks`, `ChecksInstructions`,
    `UnpacksStates`, `UsesBaseImages`, `WithSecrets` or `Closes`, or by registering with them. An
    attribute of such a name alone declares nothing.
    """

    @property
    def traits(self) -> Sequence[Field]: ...

    def execute(self, task: Task, blobs: Blobs) -> Result: ...


class StepTraits(ABC):
    """Optional: facts about the executor that differ between steps."""

    __slots__ = ()

    @abstractmethod
    def traits_of_steps(
        self, steps: Sequence[tuple[Instruction, str]]
    ) -> Sequence[Sequence[Field]]:
        """Additional traits for each step of a build, given as (instruction, its stage's name or
        number).

        Called once per build for all steps, so that shared facts are looked up once.
        """


class Masks(ABC):
    """Optional: an executor that knows texts which nobody may read."""

    __slots__ = ()

    @property
    @abstractmethod
    def masks(self) -> Sequence[bytes]:
        """What is shown as `***` in the output of steps; shorter parts of it are shown."""


class ChecksInstructions(ABC):
    """Optional: an executor that can't honour every instruction."""

    __slots__ = ()

    @abstractmethod
    def check(self, instruction: Instruction) -> None:
        """Raise `UsageError` for what can't be honoured; asked before anything is executed."""


class UnpacksStates(ABC):
    """Optional: an executor that takes states apart itself to mount them.

    It shows commands of each state no more than the step's selectors pick, and sees states whole.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def unpacks_states(self) -> bool:
        """Whether it does."""


class UsesBaseImages(ABC):
    """Optional: an executor that may have no use for the files of base images."""

    __slots__ = ()

    @property
    @abstractmethod
    def base_images(self) -> bool:
        """False: a base image counts by its name, and none is pulled."""


class WithSecrets(ABC):
    """Optional: an executor that can leave out secrets, so that workers get only what they need."""

    __slots__ = ()

    @abstractmethod
    def with_secrets(self, names: Collection[str]) -> Executor:
        """The same executor with these of its secrets."""


CAPABILITIES: Final[tuple[type, ...]] = (
    ChecksInstructions,
    Masks,
    StepTraits,
    UnpacksStates,
    UsesBaseImages,
    WithSecrets,
)
"""All that an executor may declare, apart from `Closes`, which trees have too."""
