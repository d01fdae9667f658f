"""One sentence about the order of the steps in one build. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from layercache.reports.report import StepReport
from layercache.reports.wording import one_line

__all__ = ["hint"]


def hint(steps: Sequence[StepReport]) -> str:
    """A sentence about the order of steps if this build shows that it cost time; otherwise empty.

    Applies only to a COPY or ADD of more than the changed files: one that names exactly these
    files states that they matter to the following steps.
    """
    by_place = {step.place: step for step in steps}
    costs: dict[tuple[int, int], float] = {}
    slowest: dict[tuple[int, int], StepReport] = {}
    numbers: Counter[tuple[int, int]] = Counter()
    for step in steps:
        reason = step.reason
        if reason is None or reason.cause != "parent" or reason.step is None or step.op != "RUN":
            continue
        numbers[reason.step] += 1
        costs[reason.step] = costs.get(reason.step, 0.0) + step.seconds
        if reason.step not in slowest or slowest[reason.step].seconds < step.seconds:
            slowest[reason.step] = step
    for place, cost in sorted(costs.items(), key=lambda item: -item[1]):
        cause = by_place.get(place)
        if cause is None or cause.op not in {"COPY", "ADD"} or cost < 0.05:
            continue
        files = _unnamed(cause)
        if not files:
            continue
        slow = slowest[place]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        steps_more = numbers[place] - 1
        others = f" and {steps_more} other{'s' * (steps_more > 1)}" if steps_more else ""
        return (
            f"{files[0]}{more} changed, which cost {one_line(slow.text)!r}{others} {cost:.1f} s: "
            f"copy only the files that it reads before it, and {one_line(cause.text)!r} after it"
        )
    return ""


def _unnamed(step: StepReport) -> list[str]:
    """The changed files of a COPY or ADD that it does not name individually."""
    words = [_plain(word) for word in step.text.split()[1:-1]]
    paths = [c.path for c in step.reason.changes if c.kind == "file"] if step.reason else []
    return [path for path in paths if not any(fnmatchcase(_plain(path), w) for w in words)]


def _plain(path: str) -> str:
    return path.strip("/").removeprefix("./")
