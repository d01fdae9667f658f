"""Stamps that show no change: what is written through a mapping, and reading everything again."""

from __future__ import annotations

import mmap
import os

import pytest

from layercache.builds.builder import Builder
from layercache.cli import main
from layercache.dockerfile.recipe import Dockerfile
from layercache.inputs.scan import filesystems
from layercache.inputs.scan.context_tree import ContextTree
from layercache.testing.executors import MemoryExecutor
from layercache.testing.memory import snapshot

RECIPE = Dockerfile.parse("FROM scratch\nCOPY a /a\n")


def content(builder, context, **options):
    result = builder.build(RECIPE, context=context, **options)
    return snapshot(result.tree())["a"].content


@pytest.fixture
def scans(monkeypatch):
    """What each scan of a context was asked for."""
    found = []
    honest = ContextTree._scan

    def scan(self, paranoid):
        found.append(paranoid)
        honest(self, paranoid)

    monkeypatch.setattr(ContextTree, "_scan", scan)
    return found


def test_a_mapping_on_tmpfs_is_seen():
    """On tmpfs a map that is kept open never stamps what is written: all is read each time."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no tmpfs at /dev/shm")
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path = os.path.join(directory, "a")
        with open(path, "wb") as file:
            file.write(b"one\n")
        os.utime(path, (1_500_000_000, 1_500_000_000))
        with tempfile.TemporaryDirectory() as cache, open(path, "r+b") as file:
            builder = Builder(cache, executor=MemoryExecutor())
            with mmap.mmap(file.fileno(), 4) as memory:
                memory[0:4] = b"one\n"  # the page is in the map, and dirty
                assert content(builder, directory) == b"one\n"
                memory[0:4] = b"two\n"
                assert content(builder, directory) == b"two\n"


def test_paranoid_is_reached_from_builder_and_command(tmp_path, scans, capsys):
    """For file systems that lie in a way nobody knows yet: every byte is read."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("1")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    builder = Builder(tmp_path / "cache", executor=MemoryExecutor())
    assert content(builder, context) == content(builder, context, paranoid=True) == b"1"
    options = ["--cache", str(tmp_path / "cache"), "--executor", "workspace"]
    assert main(["build", *options, "--paranoid", str(context)]) == 0

    assert scans == [False, True, True]


def test_nothing_that_can_lie_is_trusted():
    untrusted = {"squashfs", "erofs", "iso9660", "tmpfs", "ramfs", "rootfs", "nfs", "vfat", "aufs"}
    assert not untrusted & filesystems.TRUSTED
