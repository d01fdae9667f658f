"""A build as it is in an ordinary container, in a process of its own:

    python -m tests.security.contained SCRATCH [KEPT...]

Root without CAP_SYS_ADMIN, behind a filter that refuses to name the host. Shown are the mode that
was found, the reasons, traits, and what a command sees.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from layercache.errors import ExecutorUnavailable
from layercache.executors import auto
from layercache.executors.rootfs import probe
from layercache.executors.rootfs.inside import bpf, syscall_numbers
from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.testing.images import busybox_layer
from tests.executors.rootfs.conftest import Bench, Window

ADMIN = 21


def contain(*, namespaces: bool) -> None:
    """Give up CAP_SYS_ADMIN; refuse sethostname, and user namespaces where they are not wanted."""
    numbers = syscall_numbers.x86_64() if os.uname().machine == "x86_64" else (
        syscall_numbers.aarch64()
    )  # fmt: skip
    refused = ["sethostname"] if namespaces else ["sethostname", "unshare", "clone3"]
    block = bpf.verdict(bpf.ALLOW)
    for name in refused:
        block = bpf.choose(numbers[name], bpf.verdict(bpf.errno_of(errno.EPERM)), block)
    sys_.filter_calls(bpf.assemble(bpf.load(bpf.NUMBER) + block))
    sys_.prctl(sys_.PR_CAPBSET_DROP, ADMIN)
    sys_.capset(0xA80425FB)


def main() -> None:
    scratch, *options = sys.argv[1:]
    layer = busybox_layer()
    assert layer is not None
    contain(namespaces="closed" not in options)
    print(probe(scratch))
    if "closed" in options:
        bench = Bench(Path(scratch), layer)
        try:
            executor = auto.Strongest(bench.executor, scratch, print)
            executor.execute(bench.task("true"), Window(bench))
        except ExecutorUnavailable as error:
            print("ExecutorUnavailable", error)
        return
    bench = Bench(Path(scratch), layer)
    try:
        print({field.label: field.value for field in bench.executor.traits})
        print(bench.out("hostname; id -u; cat /proc/self/uid_map"))
    finally:
        bench.executor.close()


if __name__ == "__main__":
    main()
