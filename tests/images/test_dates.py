"""When an image says that it was made: a date of the build, a constant, or now."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from layercache.builds.builder import Builder
from layercache.builds.exporting import export
from layercache.builds.result import BuildResult
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import UsageError
from layercache.images.built import CREATED, rfc3339
from layercache.model.layer_times import LAYER_TIME

EPOCH = "1234567890"
DATE = "2009-02-13T23:31:30Z"


def built(text: str = "FROM scratch\nCOPY f /\n", **options: Any) -> BuildResult:
    with Builder() as builder:
        return builder.build(Dockerfile.parse(text), context={"f": "1"}, **options)


def config_of(result: BuildResult, place: Path, options: str = "") -> dict[str, Any]:
    """The configuration that an export writes."""
    export(result, f"type=docker,dest={place},name=x{options}")
    with tarfile.open(place) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        name = json.load(manifest)[0]["Config"]
        config = archive.extractfile(name)
        assert config is not None
        found: dict[str, Any] = json.load(config)
    return found


def test_without_a_date(tmp_path: Path) -> None:
    """The constant time of layers, in every line of history, too; the digest is known at once."""
    assert rfc3339(LAYER_TIME) == CREATED
    result = built()
    config = config_of(result, tmp_path / "a")
    assert config["created"] == CREATED
    assert {line["created"] for line in config["history"]} == {CREATED}


def test_now(tmp_path: Path) -> None:
    """`created=now` is the time of the export; other words are refused."""
    created = config_of(built(), tmp_path / "a", ",created=now")["created"]
    assert created > CREATED
    with pytest.raises(UsageError, match="expected now"):
        config_of(built(), tmp_path / "b", ",created=yesterday")


@pytest.mark.parametrize("how", ["argument", "environment", "default"])
def test_source_date_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A build argument, the environment and an ARG before FROM mean the same: the date of the
    image, of its history and of the times that are rewritten."""
    text = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY f /at-$SOURCE_DATE_EPOCH\n"
    options: dict[str, Any] = {}
    if how == "argument":
        options["args"] = {"SOURCE_DATE_EPOCH": EPOCH}
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # an argument counts more
    elif how == "environment":
        monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    else:
        text = f"ARG SOURCE_DATE_EPOCH={EPOCH}\n{text}"
    result = built(text, **options)
    assert result.tree().lookup(f"at-{EPOCH}".encode()) is not None
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    config = config_of(result, tmp_path / "a", ",rewrite-timestamp=true")
    assert config["created"] == DATE
    assert {line["created"] for line in config["history"]} == {DATE}


def test_a_wrong_epoch_is_said_before_anything_runs() -> None:
    """Text that is no number of seconds ends the build."""
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH='soon'"):
        built(args={"SOURCE_DATE_EPOCH": "soon"})
