"""What ADD fetches: files behind URLs, repositories at a commit."""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from layercache import Builder, Dockerfile
from layercache.errors import LayerCacheError, SourceError
from layercache.inputs.fetch import open_remote
from layercache.model.digests import Digest, sha256
from layercache.model.sources import GitSource, UrlSource
from layercache.model.tree import Tree
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from tests.serving import serving


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory and the URL that it is served at."""
    root = tmp_path / "served"
    root.mkdir()
    handler = functools.partial(Quiet, directory=os.fspath(root))
    with serving(handler) as port:
        yield root, f"http://127.0.0.1:{port}"


@pytest.fixture
def store() -> Store:
    return Store(MemoryBackend())


def content(tree: Tree, path: str) -> bytes:
    with tree.open(path.encode()) as found:
        return found.read()


# -- URLs -----------------------------------------------------------------------------------


def test_a_file(served: tuple[Path, str], store: Store) -> None:
    """A URL is a tree of one file, 0600, that is known by its bytes alone."""
    root, url = served
    (root / "f.txt").write_bytes(b"one\n")
    tree = open_remote(UrlSource(f"{url}/f.txt"), store)
    assert list(tree.children(b"")) == [b"f.txt"]
    assert content(tree, "f.txt") == b"one\n"
    node = tree.lookup(b"f.txt")
    assert node is not None
    assert node.mode & 0o7777 == 0o600
    os.utime(root / "f.txt", (5, 5))
    again = open_remote(UrlSource(f"{url}/f.txt?v=2"), store)
    assert again.digest(b"") == tree.digest(b"")
    (root / "f.txt").write_bytes(b"two\n")
    assert open_remote(UrlSource(f"{url}/f.txt"), store).digest(b"") != tree.digest(b"")


def test_a_checksum_that_is_added_reuses_the_step(served: tuple[Path, str]) -> None:
    """The same URL with its digest is the same step, and is not fetched again."""
    root, url = served
    (root / "f").write_bytes(b"text")
    digest = hashlib.sha256(b"text").hexdigest()
    with Builder() as builder:
        first = builder.build(Dockerfile.parse(f"FROM scratch\nADD {url}/f /d/\n"))
        (root / "f").unlink()
        text = f"FROM scratch\nADD --checksum=sha256:{digest} {url}/f /d/\n"
        second = builder.build(Dockerfile.parse(text))
        other = f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/f /d/\n"
        with pytest.raises(LayerCacheError):
            builder.build(Dockerfile.parse(other))
    assert [step.decision for step in second.steps if step.decision] == ["hit"]
    assert first.state == second.state


@pytest.mark.parametrize("scheme", ["HTTP", "Http", "hTTp"])
def test_a_scheme_in_capitals(served: tuple[Path, str], scheme: str) -> None:
    """Letter case of a scheme means nothing, for ADD and for what COPY refuses."""
    root, url = served
    (root / "f").write_bytes(b"text")
    written = scheme + url.removeprefix("http") + "/f"
    with Builder() as builder:
        plain = builder.build(Dockerfile.parse(f"FROM scratch\nADD {url}/f /d/\n"))
        found = builder.build(Dockerfile.parse(f"FROM scratch\nADD {written} /d/\n"))
        assert found.state == plain.state
        with pytest.raises(LayerCacheError, match="use ADD"):
            builder.build(Dockerfile.parse(f"FROM scratch\nCOPY {written} /d/\n"))
        with pytest.raises(LayerCacheError, match="user information"):
            builder.build(Dockerfile.parse("FROM scratch\nADD HTTPS://u:p@h/f /d/\n"))


def test_a_checksum(served: tuple[Path, str], store: Store) -> None:
    """What does not have the digest is refused."""
    root, url = served
    (root / "f").write_bytes(b"one\n")
    good = Digest(sha256(b"one\n"))
    assert content(open_remote(UrlSource(f"{url}/f", good), store), "f") == b"one\n"
    with pytest.raises(SourceError, match="--checksum"):
        open_remote(UrlSource(f"{url}/f", Digest(sha256(b"two\n"))), store)


def test_what_is_not_there(served: tuple[Path, str], store: Store) -> None:
    """A missing file, and a server that is not there."""
    with pytest.raises(SourceError, match="404"):
        open_remote(UrlSource(f"{served[1]}/none"), store)
    with pytest.raises(SourceError, match="the fetch failed"):
        open_remote(UrlSource("http://127.0.0.1:1/none"), store)


# -- repositories ---------------------------------------------------------------------------

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="not installed: git")


def git(directory: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "x"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "x@example.com"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    command = ["git", "-c", "init.defaultBranch=main", "-C", os.fspath(directory), *arguments]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


class Repository:
    """A repository served as plain files, with a commit on main and one on a branch."""

    def __init__(self, root: Path, url: str) -> None:
        self.work = root.parent / "work"
        self.bare = root / "r.git"
        self.url = f"{url}/r.git"
        self.work.mkdir()
        git(self.work, "init", "-q")
        (self.work / "a").write_text("one\n")
        (self.work / "sub").mkdir()
        (self.work / "sub" / "tool").write_text("#!/bin/sh\n")
        (self.work / "sub" / "tool").chmod(0o755)
        self.first = self.commit("first")
        git(self.work, "tag", "v1")
        git(self.work, "checkout", "-q", "-b", "side")
        (self.work / "a").write_text("side\n")
        self.side = self.commit("side")
        git(self.work, "checkout", "-q", "main")
        git(root, "clone", "-q", "--bare", os.fspath(self.work), "r.git")
        self.publish()

    def commit(self, message: str) -> str:
        git(self.work, "add", ".")
        git(self.work, "commit", "-q", "-m", message)
        return git(self.work, "rev-parse", "HEAD").strip()

    def publish(self) -> None:
        git(self.work, "push", "-q", "--all", os.fspath(self.bare))
        git(self.bare, "update-server-info")


@pytest.fixture
def repository(served: tuple[Path, str]) -> Repository:
    return Repository(*served)


def opened(source: GitSource, store: Store) -> Tree:
    return open_remote(source, store)


@needs_git
def test_a_repository(repository: Repository, store: Store) -> None:
    """Without a reference it is what HEAD is; modes are those of the commit."""
    umask = os.umask(0o077)
    try:
        tree = opened(GitSource(repository.url), store)
    finally:
        os.umask(umask)
    assert list(tree.children(b"")) == [b"a", b"sub"]
    assert content(tree, "a") == b"one\n"
    modes = [tree.lookup(name) for name in (b"a", b"sub", b"sub/tool")]
    assert [node and node.mode & 0o777 for node in modes] == [0o644, 0o755, 0o755]


@needs_git
def test_a_working_tree_goes_with_its_object(
    repository: Repository, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A working tree goes when it is closed, and also when nobody closes it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    os.mkdir(tmp_path / "temporary")
    for close in (True, False):
        tree = opened(GitSource(repository.url), store)
        assert len(os.listdir(tmp_path / "temporary")) == 1
        if close:
            tree.close()  # type: ignore[attr-defined]
        del tree
        gc.collect()
        assert os.listdir(tmp_path / "temporary") == []


@needs_git
@pytest.mark.parametrize("name", ["side", "refs/heads/side", "SHA", "SHORT"])
def test_references(repository: Repository, store: Store, name: str) -> None:
    """A branch, a full name, a commit, an abbreviated commit."""
    names = {"SHA": repository.side, "SHORT": repository.side[:10]}
    tree = opened(GitSource(repository.url, names.get(name, name)), store)
    assert content(tree, "a") == b"side\n"
    assert content(opened(GitSource(repository.url, "v1"), store), "a") == b"one\n"


@needs_git
def test_a_directory_of_it(repository: Repository, store: Store) -> None:
    """Only what is below a directory, which has to be there and inside."""
    tree = opened(GitSource(repository.url, "", "sub"), store)
    assert list(tree.children(b"")) == [b"tool"]
    for wrong in ("none", "a", "../.."):
        with pytest.raises(SourceError, match="no directory"):
            opened(GitSource(repository.url, "", wrong), store)


@needs_git
@pytest.mark.parametrize("keep", [False, True])
def test_identity(repository: Repository, store: Store, keep: bool) -> None:
    """Two checkouts of a commit are one; another commit is another."""
    source = GitSource(repository.url, keep_git_dir=keep)
    tree = opened(source, store)
    assert (tree.lookup(b".git") is not None) is keep
    assert opened(source, store).digest(b"") == tree.digest(b"")
    (repository.work / "a").write_text("two\n")
    repository.commit("second")
    repository.publish()
    changed = opened(source, store)
    assert changed.digest(b"") != tree.digest(b"")
    assert content(changed, "a") == b"two\n"


@needs_git
def test_its_checksum(repository: Repository, store: Store) -> None:
    """The commit must be the one that --checksum names."""
    opened(GitSource(repository.url, checksum=repository.first), store)
    opened(GitSource(repository.url, checksum=repository.first[:12]), store)
    with pytest.raises(SourceError, match="--checksum"):
        opened(GitSource(repository.url, checksum=repository.side), store)


@needs_git
@pytest.mark.parametrize(
    ("url", "reference"),
    [
        ("http://127.0.0.1:1/r.git", ""),
        ("ext::sh -c touch% /tmp/x", ""),
        ("", "none"),
        ("", "--upload-pack=x"),
    ],
)
def test_wrong_repositories(repository: Repository, store: Store, url: str, reference: str) -> None:
    """What is not there, and what would run a program, is refused."""
    with pytest.raises(SourceError):
        opened(GitSource(url or repository.url, reference), store)


@needs_git
def test_nothing_stays_behind(
    repository: Repository, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working tree goes when it is closed, and when the fetch fails."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", os.fspath(scratch))
    tree: Any = opened(GitSource(repository.url), store)
    assert len(list(scratch.iterdir())) == 1
    tree.close()
    with pytest.raises(SourceError):
        opened(GitSource(repository.url, "none"), store)
    assert list(scratch.iterdir()) == []
