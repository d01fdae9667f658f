"""What a checkout brings shows no other file of the machine, hangs nothing and runs nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layercache import Dockerfile
from layercache._os import small_files
from layercache._os.small_files import read_beneath, read_file
from layercache.cli import main
from layercache.errors import UsageError
from layercache.inputs.context import ignore_rules
from layercache.inputs.git_history import past_trees

SECRET = "hunter2 is no instruction\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context beside a file that is none of its business."""
    (tmp_path / "secret").write_text(SECRET)
    place = tmp_path / "context"
    (place / "docker").mkdir(parents=True)
    (place / "f").write_text("f\n")
    return place


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out + output.err


LEAVING = [
    "../secret",
    "{absolute}",
    "docker/../../secret",
    "docker/link",
    "/proc/self/environ",
    "docker/up/secret",
]


@pytest.mark.parametrize("target", LEAVING)
@pytest.mark.parametrize("name", ["Dockerfile", "docker/Dockerfile", ".dockerignore"])
def test_links_lead_out_of_no_context(
    context: Path, target: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link to a file elsewhere, in one step or several: refused, and nothing of it is shown."""
    (context / "docker" / "link").symlink_to("../../secret")
    (context / "docker" / "up").symlink_to("../..")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    where = context / name
    where.unlink(missing_ok=True)
    lead = target.format(absolute=context.parent / "secret")
    if name == "docker/Dockerfile" and not lead.startswith("/"):
        lead = f"../{lead}"
    where.symlink_to(lead)
    options: list[str | Path] = ["-f", where] if name == "docker/Dockerfile" else []
    status, said = run("plan", *options, context, capsys=capsys)
    assert status == 2
    assert "hunter2" not in said
    assert "out of the context" in said


def test_a_directory_that_is_a_link_leads_out_of_no_context(
    context: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for a directory on the way to the file."""
    (context / "away").symlink_to("..")
    status, said = run("plan", "-f", context / "away" / "secret", context, capsys=capsys)
    assert status == 2
    assert "hunter2" not in said


def test_links_within_a_context_are_followed(
    context: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Dockerfile may be a link to another one of the project."""
    (context / "docker" / "real").write_text("FROM scratch\nCOPY f /\n")
    (context / "docker" / "two").symlink_to("./../docker/real")
    (context / "Dockerfile").symlink_to("docker/two")
    status, _ = run("plan", context, capsys=capsys)
    assert status == 0
    assert Dockerfile.load(context / "Dockerfile", context=context).instructions


def test_a_dockerfile_elsewhere_is_the_user_s(
    context: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """-f may name any regular file beside the context, by a link too."""
    (context.parent / "D").write_text("FROM scratch\nCOPY f /\n")
    (context.parent / "L").symlink_to("D")
    for name in ("D", "L"):
        assert run("plan", "-f", context.parent / name, context, capsys=capsys)[0] == 0


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
@pytest.mark.parametrize("kind", ["fifo", "zero", "directory", "large", "loop"])
def test_what_is_no_file_hangs_nothing(
    context: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A FIFO, a device, a link to itself, a directory, a huge file: an error, and soon."""
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    where = context / name
    where.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(where)
    elif kind == "zero":
        where.symlink_to("/dev/zero")
    elif kind == "loop":
        where.symlink_to(name)
    elif kind == "directory":
        where.mkdir()
    else:
        monkeypatch.setattr(small_files, "LIMIT", 1 << 20)
        with open(where, "wb") as file:
            file.truncate(1 << 30)
    began = time.monotonic()
    status, said = run("plan", context, capsys=capsys)
    assert (status, "can't read" in said) == (2, True), said
    assert time.monotonic() - began < 10


def test_a_pipe_that_a_shell_hands_over_is_read(context: Path) -> None:
    """`-f <(command)` works: it is no file of the context."""
    command = f"{sys.executable} -m layercache plan -f <(printf 'FROM scratch\\nCOPY f /\\n') ."
    done = subprocess.run(["bash", "-c", command], cwd=context, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_are_read_beneath_a_directory(tmp_path: Path) -> None:
    """The function itself refuses what leaves: `..`, an absolute path, a swapped directory."""
    (tmp_path / "secret").write_text(SECRET)
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"f")
    assert read_beneath(str(root), "d/../d/./f") == b"f"
    for path in ("../secret", "d/../../secret", str(tmp_path / "secret"), "", ".", "d", "d/f/x"):
        with pytest.raises(OSError):
            read_beneath(str(root), path)
    with pytest.raises(ValueError):
        read_beneath(str(root), "d/\0")
    assert read_file(str(root / "d" / "f")) == b"f"


def test_ignore_files_in_the_library(tmp_path: Path) -> None:
    """The library reads them as the command line does."""
    (tmp_path / "secret").write_text(SECRET)
    root = tmp_path / "root"
    root.mkdir()
    (root / ".dockerignore").symlink_to("../secret")
    with pytest.raises(UsageError) as caught:
        ignore_rules(str(root))
    assert "hunter2" not in str(caught.value)


# -- a hostile .git -------------------------------------------------------------------------

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="not installed: git")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two commits, whose configuration runs a program wherever git lets it."""
    place = tmp_path / "checkout"
    place.mkdir()
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/mark\nexit 1\n')
    program.chmod(0o755)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(place), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    (place / ".dockerignore").write_text("ignored\n")
    (place / ".gitattributes").write_text("* diff=x filter=x\n")
    for number in range(2):
        (place / "f").write_text(f"{number}\n")
        (place / "ignored").write_text(f"{number}\n")
        git("add", ".")
        git("commit", "-qm", "it")
    with open(place / ".git" / "config", "a", encoding="utf-8") as config:
        config.write(
            f"[core]\n\tfsmonitor = {program}\n\tpager = {program}\n\thooksPath = {tmp_path}\n"
            f"\tsshCommand = {program}\n\tgitProxy = {program}\n"
            f"\talternateRefsCommand = {program}\n"
            f"\taskPass = {program}\n\teditor = {program}\n"
            f'[diff "x"]\n\ttextconv = {program}\n\tcommand = {program}\n'
            f'[filter "x"]\n\tsmudge = {program}\n\tclean = {program}\n\tprocess = {program}\n'
            f"[diff]\n\texternal = {program}\n[log]\n\tshowSignature = true\n"
            f"[gpg]\n\tprogram = {program}\n[credential]\n\thelper = !{program}\n"
            f"[pager]\n\tshow = {program}\n\tls-tree = {program}\n\trev-list = {program}\n"
            "[extensions]\n\tpartialClone = o\n"
            f'[remote "o"]\n\turl = ext::{program}\n\tpromisor = true\n\tuploadpack = {program}\n'
            '[protocol]\n\tallow = always\n[protocol "ext"]\n\tallow = always\n'
            "[core]\n\trepositoryformatversion = 1\n"
        )
    return place


@needs_git
@pytest.mark.parametrize("url", ["ext::{program}", "ssh://127.0.0.1/x", "{here}", "file://{here}"])
@pytest.mark.parametrize("missing", [False, True])
def test_advice_runs_nothing_of_a_repository(
    checkout: Path, url: str, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a repository configures, comparing its commits starts no program of its choice,
    not even to fetch an object that is missing."""
    program = checkout.parent / "program"
    config = checkout / ".git" / "config"
    text = config.read_text().replace(f"ext::{program}", url.format(program=program, here=checkout))
    config.write_text(text)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_PAGER", str(program))
    if missing:
        for file in (checkout / ".git" / "objects").rglob("*"):
            name = file.parent.name + file.name
            if file.is_file() and len(name) == 40:
                kind = subprocess.run(
                    ["git", "-C", checkout, "cat-file", "-t", name], capture_output=True, text=True
                ).stdout
                if kind == "blob\n":
                    file.unlink()
    (checkout.parent / "mark").unlink(missing_ok=True)
    if missing:
        with pytest.raises(UsageError):
            list(past_trees(str(checkout), 1))
    else:
        trees = list(past_trees(str(checkout), 1))
        assert trees[-1][1].lookup(b"f") is not None
        assert trees[-1][1].lookup(b"ignored") is None
    assert not (checkout.parent / "mark").exists()


def test_advice_reads_no_file_elsewhere(context: Path) -> None:
    """A list of requirements that names another file of the machine is not followed out."""
    from layercache.cli.advise import _read_inside

    (context / "link").symlink_to("../secret")
    for path in ("../secret", str(context.parent / "secret"), "link", "docker/../../secret"):
        assert _read_inside(str(context), path) == ""
    assert _read_inside(str(context), "f") == "f\n"


def test_messages_stay_json(context: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error about such a file is one JSON object."""
    (context / "Dockerfile").symlink_to("../secret")
    status = main(["plan", "--json", str(context)])
    assert status == 2
    said = capsys.readouterr().out
    assert "hunter2" not in said
    json.loads(said)
