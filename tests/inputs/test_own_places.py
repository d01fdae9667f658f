"""What a build writes itself is in none of its contexts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult
from layercache.cli import main
from layercache.events import Note
from layercache.inputs.own_places import below, without
from layercache.store.backends.local import LocalBackend
from layercache.store.store import Store
from layercache.store.tiered import tiered
from layercache.trees.patterns import Ignore

TEXT = "FROM scratch\nCOPY . /\n"


def _names(result: BuildResult) -> list[bytes]:
    return sorted(result.tree().children(b""))


def test_a_cache_in_the_context_is_not_copied(tmp_path: Path) -> None:
    """Nor one behind it; the second build reuses everything, and both say what was left out."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "jobs").write_text("2")
    (tmp_path / ".dockerignore").write_text("!ci\n!ci/**\n")
    said: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, Note):
            said.append(event.message)

    for expected in ("miss", "hit"):
        store = tiered(
            Store(LocalBackend(tmp_path / "ci" / "ca*he")),
            cache_from=[str(tmp_path / "behind")],
            cache_to=[str(tmp_path / "behind")],
        )
        with store:
            builder = Builder(store, observers=[watch])
            result = builder.build(Dockerfile.parse(TEXT), context=tmp_path)
            assert result.steps[-1].decision == expected
            assert _names(result) == [b".dockerignore", b"a", b"ci"]
            assert list(result.tree().children(b"ci")) == [b"jobs"]
    assert [text for text in said if "left out of the context" in text] == 2 * [
        "behind belongs to the build itself and is left out of the context",
        "ci/ca*he belongs to the build itself and is left out of the context",
    ]


def test_outputs_in_the_context_are_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a pipeline has them: the cache, the image, the report and the digest in the project."""
    (tmp_path / "Dockerfile").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    command = [
        "build", "--cache", "cache", "--output", "type=oci,dest=out/image.tar",
        "--iidfile", "id", "--report", "report.html", ".",
    ]  # fmt: skip
    for _ in range(3):
        assert main(command) == 0
        shown = capsys.readouterr()
    assert "1 reused, 0 executed" in shown.out + shown.err
    assert "cache belongs to the build itself" in shown.out + shown.err


def test_a_place_within_one_that_is_left_out_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workspaces lie in the cache: one note says enough."""
    (tmp_path / "Dockerfile").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--executor", "workspace", "--cache", "cache", "."]) == 0
    shown = capsys.readouterr()
    assert 1 == (shown.out + shown.err).count("left out of the context")


def test_places_are_known_by_what_they_are(tmp_path: Path) -> None:
    """Through links, relative and absolute; the context itself and what is beside it are none."""
    (tmp_path / "context" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "context")
    root = str(tmp_path / "link")
    places = [
        str(tmp_path / "context" / "in"),
        os.path.relpath(tmp_path / "link" / "other"),
        str(tmp_path / "context"),
        str(tmp_path / "context-2"),
        str(tmp_path),
    ]
    assert below(root, places) == ("in", "other")


@pytest.mark.parametrize("name", ["a*", "[a]", "!a", "#a", " a ", "a\\b", "a?", "ä\udcff", ".a"])
def test_names_of_places_are_no_patterns(name: str) -> None:
    """What is left out is what has the name, with what is below it, and nothing else."""
    ignore = without(Ignore.parse("!**\n"), [name])
    assert ignore is not None
    path = os.fsencode(name)
    assert ignore.matches(path)
    assert ignore.matches(path + b"/below")
    assert not ignore.matches(b"x" + path)
    assert not ignore.matches(b"ab")
