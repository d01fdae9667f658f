"""Counts over one build and over the life of a cache. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from layercache._base.classes import field, frozen
from layercache.errors import CorruptObject
from layercache.reports.report import Report

__all__ = ["Totals"]

SCHEMA = 1

_NAMES = (
    "builds", "failed", "hits", "misses", "seconds", "saved_seconds", "saved_bytes", "causes",
)  # fmt: skip


@frozen(kw_only=True)
class Totals:
    """Hits, misses by cause, seconds and bytes; a monoid under `plus`.

    `seconds` were spent executing; `saved_seconds` and `saved_bytes` are the recorded duration and
    the size of reused steps; `builds` counts builds, `failed` those of them that failed.
    """

    builds: int = 0
    failed: int = 0
    hits: int = 0
    misses: int = 0
    seconds: float = 0.0
    saved_seconds: float = 0.0
    saved_bytes: int = 0
    causes: Mapping[str, int] = field(factory=dict)

    @classmethod
    def of(cls, report: Report) -> Totals:
        """The counts of one build."""
        causes: dict[str, int] = {}
        for step in report.steps:
            if step.reason is not None:
                causes[step.reason.cause] = causes.get(step.reason.cause, 0) + 1
        hits = [step for step in report.steps if step.decision == "hit"]
        misses = [step for step in report.steps if step.decision == "miss"]
        return cls(
            builds=1,
            failed=int(not report.ok),
            hits=len(hits),
            misses=len(misses),
            seconds=sum(step.seconds for step in misses),
            saved_seconds=sum(step.saved_seconds for step in hits),
            saved_bytes=sum(step.size or 0 for step in hits),
            causes=causes,
        )

    @property
    def rate(self) -> float:
        """Hits as a share of all decisions, 0 to 1; 0 if there were none."""
        total = self.hits + self.misses
        return self.hits / total if total else 0.0

    def plus(self, other: Totals) -> Totals:
        """The sum of both."""
        causes = dict(self.causes)
        for cause, count in other.causes.items():
            causes[cause] = causes.get(cause, 0) + count
        return Totals(
            builds=self.builds + other.builds,
            failed=self.failed + other.failed,
            hits=self.hits + other.hits,
            misses=self.misses + other.misses,
            seconds=self.seconds + other.seconds,
            saved_seconds=self.saved_seconds + other.saved_seconds,
            saved_bytes=self.saved_bytes + other.saved_bytes,
            causes=causes,
        )

    def to_dict(self) -> dict[str, Any]:
        counted: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        counted["causes"] = dict(self.causes)
        return {"schema": SCHEMA, **counted, "rate": round(self.rate, 4)}

    def encode(self) -> bytes:
        """The form in which the cache stores it."""
        return json.dumps(self.to_dict(), sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> Totals:
        """The inverse of `encode`; raises `CorruptObject`."""
        try:
            value = json.loads(data)
            if value.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            value.pop("rate", None)
            return cls(**value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptObject(f"the statistics can't be read: {error}") from error

    def __str__(self) -> str:
        builds = f"{self.builds} build{'s' * (self.builds != 1)}"
        lines = [
            f"{builds} ({self.failed} failed), {self.hits} reused, "
            f"{self.misses} executed ({100 * self.rate:.0f} % reused)",
            f"{self.seconds:.1f} s spent executing, {self.saved_seconds:.1f} s saved",
        ]
        for cause, count in sorted(self.causes.items(), key=lambda item: -item[1]):
            lines.append(f"  {count:6} x {cause}")
        return "\n".join(lines)
