"""A build in a process of its own, for tests that kill it: one RUN that says when it is up.

python -m tests.executors.rootfs.build_once SCRATCH SCRIPT
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from layercache.testing.images import busybox_layer

from .conftest import Bench, Window


class Loud(Window):
    """Shows output as it comes."""

    def log(self, chunk: bytes) -> None:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def main() -> None:
    layer = busybox_layer()
    assert layer is not None
    bench = Bench(Path(sys.argv[1]), layer)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            bench.run("sh", "-c", sys.argv[2], window=Loud(bench))
        except BaseException as error:  # noqa: BLE001  (shown below)
            failed.append(error)

    if len(sys.argv) > 3:  # in a thread, as engines do
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        bench.run("sh", "-c", sys.argv[2], window=Loud(bench))
    bench.executor.close()


if __name__ == "__main__":
    main()
