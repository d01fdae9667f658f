"""`cache du` and `cache prune` know cache mounts one by one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from layercache import Builder, Dockerfile
from layercache.cli import main
from layercache.executors.rootfs import RootfsExecutor
from layercache.store.open import open_store
from tests.executors.tracing.machines import base_layout, has_busybox


def du(cache: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `cache du` says of cache mounts, by id."""
    assert main(["cache", "du", "--json", "--cache", str(cache)]) == 0
    return {row["id"]: row for row in json.loads(capsys.readouterr().out)["cache_mounts"]}


@pytest.mark.parametrize("rootless", [False, True])
def test_cache_mounts_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, rootless: bool
) -> None:
    """Listed with size and last use, and deleted by id, while the rest stays."""
    if os.geteuid() != 0 or not has_busybox():
        pytest.skip("needs root and busybox")
    cache = tmp_path / "cache"
    base = base_layout(tmp_path / "base")
    before = time.time() - 1

    def build(text: str) -> bytes:
        executor = RootfsExecutor(cache / "rootfs", rootless=rootless)
        with executor, open_store(str(cache), durability="none") as store:
            found = Builder(store, executor=executor).build(
                Dockerfile.parse(f"FROM base\nENV PATH=/bin\n{text}"),
                contexts={"base": f"oci-layout://{base}"},
            )
            with found.tree().open(b"n") as file:
                content: bytes = file.read()
                return content

    text = (
        "RUN --mount=type=cache,id=big,target=/c ls /c > /n && head -c 300000 /dev/zero > /c/x\n"
        "RUN --mount=type=cache,target=/small echo > /small/x"
    )
    assert build(text) == b""
    listed = du(cache, capsys)
    assert set(listed) == {"big", "/small"}
    assert 300_000 <= listed["big"]["bytes"] < 400_000
    assert listed["/small"]["bytes"] < 100_000
    assert all(before <= row["used"] <= time.time() + 1 for row in listed.values())

    prune = ["cache", "prune", "--cache", str(cache), "--filter", "type=exec.cachemount"]
    assert main([*prune, "--filter", "id=big", "--dry-run"]) == 0
    assert "cache mount big" in capsys.readouterr().out
    assert set(du(cache, capsys)) == {"big", "/small"}
    assert main([*prune, "--filter", "id=big"]) == 0
    assert "1 cache mounts: freed" in capsys.readouterr().out
    assert set(du(cache, capsys)) == {"/small"}
    assert build(text.replace("ls /c", "ls /c/")) == b""  # begins anew
    assert main(prune) == 0
    capsys.readouterr()
    assert du(cache, capsys) == {}


def test_filters_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label and a kind at once, or another kind, are refused, and nothing is deleted."""
    for words in (["type=regular"], ["id=x"], ["type=exec.cachemount", "label=a"]):
        filters = [word for text in words for word in ("--filter", text)]
        assert main(["cache", "prune", "--cache", str(tmp_path), *filters]) == 2
        assert "no filter of cache mounts" in capsys.readouterr().err
