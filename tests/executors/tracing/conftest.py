"""Machines with a busybox base image; skipped where root file systems can't be made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.executors.tracing.machines import Machine, base_layout, has_busybox


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OCI layout of a busybox image."""
    if not has_busybox():
        pytest.skip("no busybox: apt-get install busybox-static")
    return base_layout(tmp_path_factory.mktemp("base"))


@pytest.fixture
def machines(tmp_path: Path, base: Path) -> Iterator[Callable[..., Machine]]:
    """Makes machines; `cache=` is shared between those that name the same."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made: list[Machine] = []

    def make(**options: Any) -> Machine:
        made.append(Machine(tmp_path / f"machine{len(made)}", options.pop("base", base), **options))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


@pytest.fixture
def machine(machines: Callable[..., Machine]) -> Machine:
    """One machine with a cache of its own."""
    return machines()
