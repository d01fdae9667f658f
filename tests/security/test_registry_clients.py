"""A hostile registry gets no password that is not its own, and neither time nor memory."""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import time
import tracemalloc
from pathlib import Path

import pytest

from layercache.errors import HostileArchive, LayerCacheError, SourceError, UsageError
from layercache.http.client import masked, parse_address, words
from layercache.http.headers import challenges, content_range, media_type, next_link, retry_after
from layercache.images.registry import Registry
from layercache.oci.credentials import Credentials
from layercache.oci.manifests import Manifest, decode
from layercache.oci.platforms import Platform
from layercache.oci.transport import Transport

from .servers import raw_server, reply

PLATFORM = Platform.parse("linux/amd64")
PASSWORD = "the-password"


def credentials(place: Path, *hosts: str) -> Credentials:
    """A configuration of docker with one password for each of `hosts`."""
    auth = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    file = place / "config.json"
    file.write_text(json.dumps({"auths": {host: {"auth": auth} for host in hosts}}))
    return Credentials((str(file),))


def get(transport: Transport, host: str) -> int:
    with transport.request("GET", host, "app/manifests/1", repository="app") as answer:
        return answer.status


def transport_of(found: Credentials | None = None, timeout: float = 1.0) -> Transport:
    return Transport(found or Credentials(()), timeout=timeout, attempts=2)


# -- passwords ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_a_challenge_of_another_host_gets_no_password(tmp_path: Path, kind: str) -> None:
    """A registry redirects, and the place it leads to asks for a login: nothing is sent."""
    with raw_server(reply(200, {}, b'{"token": "t"}')) as thief:
        challenge = f'Bearer realm="{thief.url}/token"' if kind == "bearer" else "Basic realm=x"
        with raw_server(reply(401, {"WWW-Authenticate": challenge})) as storage:
            location = {"Location": f"{storage.url}/blob"}
            with raw_server(reply(307, location)) as registry:
                transport = transport_of(credentials(tmp_path, registry.host, storage.host))
                with pytest.raises(SourceError, match="credentials are for the registry"):
                    get(transport, registry.host)
        assert thief.requests == []
        assert registry.authorizations + storage.authorizations == []


def test_authorization_stays_at_the_host_that_was_asked(tmp_path: Path) -> None:
    """The registry that was asked gets the password, the place it redirects to does not; also
    where that one redirects back."""
    with raw_server(reply(200, {}, b"{}")) as storage:

        def answer(connection: socket.socket, head: bytes) -> None:
            if b"Authorization" not in head:
                connection.sendall(reply(401, {"WWW-Authenticate": "Basic realm=x"}))
            else:
                connection.sendall(reply(302, {"Location": f"{storage.url}/b"}))

        with raw_server(answer) as registry:
            assert get(transport_of(credentials(tmp_path, registry.host)), registry.host) == 200
        assert len(registry.authorizations) == 1
        assert storage.authorizations == []


def test_an_unverified_registry_sends_no_password_elsewhere(tmp_path: Path) -> None:
    """Over plain HTTP anybody may have written the challenge: its realm is at the same host."""
    with raw_server(reply(200, {}, b'{"token": "t"}'), host="127.0.0.2") as thief:
        challenge = {"WWW-Authenticate": f'Bearer realm="{thief.url}/token"'}
        with (
            raw_server(reply(401, challenge)) as registry,
            pytest.raises(SourceError, match="without a certificate that was verified"),
        ):
            get(transport_of(credentials(tmp_path, registry.host)), registry.host)
        assert thief.requests == []


