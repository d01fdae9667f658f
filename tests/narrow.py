"""Optional values that a test knows to be there: each function fails where the value is missing."""

from __future__ import annotations

from layercache.builds.result import BuildResult
from layercache.model.descriptors import Layer, State
from layercache.model.records import Record
from layercache.model.task import Result
from layercache.reports.reasons import Reason
from layercache.reports.report import Report, StepReport


def state_of(result: BuildResult) -> State:
    """The state that a build ended with."""
    assert result.state is not None
    return result.state


def layer_of(made: Record | Result) -> Layer:
    """The layer that a step added."""
    assert made.layer is not None
    return made.layer


def report_of(error: BaseException | None) -> Report:
    """The report that a failed build attached to its error."""
    report = getattr(error, "report", None)
    assert isinstance(report, Report)
    return report


def reason_of(step: StepReport) -> Reason:
    """The reason why a step was not reused."""
    assert step.reason is not None
    return step.reason
