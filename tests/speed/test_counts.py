"""What a build asks of the file system and the medium, counted: times are never asserted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.speed.conftest import RECIPE, Project, Told


def corpus(project: Project, files: int) -> None:
    """`files` small files in directories of fifty, and the recipe."""
    for number in range(files):
        project.write(f"src/part{number // 50}/file{number}.txt", f"content {number}\n")
    project.write("package.json", "{}")
    project.write("Dockerfile", RECIPE)


def test_an_unchanged_context_is_not_read(project: Project) -> None:
    """Reusing everything over 10,000 unchanged files opens none of them and lists no directory,
    reads no layer, and makes nothing durable."""
    corpus(project, 10_000)
    project.build()
    told = project.build()

    names = {os.path.basename(path) for path in told.opened}
    assert not [name for name in names if name.startswith("file") and name.endswith(".txt")]
    assert told.opened_below(project.context) <= {
        str(project.context / name)
        for name in ("Dockerfile", ".dockerignore", "Dockerfile.dockerignore")
    }
    assert not [path for path in told.listed if path.startswith(str(project.context))]
    assert not told.opened_below(project.cache / "blobs")
    assert 0 == told.syncs


def test_one_changed_file_is_read_alone(project: Project) -> None:
    """Deciding after an edit opens the file that changed, of a thousand, and no other; making
    the new layer of a COPY opens what that COPY takes, and no other."""
    corpus(project, 1_000)
    lines = [f"COPY src/part{number} /part{number}/" for number in range(20)]
    project.write("Dockerfile", "\n".join(["FROM scratch", *lines]) + "\n")
    project.build()
    project.write("src/part3/file175.txt", "edited\n")

    def opened(told: Told) -> set[str]:
        names = {os.path.basename(path) for path in told.opened}
        return names & {f"file{number}.txt" for number in range(1_000)}

    assert {"file175.txt"} == opened(project.plan())
    assert {f"file{number}.txt" for number in range(150, 200)} == opened(project.build())
    assert set() == opened(project.build())


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel counts no bytes here")
def test_one_changed_file_is_the_bytes_read(project: Project) -> None:
    """Deciding after a file grew by a megabyte reads a megabyte more than where nothing changed:
    none of the other files, which are as large."""
    extra = 1 << 20
    for number in range(8):
        project.write(f"file{number}.bin", os.urandom(extra))
    project.write("Dockerfile", "FROM scratch\nCOPY . /\n")
    project.build()
    same = project.plan()
    project.write("file3.bin", os.urandom(extra))
    changed = project.plan()

    assert abs(changed.bytes_read - same.bytes_read - extra) < extra // 4


def test_an_ignored_directory_is_left_alone(project: Project) -> None:
    """Below a directory that the ignore file names nothing is opened, listed or asked for, in a
    first build, an unchanged one, and one after a change in there; an exception opens it."""
    corpus(project, 100)
    for number in range(20):
        project.write(f"node_modules/package{number}/index.js", "x")
    inside = str(project.context / "node_modules")

    def calls(told: Told) -> set[str]:
        paths = {*told.opened, *told.listed, *told.asked}
        return {p for p in paths if p.startswith(inside + os.sep)} | {
            p for p in (*told.opened, *told.listed) if os.path.basename(p) == "node_modules"
        }

    project.write(".dockerignore", "node_modules\n")
    assert set() == calls(project.build())
    assert set() == calls(project.build())
    project.write("node_modules/package7/index.js", "another")
    project.write("node_modules/new/index.js", "new")
    assert set() == calls(project.build())
    # The calls would be seen: nothing here rests on looking in the wrong place.
    project.write(".dockerignore", "node_modules\n!node_modules/package3\n")
    assert any("package3" in path for path in calls(project.build()))


@pytest.mark.parametrize("durability", ["batch", "none"])
def test_syncs(project: Project, durability: str) -> None:
    """A build makes its results durable in at most three calls, however many steps it has; one
    that changes nothing makes none."""
    lines = ["FROM scratch"]
    for number in range(20):
        project.write(f"f{number}", str(number))
        lines += [f"COPY f{number} /", f"RUN echo {number} > {number}"]
    project.write("Dockerfile", "\n".join(lines) + "\n")
    first = project.build("--durability", durability)
    project.write("f10", "changed")
    changed = project.build("--durability", durability)
    same = project.build("--durability", durability)

    limit = 3 if durability == "batch" else 0
    assert first.syncs <= limit
    assert changed.syncs <= limit
    assert 0 == same.syncs


def test_naming_what_is_there_costs_a_sync_at_most(project: Project) -> None:
    """Giving an image that is there the name it has writes nothing that must be durable."""
    project.write("Dockerfile", "FROM scratch\nCOPY . /\n")
    project.build("-t", "app:1")
    assert project.build("-t", "app:1").syncs <= 1


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel counts no bytes here")
def test_layers_of_any_size_cost_the_same(project: Project) -> None:
    """Reusing a layer of 64 MB reads as few bytes, and opens as few files, as one of 1 MB."""
    told = []
    for size in (1, 64):
        project.write("blob", os.urandom(1 << 20) * size)
        project.write("Dockerfile", "FROM scratch\nCOPY blob /\nRUN echo hello > hello\n")
        project.build()
        told.append(project.build())

    small, large = told
    assert abs(large.bytes_read - small.bytes_read) < 1 << 16
    assert len(large.opened) == len(small.opened)
    assert not large.opened_below(project.cache / "blobs")
