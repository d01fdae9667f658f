"""Compiled Python goes by the content of its source once it is in a layer."""

from __future__ import annotations

import importlib.util
import io
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from layercache.layers.capture import capture_upper
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.digests import DiffID


def captured(upper: Path) -> DiffID:
    writer = LayerWriter(io.BytesIO())

    def nothing(_layer: int, _offset: int, _size: int) -> io.BytesIO:
        raise AssertionError

    capture_upper(str(upper), StateTree((), nothing), writer)
    return writer.finish()[0]


def compiled(directory: Path, moment: int) -> Path:
    """A module that was written and compiled at a time."""
    directory.mkdir()
    source = directory / "module.py"
    source.write_text("value = 1\n")
    os.utime(source, (moment, moment))
    made = py_compile.compile(
        str(source), dfile="/m.py", invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP
    )
    assert made is not None
    return Path(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_bytecode_agrees_with_its_source_in_the_layer(tmp_path: Path) -> None:
    """Two runs give one layer; nothing is compiled again, until the source changes."""
    layers = set()
    for moment in (1_700_000_001, 1_790_000_002):
        made = compiled(tmp_path / str(moment), moment)
        layers.add(captured(tmp_path / str(moment)))
        assert made.read_bytes()[4:16] == b"\3\0\0\0" + importlib.util.source_hash(b"value = 1\n")
        run = [sys.executable, "-v", "-c", "import module; print(module.value)"]
        out = subprocess.run(run, cwd=made.parents[1], capture_output=True, text=True, check=True)
        assert f"code object from {str(made)!r}" in out.stderr
        assert "wrote" not in "".join(line for line in out.stderr.splitlines() if "module" in line)
        (made.parents[1] / "module.py").write_text("value = 2\n")
        out = subprocess.run(run, cwd=made.parents[1], capture_output=True, text=True, check=True)
        assert out.stdout == "2\n"

    assert len(layers) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_bytecode_that_does_not_agree_is_left_as_it_is(tmp_path: Path) -> None:
    """Of another source, it would only seem to be right."""
    made = compiled(tmp_path / "x", 1_700_000_001)
    os.utime(tmp_path / "x" / "module.py", (1_700_000_009,) * 2)
    before = made.read_bytes()
    captured(tmp_path / "x")

    assert made.read_bytes() == before
