"""The page of build checks and the rules are one list."""

from __future__ import annotations

import re
from pathlib import Path

from layercache.checks import RULES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "checks.md"


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
