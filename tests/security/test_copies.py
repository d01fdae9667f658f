"""What COPY takes along and makes, in whole builds: nothing becomes more open than it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.builds.exporting import export
from layercache.builds.result import BuildResult
from layercache.errors import DockerfileError


def build(tmp_path: Path, text: str) -> BuildResult:
    return Builder(tmp_path / "cache").build(Dockerfile.parse(text), context=tmp_path / "context")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    (place / "d" / "s").mkdir(parents=True)
    (place / "d" / "a").write_text("secret")
    os.link(place / "d" / "a", place / "d" / "s" / "b")
    os.chmod(place / "d" / "s", 0o700)
    return place


def test_names_of_one_file_of_a_context_stay_that(tmp_path: Path, context: Path) -> None:
    """In a layer from the context and from there on; a copy in place of a name is a miss."""
    text = (
        "FROM scratch AS one\nCOPY d /d\nFROM scratch\nCOPY --from=one /d /e\n"
        "COPY --from=one --parents /d/s /p/\n"
    )
    first = build(tmp_path, text)
    assert list(first.tree().names(b"e/a")) == [b"e/a", b"e/s/b"]
    assert list(first.tree().names(b"p/d/s/b")) == []
    assert all(s.decision != "miss" for s in build(tmp_path, text).steps if s.op == "COPY")
    (context / "d" / "s" / "b").unlink()
    (context / "d" / "s" / "b").write_text("secret")
    second = build(tmp_path, text)
    assert list(second.tree().names(b"e/a")) == []


def test_private_directories_stay_private(tmp_path: Path, context: Path) -> None:
    """By --parents and by an octal --chmod, destination included."""
    text = "FROM scratch\nCOPY --parents d/s/b /p/\nCOPY --chmod=700 d /top/x\n"
    tree = build(tmp_path, text).tree()
    modes = {path: tree.lookup(path).mode & 0o7777 for path in (b"p", b"p/d/s", b"top", b"top/x")}
    assert modes == {b"p": 0o755, b"p/d/s": 0o700, b"top": 0o700, b"top/x": 0o700}


def test_with_a_fixed_mode_that_of_the_source_does_not_count(tmp_path: Path, context: Path) -> None:
    """What every file gets is in the instruction."""
    text = "FROM scratch\nCOPY --chmod=640 d /d\n"
    build(tmp_path, text)
    os.chmod(context / "d" / "a", 0o755)
    os.chmod(context / "d" / "s", 0o755)
    assert [s.decision for s in build(tmp_path, text).steps if s.op == "COPY"] == ["hit"]


@pytest.mark.parametrize("mode", ["99999", "10000", "z+q", "${M}"])
def test_a_mode_that_can_not_be_meant_stops_before_anything_runs(
    tmp_path: Path, context: Path, mode: str
) -> None:
    """With its line, although the step before it would fail as well."""
    text = f"FROM scratch\nARG M=8\nCOPY d /ok\nCOPY --chmod={mode} d /d\n"
    with pytest.raises(DockerfileError, match=r"Dockerfile:4"):
        build(tmp_path, text)
    assert not list((tmp_path / "cache").rglob("blobs/*/*"))


def test_a_device_is_not_made_in_a_directory_of_the_host(tmp_path: Path) -> None:
    """--output type=local leaves it out and says so; the image has it."""
    import io

    from layercache.testing.archives import archive, entry

    (tmp_path / "context").mkdir()
    data = archive(
        entry(b"disk", kind=b"4", device=(8, 1)), entry(b"null", kind=b"3", device=(1, 3))
    )
    (tmp_path / "context" / "a.tar").write_bytes(io.BytesIO(data).getvalue())
    result = build(tmp_path, "FROM scratch\nADD a.tar /dev/\n")
    assert result.tree().lookup(b"dev/null") is not None
    exported = export(result, f"type=local,dest={tmp_path / 'out'}")
    assert sorted(os.listdir(tmp_path / "out" / "dev")) == ["first"]
    assert [note for note in exported.notes if "dev/disk" in note]
