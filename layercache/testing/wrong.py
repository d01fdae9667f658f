"""Implementations that are wrong on purpose, one for each way to lie: the suites must catch them.

They show that each suite still detects faults. `caught` runs a suite and tells
which of its tests fail.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from layercache._base.classes import evolve, frozen
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import Fingerprint
from layercache.model.graph import Graph, Input, Step
from layercache.model.instruction import Field
from layercache.model.keys import KeyMaterial, KeyStrategy
from layercache.model.selectors import Selector
from layercache.model.task import Blobs, Result, Task
from layercache.solver.protocol import Answer, Ask, Decision, Walk
from layercache.solver.strategies import ContentKeys
from layercache.solver.walker import GraphWalk
from layercache.testing.executors import MemoryExecutor
from layercache.testing.memory import MemoryFiles

__all__ = [
    "ClockedInstruction",
    "ForgetfulInstruction",
    "ForgetfulKeys",
    "LeakyExecutor",
    "MixingWalker",
    "PeekingExecutor",
    "RepeatingWalker",
    "ShyKeys",
    "UnorderedInstruction",
    "caught",
]


def caught(suite: type[Any], make_argument: Callable[[str], Any] | None = None) -> list[str]:
    """The names of the tests of `suite` that fail.

    `make_argument` gives what a test takes beside itself, by the parameter's name.
    """
    found = []
    for name, test in inspect.getmembers(suite, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        names = list(inspect.signature(test).parameters)[1:]
        arguments = [make_argument(n) for n in names] if make_argument is not None else []
        try:
            test(suite(), *arguments)
        except Exception:  # noqa: BLE001  (a wrong implementation may fail in any way)
            found.append(name)
    return found


# -- key strategies -------------------------------------------------------------------------


class ForgetfulKeys:
    """Forgets something that changes results: a field by its label, an input by its role.

    `forgets` is "field LABEL", "input ROLE" (its content), "selectors", or "traits".
    """

    scheme = "forgetful/1"

    def __init__(self, forgets: str) -> None:
        self._forgets = forgets
        self._keys = ContentKeys()

    def selector(self, step: Step, source: Input) -> Selector:
        return self._keys.selector(step, source)

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        material = evolve(self._keys.material(step, inputs), scheme=self.scheme)
        kind, _, name = self._forgets.partition(" ")
        if kind == "traits":
            return evolve(material, traits=())
        if kind == "field":
            fields = tuple(field for field in material.fields if field.label != name)
            return evolve(material, fields=fields)
        if kind == "selectors":
            entries = tuple(evolve(entry, selector=()) for entry in material.inputs)
            return evolve(material, inputs=entries)
        entries = tuple(
            evolve(entry, fingerprint=Fingerprint("")) if entry.role == name else entry
            for entry in material.inputs
        )
        return evolve(material, inputs=entries)


class ShyKeys(ForgetfulKeys):
    """Counts a fact that changes no result: whether the cache was bypassed. Misses needlessly."""

    scheme = "shy/1"

    def __init__(self) -> None:
        super().__init__("nothing")

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        material = super().material(step, inputs)
        return evolve(material, salt=str(step.bypass))


# -- executors ------------------------------------------------------------------------------


class LeakyExecutor(MemoryExecutor):
    """Leaves the files of every step behind for the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._left: State | None = None

    def execute(self, task: Task, blobs: Blobs) -> Result:
        parent = task.parent or SCRATCH
        inputs = tuple(
            evolve(bound, subject=self._left)
            if bound.role == "parent" and self._left is not None and not parent.layers
            else bound
            for bound in task.inputs
        )
        result = super().execute(evolve(task, inputs=inputs), blobs)
        seen = evolve(task, inputs=inputs).parent or SCRATCH
        self._left = seen.plus(result.layer)
        files = MemoryFiles(blobs.tree(parent))
        files.become(blobs.tree(self._left))
        return evolve(result, layer=files.layer(blobs))


class PeekingExecutor(MemoryExecutor):
    """Reads more than the key covers: the whole context, and whether the cache was bypassed."""

    def execute(self, task: Task, blobs: Blobs) -> Result:
        result = super().execute(task, blobs)
        parent = task.parent or SCRATCH
        files = MemoryFiles(blobs.tree(parent))
        files.become(blobs.tree(parent.plus(result.layer)))
        seen = str(task.bypass)
        for bound in task.inputs:
            if not isinstance(bound.subject, State):
                tree = blobs.tree(bound.subject)
                seen += str([tree.lookup(name) for name in tree.children(b"")])
        if task.bypass or len(seen) > 5:
            files.write("/.peeked", seen.encode())
        return evolve(result, layer=files.layer(blobs))


# -- walkers --------------------------------------------------------------------------------


class RepeatingWalker:
    """Asks every question twice."""

    def start(self, graph: Graph, keys: KeyStrategy) -> Walk:
        return _RepeatingWalk(graph, keys)


class _RepeatingWalk:
    def __init__(self, graph: Graph, keys: KeyStrategy) -> None:
        self._walk = GraphWalk(graph, keys)
        self._last: Sequence[Ask] = ()

    def asks(self) -> Sequence[Ask]:
        again, self._last = self._last, self._walk.asks()
        return [*again, *self._last]

    def tell(self, answer: Answer) -> None:
        self._walk.tell(answer)

    def decisions(self) -> Sequence[Decision]:
        return self._walk.decisions()

    def state(self, vertex: int) -> State | None:
        return self._walk.state(vertex)


class MixingWalker:
    """Accepts any record of the right key, whatever state it was made on."""

    def start(self, graph: Graph, keys: KeyStrategy) -> Walk:
        return _MixingWalk(graph, keys)


class _MixingWalk(GraphWalk):
    def _consider(self, *arguments: Any) -> None:
        vertex, group, record = arguments[-3:]
        self._known[*group, self._base(vertex)] = record
        self._look_again(group)


# -- instructions ---------------------------------------------------------------------------

_COUNTER = itertools.count()


@frozen
class ClockedInstruction:
    """Its definition differs each time."""

    text: str
    name = "CLOCKED"

    def definition(self) -> tuple[Field, ...]:
        return (Field("text", self.text), Field("time", next(_COUNTER)))


@frozen
class ForgetfulInstruction:
    """One of its fields is not in its definition."""

    text: str
    level: int = 0
    name = "FORGETFUL"

    def definition(self) -> tuple[Field, ...]:
        return (Field("text", self.text),)


@frozen
class UnorderedInstruction:
    """Its definition follows the order of a set, which differs from process to process."""

    words: frozenset[str]
    name = "UNORDERED"

    def definition(self) -> tuple[Field, ...]:
        return (Field("words", tuple(self.words)),)
