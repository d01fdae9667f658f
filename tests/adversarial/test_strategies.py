"""What a strategy that does not key by content could get wrong."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from layercache import Builder, Dockerfile, Workspace
from layercache.builds.result import BuildResult
from layercache.solver.strategies import ChainKeys

PYTHON = shlex.quote(sys.executable)


def read(result: BuildResult, path: bytes) -> bytes:
    with result.tree().open(path) as content:
        data: bytes = content.read()
    return data


def test_a_chained_record_of_another_parent_is_not_adopted(tmp_path: Path) -> None:
    """A parent that ran again and came out otherwise has its users run again, whatever is
    stored under their keys."""
    code = shlex.quote("import os; open('made', 'wb').write(os.urandom(8))")
    recipe = Dockerfile.parse(f"FROM x\nRUN {PYTHON} -c {code}\nRUN cp made copied\n")
    builder = Builder(
        tmp_path / "cache", executor=Workspace(tmp_path / "workspace"), keys=ChainKeys()
    )

    builder.build(recipe, context={})
    again = builder.build(recipe, context={}, no_cache=lambda origin: origin.index == 1)
    third = builder.build(recipe, context={})

    assert [step.decision for step in again.steps] == [None, "miss", "miss"]
    assert read(again, b"copied") == read(again, b"made")
    assert [step.decision for step in third.steps] == [None, "hit", "hit"]
    assert third.image == again.image
