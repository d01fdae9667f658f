"""Every kind of observation is seen: more than 80, by system calls made directly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layercache.errors import StepFailed
from tests.executors.rootfs.conftest import Bench
from tests.executors.tracing.battery import (
    EXPECTED,
    NOT_READ,
    battery_base,
    letters,
    missing,
    observe,
    program,
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An executor over the files of the battery."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if program() is None:
        pytest.skip("no C compiler with static libraries: apt-get install gcc libc6-dev")
    made = Bench(tmp_path_factory.mktemp("scratch"), battery_base())
    result = observe(made, "/observe", "nothing")
    if result.observed is None:
        made.executor.close()
        pytest.skip(f"can't trace here: {result.refusal}")
    yield made
    made.executor.close()


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_kind_of_observation_is_seen(bench: Bench, kind: str) -> None:
    """A command that looks in this way is seen to look at just that path, in that respect."""
    try:
        result = observe(bench, "/observe", kind)
    except StepFailed as error:
        if error.status == 77:
            pytest.skip(f"this kernel has no {kind}")
        raise
    assert result.refusal == ""
    assert result.observed is not None
    assert missing(result.observed, EXPECTED[kind]) == {}


@pytest.mark.parametrize("kind", NOT_READ)
def test_bytes_that_are_not_read_do_not_count(bench: Bench, kind: str) -> None:
    """Looking a file up, overwriting or deleting it does not read it."""
    result = observe(bench, "/observe", kind)
    assert result.observed is not None
    assert "R" not in letters(result.observed, "t/file")


def test_an_image_without_attributes_says_that_there_are_none(bench: Bench, tmp_path: Path) -> None:
    """As it does unwatched, and as one does that has attributes elsewhere."""
    plain = Bench(tmp_path, battery_base(attributes=False))
    try:
        result = observe(plain, "/observe", "xattr_none")
    finally:
        plain.executor.close()
    assert result.observed is not None
    assert letters(result.observed, "t/file") == "EZS"


def test_there_are_enough_kinds() -> None:
    """The battery has at least 46 kinds."""
    assert len(EXPECTED) >= 46
    print(f"{len(EXPECTED)} run, seed 0")
