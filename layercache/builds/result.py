"""The result of a build: its report, its state, and conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layercache._base.classes import frozen
from layercache.errors import SourceError
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import Descriptor, Layer, State
from layercache.model.graph import Graph
from layercache.reports.report import ImageReport, Report, StepReport
from layercache.solver.protocol import Decision

if TYPE_CHECKING:
    from layercache.images.built import BuiltImage
    from layercache.store.parts import Cache

__all__ = ["BuildResult", "ResultContent"]


@frozen(eq=False)
class ResultContent:
    """The services behind a result: to read it, to export it, and to build it again.

    `fetch` brings the bytes of a layer into the store, `again` builds the request once more.
    """

    store: Cache
    inputs: Inputs
    fetch: Callable[[Layer], Layer]
    again: Callable[[], BuildResult]


@frozen(eq=False, kw_only=True)
class BuildResult:
    """A finished build, or a plan.

    `report` holds all facts as plain values; `state` is the stack of layers of the target (None in
    a plan that would run something); `built` is the input for writing image files; `graph` and
    `decisions` are the walked graph and the final decisions.
    """

    report: Report
    state: State | None
    built: BuiltImage | None
    graph: Graph
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()
    """One sentence for each thing that `export` left out."""
    manifest: Descriptor | None = None
    """The manifest that `export` wrote last."""
    names: tuple[str, ...] = ()
    """The complete names under which `export` wrote the image."""
    content: ResultContent

    @property
    def steps(self) -> tuple[StepReport, ...]:
        """One for each instruction of the recipe, in file order."""
        return self.report.steps

    @property
    def image(self) -> ImageReport | None:
        """Digests of the image; None in a plan that would run something.

        Those of archives are None as long as some layer has no archive; see
        `layercache.seal`.
        """
        return self.report.image

    def explain(self, step: int | StepReport) -> str:
        """Why a step was executed or reused, in a few sentences; a number counts in `steps`."""
        from layercache.reports.step_text import explain_step

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
        """The output of a step from its execution, in this build or when it was recorded."""
        found = self.steps[step] if isinstance(step, int) else step
        if found.key is None:
            return b""
        record = self.content.store.records.lookup([found.key]).get(found.key)
        return self.content.store.blobs.read(record.log) if record and record.log else b""

    def tree(self) -> Any:
        """The result's root file system as a `Tree`."""
        if self.state is None:
            raise SourceError("this plan would run something, so it has no result to read")
        return self.content.inputs.tree(self.state)
