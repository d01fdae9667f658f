"""Pushes to registries with quirks: what can be done is done, what can't is said in their words."""

from __future__ import annotations

import functools
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from layercache.errors import SourceError, Unreachable
from layercache.images.registry import Registry, RegistryBlobs
from layercache.model.descriptors import LAYER_TAR_GZIP, Descriptor
from layercache.model.digests import Digest
from layercache.oci.credentials import Credentials
from layercache.oci.encoding import MANIFEST
from layercache.oci.hosts import RegistryHosts
from layercache.oci.references import Reference
from layercache.oci.transport import Transport
from layercache.store.backends.registry import RegistryBackend
from tests.oci.quirky import Fault, QuirkyRegistry, quirky_registry

LARGE = bytes(range(256)) * 8192  # sent in several pieces
MANIFEST_BYTES = b'{"schemaVersion":2}'


@pytest.fixture
def registry() -> Iterator[QuirkyRegistry]:
    with quirky_registry() as found:
        yield found


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def transport(attempts: int = 4) -> Transport:
    return Transport(Credentials(()), timeout=10, attempts=attempts, hosts=RegistryHosts(files=()))


def described(data: bytes, kind: str = LAYER_TAR_GZIP) -> Descriptor:
    return Descriptor(kind, Digest("sha256:" + hashlib.sha256(data).hexdigest()), len(data))


def push(registry: QuirkyRegistry, *names: str, origin: str = "", blobs: int = 1) -> None:
    """Push an image of large layers, and of a small configuration."""
    client = transport()
    pulled = Reference.parse(f"{registry.host}/{origin}") if origin else None
    source = RegistryBlobs(client, pulled, lambda _: None) if pulled else None
    layers = [LARGE + bytes([number]) for number in range(blobs)]
    rows: list[tuple[Descriptor, Callable[[], BinaryIO], RegistryBlobs | None]] = [
        (described(data), functools.partial(io.BytesIO, data), source) for data in layers
    ]
    rows.append((described(b"{}"), functools.partial(io.BytesIO, b"{}"), None))
    references = [Reference.parse(f"{registry.host}/{name}") for name in names or ("a/b:1",)]
    Registry(client).push(references, (described(MANIFEST_BYTES, MANIFEST), MANIFEST_BYTES), rows)


def whole(registry: QuirkyRegistry, name: str = "a/b", tag: str = "1", blobs: int = 1) -> bool:
    """Whether the image is there, complete."""
    wanted = {described(LARGE + bytes([n])).digest for n in range(blobs)} | {
        described(b"{}").digest
    }
    return (
        wanted <= registry.blobs.get(name, {}).keys()
        and registry.manifests[name][tag][1] == MANIFEST_BYTES
    )


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("status", [0, 404, 408, 429, 500, 502, 503, 504])
def test_a_blob_that_fails_is_sent_again_from_the_beginning(
    registry: QuirkyRegistry, slept: list[float], status: int, early: bool
) -> None:
    """The session of a failed PUT is not used again; the answer may come before the body's end."""
    registry.faults.append(Fault("PUT", "/uploads/", status, times=2, early=early))
    push(registry)

    assert whole(registry)
    puts = [one for one in registry.requests if one.startswith("PUT") and "/uploads/" in one]
    assert len({one.partition("?")[0] for one in puts}) == len(puts)
    assert len(slept) == 2


def test_a_lost_answer_costs_a_look(registry: QuirkyRegistry, slept: list[float]) -> None:
    """What arrived is not sent twice."""
    registry.faults.append(Fault("PUT", "/uploads/", 0, stores=True))
    push(registry)
    assert whole(registry)
    assert registry.counted("PUT", "/uploads/") == 2  # one for each blob


