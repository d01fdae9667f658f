"""A cache at a distance that never answers costs a miss, and no process stays for it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from layercache._os.side_by_side import side_by_side

SCRIPT = """
import sys, threading, socket
sys.path[:0] = {path!r}
from layercache import Builder, Dockerfile
from layercache.store.backends import open_backend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.store.tiered import TieredStore

listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
kept = []

def hang():
    while True:
        connection, _ = listener.accept()
        kept.append(connection)

threading.Thread(target=hang, daemon=True).start()
remote = Store(open_backend("registry://127.0.0.1:%d/cache" % port))
store = TieredStore(Store(MemoryBackend()), cache_from=[remote], deadline=0.5, linger=0.5)
recipe = Dockerfile.parse("FROM scratch\\nCOPY a /\\nCOPY b /\\n")
result = Builder(store).build(recipe, context={{"a": "1", "b": "2"}})
assert result.tree().open(b"b").read() == b"2"
print("built", flush=True)
"""


def test_a_registry_that_never_answers_holds_no_process() -> None:
    """The build is right, and the process ends soon after it."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(path=sys.path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "built\n", done.stderr
    assert done.returncode == 0
    assert time.monotonic() - began < 15


def test_calls_side_by_side_keep_their_order_and_errors() -> None:
    """As one after the other."""
    assert side_by_side([lambda n=n: n for n in range(50)], 4) == list(range(50))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1, lambda: 1 // 0, lambda: 2], 2)
