"""Unpacked layers that somebody cleared away are unpacked again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.executors.rootfs import RootfsExecutor

TEXT = "FROM base\nRUN echo a > /a\nRUN cat /a > /b\n"


def emptied(path: Path) -> None:
    shutil.rmtree(path / "fs")


def replaced(path: Path) -> None:
    shutil.rmtree(path / "fs")
    (path / "fs").symlink_to("/etc")


def cut_short(path: Path) -> None:
    (path / "state").write_text("")


@pytest.mark.parametrize("damage", [emptied, replaced, cut_short, shutil.rmtree])
def test_damaged_directories_are_made_again(
    base: str, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """By the next build, which gives what the first gave."""
    images = []
    for again in (False, True):
        with RootfsExecutor(tmp_path / "scratch") as executor:
            builder = Builder(tmp_path / "cache", executor=executor)
            result = builder.build(
                Dockerfile.parse(TEXT),
                contexts={"base": base},
                no_cache=lambda origin, again=again: again and origin.index == 2,
            )
        images.append(result.image)
        for path in (tmp_path / "scratch" / "unpacked").iterdir():
            damage(path)

    assert images[0] == images[1]
