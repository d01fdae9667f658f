"""Figures of a report that add up."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from layercache import Builder, Copy, From, Run
from layercache.model.instruction import Field
from layercache.model.task import Blobs, Result, Task


class Slow:
    """An executor of commands that take a while and change nothing."""

    traits: Sequence[Field] = ()

    def execute(self, task: Task, blobs: Blobs) -> Result:
        time.sleep(0.05)
        return Result(layer=None)


def test_a_step_of_two_stages_saves_once() -> None:
    """It would have been executed once."""
    recipe = [
        From("scratch", "one"),
        Run("true"),
        From("scratch", "two"),
        Run("true"),
        Copy(".", "/one/", from_="one"),
    ]
    builder = Builder(None, executor=Slow())
    first = builder.build(recipe)
    second = builder.build(recipe)
    ran, saved = (
        [step.seconds for step in first.steps if step.op == "RUN"],
        [step.saved_seconds for step in second.steps if step.op == "RUN"],
    )

    assert sorted(map(bool, ran)) == sorted(map(bool, saved)) == [False, True]
    assert sum(saved) == pytest.approx(sum(ran))
