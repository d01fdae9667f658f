"""What is public: names of packages, loaded when first used, and found by tools."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import jedi
import pytest

import layercache
import layercache.errors
import layercache.events

PACKAGE = Path(layercache.__file__).parent
DOCS = PACKAGE.parent / "docs"

FRONTS = (
    "layercache",
    "layercache.checks",
    "layercache.dockerfile",
    "layercache.executors",
    "layercache.executors.rootfs",
    "layercache.layers",
    "layercache.model",
    "layercache.observers",
    "layercache.reports",
    "layercache.solver",
    "layercache.store",
    "layercache.testing",
    "layercache.trees",
)
"""Packages whose names are public; `layercache.errors` and `layercache.events` are modules."""


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: as linters sort them."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


def _fresh(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_every_lazy_package_is_public():
    """Whatever package loads names lazily is on the list of the public ones."""
    lazy = {
        ".".join(("layercache", *path.parent.relative_to(PACKAGE).parts))
        for path in PACKAGE.rglob("__init__.py")
        if "lazily(" in path.read_text(encoding="utf-8")
    }
    assert lazy == set(FRONTS)


@pytest.mark.parametrize("front", FRONTS)
def test_public_names_are_there(front):
    """Every name loads, has a docstring, is listed by `dir`, and is what type checkers think."""
    package = importlib.import_module(front)
    assert sorted(package.__all__, key=_order) == package.__all__
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{front}.{name} has no docstring"
    homes: dict[str, str] = {}
    for node in ast.walk(ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and f"{node.module}".startswith(f"{front}."):
            homes |= {
                alias.name: f"{node.module}" for alias in node.names if alias.name != "lazily"
            }
    assert set(homes) == set(package.__all__)
    for name, home in homes.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'Bilder'"):
        _ = package.Bilder


@pytest.mark.parametrize("front", FRONTS)
def test_no_public_name_is_that_of_a_module(front):
    """Once imported, a module takes its package's attribute of that name."""
    package = importlib.import_module(front)
    folder = Path(str(package.__file__)).parent
    assert not set(package.__all__) & {path.stem for path in folder.iterdir()}


@pytest.mark.parametrize("front", FRONTS)
def test_a_front_loads_nothing_behind_it(front):
    """Importing a package loads no module of it, nor any other but what makes it lazy."""
    loaded = _fresh(f"import sys, {front}; print(*sys.modules)")
    own = {name for name in loaded if name.split(".")[0] == "layercache"}
    parents = {front.rsplit(".", count)[0] for count in range(front.count(".") + 1)}
    assert own == {front, *parents, "layercache._base", "layercache._base.lazy"}
    assert not {"attrs", "fsspec", "asyncio", "tarfile", "subprocess"} & set(loaded)


def test_the_builder_is_light():
    """The first name that everybody needs brings nothing that takes its time."""
    loaded = _fresh("import sys; from layercache import Builder; print(*sys.modules)")
    assert not set(loaded) & {"fsspec", "asyncio", "tarfile", "concurrent.futures", "subprocess"}


def test_the_root_gives_what_users_need():
    """About 45 names, and nothing that is only for authors of plug-ins."""
    assert 40 <= len(layercache.__all__) <= 50
    assert set(layercache.__all__).isdisjoint({"Task", "Walker", "KeyMaterial", "Backend"})


def test_no_public_name_stands_for_two_things():
    """A name means the same in every package that exports it."""
    seen: dict[str, tuple[str, object]] = {}
    for front in FRONTS:
        package = importlib.import_module(front)
        for name in package.__all__:
            value = getattr(package, name)
            where, other = seen.setdefault(name, (front, value))
            assert other is value, f"{name} of {where} is not that of {front}"


@pytest.mark.parametrize("front", [*FRONTS, "layercache.errors", "layercache.events"])
def test_public_packages_are_in_the_reference(front):
    """The reference shows every public package."""
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md"))
    assert re.search(rf"automodule:: {re.escape(front)}$", pages, re.MULTILINE) or (
        front == "layercache.executors.rootfs"  # its names are those of layercache.executors
        and {*importlib.import_module(front).__all__}
        <= {*importlib.import_module("layercache.executors").__all__}
    )


@pytest.mark.parametrize("front", FRONTS)
def test_editors_complete_public_names(front):
    """Jedi, which most editors complete with, offers every public name and knows what it is."""
    package = importlib.import_module(front)
    line = f"from {front} import "
    offered = {c.name for c in jedi.Script(line).complete(1, len(line))}
    assert set(package.__all__) <= offered
    name = next(n for n in package.__all__ if inspect.isclass(getattr(package, n)))
    found = jedi.Script(f"{line}{name}\n{name}").infer(2, len(name))
    assert ("class", name) in {(one.type, one.name) for one in found}


def test_examples_import_what_is_public():
    """The documentation and its examples import from public packages alone."""
    modules = {"layercache.errors", "layercache.events", "layercache.testing.pytest_plugin"}
    files = [*DOCS.rglob("*.md"), *DOCS.rglob("examples/**/*.py"), DOCS.parent / "README.md"]
    imported = re.compile(r"^\s*(?:from|import) (layercache[\w.]*)", re.MULTILINE)
    wrong = [
        f"{file.relative_to(DOCS.parent)}: {module}"
        for file in files
        if "_build" not in file.parts
        for module in imported.findall(file.read_text(encoding="utf-8"))
        if module not in {*FRONTS, *modules}
    ]
    assert not wrong, "\n".join(wrong)
