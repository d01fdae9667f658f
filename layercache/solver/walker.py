"""The invalidation walker: from the sources up, each step bound to exactly one state.

A step moves  waiting → keyed → bound,  or ends failed or declined: `progress` has the table.
Everything is done on work lists, so a chain of any length walks. Decisions depend on answers,
never on their order: a key is looked up once and executed once, whoever asks first.

One class holds what moves a step: all answers act on the same tables of keys and inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from layercache.errors import LayerCacheError, UsageError
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import CacheKey, ChainID, Fingerprint
from layercache.model.graph import Base, Graph, Step
from layercache.model.instruction import Source
from layercache.model.keys import KeyStrategy, Narrows, cache_key
from layercache.model.operations import PARENT
from layercache.model.records import Record
from layercache.model.selectors import EVERYTHING, ByKey, Everything, Nothing, Observed, Selector
from layercache.model.task import BoundInput, Task
from layercache.solver.narrowing import Attempt, Narrowings
from layercache.solver.progress import Group, Progress, Sharers, WalkedStep, decision
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
)

__all__ = ["GraphWalk", "GraphWalker"]

_Work: TypeAlias = tuple[CacheKey, ChainID | None]
"""What is executed once: a key, and the parent's chain ID where the key does not tell it."""

_Known: TypeAlias = tuple[CacheKey, bool, ChainID | None]
"""What one record answers: a group, and the parent's chain ID where the key does not tell it."""

_Wanted: TypeAlias = tuple[State | Source, Selector]
"""What a fingerprint is asked of: a subject and a selector."""

_PARENT_ALONE: Final = (EVERYTHING,)

_NO_FINGERPRINT: Final = Fingerprint("")
"""For what is no input that just got known; made once, because it is needed for every step."""


class GraphWalker:
    """The default `Walker`."""

    def start(self, graph: Graph, keys: KeyStrategy) -> GraphWalk:
        """Begin a walk to the graph's targets."""
        return GraphWalk(graph, keys)


