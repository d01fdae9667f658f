"""What is asked from inside a step: run in this process as root, or as an ordinary user by

    python -m tests.security.inside NAME SCRATCH ARGUMENT...

which prints what the function NAME returned.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from layercache.testing.images import busybox_layer, tar_of
from tests.rootfs.conftest import Bench

OPTIONS: dict[str, dict[str, Any]] = {"insecure": {"allow_insecure": True}}
"""Options of the executor for a function."""


def status(bench: Bench) -> str:
    """/proc/self/status of root's command."""
    return bench.out("cat /proc/self/status", network="none")


def status_of_user(bench: Bench) -> str:
    """/proc/self/status of an ordinary user's command."""
    return bench.out("cat /proc/self/status", user="app", network="none")


def insecure(bench: Bench) -> str:
    """/proc/self/status of a command that all is allowed to."""
    return bench.out("cat /proc/self/status", security="insecure")


def shell(bench: Bench, script: str) -> str:
    """What a shell command writes."""
    return bench.out(script)


def calls(bench: Bench, program: str, table: str) -> str:
    """The results of the system calls in `table`, as `probe.c` prints them."""
    image = tar_of({"probe": Path(program).read_bytes(), "calls": table.encode()}, mode=0o755)
    return bench.out("/probe /calls", state=bench.layer(image, bench.base))


def main() -> None:
    name, scratch, *arguments = sys.argv[1:]
    layer = busybox_layer()
    assert layer is not None
    bench = Bench(Path(scratch), layer, **OPTIONS.get(name, {}))
    try:
        print(globals()[name](bench, *arguments), end="")
    finally:
        bench.executor.close()


if __name__ == "__main__":
    main()
