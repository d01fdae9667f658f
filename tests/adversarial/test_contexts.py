"""Named contexts in the places of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.builds.exporting import export
from layercache.errors import SourceError
from layercache.testing.images import make_layout, tar_of


@pytest.mark.parametrize("text", ["FROM named\n", "FROM named AS a\nFROM a\nCOPY f /g\n"])
def test_a_directory_as_the_base_of_an_image(tmp_path: Path, text: str) -> None:
    """All of it is the root; the image that comes of it is complete and can be written."""
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "f").write_text("1")
    result = Builder(None).build(
        Dockerfile.parse(text), context={"f": "2"}, contexts={"named": str(tmp_path / "named")}
    )

    with result.tree().open(b"f") as content:
        assert content.read() == b"1"
    export(result, f"type=oci,dest={tmp_path / 'image'},tar=false")
    assert (tmp_path / "image" / "index.json").exists()


def test_names_of_contexts_have_no_case(tmp_path: Path) -> None:
    """For images as for directories."""
    layout = tmp_path / "layout"
    make_layout(layout, [tar_of({"f": b"1"})])
    result = Builder(None).build(
        Dockerfile.parse("FROM Base\nCOPY --from=BASE f g\n"),
        contexts={"BASE": f"oci-layout://{layout}"},
    )

    assert result.tree().lookup(b"g") is not None


def test_an_image_that_is_nowhere(tmp_path: Path) -> None:
    """The error names it, and the line."""
    with pytest.raises(SourceError, match=r"can't get the image 127\.0\.0\.1:1/x:latest") as caught:
        Builder(None).build(Dockerfile.parse("# a comment\nFROM 127.0.0.1:1/x\n"))

    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM scratch\nFROM nostage\n", 2),
        ("FROM scratch\nCOPY --from=nostage a b\n", 2),
        ("FROM scratch\n\nRUN --mount=type=bind,from=nostage,target=/x true\n", 3),
    ],
)
def test_a_name_that_is_neither_stage_nor_image(
    text: str, line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped stage is asked for at a registry; the error says what else it could have been."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nothing leaves this machine
    with pytest.raises(SourceError, match=r"no stage, build context or image") as caught:
        Builder(None).build(Dockerfile.parse(text))

    assert caught.value.line == line
