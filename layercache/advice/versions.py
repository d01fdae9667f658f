"""The input of `advise`: the steps of a recipe, and the changes of each version of a context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layercache.advice.advise import AdviceStep, Place, RecipeVersion
from layercache.dockerfile.lowering.lower import lower
from layercache.dockerfile.lowering.options import Lowered, Options, ResolvedBase
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import SourceError
from layercache.model.descriptors import SCRATCH
from layercache.model.graph import Step
from layercache.model.image_config import ImageConfig
from layercache.model.operations import SOURCE, CopyFiles
from layercache.model.selectors import Files
from layercache.model.sources import ContextSource
from layercache.model.tree import Tree
from layercache.trees.listing import diff_listings, listing
from layercache.trees.selection import fingerprint

__all__ = ["plain_graph", "recorded_seconds", "steps_of", "versions_of"]


def plain_graph(recipe: Dockerfile, target: str | None, args: Mapping[str, str]) -> Lowered:
    """The recipe's graph with every base image taken by name alone; resolves nothing."""
    options = Options(args=args, target=target, escape=recipe.escape)
    known: dict[object, ResolvedBase] = {}
    while True:
        lowered = lower(recipe.instructions, options, known)  # type: ignore[arg-type]
        if isinstance(lowered, Lowered):
            return lowered
        for need in lowered.images:
            known[need] = ResolvedBase(need.name, SCRATCH, ImageConfig())


def steps_of(
    lowered: Lowered, recipe: Dockerfile, seconds: Mapping[str, float]
) -> tuple[AdviceStep, ...]:
    """The steps of the graph for `advise`; `seconds` by the text of the instruction."""
    places: dict[int, Place] = {}
    found = []
    lines = {
        i.location.line: i.location.end_line for i in recipe.instructions if i.location is not None
    }
    for number, vertex in enumerate(lowered.graph.vertices):
        if not isinstance(vertex, Step):
            continue
        origin = vertex.origin
        place = places[number] = (origin.stage, origin.index)
        operation = vertex.instruction
        after = [places[e.vertex] for e in vertex.inputs if e.vertex in places]
        context = _context_files(lowered, vertex)
        found.append(
            AdviceStep(
                place=place,
                op=origin.op,
                text=origin.text,
                seconds=seconds.get(origin.text, 0.0),
                sources=context.patterns if context is not None else (),
                destination=operation.destination if isinstance(operation, CopyFiles) else "",
                after=tuple(p for p in after if p[0] != place[0]),
                line=origin.line,
                end_line=lines.get(origin.line, origin.line),
            )
        )
    return tuple(found)


def _context_files(lowered: Lowered, step: Step) -> Files | None:
    """What a COPY or ADD takes from the main context."""
    for edge in step.inputs:
        source = lowered.graph.vertices[edge.vertex]
        if edge.role == SOURCE and source == ContextSource() and isinstance(edge.selector, Files):
            return edge.selector
    return None


def versions_of(trees: Iterable[tuple[str, Tree]], lowered: Lowered) -> tuple[RecipeVersion, ...]:
    """For each step, the changes of each tree compared with the previous one, the oldest first.

    `trees` are the names and files of successive states of the context; the first only serves
    for comparison.
    """
    versions = []
    before: dict[Place, tuple[str, tuple[object, ...]]] | None = None
    for name, tree in trees:
        now = _state_of(tree, lowered)
        if before is not None:
            versions.append(RecipeVersion(name, _changed(before, now)))
        before = now
    return tuple(versions)


def _state_of(tree: Tree, lowered: Lowered) -> dict[Place, tuple[str, tuple[object, ...]]]:
    """The fingerprint and listing of each step that takes files ("" if they are missing)."""
    found: dict[Place, tuple[str, tuple[object, ...]]] = {}
    for vertex in lowered.graph.vertices:
        if not isinstance(vertex, Step):
            continue
        files = _context_files(lowered, vertex)
        if files is None:
            continue
        place = (vertex.origin.stage, vertex.origin.index)
        try:
            found[place] = (fingerprint(tree, files), tuple(listing(tree, files)))
        except SourceError:
            found[place] = ("", ())
    return found


def _changed(
    before: Mapping[Place, tuple[str, tuple[object, ...]]],
    now: Mapping[Place, tuple[str, tuple[object, ...]]],
) -> dict[Place, tuple[str, ...]]:
    found = {}
    for place, (digest, rows) in now.items():
        old, old_rows = before.get(place, ("", ()))
        if old != digest:
            changes = diff_listings(old_rows, rows)  # type: ignore[arg-type]
            paths = {change.path for change in changes} | {c.old for c in changes if c.old}
            found[place] = tuple(sorted(paths))
    return found


def recorded_seconds(texts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Seconds by text of the instruction; for equal texts, the longest."""
    found: dict[str, float] = {}
    for text, seconds in texts:
        found[text] = max(found.get(text, 0.0), seconds)
    return found
