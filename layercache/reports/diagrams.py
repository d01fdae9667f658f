"""The graph of a build as Mermaid or DOT text, its steps coloured by decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from layercache.model.graph import Graph, Step
from layercache.reports.visible import visible
from layercache.reports.wording import shortened
from layercache.solver.protocol import Decision

__all__ = ["dot", "mermaid"]

COLOURS: Final[Mapping[str, str]] = {
    "hit": "#2e8b57",
    "miss": "#c0562b",
    "skip": "#8a8f98",
    "would-run": "#c0562b",
    "undetermined": "#b8860b",
    "source": "#4a6fa5",
}
"""The fill colour of a step by its decision, and of a source."""


_MERMAID: Final = '"#;<>&`|\\%'


def _vertices(graph: Graph, decisions: Sequence[Decision]) -> list[tuple[int, str, str]]:
    """Number, label and kind of each vertex that the targets need."""
    outcomes: dict[int, str] = {decision.vertex: decision.outcome for decision in decisions}
    needed = graph.needed()
    found = []
    for number, vertex in enumerate(graph.vertices):
        if number not in needed:
            continue
        if isinstance(vertex, Step):
            text = " ".join(vertex.origin.text.split()) or vertex.instruction.name
            found.append((number, text, outcomes.get(number, "skip")))
        else:
            found.append((number, vertex.name, "source"))
    return found


def _edges(graph: Graph) -> list[tuple[int, int, str]]:
    needed = graph.needed()
    return [
        (edge.vertex, number, "" if edge.role == "parent" else edge.role)
        for number, vertex in enumerate(graph.vertices)
        if number in needed and isinstance(vertex, Step)
        for edge in vertex.inputs
    ]


def mermaid(graph: Graph, decisions: Sequence[Decision]) -> str:
    """A Mermaid flow chart."""
    lines = ["flowchart TD"]
    for number, label, kind in _vertices(graph, decisions):
        name = _node_text(shortened(label, 60))
        left, right = ("([", "])") if kind == "source" else ("[", "]")
        lines.append(f'  v{number}{left}"{name}"{right}:::{kind.replace("-", "_")}')
    for start, end, role in _edges(graph):
        arrow = f' -. "{_node_text(role)}" .-> ' if role else " --> "
        lines.append(f"  v{start}{arrow}v{end}")
    for kind, colour in COLOURS.items():
        lines.append(f"  classDef {kind.replace('-', '_')} fill:{colour},color:#fff,stroke:none")
    return "\n".join(lines) + "\n"


def _node_text(text: str) -> str:
    """`text` for use between quotes in Mermaid: special characters are replaced by their
    numbers.
    """
    safe = visible(" ".join(text.split()))
    return "".join(f"#{ord(c)};" if c in _MERMAID else c for c in safe)


def _quoted(text: str) -> str:
    """`text` for use between quotes in DOT."""
    return visible(" ".join(text.split())).replace("\\", "\\\\").replace('"', '\\"')


def dot(graph: Graph, decisions: Sequence[Decision]) -> str:
    """A Graphviz digraph."""
    lines = [
        "digraph build {",
        '  node [shape=box, style="filled,rounded", fontname="sans-serif", fontcolor=white];',
    ]
    for number, label, kind in _vertices(graph, decisions):
        name = _quoted(shortened(label, 60))
        lines.append(f'  v{number} [label="{name}", fillcolor="{COLOURS[kind]}"];')
    for start, end, role in _edges(graph):
        style = f' [style=dashed, label="{_quoted(role)}"]' if role else ""
        lines.append(f"  v{start} -> v{end}{style};")
    lines.append("}")
    return "\n".join(lines) + "\n"
