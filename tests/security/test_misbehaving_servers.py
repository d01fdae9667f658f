"""A remote never fails a build, and makes none wrong: whatever it says, and when it says nothing.

Each test builds beside a cache that misbehaves at random, through the client that speaks its
protocol: the build succeeds, its image is that of a build without any cache, and it takes no
longer than its deadlines allow. Where something was written through the faults, a build without
them then reads it, and is right, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from layercache.builds.builder import Builder
from layercache.builds.exporting import export
from layercache.builds.result import BuildResult
from layercache.errors import CacheError
from layercache.store.backend import Backend, BatchReader
from layercache.store.backends.fsspec import FsspecBackend
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.backends.obstore import ObstoreBackend
from layercache.store.backends.redis import RedisBackend
from layercache.store.backends.registry import RegistryBackend
from layercache.store.store import Store
from layercache.store.tiered import TieredStore
from tests.security.misbehaving import hanging, listening, lying_http, lying_redis, proxy
from tests.store.servers import redis_server, registry_server, s3_server
from tests.store.test_faulty_storage import CONTEXT, RECIPE, Writes

LONGEST = 15.0
"""Seconds. Reading and writing are each given up after one deadline, then waited for once."""

Open = Callable[[int], Backend]


def _registry(port: int) -> Backend:
    return RegistryBackend(f"127.0.0.1:{port}/team/cache", timeout=2)


def _redis(port: int) -> Backend:
    pytest.importorskip("redis", reason="the package redis is not installed")
    return RedisBackend(f"redis://127.0.0.1:{port}/0")


def _s3fs(port: int) -> Backend:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    return FsspecBackend(
        "s3://cache/s3fs",
        endpoint_url=f"http://127.0.0.1:{port}",
        client_kwargs={"region_name": "us-east-1"},
        key="test",
        secret="test",
    )


def _obstore(port: int) -> Backend:
    pytest.importorskip("obstore", reason="obstore is not installed")
    return ObstoreBackend(
        "s3://cache/obstore",
        config={
            "aws_endpoint": f"http://127.0.0.1:{port}",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_region": "us-east-1",
        },
        client_options={"allow_http": True, "timeout": "5s"},
    )


OPENED: dict[str, Open] = {
    "registry": _registry, "redis": _redis, "s3fs": _s3fs, "obstore": _obstore
}  # fmt: skip
LIARS: dict[str, Callable[[int], AbstractContextManager[int]]] = {
    "registry": lying_http, "redis": lying_redis, "s3fs": lying_http, "obstore": lying_http
}  # fmt: skip


def _build(backend: Backend) -> list[str]:
    """The layers of a build that has only `backend` to reuse from, and writes there."""
    other = Store(backend)
    store = TieredStore(
        Store(MemoryBackend()), cache_from=[other], cache_to=[other], deadline=0.4, linger=0.4
    )
    began = time.monotonic()
    result = Builder(store, executor=Writes(), jobs=2).build(RECIPE, context=CONTEXT, project="p")
    layers = _written(result)
    store.close()
    assert time.monotonic() - began < LONGEST
    return layers


def _written(result: BuildResult) -> list[str]:
    """The layers of the image as it is written, every byte of which is there."""
    with tempfile.TemporaryDirectory() as place:
        export(result, f"type=oci,tar=false,dest={place}/image")
        image = Path(place, "image")
        entry = json.loads((image / "index.json").read_bytes())["manifests"][0]
        manifest = json.loads(_blob(image, entry["digest"]))
        layers = [layer["digest"] for layer in manifest["layers"]]
        for digest in [manifest["config"]["digest"], *layers]:
            _blob(image, digest)
        return layers


def _blob(image: Path, digest: str) -> bytes:
    data = (image / "blobs" / digest.replace(":", "/")).read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


@pytest.fixture(scope="module")
def right() -> list[str]:
    """The layers of a build without a remote."""
    result = Builder(Store(MemoryBackend()), executor=Writes()).build(RECIPE, context=CONTEXT)
    return _written(result)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], int]]:
    """The port of a real server that speaks a protocol, started when first asked for."""
    running: dict[str, tuple[AbstractContextManager[str], int]] = {}

    def port(protocol: str) -> int:
        kind = "s3" if protocol in ("s3fs", "obstore") else protocol
        if kind not in running:
            start = {"s3": s3_server, "redis": redis_server, "registry": registry_server}[kind]
            server = start(tmp_path_factory.mktemp(kind))
            address = server.__enter__()
            running[kind] = server, int(address.rpartition(":")[2].partition("/")[0])
        return running[kind][1]

    yield port
    for server, _ in running.values():
        server.__exit__(None, None, None)


def _beside_a_proxy(protocol: str, port: int, seeds: range, right: list[str]) -> None:
    opened = OPENED[protocol]
    assert _build(opened(port)) == right
    for seed in seeds:
        with proxy(port, seed) as between:
            assert _build(opened(between)) == right, f"seed {seed}"
    assert _build(opened(port)) == right


@pytest.mark.parametrize("protocol", OPENED)
def test_beside_a_connection_that_misbehaves(
    protocol: str, ports: Callable[[str], int], right: list[str]
) -> None:
    """A real server behind a proxy that cuts, flips, doubles, delays and makes up bytes."""
    _beside_a_proxy(protocol, ports(protocol), range(4), right)


@pytest.mark.parametrize("protocol", OPENED)
def test_beside_a_server_that_lies(protocol: str, right: list[str]) -> None:
    """Well-formed nonsense in the protocol's own form."""
    for seed in range(4):
        with LIARS[protocol](seed) as port:
            assert _build(OPENED[protocol](port)) == right, f"seed {seed}"


