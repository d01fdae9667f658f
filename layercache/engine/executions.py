"""Executing the tasks of a walk: adopt a twin's fresh record, or run the step and record it.

A fault of the cache costs the record, never the step.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from layercache._base.classes import evolve, frozen
from layercache.engine.evidence import Evidence
from layercache.engine.traits import stage_of
from layercache.errors import BuildError, CacheError, Cancelled, CorruptObject, LayerCacheError
from layercache.events import CacheTrouble, Event, Note, StepOutput, StepStarted
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import SCRATCH
from layercache.model.digests import CacheKey
from layercache.model.graph import Graph, Origin, Step
from layercache.model.keys import KeyStrategy, Narrows
from layercache.model.records import Record
from layercache.model.selectors import ByKey, Files, Nothing
from layercache.model.task import Executor, Result, Task
from layercache.solver.protocol import AskExecute
from layercache.trees.listing import encode_listing, listing

if TYPE_CHECKING:
    from concurrent.futures import Executor as Pool

    from layercache.engine.carrying import Carrier
    from layercache.engine.window import Window
    from layercache.store.parts import Cache

__all__ = [
    "Adopted",
    "CacheFailed",
    "Crashed",
    "Executions",
    "Made",
    "Outcome",
    "StepFaulted",
]

LISTING_MEDIA_TYPE = "application/vnd.layercache.listing.v1"
LOG_MEDIA_TYPE = "application/vnd.layercache.log.v1"

_SILENT_WAIT: Final = 3.0
"""Seconds for which nothing is said of a wait for another build."""


@frozen
class Made:
    """The step was executed, and gave this record."""

    record: Record


@frozen
class Adopted:
    """Another build made this record meanwhile; nothing was executed."""

    record: Record


@frozen
class CacheFailed:
    """The cache failed while the step ran, for example because a blob is gone or damaged."""

    error: CacheError


@frozen
class StepFaulted:
    """The step failed, was cancelled, or could not be started."""

    error: LayerCacheError


@frozen
class Crashed:
    """A fault of the program, or an interrupt; the driving thread raises it."""

    error: BaseException


Outcome: TypeAlias = "Made | Adopted | CacheFailed | StepFaulted | Crashed"
"""How an execution ended."""


class Executions:
    """The executions of one walk over `graph`. Safe for threads.

    `emit` takes events, `stopping` says whether running steps should end; `pool` carries
    executions elsewhere. `lost` has the keys whose hit was taken back: what is made for them
    replaces what is stored. `refusals` says why a step that was to be watched left no trace,
    `started` when each vertex began (seconds after the walk did).
    """

    def __init__(
        self,
        graph: Graph,
        store: Cache,
        inputs: Inputs,
        executor: Executor | None,
        keys: KeyStrategy,
        *,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
        pool: Pool | None = None,
    ) -> None:
        self._graph = graph
        self._store = store
        self._inputs = inputs
        self._executor = executor
        self._keys = keys
        self._emit = emit
        self._stopping = stopping
        self.carrier: Carrier | None = None
        if pool is not None:
            from layercache.engine.carrying import Carrier

            self.carrier = Carrier(pool, store, inputs, lambda text: emit(Note(text, time.time())))
        self._began = time.monotonic()
        self.evidence = Evidence(store, inputs)
        self.lost: set[CacheKey] = set()
        self.refusals: dict[int, str] = {}
        self.started: dict[int, float] = {}

    def origin(self, vertex: int) -> Origin:
        """Where a step comes from, for people."""
        step = self._graph.vertices[vertex]
        return step.origin if isinstance(step, Step) else Origin()

    def trouble(self, kind: str, error: LayerCacheError) -> None:
        """Report a fault of the cache."""
        self._emit(CacheTrouble(kind, str(error), time.time()))

    def attempt(self, ask: AskExecute) -> Outcome:
        """Execute, or adopt what another build just made. Raises nothing."""
        try:
            return self._execute(ask)
        except CacheError as error:
            return CacheFailed(error)
        except LayerCacheError as error:
            return StepFaulted(error)
        except BaseException as error:  # noqa: BLE001  (carried to the driving thread)
            return Crashed(error)

    def again(self, ask: AskExecute) -> Record:
        """Execute a task beside the walk; nothing is stored under its key yet."""
        window = self._window(ask)
        started = time.monotonic()
        result = self._perform(ask, ask.task, window)
        return self._record(ask, result, window, time.monotonic() - started)

    def _execute(self, ask: AskExecute) -> Made | Adopted:
        store = self._store
        fresh = ask.task.bypass or ask.key in self.lost
        with store.records.lock(ask.key, self._patience(ask)):
            found = store.records.lookup([ask.key]).get(ask.key)
            if found is not None and not fresh and not _of_another_parent(found, ask.task):
                return Adopted(found)
            if ask.task.bypass:
                self.evidence.replaced.setdefault(ask.key, found)
            if self._stopping():
                raise Cancelled("the build was stopped before this step")
            self._emit(StepStarted(ask.vertex, self.origin(ask.vertex), ask.key, time.time()))
            window = self._window(ask)
            task, barred = ask.task, ""
            if task.observe:
                barred = self.evidence.barred(ask.material)
                task = evolve(task, observe=not barred)
            started = time.monotonic()
            self.started[ask.vertex] = started - self._began
            try:
                result = self._perform(ask, task, window)
            except LayerCacheError as error:
                # The last lines of the output are in the message, and secrets may be in them.
                error.args = tuple(window.masked_text(arg) for arg in error.args)
                raise
            except BrokenPipeError:
                raise  # the reader of the output is gone
            except OSError as error:
                raise _refused(error) from error
            seconds = time.monotonic() - started
            record = self._record(ask, result, window, seconds)
            try:
                if lies := self._unproven(ask.task):
                    self.trouble("untrusted", CorruptObject(lies))
                    return Made(record)
                stands = store.records.put(record, replace=fresh or found is not None)
                if found is not None:
                    from layercache.store.seen_results import note_results

                    note_results(store.derived, ask.key, (found.layer, record.layer))
                    record = evolve(record, generation=stands.generation)
                self._keep_evidence(ask, record, result, barred, again=fresh or bool(self.lost))
            except CacheError as error:
                self.trouble("write", error)
            return Made(record)

    def _patience(self, ask: AskExecute) -> Callable[[], bool]:
        """Whether to stop waiting for another build that holds the lock of a step.

        The wait ends with the build; one that takes a while is announced.
        """
        began = time.monotonic()
        said = False

        def give_up() -> bool:
            nonlocal said
            if not said and time.monotonic() - began > _SILENT_WAIT:
                said = True
                text = self.origin(ask.vertex).text or ask.task.instruction.name
                self._emit(
                    Note(f"waiting for another build that runs this step: {text}", time.time())
                )
            return self._stopping()

        return give_up

    def _unproven(self, task: Task) -> str:
        """Why the key of `task` does not describe what was executed; "" if it does."""
        for bound in task.inputs:
            if isinstance(bound.selector, Nothing | ByKey):
                continue
            if not self._inputs.proves(bound.subject, bound.selector, bound.fingerprint):
                return (
                    "a remote cache gave a wrong fact about a state that a step reads: the step "
                    "was executed and its result is not kept; the next build uses the right fact"
                )
        return ""

    def _keep_evidence(
        self, ask: AskExecute, record: Record, result: Result, barred: str, *, again: bool
    ) -> None:
        """What the execution looked at of its parent, where the strategy makes use of it."""
        keys, step = self._keys, self._graph.vertices[ask.vertex]
        if not isinstance(keys, Narrows) or not isinstance(step, Step):
            return
        evidence = keys.narrows(step)
        if evidence is None:
            return
        reason = barred or result.refusal
        if result.observed is not None:
            reason = self.evidence.keep(record, ask.task, result.observed, evidence, again=again)
        elif ask.task.observe and not reason:
            reason = "this executor does not watch commands"
        if reason:
            self.refusals[ask.vertex] = reason
            self.evidence.refuse(record, reason)
            text = self.origin(ask.vertex).text or record.material.name
            self._emit(Note(f"not traced: {text}: {reason}", time.time()))

    def _window(self, ask: AskExecute) -> Window:
        """What the step of `ask` sees; its output becomes events."""
        from layercache.engine.window import Window, masks_of

        origin = self.origin(ask.vertex)
        return Window(
            self._store,
            self._inputs,
            masks=masks_of(self._executor),
            say=lambda chunk: self._emit(StepOutput(ask.vertex, origin, chunk)),
            stopping=self._stopping,
        )

    def _perform(self, ask: AskExecute, task: Task, window: Window) -> Result:
        from layercache.engine.window import perform

        try:
            if self.carrier is None:
                return perform(self._executor, task, window)
            origin = self.origin(ask.vertex)
            text = origin.text or task.instruction.name
            return self.carrier.run(self._executor, task, stage_of(origin), window, text)
        finally:
            window.end()

    def _record(self, ask: AskExecute, result: Result, window: Window, seconds: float) -> Record:
        parent = ask.task.parent or SCRATCH
        log = None
        manifests = []
        try:
            if output := window.masked(result.output or window.logged):
                log = self._store.blobs.add(io.BytesIO(output), LOG_MEDIA_TYPE).digest
            for bound in ask.task.inputs:
                if isinstance(bound.selector, Files):
                    rows = encode_listing(listing(window.tree(bound.subject), bound.selector))
                    stored = self._store.blobs.add(io.BytesIO(rows), LISTING_MEDIA_TYPE)
                    manifests.append((bound.fingerprint, stored.digest))
        except CacheError as error:
            self.trouble("write", error)  # only explanations need these
        return Record(
            key=ask.key,
            material=ask.material,
            layer=result.layer,
            parent=parent.chain_id,
            seconds=seconds,
            created=time.time(),
            log=log,
            manifests=tuple(manifests),
        )


def _refused(error: OSError) -> BuildError:
    """The error for a refusal of the operating system, most often a full disk."""
    place = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
    return BuildError(f"the step can't be executed here: {error.strerror or error}{place}")


def _of_another_parent(record: Record, task: Task) -> bool:
    """Whether `record` is of an execution on another parent, which its key does not show."""
    parent = task.parent or SCRATCH
    chained = any(isinstance(bound.selector, ByKey) for bound in task.inputs)
    return chained and record.parent != parent.chain_id