def test_the_registry_is_given_the_time_that_it_asks_for(
    registry: QuirkyRegistry, slept: list[float]
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", 429, headers={"Retry-After": "7"}))
    push(registry)
    assert whole(registry)
    assert slept == [7.0]


def test_a_token_that_ends_in_the_middle_is_renewed(
    registry: QuirkyRegistry, slept: list[float]
) -> None:
    """Also where that shows at the PUT of a body that can be sent once."""
    registry.tokens = set()
    unauthorized = {
        "WWW-Authenticate": f'Bearer realm="http://{registry.host}/token",service="quirky"'
    }
    registry.faults.append(Fault("PUT", "/uploads/", 401, times=3, headers=unauthorized))
    push(registry)
    assert whole(registry)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("begun", [200, 202, 204])
def test_statuses_that_mean_success(registry: QuirkyRegistry, status: int, begun: int) -> None:
    registry.stored, registry.begun = status, begun
    push(registry)
    assert whole(registry)
    backend = RegistryBackend(f"{registry.host}/cache")
    backend.write("trails/x", io.BytesIO(b"small"))
    digest = hashlib.sha256(LARGE).hexdigest()
    backend.write(f"blobs/sha256/{digest[:2]}/{digest}", io.BytesIO(LARGE))
    assert backend.read("trails/x").read() == b"small"
    assert backend.read(f"blobs/sha256/{digest[:2]}/{digest}").read() == LARGE


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://{host}/token",service="quirky"',
        "Bearer realm=http://{host}/token,service=quirky",
        'Basic realm="x", Bearer realm="http://{host}/token",service="quirky"',
        'bearer service="quirky" , realm="http://{host}/token"',
    ],
)
def test_forms_of_challenges(registry: QuirkyRegistry, challenge: str) -> None:
    registry.tokens, registry.challenge = set(), challenge
    push(registry)
    assert whole(registry)


def test_a_mount_needs_a_token_for_both_repositories(registry: QuirkyRegistry) -> None:
    """A token for one of them would be refused, and everything sent anew."""
    data = LARGE + b"\0"
    registry.blobs["base"] = {described(data).digest: data}
    registry.tokens = set()
    push(registry, origin="base:1")

    assert whole(registry)
    assert ["repository:a/b:pull,push", "repository:base:pull"] in registry.scopes
    assert registry.counted("PUT", "/uploads/") == 1  # the configuration


@pytest.mark.parametrize("status", [0, 400, 401, 403, 404, 405, 500])
def test_a_refused_mount_is_a_plain_upload(
    registry: QuirkyRegistry, slept: list[float], status: int
) -> None:
    data = LARGE + b"\0"
    registry.blobs["base"] = {described(data).digest: data}
    registry.faults.append(Fault("POST", "mount=", status))
    push(registry, origin="base:1")
    assert whole(registry)
    assert registry.counted("POST", "mount=") >= 1


def test_several_names_cost_one_upload(registry: QuirkyRegistry) -> None:
    """Tags of a repository share its blobs; another repository mounts them."""
    push(registry, "a/b:1", "a/b:2", "c:1", blobs=3)
    assert whole(registry, blobs=3)
    assert whole(registry, tag="2", blobs=3)
    assert whole(registry, "c", blobs=3)
    assert registry.counted("PUT", "/uploads/") == 4
    assert registry.counted("HEAD", "a/b/blobs") == 4


def test_the_words_of_the_registry_are_in_the_message(
    registry: QuirkyRegistry, slept: list[float]
) -> None:
    said = b'{"errors":[{"code":"DENIED","message":"the quota of \\u001b[31mthis team is used"}]}'
    for status, method, path in [
        (413, "PUT", "/uploads/"),
        (503, "PUT", "/uploads/"),
        (403, "POST", "/uploads/"),
        (400, "PUT", "/manifests/"),
        (503, "HEAD", "/blobs/"),
    ]:
        registry.faults[:] = [Fault(method, path, status, times=99, body=said)]
        with pytest.raises(SourceError) as caught:
            push(registry)
        words = "" if method == "HEAD" else "it says: DENIED: the quota of [31mthis team is used"
        assert words in str(caught.value)
        assert str(status) in str(caught.value)
        assert "\x1b" not in str(caught.value)


def test_no_answer_is_told_from_a_refusal(registry: QuirkyRegistry, slept: list[float]) -> None:
    """Only what did not answer may be left out."""
    registry.faults.append(Fault("HEAD", "/blobs/", 503, times=99))
    with pytest.raises(Unreachable):
        push(registry)
    registry.faults[:] = [Fault("HEAD", "/blobs/", 403, times=99)]
    with pytest.raises(SourceError) as caught:
        push(registry)
    assert type(caught.value) is SourceError
