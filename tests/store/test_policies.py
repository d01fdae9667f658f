"""Policies: pure verdicts, composition, value, pins."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import UsageError
from layercache.model.digests import CacheKey, Digest
from layercache.store.retention import (
    AnyEntry,
    CacheEntry,
    KeepBuilds,
    KeepDuration,
    KeepStorage,
    LabelFilter,
    MinFree,
    Only,
    Pinned,
    Situation,
    judge,
)

DAY = 86_400.0
digests = st.integers(0, 6).map(lambda n: (Digest(f"sha256:{n:064x}"), 100 * (n + 1)))
entries = st.lists(
    st.builds(
        CacheEntry,
        key=st.integers(0, 10**6).map(lambda n: CacheKey(f"{n:064x}")),
        text=st.sampled_from(["RUN a", "RUN b", "COPY c"]),
        used=st.integers(0, 100).map(lambda n: n * DAY),
        seconds=st.integers(0, 100).map(float),
        blobs=st.lists(digests, max_size=3, unique=True).map(tuple),
        pins=st.sampled_from([(), (), (), ("app:1",)]),
        builds=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    ),
    unique_by=lambda entry: entry.key,
    max_size=12,
)
policies = st.lists(
    st.one_of(
        st.builds(KeepDuration, st.integers(0, 100).map(lambda n: n * DAY)),
        st.builds(KeepBuilds, st.integers(0, 6)),
        st.builds(KeepStorage, st.integers(0, 5_000)),
        st.builds(MinFree, st.integers(0, 5_000)),
    ),
    max_size=3,
)
NOW = Situation(now=100 * DAY, free=1_000)


def kept_bytes(verdicts: object) -> int:
    return sum(
        dict(b for v in verdicts if v.keep for b in v.entry.blobs).values()  # type: ignore[attr-defined]
    )


@given(entries, policies)
def test_a_pinned_entry_stays_and_every_verdict_says_why(
    found: list[CacheEntry], wanted: list[object]
) -> None:
    """One verdict for each entry, in order, with a reason; pins win over every policy."""
    verdicts = judge(found, wanted, NOW)  # type: ignore[arg-type]

    assert [v.entry for v in verdicts] == found
    assert all(v.reason for v in verdicts)
    assert all(v.keep for v in verdicts if v.entry.pins)


@given(entries, policies, policies)
def test_more_policies_keep_no_more(
    found: list[CacheEntry], first: list[object], more: list[object]
) -> None:
    """What one policy lets go, further policies after it do not bring back."""
    few = {v.entry.key for v in judge(found, first, NOW) if not v.keep}  # type: ignore[arg-type]
    many = {
        v.entry.key
        for v in judge(found, [*first, *more], NOW)  # type: ignore[list-item]
        if not v.keep
    }

    assert few <= many


@given(entries, st.integers(0, 5_000))
def test_the_size_kept_holds_unless_pins_forbid(found: list[CacheEntry], size: int) -> None:
    """What stays fits, or only pinned entries are left; shared blobs count once."""
    verdicts = judge(found, [KeepStorage(size)], NOW)
    left = [v.entry for v in verdicts if v.keep]

    assert kept_bytes(verdicts) <= size or all(entry.pins for entry in left if entry.blobs)


@given(entries)
def test_no_policy_lets_nothing_go(found: list[CacheEntry]) -> None:
    """Nor does a size that everything fits into."""
    assert all(v.keep for v in judge(found, [], NOW))
    assert all(v.keep for v in judge(found, [KeepStorage(10**9)], NOW))


def entry(name: str, *, seconds: float, size: int, days: float = 0.0) -> CacheEntry:
    return CacheEntry(
        key=CacheKey(name),
        text=name,
        used=NOW.now - days * DAY,
        seconds=seconds,
        blobs=((Digest(name), size),),
    )


def test_what_saves_least_for_its_size_goes_first() -> None:
    """A big layer of a quick step before a small one of a slow step; recency counts too."""
    big_quick = entry("big", seconds=1, size=10_000)
    small_slow = entry("small", seconds=60, size=100)
    old_slow = entry("old", seconds=60, size=100, days=60)
    verdicts = judge([big_quick, small_slow, old_slow], [KeepStorage(10_150)], NOW)

    assert [v.keep for v in verdicts] == [False, True, True]
    verdicts = judge([small_slow, old_slow], [KeepStorage(100)], NOW)
    assert [v.keep for v in verdicts] == [True, False]


def test_grace_and_named_pins() -> None:
    """What was used just now stays, and what a person names."""
    fresh, old = entry("fresh", seconds=1, size=1), entry("old", seconds=1, size=1, days=9)
    nothing = [KeepStorage(0)]

    assert [v.keep for v in judge([fresh, old], nothing, NOW, grace=DAY)] == [True, False]
    kept = judge([fresh, old], nothing, NOW, pinned=Pinned(("ol",)))
    assert [v.keep for v in kept] == [False, True]


label_sets = st.lists(
    st.tuples(st.sampled_from(["ci", "team"]), st.sampled_from(["a", "b"])),
    max_size=2,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: tuple(sorted(pairs)))
labels = st.lists(
    st.builds(
        LabelFilter,
        st.sampled_from(["ci", "team"]),
        st.sampled_from([None, "a", "b"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=2,
).map(tuple)


many_sets = st.lists(st.lists(label_sets, max_size=2).map(tuple), min_size=12)


@given(entries, many_sets, policies, labels)
def test_labels_narrow_any_policy(
    found: list[CacheEntry],
    sets: list[tuple[tuple[tuple[str, str], ...], ...]],
    wanted: list[object],
    conditions: tuple[LabelFilter, ...],
) -> None:
    """Only what every build of which meets all conditions goes; the policies let no more go."""
    found = [attrs.evolve(e, labels=s) for e, s in zip(found, sets, strict=False)]
    narrowed = [Only(policy, conditions) for policy in [*wanted, AnyEntry()]]  # type: ignore[arg-type]

    def meets(build: tuple[tuple[str, str], ...], label: LabelFilter) -> bool:
        has = dict(build).get(label.name)
        there = has is not None and label.value in (None, has)
        return not there if label.absent else there

    for verdict in judge(found, narrowed, NOW):
        builds = verdict.entry.labels or ((),)
        free = all(meets(build, label) for build in builds for label in conditions)
        assert verdict.keep is (not free or bool(verdict.entry.pins))


def test_what_labels_spare_counts_in_sizes() -> None:
    """The size kept is that of the whole cache; only what fits the labels makes room."""
    shared = Digest(f"sha256:{1:064x}")
    found = [
        CacheEntry(
            key=CacheKey(f"{n:064x}"),
            text="RUN a",
            used=0.0,
            blobs=((Digest(f"sha256:{n + 2:064x}"), 100), (shared, 10)),
            labels=((("ci", "nightly"),),) if n < 3 else ((("release", "1"),),),
        )
        for n in range(6)
    ]
    policy = Only(KeepStorage(450), (LabelFilter.parse("label!=release"),))
    verdicts = judge(found, [policy], Situation(now=DAY))

    assert [v.keep for v in verdicts] == [False, False, True, True, True, True]
    assert verdicts[0].reason == "over the size kept (label!=release)"
    assert [v.reason for v in verdicts[2:4]] == ["within the policy", "labelled release=1"]


@pytest.mark.parametrize("text", ["", "label", "label=", "label!=", "until=3d", "label!", "=a"])
def test_what_is_no_filter_is_said_to_be_none(text: str) -> None:
    """Every other form is an error that names the right one."""
    with pytest.raises(UsageError, match="expected label="):
        LabelFilter.parse(text)
    for good in ("label=a", "label!=a", "label=a=b=c", "label!=a="):
        assert str(LabelFilter.parse(good)) == good
