"""Images from and to registries: the real one, and one that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import stat
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from layercache._base.classes import evolve
from layercache.errors import HostileArchive, SourceError
from layercache.images.export import export
from layercache.images.output_spec import parse_output
from layercache.images.registry import Registry
from layercache.images.resolver import Images
from layercache.images.sources import default_images
from layercache.oci.credentials import Credentials
from layercache.oci.hosts import RegistryHosts
from layercache.oci.transport import Transport
from layercache.store.store import Store
from layercache.testing.images import make_layout, tar_of
from tests.images.registries import FakeRegistry, docker_registry, fake_registry, send
from tests.images.support import base_layout, build, needs, new_store, run

OWN = tar_of({"app": None, "app/x": b"hello"})


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


def images_of(store: Store, *auth: Path, keep: bool = True, attempts: int = 3) -> Images:
    transport = Transport(Credentials(tuple(map(str, auth))), timeout=5, attempts=attempts)
    registry = Registry(transport, keep=store.blobs if keep else None)
    return Images(store.blobs, sizes=store.derived, finders=(registry,))


def login(path: Path, host: str, secret: str = "s3cret") -> Path:
    auth = base64.b64encode(f"user:{secret}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path


@needs("docker-registry", "skopeo")
def test_pull_what_skopeo_pushed(tmp_path: Path) -> None:
    """An image in a real registry is resolved by tag and by digest, and its layers read."""
    base_layout(tmp_path / "base")
    with docker_registry(tmp_path / "registry") as host:
        name = f"{host}/team/base:1"
        run(
            "skopeo",
            "copy",
            "--dest-tls-verify=false",
            f"oci:{tmp_path}/base:base",
            f"docker://{name}",
        )
        store = new_store()
        with images_of(store) as images:
            found = images.resolve(name)
            for layer in found.layers:
                assert images.ensure(layer).descriptor.size > 0
        with images_of(new_store()) as images:
            pinned = images.resolve(f"{host}/team/base@{found.digest}")
        assert found.state == pinned.state
        assert found.config == pinned.config
        with images_of(new_store()) as images, pytest.raises(SourceError, match="was not found"):
            images.resolve(f"{host}/team/base:2")
    with images_of(store) as images:
        # The registry is gone: what is pinned and kept needs it no more.
        assert images.resolve(f"{host}/team/base@{found.digest}").state == found.state
        with pytest.raises(SourceError):
            images.resolve(name)


@needs("docker-registry", "skopeo")
@pytest.mark.parametrize("logged_in", [False, True])
def test_push(tmp_path: Path, logged_in: bool) -> None:
    """A push is complete and exact: skopeo finds it, and again there is nothing to send."""
    with docker_registry(tmp_path / "registry", login=logged_in) as host:
        auth = login(tmp_path / "auth.json", host)
        store = new_store()
        registry = Registry(Transport(Credentials((str(auth),)), timeout=10))
        with Images(store.blobs, sizes=store.derived, finders=(registry,)) as images:
            base = base_layout(tmp_path / "base")
            image = build(store, images, base, [OWN], [f"{host}/x/app:1", f"{host}/x/app:2"])
            for _ in range(2):
                done = export(
                    image,
                    parse_output("type=registry"),
                    content=store.blobs,
                    fetch=images.ensure,
                    registry=registry,
                )
            assert image.base is not None
            originals = image.base.originals
        for tag in ("1", "2"):
            seen = json.loads(
                run(
                    "skopeo",
                    "inspect",
                    "--tls-verify=false",
                    f"--authfile={auth}",
                    f"docker://{host}/x/app:{tag}",
                )
            )
            assert seen["Digest"] == done.manifest_digest
        with Images(new_store().blobs, finders=(registry,)) as images:
            found = images.resolve(f"{host}/x/app:2")
            assert found.originals[:2] == originals
            for layer in found.layers:
                images.ensure(layer)
            again = build(new_store(), images, f"{host}/x/app:1", [], [f"{host}/other/app:1"])
            # Within one registry the layers of the base are mounted, not sent.
            export(
                again,
                parse_output("type=registry"),
                content=new_store().blobs,
                fetch=images.ensure,
                registry=registry,
            )
        with Images(new_store().blobs, finders=(registry,)) as images:
            assert images.resolve(f"{host}/other/app:1").state == found.state
        if logged_in:
            with images_of(new_store()) as images, pytest.raises(SourceError, match="log in"):
                images.resolve(f"{host}/x/app:2")
            wrong = login(tmp_path / "wrong.json", host, "wrong")
            with images_of(new_store(), wrong) as images, pytest.raises(SourceError) as caught:
                images.resolve(f"{host}/x/app:2")
            assert "wrong" not in str(caught.value)


def test_sizes_are_known_to_a_build(tmp_path: Path, fake: FakeRegistry) -> None:
    """The first build over a compressed base fetches it; a later one knows its size from then,
    and reads nothing; a plan never does."""
    base_layout(tmp_path / "base", compress=True)
    name = fake.load(tmp_path / "base")
    store = new_store()
    with default_images(store, write=False) as images:
        assert [layer.descriptor.size for layer in images.resolve(name).layers] == [-1, -1]
    assert not list(store.backend.list(""))
    with default_images(store) as images:
        layers = images.resolve(name).layers
        assert all(store.blobs.intact(layer.descriptor) for layer in layers)
    for layer in layers:
        store.backend.delete(store.blobs.name(layer.descriptor.digest))
    with default_images(store) as images:
        assert images.resolve(name).layers == layers
        assert not any(store.blobs.has(layer.descriptor) for layer in layers)
        assert images.fetch(layers[0])
    assert store.blobs.intact(layers[0].descriptor)


@needs("docker-registry", "openssl")
def test_certificates_are_verified(tmp_path: Path) -> None:
    """TLS is spoken where the registry does, and trusted when the certificate verifies, or when
    the host was named insecure."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
    )
    with docker_registry(tmp_path / "registry", certificate=(certificate, key)) as host:
        store = new_store()
        trusting = Registry(Transport(Credentials(()), insecure=[host]))
        with Images(store.blobs, sizes=store.derived, finders=(trusting,)) as images:
            image = build(store, images, tars=[OWN], names=[f"{host}/app:1"])
            export(
                image,
                parse_output("type=registry"),
                content=store.blobs,
                fetch=images.ensure,
                registry=trusting,
            )
            assert images.resolve(f"{host}/app:1").state.depth == 1
        with images_of(new_store()) as images, pytest.raises(SourceError, match=r"certs\.d"):
            images.resolve(f"{host}/app:1")
        other = evolve(image, names=(f"{host}/app:2",))
        with pytest.raises(SourceError):
            export(other, parse_output("type=registry"), content=store.blobs, fetch=images.ensure)
        spec = parse_output("type=registry,registry.insecure=true")
        export(other, spec, content=store.blobs, fetch=images.ensure)
        place = tmp_path / "certs.d" / host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(certificate.read_bytes())
        hosts = RegistryHosts(directories=[str(tmp_path / "certs.d")])
        known = Registry(Transport(Credentials(()), hosts=hosts))
        with Images(new_store().blobs, finders=(known,)) as images:
            assert images.resolve(f"{host}/app:2").state.depth == 1
        (place / "ca.crt").write_text("no certificate")
        broken = Registry(Transport(Credentials(()), hosts=hosts))
        with (
            Images(new_store().blobs, finders=(broken,)) as images,
            pytest.raises(SourceError) as caught,
        ):
            images.resolve(f"{host}/app:2")
        assert str(place / "ca.crt") in str(caught.value)


