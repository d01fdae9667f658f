"""One HTTP request at a time, to a server that may be hostile.

Python's own client, with added limits: the whole head of a response is bounded in bytes and in
time, a body has a minimum rate, only http and https are opened, no redirect is followed, and
every fault of a server is an `OSError` or an `HTTPException`.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from email.message import Message
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache._base.classes import frozen
from layercache._base.urls import masked
from layercache.errors import ConnectionBroken, UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Address", "Response", "masked", "parse_address", "reason", "send", "words"]

_LONGEST_URL: Final = 8 << 10
_HEAD: Final = 64 << 10
"""The maximum size of a response head in bytes, including interim responses."""
_LINE: Final = 4 << 10
_FRAMES: Final = 64 << 10
"""Bytes of lines around chunks, beyond what small chunks need."""
_RATE: Final = 1024
"""The minimum rate of a body in bytes per second, after its first minute."""
_SAFE: Final = "!#$%&'()*+,/:;=?@[]~"
_PLACE: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


@frozen
class Address:
    """A parsed URL: http or https, a host, no user information."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """The parts that are equal for two URLs of one server."""
        return self.scheme, self.host, self.port

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return is_local(self.host)


def is_local(host: str) -> bool:
    """Whether a host (without port and brackets) is this machine, by name or number."""
    return host in ("localhost", "::1") or bool(
        re.fullmatch(r"127(?:\.\d{1,3}){3}", host, re.ASCII)
    )


def parse_address(text: str) -> Address:
    """Parse the address `text`; raises `UsageError`, which shows neither password nor query."""
    if len(text) > _LONGEST_URL:
        raise UsageError(f"a URL of {len(text)} characters (at most {_LONGEST_URL})")
    try:
        text.encode("utf-8")
        # Servers send non-ASCII letters in `Location`; they are percent-encoded in requests.
        parts = urllib.parse.urlsplit(urllib.parse.quote(text, safe=_SAFE))
        host, port = parts.hostname, parts.port
        host = host and urllib.parse.unquote(host)
    except ValueError:
        raise UsageError(f"not a URL: {masked(text)!r}") from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise UsageError(f"only http and https are opened, not {scheme[:20]!r}")
    if parts.username is not None or parts.password is not None:
        raise UsageError("a URL can't hold user information")
    if not host or port == 0 or len(host) > 255 or not re.fullmatch(_PLACE, parts.netloc, re.ASCII):
        raise UsageError(f"not a URL: {masked(text)!r}")
    url = urllib.parse.urlunsplit((scheme, parts.netloc, parts.path, parts.query, ""))
    return Address(url, scheme, host.lower(), port or (443 if scheme == "https" else 80))


def words(data: bytes, limit: int = 300) -> str:
    """A server's message as one line that is safe to show on a terminal."""
    text = data[: 4 * limit].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:limit]


