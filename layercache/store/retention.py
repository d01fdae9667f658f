"""Retention: which records are removed, which stay, and why. Pure; `collection` carries it out.

Policies compose: an entry is removed if one of them releases it and nothing pins it; `Only`
restricts a policy to the builds with certain labels. If space is the reason, the entries that save
the fewest seconds per byte and are long unused are removed first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from layercache._base.classes import evolve, frozen
from layercache.errors import UsageError
from layercache.model.digests import CacheKey, Digest

__all__ = [
    "AnyEntry",
    "CacheEntry",
    "KeepBuilds",
    "KeepDuration",
    "KeepStorage",
    "LabelFilter",
    "MinFree",
    "Only",
    "Pinned",
    "Policy",
    "Situation",
    "Verdict",
    "judge",
]

_HALF_LIFE: Final = 7 * 86_400.0
"""Seconds unused after which what an entry would save counts half."""


@frozen(kw_only=True)
class CacheEntry:
    """One record as retention sees it.

    `used` is when it was last relied on (seconds, by the backend's own stamps), `seconds` what
    its step took, `blobs` what it alone or with others refers to, with sizes in bytes; `pins`
    names what holds it (tags); `builds` how recent the builds are that used it (0 the last one),
    `labels` the labels of the image of each of them.
    """

    key: CacheKey
    text: str
    used: float
    seconds: float = 0.0
    blobs: tuple[tuple[Digest, int], ...] = ()
    pins: tuple[str, ...] = ()
    builds: tuple[int, ...] = ()
    labels: tuple[tuple[tuple[str, str], ...], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all that it refers to."""
        return sum(size for _, size in self.blobs)

    def value(self, now: float) -> float:
        """Seconds that it may save, for each byte; halved for each week that it was not used."""
        age = max(0.0, now - self.used)
        return self.seconds / (self.size + 512) * math.pow(0.5, age / _HALF_LIFE)


@frozen(kw_only=True)
class Situation:
    """The cache as a whole: the time by its own stamps, the bytes free on its medium if known,
    and the bytes in it that no record refers to."""

    now: float
    free: int | None = None
    other: int = 0


@frozen
class Verdict:
    """Whether an entry is kept: `reason` names the policy that decided, or what pins it."""

    entry: CacheEntry
    keep: bool
    reason: str


class Policy(Protocol):
    """Names entries that may go. Pure; asked once with all entries that are still there."""

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        """Key → why, for each entry that this policy lets go."""


@frozen
class KeepDuration:
    """Release entries that were not used for `seconds`."""

    seconds: float

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        return {
            entry.key: f"not used for {_days(situation.now - entry.used)}"
            for entry in entries
            if situation.now - entry.used > self.seconds
        }


@frozen
class KeepBuilds:
    """Release entries that none of the last `count` builds used."""

    count: int

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        return {
            entry.key: f"not used by the last {self.count} builds"
            for entry in entries
            if not any(number < self.count for number in entry.builds)
        }


@frozen
class KeepStorage:
    """Keep at most `size` bytes; entries that save least for their size are released first."""

    size: int

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        return _shrink(entries, situation, lambda total: total > self.size, "over the size kept")


@frozen
class MinFree:
    """Keep at least `size` bytes of the medium free, if its free space is known."""

    size: int

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        if situation.free is None or situation.free >= self.size:
            return {}
        full = _total(entries) + situation.other
        missing = self.size - situation.free
        return _shrink(
            entries, situation, lambda total: full - total < missing, "too little space is free"
        )


@frozen
class AnyEntry:
    """Release every entry. Useful with `Only`."""

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        return {entry.key: "asked for" for entry in entries}


@frozen
class LabelFilter:
    """A condition on a build: its image has the label `name`, with this `value` (None: with any).

    With `absent`: it has not.
    """

    name: str
    value: str | None = None
    absent: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelFilter:
        """`label=NAME[=VALUE]` or `label!=NAME[=VALUE]`; raises `UsageError` for anything else."""
        kind, equals, rest = text.partition("=")
        name, valued, value = rest.partition("=")
        if not equals or kind not in {"label", "label!"} or not name:
            raise UsageError(
                f"{text!r} is not a filter: expected label=NAME[=VALUE] or label!=NAME[=VALUE]"
            )
        return cls(name, value if valued else None, kind == "label!")

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value}"
        return f"label{'!' if self.absent else ''}={self.name}{value}"

    def fits(self, labels: Sequence[tuple[str, str]]) -> bool:
        """Whether a build with these labels meets the condition."""
        there = any(n == self.name and self.value in (None, v) for n, v in labels)
        return there is not self.absent