def test_resolving_reads_no_layer(tmp_path: Path, fake: FakeRegistry) -> None:
    """Manifest and configuration are enough; a second build asks for the tag's digest only."""
    base_layout(tmp_path / "base")
    name = fake.load(tmp_path / "base")
    store = new_store()
    for requests in (["HEAD", "GET", "GET"], ["HEAD"]):
        fake.requests.clear()
        with images_of(store) as images:
            images.resolve(name)
            images.resolve(name)
        assert [r.method for r in fake.requests if r.path != "/v2/"] == requests


def test_broken_transfer_is_resumed(tmp_path: Path, fake: FakeRegistry) -> None:
    """A connection that breaks within a layer is taken up where it broke."""
    noise = hashlib.shake_256(b"noise").digest(300_000)
    made = make_layout(tmp_path / "l", [tar_of({"noise": noise})], {}, "1")
    name = fake.load(tmp_path / "l")
    blob = fake.blobs[made.diff_ids[0]]

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if not handler.path.endswith(made.diff_ids[0]) or len(seen := ranges()) > 3:
            return False
        start = int(seen[-1].removeprefix("bytes=").partition("-")[0]) if seen[-1] else 0
        handler.send_response(206 if seen[-1] else 200)
        handler.send_header("Content-Length", str(len(blob) - start))
        if seen[-1]:
            handler.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        handler.end_headers()
        handler.wfile.write(blob[start : start + 50_000])
        handler.wfile.flush()
        handler.connection.close()
        return True

    def ranges() -> list[str]:
        return [r.range or "" for r in fake.requests if r.path.endswith(made.diff_ids[0])]

    fake.answer = answer
    with images_of(new_store()) as images:
        layer = images.resolve(name).layers[0]
        assert images.ensure(layer).descriptor.size == len(blob)
    assert len(ranges()) == 4


