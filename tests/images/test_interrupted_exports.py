"""An export to a directory that fails is made right by the next one, or by itself."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from layercache.builds.builder import Builder
from layercache.builds.exporting import export
from layercache.builds.result import BuildResult
from layercache.errors import LayerCacheError, UsageError
from layercache.images import writers
from layercache.images.atomic_files import atomic_file
from layercache.store.backends.local import LocalBackend
from layercache.store.store import Store
from tests.store.test_faulty_storage import CONTEXT, RECIPE, Writes


def _build(place: Path) -> BuildResult:
    return Builder(Store(LocalBackend(place)), executor=Writes()).build(RECIPE, context=CONTEXT)


def _layers(image: Path) -> list[str]:
    """The layers of the only image in a layout; every blob has its digest."""
    for blob in (image / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (entry,) = json.loads((image / "index.json").read_bytes())["manifests"]
    manifest = json.loads((image / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    return [layer["digest"] for layer in manifest["layers"]]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_a_rotten_layer_is_healed_while_a_directory_is_written(
    tmp_path: Path, which: int, damage: str
) -> None:
    """Reading for the export shows it, the step is run again, and the directory is complete."""
    first = _build(tmp_path / "cache")
    export(first, f"type=oci,tar=false,dest={tmp_path}/right")
    right = _layers(tmp_path / "right")
    digest = right[which % len(right)].partition(":")[2]
    blob = tmp_path / "cache" / "blobs" / "sha256" / digest[:2] / digest
    size = blob.stat().st_size
    blob.chmod(0o600)
    if damage == "gone":
        blob.unlink()
    elif damage == "truncated":
        os.truncate(blob, size // 2)
    else:
        with blob.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"rotten")

    second = _build(tmp_path / "cache")
    export(second, f"type=oci,tar=false,dest={tmp_path}/image")

    assert _layers(tmp_path / "image") == right


@pytest.mark.parametrize("number", range(12))
def test_an_interrupted_export_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whichever file could not be written: the next export into the directory completes it."""
    result = _build(tmp_path / "cache")
    export(result, f"type=oci,tar=false,dest={tmp_path}/right")
    whole, count = atomic_file, 0

    def failing(path: str, **options: bool) -> object:
        nonlocal count
        count += 1
        if count > number:
            raise OSError(28, "No space left on device")
        return whole(path, **options)

    monkeypatch.setattr(writers, "atomic_file", failing)
    with suppress(LayerCacheError):
        export(result, f"type=oci,tar=false,dest={tmp_path}/image")
    assert count == number + 1 or number > len(_layers(tmp_path / "right")) + 3
    monkeypatch.undo()

    export(result, f"type=oci,tar=false,dest={tmp_path}/image")

    assert _layers(tmp_path / "image") == _layers(tmp_path / "right")


def test_what_an_export_that_died_left_is_no_obstacle(tmp_path: Path) -> None:
    """Also without the marker, as earlier versions left it; anything else still is."""
    result = _build(tmp_path / "cache")
    (tmp_path / "image" / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "image" / ".layercache-0123456789abcdef").write_bytes(b"part")
    export(result, f"type=oci,tar=false,dest={tmp_path}/image")
    assert _layers(tmp_path / "image")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("two years")
    with pytest.raises(UsageError, match="neither empty nor an OCI layout"):
        export(result, f"type=oci,tar=false,dest={tmp_path}/other")
    assert os.listdir(tmp_path / "other") == ["thesis.txt"]


@pytest.mark.parametrize("annotations", [[1], "x", {"io.containerd.image.name": {}}, None])
def test_odd_entries_of_a_layout_stay(tmp_path: Path, annotations: object) -> None:
    """What others wrote into the index of a layout is kept, whatever it is."""
    result = _build(tmp_path / "cache")
    place = tmp_path / "image"
    place.mkdir()
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    odd = {"digest": "x", "annotations": annotations, "platform": []}
    (place / "index.json").write_text(json.dumps({"manifests": [odd]}))
    export(result, f"type=oci,tar=false,dest={place}")
    assert odd in json.loads((place / "index.json").read_text())["manifests"]


@pytest.mark.parametrize("name", ["index.json", "blob", "blobs", "blobs/sha256", "oci-layout"])
def test_links_in_a_layout_lead_nowhere(tmp_path: Path, name: str) -> None:
    """A layout of somebody else may hold links: what they lead to is not written."""
    result = _build(tmp_path / "cache")
    export(result, f"type=oci,tar=false,dest={tmp_path}/image")
    right = _layers(tmp_path / "image")
    outside = tmp_path / "outside"
    if name == "blob":
        name = "blobs/" + right[0].replace(":", "/")
    target = tmp_path / "image" / name
    if target.is_dir():
        outside.mkdir()
        target.rename(tmp_path / "aside")
    else:
        outside.write_bytes(b'{"schemaVersion":2,"manifests":[]}')
        target.unlink()
    target.symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else os.listdir(outside)

    if name.startswith("blobs") and outside.is_dir():
        with pytest.raises(UsageError, match="is a symbolic link"):
            export(result, f"type=oci,tar=false,dest={tmp_path}/image")
    else:
        export(result, f"type=oci,tar=false,dest={tmp_path}/image")
        assert _layers(tmp_path / "image") == right

    assert (outside.read_bytes() if outside.is_file() else os.listdir(outside)) == before


def test_a_pipe_in_the_place_of_a_blob_is_not_waited_for(tmp_path: Path) -> None:
    """It is replaced."""
    result = _build(tmp_path / "cache")
    export(result, f"type=oci,tar=false,dest={tmp_path}/image")
    right = _layers(tmp_path / "image")
    blob = tmp_path / "image" / "blobs" / right[0].replace(":", "/")
    blob.unlink()
    os.mkfifo(blob)
    export(result, f"type=oci,tar=false,dest={tmp_path}/image")
    assert _layers(tmp_path / "image") == right
