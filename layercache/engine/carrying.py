"""Carrying steps to the workers of a pool, so that a result is one that this machine would key.

A worker gets the executor with the secrets that the step mounts, the task, and what the step reads
of contexts as a blob of the store; never a context, nor a path of this machine. It compares what
it is with what the key says, and declines where they differ. A step that no worker takes runs
here, and that is said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from layercache._base.classes import evolve, frozen
from layercache._version import __version__
from layercache.engine.traits import traits_of
from layercache.engine.window import Window, perform
from layercache.errors import CacheError, Cancelled, LayerCacheError
from layercache.inputs.inputs import Inputs
from layercache.layers.new_layer import layer_of_tree
from layercache.model.descriptors import SCRATCH, Layer, State
from layercache.model.instruction import Source
from layercache.model.operations import CopyFiles, Exec, MakeDirectory
from layercache.model.selectors import Nothing, Selector
from layercache.model.task import Executor, Result, Task, WithSecrets
from layercache.trees.selected_tree import SelectedTree

if TYPE_CHECKING:
    from concurrent.futures import Executor as Pool
    from concurrent.futures import Future

    from layercache.store.parts import Cache

__all__ = ["Carrier"]

_T = TypeVar("_T")

_GRACE_SECONDS: Final = 5.0
"""How long a step elsewhere may go on after the build was stopped; it can't be told to end."""

_TRIES: Final = 2
"""Workers that are asked before a step runs here."""


@frozen
class _Answer:
    """The answer of a worker: a result, the error of the step, or the reason why it declines."""

    result: Result | None = None
    error: Exception | None = None
    declined: str = ""


class Carrier:
    """Carries the steps of one walk to `pool`. Safe for threads.

    `note` takes a sentence for people about a step that ran here instead.
    """

    def __init__(
        self, pool: Pool, store: Cache, inputs: Inputs, note: Callable[[str], None]
    ) -> None:
        self._pool = pool
        self._store = store
        self._inputs = inputs
        self._note = note
        self._lock = threading.Lock()
        self._packed: dict[tuple[Source, tuple[Selector, ...]], State] = {}
        self.carried = 0
        self.here = 0

    def run(
        self, executor: Executor | None, task: Task, stage: str, window: Window, text: str
    ) -> Result:
        """Execute `task` on a worker, else here; raises what the step raises, `Cancelled`.

        COPY, ADD and WORKDIR are done here, where the contexts are: they run no command.
        `stage` is the name of the step's stage, `text` what people call the step.
        """
        from concurrent.futures import ThreadPoolExecutor

        if isinstance(task.instruction, CopyFiles | MakeDirectory):
            return perform(executor, task, window)
        if isinstance(self._pool, ThreadPoolExecutor):
            return self._counted(self._on_thread(executor, task, window))
        try:
            task = self._archived(task)
            for bound in task.inputs:
                if isinstance(bound.subject, State):
                    self._inputs.fetch(bound.subject)
                    self._store.blobs.publish([layer.descriptor for layer in bound.subject.layers])
            given = self._given(task)
        except CacheError as error:
            reason = f"what it reads could not be put into the store for a worker ({error})"
            return self._here(executor, task, window, text, reason)
        there = Window(self._store, self._inputs.elsewhere(given))
        job = _Job(_without_secrets(executor, task), task, stage, there, __version__)
        reason = ""
        for _ in range(_TRIES):
            answer = self._ask(job, window)
            result = answer.result
            if result is not None:
                if result.layer is None or self._store.blobs.obtain(result.layer.descriptor):
                    window.catch_up(result.output)
                    return self._counted(result)
                reason = (
                    "the result stored by the worker is not available here: the store is not shared"
                )
                break
            if answer.error is not None and not isinstance(answer.error, CacheError):
                raise answer.error
            if answer.error is not None:
                reason = f"the worker could not use the store ({answer.error})"
                break  # real damage shows here, too
            reason = answer.declined
        return self._here(executor, task, window, text, reason)

    def _archived(self, task: Task) -> Task:
        """`task` with the archives of all layers that it reads: a worker may be on another
        machine."""
        inputs = tuple(
            evolve(bound, subject=_restacked(bound.subject, self._store.blobs.sealed))
            if isinstance(bound.subject, State)
            else bound
            for bound in task.inputs
        )
        return evolve(task, inputs=inputs)

    def _counted(self, result: Result) -> Result:
        with self._lock:
            self.carried += 1
        return result

    def _here(
        self, executor: Executor | None, task: Task, window: Window, text: str, reason: str
    ) -> Result:
        with self._lock:
            self.here += 1
        self._note(f"ran here and not on the pool: {text}: {reason}")
        return perform(executor, task, window)

    def _on_thread(self, executor: Executor | None, task: Task, window: Window) -> Result:
        return self._wait(self._pool.submit(perform, executor, task, window), window)

    def _ask(self, job: _Job, window: Window) -> _Answer:
        """The answer of one worker; a failure of the pool counts as declining."""
        try:
            return self._wait(self._pool.submit(_on_worker, job), window)
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001  (a pool may fail in any way)
            kind = type(error).__name__
            return _Answer(declined=f"the worker was lost or can't be reached ({kind}: {error})")

    def _wait(self, future: Future[_T], window: Window) -> _T:
        from concurrent.futures import wait

        left = _GRACE_SECONDS
        while not wait([future], timeout=0.1).done:
            if window.cancelled():
                left -= 0.1
                if future.cancel() or left <= 0:
                    raise Cancelled("the build was stopped while a step ran elsewhere")
        return future.result()

    def _given(self, task: Task) -> dict[Source, State]:
        """The files of sources that the step reads, each as a state of one layer in the store."""
        wanted: dict[Source, list[Selector]] = {}
        for bound in task.inputs:
            if not isinstance(bound.subject, State) and not isinstance(bound.selector, Nothing):
                wanted.setdefault(bound.subject, []).append(bound.selector)
        found = {}
        for source, selectors in wanted.items():
            name = (source, tuple(selectors))
            with self._lock:
                state = self._packed.get(name)
                if state is None:
                    part = SelectedTree(self._inputs.tree(source), selectors)
                    layer = layer_of_tree(part, Window(self._store, self._inputs))
                    if layer is not None:
                        self._store.blobs.publish([layer.descriptor])
                    state = self._packed[name] = SCRATCH.plus(layer)
            found[source] = state
        return found


