"""Named contexts in the places of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercache import Builder, Dockerfile


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
    result.export(f"type=oci,dest={tmp_path / 'image'},tar=false")
    assert (tmp_path / "image" / "index.json").exists()
