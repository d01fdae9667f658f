"""Real servers on this machine's loopback, started and ended by the tests that need them."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["redis_server", "registry_server", "s3_server"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(
    command: list[str], port: int, directory: Path, ready: Callable[[], bool] | None = None
) -> Iterator[None]:
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        for _ in range(600):
            assert process.poll() is None, (directory / "log").read_text()[-2000:]
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def s3_server(directory: Path) -> Iterator[str]:
    """moto's S3 with one bucket called `cache`; gives its address."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto[server] is not installed: no S3 server to test against")
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port, directory):
        import urllib.request

        url = f"http://127.0.0.1:{port}"
        request = urllib.request.Request(f"{url}/cache", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        yield url


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A Redis that saves nothing; gives its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: no Redis to test against")
    if importlib.util.find_spec("redis") is None:
        pytest.skip("the package redis is not installed")
    port = _free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
    ]
    with _running(command, port, directory):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def registry_server(directory: Path) -> Iterator[str]:
    """Debian's docker-registry with deletion allowed; gives host:port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: no registry to test against")
    port = _free_port()
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: true\n"
        f"  filesystem:\n    rootdirectory: {directory}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
    )
    with _running([program, "serve", str(config)], port, directory):
        yield f"127.0.0.1:{port}"
