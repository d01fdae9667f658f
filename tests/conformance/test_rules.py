"""The page of observed cache rules: complete for what the code cites, and true to the scenarios."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/cache-rules.md").read_text(encoding="utf-8")
RULES = re.findall(r"^\*\*(\d+\.\d+)\*\*", PAGE, re.MULTILINE)
CITATION = re.compile(r"[Oo]bserved rules? ((?:\d+(?:\.\d+)?(?:, | and )?)+)")


def test_no_citation_lacks_its_rule():
    """Every rule that code, tests or documents cite is on the page."""
    cited: dict[str, Path] = {}
    for folder in ("layercache", "tests", "docs", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".toml"} and path != Path(__file__):
                for match in CITATION.finditer(path.read_text(encoding="utf-8")):
                    for number in re.findall(r"\d+(?:\.\d+)?", match[1]):
                        cited.setdefault(number, path.relative_to(ROOT))
    assert cited, "nothing cites a rule: the pattern is wrong"
    assert not {number: path for number, path in cited.items() if number not in RULES}


def test_rules_are_numbered_in_order():
    """Sections count from one, and so do the rules of each."""
    expected, section = [], 0
    for number in RULES:
        first, second = map(int, number.split("."))
        if first != section:
            assert (first, second) == (section + 1, 1)
            section = first
        expected.append(number)
    assert expected == sorted(RULES, key=lambda n: tuple(map(int, n.split("."))))
    assert len(set(RULES)) == len(RULES)


def test_every_named_scenario_is_there():
    """The scenarios that a rule names are run by the conformance suite."""
    here = Path(__file__).parent
    there = {path.stem for folder in ("scenarios", "derived") for path in (here / folder).iterdir()}
    named = {
        name
        for group in re.findall(r"\((`[a-z][^)]*`)\)", PAGE)
        for name in re.findall(r"`([a-z0-9.-]+)`", group)
    } - {"tests"}
    assert len(named) > 150
    assert not sorted(named - there)


def test_every_rule_names_a_scenario():
    """What was observed can be run."""
    parts = re.split(r"^\*\*\d+\.\d+\*\*", PAGE, flags=re.MULTILINE)[1:]
    for number, text in zip(RULES, parts, strict=True):
        assert re.search(r"\(`[a-z0-9.-]+`", text), f"rule {number} names no scenario"
