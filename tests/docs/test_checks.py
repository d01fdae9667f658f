"""The page of build checks and the rules are one list."""

from __future__ import annotations

import re
from pathlib import Path

from layercache.checks import RULES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "checks.md"


def test_the_address_of_a_rule_is_that_of_its_heading() -> None:
    """As code hosts make anchors of headings: in lower case."""
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    path = PAGE.relative_to(PAGE.parents[2]).as_posix()
    for rule in RULES:
        address, _, anchor = rule.page.partition("#")
        assert address.endswith(f"/main/{path}")
        assert anchor in [heading.lower() for heading in headings]


def test_every_rule_has_its_place_on_the_page() -> None:
    """In the same order, with its severity, and marked where it is experimental or our own."""
    parts = re.findall(r"^### (\w+)\n\n([^.]*)\.", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = [
        (
            rule.name,
            rule.severity.capitalize() + ", experimental" * rule.experimental + ", own" * rule.own,
        )
        for rule in RULES
    ]
    assert expected == parts
