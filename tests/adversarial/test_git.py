"""ADD of a repository where git itself started the build, as from a hook."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from layercache import Store
from layercache.inputs.fetch import open_remote
from layercache.model.sources import GitSource
from layercache.store.backends.memory import MemoryBackend
from tests.inputs.test_remote_sources import served

__all__ = ["served"]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


def repository(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "f").write_text(content)
    for arguments in (
        ["init", "-q", "-b", "main"],
        ["add", "f"],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "it"],
    ):
        subprocess.run(["git", "-C", str(path), *arguments], check=True)
    subprocess.run(["git", "-C", str(path), "update-server-info"], check=True)
    return path


def test_a_repository_of_the_environment_is_left_alone(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables by which git finds the hook's repository don't reach the checkout."""
    mine = repository(tmp_path / "mine", "mine")
    repository(served[0] / "other", "other")
    before = (mine / ".git" / "HEAD").read_text()
    monkeypatch.setenv("GIT_DIR", str(mine / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(mine))
    monkeypatch.setenv("GIT_INDEX_FILE", str(mine / ".git" / "index"))

    tree = open_remote(GitSource(f"{served[1]}/other/.git"), Store(MemoryBackend()))
    with tree.open(b"f") as content:
        assert content.read() == b"other"

    assert (mine / ".git" / "HEAD").read_text() == before
    assert (mine / "f").read_text() == "mine"
