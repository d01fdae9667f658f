"""Every small build gives what BuildKit gives, or what the documentation says instead."""

from __future__ import annotations

import os
from typing import Any

import pytest

from .peers import differences, load_cases
from .test_conformance import needs_root

DOCUMENT = os.path.join(
    os.path.dirname(__file__), "..", "..", "docs", "explanation", "dockerfile-differences.md"
)


@needs_root
@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case["id"])
def test_peer(case: dict[str, Any]) -> None:
    """The tree, configuration, history and outcome of the case are as it says."""
    assert differences(case) == []


def test_deviations_are_documented() -> None:
    """Each case that deviates names a sentence of the documentation; none hides another."""
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    for case in load_cases():
        if "deviates" in case:
            assert case["deviates"] in text, case["id"]
            assert case.get("buildkit"), case["id"]
