"""The shape of the house: what may import what, and how modules present themselves."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import layercache

PACKAGE = Path(layercache.__file__).parent

ORDER = (
    "_version",
    "_base",
    "errors",
    "_os",
    "model",
    "trees",
    "solver",
    "events",
    "dockerfile",
    "reports",
    "advice",
    "checks",
    # the I/O line: what is below may touch the world
    "layers",
    "http",
    "oci",
    "store",
    "images",
    "inputs",
    "executors",
    "engine",
    "observers",
    "builds",
    "testing",
    "cli",
    "__main__",
)
"""From the ground up: a package imports from those before it, and never from one after it.

`_os` stands above the line since what it wraps has no package of its own further down: nothing
that decides imports it.
"""

LINE = ORDER.index("layers")

ABOVE_THE_LINE = ORDER[:LINE]
"""Whatever decides: it takes values and gives values."""

FORBIDDEN = frozenset(
    {"os", "pathlib", "socket", "subprocess", "threading", "time", "random", "fsspec", "tempfile"}
)
"""What reaches into the world; no module above the line imports it, at any level."""

MAY_TOUCH_THE_WORLD = {
    "_os": "wraps what the standard library has no function for",
    "dockerfile.recipe": "`Dockerfile.load` reads the one file that its caller names",
}
"""Exceptions to the line, each with its reason."""


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


def _imports(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Dotted names that are imported, and whether loading the module imports them: not so in
    functions, and for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        )
        if isinstance(child, ast.Import):
            yield from ((alias.name, True) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports name the whole path"
            yield from ((f"{child.module}.{alias.name}", True) for alias in child.names)
        for name, loaded in _imports(child):
            yield name, loaded and not later


def internal(name: str, *, loaded: bool = False) -> set[str]:
    """The modules that `name` imports at all, or when it is loaded; the root is ""."""
    found = set()
    for dotted, at_once in _imports(parsed(name)):
        if dotted.split(".")[0] != "layercache" or (loaded and not at_once):
            continue
        inner = dotted.partition(".")[2]
        while inner and inner not in modules():
            inner = inner.rpartition(".")[0]
        found.add(inner)
    return found - {name}


def package(name: str) -> str:
    """The package of a module: the first part of its name."""
    return name.partition(".")[0]


def place(name: str) -> int:
    """The place in `ORDER` of a module's package."""
    assert package(name) in ORDER, f"layercache.{name}: give its package a place in ORDER"
    return ORDER.index(package(name))


def test_every_package_has_a_place():
    """A new package says where it belongs; a place without a package is gone."""
    for name in modules():
        if name:
            place(name)
    for name in ORDER:
        assert name in modules(), f"ORDER names {name}, which is not there"


def test_imports_point_one_way():
    """Packages import from those before them alone: when loaded, later, and for type checkers."""
    wrong = [
        f"{name} imports {other or 'the root'}"
        for name in modules()
        if name
        for other in internal(name)
        if not other or (place(other) >= place(name) and package(other) != package(name))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_packages_in_circles():
    """No package imports itself through others, at any time."""
    graph: dict[str, set[str]] = {}
    for name in modules():
        if name:
            others = {package(other) for other in internal(name)}
            graph.setdefault(package(name), set()).update(others - {package(name)})
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) == len(graph)


def test_no_modules_in_circles():
    """No module imports itself through others, at any time: what is imported late is so to save
    time, never since it would not work otherwise."""
    graph = {name: internal(name) for name in modules() if name}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) >= set(graph)


def test_production_imports_nothing_of_the_testing_kit():
    """Only the kit itself knows the kit."""
    for name in modules():
        if package(name) != "testing":
            assert not {other for other in internal(name) if package(other) == "testing"}, name


@pytest.mark.parametrize("name", ABOVE_THE_LINE)
def test_nothing_above_the_line_reaches_the_world(name):
    """Deciding knows no files, sockets, clocks, threads or chance."""
    for module in modules():
        if package(module) == name and not {module, name} & MAY_TOUCH_THE_WORLD.keys():
            roots = {dotted.split(".")[0] for dotted, _ in _imports(parsed(module))}
            assert not roots & FORBIDDEN, f"{module} imports {roots & FORBIDDEN}"
            assert "_os" not in {package(other) for other in internal(module)}, module


def test_exceptions_to_the_line_are_needed():
    """What may touch the world does."""
    for name in MAY_TOUCH_THE_WORLD:
        touched = {
            dotted.split(".")[0]
            for module in modules()
            if f"{module}.".startswith(f"{name}.")
            for dotted, _ in _imports(parsed(module))
        }
        assert touched & FORBIDDEN, name


