"""ADD of URLs and Git repositories, against real servers on this machine."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult
from layercache.errors import SourceError
from tests.conformance.web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web({"/f.txt": {"content": "one\n", "etag": '"1"'}})
    yield server
    server.close()


def build(builder: Builder, line: str) -> BuildResult:
    return builder.build(Dockerfile.parse(f"FROM scratch\n{line}\n"))


def content(result: BuildResult, path: str) -> bytes:
    with result.tree().open(path.encode()) as stream:
        return bytes(stream.read())


def test_a_url_is_keyed_by_its_bytes(web: Web) -> None:
    """Equal bytes hit whatever the validators say; other bytes miss though they stay."""
    builder = Builder()
    line = f"ADD {web.base}/f.txt /d/"
    first = build(builder, line)
    web.pages["/f.txt"]["etag"] = '"2"'
    same = build(builder, line)
    web.pages["/f.txt"]["content"] = "two\n"
    other = build(builder, line)
    node = first.tree().lookup(b"d/f.txt")

    assert [r.steps[1].decision for r in (first, same, other)] == ["miss", "hit", "miss"]
    assert content(other, "d/f.txt") == b"two\n"
    assert node is not None
    assert node.mode & 0o7777 == 0o600
    assert sum(request.startswith("GET") for request in web.requests) == 3


def test_a_url_is_fetched_once_for_a_build(web: Web) -> None:
    """However many steps take it."""
    build(Builder(), f"ADD {web.base}/f.txt /a\nADD {web.base}/f.txt /b")

    assert web.requests == ["GET /f.txt"]


def test_a_checksum_spares_the_request_and_is_checked(web: Web) -> None:
    """A hit asks nobody; a wrong one fails and stores nothing."""
    builder = Builder()
    digest = "sha256:" + hashlib.sha256(b"one\n").hexdigest()
    line = f"ADD --checksum={digest} {web.base}/f.txt /f"
    build(builder, line)
    web.requests.clear()
    del web.pages["/f.txt"]
    again = build(builder, line)
    with pytest.raises(SourceError, match="404"):
        build(Builder(), line)
    web.pages["/f.txt"] = {"content": "two\n"}
    with pytest.raises(SourceError, match="--checksum"):
        build(Builder(), line)

    assert again.steps[1].decision == "hit"
    assert web.requests == ["GET /f.txt"] * 2


def test_a_url_that_is_gone_is_one_clear_error(web: Web) -> None:
    """With the line of the Dockerfile."""
    with pytest.raises(SourceError, match="404") as failure:
        build(Builder(), f"ADD {web.base}/nowhere /f")

    assert failure.value.line == 2


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A repository behind `git daemon`: its URL, and its work tree."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    work = tmp_path / "repos" / "project"
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main")
    (work / "src").mkdir()
    (work / "src" / "a.txt").write_text("one\n")
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    commit(work)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={tmp_path / 'repos'}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"git://127.0.0.1:{port}/project", work
    daemon.terminate()
    daemon.wait()


def git(work: Path, *arguments: str) -> str:
    command = ["git", "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(work: Path) -> str:
    git(work, "add", "-A")
    git(work, "commit", "-qm", "change", "--allow-empty")
    return git(work, "rev-parse", "HEAD")


def test_a_repository_is_keyed_by_its_files(repository: tuple[str, Path]) -> None:
    """An empty commit hits; a changed file misses; modes are kept and .git is not."""
    url, work = repository
    builder = Builder()
    first = build(builder, f"ADD {url} /src/")
    commit(work)
    same = build(builder, f"ADD {url} /src/")
    (work / "src" / "a.txt").write_text("two\n")
    commit(work)
    other = build(builder, f"ADD {url} /src/")
    script = other.tree().lookup(b"src/run.sh")

    assert [r.steps[1].decision for r in (first, same, other)] == ["miss", "hit", "miss"]
    assert content(other, "src/src/a.txt") == b"two\n"
    assert script is not None
    assert script.mode & 0o111
    assert other.tree().lookup(b"src/.git") is None


def test_a_reference_and_a_directory_of_a_repository(repository: tuple[str, Path]) -> None:
    """`#reference:directory` takes that part of that commit; a wrong one is one clear error."""
    url, work = repository
    git(work, "tag", "v1")
    (work / "src" / "a.txt").write_text("two\n")
    commit(work)
    result = build(Builder(), f"ADD {url}#v1:src /d/")

    assert content(result, "d/a.txt") == b"one\n"
    assert result.tree().lookup(b"d/run.sh") is None
    with pytest.raises(SourceError, match="nothing-like-it"):
        build(Builder(), f"ADD {url}#nothing-like-it /d/")
    with pytest.raises(SourceError, match="no directory"):
        build(Builder(), f"ADD {url}#v1:missing /d/")


def test_a_commit_that_is_not_the_one_asked_for_is_refused(repository: tuple[str, Path]) -> None:
    """--checksum names the commit."""
    url, work = repository
    head = git(work, "rev-parse", "HEAD")
    build(Builder(), f"ADD --checksum={head} {url} /d/")
    commit(work)
    with pytest.raises(SourceError, match="--checksum"):
        build(Builder(), f"ADD --checksum={head} {url} /d/")
