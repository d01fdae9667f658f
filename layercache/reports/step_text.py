"""A step of a report explained in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layercache.reports.reasons import CAUSES, Reason, describe
from layercache.reports.report import StepReport

__all__ = ["explain_step"]


def explain_step(step: StepReport, steps: Sequence[StepReport]) -> str:
    """Why `step`, one of `steps`, was executed or reused; lines of text."""
    title = f"{step.op} (stage {step.stage}, step {step.index}): {step.text}"
    if step.decision is None:
        return f"{title}\n  decides nothing: it changes the image's configuration only"
    if step.decision == "skip":
        return f"{title}\n  was not evaluated: the target does not need it"
    names = {other.place: other.text for other in steps}
    lines = [title, *_decision(step, names)]
    if step.reason is not None:
        lines += _reason(step.decision, step.reason, names)
    elif step.decision == "would-run":
        lines.append(
            "  would run: not in this cache; the build compared with has it, as far as known"
        )
    followers = [s for s in steps if s.reason is not None and s.reason.step == step.place]
    if followers:
        cost = sum(s.seconds for s in followers)
        lines.append(f"  {len(followers)} later steps fell with it ({cost:.1f} s):")
        lines += [f"    {s.text}" for s in followers]
    return "\n".join(lines)


def _decision(step: StepReport, names: Mapping[tuple[int, int], str]) -> list[str]:
    """What was decided, and what is known of the key."""
    lines = []
    if step.decision == "hit":
        lines.append(
            f"  reused by {step.evidence}: the instruction and what it reads are the same as "
            f"before; {step.saved_seconds:.1f} s saved"
        )
    if step.decision == "undetermined":
        waits = ", ".join(repr(names.get(place, "?")) for place in step.until)
        lines.append(f"  can't be known before {waits or 'an earlier step'} has run")
    if step.results > 1:
        lines.append(
            f"  its key has given {step.results} different results: `layercache probe` says what "
            "differs from run to run"
        )
    if step.untraced is not None:
        lines.append(f"  not traced: {step.untraced}")
    return lines


def _reason(decision: str, reason: Reason, names: Mapping[tuple[int, int], str]) -> list[str]:
    """Why it was not reused, or differs from the build compared with."""
    verb = "executed"
    if decision == "hit":
        verb = "differs from the build compared with"
    elif decision in {"would-run", "undetermined"}:
        verb = "would run"
    cause, described = CAUSES[reason.cause], describe(reason, names)
    lines = [f"  {verb}: {cause}" + (f": {described}" if described != cause else "")]
    for change in reason.changes:
        values = ""
        if change.old is not None or change.new is not None:
            values = f": {change.old!r} -> {change.new!r}"
        lines.append(f"    {change.kind} {change.path}: {change.what}{values}")
    if reason.step is not None:
        lines.append(f"  it began with {names.get(reason.step, 'an earlier step')!r}")
    if reason.compared_with:
        lines.append(f"  compared with the last build of this step, {reason.compared_with[:16]}")
    return lines
