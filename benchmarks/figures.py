"""Figures, their limits in `floors.toml`, and ways to measure that a busy machine disturbs little.

CPU seconds are user and system time, of a process or of its children; works that are compared
run in turns, and the median of each counts.
"""

from __future__ import annotations

import functools
import os
import resource
import statistics
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("floors.toml")


@functools.cache
def limits() -> Mapping[str, Mapping[str, float]]:
    """Benchmark → name of a figure → what it should be at most."""
    with TABLE.open("rb") as source:
        return tomllib.load(source)


class Figure(NamedTuple):
    """What was measured: mostly a ratio to a floor that was measured beside it."""

    benchmark: str
    name: str
    value: float

    @property
    def limit(self) -> float | None:
        """What it should be at most; None where nothing is promised."""
        return limits().get(self.benchmark, {}).get(self.name)

    @property
    def ok(self) -> bool:
        return self.limit is None or self.value <= self.limit

    @property
    def shown(self) -> str:
        """The value with three digits that count."""
        return f"{self.value:.3g}" if abs(self.value) < 1 else f"{self.value:,.2f}"

    def __str__(self) -> str:
        limit = f"(at most {self.limit:g})" if self.limit is not None else ""
        return f"{self.name:62} {self.shown:>10}  {limit:18} {'' if self.ok else 'MISSED'}"


def report(figures: Sequence[Figure], check: bool) -> int:
    """Print figures; the exit status of a benchmark that is run alone."""
    for figure in figures:
        print(figure)
    return 1 if check and not all(figure.ok for figure in figures) else 0


def own_cpu() -> float:
    """CPU seconds of this process and of its ended children."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


def cpu(command: Sequence[str], **options: object) -> float:
    """CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options.setdefault("env", environment())
    subprocess.run(  # type: ignore[call-overload]
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def environment() -> dict[str, str]:
    """Ours, where an interpreter may keep compiled modules, as an installed package has them."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """CPU seconds that `work` takes in this process and its children."""

    def measure() -> float:
        before = own_cpu()
        work()
        return own_cpu() - before

    return measure


def walled(work: Callable[[], object]) -> Callable[[], float]:
    """Wall seconds that `work` takes."""

    def measure() -> float:
        before = time.perf_counter()
        work()
        return time.perf_counter() - before

    return measure


def interleaved(
    rounds: int,
    works: Mapping[str, Callable[[], float]],
    pick: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[str, float]:
    """The median of each (or what `pick` takes), measured in turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return {name: pick(values) for name, values in found.items()}
