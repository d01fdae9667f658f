"""Backends and tiers against real servers: S3 (two clients), Redis, an OCI registry."""

from __future__ import annotations

import io
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from layercache.errors import CacheError, NotFound
from layercache.store.backends.fsspec import FsspecBackend
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.obstore import ObstoreBackend
from layercache.store.backends.redis import RedisBackend
from layercache.store.backends.registry import RegistryBackend
from layercache.store.store import Store
from layercache.store.tiered import TieredStore, tiered
from layercache.testing.faults import CountingBackend
from layercache.testing.storage import BackendSuite, StoreSuite
from tests.store.servers import redis_server, registry_server, s3_server
from tests.store.test_tiers import _build, _recipe

S3 = {"key": "test", "secret": "test"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with registry_server(tmp_path_factory.mktemp("registry")) as host:
        yield host


def _s3fs(url, place):
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    return FsspecBackend(
        f"s3://cache/{place}",
        endpoint_url=url,
        client_kwargs={"region_name": "us-east-1"},
        **S3,
    )


def _obstore(url, place):
    pytest.importorskip("obstore", reason="obstore is not installed")
    return ObstoreBackend(
        f"s3://cache/{place}",
        config={
            "aws_endpoint": url,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_region": "us-east-1",
        },
        client_options={"allow_http": True},
    )


def _place():
    return uuid.uuid4().hex


class TestS3fs(BackendSuite):
    @pytest.fixture(autouse=True)
    def server(self, s3):
        self.url = s3

    def make(self, tmp_path):
        return _s3fs(self.url, _place())


class TestObstore(BackendSuite):
    @pytest.fixture(autouse=True)
    def server(self, s3):
        self.url = s3

    def make(self, tmp_path):
        return _obstore(self.url, _place())


class TestRedis(BackendSuite):
    @pytest.fixture(autouse=True)
    def server(self, redis):
        self.url = redis

    def make(self, tmp_path):
        return RedisBackend(self.url, prefix=f"{_place()}*[x]:")


class TestRegistry(BackendSuite):
    @pytest.fixture(autouse=True)
    def server(self, registry):
        self.url = registry

    def make(self, tmp_path):
        return RegistryBackend(f"{self.url}/team/cache:{_place()}")

    def test_many_writers_of_one_name(self, tmp_path):
        """One version or another; this server answers 500 while a tag moves: a miss."""
        backend = self.make(tmp_path)
        versions = [bytes([number]) * 1000 for number in range(4)]
        backend.write("x", io.BytesIO(versions[0]))

        def write(data):
            try:
                backend.write("x", io.BytesIO(data))
            except CacheError:
                return None
            return data

        def read(_):
            try:
                return backend.read("x").read()
            except CacheError:
                return None

        with ThreadPoolExecutor(8) as pool:
            seen = [*pool.map(write, versions * 3), *pool.map(read, range(6))]

        assert set(seen) <= {*versions, None}
        assert read(None) in versions


class TestRedisStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def server(self, redis):
        self.url, self.place = redis, _place()

    def make(self, tmp_path, **options):
        return Store(RedisBackend(self.url, prefix=self.place), **options)


class TestObstoreStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def server(self, s3):
        self.url, self.place = s3, _place()

    def make(self, tmp_path, **options):
        return Store(_obstore(self.url, self.place), **options)

    def test_every_flipped_byte_of_a_record_is_a_miss(self, tmp_path):
        """Shown over other backends; here each byte would be some requests."""

    def test_every_flipped_byte_of_a_blob_is_seen(self, tmp_path):
        """Shown over other backends."""

    def test_damage_to_small_objects_is_a_miss(self, tmp_path):
        """Shown over other backends."""


@pytest.fixture(params=["s3fs", "obstore", "redis", "registry"])
def remote(request):
    """Makes handles on one new remote cache."""
    place = _place()
    kind = request.param
    if kind in ("s3fs", "obstore"):
        url = request.getfixturevalue("s3")
        return lambda: (_s3fs if kind == "s3fs" else _obstore)(url, place)
    if kind == "redis":
        url = request.getfixturevalue("redis")
        return lambda: RedisBackend(url, prefix=place)
    host = request.getfixturevalue("registry")
    return lambda: RegistryBackend(f"{host}/project/app:{place}")


def test_two_machines_share_a_build(tmp_path, remote):
    """What one machine made, another reuses with at most two requests and no layer."""
    with tiered(Store(LocalBackend(tmp_path / "one")), cache_to=[remote()]) as store:
        ran, layers, _ = _build(store, _recipe(12))
        assert isinstance(store, TieredStore)
        assert store.flush(120)
    counting = CountingBackend(remote())
    with tiered(Store(LocalBackend(tmp_path / "two")), cache_from=[counting]) as store:
        again, same, result = _build(store, _recipe(12))
        requests = counting.requests

        assert (ran, again, same) == (12, 0, layers)
        assert requests <= 2
        for layer in result.state.layers:
            assert store.blobs.read(layer.descriptor.digest)
    counting = CountingBackend(remote())
    with tiered(Store(LocalBackend(tmp_path / "one")), cache_to=[counting]) as store:
        _build(store, _recipe(12))
        assert isinstance(store, TieredStore)
        assert store.flush(120)
    assert counting.requests == 1


def test_large_objects_travel_whole(remote):
    """Objects above every client's idea of small come back to the byte."""
    backend = remote()
    data = bytes(range(251)) * 80_000
    backend.write("large/object", io.BytesIO(data))

    with remote().read("large/object") as content:
        assert content.read() == data


def test_a_server_that_is_not_there(tmp_path):
    """Nobody listening is a `CacheError`, soon, and never `NotFound`."""
    backends: list[RedisBackend | RegistryBackend] = [
        RedisBackend("redis://127.0.0.1:1/0"),
        RegistryBackend("127.0.0.1:1/x/y:z"),
    ]
    for backend in backends:
        with pytest.raises(CacheError) as caught:
            backend.read("a/b")
        assert not isinstance(caught.value, NotFound)
    assert "secret" not in repr(RedisBackend("redis://user:secret@127.0.0.1:1/0"))


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_a_bucket_that_is_not_there_is_named_and_not_made(s3, client):
    """Reading, listing and writing, small and large: a typo makes nothing."""
    import urllib.request

    make = {"s3fs": _s3fs, "obstore": _obstore}[client]
    backend: Any = make(s3, "x")
    state = backend.__getstate__()
    state["url"] = state["url"].replace("//cache/", "//cahce/")
    wrong: Any = object.__new__(type(backend))
    wrong.__setstate__(state)
    name = "ac/00/" + "0" * 64
    calls = [
        lambda: wrong.write(name, io.BytesIO(b"small")),
        lambda: wrong.write(name, io.BytesIO(bytes(9 << 20))),
        lambda: wrong.read(name),
        lambda: wrong.read_many([name, "format"]),
        lambda: list(wrong.list("ac/")),
    ]
    for call in calls:
        with pytest.raises(CacheError, match="no bucket 'cahce'") as caught:
            call()
        assert not isinstance(caught.value, NotFound)
    with urllib.request.urlopen(s3) as answer:
        assert b"cahce" not in answer.read()
