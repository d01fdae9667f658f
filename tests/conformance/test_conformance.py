"""Every scenario, observed and derived, decides as BuildKit does or better."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from layercache.testing.images import busybox_layer

from .__main__ import HERE, Judge, load
from .derive import DERIVED, outdated
from .deriving import split

Record: TypeAlias = Callable[[str, object], None]
SCENARIOS = os.path.join(HERE, "scenarios")


def _why_not() -> str:
    if not sys.platform.startswith("linux"):
        return "root file systems need Linux"
    if os.geteuid() != 0:
        return "the scenarios set owners and mount: they need root"
    if busybox_layer() is None:
        return "no static busybox here (package busybox-static)"
    return ""


needs_root = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "all there")


@needs_root
@pytest.mark.parametrize("scenario", load(SCENARIOS), ids=lambda scenario: scenario["id"])
def test_observed(scenario: dict[str, Any], record_property: Record) -> None:
    """What BuildKit was seen to decide is decided here, or better, with the right tree."""
    _run(Judge(SCENARIOS), scenario, record_property)


@needs_root
@pytest.mark.parametrize("scenario", load(DERIVED), ids=lambda scenario: scenario["id"])
def test_derived(scenario: dict[str, Any], record_property: Record) -> None:
    """What the rules say beyond what was observed holds."""
    _run(Judge(DERIVED), scenario, record_property)


def _run(judge: Judge, scenario: dict[str, Any], record: Record) -> None:
    kind, line = judge.run(scenario)
    record("conformance", kind)  # counted by the summary of the session
    assert kind != "failed", line


def test_derived_files() -> None:
    """The files in derived/ are what the rules give now."""
    assert outdated() == []


def test_steps_of_the_observed() -> None:
    """The language of rules finds the instructions that were observed, triggers aside."""
    for scenario in load(SCENARIOS):
        steps = [s for s in scenario["steps"][0] if "onbuild" not in s]
        build = scenario["builds"][0]
        options = build.get("options") or {}
        if build.get("mutate") or options.keys() & {"dockerfile_context", "context", "file"}:
            continue
        found = split(scenario["dockerfile"])
        assert [(s["op"], s["stage"], s["index"]) for s in found] == [
            (s["op"], s["stage"], s["index"]) for s in steps
        ], scenario["id"]
