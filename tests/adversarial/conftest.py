"""Two builds that follow each other, and the same without a cache."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult
from layercache.executors.rootfs import RootfsExecutor
from layercache.testing.images import busybox_layer, make_layout

Build = Callable[..., BuildResult]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A busybox image as a named context."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("busybox"):
        pytest.skip("needs root on Linux and a static busybox")
    layer = busybox_layer()
    assert layer is not None
    layout = tmp_path_factory.mktemp("base") / "layout"
    make_layout(layout, [layer], {"Env": ["PATH=/bin"]})
    return f"oci-layout://{layout}"


@pytest.fixture
def build(tmp_path: Path, base: str) -> Iterator[Build]:
    """Builds a Dockerfile text with the root file system executor; `cache` names one of several."""
    executors: dict[str, RootfsExecutor] = {}

    def run(
        text: str, context: Mapping[str, str] | None = None, *, cache: str = "cache", **options: Any
    ) -> BuildResult:
        executor = executors.get(cache)
        if executor is None:
            executor = executors[cache] = RootfsExecutor(tmp_path / cache / "rootfs")
        builder = Builder(tmp_path / cache, executor=executor)
        return builder.build(
            Dockerfile.parse(text), context=context or {}, contexts={"base": base}, **options
        )

    yield run
    for executor in executors.values():
        executor.close()
