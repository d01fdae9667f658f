"""The builder: wires recipe, keys, walker, store, executor and images for one build at a time.

`Builder` holds what stays from build to build and may be used from several threads; each build
has a walk, inputs and an image resolver of its own.
One class, since all of that is wired for one build.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layercache._base.classes import evolve
from layercache.builds.baseline import Against, against, trail_id
from layercache.builds.reporter import Reporter
from layercache.builds.request import (
    Request,
    arguments_of,
    bypass_of,
    checked_recipe,
    is_image,
    one_spelling,
    project_of,
)
from layercache.builds.result import BuildResult
from layercache.dockerfile.lowering.lower import lower
from layercache.dockerfile.lowering.options import BaseImage, ImageNeed, Lowered, Options
from layercache.dockerfile.recipe import Dockerfile
from layercache.engine.driver import Engine, WalkResult
from layercache.engine.traits import check_steps, with_traits
from layercache.errors import CacheError, LayerCacheError, UsageError
from layercache.events import BuildFinished, BuildStarted, CacheTrouble, Event, Note, Observer
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import Layer, State
from layercache.model.digests import ChainID, sha256
from layercache.model.graph import Step
from layercache.model.image_config import ImageConfig
from layercache.model.instruction import Source
from layercache.model.keys import KeyStrategy
from layercache.model.task import Executor
from layercache.model.tree import Tree
from layercache.solver.could_match import could_match
from layercache.solver.protocol import Walker
from layercache.solver.strategies import ContentKeys
from layercache.solver.walker import GraphWalker
from layercache.store.trails import beginnings_of, definition_of

if TYPE_CHECKING:
    from concurrent.futures import Executor as Pool

    from layercache.engine.probe import Probed
    from layercache.images.resolver import BaseImage as ResolvedImage
    from layercache.images.resolver import Images
    from layercache.store.store import Store, StoreEvent

__all__ = ["Builder"]

_MAX_RESOLVE_ROUNDS = 1000
_MAX_RECORDS = 20_000
"""Records that a plan looks through; beyond, a step that waits stays undetermined."""


class Builder:
    """Builds and plans recipes over one cache.

    Args:
        cache: URL or directory of the store, a `Store`, or None for one in memory.
        executor: who runs steps; None takes the strongest root file system mode that works
            here, when a step needs one.
        keys: the key strategy; `ContentKeys()` by default.
        walker: the invalidation walker; `GraphWalker()` by default.
        images: makes the resolver of base images for one build; None finds tags of the cache,
            OCI layouts, archives and registries.
        observers: called with every `Event`, one at a time.
        jobs: steps that may run at once; the number of processors by default.
        pool: any `concurrent.futures.Executor` to carry the executions.
        executor_options: for the executor that None stands for (secrets, ssh, step_timeout).
    """

    def __init__(
        self,
        cache: str | os.PathLike[str] | Store | None = None,
        *,
        executor: Executor | None = None,
        keys: KeyStrategy | None = None,
        walker: Walker | None = None,
        images: Callable[[Store], Images] | None = None,
        observers: Iterable[Observer] = (),
        jobs: int | None = None,
        pool: Pool | None = None,
        executor_options: Mapping[str, Any] | None = None,
    ) -> None:
        if executor is not None and not isinstance(executor, Executor):
            raise UsageError(
                f"executor is one that has traits and execute(), not {executor!r}: for instance "
                "Workspace(directory) or RootfsExecutor(directory)"
            )
        if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
            raise UsageError(f"jobs is the number of steps at once, 1 or more, not {jobs!r}")
        self._store = _open_store(cache)
        self._store.listen(self._noticed)
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
    def store(self) -> Store:
        """The cache that this builder reads and writes."""
        return self._store

    def build(self, recipe: Dockerfile | Sequence[Any], **options: Any) -> BuildResult:
        """Build `recipe`; options are the fields of `Request`.

        Raises what went wrong as a `LayerCacheError`, whose `report` has the steps so far. A
        `KeyboardInterrupt` while steps are decided or executed goes on to the caller, when what
        runs has ended; its `__cause__` is a `Cancelled` with such a report.
        """
        return self.run(Request(recipe=checked_recipe(recipe), **options))

    def plan(self, recipe: Dockerfile | Sequence[Any], **options: Any) -> BuildResult:
        """What `build` would do: executes nothing, writes nothing, and never raises for a miss."""
        return self.run(Request(recipe=checked_recipe(recipe), **options), execute=False)

    def close(self) -> None:
        """End what the builder itself started (its own executor); the store stays open."""
        with self._lock:
            executor, self._own_executor = self._own_executor, None
        close = getattr(executor, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """End every build and probe of this builder that is under way; they raise `Cancelled`."""
        with self._lock:
            for event in self._cancels:
                event.set()

    def run(self, request: Request, *, execute: bool = True) -> BuildResult:
        """`build` or `plan` for a `Request`."""
        with self._under_way() as cancelled:
            return _Build(self, request, execute, cancelled).run()

    @contextmanager
    def _under_way(self) -> Iterator[threading.Event]:
        """Something that `cancel` ends, and that holds what it relies on until then."""
        cancelled = threading.Event()
        with self._lock:
            self._cancels.add(cancelled)
        try:
            with self._store.in_use():
                yield cancelled
        finally:
            with self._lock:
                self._cancels.discard(cancelled)

    def strongest_executor(self, note: Callable[[str], None]) -> Executor:
        """The executor that None stands for, made when a step first needs one."""
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
            build = _Build(self, request, True, cancelled)
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

    def observe(self, event: Event) -> None:
        """Hand an event to every observer."""
        # The store may notice something in any thread, and other builds may be under way.
        with self._observing:
            for observer in self._observers:
                if observer in self._broken:
                    continue
                try:
                    observer(event)
                except BrokenPipeError:
                    raise  # whoever watches has gone
                except Exception as error:  # noqa: BLE001  (reported, and told to the others)
                    self._broken.append(observer)
                    self._report_broken(observer, error)

    def _report_broken(self, observer: Observer, error: Exception) -> None:
        """Say that an observer raised: it gets no further events, and builds go on."""
        from layercache.builds.broken_observer import warn_of

        self.observe(Note(warn_of(observer, error), time.time()))

    def _noticed(self, event: StoreEvent) -> None:
        self.observe(CacheTrouble(event.kind, event.message, time.time()))


class _Build:
    """One build or plan under way."""

    def __init__(
        self, builder: Builder, request: Request, execute: bool, cancelled: threading.Event
    ) -> None:
        self.builder = builder
        self.request = request
        self.execute = execute
        self.cancelled = cancelled
        self.store = builder._store
        self.started = time.monotonic()
        self.executor = builder._executor
        self._images: Images | None = None
        self._bases: dict[ImageNeed, ResolvedImage] = {}
        self.inputs = Inputs(
            self.store,
            self._contexts(),
            remote=self._open_remote,
            fetch=self._fetch,
            write=self.execute,
        )

    def run(self) -> BuildResult:
        reporter = Reporter(
            self.store, self.inputs, project_of(self.request), self.builder._keys, self._against()
        )
        result: BuildResult | None = None
        interrupt: KeyboardInterrupt | None = None
        try:
            lowered = self._lower()
            graph = with_traits(lowered.graph, self.need_executor, self.request.trace)
            check_steps(graph, self.executor)
            lowered = evolve(lowered, graph=graph)
            rows = _rows(lowered)
            project = trail_id(project_of(self.request))
            self.store.prefetch([definition_of(rows), project], lambda: beginnings_of(rows))
            steps = sum(isinstance(v, Step) for v in lowered.graph.vertices)
            self.builder.observe(BuildStarted(steps, time.time()))
            for name in lowered.unused_args:
                self._note(f"the build argument {name} was given, but no ARG declares it")
            engine = Engine(
                lowered.graph,
                self.store,
                self.inputs,
                self.executor,
                execute=self.execute,
                keys=self.builder._keys,
                walker=self.builder._walker,
                observer=self.builder.observe,
                jobs=self.builder._jobs,
                pool=self.builder._pool,
                cancelled=self.cancelled,
            )
            run = engine.run()
            interrupt = run.interrupt
            if not self.execute:
                run = self._without_hope(lowered, run)
            result = reporter.result(
                lowered,
                run,
                time.monotonic() - self.started,
                base=self._bases.get(lowered.base) if lowered.base else None,
                names=self.request.tags,
                annotations=self.request.annotations,
                fetch=self._ensure,
                again=lambda: self.builder.run(self.request),
            )
            if self.execute and interrupt is None:
                self._keep(reporter, lowered, run, result)
            if run.error is not None:
                raise run.error
        except LayerCacheError as error:
            if self.execute:
                self.store.commit()
            seconds = time.monotonic() - self.started
            error.report = reporter.failure(error, seconds)
            self.builder.observe(BuildFinished(False, seconds, time.time(), str(error)))
            if interrupt is not None:
                raise interrupt from error
            raise
        finally:
            self.inputs.close()
            if self._images is not None and result is None:
                self._images.close()
        self.builder.observe(BuildFinished(True, result.report.seconds, time.time()))
        return result

    def _without_hope(self, lowered: Lowered, run: WalkResult) -> WalkResult:
        """Undetermined steps that no record could match, whatever they wait for, would run."""
        waiting = [d for d in run.decisions if d.outcome == "undetermined"]
        records = self.store.all_records(_MAX_RECORDS) if waiting else None
        if records is None:
            return run
        decisions = []
        for decision in run.decisions:
            step = lowered.graph.vertices[decision.vertex]
            if (
                decision.outcome == "undetermined"
                and isinstance(step, Step)
                and not could_match(step, decision.inputs, self.builder._keys, records)
            ):
                decision = evolve(decision, outcome="would-run", until=())
            decisions.append(decision)
        return evolve(run, decisions=tuple(decisions))

    def _keep(
        self, reporter: Reporter, lowered: Lowered, run: WalkResult, result: BuildResult
    ) -> None:
        reporter.keep_trail(lowered, run, self.request.tags)
        reporter.keep_totals(result.report)
        if run.error is None and self.request.tags:
            result.tag()
        durable = self.store.commit()
        if run.error is None and self.request.tags and not durable:
            raise CacheError(
                f"the image can't be tagged {', '.join(self.request.tags)}: the cache could not "
                "make it durable; a tag that was there stays"
            )

    def _against(self) -> Against | None:
        if self.request.against is None:
            return None
        recipe = self.request.recipe
        instructions = recipe.instructions if isinstance(recipe, Dockerfile) else tuple(recipe)
        texts = [getattr(i, "text", getattr(i, "name", "")) for i in instructions]
        return against(self.store, self.request.against, texts)

    def _note(self, message: str) -> None:
        self.builder.observe(Note(message, time.time()))

    # -- the recipe -------------------------------------------------------------------------

    def _lower(self) -> Lowered:
        request = self.request
        recipe = request.recipe
        instructions = recipe.instructions if isinstance(recipe, Dockerfile) else tuple(recipe)
        host = self._host_platform()
        options = Options(
            args=arguments_of(request.args),
            target=request.target,
            contexts={n.lower(): is_image(c) for n, c in request.contexts.items()},
            platform=one_spelling(request.platform) or host,
            build_platform=host,
            no_cache=bypass_of(request.no_cache),
            no_cache_stages=frozenset(name.lower() for name in request.no_cache_filter),
            network=request.network,
            hosts=tuple((name, address) for name, address in request.add_hosts),
            shm_size=request.shm_size,
            ulimits=tuple(request.ulimits),
            labels=request.labels,
            escape=recipe.escape if isinstance(recipe, Dockerfile) else "\\",
            host_path=not getattr(self.executor, "base_images", True),
        )
        known: dict[ImageNeed, BaseImage] = {}
        for _ in range(_MAX_RESOLVE_ROUNDS):
            lowered = lower(instructions, options, known)
            if isinstance(lowered, Lowered):
                return lowered
            for need in lowered.images:
                try:
                    known[need] = self._resolve(need)
                except LayerCacheError as error:
                    error.line = error.line or _line_naming(instructions, need.name)
                    raise
        raise UsageError("the recipe needs ever more images; it was given up")

    def _host_platform(self) -> str:
        from layercache.oci.platforms import host_platform

        return str(host_platform())

    def need_executor(self) -> Executor:
        """The executor, made when a step first needs one."""
        if self.executor is None:
            self.executor = self.builder.strongest_executor(self._note)
        return self.executor

    # -- images and contexts ----------------------------------------------------------------

    def _resolve(self, need: ImageNeed) -> BaseImage:
        if not getattr(self.executor, "base_images", True):
            # The executor has no use for the files: the name alone is the base's identity.
            chain = ChainID(sha256(b"base image by name: " + need.name.encode()))
            return BaseImage(need.name, State(chain_id=chain), ImageConfig())
        contexts = {name.lower(): context for name, context in self.request.contexts.items()}
        given = contexts.get(need.name.lower())
        if given is None and "://" in need.name:
            raise UsageError(f"{need.name}: an image is opened by its path only as a context")
        name = str(given).removeprefix("docker-image://") if given is not None else need.name
        found = self._image_resolver().resolve(name, need.platform or None)
        self._bases[need] = found
        self._compare_platforms(need, found.config)
        return BaseImage(need.name, found.state, found.config)

    def _compare_platforms(self, need: ImageNeed, config: ImageConfig) -> None:
        """Say so where a base image is for another platform than the one asked for."""
        from layercache.oci.platforms import Platform, host_platform

        wanted = Platform.parse(need.platform) if need.platform else host_platform()
        said = {"os": config.os, "architecture": config.architecture, "variant": config.variant}
        offered = Platform.from_oci(said)
        if offered is not None and not wanted.may_run(said):
            self._note(f"{need.name} is an image for {offered}, not for {wanted}")

    def _open_remote(self, source: Source) -> Tree:
        """What the recipe names beyond contexts and images, with what the build was given."""
        from layercache.inputs.access import Access
        from layercache.inputs.fetch import open_remote

        given = self.builder._executor_options
        access = Access(given.get("secrets") or {}, given.get("ssh") or {})
        return open_remote(source, self.store, access)

    def _image_resolver(self) -> Images:
        if self._images is None:
            make = self.builder._make_images
            if make is None:
                from layercache.images.sources import default_images

                self._images = default_images(
                    self.store, pull=self.request.pull, write=self.execute
                )
            else:
                self._images = make(self.store)
        return self._images

    def _fetch(self, layer: Any) -> bool:
        if self._images is None:
            return False
        return self._images.fetch(layer)

    def _ensure(self, layer: Layer) -> Layer:
        """A layer with its bytes in the store."""
        if self.store.has_blob(layer.descriptor) or self._images is None:
            return layer
        return self._images.ensure(layer)

    def _contexts(self) -> dict[str, Callable[[], Tree]]:
        from layercache.inputs.context import context_maker

        request = self.request
        makers: dict[str, Callable[[], Tree]] = {}
        recipe = request.recipe
        path = recipe.path if isinstance(recipe, Dockerfile) else None
        if request.context is not None:
            makers[""] = context_maker(
                request.context,
                self.store,
                dockerfile=path,
                write=self.execute,
                paranoid=request.paranoid,
            )
        for name, context in request.contexts.items():
            if not is_image(context):
                makers[name.lower()] = context_maker(
                    context, self.store, write=self.execute, paranoid=request.paranoid
                )
        return makers


def _rows(lowered: Lowered) -> list[tuple[int, int, str, str]]:
    """The steps by which any machine names the trail of this target."""
    needed = lowered.graph.needed()
    return [
        (row.origin.stage, row.origin.index, row.origin.op, row.origin.text)
        for row in lowered.rows
        if row.vertex in needed and row.origin.onbuild is None
    ]


def _line_naming(instructions: Sequence[Any], image: str) -> int | None:
    """The first line that names an image as it is."""
    for instruction in instructions:
        location = getattr(instruction, "location", None)
        named = (getattr(instruction, "image", None), getattr(instruction, "from_", None))
        if location is not None and image in named:
            return int(location.line)
    return None


def _open_store(cache: str | os.PathLike[str] | Store | None) -> Store:
    from layercache.store.open import open_store
    from layercache.store.store import Store

    if isinstance(cache, Store):
        return cache
    return open_store(None if cache is None else os.fspath(cache))
