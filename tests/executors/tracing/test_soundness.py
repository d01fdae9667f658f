"""What a trace reuses is what a real run gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from layercache.model.observations import ABSENT, CONTENT, LISTING, METADATA, SIZE
from tests.executors.tracing.fuzz import Tally, fuzz
from tests.executors.tracing.machines import Machine
from tests.executors.tracing.tracers import drops, use_tracer

SEED = 20261124


def _report(tally: Tally, seed: int) -> None:
    print(
        f"{tally.hits} run, seed {seed} ({tally.misses} misses, {tally.recordings} recordings "
        f"compared, {len(tally.refused)} not traced)"
    )
    for text in tally.wrong:
        print(text)


def test_every_hit_equals_a_real_run(machines: Callable[..., Machine]) -> None:
    """Random scripts over random trees that change at random: a hit by a trace has the tree,
    times included, and the output of an unwatched run on those files."""
    tally = fuzz(machines(), machines(), SEED, lambda t: t.hits >= 100)
    _report(tally, SEED)
    assert tally.refused == []
    assert tally.wrong == []


# Times and sizes of copied files tell their contents, too.
@pytest.mark.parametrize(
    "bit", [ABSENT, CONTENT | METADATA | SIZE, LISTING], ids=["absent", "content", "listing"]
)
def test_a_tracer_that_says_too_little_is_found(
    machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, bit: int
) -> None:
    """The same comparison finds a hit that is wrong, or the executor refuses the step."""
    plain = machines()
    plain.build("FROM base\nRUN true\n")
    use_tracer(monkeypatch, drops(bit))
    tally = fuzz(
        machines(),
        plain,
        SEED,
        lambda t: bool(t.wrong or t.refused) or t.hits >= 300,
        compare_recordings=False,
    )
    assert tally.wrong or tally.refused


@pytest.mark.soak
def test_twenty_thousand_hits_equal_real_runs(machines: Callable[..., Machine]) -> None:
    """The same at length, a seed for each thousand."""
    for seed in range(20):
        tally = fuzz(machines(), machines(), seed, lambda t: t.hits >= 1000)
        _report(tally, seed)
        assert tally.wrong == []
