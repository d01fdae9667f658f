"""What a build gives back: its report, its state, and what can be made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from layercache._base.classes import evolve, frozen
from layercache.errors import CacheError, SourceError, UsageError
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import Layer, State
from layercache.model.graph import Graph
from layercache.reports.report import ImageReport, Report, StepReport
from layercache.solver.protocol import Decision

if TYPE_CHECKING:
    from layercache.images.built import BuiltImage
    from layercache.images.output_spec import OutputSpec
    from layercache.store.store import Store

__all__ = ["BuildResult", "explain_step", "source_date_epoch"]


@frozen(eq=False, kw_only=True)
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
    notes: tuple[str, ...] = ()
    """What `export` left out, a sentence each."""
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
        from layercache.reports.html import html_report

        return html_report(self.report, title)

    def _repr_html_(self) -> str:
        from layercache.reports.html import html_fragment

        return html_fragment(self.report)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flow chart, coloured by decision."""
        from layercache.reports.diagrams import mermaid

        return mermaid(self.graph, self.decisions)

    def to_dot(self) -> str:
        """The graph as a Graphviz digraph, coloured by decision."""
        from layercache.reports.diagrams import dot

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
        from layercache.images.output_spec import parse_output

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
        from layercache.images.export import export

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
        if exported.notes:
            return evolve(self, notes=(*self.notes, *exported.notes))
        if exported.config_digest is None or self.image is None:
            return self
        image = evolve(
            self.image,
            config_digest=exported.config_digest,
            manifest_digest=exported.manifest_digest,
        )
        return evolve(self, report=evolve(self.report, image=image))

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
    if step.results > 1:
        lines.append(
            f"  its key has given {step.results} different results: `layercache probe` says what "
            "differs from run to run"
        )
    if step.untraced is not None:
        lines.append(f"  not traced: {step.untraced}")
    reason = step.reason
    if reason is not None:
        verb = "differs from the build compared with" if step.decision == "hit" else "executed"
        verb = "would run" if step.decision in {"would-run", "undetermined"} else verb
        from layercache.reports.reasons import CAUSES, describe

        cause, described = CAUSES[reason.cause], describe(reason, names)
        lines.append(f"  {verb}: {cause}" + (f": {described}" if described != cause else ""))
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
    elif step.decision == "would-run":
        lines.append(
            "  would run: not in this cache; the build compared with has it, as far as known"
        )
    followers = [s for s in steps if s.reason is not None and s.reason.step == step.place]
    if followers:
        cost = sum(s.seconds for s in followers)
        lines.append(f"  {len(followers)} later steps fell with it ({cost:.1f} s):")
        lines += [f"    {s.text}" for s in followers]
    return "\n".join(lines)