def test_a_login_is_redirected_nowhere(tmp_path: Path) -> None:
    """An identity token is in the body: a redirect of the request for a token ends it."""
    file = tmp_path / "config.json"
    with raw_server(reply(200, {}, b'{"token": "t"}')) as thief:

        def answer(connection: socket.socket, head: bytes) -> None:
            if head.startswith(b"POST"):
                connection.sendall(reply(307, {"Location": f"{thief.url}/t"}))
            else:
                realm = f'Bearer realm="http://{connection.getsockname()[0]}:{port[0]}/t"'
                connection.sendall(reply(401, {"WWW-Authenticate": realm}))

        port: list[int] = []
        with raw_server(answer) as registry:
            port.append(registry.port)
            file.write_text(json.dumps({"auths": {registry.host: {"identitytoken": PASSWORD}}}))
            with pytest.raises(SourceError, match="redirects a login"):
                get(transport_of(Credentials((str(file),))), registry.host)
            assert any(head.startswith(b"POST") for head in registry.requests)
        assert thief.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/hostname",
        "FILE:/etc/hostname",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "unix:///run/x",
        "http://user:password@127.0.0.1/x",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://127.0.0.1:0/",
        "http:///x",
        "http://a b/",
        "http://\x01/",
        "//",
        "http://" + "a" * 300 + "/",
        "http://127.0.0.1/" + "a" * 9000,
        "gopher://127.0.0.1/",
    ],
)
def test_places_that_no_redirect_leads_to(location: str) -> None:
    """Only http and https with a host are followed; anything else is an error of ours."""
    with raw_server(reply(302, {"Location": location})) as registry:
        with pytest.raises(SourceError) as caught:
            get(transport_of(), registry.host)
        assert "password" not in str(caught.value)


def test_redirects_end(tmp_path: Path) -> None:
    """A loop of redirects, and one that grows."""
    with raw_server(reply(302, {"Location": "/again"})) as registry:
        with pytest.raises(SourceError, match="redirects more than"):
            get(transport_of(), registry.host)
        assert len(registry.requests) < 10


# -- headers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (['Bearer realm="https://a/t",service="s",scope="x:y,z"'],
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "x:y,z"})]),
        (["Bearer realm=https://a/t?x=1, service=s"],
         [("bearer", {"realm": "https://a/t?x=1", "service": "s"})]),
        (['Basic realm="a, Bearer realm=b", Bearer realm="c"'],
         [("basic", {"realm": "a, Bearer realm=b"}), ("bearer", {"realm": "c"})]),
        (["Negotiate", 'Basic realm="q\\"q"'], [("negotiate", {}), ("basic", {"realm": 'q"q'})]),
        (["Negotiate, Basic realm = x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (['Bearer realm="open'], [("bearer", {"realm": "open"})]),
        (["", ",,", "\x00"], []),
    ],
)  # fmt: skip
def test_challenges(values: list[str], wanted: list[tuple[str, dict[str, str]]]) -> None:
    """Several challenges in one header or more, quoted or not."""
    assert [(c.scheme, dict(c.parameters)) for c in challenges(values)] == wanted


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, 'a="' * 300_000, "a=\\" * 300_000, '"' * 10**6, ", " * 500_000, "Bearer " * 10**5,
     "<" * 10**6, "<a>;" * 200_000, "bytes " + "1" * 10**6, "a =" * 300_000],
)  # fmt: skip
def test_headers_are_read_in_linear_time(text: str) -> None:
    """No value of a header holds the interpreter."""
    began = time.process_time()
    challenges([text] * 20)
    next_link(text)
    content_range(text)
    retry_after(text)
    media_type(text)
    assert time.process_time() - began < 2


def test_values_of_headers() -> None:
    """What well-formed headers tell."""
    assert next_link('</v2/x?n=1>; rel="next"') == "/v2/x?n=1"
    assert next_link('</a>; rel="prev", </b>; rel=next') == "/b"
    assert next_link("") is next_link(None) is next_link('</a>; rel="prev"') is None
    assert content_range("bytes 5-9/10") == 5
    assert content_range("bytes x-9/10") is content_range(None) is None
    assert retry_after(" 3 ") == 3.0
    assert retry_after("-3") is retry_after("1e9") is retry_after("\u0663") is None
    assert media_type("text/html; charset=x") == "text/html"


