"""The builder: everything that outlives a build; may be used from several threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layercache.builds.request import (
    Request,
    checked_recipe,
)
from layercache.builds.result import BuildResult
from layercache.builds.running import RunningBuild, Wiring
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import UsageError
from layercache.events import CacheTrouble, Event, Note, Observer
from layercache.model.keys import KeyStrategy
from layercache.model.task import Executor
from layercache.model.tree import Closes
from layercache.solver.protocol import Walker
from layercache.solver.strategies import ContentKeys
from layercache.solver.walker import GraphWalker

if TYPE_CHECKING:
    from concurrent.futures import Executor as Pool

    from layercache.engine.probe import Probed
    from layercache.images.resolver import Images
    from layercache.store.parts import Cache
    from layercache.store.store_events import StoreEvent

__all__ = ["Builder"]


class Builder:
    """Builds and plans recipes over one cache.

    Args:
        cache: URL or directory of the store, a `Store` or `TieredStore`, None for one in memory.
        executor: runs steps; None selects the strongest root file system mode that works here,
            when a step needs one.
        keys: the key strategy; `ContentKeys()` by default.
        walker: the invalidation walker; `GraphWalker()` by default.
        images: makes the resolver of base images for one build; None finds tags of the cache,
            OCI layouts, archives and registries.
        observers: called with every `Event`, one at a time.
        jobs: the number of steps that may run at once; the number of processors by default.
        pool: any `concurrent.futures.Executor` to run the executions.
        executor_options: for the executor that None stands for (secrets, ssh, step_timeout).
    """

    def __init__(
        self,
        cache: str | os.PathLike[str] | Cache | None = None,
        *,
        executor: Executor | None = None,
        keys: KeyStrategy | None = None,
        walker: Walker | None = None,
        images: Callable[[Cache], Images] | None = None,
        observers: Iterable[Observer] = (),
        jobs: int | None = None,
        pool: Pool | None = None,
        executor_options: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(executor, type) or not isinstance(executor, Executor | None):
            raise UsageError(
                f"executor must have traits and execute(), and {executor!r} has not: use for "
                "instance "
                "Workspace(directory) or RootfsExecutor(directory)"
            )
        if keys is not None and (isinstance(keys, type) or not hasattr(keys, "material")):
            raise UsageError(
                "keys is a key strategy, with scheme, selector() and material(), not "
                f"{keys!r}: for instance ContentKeys()"
            )
        if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
            raise UsageError(
                f"jobs is the number of steps that may run at once, 1 or more, not {jobs!r}"
            )
        self._store = _open_store(cache)
        self._store.events.listen(self._noticed)
        self._executor = executor
        self._keys = keys or ContentKeys()
        self._walker = walker or GraphWalker()
        self._make_images = images
        self._observers = tuple(observers)
        self._observing = threading.RLock()
        self._broken: list[Observer] = []
        self._jobs = jobs or os.cpu_count() or 1
        self._pool = pool
        self._executor_options = dict(executor_options or {})
        self._lock = threading.Lock()
        self._cancels: set[threading.Event] = set()
        self._own_executor: Executor | None = None

    @property
    def store(self) -> Cache:
        """The cache that this builder reads and writes."""
        return self._store

    def build(self, recipe: Dockerfile | Sequence[Any], **options: Any) -> BuildResult:
        """Build `recipe`; options are the fields of `Request`.

        Raises failures as a `LayerCacheError`, whose `report` has the steps so far. A
        `KeyboardInterrupt` while steps are decided or executed is passed on to the caller once
        running steps have ended; its `__cause__` is a `Cancelled` with such a report.
        """
        return self.run(Request(recipe=checked_recipe(recipe), **options))

    def plan(self, recipe: Dockerfile | Sequence[Any], **options: Any) -> BuildResult:
        """The decisions that `build` would make: executes nothing, writes nothing, never raises
        for a miss.
        """
        return self.run(Request(recipe=checked_recipe(recipe), **options), execute=False)

    def close(self) -> None:
        """Close what the builder itself opened (its own executor); the store stays open."""
        with self._lock:
            executor, self._own_executor = self._own_executor, None
        if isinstance(executor, Closes):
            executor.close()

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Cancel every running build and probe of this builder; they raise `Cancelled`."""
        with self._lock:
            for event in self._cancels:
                event.set()

    def run(self, request: Request, *, execute: bool = True) -> BuildResult:
        """`build` or `plan` for a `Request`."""
        with self._under_way() as cancelled:
            return RunningBuild(self._wiring(), request, execute, cancelled).run()

    def _wiring(self) -> Wiring:
        return Wiring(
            store=self._store,
            executor=self._executor,
            strongest=self._strongest,
            executor_options=self._executor_options,
            keys=self._keys,
            walker=self._walker,
            images=self._make_images,
            jobs=self._jobs,
            pool=self._pool,
            observe=self._tell,
            again=self.run,
        )

    @contextmanager
    def _under_way(self) -> Iterator[threading.Event]:
        """Register an activity that `cancel` can end; the blobs that it uses are held until it is
        over.
        """
        cancelled = threading.Event()
        with self._lock:
            self._cancels.add(cancelled)
        try:
            with self._store.in_use():
                yield cancelled
        finally:
            with self._lock:
                self._cancels.discard(cancelled)

    def _strongest(self, note: Callable[[str], None]) -> Executor:
        """The executor for `executor=None`, made when a step first needs one."""
        from layercache.executors.auto import strongest

        with self._lock:
            if self._own_executor is None:
                options = self._executor_options
                self._own_executor = strongest(self._store, note=note, **options)
            return self._own_executor

    def probe(self, request: Request, *, runs: int = 1) -> tuple[Probed, ...]:
        """Run every command that is reused again, on the state it was recorded on.

        Says which give other files each time; replaces no record. Builds first what is missing.
        """
        from layercache.engine.probe import probe_steps

        with self._under_way() as cancelled:
            build = RunningBuild(self._wiring(), request, True, cancelled)
            result = build.run()
            executor = build.need_executor()
            try:
                return tuple(
                    probe_steps(
                        result.graph,
                        result.decisions,
                        build.inputs,
                        self._store,
                        executor,
                        runs=runs,
                        cancelled=cancelled.is_set,
                    )
                )
            finally:
                build.inputs.close()

    def _tell(self, event: Event) -> None:
        """Pass an event to every observer."""
        # The store may notice something in any thread, and other builds may be under way.
        with self._observing:
            for observer in self._observers:
                if observer in self._broken:
                    continue
                try:
                    observer(event)
                except BrokenPipeError:
                    raise  # the reader of the output is gone
                except Exception as error:  # noqa: BLE001  (reported, and told to the others)
                    self._broken.append(observer)
                    self._report_broken(observer, error)

    def _report_broken(self, observer: Observer, error: Exception) -> None:
        """Say that an observer raised: it gets no further events, and builds go on."""
        from layercache.builds.broken_observer import warn_of

        self._tell(Note(warn_of(observer, error), time.time()))

    def _noticed(self, event: StoreEvent) -> None:
        self._tell(CacheTrouble(event.kind, event.message, time.time()))


def _open_store(cache: str | os.PathLike[str] | Cache | None) -> Cache:
    if cache is not None and not isinstance(cache, str | os.PathLike):
        return cache
    from layercache.store.open import open_store

    return open_store(None if cache is None else os.fspath(cache))
