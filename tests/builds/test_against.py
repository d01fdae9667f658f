"""Explanations against a named earlier build, or against another machine's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, UsageError
from layercache.testing.executors import MemoryExecutor
from tests.reports.support import FILES, TEXT


def test_a_build_is_compared_with_another_machine(tmp_path: Path) -> None:
    """Why that cache misses what this one hits: the file, though every step is reused here."""
    there, here = Builder(tmp_path / "there"), Builder(tmp_path / "here")
    recipe = Dockerfile.parse(TEXT)
    there.build(recipe, context={**FILES, "server.js": "2"}, project="there")
    here.build(recipe, context=FILES, project="here")
    plan = here.plan(recipe, context=FILES, project="here", against=str(tmp_path / "there"))
    reasons = [step.reason for step in plan.steps]

    assert [step.decision for step in plan.steps] == [None, "hit", "hit", None]
    assert reasons[1] is None
    assert reasons[2] is not None
    assert [(c.path, c.what) for c in reasons[2].changes] == [("server.js", "content")]


def test_a_build_is_compared_with_a_tag(tmp_path: Path) -> None:
    """The image that a tag names, however many builds came after it."""
    builder = Builder(tmp_path / "cache")
    recipe = Dockerfile.parse(TEXT)
    builder.build(recipe, context=FILES, tags=["app:1"])
    for number in range(3):
        builder.build(recipe, context={**FILES, "README.md": str(number)})
    plan = builder.plan(recipe, context={**FILES, "package.json": "[]"}, against="app:1")
    changes = {c.path for step in plan.steps if step.reason for c in step.reason.changes}

    assert changes == {"package.json"}


def test_nothing_to_compare_with_is_an_error(tmp_path: Path) -> None:
    """An unknown tag and a cache without such a build say so."""
    builder = Builder(tmp_path / "cache")
    recipe = Dockerfile.parse(TEXT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image of that name"):
        builder.plan(recipe, context=FILES, against="app:1")
    with pytest.raises(UsageError, match="no build with these steps"):
        builder.plan(recipe, context=FILES, against=str(tmp_path / "empty"))


ARGUED = """FROM x
COPY . .
ARG MODE
RUN write out $MODE
RUN write more text
"""


def test_a_step_that_waits_says_what_is_known_to_differ(tmp_path: Path) -> None:
    """It has no key yet, but what it says is compared; it was built here, whatever it waits for."""
    builder = Builder(tmp_path / "cache", executor=MemoryExecutor())
    recipe = Dockerfile.parse(ARGUED)
    builder.build(recipe, context=FILES, args={"MODE": "dev"}, project="p")
    changed = {**FILES, "server.js": "2"}
    plan = builder.plan(recipe, context=changed, args={"MODE": "prod"}, project="p")

    assert [step.decision for step in plan.steps[1:]] == ["would-run", None, *["would-run"] * 2]
    for step in plan.steps[3:]:
        assert step.reason is not None
        assert step.reason.cause == "environment"
        assert [(c.path, c.what) for c in step.reason.changes] == [("MODE", "value")]
    assert "variable MODE changed" in plan.explain(3)


def test_an_empty_cache_is_compared_with_a_full_one(tmp_path: Path) -> None:
    """Why a machine that has nothing misses what another hits: each difference, or that none is."""
    there = Builder(tmp_path / "there", executor=MemoryExecutor())
    here = Builder(tmp_path / "here", executor=MemoryExecutor())
    recipe = Dockerfile.parse(ARGUED)
    there.build(recipe, context=FILES, args={"MODE": "dev"})
    other = str(tmp_path / "there")
    plan = here.plan(recipe, context=FILES, args={"MODE": "prod"}, against=other)

    assert plan.steps[1].reason is None
    assert "not in this cache; the build compared with has it" in plan.explain(1)
    for step in plan.steps[3:]:
        assert step.reason is not None
        assert [c.path for c in step.reason.changes] == ["MODE"]
    same = here.plan(recipe, context=FILES, args={"MODE": "dev"}, against=other)
    assert [step.reason for step in same.steps] == [None] * 5


def test_what_is_said_is_not_said_twice(tmp_path: Path) -> None:
    """A first build has one cause, in one sentence."""
    plan = Builder(tmp_path).plan(Dockerfile.parse(TEXT), context=FILES)
    assert plan.explain(1).count("no earlier build of this step") == 1
