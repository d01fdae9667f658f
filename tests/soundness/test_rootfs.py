"""The theorem, on real commands: a cached build's tree is that of a clean build.

Random Dockerfiles (all instructions, several stages, mounts) through random histories of edits;
after every edit the cached build is compared with the same build with `--no-cache` on the same
cache, or on an empty one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from layercache import Builder, Dockerfile, LayerCacheError
from layercache.builds.result import BuildResult
from layercache.executors.rootfs import RootfsExecutor
from layercache.model.digests import Fingerprint
from layercache.model.graph import Step
from layercache.model.keys import KeyMaterial
from layercache.testing.images import busybox_layer, make_layout
from tests.conformance.running import tree_of

from .recipes import Project

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("busybox"),
    reason="needs root on Linux and a static busybox",
)

CI_HISTORIES = 100
SOAK_HISTORIES = 10_000
KEPT = Path(__file__).parent / "kept"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base image as a named context."""
    layer = busybox_layer()
    assert layer is not None
    layout = tmp_path_factory.mktemp("base") / "layout"
    make_layout(layout, [layer], {"Env": ["PATH=/bin"]})
    return f"oci-layout://{layout}"


def attempt(builder: Builder, project: Moment, base: str, *, no_cache: bool) -> object:
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


@attrs.frozen
class Moment:
    """A project at one build: a copy of its context with the Dockerfile, and the arguments."""

    root: Path
    args: dict[str, str]

    @classmethod
    def of(cls, project: Project, copy: Path) -> Moment:
        shutil.copytree(project.root, copy, symlinks=True)
        return cls(copy, dict(project.args))


def lies(moments: list[Moment], place: Path, base: str, executor: RootfsExecutor) -> str:
    """Where the cached build of the last moment differs from a clean one; "" where it does not."""
    shutil.rmtree(place, ignore_errors=True)
    cached = Builder(place / "cache", executor=executor)
    ours: object = None
    for moment in moments:
        ours = attempt(cached, moment, base, no_cache=False)
    clean = Builder(place / "clean", executor=executor)
    theirs = attempt(clean, moments[-1], base, no_cache=True)
    return "" if ours == theirs else difference(ours, theirs)


def shrink(moments: list[Moment], place: Path, base: str, executor: RootfsExecutor) -> list[Moment]:
    """The same lie with as few builds and as few lines as dropping one at a time finds."""
    for number in range(len(moments) - 2, -1, -1):
        fewer = moments[:number] + moments[number + 1 :]
        if lies(fewer, place, base, executor):
            moments = fewer
    for moment in moments:
        file = moment.root / "Dockerfile"
        lines = file.read_text().splitlines()
        for number in range(len(lines) - 1, 0, -1):
            without = lines[:number] + lines[number + 1 :]
            file.write_text("\n".join(without) + "\n")
            if lies(moments, place, base, executor):
                lines = without
        file.write_text("\n".join(lines) + "\n")
    return moments


def keep(moments: list[Moment], seed: int) -> Path:
    """Put a lie among the kept ones, which every run tries again."""
    target = KEPT / f"seed-{seed}"
    shutil.rmtree(target, ignore_errors=True)
    for number, moment in enumerate(moments):
        shutil.copytree(moment.root, target / str(number), symlinks=True)
        (target / f"{number}.json").write_text(json.dumps(moment.args))
    return target


def run_history(seed: int, directory: Path, base: str, executor: RootfsExecutor) -> int:
    """One history of one project; returns how many builds were compared."""
    rng = random.Random(seed)
    project = Project(directory / "project", rng)
    cached = Builder(directory / "cache", executor=executor)
    moments: list[Moment] = []
    for number in range(rng.randint(1, 3)):
        if number:
            project.edit()
        moments.append(Moment.of(project, directory / f"moment{number}"))
        ours = attempt(cached, moments[-1], base, no_cache=False)
        on_same_cache = rng.random() < 0.3
        clean = (
            cached if on_same_cache else Builder(directory / f"clean{number}", executor=executor)
        )
        theirs = attempt(clean, moments[-1], base, no_cache=True)
        if ours != theirs:
            shown = difference(ours, theirs)
            if lies(moments, directory / "again", base, executor):
                moments = shrink(moments, directory / "again", base, executor)
            kept = keep(moments, seed)
            recipe = (moments[-1].root / "Dockerfile").read_text()
            pytest.fail(f"seed {seed}, kept in {kept}: {shown}\n{moments[-1].args}\n{recipe}")
    return len(moments)


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


def test_lies_that_were_found_once_stay_mended(tmp_path: Path, base: str) -> None:
    """Every kept history, as far as there are any."""
    with RootfsExecutor(tmp_path / "rootfs") as executor:
        for place in sorted(KEPT.glob("seed-*")):
            numbers = sorted(int(file.stem) for file in place.glob("*.json"))
            moments = [
                Moment(place / str(n), json.loads((place / f"{n}.json").read_text()))
                for n in numbers
            ]
            assert lies(moments, tmp_path / place.name, base, executor) == "", place.name


def test_a_lie_is_caught_shrunk_and_kept(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key that forgets what COPY takes, histories fail, and end as two short builds."""
    from layercache.model.operations import CopyFiles
    from layercache.solver.strategies import ContentKeys

    def forgetful(self: ContentKeys, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        material = honest(self, step, inputs)
        if not isinstance(step.instruction, CopyFiles):
            return material
        return attrs.evolve(material, inputs=material.inputs[:1])

    honest = ContentKeys.material
    monkeypatch.setattr(ContentKeys, "material", forgetful)
    monkeypatch.setattr("tests.soundness.test_rootfs.KEPT", tmp_path / "kept")
    project = tmp_path / "project"
    project.mkdir()
    lines = "FROM base\nENV A=1\nCOPY a.txt /t/\nRUN true\nLABEL l=1\n"
    moments = []
    for number in range(3):
        root = tmp_path / f"moment{number}"
        root.mkdir()
        (root / "Dockerfile").write_text(lines)
        (root / "a.txt").write_text(str(number))
        moments.append(Moment(root, {}))
    with RootfsExecutor(tmp_path / "rootfs") as executor:
        assert lies(moments, tmp_path / "again", base, executor)
        short = shrink(moments, tmp_path / "again", base, executor)
    kept = keep(short, 7)

    assert len(short) == 2
    assert (short[-1].root / "Dockerfile").read_text() == "FROM base\nCOPY a.txt /t/\n"
    assert sorted(p.name for p in kept.iterdir()) == ["0", "0.json", "1", "1.json"]
