"""Servers of this machine that answer whatever bytes a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["RawServer", "raw_server", "reply"]

Answer = Callable[[socket.socket, bytes], None]
"""Writes an answer to the request whose head it is given."""


def reply(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """A well-formed answer, but for what `headers` say."""
    lines = [f"HTTP/1.1 {status} Said"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if not headers or "Content-Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


class RawServer:
    """Answers each connection once; `requests` are the heads that came."""

    def __init__(self, answer: Answer, host: str) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self._socket = socket.create_server((host, 0))
        self.port = self._socket.getsockname()[1]
        self.host = f"{host}:{self.port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                head += data
                if head.startswith(b"\x16"):  # somebody asks whether TLS is spoken here
                    connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")
                    return
            if head:
                self.requests.append(head)
                self.answer(connection, head)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    @property
    def authorizations(self) -> list[bytes]:
        """What came in headers `Authorization`."""
        return [
            line.partition(b":")[2].strip()
            for head in self.requests
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"authorization:")
        ]


@contextmanager
def raw_server(answer: Answer | bytes, host: str = "127.0.0.1") -> Iterator[RawServer]:
    """A server on loopback that answers `answer`, or as it says."""
    if isinstance(answer, bytes):
        data = answer
        server = RawServer(lambda connection, _: connection.sendall(data), host)
    else:
        server = RawServer(answer, host)
    try:
        yield server
    finally:
        server.close()
