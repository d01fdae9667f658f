"""The theorem, on real commands: a cached build's tree is that of a clean build.

Random Dockerfiles (all instructions, several stages, mounts) through random histories of edits;
after every edit the cached build is compared with the same build with `--no-cache` on the same
cache, or on an empty one.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, LayerCacheError
from layercache.executors.rootfs import RootfsExecutor
from layercache.result import BuildResult
from layercache.testing.images import busybox_layer, make_layout
from tests.conformance.running import tree_of

from .recipes import Project

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("busybox"),
    reason="needs root on Linux and a static busybox",
)

CI_HISTORIES = 100
SOAK_HISTORIES = 10_000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base image as a named context."""
    layer = busybox_layer()
    assert layer is not None
    layout = tmp_path_factory.mktemp("base") / "layout"
    make_layout(layout, [layer], {"Env": ["PATH=/bin"]})
    return f"oci-layout://{layout}"


def attempt(builder: Builder, project: Project, base: str, *, no_cache: bool) -> object:
    """The tree and the configuration of a build, or why it failed."""
    try:
        result: BuildResult = builder.build(
            Dockerfile.load(project.root / "Dockerfile"),
            context=project.root,
            contexts={"base": base},
            args=project.args,
            no_cache=no_cache,
        )
    except LayerCacheError as error:
        return type(error).__name__
    assert result.built is not None
    return tree_of(result), result.built.config.config_to_oci()


def run_history(seed: int, directory: Path, base: str, executor: RootfsExecutor) -> int:
    """One history of one project; returns how many builds were compared."""
    rng = random.Random(seed)
    project = Project(directory / "project", rng)
    cached = Builder(directory / "cache", executor=executor)
    edits: list[str] = []
    compared = 0
    for number in range(rng.randint(1, 3)):
        if number:
            edits.append(project.edit())
        ours = attempt(cached, project, base, no_cache=False)
        on_same_cache = rng.random() < 0.3
        clean = (
            cached if on_same_cache else Builder(directory / f"clean{number}", executor=executor)
        )
        theirs = attempt(clean, project, base, no_cache=True)
        compared += 1
        if ours != theirs:
            recipe = (project.root / "Dockerfile").read_text()
            pytest.fail(
                f"seed {seed}, after {edits}: {difference(ours, theirs)}\n"
                f"args {project.args}\n{recipe}"
            )
    return compared


def difference(ours: object, theirs: object) -> str:
    """Where two outcomes differ, in a few words."""
    if not isinstance(ours, tuple) or not isinstance(theirs, tuple):
        return f"cached {str(ours)[:200]!r}, clean {str(theirs)[:200]!r}"
    if ours[1] != theirs[1]:
        return f"configuration {ours[1]} and {theirs[1]}"
    mine, clean = ours[0], theirs[0]
    paths = [p for p in {**mine, **clean} if mine.get(p) != clean.get(p)]
    return "; ".join(f"{p!r}: {mine.get(p)} and {clean.get(p)}" for p in paths[:5])


def run_many(count: int, seed: int, directory: Path, base: str) -> None:
    started = time.monotonic()
    compared = 0
    with RootfsExecutor(directory / "rootfs") as executor:
        for number in range(count):
            here = directory / str(number)
            here.mkdir()
            compared += run_history(seed + number, here, base, executor)
            shutil.rmtree(here)
    wall = time.monotonic() - started
    print(f"rootfs histories: {count} run, seed {seed}, wall {wall:.0f} s ({compared} compared)")


def test_cached_builds_equal_clean_builds(tmp_path: Path, base: str) -> None:
    """A short version for every change of the project."""
    run_many(CI_HISTORIES, 1_000, tmp_path, base)


@pytest.mark.soak
def test_cached_builds_equal_clean_builds_for_long(tmp_path: Path, base: str) -> None:
    """The long version, on demand; seeds are those after the short one's."""
    run_many(SOAK_HISTORIES, 100_000, tmp_path, base)