class GraphWalk:
    """One build under way; see `Walk`."""

    def __init__(self, graph: Graph, keys: KeyStrategy) -> None:
        self._graph = graph
        self._keys = keys
        self._chained = False
        self._narrows = keys if isinstance(keys, Narrows) else None
        self._steps: dict[int, WalkedStep] = {}
        self._subjects: dict[int, State | Source] = {}
        self._readers: dict[int, tuple[tuple[int, int], ...]] = {}
        # What is still to be done: (vertex, place of a resolved input, its fingerprint), or
        # place -1 for "look at the vertex again".
        self._work: list[tuple[int, int, Fingerprint]] = []
        self._asks: list[AskFingerprint | AskExecute] = []
        self._lookups: list[CacheKey] = []
        self._wanting: dict[_Wanted, list[tuple[int, int]]] = {}
        self._answers: dict[_Wanted, Fingerprint] = {}
        self._unanswerable: dict[_Wanted, LayerCacheError | None] = {}
        self._sharers = Sharers()
        self._known: dict[_Known, Record] = {}
        self._made: set[_Known] = set()
        self._found: dict[CacheKey, Record | None] = {}
        self._looked: set[CacheKey] = set()
        self._executing: set[_Work] = set()
        self._fresh: dict[_Work, tuple[Record, bool]] = {}
        self._refused: dict[_Work, LayerCacheError | None] = {}
        self._narrowings = Narrowings(self._looked, self._found)
        self._by: dict[CacheKey, Attempt] = {}
        # Keys whose narrower ones could not all be tried, because that was declined.
        self._open: set[CacheKey] = set()
        self._begin()

    def _begin(self) -> None:
        needed = sorted(self._graph.needed())
        readers: dict[int, list[tuple[int, int]]] = {number: [] for number in needed}
        for number in needed:
            vertex = self._graph.vertices[number]
            if isinstance(vertex, Step):
                selectors = tuple([self._keys.selector(vertex, edge) for edge in vertex.inputs])
                if len(selectors) == 1 and selectors[0] is EVERYTHING:
                    selectors = _PARENT_ALONE  # one for all of them
                known = self._steps[number] = WalkedStep(vertex, selectors)
                self._chained = self._chained or known.chained
                for place, edge in enumerate(vertex.inputs):
                    readers[edge.vertex].append((number, place))
                    if isinstance(selectors[place], Nothing):
                        self._work.append((number, place, _NO_FINGERPRINT))
                if not selectors:
                    self._work.append((number, -1, _NO_FINGERPRINT))
            else:
                self._subjects[number] = vertex.state if isinstance(vertex, Base) else vertex
        self._readers = {number: tuple(found) for number, found in readers.items()}
        for number in list(self._subjects):
            self._offer(number)
        self._run()

    # -- the protocol ---------------------------------------------------------------------

    def asks(self) -> Sequence[Ask]:
        """What has become askable since the last call; nothing is asked twice."""
        found: list[Ask] = []
        narrower = self._narrowings
        if self._lookups or narrower.lookups:
            found.append(AskLookup((*self._lookups, *narrower.lookups)))
            self._lookups = []
            narrower.lookups = []
        if narrower.selectors:
            found.append(AskSelectors(tuple(narrower.selectors)))
            narrower.selectors = []
        found.extend(narrower.fingerprints)
        narrower.fingerprints = []
        found.extend(self._asks)
        self._asks = []
        return found

    def tell(self, answer: Answer) -> None:
        """Take an answer, in any order; raises `UsageError` for one that was not asked for."""
        match answer:
            case Found(records):  # the most frequent one
                self._take_records(records)
            case (
                Fingerprinted(AskFingerprint(selector=Observed()) as ask)
                | Failed(AskFingerprint(selector=Observed()) as ask)
                | Declined(AskFingerprint(selector=Observed()) as ask)
            ):
                self._take_tried(answer, ask)
            case Selectors(selectors):
                for weak, known_selectors in selectors.items():
                    self._look_at(self._narrowings.take_selectors(weak, known_selectors))
            case Fingerprinted(ask, fingerprint):
                self._take_fingerprint((ask.subject, ask.selector), fingerprint)
            case Executed(key, record, reused):
                self._take_execution(key, record, reused)
            case Failed(AskFingerprint() as ask, error):
                self._no_fingerprint(ask, error)
            case Failed(AskExecute() as ask, error):
                self._no_execution(ask, error)
            case Declined(AskFingerprint() as ask):
                self._no_fingerprint(ask, None)
            case Declined(AskExecute() as ask):
                self._no_execution(ask, None)
            case Lost(record, lost_ask):
                self._take_back(record)
                if lost_ask is not None:
                    self._ask_again(lost_ask)
        self._run()

    def _take_records(self, records: Mapping[CacheKey, Record | None]) -> None:
        for key, found in records.items():
            if key not in self._looked:
                raise UsageError(f"no such key was asked for: {key}")
            self._found.setdefault(key, found)
            self._look_again((key, False))
            if users := self._narrowings.users(key):
                self._look_at(users)

    def _take_tried(self, answer: Fingerprinted | Failed | Declined, ask: AskFingerprint) -> None:
        """A selector that is only tried: without its fingerprint it does not fit."""
        known = answer.fingerprint if isinstance(answer, Fingerprinted) else None
        keys = self._narrowings.take_fingerprint(ask, known)
        if isinstance(answer, Declined):
            self._open.update(keys)
        self._look_at(keys)

    def _take_fingerprint(self, wanted: _Wanted, fingerprint: Fingerprint) -> None:
        self._answers[wanted] = fingerprint
        for number, place in self._take_readers(wanted):
            self._resolve(number, place, fingerprint)

    def state(self, vertex: int) -> State | None:
        """The state a vertex is bound to, None while it has none."""
        subject = self._subjects.get(vertex)
        return subject if isinstance(subject, State) else None

    def decisions(self) -> Sequence[Decision]:
        """The decision for each step of the graph, in graph order."""
        found = []
        blockers: dict[int, frozenset[int]] = {}
        for number, vertex in enumerate(self._graph.vertices):
            if isinstance(vertex, Step):
                known = self._steps.get(number)
                found.append(decision(number, known, self._narrowings, self._open, blockers))
        return found

    # -- from inputs to keys --------------------------------------------------------------

    def _run(self) -> None:
        """The work list: resolved inputs make keys, keys find records, records bind states."""
        work = self._work
        while work:
            number, place, fingerprint = work.pop()
            vertex = self._steps[number]
            if place >= 0:
                if vertex.fingerprints[place] is not None:
                    continue
                vertex.know(place, fingerprint)
                vertex.missing -= 1
            if vertex.missing == 0:
                if vertex.group is None:
                    self._make_key(number, vertex)
                self._settle(number, vertex)

    def _offer(self, number: int) -> None:
        """A vertex has its subject: answer, or ask, what its readers select of it."""
        subject = self._subjects[number]
        for reader, place in self._readers[number]:
            vertex = self._steps[reader]
            selector = vertex.selectors[place]
            if vertex.fingerprints[place] is not None or isinstance(selector, Nothing):
                # Its key did not need this subject, but binding or executing it may.
                self._work.append((reader, -1, _NO_FINGERPRINT))
            elif isinstance(selector, ByKey):
                if number not in self._steps and isinstance(subject, State):
                    self._work.append((reader, place, Fingerprint(subject.chain_id)))
                else:
                    self._want(subject, EVERYTHING, reader, place)
            elif isinstance(selector, Everything) and isinstance(subject, State):
                self._work.append((reader, place, Fingerprint(subject.chain_id)))
            else:
                self._want(subject, selector, reader, place)

    def _want(self, subject: State | Source, selector: Selector, reader: int, place: int) -> None:
        wanted = (subject, selector)
        answer = self._answers.get(wanted)
        if answer is not None:
            self._work.append((reader, place, answer))
        elif self._unanswerable and wanted in self._unanswerable:
            self._end(self._steps[reader], self._unanswerable[wanted])
        else:
            waiting = self._wanting.setdefault(wanted, [])
            waiting.append((reader, place))
            if len(waiting) == 1:
                self._asks.append(AskFingerprint(subject, selector))

    def _take_readers(self, wanted: _Wanted) -> list[tuple[int, int]]:
        readers = self._wanting.pop(wanted, None)
        if readers is None:
            raise UsageError(f"no such fingerprint was asked for: {wanted[1]} of {wanted[0]}")
        # A hit taken back may have given the input another state in the meantime.
        return [
            (number, place)
            for number, place in readers
            if self._subjects.get(self._steps[number].step.inputs[place].vertex) == wanted[0]
        ]

    def _resolve(self, number: int, place: int, fingerprint: Fingerprint) -> None:
        self._work.append((number, place, fingerprint))

    def _make_key(self, number: int, vertex: WalkedStep) -> None:
        fingerprints = [f for f in vertex.fingerprints if f is not None]
        vertex.material = self._keys.material(vertex.step, fingerprints)
        key = cache_key(vertex.material)
        vertex.group = (key, vertex.step.bypass)
        self._sharers.join(vertex.group, number)
        for reader, place in self._readers[number] if self._chained else ():
            if isinstance(self._steps[reader].selectors[place], ByKey):
                self._work.append((reader, place, Fingerprint(key)))

    # -- from keys to states --------------------------------------------------------------

    def _look_at(self, keys: Sequence[CacheKey]) -> None:
        for key in keys:
            self._look_again((key, False))

    def _look_again(self, group: Group) -> None:
        for number in self._sharers.of(group):
            self._work.append((number, -1, _NO_FINGERPRINT))

    def _settle(self, number: int, vertex: WalkedStep) -> None:
        """A keyed vertex: bind it if its record is known, else ask for what is missing."""
        group = vertex.group
        if group is None or vertex.progress is not Progress.KEYED:
            return
        key, bypass = group
        base = self._base(vertex) if vertex.chained else None
        if vertex.chained and base is None:
            if not bypass:
                self._look_up(key)
        elif (record := self._known.get((key, bypass, base))) is not None:
            self._bind(number, vertex, record, (key, bypass, base) not in self._made)
        elif bypass or (key in self._found and self._found[key] is None):
            if bypass or not self._narrow(vertex, group):
                self._execute(vertex, (key, base))
        elif key in self._found:
            self._consider(number, vertex, group, self._found[key])
        else:
            self._look_up(key)

    def _look_up(self, key: CacheKey) -> None:
        if key not in self._looked:
            self._looked.add(key)
            self._lookups.append(key)

    def _base(self, vertex: WalkedStep) -> ChainID | None:
        """The chain ID of the parent where the key does not tell it: two steps of one key may
        then lie on different states, and each must get a layer that was made on its own."""
        parent = self._parent_state(vertex) if vertex.chained else None
        return parent.chain_id if parent is not None else None

    def _narrow(self, vertex: WalkedStep, group: Group) -> bool:
        """Try the narrower keys of a step; False when it has none that fits.

        Whether this build executes the step meanwhile changes nothing: a decision must not
        depend on what is faster.
        """
        material = vertex.material
        parent = self._parent_of_everything(vertex)
        if material is None or parent is None:
            return False
        if self._narrows is None or self._narrows.narrows(vertex.step) is None:
            return False
        found = self._narrowings.look(group[0], material, parent)
        if isinstance(found, bool):
            return found
        record = self._found.get(found.key) if found.key is not None else None
        if record is None:
            return False
        self._by[group[0]] = found
        self._known[*group, None] = record
        self._look_again(group)
        return True

    def _parent_of_everything(self, vertex: WalkedStep) -> State | None:
        """The parent's state, where all of it is in the key."""
        for edge, selector in zip(vertex.step.inputs, vertex.selectors, strict=True):
            if edge.role == PARENT and isinstance(selector, Everything):
                return self.state(edge.vertex)
        return None

    def _execute(self, vertex: WalkedStep, work: _Work) -> None:
        """No record may be used: adopt this build's execution of the key, or ask for it.

        A step that bypasses the cache and an equal one that found nothing share one execution.
        """
        key, base = work
        if work in self._fresh:
            known = (key, vertex.step.bypass, base)
            self._known[known], reused = self._fresh[work]
            if not reused:
                self._made.add(known)
            self._look_again((key, vertex.step.bypass))
        elif work in self._refused:
            self._end(vertex, self._refused[work])
        elif work not in self._executing:
            self._ask_execute(vertex, work)

    def _consider(
        self, number: int, vertex: WalkedStep, group: Group, record: Record | None
    ) -> None:
        parent = self._parent_state(vertex)
        if record is None or parent is None:
            return
        base = self._base(vertex)
        # A key that does not name the parent's content is no evidence of it: check the link.
        if vertex.chained and record.parent != base:
            self._execute(vertex, (group[0], base))
            return
        self._known[*group, base] = record
        if not self._sharers.shared(group):
            self._bind(number, vertex, record, True)
        else:
            self._look_again(group)

    def _parent_state(self, vertex: WalkedStep) -> State | None:
        """The state the step is applied to, None while that is not bound."""
        for edge in vertex.step.inputs:
            if edge.role == PARENT:
                return self.state(edge.vertex)
        return SCRATCH

    def _bind(self, number: int, vertex: WalkedStep, record: Record, hit: bool) -> None:
        parent = self._parent_state(vertex)
        if parent is None:
            return
        vertex.record = record
        vertex.hit = hit
        key = vertex.group[0] if vertex.group is not None else None
        attempt = self._by.get(key) if key is not None else None
        vertex.attempt = attempt if attempt is not None and attempt.key == record.key else None
        vertex.state = self._subjects[number] = parent.plus(record.layer)
        self._offer(number)

    def _ask_execute(self, vertex: WalkedStep, work: _Work) -> None:
        key, material = work[0], vertex.material
        bound = []
        for edge, selector, fingerprint in zip(
            vertex.step.inputs, vertex.selectors, vertex.fingerprints, strict=True
        ):
            # What the key does not see, the executor does not see either.
            nothing = isinstance(selector, Nothing)
            subject = SCRATCH if nothing else self._subjects.get(edge.vertex)
            if subject is None or fingerprint is None:
                return
            bound.append(BoundInput(edge.role, subject, selector, fingerprint))
        if material is None:
            return
        bypass = vertex.step.bypass
        observe = vertex.step.trace != "off"
        task = Task(vertex.step.instruction, tuple(bound), material.traits, bypass, observe)
        self._executing.add(work)
        first = min(self._sharers.of((key, bypass)))
        self._asks.append(AskExecute(key, task, material, first))

    # -- answers to executions ------------------------------------------------------------

    def _take_execution(self, key: CacheKey, record: Record, reused: bool) -> None:
        work = self._work_of(key, record.parent)
        if work not in self._executing:
            raise UsageError(f"no execution was asked for under the key {key} on this parent")
        self._executing.discard(work)
        self._fresh[work] = (record, reused)
        self._look_at_key(key)

    def _no_execution(self, ask: AskExecute, error: LayerCacheError | None) -> None:
        work = self._work_of(ask.key, _chain_id(ask.task))
        self._executing.discard(work)
        self._refused[work] = error
        self._look_at_key(ask.key)

    def _work_of(self, key: CacheKey, parent: ChainID) -> _Work:
        """What was asked to be executed under this key, on this parent if the key needs it."""
        work = (key, parent)
        return work if work in self._executing else (key, None)

    def _look_at_key(self, key: CacheKey) -> None:
        self._look_again((key, False))
        self._look_again((key, True))

    def _no_fingerprint(self, ask: AskFingerprint, error: LayerCacheError | None) -> None:
        wanted = (ask.subject, ask.selector)
        readers = self._take_readers(wanted)
        if not readers:
            return  # a hit was taken back meanwhile: who reads the state once it is there asks anew
        self._unanswerable[wanted] = error
        for number, _ in readers:
            self._end(self._steps[number], error)

    @staticmethod
    def _end(vertex: WalkedStep, error: LayerCacheError | None) -> None:
        vertex.refused = True
        vertex.error = error

    def _take_back(self, record: Record) -> None:
        """Ban a record: its step runs, and what was derived from it is decided anew."""
        key = record.key
        self._found[key] = None
        self._looked.add(key)
        bases = (None, record.parent)
        for base in bases:
            fresh = self._fresh.get((key, base))
            if fresh is not None and fresh[0].layer == record.layer:
                del self._fresh[key, base]
        narrower = [(user, False) for user in self._narrowings.users(key)]
        for group in ((key, False), (key, True), *narrower):
            for base in bases:
                known = self._known.get((*group, base))
                if known is not None and known.layer == record.layer:
                    del self._known[*group, base]
                    self._made.discard((*group, base))
                    self._unbind_all(group, record)
            self._look_again(group)

    def _unbind_all(self, group: Group, record: Record) -> None:
        """Take the states away that this record made."""
        for number in self._sharers.of(group):
            made = self._steps[number].record
            if made is not None and made.layer == record.layer:
                self._unbind(number)

    def _ask_again(self, ask: AskFingerprint | AskExecute) -> None:
        """Forget that this was asked, and ask it of whoever still wants it."""
        if isinstance(ask, AskExecute):
            self._executing.discard(self._work_of(ask.key, _chain_id(ask.task)))
            self._look_at_key(ask.key)
            return
        if isinstance(ask.selector, Observed):
            self._look_at(self._narrowings.ask_again(ask))
            return
        for number, place in self._take_readers((ask.subject, ask.selector)):
            self._want(ask.subject, ask.selector, number, place)

    def _unbind(self, number: int) -> None:
        """Take the state of a vertex away, and all that was made of it."""
        pending = [number]
        while pending:
            current = pending.pop()
            if self._subjects.pop(current, None) is None:
                continue
            self._steps[current].state = None
            self._steps[current].attempt = None
            for reader, place in self._readers[current]:
                vertex = self._steps[reader]
                if not isinstance(vertex.selectors[place], Nothing | ByKey):
                    self._forget_input(reader, vertex, place)
                self._reconsider(vertex)
                pending.append(reader)

    def _forget_input(self, number: int, vertex: WalkedStep, place: int) -> None:
        if vertex.fingerprints[place] is not None:
            vertex.know(place, None)
            vertex.missing += 1
        if vertex.group is not None:
            self._sharers.leave(vertex.group, number)
            vertex.group = None
            vertex.material = None

    def _reconsider(self, vertex: WalkedStep) -> None:
        """A step that could not be made may be possible again, unless an input that is still
        there can't be read."""
        for edge, selector in zip(vertex.step.inputs, vertex.selectors, strict=True):
            subject = self._subjects.get(edge.vertex)
            read = EVERYTHING if isinstance(selector, ByKey) else selector
            if subject is not None and (subject, read) in self._unanswerable:
                return
        vertex.refused = False
        vertex.error = None


def _chain_id(task: Task) -> ChainID:
    """The chain ID of what a task is applied to."""
    return (task.parent or SCRATCH).chain_id
