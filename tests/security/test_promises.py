"""Each promise of the security model names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"
ROW = re.compile(r"^\| (?P<promise>.+) \| (?P<tests>`[^|]+`) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/.-]+\.py)::(test_\w+)`")

ROWS = [
    pytest.param(row["tests"], id=row["promise"])
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8").partition("## What is promised")[2])
]
EXECUTES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def test_the_table_is_read() -> None:
    """Every row of the table is one of these."""
    table = PAGE.read_text(encoding="utf-8").partition("## What is promised")[2]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(ROWS) == len([line for line in lines if line != "| promise | tests |"]) > 70


@pytest.mark.parametrize("tests", ROWS)
def test_each_promise_names_tests_that_exist(tests: str) -> None:
    """A test that was renamed or removed leaves a promise without its proof."""
    named = NAMED.findall(tests)
    assert len(named) == tests.count("::")
    for file, function in named:
        path = ROOT / file if file.startswith("layercache/") else ROOT / "tests" / file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{file} has no {function}"


def test_nothing_of_the_library_unpickles() -> None:
    """No module but the testing kit imports what runs code from data."""
    modules = [
        module
        for module in (ROOT / "layercache").rglob("*.py")
        if "testing" not in module.relative_to(ROOT).parts
    ]
    assert len(modules) > 100
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            assert not {name.partition(".")[0] for name in names} & EXECUTES, module
