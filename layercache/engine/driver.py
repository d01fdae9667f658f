"""The engine: drives a walk, answers its asks from inputs, store and executor.

Deciding is the walk's; everything here is doing. One thread talks to the walk; executions
(`executions`) run side by side on threads. A fault of the cache never fails a build: what is
lost is taken back and made again.

One class drives one walk from beginning to end; its state is why it is not spread further.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from layercache._base.classes import evolve, field, frozen
from layercache.engine.executions import (
    Adopted,
    CacheFailed,
    Crashed,
    Executions,
    Made,
    Outcome,
    StepFaulted,
)
from layercache.errors import BuildError, CacheError, Cancelled, LayerCacheError, SourceError
from layercache.events import Event, Note, Observer, StepExecuted, StepFinished
from layercache.model.descriptors import Layer, State
from layercache.model.graph import Graph, Step
from layercache.model.selectors import Observed, Selector
from layercache.solver.protocol import (
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
    Walker,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor as Pool

    from layercache.engine.audit import Auditor
    from layercache.inputs.inputs import Inputs
    from layercache.model.digests import CacheKey, LayerID
    from layercache.model.instruction import Source
    from layercache.model.keys import KeyStrategy
    from layercache.model.records import Record
    from layercache.model.task import Executor
    from layercache.store.parts import Cache
    from layercache.store.selectors_seen import Known

__all__ = ["Engine", "WalkResult"]

_MAX_LOST = 1000
"""Hits taken back in one build before it gives up: a store that loses as fast as it is healed."""


@frozen
class WalkResult:
    """The outcome of a walk that was driven to its end.

    `seconds` has what each vertex took to execute now, `started` when it began (seconds after
    the walk did); `lost` the keys whose hit was taken back; `refusals` says why a step that was
    to be watched left no trace, `known` what was known of steps without their
    parent before; `audits` has the paths that differ where an audit found a trace wrong.
    `error` is the first in graph order; `interrupt` what ended the walk early, for the caller
    to raise.
    """

    decisions: tuple[Decision, ...]
    seconds: Mapping[int, float]
    lost: frozenset[CacheKey]
    error: LayerCacheError | None = None
    started: Mapping[int, float] = field(factory=dict)
    refusals: Mapping[int, str] = field(factory=dict)
    known: Mapping[CacheKey, Known] = field(factory=dict)
    audits: Mapping[CacheKey, Sequence[str]] = field(factory=dict)
    interrupt: KeyboardInterrupt | None = None


class Engine:
    """Drives one walk over `graph`, once.

    `executor` may be None where no step runs a command; `execute` False declines every
    execution, which is planning.
    `jobs` bounds how many steps run at once; `pool`, any `concurrent.futures.Executor`, carries
    the executions (in other processes too, when executor and store can be pickled).
    `observer` gets every event, from any thread, one at a time. `cancelled` ends the walk.
    """

    def __init__(
        self,
        graph: Graph,
        store: Cache,
        inputs: Inputs,
        executor: Executor | None,
        *,
        keys: KeyStrategy,
        walker: Walker,
        observer: Observer,
        execute: bool = True,
        jobs: int = 1,
        pool: Pool | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self._graph = graph
        self._store = store
        self._inputs = inputs
        self._observe = observer
        self._declines = not execute
        self._jobs = max(1, jobs)
        self._cancelled = cancelled or threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._walk: Walk = walker.start(graph, keys)
        self._executions = Executions(
            graph,
            store,
            inputs,
            executor,
            keys,
            emit=self._emit,
            stopping=self._ending,
            pool=pool,
        )
        self._auditor: Auditor | None = None
        self._seconds: dict[int, float] = {}
        self._healed: set[LayerID] = set()
        self._repeated: set[CacheKey] = set()
        self._errors: dict[int, LayerCacheError] = {}
        self._before: set[int] = set()
        self._said_before = False
        self._running = 0
        self._queue: list[AskExecute] = []
        self._done: list[tuple[AskExecute, Outcome]] = []
        self._wake = threading.Condition()
        self._threads: Pool | None = None

    def _ending(self) -> bool:
        """Whether running steps should end: cancelled by the caller, or another step failed."""
        return self._cancelled.is_set() or self._stopping.is_set()

    def _emit(self, event: Event) -> None:
        """Send an event to the observer, one at a time."""
        with self._lock:
            self._observe(event)

    def _note(self, text: str) -> None:
        self._emit(Note(text, time.time()))

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> WalkResult:
        interrupt: KeyboardInterrupt | None = None
        try:
            self._loop()
            while self._audit():
                self._loop()
        except BaseException as raised:
            self._stopping.set()
            self._drain()
            if not isinstance(raised, KeyboardInterrupt):
                raise
            interrupt = raised
        finally:
            if self._threads is not None:
                self._threads.shutdown(wait=True)
        decisions = tuple(self._walk.decisions())
        if interrupt is not None:
            decisions = self._interrupted(decisions)
        for decision in decisions:
            self._tell_decision(decision)
        carrier = self._executions.carrier
        if carrier is not None and carrier.here:
            count = carrier.carried + carrier.here
            self._note(f"{carrier.carried} of {count} steps ran on the pool, {carrier.here} here")
        error = self._errors[min(self._errors)] if self._errors else None
        if error is None:
            error = self._unnoticed(decisions)
        if error is None and self._cancelled.is_set():
            error = Cancelled("the build was cancelled")
        if interrupt is not None:
            error = Cancelled("interrupted")
        return WalkResult(
            decisions,
            self._seconds,
            frozenset(self._executions.lost),
            error,
            self._executions.started,
            self._executions.refusals,
            self._executions.evidence.before,
            self._auditor.paths if self._auditor is not None else {},
            interrupt,
        )

    def _unnoticed(self, decisions: Sequence[Decision]) -> LayerCacheError | None:
        """The error of a step that ended when nobody asked; none may pass for a success."""
        for decision in decisions:
            if decision.error is not None:
                self._note_error(decision.vertex, decision.error)
                return decision.error
        bound = {decision.vertex for decision in decisions if decision.state is not None}
        unbound = [
            number
            for number in self._graph.targets
            if isinstance(self._graph.vertices[number], Step) and number not in bound
        ]
        if self._declines or self._cancelled.is_set() or not unbound:
            return None
        return BuildError(
            f"the build came to its end without a result of {self._executions.origin(unbound[0])}; "
            "this is a mistake of layercache: build again, and report it"
        )

    def _interrupted(self, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
        """Count a step that was running when the build was interrupted as executed and failed."""
        error = Cancelled("the step was interrupted")
        return tuple(
            evolve(decision, outcome="miss", error=error)
            if decision.outcome == "skip" and decision.vertex in self._executions.started
            else decision
            for decision in decisions
        )

    def _loop(self) -> None:
        while True:
            if self._cancelled.is_set():
                self._drain()
                return
            asks = self._walk.asks()
            for ask in asks:
                if isinstance(ask, AskLookup):
                    self._lookup(ask)
                elif isinstance(ask, AskFingerprint):
                    self._fingerprint(ask)
                elif isinstance(ask, AskSelectors):
                    self._selectors(ask)
                else:
                    self._queue.append(ask)
            if asks:
                continue
            if self._errors:
                self._queue = [ask for ask in self._queue if ask.vertex in self._before]
                self._tell_before()
            if self._queue:
                self._start_some()
            elif not self._running:
                return
            if self._running:
                self._collect()

    def _audit(self) -> bool:
        """Run a share of the traced hits again; return whether one of them was withdrawn."""
        if self._declines or self._errors or self._cancelled.is_set():
            return False
        if self._auditor is None:
            if all(decision.evidence != "trace" for decision in self._walk.decisions()):
                return False
            self._auditor = self._make_auditor()
        return self._auditor.audit()

    def _make_auditor(self) -> Auditor:
        from layercache.engine.audit import Auditor

        return Auditor(
            self._graph,
            self._walk,
            self._inputs,
            self._store,
            execute=self._executions.again,
            trouble=lambda error: self._executions.trouble("audit", error),
            note=self._note,
        )

    def _attempt(self, ask: AskExecute) -> Outcome:
        made = self._auditor.made.get(ask.key) if self._auditor is not None else None
        return self._executions.attempt(ask) if made is None else Made(made)

    def _start_some(self) -> None:
        self._queue.sort(key=lambda ask: ask.vertex)
        if self._declines:
            for ask in self._queue:
                self._walk.tell(Declined(ask))
            self._queue.clear()
            return
        if self._jobs == 1:
            ask = self._queue.pop(0)
            self._answer(ask, self._attempt(ask))
            return
        while self._queue and self._running < self._jobs:
            self._submit(self._queue.pop(0))

    def _submit(self, ask: AskExecute) -> None:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(self._jobs, thread_name_prefix="layercache-step")
        self._running += 1

        def work() -> None:
            outcome = self._attempt(ask)
            with self._wake:
                self._done.append((ask, outcome))
                self._wake.notify()

        self._threads.submit(work)

    def _collect(self) -> None:
        """Wait for at least one execution to end, and tell the walk."""
        with self._wake:
            while not self._done:
                # A bounded wait keeps Ctrl-C prompt on every platform.
                self._wake.wait(0.5)
            done, self._done = self._done, []
        self._running -= len(done)
        for ask, outcome in sorted(done, key=lambda pair: pair[0].vertex):
            self._answer(ask, outcome)

    def _drain(self) -> None:
        while self._running:
            with self._wake:
                while not self._done:
                    self._wake.wait(0.5)
                self._running -= len(self._done)
                self._done = []

    # -- answers ----------------------------------------------------------------------------

    def _lookup(self, ask: AskLookup) -> None:
        by_bypass = self._executions.evidence.replaced
        replaced = {key: by_bypass[key] for key in ask.keys if key in by_bypass}
        keys = [key for key in ask.keys if key not in replaced] if replaced else ask.keys
        found: dict[CacheKey, Record | None] = dict.fromkeys(ask.keys)
        try:
            found.update(self._store.records.lookup(keys))
        except CacheError as error:
            self._executions.trouble("lookup", error)
        if not self._declines:
            self._store.records.rely_on(record for record in found.values() if record is not None)
        # What a bypassing step of this build replaced must not depend on who came first.
        found.update(replaced)
        self._walk.tell(Found(found))

    def _selectors(self, ask: AskSelectors) -> None:
        found: dict[CacheKey, Sequence[Selector]] = {}
        for key in ask.keys:
            found[key] = [c.selector for c in self._executions.evidence.known(key).candidates]
        self._walk.tell(Selectors(found))

    def _fingerprint(self, ask: AskFingerprint) -> None:
        try:
            if isinstance(ask.selector, Observed):
                self._inputs.known.observations(ask.selector)
        except CacheError as error:
            self._executions.trouble("lookup", error)
            self._walk.tell(Declined(ask))
            return
        try:
            fingerprint = self._inputs.fingerprint(ask.subject, ask.selector)
        except CacheError as error:
            if self._take_back(ask, error):
                return
            if self._declines:
                self._walk.tell(Declined(ask))  # it can't be known without fetching something
            else:
                self._fail_fingerprint(ask, SourceError(str(error)))
        except LayerCacheError as error:
            self._fail_fingerprint(ask, error)
        else:
            self._walk.tell(Fingerprinted(ask, fingerprint))

    def _fail_fingerprint(self, ask: AskFingerprint, error: LayerCacheError) -> None:
        self._walk.tell(Failed(ask, error))
        for decision in self._walk.decisions():
            if decision.error is error:
                self._missing(decision.vertex, error)

    def _missing(self, vertex: int, error: LayerCacheError) -> None:
        """Fail a step whose source is missing in its turn, after the steps before it.

        The results of those steps are kept, so they need not run again once the source is there.
        """
        if self._declines or (self._errors and not self._before):
            self._failed(vertex, error)
            return
        self._note_error(vertex, error)
        self._before |= Graph(self._graph.vertices, (vertex,)).needed()

    def _tell_before(self) -> None:
        """Announce an error that will end the build while other steps still run before it."""
        if self._queue and not self._said_before and self._errors:
            self._said_before = True
            error = self._errors[min(self._errors)]
            where = f"line {error.line}: " if error.line is not None else ""
            text = f"{where}{error}; the steps before it are run first, and kept"
            self._note(text)

    def _failed(self, vertex: int, error: LayerCacheError) -> None:
        self._note_error(vertex, error)
        self._before.clear()
        self._stopping.set()

    def _note_error(self, vertex: int, error: LayerCacheError) -> None:
        step = self._graph.vertices[vertex]
        if isinstance(step, Step) and error.line is None and step.origin.line:
            error.line = step.origin.line
        self._errors.setdefault(vertex, error)

    def _answer(self, ask: AskExecute, outcome: Outcome) -> None:
        """Report the end of an execution to the walk and to the observers."""
        match outcome:
            case Made(record):
                self._tell_executed(ask, record.seconds)
                self._seconds[ask.vertex] = record.seconds
                self._walk.tell(Executed(ask.key, record, False))
            case Adopted(record):
                self._walk.tell(Executed(ask.key, record, True))
            case CacheFailed(error):
                self._tell_executed(ask, 0.0, error)
                if not self._take_back(ask, error) and not self._repeat(ask, error):
                    failure = BuildError(f"the cache failed while a step ran: {error}")
                    self._answer(ask, StepFaulted(failure))
            case StepFaulted(error):
                self._tell_executed(ask, 0.0, error)
                if not (isinstance(error, Cancelled) and self._errors):
                    self._failed(ask.vertex, error)
                self._walk.tell(Failed(ask, error))
            case Crashed(error):
                self._tell_executed(ask, 0.0, error)
                raise error

    def _take_back(self, ask: AskFingerprint | AskExecute, error: CacheError) -> bool:
        """Withdraw the hits that rely on a blob that is gone or damaged."""
        subjects: Iterable[State | Source]
        if isinstance(ask, AskFingerprint):
            subjects = (ask.subject,)
        else:
            subjects = [bound.subject for bound in ask.task.inputs]
        wanted = {
            layer.id: layer
            for subject in subjects
            if isinstance(subject, State)
            for layer in subject.layers
        }
        gone = {
            name for name, layer in wanted.items() if not self._store.blobs.intact(layer.descriptor)
        }
        if self._heal([wanted[name] for name in gone], ask, error):
            return True
        records = {
            d.record.key: d.record
            for d in self._walk.decisions()
            if d.record is not None and d.record.layer and d.record.layer.id in gone
        }
        if not records or len(self._executions.lost) >= _MAX_LOST:
            return False
        self._executions.trouble("lost", error)
        self._inputs.forget_states()  # they read the layers that the records named
        self._executions.lost.update(records)
        for number, record in enumerate(records.values()):
            self._walk.tell(Lost(record, ask if number == len(records) - 1 else None))
        return True

    def _repeat(self, ask: AskExecute, error: CacheError) -> bool:
        """Execute a step once more when the damage was in a blob of its own and not of an input:
        the store no longer trusts that blob and accepts it again.
        """
        if ask.key in self._repeated:
            return False
        self._repeated.add(ask.key)
        self._executions.trouble("lost", error)
        self._queue.append(ask)
        return True

    def _heal(
        self, gone: Sequence[Layer], ask: AskFingerprint | AskExecute, error: CacheError
    ) -> bool:
        """Fetch each lost layer of a base image once more; the request of the walk then stands as
        before.
        """
        fetched = False
        for layer in gone:
            if layer.id in self._healed:
                continue
            self._healed.add(layer.id)
            try:
                fetched = self._inputs.heal(layer) or fetched
            except LayerCacheError as failure:
                # The ask then fails with what it met itself.
                self._executions.trouble("lost", failure)
        if fetched:
            self._executions.trouble("lost", error)
            if isinstance(ask, AskExecute):
                self._queue.append(ask)
            else:
                self._fingerprint(ask)
        return fetched

    def _tell_executed(
        self, ask: AskExecute, seconds: float, error: BaseException | None = None
    ) -> None:
        origin = self._executions.origin(ask.vertex)
        said = str(error) if error is not None else None
        self._emit(StepExecuted(ask.vertex, origin, ask.key, time.time(), seconds, said))

    def _tell_decision(self, decision: Decision) -> None:
        origin = self._executions.origin(decision.vertex)
        record = decision.record
        reused = decision.outcome == "hit" and record is not None
        self._emit(
            StepFinished(
                vertex=decision.vertex,
                origin=origin,
                outcome=decision.outcome,
                key=decision.key,
                time=time.time(),
                seconds=self._seconds.get(decision.vertex, 0.0),
                saved_seconds=record.seconds if record is not None and reused else 0.0,
                error=str(decision.error) if decision.error else None,
            )
        )
