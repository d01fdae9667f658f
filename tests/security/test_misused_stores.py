"""Hostile names for objects, places, namespaces, tags and kinds reach nothing beside the cache."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.errors import LayerCacheError, NotFound, UsageError
from layercache.store.backends import open_backend
from layercache.store.backends.local import LocalBackend
from layercache.store.store import Store

NAMES = [
    "", ".", "..", "/", "../x", "a/../../x", "/etc/hostname", "a//b", "a/./b", "a/", "./a", "a\0b",
    "a\nb", "A", "ä", "a b", "a\\b", "..\\x", "a" * 256, "a/" * 600 + "a", "~/x", "%2e%2e/x", "a:b",
    "*", "\udcff",
]  # fmt: skip
FREE = [*NAMES, "-rf", "--", "refs/x", "ns/x", "_2f", "__", "a" * 5000, "\u202e", "\x1b[2J", "..."]
PLACES = [
    "", "s3://", "redis://", "registry://", "registry://../x", "registry://UPPER/x", "file://host/x",
    "http://u:p@127.0.0.1:1/x", "simplecache::s3://b/x", "nosuch://x",
    "type=local", "type=local,dest=", "type=registry,ref=", "type=registry,ref=a b", "type=",
    "obstore+nosuch://x", "redis://127.0.0.1:notaport", "oci://", "registry://a@b@c/x",
]  # fmt: skip


def _seen(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else b""
        for path in place.rglob("*")
        if "cache" not in path.relative_to(place).parts[:1]
    }


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a cache in it, and things that belong to somebody else."""
    (tmp_path / "x").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_no_object_has_such_a_name(world: Path, name: str) -> None:
    """Every call refuses it, whatever it is to do."""
    backend = LocalBackend(world / "cache")
    backend.write("format", io.BytesIO(b"x"))
    before = _seen(world)
    for call in (
        lambda: backend.read(name),
        lambda: backend.write(name, io.BytesIO(b"x")),
        lambda: backend.delete(name),
        lambda: backend.stat(name),
        lambda: backend.read_many([name]),
        lambda: backend.stage(name, b"x"),
        lambda: backend.staged(name),
        lambda: backend.path(name),
        lambda: backend.touch([name]),
    ):
        with pytest.raises((UsageError, NotFound)):
            call()
    assert _seen(world) == before


@pytest.mark.parametrize("text", FREE)
def test_free_texts_are_escaped(world: Path, text: str) -> None:
    """As a namespace, a salt, a reference, a kind's name: below the cache, and told apart."""
    before = _seen(world)
    for namespace, salt in ((text, ""), ("", text), ("", "")):
        backend = LocalBackend(world / "cache")
        with suppress(LayerCacheError), Store(backend, namespace=namespace, salt=salt) as store:
            store.references.put(text, b"what it is")
            store.commit()
            assert store.references.get(text) == b"what it is"
            assert store.references.get(text + "x") is None
            assert text in store.references.all()
            assert store.references.delete(text)
    assert _seen(world) == before


@pytest.mark.parametrize("text", FREE)
def test_tags_are_references_or_refused(world: Path, text: str) -> None:
    """Nothing beside the cache comes of a tag."""
    before = _seen(world)
    with Store(LocalBackend(world / "cache")) as store, suppress(LayerCacheError):
        Builder(store).build(
            Dockerfile.parse("FROM scratch\nCOPY a /\n"), context={"a": "1"}, tags=[text]
        )
    assert _seen(world) == before


@pytest.mark.parametrize("text", PLACES)
def test_places_that_are_none(world: Path, text: str) -> None:
    """An error of ours, at the latest with the first call, and no directory of that name."""
    before = sorted(os.listdir(world / "here"))
    with pytest.raises(LayerCacheError):
        list(open_backend(text).list("ac/"))
    assert sorted(os.listdir(world / "here")) == before
