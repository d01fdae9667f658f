"""What a build gives back, and how it is made: reports, reasons, trails, the image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from layercache.codec import redact
from layercache.descriptors import SCRATCH, Layer, State
from layercache.digests import Fingerprint
from layercache.dockerfile.options import Lowered, Row
from layercache.engine import Run
from layercache.errors import CacheError, LayerCacheError, SourceError, UsageError
from layercache.explain import CAUSES, Earlier, Reason, compare, describe
from layercache.graph import Base, Graph, Step
from layercache.inputs import Inputs
from layercache.listings import FileChange, decode_listing, diff_listings, listing
from layercache.operations import PARENT
from layercache.records import Record
from layercache.report import ErrorReport, ImageReport, Report, StepReport
from layercache.selections import Files
from layercache.statistics import Totals
from layercache.trails import Trail, TrailStep
from layercache.walk import Decision

if TYPE_CHECKING:
    from layercache.images.built import BuiltImage
    from layercache.images.outputs import OutputSpec
    from layercache.images.resolver import BaseImage
    from layercache.store import Store

__all__ = ["BuildResult", "Reporter", "trail_id"]


@attrs.frozen(eq=False, kw_only=True)
class BuildResult:
    """A finished build, or a plan.

    `report` is the whole as plain values; `state` the stack of layers of the target (None in a
    plan that would run something); `built` what image files are written from; `graph` and
    `decisions` what was walked and how it ended.
    """

    report: Report
    state: State | None
    built: BuiltImage | None
    graph: Graph
    decisions: tuple[Decision, ...]
    _inputs: Inputs
    _store: Store
    _fetch: Callable[[Layer], Layer]
    _again: Callable[[], BuildResult]

    @property
    def steps(self) -> tuple[StepReport, ...]:
        """One for each instruction of the recipe, in file order."""
        return self.report.steps

    @property
    def image(self) -> ImageReport | None:
        """Digests of the image; None in a plan that would run something."""
        return self.report.image

    def explain(self, step: int | StepReport) -> str:
        """Why a step was executed or reused, in a few sentences; a number counts in `steps`."""
        found = self.steps[step] if isinstance(step, int) else step
        return explain_step(found, self.steps)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the report."""
        return self.report.to_dict()

    def to_html(self, title: str = "Build") -> str:
        """The report as one self-contained page."""
        from layercache.rendering.html import html_report

        return html_report(self.report, title)

    def _repr_html_(self) -> str:
        from layercache.rendering.html import html_fragment

        return html_fragment(self.report)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flow chart, coloured by decision."""
        from layercache.rendering.graphs import mermaid

        return mermaid(self.graph, self.decisions)

    def to_dot(self) -> str:
        """The graph as a Graphviz digraph, coloured by decision."""
        from layercache.rendering.graphs import dot

        return dot(self.graph, self.decisions)

    def log(self, step: int | StepReport) -> bytes:
        """What a step wrote when it was executed, now or when it was recorded."""
        found = self.steps[step] if isinstance(step, int) else step
        if found.key is None:
            return b""
        record = self._store.lookup([found.key]).get(found.key)
        return self._store.read_blob(record.log) if record and record.log else b""

    def tree(self) -> Any:
        """The result's root file system as a `Tree`."""
        if self.state is None:
            raise SourceError("this plan would run something: there is no result to look at")
        return self._inputs.tree(self.state)

    # -- out ----------------------------------------------------------------------------------

    def export(self, spec: OutputSpec | str) -> BuildResult:
        """Write the image as `spec` says (`type=oci,dest=PATH` and so on).

        Returns the result with the digests of what was written. Raises `UsageError` for what
        can't be written, `SourceError` when reading or writing fails.
        """
        from layercache.images.outputs import parse_output

        wanted = parse_output(spec) if isinstance(spec, str) else spec
        try:
            return self._export(wanted)
        except CacheError:
            # Reading showed a reused layer to be gone or damaged: it is made again, once.
            return self._healed()._export(wanted)

    def _healed(self) -> BuildResult:
        for layer in self.state.layers if self.state is not None else ():
            self._store.check_blob(layer.descriptor)
        return self._again()

    def _export(self, wanted: OutputSpec) -> BuildResult:
        from layercache.images.exporting import export

        if self.built is None:
            raise UsageError("a plan has no result to write")
        if wanted.type in {"oci", "docker", "registry"} and _base_by_name(self.state):
            raise UsageError(
                f"--output type={wanted.type}: the base image was a name only, so there is no "
                "whole image to write: begin with FROM scratch, or use --executor rootfs"
            )
        exported = export(
            self.built,
            wanted,
            content=self._store,
            fetch=self._fetch,
            tree=self.tree,
            epoch=source_date_epoch(),
            registry=None,
        )
        if exported.config_digest is None or self.image is None:
            return self
        image = attrs.evolve(
            self.image,
            config_digest=exported.config_digest,
            manifest_digest=exported.manifest_digest,
        )
        return attrs.evolve(self, report=attrs.evolve(self.report, image=image))

    def tag(self) -> None:
        """Keep the image under its names in the cache: a later FROM finds it there."""
        from layercache.images.tags import tag_image

        if self.built is not None:
            tag_image(self._store, self.built, self._fetch)


