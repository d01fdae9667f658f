"""Early cutoff: a step that ran and came out as before leaves everything after it reused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.executors.tracing.machines import Machine, decisions, snapshot


def test_runs_that_come_out_as_before_leave_their_users_reused(machine: Machine) -> None:
    """A comment in a source file changes: COPY and the RUN that strips it run, nothing else."""
    text = """\
FROM base AS strip
COPY src /src
RUN grep -v '^#' /src/list > /words
FROM base
COPY --from=strip /words /words
RUN sort /words > /sorted
RUN tr a-z A-Z < /sorted > /upper
"""
    first = machine.build(text, {"src/list": "b\na\n# one\n"})
    again = machine.build(text, {"src/list": "b\na\n# two\n"})
    assert decisions(first) == ["miss"] * 5
    assert decisions(again) == ["miss", "miss", "hit", "hit", "hit"]
    assert first.state == again.state


def test_an_equal_layer_in_a_chain_of_runs_cuts_off(machine: Machine) -> None:
    """An edited command that does the same leaves every RUN after it reused."""
    text = "FROM base\nRUN {}\nRUN wc -l < /a > /b\nRUN cat /a /b > /c\nWORKDIR /d\nRUN ls / > e\n"
    first = machine.build(text.format("seq 3 > /a"))
    again = machine.build(text.format("printf '1\\n2\\n3\\n' > /a"))
    assert decisions(first) == ["miss"] * 5
    assert decisions(again) == ["miss", "hit", "hit", "hit", "hit"]
    assert snapshot(first.tree()) == snapshot(again.tree())


def test_a_rebuilt_stage_that_is_equal_cuts_off_its_readers(machine: Machine) -> None:
    """COPY --from reads files, not the history of the stage that made them."""
    text = """\
FROM base AS made
ARG NOISE
RUN echo $NOISE > /noise && echo same > /out
FROM base AS also
COPY --from=made /out /in
RUN cat /in /in > /twice
FROM base
COPY --from=also /twice /
RUN rev=$(cat /twice) && echo $rev > /end
"""
    machine.build(text, args={"NOISE": "1"})
    again = machine.build(text, args={"NOISE": "2"})
    assert decisions(again) == ["miss", "hit", "hit", "hit", "hit"]


def test_another_machine_goes_on_where_the_content_is_equal(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    """Two machines share a cache; what one made, the other reuses, after a step of its own."""
    cache = tmp_path / "shared"
    one, two = machines(cache=cache), machines(cache=cache)
    text = "FROM base\nRUN {}\nRUN date -r /a +%s > /t\nRUN cat /a /t > /b\n"
    first = one.build(text.format("echo x > /a"))
    second = two.build(text.format("printf 'x\\n' > /a"))
    assert decisions(first) == ["miss"] * 3
    assert decisions(second) == ["miss", "hit", "hit"]
    assert first.state == second.state


def test_two_machines_that_disagree_never_mix(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    """A command gives another result each time; machines share some of the cache, lose parts of
    it and bypass it at will: what a build gives is always one history, never parts of two.

    Each step writes what the step before it left, so any mixture shows in the last file.
    """
    seed = 20261124
    chance = random.Random(seed)
    cache = tmp_path / "shared"
    pair = [machines(cache=cache), machines(cache=cache)]
    draw = "RUN head -c 8 /dev/urandom | od -An -tx1 > /n{0} && cat /n{0} >> /log\n"
    follow = "RUN cat /log > /seen{0} && sha256sum /n* > /sum{0}\n"
    text = "FROM base\n" + "".join(draw.format(n) + follow.format(n) for n in range(3))
    runs = 30
    for _ in range(runs):
        machine = chance.choice(pair)
        bypassed = {n for n in range(1, 7) if chance.random() < 0.25}
        if chance.random() < 0.4:
            _lose_some(cache, chance)
        result = machine.build(text, no_cache=_bypass(bypassed))
        _check_one_history(result.tree())
    print(f"{runs} run, seed {seed}")


def _bypass(numbers: set[int]) -> Callable[[Any], bool]:
    return lambda origin: origin.index in numbers


def _lose_some(cache: Path, chance: random.Random) -> None:
    """Delete some records and some blobs."""
    for folder in ("ac", "blobs", "cas"):
        for path in sorted((cache / folder).rglob("*")) if (cache / folder).exists() else ():
            if path.is_file() and chance.random() < 0.1:
                path.unlink()


def _check_one_history(tree: Any) -> None:
    def read(path: str) -> bytes:
        with tree.open(path.encode()) as content:
            data: bytes = content.read()
            return data

    drawn = [read(f"n{n}") for n in range(3)]
    assert read("log") == b"".join(drawn)
    for n in range(3):
        assert read(f"seen{n}") == b"".join(drawn[: n + 1])
    sums = [line.split()[0] for line in read("sum2").splitlines()]
    assert [line.split()[0] for line in read("sum1").splitlines()] == sums[:2]
    assert [line.split()[0] for line in read("sum0").splitlines()] == sums[:1]
