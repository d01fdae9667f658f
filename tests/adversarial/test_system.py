"""What the system refuses is an error of the build, with its steps, not a stray exception."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from layercache import Builder, BuildError, Copy, Run
from layercache.model.instruction import Field
from layercache.model.task import Blobs, Result, Task
from layercache.reports.report import Report


class FullDisk:
    """An executor whose disk is full."""

    traits: Sequence[Field] = ()

    def execute(self, task: Task, blobs: Blobs) -> Result:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/scratch")


def test_a_full_disk_of_an_executor() -> None:
    """The message names the place; the report has what was done until then."""
    with pytest.raises(BuildError, match=r"No space left on device \(/var/scratch\)") as caught:
        Builder(None, executor=FullDisk()).build([Copy("a", "/a"), Run("true")], context={"a": "1"})

    report = caught.value.report
    assert isinstance(report, Report)
    assert [step.decision for step in report.steps] == ["miss", "miss"]
    assert [bool(step.error) for step in report.steps] == [False, True]
