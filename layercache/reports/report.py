"""The report of a build or a plan: one value, its JSON form, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from layercache._base.classes import frozen
from layercache.errors import UsageError
from layercache.model.digests import CacheKey, ChainID, DiffID, Digest

if TYPE_CHECKING:
    from layercache.reports.reasons import Reason

__all__ = ["ErrorReport", "ImageReport", "Report", "StepReport"]

SCHEMA: Final = 1


@frozen(kw_only=True)
class StepReport:
    """One instruction of a recipe and the decision about it.

    `stage` counts FROM lines from 0 (-1 before the first), `index` instructions within it;
    `onbuild` is the number of an ONBUILD trigger. `decision` is None for an instruction without a
    cache decision. `started` is in seconds after the build began, for executed steps; `size` is
    that of the layer in bytes. `untraced` gives the reason why a command that should be traced has
    no trace. `results` is the number of different layers recorded for its key, if more than one.
    While planning, `until` names the steps that an undetermined step waits for, and `likely` is
    the decision that the last build suggests.
    """

    stage: int
    index: int
    onbuild: int | None = None
    line: int = 0
    op: str
    text: str
    decision: str | None = None
    key: CacheKey | None = None
    evidence: str | None = None
    layer: Digest | None = None
    seconds: float = 0.0
    saved_seconds: float = 0.0
    started: float | None = None
    size: int | None = None
    reason: Reason | None = None
    until: tuple[tuple[int, int], ...] = ()
    likely: str | None = None
    error: str | None = None
    untraced: str | None = None
    results: int = 1

    @property
    def place(self) -> tuple[int, int]:
        """(stage, index)."""
        return (self.stage, self.index)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "stage": self.stage,
            "index": self.index,
            "onbuild": self.onbuild,
            "line": self.line,
            "op": self.op,
            "text": self.text,
            "decision": self.decision,
            "key": self.key,
            "evidence": self.evidence,
            "layer": self.layer,
            "seconds": round(self.seconds, 6),
            "saved_seconds": round(self.saved_seconds, 6),
            "started": None if self.started is None else round(self.started, 6),
            "size": self.size,
            "reason": self.reason.to_dict() if self.reason else None,
        }
        if self.untraced is not None:
            found["untraced"] = self.untraced
        if self.results > 1:
            found["results"] = self.results
        if self.decision in {"undetermined", "would-run"}:
            found["until"] = [{"stage": s, "index": i} for s, i in self.until]
            found["likely"] = self.likely
        return found


@frozen(kw_only=True)
class ImageReport:
    """The resulting image of a build; digests of configuration and manifest as exported."""

    config_digest: Digest | None
    manifest_digest: Digest | None
    diff_ids: tuple[DiffID, ...]
    chain_id: ChainID

    def to_dict(self) -> dict[str, Any]:
        return {
            "config_digest": self.config_digest,
            "manifest_digest": self.manifest_digest,
            "diff_ids": list(self.diff_ids),
            "chain_id": self.chain_id,
        }


@frozen
class ErrorReport:
    """The error that ended a build: a stable word, the message, the line of the Dockerfile if
    any.
    """

    code: str
    message: str
    line: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "line": self.line}


@frozen(kw_only=True)
class Report:
    """The report of a whole build or plan."""

    ok: bool
    error: ErrorReport | None = None
    steps: tuple[StepReport, ...] = ()
    image: ImageReport | None = None
    seconds: float = 0.0
    saved_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the report, schema 1."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "error": self.error.to_dict() if self.error else None,
            "steps": [step.to_dict() for step in self.steps],
            "image": self.image.to_dict() if self.image else None,
            "seconds": round(self.seconds, 6),
            "saved_seconds": round(self.saved_seconds, 6),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`; raises `UsageError` for another schema or a missing field."""
        if value.get("schema") != SCHEMA:
            raise UsageError(
                f"this report has schema {value.get('schema')!r}; only {SCHEMA} can be read"
            )
        try:
            return cls(
                ok=value["ok"],
                error=ErrorReport(**value["error"]) if value["error"] else None,
                steps=tuple(_step(step) for step in value["steps"]),
                image=_image(value["image"]) if value["image"] else None,
                seconds=value["seconds"],
                saved_seconds=value["saved_seconds"],
            )
        except (KeyError, TypeError) as error:
            raise UsageError(f"this is not a complete report: {error}") from error


def _step(value: Mapping[str, Any]) -> StepReport:
    fields = dict(value)
    fields["reason"] = _reason(fields["reason"]) if fields["reason"] else None
    fields["until"] = tuple((u["stage"], u["index"]) for u in fields.get("until", ()))
    return StepReport(**fields)


def _reason(value: Mapping[str, Any]) -> Reason:
    from layercache.reports.reasons import Change, Reason

    step = value["step"]
    return Reason(
        cause=value["cause"],
        changes=tuple(Change(**change) for change in value["changes"]),
        step=(step["stage"], step["index"]) if step else None,
    )


def _image(value: Mapping[str, Any]) -> ImageReport:
    return ImageReport(
        config_digest=value["config_digest"],
        manifest_digest=value["manifest_digest"],
        diff_ids=tuple(value["diff_ids"]),
        chain_id=value["chain_id"],
    )