def test_a_challenge_that_took_minutes() -> None:
    """A registry's challenge of the largest size is answered for in a moment."""
    value = 'Bearer a="' + "\\" * 60_000
    with raw_server(reply(401, {"WWW-Authenticate": value})) as registry:
        began = time.process_time()
        with pytest.raises(SourceError):
            get(transport_of(), registry.host)
        assert time.process_time() - began < 2


# -- time and memory ------------------------------------------------------------------------


def drip(data: bytes, repeat: bytes, pause: float = 0.05):
    """Answers with `data` and then `repeat` for ever."""

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(data)
        while True:
            connection.sendall(repeat)
            if pause:
                time.sleep(pause)

    return answer


@pytest.mark.parametrize(
    ("data", "repeat", "pause"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", 0.0),
        (b"HTTP/1.1 200 OK\r\nx: ", b"a", 0.05),
        (b"HTTP/1.1 200 OK\r\nx: ", b"a" * 4096, 0.0),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a", 0.05),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"a", 0.05),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 0.05),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n", 0.0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 3000, 0.0),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"[" * 65536, 0.0),
    ],
)
def test_a_slow_or_endless_answer_ends(data: bytes, repeat: bytes, pause: float) -> None:
    """A byte at a time, interim answers for ever, endless heads and bodies."""
    with raw_server(drip(data, repeat, pause)) as server:
        registry = Registry(Transport(Credentials(()), timeout=0.3, attempts=1))
        began = time.monotonic()
        with pytest.raises(SourceError):
            registry.find(f"{server.host}/app:1", PLATFORM)
        assert time.monotonic() - began < 8


def test_a_server_that_wants_us_to_wait() -> None:
    """`Retry-After` beyond the patience for a request is no pause at all."""
    with raw_server(reply(503, {"Retry-After": "99999"})) as server:
        began = time.monotonic()
        with pytest.raises(SourceError, match="status 503"):
            get(transport_of(timeout=0.5), server.host)
        assert time.monotonic() - began < 3


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [b"-1\r\n", b"-5\r\nabcde\r\n", b"zz\r\n", b"0x5\r\nabcde\r\n", b"1_0\r\n", b"\r\n", b"",
     b"5\r\nabc", b"5\r\nabcdeXX5\r\n", b"f" * 40 + b"\r\n", b"5\r\nabcde\r\n"],
)  # fmt: skip
def test_damaged_chunks(body: bytes) -> None:
    """A body that is no body is an error of ours, and holds no memory."""
    with raw_server(CHUNKED + body) as server:
        registry = Registry(Transport(Credentials(()), timeout=0.5, attempts=1))
        with pytest.raises(SourceError):
            registry.find(f"{server.host}/app:1", PLATFORM)


def test_chunks_are_put_together() -> None:
    """Sizes in any hexadecimal, extensions and trailers."""
    data = b"A;x=y\r\n0123456789\r\n1\r\n!\r\n0\r\nt: u\r\n\r\n"
    with (
        raw_server(CHUNKED + data) as server,
        transport_of().request("GET", server.host, "x", repository="x") as answer,
    ):
        assert answer.body.read() == b"0123456789!"


# -- what it sends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + b"0," * 1_000_000 + b"0]",
        b'{"layers": [' + b"{}," * 20_000 + b"{}]}",
        b'{"layers": 5, "config": {}}',
        b'{"layers": {"a": 1}}',
        b'{"config": {"mediaType": 1, "digest": [], "size": {}}}',
        b'{"config": {"mediaType": "x", "digest": "sha256:..", "size": 1e400}}',
        b"9" * 100_000,
        b"\xff\xfe{\x00}\x00",
        b"null", b"true", b'"text"', b"",
    ],
)  # fmt: skip
def test_manifests_that_are_none(data: bytes) -> None:
    """Deep, wide, of wrong types: refused, in bounded memory."""
    tracemalloc.start()
    try:
        with pytest.raises(HostileArchive):
            Manifest.from_json(data, what="a manifest")
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_lone_surrogates_become_text() -> None:
    """What JSON can say and UTF-8 can't is replaced, and so can be shown and written."""
    value = decode(b'{"a": "\\ud800x", "\\udfff": ["\\ud83d\\ude00"]}', what="it")
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    assert value["a"].endswith("x")
    assert "\N{GRINNING FACE}" in text


