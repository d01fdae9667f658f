"""Unpacked layers are looked through before a command sees them: what a clean-up took from one
never gets into a record."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache.builds.builder import Builder
from layercache.cli import main
from layercache.dockerfile.recipe import Dockerfile
from layercache.executors.rootfs import RootfsExecutor, unpacked
from layercache.executors.rootfs.seal import is_sealed, seal_of, write_seal
from layercache.testing.images import busybox_layer, make_layout
from layercache.testing.memory import snapshot

FIRST = "FROM base\nRUN mkdir -p /d/e && echo one > /d/e/f && echo two > /d/g && ln -s g /d/l\n"
SECOND = FIRST + "RUN ls -R /d > /listing; cat /d/e/f /d/g > /content\n"


@pytest.fixture
def build(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("busybox"):
        pytest.skip("needs root on Linux and a static busybox")
    layer = busybox_layer()
    assert layer is not None
    make_layout(tmp_path / "layout", [layer], {"Env": ["PATH=/bin"]})
    base = f"oci-layout://{tmp_path / 'layout'}"

    def run(text, cache="cache"):
        directory = tmp_path / cache
        with RootfsExecutor(directory / "rootfs") as executor:
            builder = Builder(directory, executor=executor)
            return builder.build(Dockerfile.parse(text), contexts={"base": base})

    return run


def copies(tmp_path, name="d/g"):
    """The directories of unpacked layers that hold a path."""
    place = tmp_path / "cache" / "rootfs" / "unpacked"
    return [p / "fs" for p in place.iterdir() if os.path.lexists(p / "fs" / name)]


def age(root):
    """`find -mtime +30 -delete`: what comes from an image looks old."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()


def rewrite(root):
    """Other bytes of the same size, with the times put back."""
    path = root / "d/g"
    times = path.stat()
    path.write_text("TWO\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def relink(root: Path) -> None:
    (root / "d/l").unlink()
    (root / "d/l").symlink_to("e")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "old files deleted": age,
    "one file": lambda root: (root / "d/e/f").unlink(),
    "a directory": lambda root: shutil.rmtree(root / "d/e"),
    "a file more": lambda root: (root / "d/more").write_text("x"),
    "same size and times": rewrite,
    "a mode": lambda root: (root / "d/g").chmod(0o600),
    "a link": relink,
    "an owner": lambda root: os.chown(root / "d/g", 1, 1),
    "all of it": shutil.rmtree,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_gutted_copy_is_made_anew(build, tmp_path, kind):
    """The next command sees what the layer says, and so does everybody who hits its record."""
    build(FIRST)
    (copy,) = copies(tmp_path)
    DAMAGE[kind](copy)
    again = snapshot(build(SECOND).tree())

    assert again == snapshot(build(SECOND, cache="clean").tree())
    assert again["content"].content == b"one\ntwo\n"


def test_within_one_build_of_one_executor(tmp_path, build, monkeypatch):
    """Also in a process that goes on for days: a copy is looked through again after a while."""
    monkeypatch.setattr(unpacked, "_FRESH", 0.0)
    base = f"oci-layout://{tmp_path / 'layout'}"
    with RootfsExecutor(tmp_path / "cache" / "rootfs") as executor:
        builder = Builder(tmp_path / "cache", executor=executor)
        builder.build(Dockerfile.parse(FIRST), contexts={"base": base})
        age(copies(tmp_path)[0])
        result = builder.build(Dockerfile.parse(SECOND), contexts={"base": base})
    assert snapshot(result.tree())["content"].content == b"one\ntwo\n"


def test_verify_finds_and_repairs(build, tmp_path, capsys):
    """`cache verify` says which copy was changed; repaired, it is made anew when needed."""
    build(FIRST)
    assert main(["cache", "verify", "--cache", str(tmp_path / "cache")]) == 0
    age(copies(tmp_path)[0])
    assert main(["cache", "verify", "--cache", str(tmp_path / "cache")]) == 1
    assert "unpacked layer was changed" in capsys.readouterr().err
    assert main(["cache", "verify", "--repair", "--cache", str(tmp_path / "cache")]) == 0
    assert main(["cache", "verify", "--cache", str(tmp_path / "cache")]) == 0
    assert snapshot(build(SECOND).tree())["content"].content == b"one\ntwo\n"


def test_looking_through_is_cheap(tmp_path):
    """Ten thousand files take a fraction of a second, and nothing is read but names and stamps."""
    root = tmp_path / "fs"
    for number in range(100):
        (root / str(number)).mkdir(parents=True)
        for name in range(100):
            (root / str(number) / str(name)).touch(0o000)
    write_seal(str(tmp_path))
    started = time.process_time()
    assert is_sealed(str(tmp_path))
    assert time.process_time() - started < 1.0
    assert seal_of(str(root)) == seal_of(str(root))