def _base_by_name(state: State | None) -> bool:
    """Whether the lowest state is a name without layers (workspace executor)."""
    while state is not None and state.layer is not None:
        state = state.parent
    return state is not None and bool(state.chain_id)


def source_date_epoch() -> int | None:
    """SOURCE_DATE_EPOCH of the environment, in seconds since 1970."""
    from layercache.images.built import source_date

    return source_date(os.environ.get("SOURCE_DATE_EPOCH"))


def _annotations(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    from layercache.images.outputs import parse_annotation

    found = [parse_annotation(text) for text in texts]
    return tuple((a.key, a.value) for a in found if a.kind == "manifest")


def explain_step(step: StepReport, steps: Sequence[StepReport]) -> str:
    """A few sentences about one decision."""
    title = f"{step.op} (stage {step.stage}, step {step.index}): {step.text}"
    if step.decision is None:
        return f"{title}\n  decides nothing: it changes the image's configuration only"
    if step.decision == "skip":
        return f"{title}\n  was not evaluated: the target does not need it"
    names = {other.place: other.text for other in steps}
    lines = [title]
    if step.decision == "hit":
        lines.append(
            f"  reused by {step.evidence}: the instruction and what it reads are the same as "
            f"before; {step.saved_seconds:.1f} s saved"
        )
    if step.decision == "undetermined":
        waits = ", ".join(repr(names.get(place, "?")) for place in step.until)
        lines.append(f"  can't be known before {waits or 'an earlier step'} has run")
    reason = step.reason
    if reason is not None:
        verb = "differs from the build compared with" if step.decision == "hit" else "executed"
        verb = "would run" if step.decision in {"would-run", "undetermined"} else verb
        lines.append(f"  {verb}: {CAUSES[reason.cause]}: {describe(reason, names)}")
        for change in reason.changes:
            values = ""
            if change.old is not None or change.new is not None:
                values = f": {change.old!r} -> {change.new!r}"
            lines.append(f"    {change.kind} {change.path}: {change.what}{values}")
        if reason.step is not None:
            lines.append(f"  it began with {names.get(reason.step, 'an earlier step')!r}")
        if reason.compared_with:
            lines.append(
                f"  compared with the last build of this step, {reason.compared_with[:16]}"
            )
    followers = [s for s in steps if s.reason is not None and s.reason.step == step.place]
    if followers:
        cost = sum(s.seconds for s in followers)
        lines.append(f"  {len(followers)} later steps fell with it ({cost:.1f} s):")
        lines += [f"    {s.text}" for s in followers]
    return "\n".join(lines)


@attrs.frozen
class Against:
    """An earlier build to compare with: its trail, and the store that has what it names."""

    store: Store
    trail: Trail
    name: str


def tag_project(tag: str) -> str:
    """The project name under which the trail of a tagged image is kept."""
    from layercache.references import Reference

    return f"tag\0{Reference.parse(tag).tagged()}"


def against(store: Store, name: str, texts: Sequence[str]) -> Against:
    """The build that `--against name` means.

    A tag of this cache, else a cache (directory or URL), of which the build with the most steps
    of these texts is taken. Raises `UsageError` when there is none.
    """
    from layercache.errors import UsageError
    from layercache.locations import open_store

    looks_like_place = "://" in name or os.path.isdir(name) or name.startswith("type=")
    if not looks_like_place:
        trail = store.get_trail(trail_id(tag_project(name)))
        if trail is None:
            raise UsageError(
                f"--against {name}: no image of that name was built with this cache, and it is "
                "no directory or URL of another cache"
            )
        return Against(store, trail, name)
    other = open_store(name)
    wanted = set(texts)
    best: Trail | None = None
    most = 0
    for found in other.trails():
        common = len(wanted & {step.text for step in found.steps})
        if common > most:
            best, most = found, common
    if best is None:
        raise UsageError(f"--against {name}: that cache has no build with these steps")
    return Against(other, best, name)


def trail_id(project: str) -> str:
    """The name of a project's trail: a digest, so that paths stay private."""
    from blake3 import blake3

    context = "layercache 2026-11 trail of a project"
    return blake3(
        project.encode("utf-8", "surrogateescape"), derive_key_context=context
    ).hexdigest()


class Reporter:
    """Turns decisions into reports, with the reason of every miss."""

    def __init__(
        self, store: Store, inputs: Inputs, project: str, against: Against | None = None
    ) -> None:
        self._store = store
        self._inputs = inputs
        self._name = trail_id(project)
        self._steps: tuple[StepReport, ...] = ()
        self._against = against
        self._trail = self._read_trail()

    def keep_totals(self, report: Report) -> None:
        """Add this build to the counts of the cache's life; a lost race loses a count."""
        try:
            kept = self._store.get_derived("stats", "life")
            before = Totals.decode(kept) if kept is not None else Totals()
        except CacheError:
            before = Totals()
        try:
            self._store.put_derived("stats", "life", before.plus(Totals.of(report)).encode())
        except CacheError:
            return

    def _read_trail(self) -> Trail | None:
        if self._against is not None:
            return self._against.trail
        try:
            return self._store.get_trail(self._name)
        except CacheError:
            return None

    # -- reports ----------------------------------------------------------------------------

    def result(
        self,
        lowered: Lowered,
        run: Run,
        seconds: float,
        *,
        base: BaseImage | None,
        names: Sequence[str],
        annotations: Sequence[str],
        fetch: Callable[[Layer], Layer],
        again: Callable[[], BuildResult],
    ) -> BuildResult:
        """The result of a walk that came to its end, well or not."""
        decisions = {decision.vertex: decision for decision in run.decisions}
        reasons = self._reasons(lowered, decisions, run)
        self._steps = tuple(
            self._step(row, decisions, reasons, run, lowered) for row in lowered.rows
        )
        saved = sum(step.saved_seconds for step in self._steps)
        state = self._state(lowered, decisions)
        built = None
        if state is not None and run.error is None:
            built = self._built(lowered, decisions, state, base)
            built = attrs.evolve(built, names=tuple(names), annotations=_annotations(annotations))
        error = run.error
        report = Report(
            ok=error is None,
            error=_error(error) if error is not None else None,
            steps=self._steps,
            image=_image(built, state) if built is not None and state is not None else None,
            seconds=seconds,
            saved_seconds=saved,
        )
        return BuildResult(
            report=report,
            state=state,
            built=built,
            graph=lowered.graph,
            decisions=run.decisions,
            inputs=self._inputs,
            store=self._store,
            fetch=fetch,
            again=again,
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
        run: Run,
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
            until=tuple(_place(lowered, vertex) for vertex in decision.until),
            likely=self._likely(decision, row),
            error=str(decision.error) if decision.error is not None else None,
            **common,
        )

    def _likely(self, decision: Decision, row: Row) -> str | None:
        """For an undetermined step: what the last build of this project suggests."""
        if decision.outcome != "undetermined":
            return None
        earlier = self._earlier(row)
        return "would-run" if earlier is None or earlier.record is None else "hit"

    # -- reasons ----------------------------------------------------------------------------

    def _reasons(
        self, lowered: Lowered, decisions: Mapping[int, Decision], run: Run
    ) -> dict[int, Reason]:
        rows = {row.vertex: row for row in lowered.rows if row.vertex is not None}
        found: dict[int, Reason] = {}
        for vertex, decision in decisions.items():
            row = rows.get(vertex)
            if row is None:
                continue
            if self._against is not None:
                if decision.key is None or self._as_against(row, decision):
                    continue
            elif decision.outcome not in {"miss", "would-run"}:
                continue
            found[vertex] = self._reason(lowered, decisions, decision, row, run, found)
        return found

    def _reason(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        decision: Decision,
        row: Row,
        run: Run,
        known: Mapping[int, Reason],
    ) -> Reason:
        step = lowered.graph.vertices[decision.vertex]
        assert isinstance(step, Step)
        if step.bypass:
            return Reason("no-cache")
        if decision.key in run.lost:
            return Reason("lost", compared_with=decision.key)
        earlier = self._earlier(row)
        if earlier is None or earlier.record is None or decision.material is None:
            return Reason("first-build")
        if earlier.key == decision.key:
            return Reason("evicted", compared_with=earlier.key)
        parent = next((e.vertex for e in step.inputs if e.role == PARENT), None)
        base = parent is not None and isinstance(lowered.graph.vertices[parent], Base)
        reason = compare(
            Earlier(earlier.key, redact(earlier.key, earlier.record.material)),
            redact(earlier.key, decision.material),
            self._file_changes(lowered, decisions, step, decision, earlier.record),
            base=base,
        )
        if any(change.kind == "step" for change in reason.changes):
            reason = attrs.evolve(reason, step=self._culprit(lowered, decisions, parent, known))
        return reason

    def _culprit(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        vertex: int | None,
        known: Mapping[int, Reason],
    ) -> tuple[int, int] | None:
        """The earlier step whose own change began it."""
        while vertex is not None:
            step = lowered.graph.vertices[vertex]
            if not isinstance(step, Step):
                return None
            reason = known.get(vertex)
            if reason is not None:
                follows = reason.cause == "parent" and reason.step is not None
                return reason.step if follows else _place(lowered, vertex)
            vertex = next((e.vertex for e in step.inputs if e.role == PARENT), None)
        return None

    def _file_changes(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        step: Step,
        decision: Decision,
        earlier: Record,
    ) -> dict[Fingerprint, Sequence[FileChange]]:
        found: dict[Fingerprint, Sequence[FileChange]] = {}
        material = decision.material
        if material is None:
            return found
        old = {entry.role: entry.fingerprint for entry in earlier.material.inputs}
        stored = dict(earlier.manifests)
        for edge, entry in zip(step.inputs, material.inputs, strict=True):
            before = old.get(edge.role)
            if not isinstance(edge.selector, Files) or before in (None, entry.fingerprint):
                continue
            digest = stored.get(Fingerprint(str(before)))
            if digest is None:
                continue
            try:
                store = self._store if self._against is None else self._against.store
                rows = decode_listing(store.read_blob(digest))
                tree = self._inputs.tree(self._subject(lowered, decisions, edge.vertex))
                changes = diff_listings(rows, listing(tree, edge.selector))
            except (CacheError, SourceError):
                continue  # the reason then says "source" without the files
            found[entry.fingerprint] = changes
        return found

    def _subject(self, lowered: Lowered, decisions: Mapping[int, Decision], number: int) -> Any:
        vertex = lowered.graph.vertices[number]
        if isinstance(vertex, Base):
            return vertex.state
        if isinstance(vertex, Step):
            return decisions[number].state or SCRATCH
        return vertex

    def _as_against(self, row: Row, decision: Decision) -> bool:
        """Whether the build that is compared with had the same key here."""
        earlier = self._earlier(row)
        return earlier is not None and earlier.key == decision.key

    # -- trails -----------------------------------------------------------------------------

    def _earlier(self, row: Row) -> TrailStep | None:
        """The step of the last build that this one is compared with.

        The same text in the same stage first, nearest by position; else the same operation at
        the same place.
        """
        if self._trail is None:
            return None
        origin = row.origin
        same_stage = [s for s in self._trail.steps if s.stage == origin.stage and s.record]
        same = [s for s in same_stage if s.text == origin.text]
        if not same:
            same = [s for s in self._trail.steps if s.record and s.text == origin.text]
        if same:
            return min(same, key=lambda s: abs(s.index - origin.index))
        here = [s for s in same_stage if s.index == origin.index and s.op == origin.op]
        return here[0] if here else None

    def keep_trail(self, lowered: Lowered, run: Run, names: Sequence[str] = ()) -> None:
        """Remember this build for the explanations of the next; unchanged trails cost nothing.

        Under `names`, too, so that a later build can be compared with an image by its tag.
        """
        decisions = {decision.vertex: decision for decision in run.decisions}
        old = {(s.stage, s.index): s for s in self._trail.steps} if self._trail else {}
        steps = []
        for row in lowered.rows:
            if row.vertex is None or row.origin.onbuild is not None:
                continue
            decision = decisions[row.vertex]
            origin = row.origin
            if decision.record is None or decision.state is None:
                kept = old.get((origin.stage, origin.index))
                if kept is not None:
                    steps.append(kept)
                continue
            steps.append(
                TrailStep(
                    stage=origin.stage,
                    index=origin.index,
                    op=origin.op,
                    text=origin.text,
                    key=decision.record.key,
                    chain_id=decision.state.chain_id,
                    record=decision.record,
                )
            )
        if self._trail is not None and _same_trail(self._trail.steps, steps) and not names:
            return
        if self._against is not None:
            return
        try:
            self._store.put_trail(Trail(self._name, tuple(steps)))
            for name in names:
                self._store.put_trail(Trail(trail_id(tag_project(name)), tuple(steps)))
        except CacheError:
            return  # explanations of the next build are poorer, nothing else

    # -- the image --------------------------------------------------------------------------

    def _built(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        state: State,
        base: BaseImage | None,
    ) -> BuiltImage:
        from layercache.images.built import BuiltImage

        history = []
        for entry, vertex in lowered.history:
            decision = decisions.get(vertex) if vertex is not None else None
            made = decision is not None and decision.record is not None
            layer = made and decision.record.layer is not None  # type: ignore[union-attr]
            history.append(attrs.evolve(entry, empty_layer=not layer))
        return BuiltImage(
            config=lowered.config,
            layers=state.layers,
            base=base,
            history=tuple(history),
        )


def _same_trail(old: Sequence[TrailStep], new: Sequence[TrailStep]) -> bool:
    def facts(steps: Sequence[TrailStep]) -> list[tuple[Any, ...]]:
        return [(s.stage, s.index, s.op, s.text, s.key, s.chain_id) for s in steps]

    return facts(old) == facts(new)


def _place(lowered: Lowered, vertex: int) -> tuple[int, int]:
    step = lowered.graph.vertices[vertex]
    return (step.origin.stage, step.origin.index) if isinstance(step, Step) else (-1, -1)


def _error(error: LayerCacheError) -> ErrorReport:
    return ErrorReport(code=error.code, message=str(error), line=error.line)


def _image(built: BuiltImage, state: State) -> ImageReport:
    from layercache.images.built import assemble

    done = assemble(built)
    return ImageReport(
        config_digest=done.config.digest,
        manifest_digest=done.manifest.digest if done.manifest is not None else None,
        diff_ids=tuple(layer.diff_id for layer in state.layers),
        chain_id=state.chain_id,
    )
