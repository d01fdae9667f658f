"""What a trusted writer signed counts where it was written, and nowhere else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.errors import CacheError
from layercache.model.digests import Fingerprint
from layercache.store.backend import LARGEST_SMALL, read_bounded
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.parts import Cache
from layercache.store.store import Store, StoreEvent
from layercache.store.tiered import TieredStore, tiered
from layercache.store.trust import KeyedVerifier

SECRET = b"0123456789abcdef"
SCOPES = [("", ""), ("team", ""), ("", "pepper"), ("team", "pepper"), ("other", "pepper")]


def build(store: Cache) -> list[str | None]:
    done = Builder(store).build(
        Dockerfile.parse("FROM scratch\nCOPY a /\n"), context={"a": "1"}, tags=["app"]
    )
    return [step.decision for step in done.steps]


@pytest.mark.parametrize("written", SCOPES)
@pytest.mark.parametrize("read", SCOPES)
def test_signatures_bind_namespace_and_salt(
    written: tuple[str, str], read: tuple[str, str]
) -> None:
    """An object that is copied from one to the other was signed by nobody there."""
    verifier = KeyedVerifier(SECRET)
    backend = MemoryBackend()
    first = Store(backend, verifier=verifier, namespace=written[0], salt=written[1])
    build(first)
    events: list[StoreEvent] = []
    second = Store(
        backend, verifier=verifier, namespace=read[0], salt=read[1], on_event=events.append
    )
    names = [info.name for info in backend.list(first.objects.prefix) if info.name != "format"]
    for name in names:
        with backend.read(name) as content:
            backend.write(second.objects.prefix + name.removeprefix(first.objects.prefix), content)
    keys = [
        name.rpartition("/")[2] for name in names if name.startswith(first.objects.prefix + "ac/")
    ]
    found = second.records.lookup(keys)  # type: ignore[arg-type]

    assert keys
    assert bool(found) == (written == read)
    assert bool(second.references.all()) == (written == read)
    assert bool(second.trails.all()) == (written == read)
    assert {event.kind for event in events} == (set() if written == read else {"untrusted"})


def test_a_store_that_is_copied_or_put_behind_another_signs_alike() -> None:
    """The scope is applied once."""
    backend, remote = MemoryBackend(), MemoryBackend()
    store = Store(backend, verifier=KeyedVerifier(SECRET), namespace="team")
    both = tiered(store, cache_to=[remote])
    with both:
        build(both)
        assert both.flush(30)
    plain = Store(remote, verifier=KeyedVerifier(SECRET), namespace="team")
    assert plain.trails.all()
    local = Store(MemoryBackend(), verifier=KeyedVerifier(SECRET))
    with TieredStore(local, cache_from=[plain]) as other:
        assert pickle.loads(pickle.dumps(other)).local.authority is not None
    again = pickle.loads(pickle.dumps(Store(backend, verifier=_Plain(), namespace="team")))
    assert isinstance(again.authority, _Plain)


class _Plain:
    def sign(self, message: bytes) -> bytes:
        return message

    def verify(self, message: bytes, signature: bytes) -> bool:
        return message == signature


class Endless(io.RawIOBase):
    """A medium that sends without end."""

    sent = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size > 0, "read without a bound"
        self.sent += size
        return bytes(size)


def test_an_endless_object_ends() -> None:
    """After what no object of ours has."""
    content = Endless()
    with pytest.raises(CacheError, match="writes no object of that size"):
        read_bounded(content, "ac/00/0")  # type: ignore[arg-type]
    assert content.sent <= LARGEST_SMALL + (1 << 20)


def test_a_salt_disowns_all_that_is_stored(tmp_path: Path) -> None:
    """Records, blobs, trails, facts, indexes, references: of none is anything left to see."""
    backend = LocalBackend(tmp_path)
    recipe = Dockerfile.parse("FROM scratch AS one\nCOPY a /\nFROM scratch\nCOPY --from=one /a /\n")
    with Store(backend, salt="old") as store:
        result = Builder(store).build(recipe, context={"a": "1"}, tags=["app"], project="p")
        store.facts.put("", "0" * 64, Fingerprint("1" * 64))
        store.derived.put("index", "sha256:" + "2" * 64, b"index")
        store.derived.put("accounts", "sha256:" + "2" * 64, b"accounts")
        keys = [step.key for step in result.steps if step.key is not None]
        blobs = [layer.descriptor for layer in result.state.layers] if result.state else []
        assert keys
        assert blobs
        assert store.trails.all()
        assert store.references.all()
    before = {info.name for info in backend.list("")} - {"format"}
    for salt in ("new", ""):
        with Store(LocalBackend(tmp_path), salt=salt) as other:
            assert other.records.lookup(keys) == {}
            assert not any(other.blobs.has(blob) for blob in blobs)
            assert other.trails.all() == []
            assert other.references.all() == {}
            assert other.facts.get("", "0" * 64) is None
            assert other.derived.get("index", "sha256:" + "2" * 64) is None
            assert other.derived.get("accounts", "sha256:" + "2" * 64) is None
            assert not [name for name in before if name.startswith(other.objects.prefix or "ac/")]
            again = Builder(other).build(recipe, context={"a": "1"}, project="p")
            assert "hit" not in [step.decision for step in again.steps]


def test_what_is_derived_counts_only_when_it_is_signed() -> None:
    """Accounts, indexes and facts of a cache that others write decide keys like records."""
    backend = MemoryBackend()
    other, mine = Store(backend), Store(backend, verifier=KeyedVerifier(SECRET))
    for kind in ("accounts", "index", "selectors"):
        other.derived.put(kind, "x", b"not signed")
        assert mine.derived.get(kind, "x") is None
        mine.derived.put(kind, "y", b"signed")
        assert mine.derived.get(kind, "y") == b"signed"
    other.facts.put("", "0" * 64, Fingerprint("1" * 64))
    assert mine.facts.get("", "0" * 64) is None
