"""A cache directory in which somebody put other things: damaged objects, never more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache import Builder, Copy
from layercache.builds.result import BuildResult

FILES = {"a": "1"}


def build(cache: Path) -> BuildResult:
    return Builder(cache).build([Copy("a", "/a")], context=FILES)


def huge(path: Path) -> None:
    with open(path, "wb") as out:
        out.truncate(1 << 42)


INSTEAD: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo if sys.platform != "win32" else Path.touch,
    "a directory": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "four terabytes of nothing": huge,
}


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files and devices are Linux's")
@pytest.mark.parametrize("kind", ["ac", "blobs", "index", "trails", "stats", "format"])
@pytest.mark.parametrize("what", INSTEAD)
def test_an_object_is_something_else(tmp_path: Path, what: str, kind: str) -> None:
    """The build ends, with the result that it always gives."""
    first = build(tmp_path)
    place = tmp_path / kind
    for path in [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]:
        path.unlink()
        INSTEAD[what](path)

    assert build(tmp_path).image == first.image


def test_records_under_each_other_s_names(tmp_path: Path) -> None:
    """A record counts under its own key only."""
    first = build(tmp_path)
    Builder(tmp_path).build([Copy("a", "/b")], context=FILES)
    paths = sorted(path for path in (tmp_path / "ac").rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.unlink()
        path.write_bytes(content)

    again = build(tmp_path)
    assert [step.decision for step in again.steps] == ["miss"]
    assert again.image == first.image
