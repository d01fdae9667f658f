"""Conversion of a walk's decisions to a report and a result."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layercache._base.classes import evolve
from layercache.builds.history import BuildHistory
from layercache.builds.result import BuildResult, ResultContent
from layercache.dockerfile.lowering.options import Lowered, Row
from layercache.engine.driver import WalkResult
from layercache.errors import LayerCacheError
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import State
from layercache.model.graph import Base, Step
from layercache.model.keys import KeyStrategy
from layercache.reports.report import ErrorReport, ImageReport, Report, StepReport
from layercache.solver.narrowing import weak_key
from layercache.solver.protocol import Decision

if TYPE_CHECKING:
    from layercache.builds.baseline import Against
    from layercache.builds.reasons import Reasons
    from layercache.images.built import BuiltImage
    from layercache.images.resolver import BaseImage
    from layercache.reports.reasons import Reason
    from layercache.store.parts import Cache

__all__ = ["Reporter", "image_report"]


class Reporter:
    """Turns decisions into reports, with the reason of every miss."""

    def __init__(
        self,
        store: Cache,
        inputs: Inputs,
        history: BuildHistory,
        keys: KeyStrategy,
        against: Against | None = None,
    ) -> None:
        self._store = store
        self._inputs = inputs
        self._keys = keys
        self._history = history
        self._steps: tuple[StepReport, ...] = ()
        self._against = against

    @functools.cached_property
    def _reasons(self) -> Reasons:
        from layercache.builds.reasons import Reasons  # a build that reuses everything gives none

        return Reasons(self._store, self._inputs, self._keys, self._history.trail, self._against)

    # -- reports ----------------------------------------------------------------------------

    def result(
        self,
        lowered: Lowered,
        run: WalkResult,
        seconds: float,
        *,
        base: BaseImage | None,
        names: Sequence[str],
        annotations: Sequence[str],
        content: ResultContent,
    ) -> BuildResult:
        """The result of a walk that ended, with or without success."""
        decisions = {decision.vertex: decision for decision in run.decisions}
        reasons: Mapping[int, Reason] = {}
        if self._against is not None or any(d.outcome != "hit" for d in run.decisions):
            reasons = self._reasons.of(lowered, decisions, run)
        self._steps = _saved_once(
            self._step(row, decisions, reasons, run, lowered) for row in lowered.rows
        )
        saved = sum(step.saved_seconds for step in self._steps)
        state = self._state(lowered, decisions)
        built = None
        if state is not None and run.error is None:
            built = self._built(lowered, decisions, state, base)
            built = evolve(built, names=tuple(names), annotations=_annotations(annotations))
        error = run.error
        report = Report(
            ok=error is None,
            error=_error(error) if error is not None else None,
            steps=self._steps,
            image=image_report(built, state) if built is not None and state is not None else None,
            seconds=seconds,
            saved_seconds=saved,
        )
        return BuildResult(
            report=report,
            state=state,
            built=built,
            graph=lowered.graph,
            decisions=run.decisions,
            content=content,
        )

    def failure(self, error: LayerCacheError, seconds: float) -> Report:
        """The report of a build that ended with `error`, with the steps so far."""
        saved = sum(step.saved_seconds for step in self._steps)
        return Report(
            ok=False,
            error=_error(error),
            steps=self._steps,
            seconds=seconds,
            saved_seconds=saved,
        )

    def _state(self, lowered: Lowered, decisions: Mapping[int, Decision]) -> State | None:
        vertex = lowered.graph.vertices[lowered.target]
        if isinstance(vertex, Base):
            return vertex.state
        decision = decisions.get(lowered.target)
        return decision.state if decision is not None else None

    def _step(
        self,
        row: Row,
        decisions: Mapping[int, Decision],
        reasons: Mapping[int, Reason],
        run: WalkResult,
        lowered: Lowered,
    ) -> StepReport:
        origin = row.origin
        common: dict[str, Any] = {
            "stage": origin.stage,
            "index": origin.index,
            "onbuild": origin.onbuild,
            "line": origin.line,
            "op": origin.op,
            "text": origin.text,
        }
        if row.vertex is None:
            return StepReport(decision="skip" if row.decides else None, **common)
        decision = decisions[row.vertex]
        record, layer, size = decision.record, None, None
        if record is not None and record.layer is not None:
            layer, size = record.layer.descriptor.digest, record.layer.descriptor.size
        hit = decision.outcome == "hit"
        return StepReport(
            decision=decision.outcome,
            key=decision.key if decision.outcome != "skip" else None,
            evidence=decision.evidence,
            layer=layer,
            size=size,
            started=run.started.get(row.vertex),
            seconds=run.seconds.get(row.vertex, 0.0),
            saved_seconds=record.seconds if hit and record is not None else 0.0,
            reason=reasons.get(row.vertex),
            until=_places(lowered, decision.until),
            likely=self._likely(decision, row),
            error=str(decision.error) if decision.error is not None else None,
            untraced=self._untraced(decision, run, lowered),
            results=self._results(decision),
            **common,
        )

    def _results(self, decision: Decision) -> int:
        """How many different layers the key has given; known only if the step replaced a record."""
        record = decision.record
        if record is None or not record.generation:
            return 1
        from layercache.store.seen_results import results_of

        return max(1, len(results_of(self._store.derived, record.key)))

    def _untraced(self, decision: Decision, run: WalkResult, lowered: Lowered) -> str | None:
        """Why a command that should be traced is not reused by what it reads."""
        step = lowered.graph.vertices[decision.vertex]
        if not isinstance(step, Step) or step.trace == "off" or decision.evidence == "trace":
            return None
        reason = run.refusals.get(decision.vertex)
        if reason is None and decision.material is not None:
            weak = weak_key(decision.material)
            known = run.known.get(weak) or self._inputs.known.get(weak)
            reason = known.barred or ("" if known.candidates else known.refusal)
        return reason or None

    def _likely(self, decision: Decision, row: Row) -> str | None:
        """For an undetermined step: what the last build of this project suggests."""
        if decision.outcome != "undetermined":
            return None
        earlier = self._reasons.earlier(row)
        return "would-run" if earlier is None or earlier.record is None else "hit"

    # -- the image --------------------------------------------------------------------------

    def _built(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        state: State,
        base: BaseImage | None,
    ) -> BuiltImage:
        from layercache.images.built import BuiltImage, source_date

        history = []
        for entry, vertex in lowered.history:
            decision = decisions.get(vertex) if vertex is not None else None
            made = decision is not None and decision.record is not None
            layer = made and decision.record.layer is not None  # type: ignore[union-attr]
            if entry.empty_layer == layer:  # of another kind than expected
                entry = evolve(entry, empty_layer=not layer)
            history.append(entry)
        return BuiltImage(
            config=lowered.config,
            layers=state.layers,
            base=base,
            history=tuple(history),
            epoch=source_date(lowered.source_date),
        )


def _saved_once(steps: Iterable[StepReport]) -> tuple[StepReport, ...]:
    """Each key once: identical steps (in several stages, for example) would have run only once."""
    seen: set[str] = set()
    found = []
    for step in steps:
        key = step.key
        if step.saved_seconds and key is not None:
            if key in seen:
                step = evolve(step, saved_seconds=0.0)
            seen.add(key)
        found.append(step)
    return tuple(found)


def _places(lowered: Lowered, vertices: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if not vertices:
        return ()
    from layercache.builds.reasons import place_of

    return tuple(place_of(lowered, vertex) for vertex in vertices)


def _error(error: LayerCacheError) -> ErrorReport:
    return ErrorReport(code=error.code, message=str(error), line=error.line)


def image_report(built: BuiltImage, state: State) -> ImageReport:
    """The digests of an image; those of its archives are left open where it has none yet."""
    from layercache.images.built import assemble

    if any(layer.is_open for layer in built.layers):
        # Their digests are those of archives, which nobody asked for.
        return ImageReport(
            config_digest=None, manifest_digest=None, diff_ids=(), chain_id=state.chain_id
        )
    done = assemble(built)
    return ImageReport(
        config_digest=done.config.digest,
        manifest_digest=done.manifest.digest if done.manifest is not None else None,
        diff_ids=tuple(layer.archive for layer in built.layers),
        chain_id=state.chain_id,
    )


def _annotations(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if not texts:
        return ()
    from layercache.images.output_spec import parse_annotation

    found = [parse_annotation(text) for text in texts]
    return tuple((a.key, a.value) for a in found if a.kind == "manifest")