@frozen
class _Job:
    """Everything that is sent to a worker."""

    executor: Executor | None
    task: Task
    stage: str
    window: Window
    version: str


def _on_worker(job: _Job) -> _Answer:
    """Execute a job in a worker; an error of the step is part of the answer and not raised."""
    executor, task, window = job.executor, job.task, job.window
    if not window.here:
        try:
            declined = _difference(job)
        except Exception as error:  # noqa: BLE001  (a worker that can't tell what it is)
            declined = f"{type(error).__name__}: {error}"
        if declined:
            return _Answer(declined=f"the worker differs from this machine ({declined})")
    try:
        result = perform(executor, task, window)
        if not result.output and window.logged:
            result = Result(result.layer, window.logged, result.observed, result.refusal)
        window.leave(result)
    except LayerCacheError as error:
        return _Answer(error=error)
    except OSError as error:
        return _Answer(error=OSError(error.errno, error.strerror, error.filename))
    return _Answer(result)


def _difference(job: _Job) -> str:
    """How this worker differs from what the key of the task says; "" if it does not."""
    if job.version != __version__:
        return f"version of layercache: {__version__}, not {job.version}"
    task = job.task
    if job.executor is not None and getattr(task.instruction, "commands", True):
        here = set(traits_of(job.executor, task.instruction, job.stage))
        labels = sorted({field.label for field in here ^ set(task.traits)})
        if labels:
            return ", ".join(labels)
    return job.window.changed(task)


def _restacked(state: State, change: Callable[[Layer], Layer]) -> State:
    """`state` with `change` made to each of its layers, which stay the same layers."""
    if not any(layer.is_open for layer in state.layers):
        return state
    bottom = state
    while bottom.parent is not None and bottom.layer is not None:
        bottom = bottom.parent
    found = bottom
    for layer in state.layers:
        found = found.plus(change(layer))
    return found


def _without_secrets(executor: Executor | None, task: Task) -> Executor | None:
    """A copy of `executor` with only the secrets that the step mounts."""
    if not isinstance(executor, WithSecrets):
        return executor
    mounts = task.instruction.mounts if isinstance(task.instruction, Exec) else ()
    return executor.with_secrets({mount.id for mount in mounts if mount.type == "secret"})
