"""A password in the URL of a cache, or in its options, is shown nowhere."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from layercache import Store
from layercache._base.urls import masked
from layercache.cli import main
from layercache.errors import LayerCacheError
from layercache.store.backends import open_backend
from layercache.store.open import open_store

URLS = [
    "redis://:hunter2@127.0.0.1:1/0",
    "redis://user:hunter2@127.0.0.1:1/0",
    "rediss://user:hunter2@127.0.0.1:1/0",
    "redis://user:hun@ter2@127.0.0.1:1/0",
    "redis://user:x/hunter2@127.0.0.1:1/0",
    "redis://user:x?hunter2@127.0.0.1:1/0",
    "redis://user:x#hunter2@127.0.0.1:1/0",
    "redis://127.0.0.1:1/0?password=hunter2",
    "redis://127.0.0.1:1/0?username=u&password=hunter2",
    "unix:///nowhere/redis.sock?password=hunter2",
    "unix://user:hunter2@/nowhere/redis.sock",
    "redis://user:hunter2@127.0.0.1:port/0",
    "redis://user:hunter2@127.0.0.1:99999/0",
    "s3://key:hunter2@bucket/prefix",
    "https://user:hunter2@127.0.0.1:1/cache",
    "memory2://x?token=hunter2",
    "obstore+s3://key:hunter2@bucket",
    "registry://user:hunter2@127.0.0.1:1/x",
    "oci://user:hunter2@127.0.0.1:1/x",
    "file://user:hunter2@host/x",
    "type=s3,bucket=b,endpoint_url=http://127.0.0.1:1,secret_access_key=hunter2,hunter2",
    "type=gha,token=hunter2",
    "type=registry,token=hunter2",
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_of_a_cache_is_not_shown(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by `repr`, not in an error or its causes, not in notes, JSON or plain output."""
    shown = []
    try:
        backend = open_backend(url)
        shown.append(repr(backend))
        shown.append(repr(Store(backend)))
        list(backend.list("x/"))
    except LayerCacheError as error:
        shown.append(f"{error!r} {error}")
    try:
        store = open_store(str(tmp_path / "cache"), cache_from=[url], cache_to=[url])
        shown.append(repr(store))
        store.close()
    except LayerCacheError as error:
        shown.append(f"{error!r} {error}")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    cache = str(tmp_path / "cache")
    for options in (["--json"], ["--progress", "plain"], ["--progress", "json"]):
        main(["build", "--cache", cache, "--cache-from", url, "--cache-to", url, *options,
              str(context)])  # fmt: skip
        main(["cache", "du", "--cache", url, *(["--json"] if options == ["--json"] else [])])
    output = capsys.readouterr()
    shown += [output.out, output.err]
    assert "hunter2" not in "\n".join(shown)


def test_a_backend_that_crosses_to_another_process_keeps_its_password() -> None:
    """What is masked is the showing, not the use."""
    backend = open_backend("redis://:hunter2@127.0.0.1:1/0")
    assert pickle.loads(pickle.dumps(backend))._url == "redis://:hunter2@127.0.0.1:1/0"


def test_masks() -> None:
    """What is left of a URL, and what of one without anything secret."""
    assert masked("redis://u:p@h:1/0?x=y#z") == "redis://h:1/0"
    assert masked("https://h/@scope/pkg@1") == "https://h/@scope/pkg@1"
    assert masked("https://[::1]:5/x") == "https://[::1]:5/x"
    assert masked("https://u:p/w@h/x") == "https://h/x"
    assert masked("/a/path?x") == "/a/path"
    assert len(masked("https://" + "a" * 10**6)) <= 8192


def test_nothing_is_in_a_traceback(tmp_path: Path) -> None:
    """A program that does not catch an error of the cache prints no password either."""
    code = (
        "from layercache.store.backends import open_backend\n"
        "open_backend('redis://:hunter2@127.0.0.1:port/0').read('x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    # The line of the program itself is its own; what the library adds is not.
    lines = [line for line in done.stderr.splitlines() if "open_backend(" not in line]
    assert "hunter2" not in "\n".join(lines)
