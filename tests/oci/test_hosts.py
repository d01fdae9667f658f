"""Mirrors, insecure and blocked registries, as the configuration of podman and docker has them."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from layercache.errors import SourceError
from layercache.images.registry import Registry
from layercache.images.resolver import Images
from layercache.oci.credentials import Credentials
from layercache.oci.hosts import RegistryHosts
from layercache.oci.references import Reference
from layercache.oci.transport import Transport
from tests.images.registries import FakeRegistry, fake_registry, send
from tests.images.support import base_layout, new_store


@pytest.fixture
def configured(tmp_path: Path) -> RegistryHosts:
    (tmp_path / "registries.conf").write_text("""
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry]]
prefix = "docker.io/team"
location = "inside.example/copies"
insecure = true
[[registry]]
prefix = "*.bad.example"
blocked = true
""")
    (tmp_path / "daemon.json").write_text('{"insecure-registries": ["old.example"]}')
    return RegistryHosts(
        files=[str(tmp_path / "none"), str(tmp_path / "registries.conf")],
        daemon=str(tmp_path / "daemon.json"),
    )


PLACES = {
    "alpine:3": [
        "mirror.example:5000/hub/library/alpine:3",
        "tags.example/library/alpine:3",
        "docker.io/library/alpine:3",
    ],
    "alpine@sha256:" + "0" * 64: [
        "mirror.example:5000/hub/library/alpine@sha256:" + "0" * 64,
        "docker.io/library/alpine@sha256:" + "0" * 64,
    ],
    "team/app:1": ["inside.example/copies/app:1"],
    "teams/app:1": [
        "mirror.example:5000/hub/teams/app:1",
        "tags.example/teams/app:1",
        "docker.io/teams/app:1",
    ],
    "other.example/app:1": ["other.example/app:1"],
}


@pytest.mark.parametrize("name", PLACES)
def test_where_an_image_is_pulled_from(configured: RegistryHosts, name: str) -> None:
    """The longest prefix counts; a prefix ends where a part of a name ends."""
    assert PLACES[name] == [str(place) for place in configured.places(Reference.parse(name))]


def test_blocked_and_insecure(configured: RegistryHosts) -> None:
    with pytest.raises(SourceError, match="blocked"):
        configured.places(Reference.parse("a.bad.example/x:1"))
    insecure = {"mirror.example:5000", "inside.example", "old.example"}
    assert {
        h for h in (*insecure, "docker.io", "tags.example") if configured.insecure(h)
    } == insecure


@pytest.mark.parametrize("text", ["[[registry]", "registry = 1", '[[registry.mirror]]\nx = "y"'])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    with pytest.raises(SourceError, match=str(path)):
        RegistryHosts(files=[str(path)]).insecure("x.example")


@pytest.fixture
def pair() -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    with fake_registry() as first, fake_registry() as second:
        yield first, second


def resolver(tmp_path: Path, own: FakeRegistry, mirror: FakeRegistry) -> Images:
    """One for which a mirror stands before a registry."""
    daemon = tmp_path / "registries.conf"
    daemon.write_text(
        f'[[registry]]\nlocation = "{own.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}"\n'
    )
    hosts = RegistryHosts(files=[str(daemon)])
    transport = Transport(Credentials(()), timeout=5, attempts=1, hosts=hosts)
    return Images(new_store().blobs, finders=(Registry(transport),))


def test_a_mirror_serves(tmp_path: Path, pair: tuple[FakeRegistry, FakeRegistry]) -> None:
    """The registry itself is not asked for what its mirror has."""
    own, mirror = pair
    base_layout(tmp_path / "base")
    own.load(tmp_path / "base")
    mirror.load(tmp_path / "base")
    with resolver(tmp_path, own, mirror) as images:
        found = images.resolve(f"{own.host}/app:1")
        images.ensure(found.layers[0])
    assert found.reference == f"{own.host}/app:1"
    assert own.requests == []
    assert mirror.requests != []


@pytest.mark.parametrize("lacks", ["everything", "layers", "order"])
def test_what_a_mirror_lacks_comes_from_the_registry(
    tmp_path: Path, pair: tuple[FakeRegistry, FakeRegistry], lacks: str
) -> None:
    own, mirror = pair
    base_layout(tmp_path / "base")
    own.load(tmp_path / "base")
    if lacks != "everything":
        mirror.load(tmp_path / "base")
    if lacks == "order":

        def out_of_order(handler: BaseHTTPRequestHandler) -> bool:
            send(handler, 503)
            return True

        mirror.answer = out_of_order
    with resolver(tmp_path, own, mirror) as images:
        found = images.resolve(f"{own.host}/app:1")
        if lacks == "layers":
            for original in found.originals:
                mirror.blobs.pop(original.digest, None)
        for layer in found.layers:
            assert images.ensure(layer).descriptor.size > 0
    assert any("/blobs/" in request.path for request in own.requests)
