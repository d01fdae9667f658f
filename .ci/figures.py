"""Figures about the code itself, for whoever wants to know whether it became simpler.

usage: .ci/figures.py [CHECKOUT...]

For each checkout (this one by default): rooms (the packages and single modules at the top),
floors, arrows between rooms, arrows that close a circle, modules, modules that one COPY crosses
(in which a function runs while a warm process builds it), modules that an all-hit command loads,
functions above complexity 15, public names, and the ways around the type checker.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import layout

COMPLEXITY = 15

CROSSED = """
import json, sys, threading
seen = set()

def note(frame, event, argument):
    name = frame.f_globals.get("__name__", "")
    if event == "call" and name.startswith("layercache") and frame.f_code.co_name != "<module>":
        seen.add(name)

from layercache import Builder, Copy, Workspace

builder = Builder("cache", executor=Workspace("work"))

def build():
    seen.clear()
    sys.setprofile(note)
    threading.setprofile(note)
    builder.build([Copy("a", "/a")], context="context")
    sys.setprofile(None)
    threading.setprofile(None)
    return len(seen)

build()
with open("context/a", "w") as content:
    content.write("changed")
print(json.dumps([build(), build()]))
"""

LOADED = """
import sys
from layercache.cli import main
main(["build", "--quiet", "--cache", "cache", "--executor", "workspace", "context"])
print(sum(name.partition(".")[0] == "layercache" for name in sys.modules))
"""


def run(root: Path, program: str, times: int = 1) -> str:
    """What the last of some runs prints, in a new directory with a context of one file."""
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch, "context")
        context.mkdir()
        context.joinpath("a").write_text("a", encoding="utf-8")
        context.joinpath("Dockerfile").write_text("FROM scratch\nCOPY a /a\n", encoding="utf-8")
        said = ""
        for _ in range(times):
            said = subprocess.run(
                [sys.executable, "-c", program],
                cwd=scratch,
                env=dict(os.environ, PYTHONPATH=str(root.resolve())),
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            ).stdout
    return said.splitlines()[-1]


def complex_functions(root: Path) -> list[tuple[int, str]]:
    """Functions above the limit, the worst first: ways through the function, one more for each
    branch, loop, handler, condition within an expression, and filter of a comprehension."""
    found = []
    for name, path in layout.modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                ways = 1 + sum(_ways(child) for child in _own(node))
                if ways > COMPLEXITY:
                    found.append((ways, f"{name}.{node.name}"))
    return sorted(found, reverse=True)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, functions within it left out: they count alone."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


def _ways(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    branches = ast.If | ast.IfExp | ast.For | ast.While | ast.ExceptHandler | ast.match_case
    return int(isinstance(node, branches))


def exported(path: Path) -> list[str]:
    """The names in the `__all__` of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def public_names(root: Path) -> tuple[int, int]:
    """Names of the root, and all that lazily loading packages, errors and events export."""
    package = root / layout.PACKAGE
    names = set(exported(package / "__init__.py"))
    total = set(names)
    for path in [*package.rglob("__init__.py"), package / "errors.py", package / "events.py"]:
        if path.name != "__init__.py" or "lazily(" in path.read_text(encoding="utf-8"):
            total |= set(exported(path))
    return len(names), len(total)


def figures(root: Path) -> Iterator[tuple[str, str]]:
    """Each figure with its name."""
    graph = layout.arrows(root)
    there = layout.modules(root)
    yield "rooms", str(len(graph))
    yield "floors", str(max(layout.floors(graph).values()) + 1)
    yield "arrows", str(sum(map(len, graph.values())))
    yield "arrows back up", str(len(layout.backward(graph)))
    yield "modules", str(sum(path.name != "__init__.py" for path in there.values()))
    miss, hit = json.loads(run(root, CROSSED))
    yield "modules that a COPY crosses, miss", str(miss)
    yield "modules that a COPY crosses, hit", str(hit)
    yield "modules that an all-hit command loads", run(root, LOADED, times=2)
    yield f"functions above complexity {COMPLEXITY}", str(len(complex_functions(root)))
    few, many = public_names(root)
    yield "public names, root", str(few)
    yield "public names, all", str(many)
    text = "\n".join(path.read_text(encoding="utf-8") for path in there.values())
    code = "\n".join(line for line in text.splitlines() if " import " not in line)
    yield "Any", str(len(re.findall(r"\bAny\b", code)))
    yield "cast", str(len(re.findall(r"\bcast\(", code)))
    yield "type: ignore", str(len(re.findall(r"type: ignore", text)))


def main() -> None:
    """Print a table with a column for each checkout; of the last, the complex functions too."""
    roots = [Path(one) for one in sys.argv[1:]] or [layout.ROOT]
    columns = [dict(figures(root)) for root in roots]
    for name in columns[0]:
        print(f"{name:<40}", *(f"{column[name]:>8}" for column in columns))
    for ways, function in complex_functions(roots[-1]):
        print(f"  {ways:>3} {function}")


if __name__ == "__main__":
    main()