def test_busy_registry_is_asked_again(tmp_path: Path, fake: FakeRegistry) -> None:
    """429 and 5xx are tried again, within bounds; then the error says what was answered."""
    base_layout(tmp_path / "base")
    name = fake.load(tmp_path / "base")
    left = [2]

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if handler.path == "/v2/" or not left[0]:
            return False
        left[0] -= 1
        send(handler, 503 if left[0] % 2 else 429, b"busy", {"Retry-After": "0"})
        return True

    fake.answer = answer
    with images_of(new_store()) as images:
        images.resolve(name)
    left[0] = 100
    with images_of(new_store()) as images, pytest.raises(SourceError, match="status"):
        images.resolve(name)


def test_token_authorization(tmp_path: Path, fake: FakeRegistry) -> None:
    """A Bearer challenge is answered with a token for this repository, got with the login."""
    base_layout(tmp_path / "base")
    name = fake.load(tmp_path / "base")
    auth = login(tmp_path / "auth.json", fake.host)
    asked = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if handler.path.startswith("/token"):
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
            asked.append((query["service"], query["scope"], handler.headers["Authorization"]))
            send(handler, 200, b'{"token": "t0ken"}')
            return True
        if handler.headers.get("Authorization") != "Bearer t0ken":
            challenge = (
                f'Bearer realm="http://{fake.host}/token",service="fake",'
                'scope="repository:app:pull"'
            )
            send(handler, 401, b"", {"WWW-Authenticate": challenge})
            return True
        return False

    fake.answer = answer
    with images_of(new_store(), auth) as images:
        found = images.resolve(name)
        for layer in found.layers:
            images.ensure(layer)
    basic = "Basic " + base64.b64encode(b"user:s3cret").decode()
    assert asked == [(["fake"], ["repository:app:pull"], basic)]


