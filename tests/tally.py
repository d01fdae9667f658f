"""Randomised runs are counted and told: `N run, seed S, wall T`, one line for each suite."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import hypothesis

SEED = int(os.environ.get("LAYERCACHE_SEED", "20261101"))
"""Where random choices begin; set LAYERCACHE_SEED for others."""


def tell(name: str, runs: int, seconds: float, seed: int = SEED, more: str = "") -> None:
    """Print a line that `tests.counted` adds up."""
    print(f"{name}: {runs} run, seed {seed}, wall {seconds:.1f} s{more}")


def law(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property that holds for `examples` examples from the seed on, counted."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        count = 0
        inner = test.hypothesis.inner_test  # type: ignore[attr-defined]

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> None:
            nonlocal count
            count += 1
            inner(*args, **kwargs)

        test.hypothesis.inner_test = counted  # type: ignore[attr-defined]
        settled = hypothesis.seed(SEED)(
            hypothesis.settings(
                max_examples=examples,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )(test)
        )

        @functools.wraps(settled)
        def told() -> None:
            started = time.perf_counter()
            settled()
            tell(test.__name__, count, time.perf_counter() - started)
            assert count >= examples * 0.9, f"only {count} of {examples} examples ran"

        del told.__wrapped__  # pytest must not see the arguments that Hypothesis gives
        return told

    return decorate
