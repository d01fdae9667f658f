"""The graph: sources and steps in topological order; an input is an edge seen from its reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from layercache._base.classes import field, frozen
from layercache.errors import UsageError
from layercache.model.descriptors import State
from layercache.model.instruction import Field, Instruction, Source
from layercache.model.selectors import EVERYTHING, Selector

__all__ = ["Base", "Graph", "GraphBuilder", "Input", "Origin", "Step", "Vertex"]


@frozen
class Origin:
    """The place that a step comes from; for people, never part of a key.

    `stage` counts FROM lines from 0, `index` instructions within the stage (FROM = 0),
    `onbuild` the number of an ONBUILD trigger; `line` counts from 1 and is 0 without a file.
    """

    stage: int = 0
    index: int = 0
    onbuild: int | None = None
    line: int = 0
    op: str = ""
    text: str = ""
    stage_name: str = ""


_NOWHERE: Final = Origin()


@frozen
class Input:
    """An edge: the number of the vertex that is read, its role, and the selector of the part."""

    role: str
    vertex: int
    selector: Selector = EVERYTHING


@frozen
class Step:
    """An instruction with its inputs; `traits` are the executor's, `bypass` is `no_cache`.

    `trace` tells whether a command is watched and reused by its observed reads: "off", "auto", or
    "audit" (as "auto", and a share of the reused steps is run again). It is not part of the key.
    """

    instruction: Instruction
    inputs: tuple[Input, ...] = ()
    traits: tuple[Field, ...] = ()
    bypass: bool = False
    trace: str = "off"
    origin: Origin = field(default=_NOWHERE, eq=False)


@frozen
class Base:
    """A source whose state is known before anything runs: scratch or a resolved base image."""

    name: str
    state: State

    def definition(self) -> tuple[Field, ...]:
        return (Field("chain id", self.state.chain_id),)


Vertex: TypeAlias = "Step | Source"


@frozen
class Graph:
    """Vertices in topological order (inputs refer to smaller numbers), and the targets wanted."""

    vertices: tuple[Vertex, ...]
    targets: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        for number, vertex in enumerate(self.vertices):
            if isinstance(vertex, Step):
                for edge in vertex.inputs:
                    if not 0 <= edge.vertex < number:
                        raise UsageError(
                            f"step {number} ({vertex.instruction.name}) reads vertex "
                            f"{edge.vertex}: an input must come before its reader"
                        )
        for target in self.targets:
            if not 0 <= target < len(self.vertices):
                raise UsageError(f"target {target} is not a vertex of the graph")

    def needed(self) -> frozenset[int]:
        """The vertices that the targets depend on, themselves included."""
        found = set(self.targets)
        for number in range(len(self.vertices) - 1, -1, -1):
            vertex = self.vertices[number]
            if number in found and isinstance(vertex, Step):
                found.update(edge.vertex for edge in vertex.inputs)
        return frozenset(found)


class GraphBuilder:
    """Collects vertices; equal sources become one vertex."""

    def __init__(self) -> None:
        self._vertices: list[Vertex] = []
        self._sources: dict[Source, int] = {}

    def source(self, source: Source) -> int:
        """The vertex number of `source`.

        Raises `UsageError` for a source that is equal to another one but has a different
        definition, for example if their types differ (`1 == True`): the content of one would be
        used for the other.
        """
        number = self._sources.get(source)
        if number is None:
            number = self._sources[source] = len(self._vertices)
            self._vertices.append(source)
            return number
        known = self._vertices[number]
        if known is not source and not isinstance(known, Step) and not _same(known, source):
            raise UsageError(
                f"the sources {known.name} and {source.name} are equal, but not by their "
                "definitions: compare all that tells them apart, types included"
            )
        return number

    def step(self, step: Step) -> int:
        """The vertex number of a new step."""
        self._vertices.append(step)
        return len(self._vertices) - 1

    def build(self, targets: Sequence[int]) -> Graph:
        """The graph so far."""
        return Graph(vertices=tuple(self._vertices), targets=tuple(targets))


def _same(one: Source, other: Source) -> bool:
    """Whether two definitions are equal, including types."""
    fields, others = tuple(one.definition()), tuple(other.definition())
    if all(type(field.value) is str for field in fields):
        return fields == others  # the common case
    return repr(fields) == repr(others)  # distinguishes 1 and True