def test_redirect_takes_no_authorization_along(tmp_path: Path, fake: FakeRegistry) -> None:
    """A blob behind a redirect to another host is read without the registry's token."""
    base_layout(tmp_path / "base")
    auth = login(tmp_path / "auth.json", fake.host)
    name = fake.load(tmp_path / "base")
    with fake_registry() as storage:
        storage.load(tmp_path / "base")

        def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
            if not handler.headers.get("Authorization"):
                send(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                return True
            if "/blobs/" not in handler.path:
                return False
            location = f"http://{storage.host}{handler.path}?signature=x"
            send(handler, 307, b"", {"Location": location})
            return True

        fake.answer = answer
        with images_of(new_store(), auth) as images:
            found = images.resolve(name)
            for layer in found.layers:
                images.ensure(layer)
        assert storage.requests
        assert not [r for r in storage.requests if r.authorization is not None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//", ""])
def test_redirect_elsewhere_is_refused(tmp_path: Path, fake: FakeRegistry, target: str) -> None:
    """A redirect leads to http or https, and does not go on for ever."""
    base_layout(tmp_path / "base")
    name = fake.load(tmp_path / "base")

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if "/blobs/" in handler.path:
            send(handler, 302, b"", {"Location": target})
            return True
        return False

    fake.answer = answer
    with images_of(new_store()) as images, pytest.raises(SourceError, match="redirects"):
        images.resolve(name)


@pytest.mark.parametrize(
    "realm", ["ftp://x/token", "http://user:pw@127.0.0.1/token", "file:///etc/passwd", ""]
)
def test_tokens_come_from_safe_places(tmp_path: Path, fake: FakeRegistry, realm: str) -> None:
    """Credentials are not sent to whatever address a challenge names."""
    auth = login(tmp_path / "auth.json", fake.host)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        send(handler, 401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
        return True

    fake.answer = answer
    with images_of(new_store(), auth) as images, pytest.raises(SourceError) as caught:
        images.resolve(f"{fake.host}/app:1")
    assert "s3cret" not in str(caught.value)


def test_manifest_that_lies_is_refused(tmp_path: Path, fake: FakeRegistry) -> None:
    """A pinned manifest is its digest; a manifest of another digest is refused, so is a layer."""
    made = make_layout(tmp_path / "l", [OWN], {}, "1")
    name = fake.load(tmp_path / "l")
    media_type, data = fake.manifests["app/1"]
    fake.manifests[f"app/{made.manifest}"] = (media_type, data + b" ")
    with images_of(new_store()) as images, pytest.raises(HostileArchive, match="digest"):
        images.resolve(f"{fake.host}/app@{made.manifest}")
    fake.blobs[made.diff_ids[0]] = b"x" * len(OWN)
    store = new_store()
    with images_of(store) as images:
        layer = images.resolve(name).layers[0]
        with pytest.raises(HostileArchive, match="digest"):
            images.ensure(layer)
    assert not store.blobs.has(layer.descriptor)


def test_endless_manifest_is_cut(fake: FakeRegistry) -> None:
    """A manifest is read up to its bound, whatever the registry sends."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        send(handler, 200, b" " * (5 << 20), {"Content-Type": "application/json"})
        return True

    fake.answer = answer
    with images_of(new_store()) as images, pytest.raises(HostileArchive, match="longer than"):
        images.resolve(f"{fake.host}/app:1")


def test_no_registry_is_spoken_to_in_the_clear() -> None:
    """Plain http is for this machine, or when the host was named insecure."""
    with images_of(new_store(), attempts=1) as images, pytest.raises(SourceError, match="https"):
        images.resolve("registry.invalid/app:1")


def test_credential_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers and stores are asked as Docker does; what they say is never in an error."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread server\ncase $server in\n"
        'good.example) echo \'{"Username": "u", "Secret": "s3cret"}\';;\n'
        'token.example) echo \'{"Username": "<token>", "Secret": "t"}\';;\n'
        "bad.example) echo s3cret; exit 1;;\n"
        "*) echo credentials not found in native keychain; exit 1;;\nesac\n"
    )
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    config = tmp_path / "config.json"
    hosts = ["good.example", "token.example", "bad.example", "none.example"]
    config.write_text(json.dumps({"credHelpers": dict.fromkeys(hosts, "test")}))
    credentials = Credentials((str(config),))
    good = credentials.get("good.example")
    assert good is not None
    assert (good.user, good.secret, good.identity) == ("u", "s3cret", False)
    assert "s3cret" not in repr(good)
    token = credentials.get("token.example")
    assert token is not None
    assert token.identity
    assert credentials.get("none.example") is None
    with pytest.raises(SourceError) as caught:
        credentials.get("bad.example")
    assert "s3cret" not in str(caught.value)
    config.write_text(json.dumps({"credsStore": "test"}))
    assert Credentials((str(config),)).get("good.example") == good
    assert Credentials((str(config),)).get("none.example") is None
    config.write_text(json.dumps({"credsStore": "../../evil"}))
    with pytest.raises(ValueError, match="not a name"):
        Credentials((str(config),)).get("x.example")


def test_stored_credentials(tmp_path: Path) -> None:
    """Files of docker and podman: by host, by repository, for Docker Hub; damage is an error."""
    config = tmp_path / "config.json"

    def auth(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    config.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": auth("hub:1"),
                    "r.example/team": auth("team:2"),
                    "r.example": auth("all:3"),
                    "broken.example": {"auth": "%%%"},
                    "id.example": {"identitytoken": "tok"},
                }
            }
        )
    )
    credentials = Credentials((str(tmp_path / "absent"), str(config)))

    def user(host: str, path: str = "x") -> str | None:
        found = credentials.get(host, path)
        return found.user if found else None

    assert user("docker.io") == "hub"
    assert user("r.example", "team/app") == "team"
    assert user("r.example", "other/app") == "all"
    assert user("else.example") is None
    assert user("id.example") == "<token>"
    with pytest.raises(SourceError, match="damaged"):
        user("broken.example")
    config.write_text("{not json s3cret")
    with pytest.raises(SourceError) as caught:
        Credentials((str(config),)).get("x")
    assert "s3cret" not in str(caught.value)


def test_a_tag_of_the_cache_goes_before_a_registry(tmp_path: Path, fake: FakeRegistry) -> None:
    """FROM finds what -t wrote; with pull the registry is asked first."""
    from layercache.images.tags import tag_image

    base_layout(tmp_path / "base")
    name = fake.load(tmp_path / "base")
    store = new_store()
    with default_images(store) as images:
        mine = build(store, images, tars=[OWN], names=[name, "only/here"])
        tag_image(store, mine, images.ensure)
    with default_images(store) as images:
        assert images.resolve(name).state.depth == 1
    assert not fake.requests
    with default_images(store, pull=True) as images:
        assert images.resolve(name).state.depth == 2
