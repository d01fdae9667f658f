"""The file that says whether an unpacked directory can be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layercache.store.copy_state import CopyStates


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "fs").mkdir()
    return tmp_path


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_written_is_read(copy: Path, durable: bool) -> None:
    """With the time of the last use."""
    states = CopyStates("root")
    states.write(str(copy), durable=durable)
    os.utime(copy / "state", (5, 7))
    found = states.read(str(copy))
    assert found is not None
    assert (durable, 7.0) == (found.durable, found.stamp)
    assert ["fs", "state"] == sorted(os.listdir(copy))


@pytest.mark.parametrize(
    "said",
    ["", "root", "root synced\n", "root boot ", "root boot of another time", "other synced", "\0"],
)
def test_anything_else_is_not_trusted(copy: Path, said: str) -> None:
    (copy / "state").write_text(said)
    assert CopyStates("root").read(str(copy)) is None


def test_another_form_is_not_trusted(copy: Path) -> None:
    """Owners and attributes lie otherwise there."""
    CopyStates("user").write(str(copy), durable=True)
    assert CopyStates("root").read(str(copy)) is None


def test_a_directory_without_files_is_not_trusted(copy: Path) -> None:
    states = CopyStates("root")
    states.write(str(copy), durable=True)
    (copy / "fs").rmdir()
    assert states.read(str(copy)) is None
    (copy / "fs").symlink_to("/")
    assert states.read(str(copy)) is None


def test_without_an_identifier_of_the_boot_only_synced_copies_count(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layercache.store.copy_state.boot_id", lambda: None)
    states = CopyStates("root")
    states.write(str(copy), durable=False)
    assert states.read(str(copy)) is None
    states.write(str(copy), durable=True)
    assert states.read(str(copy)) is not None
