"""Servers that misbehave at random: a proxy before a real one, and two that only lie."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.security.servers import raw_server

__all__ = ["FAULTS", "hanging", "listening", "lying_http", "lying_redis", "proxy"]

FAULTS = (
    "honest", "closed", "hangs", "noise", "endless", "trickles", "truncated", "flipped",
    "flipped request", "doubled", "status",
)  # fmt: skip
"""What the proxy does to one connection."""

_MOST = 96 << 20
"""Bytes of an answer without end: more than a client may take, and an end for the test."""


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Calls `answer` with each connection, in a thread; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    kept: list[socket.socket] = []

    def one(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.settimeout(20)
            answer(connection)
        with suppress(OSError):
            connection.close()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in kept:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def hanging() -> Iterator[int]:
    """Takes connections and never says anything."""

    def wait(connection: socket.socket) -> None:
        threading.Event().wait(20)

    with listening(wait) as port:
        yield port


@contextmanager
def proxy(upstream: int, seed: int, honest: int = 4) -> Iterator[int]:
    """A proxy before the server at port `upstream` of this machine; gives its port.

    Of a connection something is done that `seed` and its number choose; `honest` is how much
    likelier than each fault it is that nothing is.
    """
    chooser = random.Random(seed)
    guard = threading.Lock()

    def one(client: socket.socket) -> None:
        with guard:
            fault = chooser.choice([*FAULTS, *["honest"] * (honest - 1)])
            rng = random.Random(chooser.random())
        _misbehave(client, upstream, fault, rng)

    with listening(one) as port:
        yield port


def _misbehave(client: socket.socket, upstream: int, fault: str, rng: random.Random) -> None:
    if fault == "closed":
        return
    if fault == "hangs":
        while client.recv(65536):
            pass
        return
    if fault in ("noise", "endless", "status"):
        client.recv(65536)
        if fault == "noise":
            client.sendall(rng.randbytes(rng.randrange(1, 5000)))
        elif fault == "status":
            client.sendall(_some_status(rng))
        else:
            _endless(client, rng)
        return
    with socket.create_connection(("127.0.0.1", upstream), 10) as server:
        at = rng.randrange(0, 6000)
        forward = threading.Thread(
            target=_pump,
            args=(client, server, fault if fault == "flipped request" else "honest", at, rng),
            daemon=True,
        )
        forward.start()
        _pump(server, client, "honest" if fault == "flipped request" else fault, at, rng)


def _pump(
    source: socket.socket, target: socket.socket, fault: str, at: int, rng: random.Random
) -> None:
    """Bytes from one side to the other; at that offset something happens to them."""
    seen = 0
    with suppress(OSError):
        while data := source.recv(65536):
            inside = seen <= at < seen + len(data)
            if inside and fault.startswith("flipped"):
                changed = bytearray(data)
                changed[at - seen] ^= 1 << rng.randrange(8)
                data = bytes(changed)
            elif inside and fault == "doubled":
                data += data
            elif inside and fault == "truncated":
                target.sendall(data[: at - seen])
                break
            if fault == "trickles":
                for byte in data[:40]:
                    target.sendall(bytes([byte]))
                    threading.Event().wait(0.05)
                break
            target.sendall(data)
            seen += len(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _some_status(rng: random.Random) -> bytes:
    status = rng.choice([100, 200, 201, 204, 206, 301, 307, 401, 403, 404, 416, 429, 500, 503])
    extra = rng.choice(
        [
            b"",
            b"Location: file:///etc/hostname\r\n",
            b"Location: /again\r\n",
            b'WWW-Authenticate: Bearer realm="http://127.0.0.1:1/token"\r\n',
            b"WWW-Authenticate: " + b"a" * 5000 + b"\r\n",
            b"Retry-After: 1000000\r\n",
            b"Content-Encoding: gzip\r\n",
            b"Content-Range: bytes 5-1/0\r\n",
            b"Content-Type: application/xml\r\n",
        ]
    )
    body = rng.choice([b"", b"{}", b"[" * 3000, b"<a>" * 3000, b'{"a":1e999}', rng.randbytes(300)])
    length = rng.choice([len(body), len(body) + 5, 0, 1 << 40])
    head = b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n" % (status, length)
    return head + extra + b"\r\n" + body


def _endless(client: socket.socket, rng: random.Random) -> None:
    start, piece = rng.choice(
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n", bytes(1 << 16)),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"10000\r\n" + bytes(1 << 16) + b"\r\n",
            ),
            (b"HTTP/1.1 200 OK\r\nX: ", b"x" * (1 << 16)),
            (b"$1099511627776\r\n", bytes(1 << 16)),
            (b"*1000000000\r\n", b"$3\r\nabc\r\n" * 1000),
            (b"+", b"x" * (1 << 16)),
        ]
    )
    client.sendall(start)
    for _ in range(_MOST // len(piece)):
        client.sendall(piece)


@contextmanager
def lying_http(seed: int) -> Iterator[int]:
    """An HTTP server that says anything, and remembers nothing."""
    rng = random.Random(seed)

    def answer(connection: socket.socket, _: bytes) -> None:
        kind = rng.randrange(8)
        if kind == 0:
            _endless(connection, rng)
        elif kind == 1:
            connection.sendall(rng.randbytes(rng.randrange(2000)))
        else:
            connection.sendall(_some_status(rng))

    with raw_server(answer) as server:
        yield server.port


@contextmanager
def lying_redis(seed: int) -> Iterator[int]:
    """Speaks the protocol of Redis, and answers every command with anything."""
    chooser = random.Random(seed)

    def value(rng: random.Random, depth: int = 0) -> bytes:
        kind = rng.randrange(9 if depth < 3 else 6)
        if kind == 0:
            return b":%d\r\n" % rng.choice([0, -1, 1 << 40, 10**400])
        if kind == 1:
            return b"+OK\r\n"
        if kind == 2:
            return b"-ERR no\r\n"
        if kind == 3:
            data = rng.randbytes(rng.randrange(400))
            return b"$%d\r\n%s\r\n" % (len(data), data)
        if kind == 4:
            return b"$-1\r\n"
        if kind == 5:
            return rng.choice([b"$1099511627776\r\n", b"$-7\r\n", b"*-1\r\n", b"?\r\n", b"*x\r\n"])
        if kind == 6:
            return b"*1\r\n" * 2000
        parts = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return b"*%d\r\n" % len(parts) + b"".join(parts)

    def answer(connection: socket.socket) -> None:
        rng = random.Random(chooser.random())
        while data := connection.recv(65536):
            if rng.random() < 0.05:
                _endless(connection, rng)
                return
            for _ in range(data.count(b"\r\n*") + 1):  # one for each command sent together
                honest = b"+OK\r\n" if b"HELLO" not in data else b"*0\r\n"
                connection.sendall(honest if rng.random() < 0.4 else value(rng))

    with listening(answer) as port:
        yield port
