"""Counts over a build and over the life of a cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layercache import Builder
from layercache.reports.totals import Totals
from tests.reports.support import FILES, build

totals = st.builds(
    Totals,
    builds=st.integers(0, 9),
    hits=st.integers(0, 9),
    misses=st.integers(0, 9),
    seconds=st.integers(0, 9).map(float),
    causes=st.dictionaries(st.sampled_from(["files", "parent", "base"]), st.integers(1, 9)),
)


@given(totals, totals, totals)
def test_totals_are_a_monoid(a: Totals, b: Totals, c: Totals) -> None:
    """Order and grouping of builds do not matter; nothing added changes nothing."""
    assert a.plus(b) == b.plus(a)
    assert a.plus(b).plus(c) == a.plus(b.plus(c))
    assert a.plus(Totals()) == a


@given(totals)
def test_totals_round_trip(value: Totals) -> None:
    """What is kept is what is read."""
    assert Totals.decode(value.encode()) == value


def test_a_cache_counts_over_its_life() -> None:
    """Builds, hits, misses by cause."""
    builder = Builder()
    build(builder, FILES)
    build(builder, FILES)
    build(builder, {**FILES, "server.js": "2"})
    kept = builder.store.derived.get("stats", "life")
    assert kept is not None
    life = Totals.decode(kept)

    assert (life.builds, life.hits, life.misses) == (3, 3, 3)
    assert life.causes == {"first-build": 2, "files": 1}


def test_a_plan_counts_nothing() -> None:
    """Planning writes nothing, counts included."""
    from layercache import Dockerfile

    builder = Builder()
    builder.plan(Dockerfile.parse("FROM scratch\nCOPY . /\n"), context=FILES)

    assert builder.store.derived.get("stats", "life") is None
