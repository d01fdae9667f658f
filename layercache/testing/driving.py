"""Walks driven by a world of plain values: no store, no files, no clock, any order of answers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from layercache._base.classes import evolve, frozen
from layercache.errors import SourceError, StepFailed
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer, State
from layercache.model.digests import CacheKey, DiffID, Fingerprint, sha256
from layercache.model.framing import frame
from layercache.model.graph import Base, Graph, GraphBuilder, Input, Step
from layercache.model.instruction import Field, Source
from layercache.model.keys import KeyStrategy, cache_key
from layercache.model.operations import PARENT, SOURCE, CopyFiles, CopySource
from layercache.model.records import Record
from layercache.model.selectors import EVERYTHING, Everything, Files, Nothing, Observed, Selector
from layercache.model.sources import ContextSource
from layercache.model.task import Task
from layercache.solver.narrowing import narrowed, weak_key
from layercache.solver.protocol import (
    Answer,
    Ask,
    AskExecute,
    AskFingerprint,
    AskLookup,
    AskSelectors,
    Decision,
    Declined,
    Executed,
    Failed,
    Fingerprinted,
    Found,
    Lost,
    Selectors,
    Walk,
)
from layercache.testing.generating import Choices

__all__ = [
    "AskedTwice",
    "Driver",
    "Say",
    "World",
    "any_graph",
    "chain_graph",
    "made_layer",
    "reference",
]


class AskedTwice(AssertionError):
    """A walk repeated a question."""


@frozen
class Say:
    """An instruction for walks; `fails`: it can't be executed, `still`: it changes nothing.

    Its result depends only on its text and its inputs; `vague` inputs have few fingerprints, so
    that different contents often look the same.
    """

    text: str
    fails: bool = False
    still: bool = False
    vague: bool = False
    commands: bool = True
    name = "SAY"

    def definition(self) -> tuple[Field, ...]:
        return (Field("text", self.text), Field("still", self.still), Field("vague", self.vague))


def made_layer(text: str) -> Layer:
    """A layer that exists by name only."""
    digest = sha256(text.encode())
    return Layer(Descriptor(LAYER_TAR, digest, len(text)), DiffID(digest))


class World:
    """The environment of a walk: the store's records, contents, and the results of executions.

    `unstable`: each execution produces another layer. `missing` names unreadable contexts. `log`
    holds every execution: instruction, parent, inputs → the diff IDs that it produced.

    A COPY reads only some of its parent, and its record is also kept under that part: `narrow`
    holds those records, `selectors` the selectors known for a step without its parent.
    """

    def __init__(self, *, unstable: bool = False, missing: Collection[str] = ()) -> None:
        self.records: dict[CacheKey, Record] = {}
        self.narrow: dict[CacheKey, Record] = {}
        self.selectors: dict[CacheKey, list[Selector]] = {}
        self.versions: dict[str, str] = {}
        self.executed = 0
        self.log: dict[Any, set[DiffID | None]] = {}
        self._unstable = unstable
        self._missing = missing

    def fingerprint(self, subject: State | Source, selector: Selector) -> Fingerprint | None:
        """The fingerprint of a selector on a subject; None if it is unreadable."""
        definition = tuple((f.label, f.value) for f in selector.definition())
        if isinstance(subject, State):
            # Few different answers: different contents often look the same through a selector.
            text = f"state {sum(subject.chain_id.encode()) % 3} {definition}"
        elif subject.name in self._missing:
            return None
        else:
            text = f"{subject.name} {self.versions.get(subject.name, '')} {definition}"
        return Fingerprint(hashlib.sha256(text.encode()).hexdigest())

    def layer(
        self, instruction: Any, parent: State, fingerprints: Sequence[Fingerprint]
    ) -> Layer | None:
        """The result of executing on `parent`; `fingerprints` are of all inputs, in order."""
        if getattr(instruction, "still", False):
            return None
        seen = frame(tuple((f.label, f.value) for f in instruction.definition()))
        inputs = " ".join(fingerprints)
        if looks := _looks(instruction):
            inputs = " ".join([str(self.fingerprint(parent, looks)), *fingerprints[1:]])
        if getattr(instruction, "vague", False):
            inputs = str(sum(inputs.encode()) % 2)
        salt = str(self.executed) if self._unstable else ""
        return made_layer(f"{seen!r} {inputs} {salt}")

    def execute(self, ask: AskExecute) -> Record:
        """Execute, and store the record."""
        self.executed += 1
        task = ask.task
        parent = task.parent or SCRATCH
        found = [bound.fingerprint for bound in task.inputs]
        layer = self.layer(task.instruction, parent, found)
        record = Record(
            ask.key, ask.material, layer, parent=parent.chain_id, generation=self.executed
        )
        self.log.setdefault(self.place(task), set()).add(None if layer is None else layer.diff_id)
        self.records[ask.key] = record
        looks = _looks(task.instruction)
        known = self.fingerprint(parent, looks) if looks is not None else None
        if looks is not None and known is not None:
            material = narrowed(ask.material, looks, known)
            key = cache_key(material)
            self.narrow[key] = evolve(record, key=key, material=material)
            selectors = self.selectors.setdefault(weak_key(ask.material), [])
            if looks not in selectors:
                selectors.append(looks)
        return record

    def place(self, task: Task) -> tuple[Any, ...]:
        """The inputs of a layer: the instruction, the part of the parent that it read, the rest."""
        others = tuple((b.role, b.fingerprint) for b in task.inputs if b.role != PARENT)
        parent = task.parent or SCRATCH
        if getattr(task.instruction, "link", False):
            return task.instruction, "", others
        looks = _looks(task.instruction)
        seen = parent.chain_id if looks is None else self.fingerprint(parent, looks)
        return task.instruction, seen, others


def _looks(instruction: Any) -> Selector | None:
    """The part of the parent that a COPY reads; None for an instruction that reads all or
    nothing.
    """
    if isinstance(instruction, CopyFiles) and not instruction.link:
        return Observed(f"what {instruction.destination} is", evidence="rebase")
    return None


class Driver:
    """Answers the questions of one walk from a world, in an order that `choices` decide.

    Raises `AskedTwice`. `declines`: nothing is executed. `losses`: percentage of answers that
    revoke a hit instead. Without `choices`, answers come first in, first out.
    """

    def __init__(
        self,
        walk: Walk,
        world: World,
        choices: Choices | None = None,
        *,
        declines: bool = False,
        losses: int = 0,
    ) -> None:
        self.walk = walk
        self.world = world
        self.executions: list[AskExecute] = []
        self.asks = 0
        self.rounds = 0
        self.lost = 0
        self._choices = choices
        self._declines = declines
        self._losses = losses
        # As in the engine, a walk does not use what it adds; otherwise the order would matter.
        self._narrow = dict(world.narrow)
        self._selectors = {key: tuple(found) for key, found in world.selectors.items()}
        self._seen: set[Any] = set()
        self._pending: list[Ask] = []

    def run(self) -> Sequence[Decision]:
        """Drive the walk to its end."""
        pending = self._pending
        while True:
            self.rounds += 1
            for ask in self.walk.asks():
                self._check(ask)
                pending.append(ask)
            if not pending:
                return self.walk.decisions()
            if self._choices is None:
                answered, pending[:] = pending[:], []
                for ask in answered:
                    self.answer(ask)
                continue
            if self._loses(None):
                continue
            ask = pending.pop(self._choices.number(0, len(pending) - 1))
            if not self._loses(ask):
                self.answer(ask)

    def _check(self, ask: Ask) -> None:
        if isinstance(ask, AskLookup | AskSelectors):
            names: list[Any] = [(type(ask), key) for key in ask.keys]
        elif isinstance(ask, AskExecute):
            self.executions.append(ask)
            names = [(AskExecute, ask.key, (ask.task.parent or SCRATCH).chain_id)]
        else:
            names = [ask]
        for name in names:
            self.asks += 1
            if name in self._seen:
                raise AskedTwice(f"asked twice: {name}")
            self._seen.add(name)

    def answer(self, ask: Ask) -> None:
        """Answer one question from the world."""
        tell = self.walk.tell
        if isinstance(ask, AskLookup):
            self._find(ask)
        elif isinstance(ask, AskSelectors):
            tell(Selectors({key: self._selectors.get(key, ()) for key in ask.keys}))
        elif isinstance(ask, AskFingerprint):
            found = self.world.fingerprint(ask.subject, ask.selector)
            answer: Answer = Failed(ask, SourceError("it can't be read"))
            tell(answer if found is None else Fingerprinted(ask, found))
        elif self._declines:
            tell(Declined(ask))
        elif getattr(ask.task.instruction, "fails", False):
            tell(Failed(ask, StepFailed("it fails")))
        else:
            tell(Executed(ask.key, self.world.execute(ask)))

    def _find(self, ask: AskLookup) -> None:
        """Answer a lookup at once, or in two parts."""
        keys = list(ask.keys)
        cut = self._choices.number(0, len(keys)) if self._choices else len(keys)
        for part in (keys[cut:], keys[:cut]):
            if part:
                records = self.world.records
                found = {key: self._narrow.get(key) or records.get(key) for key in part}
                self.walk.tell(Found(found))

    def _loses(self, ask: Ask | None) -> bool:
        """Whether a hit that `ask` relies on, or any hit, is revoked now."""
        if isinstance(ask, AskLookup | AskSelectors) or not self._losses:
            return False
        assert self._choices is not None
        return self._choices.number(1, 100) <= self._losses and self._lose(ask, self._choices)

    def _lose(self, ask: AskExecute | AskFingerprint | None, choices: Choices) -> bool:
        hits = [d for d in self.walk.decisions() if d.record is not None and d.record.layer]
        if ask is not None:
            subjects = (
                [ask.subject]
                if isinstance(ask, AskFingerprint)
                else [bound.subject for bound in ask.task.inputs]
            )
            layers = {layer.diff_id for s in subjects if isinstance(s, State) for layer in s.layers}
            hits = [d for d in hits if d.record and d.record.layer.diff_id in layers]  # type: ignore[union-attr]
        if not hits:
            return False
        record = choices.pick(hits).record
        assert record is not None
        self.lost += 1
        for records in (self.world.records, self.world.narrow, self._narrow):
            if records.get(record.key) == record:
                del records[record.key]
        # Questions that depend on the record may be repeated, and so may this one.
        self._seen = {
            name for name in self._seen if not (isinstance(name, tuple) and name[0] is AskExecute)
        }
        self._seen.discard(ask)
        self.walk.tell(Lost(record, ask))
        return True


# -- graphs ---------------------------------------------------------------------------------


def any_graph(choices: Choices, size: int = 12, *, bypass: bool = False) -> Graph:
    """A random graph: a few bases and contexts, steps on them and on each other."""
    graph = GraphBuilder()
    states = [graph.source(Base("scratch", SCRATCH))]
    other = SCRATCH.plus(made_layer("base"))
    states.append(graph.source(Base("base", other)))
    sources = [graph.source(ContextSource(name)) for name in ("", "second")]
    for _ in range(size):
        parent = choices.pick(states[-4:]) if choices.number(1, 3) > 1 else choices.pick(states)
        inputs = [Input(PARENT, parent)]
        instruction: Any = Say(
            choices.pick(("a", "b", "c")),
            still=choices.number(1, 8) == 1,
            vague=choices.number(1, 4) == 1,
        )
        if choices.number(1, 3) == 1:
            selector = Files((choices.pick(("x", "y")),))
            inputs.append(Input(SOURCE, choices.pick([*sources, *states]), selector))
            if choices.number(1, 3) == 1:
                pattern = CopySource(role=SOURCE, pattern=selector.patterns[0])
                instruction = CopyFiles(
                    sources=(pattern,), destination="/", link=choices.number(1, 2) == 1
                )
        if choices.number(1, 6) == 1:
            inputs.append(Input("mount /m", choices.pick(states), EVERYTHING))
        forced = bypass and choices.number(1, 5) == 1
        step = Step(instruction, tuple(inputs), bypass=forced)
        states.append(graph.step(step))
    targets = [states[-1]]
    if choices.number(1, 2) == 1:
        targets.append(choices.pick(states))
    return graph.build(targets)


def chain_graph(length: int, width: int = 1) -> Graph:
    """`length` steps, one on the other, each also reading a context if `width` is 2."""
    graph = GraphBuilder()
    vertex = graph.source(Base("scratch", SCRATCH))
    context = graph.source(ContextSource())
    for number in range(length):
        inputs = [Input(PARENT, vertex)]
        if width > 1:
            inputs.append(Input(SOURCE, context, Files((f"f{number}",))))
        vertex = graph.step(Step(Say(str(number)), tuple(inputs)))
    return graph.build([vertex])


def reference(graph: Graph, keys: KeyStrategy, world: World) -> dict[int, State]:
    """The state of every needed vertex, by the meaning of the graph alone.

    For strategies by content: if a key stands for a parent, commands here depend on it.
    """
    states: dict[int, State] = {}
    needed = graph.needed()
    for number, vertex in enumerate(graph.vertices):
        if isinstance(vertex, Base):
            states[number] = vertex.state
        elif isinstance(vertex, Step) and number in needed:
            found = []
            parent = SCRATCH
            for edge in vertex.inputs:
                subject = states.get(edge.vertex) or graph.vertices[edge.vertex]
                assert not isinstance(subject, Step)
                if edge.role == PARENT:
                    parent = states[edge.vertex]
                selector = keys.selector(vertex, edge)
                if isinstance(selector, Nothing):
                    found.append(Fingerprint(""))
                elif isinstance(selector, Everything) and isinstance(subject, State):
                    found.append(Fingerprint(subject.chain_id))
                else:
                    read = world.fingerprint(subject, edge.selector)
                    assert read is not None
                    found.append(read)
            states[number] = parent.plus(world.layer(vertex.instruction, parent, found))
    return states
