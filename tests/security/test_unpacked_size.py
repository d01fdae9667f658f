"""All that a build unpacks and fetches has one bound, whichever way it comes in."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layercache import Builder, Dockerfile
from layercache._os.allowance import UnpackAllowance
from layercache.errors import HostileArchive, LayerCacheError
from layercache.inputs.fetch import open_remote
from layercache.model.sources import GitSource
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.images import make_layout, tar_of
from tests.inputs.test_remote_sources import Repository, git, served

__all__ = ["served"]

MIB = 1 << 20
ZEROS = tar_of({"zeros": b"\0" * 3 * MIB})

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="not installed: git")


def build(text: str, bound: int, **options: Any) -> None:
    with Builder() as builder:
        builder.build(Dockerfile.parse(text), max_unpacked_size=bound, **options)


def refused(text: str, bound: int, **options: Any) -> str:
    """What is said of a build that takes more than `bound`; it passes with twice as much."""
    build(text, 4 * bound, **options)
    with pytest.raises(LayerCacheError) as caught:
        build(text, bound, **options)
    said = str(caught.value)
    assert "--max-unpacked-size" in said
    assert f"{bound:,} bytes" in said
    return said


def contexts(directory: Path, *layers: bytes) -> Mapping[str, str]:
    make_layout(directory, list(layers), {}, "x", compress=True)
    return {"base": f"oci-layout://{directory}:x"}


def test_base_layers_have_a_bound(tmp_path: Path) -> None:
    """A layer of a few kilobytes that inflates to much is refused by its digest."""
    known = contexts(tmp_path / "layout", ZEROS)
    said = refused("FROM base\nCOPY f /\n", 2 * MIB, contexts=known, context={"f": b"x"})
    assert "layer sha256:" in said


def test_base_layers_count_together(tmp_path: Path) -> None:
    """Layers that are each small enough are not, all together."""
    layers = [tar_of({f"zeros{i}": b"\0" * MIB}) for i in range(4)]
    known = contexts(tmp_path / "layout", *layers)
    refused("FROM base\nCOPY f /\n", 3 * MIB, contexts=known, context={"f": b"x"})


@pytest.mark.parametrize("packed", [gzip.compress(ZEROS), ZEROS])
def test_archives_have_a_bound(packed: bytes) -> None:
    """What ADD unpacks is named by its file."""
    said = refused("FROM scratch\nADD a.tar /\n", 2 * MIB, context={"a.tar": packed})
    assert "a.tar" in said


def test_archives_count_together() -> None:
    """Several archives of several steps share the bound."""
    packed = gzip.compress(ZEROS)
    text = "FROM scratch\nADD a.tar /a/\nADD b.tar c.tar /b/\n"
    refused(text, 8 * MIB, context={"a.tar": packed, "b.tar": packed, "c.tar": packed})


def test_files_that_are_fetched_have_a_bound(served: tuple[Path, str]) -> None:
    """A file of a URL, and what a fetched archive inflates to."""
    root, url = served
    (root / "f").write_bytes(b"x" * 3 * MIB)
    assert f"ADD {url}/f" in refused(f"FROM scratch\nADD {url}/f /\n", 2 * MIB)
    (root / "a.tgz").write_bytes(gzip.compress(ZEROS))
    refused(f"FROM scratch\nADD --unpack {url}/a.tgz /\n", 2 * MIB)


@needs_git
def test_repositories_have_a_bound(served: tuple[Path, str]) -> None:
    """A repository is measured with what it checks out."""
    repository = Repository(*served)
    (repository.work / "zeros").write_bytes(b"\0" * 3 * MIB)
    repository.commit("zeros")
    repository.publish()
    said = refused(f"FROM scratch\nADD {repository.url} /\n", 2 * MIB)
    assert f"ADD {repository.url}" in said


@needs_git
def test_a_repository_of_a_million_files(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six small trees that name each other ten times each: git is ended while it writes."""
    repository = Repository(*served)
    blob = git(repository.work, "hash-object", "-w", "a").strip()
    mode, kind, name = "100644", "blob", blob
    for _ in range(6):
        listing = "".join(f"{mode} {kind} {name}\tn{i}\n" for i in range(10))
        name = subprocess.run(
            ["git", "-C", os.fspath(repository.work), "mktree"],
            input=listing,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        mode, kind = "040000", "tree"
    commit = git(repository.work, "commit-tree", "-m", "bomb", name).strip()
    git(repository.work, "update-ref", "refs/heads/bomb", commit)
    repository.publish()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", os.fspath(temporary))
    with pytest.raises(HostileArchive, match="--max-unpacked-size"):
        open_remote(
            GitSource(repository.url, "bomb"),
            Store(MemoryBackend()),
            allowance=UnpackAllowance(1 << 18),
        )
    assert list(temporary.iterdir()) == []


def test_the_option_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--max-unpacked-size` takes a size with a unit."""
    from layercache.cli import main

    (tmp_path / "Dockerfile").write_text("FROM scratch\nADD a.tar /\n")
    (tmp_path / "a.tar").write_bytes(ZEROS)
    command = ["build", "--cache", os.fspath(tmp_path / "cache"), os.fspath(tmp_path)]
    assert main([*command, "--max-unpacked-size", "2m"])
    assert "--max-unpacked-size" in capsys.readouterr().err
    assert not main([*command, "--max-unpacked-size", "8m"])
