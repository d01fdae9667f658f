"""A share of the random histories, and the file that counts them all."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from layercache.solver.strategies import ContentKeys
from layercache.testing.laws import LawBroken, Tally
from layercache.testing.wrong import ForgetfulKeys
from tests.soundness import histories
from tests.soundness.__main__ import COUNTS, counted, next_seed
from tests.tally import SEED, tell

SHARE = {"walk": 3_000, "memory": 100, "watched": 100, "shared": 80, "workspace": 15}
"""Histories of each kind for every change of the project; those on root file systems are
`test_rootfs`."""


@pytest.mark.parametrize("kind", SHARE)
def test_each_hit_equals_a_clean_rebuild(kind):
    """Whatever was edited, reverted, lost, pruned or built elsewhere in between."""
    total, started = Tally(), time.monotonic()
    for seed in range(SEED, SEED + SHARE[kind]):
        total.add(histories.KINDS[kind](seed))
    tell(f"histories over time, {kind}", total.histories, time.monotonic() - started)

    assert total.histories == SHARE[kind]
    assert total.builds >= 2 * total.histories
    assert total.hits > total.histories
    assert total.misses > total.histories / 2
    assert total.failed <= total.builds / 3


@pytest.mark.parametrize(
    "forgets", ["field text", "field still", "field destination", "input parent", "input source"]
)
def test_the_law_bites(forgets):
    """A key that leaves something out is found within a few of them."""

    def run():
        for seed in range(SEED, SEED + 5_000):
            histories.walk(seed, lambda: ForgetfulKeys(forgets))

    with pytest.raises(LawBroken):
        run()
    histories.walk(SEED, ContentKeys)


def test_what_is_counted_was_run():
    """Each row of the count says by which code, and its seeds are as many as its histories."""
    rows = json.loads(COUNTS.read_text())
    for row in rows:
        first, last = row["seeds"]
        assert row["kind"] in histories.KINDS
        assert row["histories"] == last - first + 1
        assert row["version"]
        assert len(row["sources"]) == 16
    for kind in histories.KINDS:
        spans = sorted(tuple(row["seeds"]) for row in rows if row["kind"] == kind)
        assert all(one[1] < two[0] for one, two in itertools.pairwise(spans))


def test_counting_goes_on_where_it_ended():
    """Seeds are never counted twice; other code begins a row of its own."""
    rows: list[dict[str, Any]] = []
    counted(rows, "walk", "code", 1, 10, Tally(histories=10, builds=20))
    counted(rows, "walk", "code", next_seed(rows, "walk"), 15, Tally(histories=5, builds=9))
    counted(rows, "walk", "other", next_seed(rows, "walk"), 16, Tally(histories=1))

    assert [(row["seeds"], row["histories"], row.get("builds", 0)) for row in rows] == [
        ([1, 15], 15, 29),
        ([16, 16], 1, 0),
    ]
    assert next_seed(rows, "memory") == 1