@frozen
class Only:
    """`policy`, for entries alone of which every build that used them meets all of `labels`.

    What the labels spare counts in sizes nevertheless. An entry that no known build used counts
    as one of a build without labels.
    """

    policy: Policy
    labels: tuple[LabelFilter, ...]

    def goes(self, entries: Sequence[CacheEntry], situation: Situation) -> dict[CacheKey, str]:
        mine = {entry.key for entry in entries if self.takes(entry)}
        seen = [e if e.key in mine else evolve(e, pins=(*e.pins, "")) for e in entries]
        why = ", ".join(map(str, self.labels))
        return {
            key: f"{reason} ({why})"
            for key, reason in self.policy.goes(seen, situation).items()
            if key in mine
        }

    def takes(self, entry: CacheEntry) -> bool:
        """Whether the labels leave `entry` to the policy."""
        return all(label.fits(build) for build in entry.labels or ((),) for label in self.labels)

    def holds(self, entry: CacheEntry) -> str:
        """The labels by which `entry` is kept from the policy; empty when it is not."""
        found = [
            f"{name}={value}"
            for label in self.labels
            if label.absent
            for build in entry.labels
            for name, value in build
            if not label.fits(((name, value),))
        ]
        return ", ".join(dict.fromkeys(found))


def _total(entries: Sequence[CacheEntry]) -> int:
    return sum(dict(blob for entry in entries for blob in entry.blobs).values())


def _shrink(
    entries: Sequence[CacheEntry], situation: Situation, over: Callable[[int], bool], why: str
) -> dict[CacheKey, str]:
    """Let the least valuable go while `over` the bytes that stay. Shared blobs count once."""
    holders: dict[Digest, int] = {}
    for entry in entries:
        for digest, _ in entry.blobs:
            holders[digest] = holders.get(digest, 0) + 1
    total = _total(entries) + situation.other
    gone: dict[CacheKey, str] = {}
    order = sorted(entries, key=lambda e: (e.value(situation.now), e.used, e.key))
    for entry in order:
        if not over(total):
            break
        if entry.pins:
            continue
        gone[entry.key] = why
        for digest, size in entry.blobs:
            holders[digest] -= 1
            if not holders[digest]:
                total -= size
    return gone


@frozen
class Pinned:
    """No policy of its own: names, by key or beginning of the text, what must stay."""

    patterns: tuple[str, ...]

    def pins(self, entry: CacheEntry) -> tuple[str, ...]:
        """The pins of `entry`, those of its own first."""
        mine = [p for p in self.patterns if entry.key.startswith(p) or entry.text.startswith(p)]
        return (*entry.pins, *mine)


def judge(
    entries: Sequence[CacheEntry],
    policies: Sequence[Policy],
    situation: Situation,
    *,
    grace: float = 0.0,
    pinned: Pinned | None = None,
) -> tuple[Verdict, ...]:
    """The verdict for each entry, in the order given.

    Policies are applied in order, each to the entries that the ones before it left. An entry that
    was used within `grace` seconds always stays, because a build may rely on it.
    """
    if pinned is not None:
        entries = [evolve(entry, pins=pinned.pins(entry)) for entry in entries]
    gone: dict[CacheKey, str] = {}
    for policy in policies:
        left = [entry for entry in entries if entry.key not in gone]
        for key, why in policy.goes(left, situation).items():
            gone.setdefault(key, why)
    verdicts = []
    for entry in entries:
        why = gone.get(entry.key, "")
        if entry.pins:
            verdicts.append(Verdict(entry, True, f"pinned by {', '.join(entry.pins)}"))
        elif not why and (labels := _labels_that_hold(entry, policies)):
            verdicts.append(Verdict(entry, True, f"labelled {labels}"))
        elif not why:
            verdicts.append(Verdict(entry, True, "within the policy"))
        elif situation.now - entry.used < grace:
            verdicts.append(Verdict(entry, True, "in use lately"))
        else:
            verdicts.append(Verdict(entry, False, why))
    return tuple(verdicts)


def _labels_that_hold(entry: CacheEntry, policies: Sequence[Policy]) -> str:
    return next((w for p in policies if isinstance(p, Only) and (w := p.holds(entry))), "")


def _days(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"
