"""The layout of the code: its packages, what they import of each other, and the picture of it.

usage: .ci/layout.py [--check]

Writes docs/explanation/layout.svg; with `--check` it says whether the file is up to date and
writes nothing. Imports count wherever they stand: at load time, in functions, for type checkers.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "explanation" / "layout.svg"
PACKAGE = "layercache"
APART = frozenset({"_version", "__main__"})
"""Modules of the root that are no rooms: a number, and the door for `python -m`."""

DOING = {
    "_os", "builds", "cli", "engine", "executors", "http", "images", "inputs", "layers",
    "observers", "oci", "store", "testing",
}  # fmt: skip
"""Packages that may do input and output; the test of the house holds them to it."""

WIDTH, HEIGHT, GAP, FLOOR, CROSSING = 132, 44, 18, 92, 10
"""Of a box, between two boxes, of a floor, and of an arrow that crosses a floor; in pixels."""


def modules(root: Path) -> dict[str, Path]:
    """Every module below `root/layercache`, by its name without the package; the root is ""."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """The dotted names below the package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == PACKAGE and rest:
                yield rest


def arrows(root: Path = ROOT) -> dict[str, set[str]]:
    """For each package the others that it imports from."""
    there = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in there.items():
        room = name.partition(".")[0]
        if not room or room in APART:
            continue
        mine = found.setdefault(room, set())
        for dotted in imported(path):
            other = dotted.partition(".")[0]
            if other not in {room, *APART} and any(
                one == other or one.startswith(f"{other}.") for one in there
            ):
                mine.add(other)
    return found


def backward(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows that close a circle, found by walking down from each room."""
    state: dict[str, int] = {}
    found: list[tuple[str, str]] = []

    def walk(room: str) -> None:
        state[room] = 1
        for other in sorted(graph.get(room, ())):
            if state.get(other) == 1:
                found.append((room, other))
            elif other not in state:
                walk(other)
        state[room] = 2

    for room in sorted(graph):
        if room not in state:
            walk(room)
    return found


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """How many rooms lie below each, on the longest way down; arrows in circles are left out."""
    back = set(backward(graph))
    known: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in known:
            below = [other for other in graph.get(room, ()) if (room, other) not in back]
            known[room] = 1 + max((floor(other) for other in below), default=-1)
        return known[room]

    for room in sorted(graph):
        floor(room)
    return known


def shortest(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no other way stands for."""

    def reach(room: str) -> set[str]:
        found: set[str] = set()
        ahead = [*graph.get(room, ())]
        while ahead:
            other = ahead.pop()
            if other not in found:
                found.add(other)
                ahead.extend(graph.get(other, ()))
        return found

    kept = []
    for room in sorted(graph):
        for other in sorted(graph[room]):
            if not any(other in reach(third) for third in graph[room] - {other}):
                kept.append((room, other))
    return kept


def inner(root: Path, room: str) -> list[str]:
    """The packages within a package."""
    return sorted(
        path.parent.name for path in (root / PACKAGE / room).glob("*/__init__.py") if room
    )


Point = tuple[str, str, int]
"""Where an arrow from one room to another crosses a floor."""


def _rows(
    lines: list[tuple[str, str]], level: Mapping[str, int]
) -> dict[str | Point, tuple[float, int]]:
    """The middle of each room, and of each crossing of a floor by a longer arrow: pixels from
    the middle of the picture, and the floor. Each stands near what it points to."""
    below: dict[str | Point, list[str | Point]] = {room: [] for room in level}
    floor: dict[str | Point, int] = {}
    floor.update(level)
    for room, other in lines:
        above: str | Point = room
        for number in range(level[room] - 1, level[other], -1):
            point = (room, other, number)
            floor[point] = number
            below.setdefault(above, []).append(point)
            below[point] = []
            above = point
        below[above].append(other)
    middle: dict[str | Point, tuple[float, int]] = {}
    for number in range(max(level.values()) + 1):
        row = sorted((one for one in floor if floor[one] == number), key=str)

        def wish(one: str | Point) -> tuple[float, str]:
            near = [middle[other][0] for other in below[one]]
            return (sum(near) / len(near) if near else 0.0, str(one))

        row.sort(key=wish)
        widths = [WIDTH if isinstance(one, str) else CROSSING for one in row]
        x = -(sum(widths) + GAP * (len(row) - 1)) / 2
        for one, width in zip(row, widths, strict=True):
            middle[one] = (x + width / 2, number)
            x += width + GAP
    return middle


def picture(root: Path = ROOT) -> str:
    """The packages as an SVG image: whoever imports stands above what it imports."""
    graph = arrows(root)
    level, lines = floors(graph), shortest(graph)
    middle = _rows(lines, level)
    left = min(x for x, _ in middle.values()) - WIDTH / 2 - GAP
    width = round(max(x for x, _ in middle.values()) + WIDTH / 2 + GAP - left)
    top = max(level.values())
    height = (top + 1) * FLOOR + 40

    def at(one: str | Point) -> tuple[float, int]:
        """The middle of its upper side."""
        x, number = middle[one]
        return round(x - left, 1), (top - number) * FLOOR + 10

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="14" role="img" '
        'aria-label="The packages of layercache, each above those that it imports from">',
        '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0 10 5 0 10z" fill="#777"/></marker>',
        "<style>.b{fill:#f4f7fb;stroke:#4a6fa5;stroke-width:1.3}"
        ".i{fill:#fdf6ec;stroke:#b8863b;stroke-width:1.3}"
        ".l{stroke:#777;stroke-width:1.1;fill:none;marker-end:url(#a)}"
        ".t{text-anchor:middle;fill:#222}.s{text-anchor:middle;font-size:11px;fill:#555}"
        "</style></defs>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for room, other in lines:
        x, y = at(room)
        y += HEIGHT
        path = f"M{x:g} {y}"
        for number in range(level[room] - 1, level[other] - 1, -1):
            last = number == level[other]
            x2, y2 = at(other if last else (room, other, number))
            bend = (y2 - y) / 2
            path += f"C{x:g} {y + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2 - last}"
            x, y = x2, y2
            if not last:
                y += HEIGHT
                path += f"V{y}"
        out.append(f'<path class="l" d="{path}"/>')
    for room in sorted(graph):
        x, y = at(room)
        kind = "i" if room in DOING else "b"
        within = inner(root, room)
        out.append(
            f'<rect class="{kind}" x="{x - WIDTH / 2:g}" y="{y}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="5"/>'
            f'<text class="t" x="{x:g}" y="{y + (20 if within else 27)}">{room}</text>'
        )
        if within:
            out.append(f'<text class="s" x="{x:g}" y="{y + 36}">{", ".join(within)}</text>')
    foot = height - 14
    out.append(
        f'<rect class="b" x="{GAP}" y="{foot - 12}" width="16" height="14" rx="3"/>'
        f'<text x="{GAP + 22}" y="{foot}" font-size="12">decides: values in, values out</text>'
        f'<rect class="i" x="{GAP + 230}" y="{foot - 12}" width="16" height="14" rx="3"/>'
        f'<text x="{GAP + 252}" y="{foot}" font-size="12">does input and output</text>'
    )
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> int:
    """Write the picture, or say whether it is up to date."""
    drawn = picture()
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(drawn, encoding="utf-8")
        return 0
    if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn:
        return 0
    print(f"{PICTURE.relative_to(ROOT)} is not up to date: run .ci/layout.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
