"""The result of a build without any cache: the truth that cached builds are compared with.

`PlainWalker` has no keys, no records and no shared work: it executes each step once, in the order
of the graph, on exactly the state below it. It is the meaning of a recipe in a few lines, and a
reference for walkers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layercache.builds.builder import Builder
from layercache.builds.result import BuildResult
from layercache.errors import UsageError
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.graph import Base, Graph, Step
from layercache.model.instruction import Source
from layercache.model.keys import KeyMaterial, KeyStrategy
from layercache.model.operations import PARENT
from layercache.model.records import Record
from layercache.model.selectors import Everything, Nothing
from layercache.model.task import BoundInput, Executor, Task
from layercache.solver.protocol import (
    Answer,
    Ask,
    AskExecute,
    AskFingerprint,
    Decision,
    Executed,
    Failed,
    Fingerprinted,
)
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.executors import MemoryExecutor
from layercache.testing.memory import MemoryEntry, snapshot

__all__ = ["PlainWalker", "clean_build", "oracle"]


def oracle(
    recipe: Any, context: Any = None, *, executor: Executor | None = None, **options: Any
) -> dict[str, MemoryEntry]:
    """Path → type, mode, owner, content and time of the whole result of a clean build.

    Arguments are those of `Builder.build`; `executor` is a `MemoryExecutor` by default. Raises
    the errors of the build.
    """
    return snapshot(clean_build(recipe, context, executor=executor, **options).tree())


def clean_build(
    recipe: Any,
    context: Any = None,
    *,
    executor: Executor | None = None,
    images: Any = None,
    **options: Any,
) -> BuildResult:
    """Build with an empty store and without the walk, the keys and the records of the library."""
    builder = Builder(
        Store(MemoryBackend()),
        executor=executor or MemoryExecutor(),
        walker=PlainWalker(),
        images=images,
        jobs=1,
    )
    options["no_cache"] = False  # cache mounts are filled as in a first build
    return builder.build(recipe, context=context, **options)


class PlainWalker:
    """A `Walker` that executes everything, one step after the other."""

    def start(self, graph: Graph, keys: KeyStrategy) -> PlainWalk:
        """See `Walker.start`; `keys` are not used."""
        return PlainWalk(graph)


class PlainWalk:
    """One step at a time: the fingerprint of each input, then the execution, then the next step."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        needed = graph.needed()
        self._todo = [
            number
            for number, vertex in enumerate(graph.vertices)
            if number in needed and isinstance(vertex, Step)
        ]
        self._todo.reverse()
        self._read: list[Fingerprint] = []
        self._asked = False
        self._done: dict[int, tuple[State, Record]] = {}
        self._failed: dict[int, Failed] = {}

    def asks(self) -> Sequence[Ask]:
        """The next question, one at a time."""
        if self._asked or not self._todo or self._failed:
            return ()
        self._asked = True
        number = self._todo[-1]
        step = self._step(number)
        while len(self._read) < len(step.inputs):
            edge = step.inputs[len(self._read)]
            subject = self._subject(edge.vertex)
            if isinstance(subject, State) and isinstance(edge.selector, Everything):
                self._read.append(Fingerprint(subject.chain_id))
            elif isinstance(edge.selector, Nothing):
                self._read.append(Fingerprint(""))
            else:
                return (AskFingerprint(subject, edge.selector),)
        bound = tuple(
            BoundInput(edge.role, self._subject(edge.vertex), edge.selector, found)
            for edge, found in zip(step.inputs, self._read, strict=True)
        )
        task = Task(step.instruction, bound, step.traits, step.bypass)
        material = KeyMaterial("plain", step.instruction.name, ())
        return (AskExecute(CacheKey(f"plain-{number}"), task, material, number),)

    def tell(self, answer: Answer) -> None:
        """Take the answer to the last question."""
        self._asked = False
        number = self._todo[-1]
        match answer:
            case Fingerprinted(_, fingerprint):
                self._read.append(fingerprint)
            case Executed(_, record, _):
                self._todo.pop()
                self._read = []
                self._done[number] = (self._parent(number).plus(record.layer), record)
            case Failed():
                self._failed[number] = answer
            case _:
                raise UsageError(f"a clean build has no use for {answer!r}")

    def state(self, vertex: int) -> State | None:
        """The state of a vertex that was executed, or of a base."""
        found = self._graph.vertices[vertex]
        if isinstance(found, Base):
            return found.state
        return self._done[vertex][0] if vertex in self._done else None

    def decisions(self) -> Sequence[Decision]:
        """A miss for each step that the build reached."""
        found = []
        for number, vertex in enumerate(self._graph.vertices):
            if not isinstance(vertex, Step):
                continue
            if number in self._done:
                state, record = self._done[number]
                made = Decision(number, "miss", record.key, record.material, record, state)
                found.append(made)
            elif number in self._failed:
                found.append(Decision(number, "miss", error=self._failed[number].error))
            else:
                found.append(Decision(number, "skip"))
        return found

    def _step(self, number: int) -> Step:
        vertex = self._graph.vertices[number]
        assert isinstance(vertex, Step)
        return vertex

    def _subject(self, number: int) -> State | Source:
        vertex = self._graph.vertices[number]
        if isinstance(vertex, Base):
            return vertex.state
        return self._done[number][0] if isinstance(vertex, Step) else vertex

    def _parent(self, number: int) -> State:
        subjects: Mapping[str, State | Source] = {
            edge.role: self._subject(edge.vertex) for edge in self._step(number).inputs
        }
        parent = subjects.get(PARENT, SCRATCH)
        assert isinstance(parent, State)
        return parent
