"""One build or plan under way: its recipe lowered, walked, reported and kept.

It has inputs, an engine and base images of its own; what it shares with others is its `Wiring`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layercache._base.classes import evolve, frozen
from layercache.builds.history import BuildHistory, trail_id
from layercache.builds.reporter import Reporter
from layercache.builds.request import (
    Request,
    arguments_of,
    bypass_of,
    is_image,
    one_spelling,
    project_of,
    with_source_date,
)
from layercache.builds.result import BuildResult, ResultContent
from layercache.dockerfile.lowering.lower import lower
from layercache.dockerfile.lowering.options import ImageNeed, Lowered, Options, ResolvedBase
from layercache.dockerfile.recipe import Dockerfile
from layercache.engine.driver import Engine, WalkResult
from layercache.engine.traits import check_steps, with_traits
from layercache.errors import (
    CacheError,
    CorruptObject,
    LayerCacheError,
    NotFound,
    UsageError,
)
from layercache.events import BuildFinished, BuildStarted, Note, Observer
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import Layer, State
from layercache.model.digests import ChainID, sha256
from layercache.model.graph import Step
from layercache.model.image_config import ImageConfig
from layercache.model.instruction import Source
from layercache.model.keys import KeyStrategy
from layercache.model.task import Executor, UsesBaseImages
from layercache.model.tree import Tree
from layercache.solver.protocol import Walker
from layercache.store.trails import beginnings_of, definition_of

if TYPE_CHECKING:
    from concurrent.futures import Executor as Pool

    from layercache.builds.base_images import BaseImages
    from layercache.builds.baseline import Against
    from layercache.images.resolver import Images
    from layercache.store.parts import Cache

__all__ = ["RunningBuild", "Wiring"]

_MAX_RESOLVE_ROUNDS = 1000
_MAX_RECORDS = 20_000
"""Records that a plan looks through; beyond, a step that waits stays undetermined."""


@frozen(eq=False, kw_only=True)
class Wiring:
    """What a builder gives to each of its builds.

    `executor` is None where `strongest` makes one when a step first needs it; `observe` takes
    events from any thread; `again` builds a request once more.
    """

    store: Cache
    executor: Executor | None
    strongest: Callable[[Callable[[str], None]], Executor]
    executor_options: Mapping[str, Any]
    keys: KeyStrategy
    walker: Walker
    images: Callable[[Cache], Images] | None
    jobs: int
    pool: Pool | None
    observe: Observer
    again: Callable[[Request], BuildResult]


class RunningBuild:
    """One build, or one plan where `execute` is False; `cancelled` ends it."""

    def __init__(
        self, wiring: Wiring, request: Request, execute: bool, cancelled: threading.Event
    ) -> None:
        self.wiring = wiring
        self.request = request
        self.execute = execute
        self.cancelled = cancelled
        self.store = wiring.store
        self.started = time.monotonic()
        self.executor = wiring.executor
        self._images: BaseImages | None = None
        self.inputs = Inputs(
            self.store,
            self._contexts(),
            remote=self._open_remote,
            fetch=self._fetch,
            write=self.execute,
            max_unpacked_size=request.max_unpacked_size,
        )

    def run(self) -> BuildResult:
        against = self._against()
        history = BuildHistory(self.store, project_of(self.request), compared=against is not None)
        reporter = Reporter(self.store, self.inputs, history, self.wiring.keys, against)
        result: BuildResult | None = None
        interrupt: KeyboardInterrupt | None = None
        try:
            for place in self._left_out:
                if any(place.startswith(f"{other}/") for other in self._left_out):
                    continue  # the note about the directory that holds it covers it
                self._note(f"{place} belongs to the build itself and is left out of the context")
            lowered = self._lower()
            self._check_selections(lowered)
            graph = with_traits(lowered.graph, self.need_executor, self.request.trace)
            check_steps(graph, self.executor)
            lowered = evolve(lowered, graph=graph)
            rows = _rows(lowered)
            project = trail_id(project_of(self.request))
            self.store.trails.prefetch([definition_of(rows), project], lambda: beginnings_of(rows))
            steps = sum(isinstance(v, Step) for v in lowered.graph.vertices)
            self.wiring.observe(BuildStarted(steps, time.time()))
            for name in lowered.unused_args:
                self._note(f"the build argument {name} was given, but no ARG declares it")
            for name in lowered.idle_args:
                self._note(f"the build argument {name} is for BuildKit and does nothing here")
            for name in lowered.unnamed:
                self._note(f"no stage is named {name!r}: no_cache_filter selects nothing by it")
            if lowered.source_date is not None:
                from layercache.images.built import source_date

                source_date(lowered.source_date)  # a wrong one is reported before anything runs
            engine = Engine(
                lowered.graph,
                self.store,
                self.inputs,
                self.executor,
                execute=self.execute,
                keys=self.wiring.keys,
                walker=self.wiring.walker,
                observer=self.wiring.observe,
                jobs=self.wiring.jobs,
                pool=self.wiring.pool,
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
                base=self._images.of(lowered.base) if self._images and lowered.base else None,
                names=self.request.tags,
                annotations=self.request.annotations,
                content=ResultContent(
                    self.store, self.inputs, self._ensure, lambda: self.wiring.again(self.request)
                ),
            )
            if self.execute and interrupt is None:
                result = self._keep(history, lowered, run, result)
            if run.error is not None:
                raise run.error
        except LayerCacheError as error:
            if self.execute:
                self.store.commit()
            seconds = time.monotonic() - self.started
            error.report = reporter.failure(error, seconds)
            self.wiring.observe(BuildFinished(False, seconds, time.time(), str(error)))
            if interrupt is not None:
                raise interrupt from error
            raise
        finally:
            self.inputs.close()
            if self._images is not None and result is None:
                self._images.close()
        self.wiring.observe(BuildFinished(True, result.report.seconds, time.time()))
        return result

    def _check_selections(self, lowered: Lowered) -> None:
        """Raise `UsageError` for a selection without a stage or step, where one is required."""
        if self.request.strict and lowered.unnamed:
            raise UsageError(
                f"no stage is named {lowered.unnamed[0]!r}: --no-cache-filter takes the names that "
                "FROM … AS gives"
            )
        steps = [v.origin for v in lowered.graph.vertices if isinstance(v, Step)]
        for selection in self.request.selections:
            selection.check(steps)

    def _without_hope(self, lowered: Lowered, run: WalkResult) -> WalkResult:
        """Mark undetermined steps as executed if no record could match them, whatever they wait
        for.
        """
        waiting = [d for d in run.decisions if d.outcome == "undetermined"]
        records = self.store.records.all(_MAX_RECORDS) if waiting else None
        if records is None:
            return run
        from layercache.solver.could_match import could_match

        decisions = []
        for decision in run.decisions:
            step = lowered.graph.vertices[decision.vertex]
            if (
                decision.outcome == "undetermined"
                and isinstance(step, Step)
                and not could_match(step, decision.inputs, self.wiring.keys, records)
            ):
                decision = evolve(decision, outcome="would-run", until=())
            decisions.append(decision)
        return evolve(run, decisions=tuple(decisions))

    def _keep(
        self, history: BuildHistory, lowered: Lowered, run: WalkResult, result: BuildResult
    ) -> BuildResult:
        """Keep what the next build goes by, and the tags; the result, built again where a layer
        that a tag needs turned out to be damaged."""
        history.keep_trail(lowered, run, self.request.tags)
        history.keep_totals(result.report)
        if run.error is None and self.request.tags:
            from layercache.builds.exporting import tag

            try:
                tag(result)
            except (CorruptObject, NotFound) as error:
                # Nobody had made its archive, and its files were lost since: the step makes it.
                self._note(f"the result is built again: {error}")
                again = self.wiring.again(evolve(self.request, tags=()))
                if again.built is not None and result.built is not None:
                    built = evolve(again.built, names=result.built.names)
                    result = evolve(again, built=built)
                tag(result)
        durable = self.store.commit()
        if run.error is None and self.request.tags and not durable:
            raise CacheError(
                f"can't tag the image {', '.join(self.request.tags)}: the cache could not "
                "make it durable; earlier tags of that name are kept"
            )
        return result

    def _against(self) -> Against | None:
        if self.request.against is None:
            return None
        recipe = self.request.recipe
        instructions = recipe.instructions if isinstance(recipe, Dockerfile) else tuple(recipe)
        texts = [getattr(i, "text", getattr(i, "name", "")) for i in instructions]
        from layercache.builds.baseline import baseline_of

        return baseline_of(self.store, self.request.against, texts)

    def _note(self, message: str) -> None:
        self.wiring.observe(Note(message, time.time()))

    # -- the recipe -------------------------------------------------------------------------

    def _lower(self) -> Lowered:
        request = self.request
        recipe = request.recipe
        instructions = recipe.instructions if isinstance(recipe, Dockerfile) else tuple(recipe)
        if isinstance(recipe, Dockerfile) and "error" in (recipe.check or ""):
            self._refuse_violations(recipe)
        host = self._host_platform()
        options = Options(
            args=with_source_date(arguments_of(request.args)),
            target=request.target,
            contexts={n.lower(): is_image(c) for n, c in request.contexts.items()},
            platform=one_spelling(request.platform) or host,
            platform_asked=bool(request.platform),
            spelling=one_spelling,
            build_platform=host,
            no_cache=bypass_of(request.no_cache),
            no_cache_stages=frozenset(name.lower() for name in request.no_cache_filter),
            network=request.network,
            hosts=tuple((name, address) for name, address in request.add_hosts),
            shm_size=request.shm_size,
            ulimits=tuple(request.ulimits),
            labels=request.labels,
            escape=recipe.escape if isinstance(recipe, Dockerfile) else "\\",
            host_path=self._by_name(),
        )
        known: dict[ImageNeed, ResolvedBase] = {}
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
        raise UsageError(
            "the build gave up: each base image that was resolved made the recipe need another one"
        )

    def _host_platform(self) -> str:
        from layercache.oci.platforms import host_platform

        return str(host_platform())

    def _by_name(self) -> bool:
        """Whether base images count by their names alone."""
        executor = self.executor
        return isinstance(executor, UsesBaseImages) and not executor.base_images

    def need_executor(self) -> Executor:
        """The executor, made when a step first needs one."""
        if self.executor is None:
            self.executor = self.wiring.strongest(self._note)
        return self.executor

    # -- images and contexts ----------------------------------------------------------------

    def _resolve(self, need: ImageNeed) -> ResolvedBase:
        if self._by_name():
            # The executor has no use for the files: the name alone is the base's identity.
            chain = ChainID(sha256(b"base image by name: " + need.name.encode()))
            return ResolvedBase(need.name, State(chain_id=chain), ImageConfig())
        return self._base_images().resolve(need)

    def _open_remote(self, source: Source) -> Tree:
        """Open a remote source (URL, Git repository) with the secrets and limits of this build."""
        from layercache.inputs.access import Access
        from layercache.inputs.fetch import open_remote

        given = self.wiring.executor_options
        access = Access(given.get("secrets") or {}, given.get("ssh") or {})
        return open_remote(source, self.store, access, allowance=self.inputs.allowance)

    def _base_images(self) -> BaseImages:
        if self._images is None:
            from layercache.builds.base_images import BaseImages

            make = self.wiring.images
            if make is None:
                from layercache.images.sources import default_images

                images = default_images(
                    self.store,
                    pull=self.request.pull,
                    write=self.execute,
                    allowance=self.inputs.allowance,
                )
            else:
                images = make(self.store)
            contexts = {name.lower(): at for name, at in self.request.contexts.items()}
            self._images = BaseImages(images, self.store, contexts, note=self._note)
        return self._images

    def _fetch(self, layer: Layer) -> bool:
        return self._images is not None and self._images.fetch(layer)

    def _refuse_violations(self, recipe: Dockerfile) -> None:
        """End a build of a file that says `# check=error=true` and violates a rule."""
        from layercache.checks.check import refuse_violations
        from layercache.inputs.context import ignore_rules

        context = self.request.context
        refuse_violations(
            recipe.text or "",
            recipe.name,
            build_args=arguments_of(self.request.args),
            ignore=(
                ignore_rules(os.fspath(context), recipe.path)
                if isinstance(context, str | os.PathLike)
                else None
            ),
        )

    def _ensure(self, layer: Layer) -> Layer:
        """A layer with its bytes in the store."""
        if layer.is_open:
            return self.store.blobs.sealed(layer)
        return layer if self._images is None else self._images.ensure(layer)

    def _contexts(self) -> dict[str, Callable[[], Tree]]:
        from layercache.inputs.context import context_maker

        request = self.request
        makers: dict[str, Callable[[], Tree]] = {}
        self._left_out: dict[str, None] = {}
        recipe = request.recipe
        path = recipe.path if isinstance(recipe, Dockerfile) else None
        if request.context is not None:
            makers[""] = context_maker(
                request.context,
                self.store,
                dockerfile=path,
                write=self.execute,
                paranoid=request.paranoid,
                left_out=self._own_places(request.context),
            )
        for name, context in request.contexts.items():
            if not is_image(context):
                makers[name.lower()] = context_maker(
                    context,
                    self.store,
                    write=self.execute,
                    paranoid=request.paranoid,
                    left_out=self._own_places(context),
                )
        return makers

    def _own_places(self, context: object) -> tuple[str, ...]:
        """The places below a context directory that the build itself keeps or writes."""
        if not isinstance(context, str | os.PathLike):
            return ()
        from layercache.inputs.own_places import below, directories_of

        places = [*directories_of(self.store, self.executor), *self.request.outputs]
        found = below(os.fspath(context), places)
        self._left_out.update(dict.fromkeys(found))
        return found


def _rows(lowered: Lowered) -> list[tuple[int, int, str, str]]:
    """The steps from which the name of the trail is computed, the same on every machine."""
    needed = lowered.graph.needed()
    return [
        (row.origin.stage, row.origin.index, row.origin.op, row.origin.text)
        for row in lowered.rows
        if row.vertex in needed and row.origin.onbuild is None
    ]


def _line_naming(instructions: Sequence[Any], image: str) -> int | None:
    """The line of the first FROM or `--from` that names the image literally."""
    for instruction in instructions:
        location = getattr(instruction, "location", None)
        named = [getattr(instruction, "image", None), getattr(instruction, "from_", None)]
        named += [getattr(mount, "from_", None) for mount in getattr(instruction, "mounts", ())]
        if location is not None and image in named:
            return int(location.line)
    return None
