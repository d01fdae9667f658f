"""The shape of the house: what may import what, and how modules present themselves."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import layercache
import layercache.errors
import layercache.events

PACKAGE = Path(layercache.__file__).parent

ORDER = (
    # words
    "_version errors expressions values",
    "digests framing instructions",
    "descriptors trees",
    # the model
    "automaton components patterns differences observations operations storage",
    "configuration references selections sources",
    "matching listings testing.trees",
    "execution graph keys layers.index layers.times mounted",
    "bypass codec records strategies walk explain",
    # deciding
    "events narrowing possible report hints retention trails trust statistics needs advise",
    "variations walkers dockerfile recipe rendering",
    # the I/O line: what is below may touch the world
    "layers filetree locations locks materialize medium xattrs",
    "backends blobs objects sinks verifying",
    "images store",
    "contexts copying executors remote remotes tiers pushing collecting predecessors tracing",
    "inputs",
    "performing",
    "attempts traits",
    "engine result reasons reporter probing request",
    "builder history",
    "testing",
    "cli __main__",
)
"""From the ground up: a module imports from its own line or from those before it.

A name is a module or a whole package; a dotted one is a single module of a package.
"""

LINE = ORDER.index("layers filetree locations locks materialize medium xattrs")

ABOVE_THE_LINE = frozenset(
    name for line in ORDER[:LINE] for name in line.split() if name not in {"recipe", "rendering"}
)
"""Whatever decides: it takes values and gives values."""

FORBIDDEN = frozenset(
    {"os", "pathlib", "socket", "subprocess", "threading", "time", "random", "fsspec", "tempfile"}
)
"""What reaches into the world; no module above the line imports it, at any level."""


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its name without `layercache.`; the root is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@functools.cache
def parsed(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def _imports(node: ast.AST, *, inside: bool) -> Iterator[str]:
    """Dotted names that are imported, for type checkers apart; `inside` functions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield f"{child.module}.{alias.name}"
        yield from _imports(child, inside=inside)


def internal(name: str) -> set[str]:
    """The modules that `name` imports when it is loaded."""
    found = set()
    for dotted in _imports(parsed(name), inside=False):
        if dotted.split(".")[0] != "layercache":
            continue
        inner = dotted.partition(".")[2]
        while inner and inner not in modules():
            inner = inner.rpartition(".")[0]
        if inner:
            found.add(inner)
    return found - {name}


def place(name: str) -> int:
    """The line of `ORDER` that a module stands on."""
    lines = [line.split() for line in ORDER]
    for candidate in (name, name.split(".")[0]):
        for number, line in enumerate(lines):
            if candidate in line:
                return number
    raise AssertionError(f"layercache.{name} has no place in ORDER: give it one")


def test_every_module_has_a_place():
    """A new module says where it belongs; a place without a module is gone."""
    for name in modules():
        if name:
            place(name)
    for line in ORDER:
        for name in line.split():
            assert name in modules(), f"ORDER names {name}, which is not there"


def test_imports_point_one_way():
    """A module imports from its own line or from those before it."""
    wrong = [
        f"{name} (line {place(name)}) imports {other} (line {place(other)})"
        for name in modules()
        if name
        for other in internal(name)
        if place(other) > place(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_imports_in_circles():
    """At module level, nothing imports itself through others."""
    graph = {name: internal(name) for name in modules() if name}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) == len(graph)


@pytest.mark.parametrize("name", sorted(ABOVE_THE_LINE))
def test_nothing_above_the_line_reaches_the_world(name):
    """Deciding knows no files, sockets, clocks, threads or chance."""
    for module in modules():
        if module == name or module.startswith(name + "."):
            roots = {dotted.split(".")[0] for dotted in _imports(parsed(module), inside=True)}
            assert not roots & FORBIDDEN, f"{module} imports {roots & FORBIDDEN}"


def test_what_the_design_calls_pure_is_above_the_line():
    """The modules that decide stand where nothing touches the world."""
    named = (
        "errors digests descriptors instructions graph keys records trails execution sources "
        "storage walk events strategies walkers explain advise report retention selections "
        "matching listings patterns components operations trees differences bypass "
        "configuration references codec dockerfile"
    )
    assert set(named.split()) <= ABOVE_THE_LINE


def test_modules_are_one_idea():
    """No grab bags, and whatever is long says in its docstring why it is one module."""
    for name, path in modules().items():
        assert name.split(".")[-1] not in {"utils", "util", "helpers", "misc", "common"}
        if len(path.read_text(encoding="utf-8").splitlines()) > 500:
            doc = ast.get_docstring(parsed(name)) or ""
            assert re.search(r"\b[Oo]ne (module|class|file|table|place)\b", doc), (
                f"{name} has more than 500 lines: its docstring must say why it is one module"
            )


def test_every_module_explains_itself():
    """Each has a docstring that begins with a sentence."""
    for name in modules():
        assert ast.get_docstring(parsed(name)), f"{name} has no docstring"


def _all_of(name: str) -> list[str] | None:
    for node in parsed(name).body:
        target = None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(target, ast.Name) and target.id == "__all__":
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def _sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: as linters sort them."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


@pytest.mark.parametrize("name", sorted(modules()))
def test_public_names_are_listed_in_order(name):
    """Every public module lists its names, sorted, and has each of them."""
    if any(part.startswith("_") for part in name.split(".")):
        return
    names = _all_of(name)
    defined = [
        node.name
        for node in parsed(name).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    if not defined and names is None:
        return  # a package without names of its own
    assert names is not None, f"{name} has no __all__"
    assert names == sorted(names, key=_sort_key)
    assert len(set(names)) == len(names)


def _fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_importing_is_light():
    """`import layercache` loads nothing that takes its time; nor does what decides."""
    loaded = _fresh("import sys, layercache; print(*sys.modules)").split()
    heavy = {"fsspec", "asyncio", "tarfile", "concurrent.futures", "typing", "attrs", "re"}
    before = _fresh("import sys; print(*sys.modules)").split()
    assert not (set(loaded) - set(before)) & heavy
    assert len(set(loaded) - set(before)) <= 4

    loaded = _fresh("import sys; from layercache import Builder; print(*sys.modules)").split()
    assert not set(loaded) & {"fsspec", "asyncio", "tarfile", "concurrent.futures", "subprocess"}


def test_public_names_are_there():
    """Every name of `layercache` loads, is listed by `dir`, and is what type checkers think."""
    assert sorted(layercache.__all__, key=_sort_key) == layercache.__all__
    assert dir(layercache) == sorted(layercache.__all__)
    for name in layercache.__all__:
        assert getattr(layercache, name) is not None
    for module in (layercache.errors, layercache.events):
        assert set(module.__all__) <= set(layercache.__all__)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(parsed(""))
        if isinstance(node, ast.ImportFrom) and node.module != "importlib"
        for alias in node.names
    } - {"annotations"}
    assert imported == set(layercache.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Bilder'"):
        _ = layercache.Bilder