def test_a_registry_s_words_are_shown_as_one_line() -> None:
    """No escape sequence of an answer reaches a terminal."""
    body = b"\x1b]0;owned\x07\x1b[2J\r\nno\x9b5m\xe2\x80\xaesuch"
    with raw_server(reply(418, {}, body)) as server:
        registry = Registry(transport_of())
        with pytest.raises(SourceError) as caught:
            registry.find(f"{server.host}/app:1", PLATFORM)
    assert re.search("418.*it says", str(caught.value))
    assert str(caught.value).isprintable()
    assert words(body).isprintable()


def test_urls_are_shown_without_what_is_secret() -> None:
    """Neither a password nor a signature in the query, nor anything that moves a cursor."""
    assert masked("https://u:p@host/a?sig=x#f") == "https://host/a"
    assert masked("https://a@b@host/a") == "https://host/a"
    assert "\x1b" not in masked("https://h/\x1b[2J")
    for text in ("https://u:p@h/", "https://u@h/", "https://:p@h/"):
        with pytest.raises(UsageError) as caught:
            parse_address(text)
        assert "p@" not in str(caught.value)


# -- anything at all ------------------------------------------------------------------------

PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 302 Found\r\n", b"HTTP/1.1 401 X\r\n", b"HTTP/9.9 999 \r\n",
    b"HTTP/1.1 206 P\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 429 X\r\n", b"\r\n",
    b"\r\n\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: \xb2\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Encoding: gzip\r\n",
    b"Location: \r\n", b"Location: //\r\n", b"Location: http://[\r\n", b"Location: /v2/\xff\r\n",
    b"Location: file:/etc/hostname\r\n", b"Location: ?\r\n", b"Docker-Content-Digest: sha256:\r\n",
    b"Docker-Content-Digest: sha256:" + b"0" * 64 + b"\r\n", b"WWW-Authenticate: Bearer realm=\r\n",
    b'WWW-Authenticate: Bearer realm="http://[\r\n', b"WWW-Authenticate: Basic\r\n",
    b"Retry-After: 0\r\n", b"Retry-After: \xd9\xa3\r\n", b"Content-Type: \x00\r\n",
    b": \r\n", b" folded\r\n", b"\x00", b"\xff" * 50, b"x" * 70_000, b"{}", b"5\r\n", b"0\r\n\r\n",
    b'{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json"}]}',
    b'{"schemaVersion": 1}', b'{"config": null, "layers": [[]]}', b'{"mediaType": [1]}',
]  # fmt: skip


def junk(random_: random.Random) -> bytes:
    """An answer made of pieces of answers."""
    parts = [random_.choice(PIECES) for _ in range(random_.randrange(12))]
    if random_.random() < 0.7:
        parts.insert(0, PIECES[random_.randrange(5)])
    data = bytearray(b"".join(parts))
    if data and random_.random() < 0.3:
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data)


def any_answers(seed: int, count: int) -> None:
    """Every answer of a server gives an image, none, or an error of ours; soon."""
    random_ = random.Random(seed)

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(junk(random_))

    with raw_server(answer) as server:
        for _ in range(count):
            transport = Transport(Credentials(()), timeout=0.2, attempts=1)
            # Whether TLS is spoken is asked first; junk says that it isn't.
            began = time.monotonic()
            said = ""
            try:
                found = Registry(transport).find(f"{server.host}/app:1", PLATFORM)
                if found is not None:
                    found[1].open(found[0].manifest.config).read()
            except LayerCacheError as error:
                said = str(error)
            assert not said or said.replace("\n", "").isprintable()
            assert time.monotonic() - began < 10


def test_any_answer_is_survived() -> None:
    any_answers(seed=11, count=150)


@pytest.mark.soak
def test_any_answer_is_survived_long() -> None:
    any_answers(seed=random.randrange(1 << 32), count=20_000)
