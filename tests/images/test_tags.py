"""Tags of the cache, and images handed to an engine or to standard output."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from layercache.errors import CorruptObject, SourceError, UsageError
from layercache.images.resolver import Images
from layercache.images.sources import default_images
from layercache.images.tags import tag_image
from layercache.store.tags import decode_tag, list_tags, remove_tag
from layercache.testing.images import tar_of
from tests.images.support import base_layout, build, new_store, run, write

OWN = tar_of({"app": None, "app/x": b"hello"})


def test_a_tag_is_found_by_from(tmp_path: Path) -> None:
    """FROM NAME finds what was tagged, with all its layers, whatever became of the base."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["app", "x/app:1"])
        (tagged, _) = tag_image(store, image, images.ensure)
    for blob in (tmp_path / "base/blobs/sha256").iterdir():
        blob.unlink()
    for name in (
        "app",
        "app:latest",
        "docker.io/library/app",
        "x/app:1",
        f"app@{tagged.manifest.digest}",
    ):
        with default_images(store) as images:
            found = images.resolve(name)
            assert [layer.diff_id for layer in image.layers] == [la.diff_id for la in found.layers]
            assert found.digest == tagged.manifest.digest
            assert attrs.evolve(found.config, history=()) == attrs.evolve(image.config, history=())
            assert all(images.ensure(layer).descriptor.size > 0 for layer in found.layers)


def test_tags_are_listed_and_removed(tmp_path: Path) -> None:
    """A tag is there until it is removed; another image may take it over."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        for content in (b"1", b"2"):
            image = build(store, images, tars=[tar_of({"f": content})], names=["a", "b:1"])
            tag_image(store, image, images.ensure)
    assert [tag.name for tag in list_tags(store)] == [
        "docker.io/library/a:latest",
        "docker.io/library/b:1",
    ]
    assert list_tags(store)[0].layers == (image.layers[0].descriptor,)
    assert list_tags(store)[0].size == image.layers[0].descriptor.size
    assert remove_tag(store, "a")
    assert not remove_tag(store, "a")
    assert [tag.name for tag in list_tags(store)] == ["docker.io/library/b:1"]


def test_a_tag_that_lost_a_layer_is_no_other_image() -> None:
    """An image of the cache that is not whole is an error, not one of that name elsewhere."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN], names=["app"])
        tag_image(store, image, images.ensure)
    for info in list(store.backend.list("blobs/")):
        store.backend.delete(info.name)
    with default_images(store) as images, pytest.raises(SourceError, match="lost the layer"):
        images.resolve("app")


def test_a_tag_for_another_platform() -> None:
    """A tag serves the platforms that can run it."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN], names=["localhost:1/app"])
        config = attrs.evolve(image.config, architecture="s390x")
        tag_image(store, attrs.evolve(image, config=config), images.ensure)
    with default_images(store) as images:
        assert images.resolve("localhost:1/app", "linux/s390x").state.depth == 1
        with pytest.raises(SourceError):
            images.resolve("localhost:1/app", "linux/riscv64")


@pytest.mark.parametrize("edit", ["schema", "name", "layers", "config", "manifest"])
def test_tags_that_can_not_be_read(edit: str) -> None:
    """Whatever a reference holds, it is a tag or `CorruptObject`; a list leaves it out."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN], names=["app"])
        (tagged,) = tag_image(store, image, images.ensure)
    payload = store.references.get(tagged.name)
    assert payload is not None
    assert decode_tag(tagged.name, payload) == tagged
    value = json.loads(payload)
    wrongs: list[Any] = [None, 7, [], [["sha256:x", -1]], {}]
    for wrong in wrongs:
        bad = json.dumps({**value, edit: wrong}).encode()
        with pytest.raises(CorruptObject):
            decode_tag(tagged.name, bad)
    store.references.put("other", b"\xff")
    store.references.put(tagged.name, bad)
    assert list_tags(store) == ()
    with pytest.raises(SourceError, match="tag the image again"), default_images(store) as images:
        images.resolve("app")


def test_wrong_names_are_said_before_anything_is_done() -> None:
    """A tag is a reference without digest."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        for name in ("UPPER", "a@sha256:" + "0" * 64, "u:p@host/a"):
            image = build(store, images, tars=[OWN], names=["good", name])
            with pytest.raises(UsageError):
                tag_image(store, image, images.ensure)
    assert list_tags(store) == ()


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_load_into_an_engine(tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dest, type=docker goes to the engine's `load`; its failure is ours, with why."""
    store = new_store()
    script = tmp_path / program
    monkeypatch.setenv("PATH", str(tmp_path))
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN], names=["app:1"])
        with pytest.raises(UsageError, match="neither docker nor podman"):
            write(store, images, image, "type=docker")
        script.write_text(f"#!/bin/sh\n[ $1 = load ] && exec /bin/cat > {tmp_path}/loaded\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        done = write(store, images, image, "type=docker")
        with Images(new_store().blobs) as others:
            found = others.resolve(f"docker-archive://{tmp_path}/loaded:app:1")
            assert found.digest == done.manifest_digest
        for body in ("echo no room; cat >/dev/null; exit 3", "echo no room; exit 3"):
            script.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{body}\n")
            big = build(store, images, tars=[tar_of({"f": os.urandom(1 << 20)})])
            with pytest.raises(SourceError, match="no room"):
                write(store, images, big, "type=docker")


def test_standard_output(tmp_path: Path) -> None:
    """dest=- writes the archive to standard output, and nothing else."""
    code = (
        "from tests.images.support import *\n"
        "from tests.images.test_tags import OWN\n"
        "from layercache.images.resolver import Images\n"
        "store = new_store()\n"
        "with Images(store.blobs, sizes=store.derived) as images:\n"
        "    image = build(store, images, tars=[OWN])\n"
        "    write(store, images, image, 'type=tar,dest=-')\n"
    )
    root = Path(__file__).parents[2]
    (tmp_path / "o").mkdir()
    script = tmp_path / "script.py"
    script.write_text(code)
    command = f"'{sys.executable}' '{script}' | tar -xf - -C '{tmp_path}/o'"
    run("sh", "-c", command, PYTHONPATH=str(root))
    assert (tmp_path / "o/app/x").read_bytes() == b"hello"
