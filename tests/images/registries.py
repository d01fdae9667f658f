"""Registries for tests: the real docker-registry, and a small one that can be made to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.serving import serving

__all__ = ["FakeRegistry", "Request", "docker_registry", "fake_registry"]

_HTPASSWD = "user:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n"
"""bcrypt of "s3cret"."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def docker_registry(
    directory: Path, *, login: bool = False, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Debian's docker-registry over `directory`; gives host:port. `login`: user, s3cret.

    `certificate` is a file with one and a file with its key: then it speaks TLS only.
    """
    program = shutil.which("docker-registry")
    assert program is not None
    directory.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    auth = ""
    if login:
        (directory / "htpasswd").write_text(_HTPASSWD)
        auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {directory}/htpasswd\n"
    tls = ""
    if certificate is not None:
        tls = f"  tls:\n    certificate: {certificate[0]}\n    key: {certificate[1]}\n"
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n"
        f"    rootdirectory: {directory}/data\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}{auth}"
    )
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@attrs.frozen
class Request:
    """One request that a fake registry got."""

    method: str
    path: str
    authorization: str | None
    range: str | None


class FakeRegistry:
    """Blobs and manifests by path; `answer` may take over any request.

    `answer(handler)` returns True when it answered.
    """

    def __init__(self) -> None:
        self.host = ""
        self.requests: list[Request] = []
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], bool] | None = None

    def load(self, layout: Path, name: str = "app", tag: str = "1") -> str:
        """Serve the first image of an OCI layout; its reference."""
        index = json.loads((layout / "index.json").read_bytes())
        entry = index["manifests"][0]
        for blob in (layout / "blobs/sha256").iterdir():
            self.blobs[f"sha256:{blob.name}"] = blob.read_bytes()
        data = self.blobs[entry["digest"]]
        for key in (tag, entry["digest"]):
            self.manifests[f"{name}/{key}"] = (entry["mediaType"], data)
        return f"{self.host}/{name}:{tag}"


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """A registry in this process, over plain HTTP on this machine."""
    registry = FakeRegistry()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            return

        def do_GET(self) -> None:
            registry.requests.append(
                Request(
                    self.command,
                    self.path,
                    self.headers.get("Authorization"),
                    self.headers.get("Range"),
                )
            )
            if registry.answer is not None and registry.answer(self):
                return
            path = self.path.partition("?")[0]
            name, _, key = path.removeprefix("/v2/").partition("/manifests/")
            if key and (found := registry.manifests.get(f"{name}/{key}")):
                digest = "sha256:" + hashlib.sha256(found[1]).hexdigest()
                send(
                    self, 200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest}
                )
                return
            data = registry.blobs.get(path.rpartition("/")[2])
            if data is None:
                send(self, 404, b"{}")
                return
            if self.headers.get("Range"):
                start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
                total = len(data)
                extent = {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
                send(self, 206, data[start:], extent)
                return
            send(self, 200, data)

        do_HEAD = do_GET

    with serving(Handler) as port:
        registry.host = f"127.0.0.1:{port}"
        yield registry


def send(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> None:
    """Answer a request."""
    handler.send_response(status)
    for key, value in (headers or {}).items():
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