@pytest.mark.parametrize("protocol", OPENED)
def test_beside_a_server_that_says_nothing(protocol: str, right: list[str]) -> None:
    """Connections are taken, and that is all."""
    with hanging() as port:
        assert _build(OPENED[protocol](port)) == right


@pytest.mark.soak
@pytest.mark.parametrize("protocol", OPENED)
def test_beside_misbehaviour_for_long(
    protocol: str, ports: Callable[[str], int], right: list[str]
) -> None:
    """As above, with many more seeds."""
    _beside_a_proxy(protocol, ports(protocol), range(1000, 1400), right)
    for seed in range(1000, 1400):
        with LIARS[protocol](seed) as port:
            assert _build(OPENED[protocol](port)) == right, f"seed {seed}"


# -- directories ----------------------------------------------------------------------------------


def _spoil(path: Path, outside: Path, others: list[Path], rng: random.Random) -> None:
    """Something other than what was there, or what is right under another name."""
    kind = rng.randrange(9)
    data = path.read_bytes()
    path.chmod(0o600)
    if kind == 0:
        path.write_bytes(rng.randbytes(rng.randrange(3000)))
        return
    if kind == 1:
        path.write_bytes(data[: rng.randrange(len(data) + 1)])
        return
    if kind == 2:
        changed = bytearray(data or b"\0")
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        return
    if kind == 3:
        os.truncate(path, 1 << 41)  # sparse
        return
    path.unlink()
    if kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.mkdir()
    elif kind == 6:
        path.symlink_to(rng.choice(["/dev/zero", str(outside), path.name, "/nowhere"]))
    elif kind == 7:
        shutil.copyfile(rng.choice(others), path)


def _spoiled(warm: Path, place: Path, seed: int) -> Path:
    rng = random.Random(seed)
    shutil.copytree(warm, place)
    outside = place.with_name(place.name + "-outside")
    outside.write_text("of somebody else")
    intact = sorted(one for one in warm.rglob("*") if one.is_file())
    files = [place / one.relative_to(warm) for one in intact if one.name != "format"]
    for path in rng.sample(files, rng.randrange(1, len(files) + 1)):
        _spoil(path, outside, intact, rng)
    return place


def _beside_junk(tmp_path: Path, seeds: range, right: list[str]) -> None:
    warm = tmp_path / "warm"
    builder = Builder(Store(LocalBackend(warm)), executor=Writes())
    builder.build(RECIPE, context=CONTEXT, project="p")
    for seed in seeds:
        place = _spoiled(warm, tmp_path / f"behind-{seed}", seed)
        assert _build(LocalBackend(place)) == right, f"seed {seed}"
        own = Store(LocalBackend(_spoiled(warm, tmp_path / f"own-{seed}", seed)))
        began = time.monotonic()
        result = Builder(own, executor=Writes()).build(RECIPE, context=CONTEXT, project="p")
        assert _written(result) == right, f"seed {seed}"
        assert time.monotonic() - began < LONGEST
        for outside in tmp_path.glob("*-outside"):
            assert outside.read_text() == "of somebody else"


def test_beside_a_directory_of_junk(tmp_path: Path, right: list[str]) -> None:
    """As the build's own cache and behind it: cut files, links, FIFOs, files of terabytes."""
    _beside_junk(tmp_path, range(12), right)


@pytest.mark.soak
def test_beside_directories_of_junk_for_long(tmp_path: Path, right: list[str]) -> None:
    """As above, with many more seeds."""
    _beside_junk(tmp_path, range(1000, 1500), right)


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", ["nothing", "small", "large"])
@pytest.mark.parametrize("protocol", OPENED)
def test_an_object_without_end_is_given_up(protocol: str, stated: str) -> None:
    """Whatever size is stated, no more is taken of a small object than one may have."""
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(65536)
        connection.sendall(head)
        while sent < 400 << 20:
            connection.sendall(piece)
            sent += len(piece)

    piece = bytes(1 << 20)
    if protocol == "redis":
        head = {"nothing": b"+", "small": b"$5\r\n", "large": b"$%d\r\n" % (1 << 40)}[stated]
    else:
        head = b"HTTP/1.1 200 OK\r\nLast-Modified: Mon, 02 Nov 2026 00:00:00 GMT\r\nETag: x\r\n"
        if stated == "large":
            head += b"Content-Length: %d\r\n\r\n" % (1 << 40)
        else:
            head += b"Content-Length: 5\r\n" if stated == "small" else b""
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            piece = b"100000\r\n" + piece + b"\r\n"
    with listening(endless) as port, suppress(CacheError):
        backend = OPENED[protocol](port)
        assert isinstance(backend, BatchReader)
        found = backend.read_many(["ac/00/" + "0" * 64])
        assert all(len(data) <= 5 for data in found.values())
    assert sent < 100 << 20
