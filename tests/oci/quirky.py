"""A small registry that takes pushes, and has the quirks of those that people meet."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs

from tests.serving import serving

__all__ = ["Fault", "QuirkyRegistry", "quirky_registry"]

_Reply = tuple[int, bytes, dict[str, str]]


@attrs.define
class Fault:
    """An answer that takes the place of the right one, `times` times.

    It is for requests with this method whose path contains `path`. `status` 0 resets the
    connection: after the body was read, or with `early` before.
    """

    method: str
    path: str
    status: int
    times: int = 1
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    early: bool = False
    stores: bool = False
    """Whether the request has its effect all the same."""


class QuirkyRegistry:
    """Blobs by repository and digest, manifests by repository and reference, and a log."""

    def __init__(self) -> None:
        self.host = ""
        self.requests: list[str] = []
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.faults: list[Fault] = []
        self.tokens: set[str] | None = None
        """With a set, a token of it is needed; the realm adds to it."""
        self.scopes: list[list[str]] = []
        self.challenge = 'Bearer realm="http://{host}/token",service="quirky"'
        self.stored = 201
        """The status for a stored blob."""
        self.begun = 202
        """The status for an upload that begins."""
        self.sessions: set[str] = set()
        self._uploads = 0
        self._guard = threading.Lock()

    def counted(self, method: str, pattern: str = "") -> int:
        """The requests of a method whose path has this pattern."""
        return sum(
            one.startswith(method + " ") and re.search(pattern, one) is not None
            for one in self.requests
        )

    def fault(self, method: str, path: str) -> Fault | None:
        with self._guard:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def session(self) -> str:
        with self._guard:
            self._uploads += 1
            self.sessions.add(f"upload-{self._uploads}")
            return f"upload-{self._uploads}"


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request; the class of each server names its registry."""

    registry: QuirkyRegistry

    def log_message(self, *args: object) -> None:
        return

    def handle_one(self) -> None:
        registry = self.registry
        registry.requests.append(f"{self.command} {self.path}")
        fault = registry.fault(self.command, self.path)
        body = b""
        if fault is None or not fault.early:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is not None:
            self.fail(fault, body)
        elif self.path.startswith("/token"):
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            registry.scopes.append(query.get("scope", []))
            assert registry.tokens is not None
            token = f"token-{len(registry.scopes)}"
            registry.tokens.add(token)
            self.reply(200, json.dumps({"token": token}).encode())
        elif not self.authorized():
            challenge = registry.challenge.format(host=registry.host)
            said = {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}
            self.reply(401, json.dumps(said).encode(), {"WWW-Authenticate": challenge})
        else:
            self.reply(*self.effect(body))

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def authorized(self) -> bool:
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.registry.tokens is None or given in self.registry.tokens

    def fail(self, fault: Fault, body: bytes) -> None:
        if fault.stores:
            self.effect(body)
        if not fault.status:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return
        self.reply(fault.status, fault.body, fault.headers)

    def effect(self, body: bytes) -> _Reply:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        found = re.fullmatch(r"/v2/(.+?)/(blobs/uploads|blobs|manifests)/(.*)", url.path)
        if found is None:
            return 404, b"{}", {}
        name, kind, key = found.groups()
        if kind == "manifests":
            return self.manifest(name, key, body)
        blobs = self.registry.blobs.setdefault(name, {})
        if self.command == "POST":
            return self.begin(name, query)
        if self.command == "PUT":
            return self.store(blobs, key, query["digest"], body)
        data = blobs.get(key)
        return (404, b"{}", {}) if data is None else (200, data, {})

    def begin(self, name: str, query: Mapping[str, str]) -> _Reply:
        registry = self.registry
        digest = query.get("mount", "")
        source = registry.blobs.get(query.get("from", ""), {})
        if digest in source:
            registry.blobs[name][digest] = source[digest]
            return 201, b"", {"Location": f"/v2/{name}/blobs/{digest}"}
        place = f"/v2/{name}/blobs/uploads/{registry.session()}?state=a%2Fb"
        return registry.begun, b"", {"Location": place}

    def store(self, blobs: dict[str, bytes], session: str, digest: str, body: bytes) -> _Reply:
        if session not in self.registry.sessions:
            return 404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}', {}
        self.registry.sessions.discard(session)  # whatever comes of it
        if digest != "sha256:" + hashlib.sha256(body).hexdigest():
            return 400, b'{"errors":[{"code":"DIGEST_INVALID"}]}', {}
        blobs[digest] = body
        return self.registry.stored, b"", {}

    def manifest(self, name: str, key: str, body: bytes) -> _Reply:
        manifests = self.registry.manifests.setdefault(name, {})
        if self.command == "PUT":
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            manifests[key] = manifests[digest] = (self.headers.get("Content-Type", ""), body)
            return self.registry.stored, b"", {"Docker-Content-Digest": digest}
        stored = manifests.get(key)
        if stored is None:
            return 404, b"{}", {}
        digest = "sha256:" + hashlib.sha256(stored[1]).hexdigest()
        return 200, stored[1], {"Content-Type": stored[0], "Docker-Content-Digest": digest}

    def reply(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if status != 204 else 0))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)


@contextmanager
def quirky_registry(tls: ssl.SSLContext | None = None) -> Iterator[QuirkyRegistry]:
    """One in this process, on this machine: over plain HTTP, or with `tls`."""
    registry = QuirkyRegistry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    with serving(handler, tls) as port:
        registry.host = f"127.0.0.1:{port}"
        yield registry