def test_modules_are_one_idea():
    """No grab bags, and whatever is long says in its docstring why it is one module."""
    for name, path in modules().items():
        assert name.split(".")[-1] not in {"utils", "util", "helpers", "misc", "common"}
        if len(path.read_text(encoding="utf-8").splitlines()) > 500:
            doc = ast.get_docstring(parsed(name)) or ""
            assert re.search(r"\b[Oo]ne (module|class|file|table|place)\b", doc), (
                f"{name} has more than 500 lines: its docstring must say why it is one module"
            )


def test_no_public_class_name_stands_twice():
    """A class is found by its name: two of one name are two words for two things."""
    homes: dict[str, list[str]] = {}
    for name in modules():
        for node in parsed(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert not twice


ALIKE = {("store.backend", "store.backends")}
"""The interface stands beside the package of those who implement it."""

VAGUE = frozenset(
    {
        "attempts",
        "base",
        "contents",
        "data",
        "differences",
        "hints",
        "info",
        "known",
        "manager",
        "medium",
        "mounted",
        "needs",
        "objects",
        "performing",
        "places",
        "possible",
        "predecessors",
        "things",
        "values",
        "variations",
    }
)
"""Names that say something only to who knows the module already."""


def test_module_names_explain_themselves():
    """None needs its docstring to be understood, none differs from a neighbour by a letter."""
    assert not [name for name in modules() if name.rpartition(".")[2] in VAGUE]
    alike = set()
    for one, other in itertools.combinations(sorted(filter(None, modules())), 2):
        (package_of, _, first), (next_to, _, second) = one.rpartition("."), other.rpartition(".")
        if package_of == next_to and _one_letter_apart(first, second):
            alike.add((one, other))
    assert alike == ALIKE


def _one_letter_apart(one: str, other: str) -> bool:
    if len(one) == len(other):
        return sum(a != b for a, b in zip(one, other, strict=True)) == 1
    shorter, longer = sorted((one, other), key=len)
    return any(longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer)))


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


DOTTED = re.compile(r"(?<![\w./-])layercache((?:\.[A-Za-z_]\w*)+)")

ATTRIBUTES = {"layercache/observers/otel.py", "tests/observers/test_observers.py"}
"""Files that name attributes of spans, which begin with `layercache.` too."""


def test_names_in_code_and_texts_are_there():
    """Whatever is spelled `layercache.…`, in code, strings, documents or settings, is there."""
    root = PACKAGE.parent
    wrong = []
    files = [root / "README.md", root / "pyproject.toml", *root.glob(".ci/*")]
    for folder in ("layercache", "benchmarks", "docs", "tests"):
        files += [path for path in root.glob(f"{folder}/**/*") if path.suffix in {".py", ".md"}]
    for file in files:
        name = file.relative_to(root).as_posix()
        if name in ATTRIBUTES or not file.is_file() or "/_build/" in name:
            continue
        for match in DOTTED.finditer(file.read_text(encoding="utf-8", errors="replace")):
            if not _there(match[0]):
                wrong.append(f"{name}: {match[0]}")
    assert not wrong, "\n".join(wrong)


@functools.cache
def _there(dotted: str) -> bool:
    value, path = layercache, "layercache"
    for part in dotted.split(".")[1:]:
        path += f".{part}"
        if not hasattr(value, part):
            try:
                importlib.import_module(path)
            except ImportError:
                return False
        value = getattr(value, part)
    return True


def test_the_picture_of_the_layout_is_up_to_date():
    """`docs/explanation/layout.svg` is drawn from the code as it is, and colours what does I/O."""
    root = PACKAGE.parent
    spec = importlib.util.spec_from_file_location("layout", root / ".ci" / "layout.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert {"_os", *ORDER[LINE:]} - {"__main__"} == drawing.DOING
    drawn = drawing.PICTURE.read_text(encoding="utf-8")
    assert drawing.picture() == drawn, "imports have changed: run .ci/layout.py"


ACROSS = {
    "adversarial": "whole builds, where somebody tries to make the cache lie or show a secret",
    "conformance": "decisions and trees as BuildKit makes them, by recorded scenarios",
    "docs": "what the documentation says and shows",
    "examples": "the build systems in docs/examples",
    "executors/tracing": "traces of commands, from the system call to the decision",
    "layout": "the packages themselves",
    "packaging": "what is installed, and what runs the tests",
    "security": "the promises of the security model",
    "soundness": "each hit gives what a full rebuild gives, over random histories",
    "speed": "work that is counted",
}
"""Folders of tests/ that belong to no package alone, each with what it shows."""


def test_tests_mirror_the_packages():
    """A folder with tests is named like the package that they test, or is one of `ACROSS`."""
    tests = PACKAGE.parent / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    packages = {
        path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")
    }
    assert not sorted(folders - (packages - {"."}) - set(ACROSS))
    assert set(ACROSS) <= folders