class _Timed(io.RawIOBase):
    """The bytes of a socket, until a deadline; at first no more bytes than a head may have."""

    def __init__(self, source: io.RawIOBase, sock: socket.socket, silence: float) -> None:
        self._source = source
        self._sock = sock
        self._silence = silence
        self._started = time.monotonic()
        self._left: int | None = _HEAD
        self._passed = 0
        """Bytes of body that came: they lengthen the time."""

    def readable(self) -> bool:
        return True

    def head_is_read(self) -> None:
        self._left = None
        self._started = time.monotonic()

    def passed(self, count: int) -> None:
        self._passed += count

    @property
    def allowance(self) -> int:
        """The bytes permitted so far for the framing of chunks."""
        return _FRAMES + 16 * self._passed

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        allowed = 2 * self._silence + self._passed / _RATE
        left = self._started + allowed - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"too slow: not done after {allowed:.0f} s")
        if self._left is not None:
            if not self._left:
                raise http.client.HTTPException(f"the head has more than {_HEAD} bytes")
            view = view[: self._left]
        self._sock.settimeout(min(self._silence, left))
        count = self._source.readinto(view) or 0
        if self._left is not None:
            self._left -= count
        return int(count)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """The client's response, which reads through `_Timed`."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        silence = sock.gettimeout()
        assert silence is not None
        self.timed = _Timed(self.fp.detach(), sock, silence)
        self.fp: Any = io.BufferedReader(self.timed, 1 << 16)

    def begin(self) -> None:
        super().begin()
        self.timed.head_is_read()


class _Body(io.RawIOBase):
    """The body of a response: chunks joined, its length checked, its rate monitored.

    Raises `ConnectionBroken` if it is cut off or malformed.
    """

    def __init__(self, answer: _Answer, shown: str) -> None:
        self._answer = answer
        self._stream: Any = answer.fp  # None where an answer has no body
        self._shown = shown
        self._chunked = bool(answer.chunked)
        self._left: int | None = None if self._chunked else answer.length
        self._in_chunk = False
        self._waste = 0
        self._done = self._stream is None or self._left == 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if self._done or not len(view):
            return 0
        try:
            return self._read(view)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, ConnectionBroken):
                raise
            raise ConnectionBroken(f"{self._shown}: {reason(error)}") from error

    def _read(self, view: memoryview) -> int:
        if self._chunked and not self._left:
            self._next_chunk()
            if self._done:
                return 0
        room = len(view) if self._left is None else min(len(view), self._left)
        count = int(self._stream.readinto1(view[:room]))
        if not count:
            if self._left is not None:
                raise http.client.HTTPException("the body breaks off")
            self._done = True
        self._answer.timed.passed(count)
        if self._left is not None:
            self._left -= count
            self._done = not self._left and not self._chunked
        return count

    def _line(self) -> bytes:
        line = cast(bytes, self._stream.readline(_LINE + 1))
        self._waste += len(line)
        if not line.endswith(b"\n") or self._waste > self._answer.timed.allowance:
            raise http.client.HTTPException("a damaged chunk of the body")
        return line.rstrip(b"\r\n")

    def _next_chunk(self) -> None:
        if self._in_chunk and self._line():
            raise http.client.HTTPException("a damaged chunk of the body")
        size = self._line().partition(b";")[0].strip()
        if not size or len(size) > 15 or not _HEX.issuperset(size):
            raise http.client.HTTPException("a damaged chunk of the body")
        self._left = int(size, 16)
        self._in_chunk = True
        if not self._left:
            while self._line():
                pass
            self._done = True

    def close(self) -> None:
        if not self.closed:
            self._answer.close()
        super().close()


class Response:
    """A response: status, headers and a body to be read and closed.

    Reading the body raises `ConnectionBroken` if it is cut off, damaged or too slow.
    """

    def __init__(self, status: int, headers: Message, body: BinaryIO, address: Address) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.address = address

    @property
    def url(self) -> str:
        """The URL that answered."""
        return self.address.url

    @property
    def words(self) -> str:
        """The beginning of the body, as one line that is safe to show; "" if it has none."""
        try:
            return words(self.body.read(2000))
        except OSError:
            return ""

    def close(self) -> None:
        self.body.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def send(
    method: str,
    address: Address,
    headers: Mapping[str, str],
    data: bytes | Iterable[bytes] | None = None,
    *,
    timeout: float,
    context: ssl.SSLContext | None = None,
) -> Response:
    """The response to one request, whatever its status; no redirect is followed.

    `timeout` is seconds of silence; the response head may take twice as long, and a body must not
    arrive slower than 1 KiB a second for longer than that. `context` defines how a certificate is
    checked. Proxies are taken from the environment, never for this machine. Raises `OSError` or
    `http.client.HTTPException`.
    """
    connection, target, more = _connection(address, timeout, context)
    connection.response_class = _Answer
    try:
        sent = {"User-Agent": "layercache", "Connection": "close", **more, **headers}
        answer = _exchange(connection, method, target, data, sent)
    except (ValueError, OverflowError, AssertionError) as error:
        connection.close()
        if isinstance(error, OSError | ssl.CertificateError):
            raise
        raise http.client.HTTPException(f"no HTTP: {type(error).__name__}") from error
    except BaseException:
        connection.close()
        raise
    if connection.sock is not None:
        # Of a server that would keep the connection; it ends with the answer.
        connection.sock.close()
        connection.sock = None
    body = io.BufferedReader(_Body(answer, f"{method} {masked(address.url)}"), 1 << 16)
    return Response(answer.status, answer.headers, cast(BinaryIO, body), address)


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    data: bytes | Iterable[bytes] | None,
    headers: Mapping[str, str],
) -> _Answer:
    """Send a request and read the head of its response.

    A server that refuses a body may answer and close before it has read all of it: its answer
    says more than the connection that broke.
    """
    try:
        connection.request(method, target, body=cast(Any, data), headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        if data is None or connection.sock is None:
            raise
        try:
            return cast(_Answer, connection.getresponse())
        except (OSError, http.client.HTTPException):
            pass
        raise
    return cast(_Answer, connection.getresponse())


def _connection(
    address: Address, timeout: float, context: ssl.SSLContext | None
) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection that is not open yet, the target of the request, and headers for a proxy."""
    parts = urllib.parse.urlsplit(address.url)
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    if path.startswith("//"):
        path = "/." + path  # otherwise it would be parsed as another host
    secure = address.scheme == "https"
    if secure and context is None:
        context = ssl.create_default_context()
    proxy = None
    if not address.local and not urllib.request.proxy_bypass(address.host):
        proxy = urllib.request.getproxies().get(address.scheme)
    if not proxy:
        host, port = address.host, address.port
        if secure:
            return (
                http.client.HTTPSConnection(host, port, timeout=timeout, context=context),
                path,
                {},
            )
        return http.client.HTTPConnection(host, port, timeout=timeout), path, {}
    through = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if through.scheme not in ("http", "https") or not through.hostname:
        raise http.client.HTTPException("the proxy of the environment is not an HTTP proxy")
    login = {}
    if through.username is not None:
        import base64

        pair = f"{through.username}:{through.password or ''}"
        encoded = base64.b64encode(urllib.parse.unquote(pair).encode()).decode()
        login["Proxy-Authorization"] = f"Basic {encoded}"
    place = (through.hostname, through.port or 80)
    if secure:
        tunnel = http.client.HTTPSConnection(*place, timeout=timeout, context=context)
        tunnel.set_tunnel(address.host, address.port, login)
        return tunnel, path, {}
    return http.client.HTTPConnection(*place, timeout=timeout), address.url, login


def reason(error: BaseException) -> str:
    """The cause of a failure, in one line."""
    return words(str(error).encode("utf-8", "replace")) or type(error).__name__
