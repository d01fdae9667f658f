"""The strongest executor that works here; never one that runs commands on the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layercache.errors import ExecutorUnavailable
from layercache.execution import Executor
from layercache.locations import default_cache

if TYPE_CHECKING:
    from layercache.store import Store

__all__ = ["scratch_directory", "strongest"]


def strongest(store: Store, note: Callable[[str], None], **options: Any) -> Executor:
    """A root file system executor in the strongest mode that works.

    `note` is told which one and why; `options` go to `RootfsExecutor`. Raises
    `ExecutorUnavailable` with what to do.
    """
    import sys

    if sys.platform != "linux":
        raise ExecutorUnavailable(
            "root file systems need Linux: use --executor workspace, which runs the commands in "
            "a plain directory of this machine, or build on a Linux machine"
        )
    from layercache.executors.rootfs import RootfsExecutor, probe

    mode, reasons = probe()
    if mode is None:
        raise ExecutorUnavailable(
            "no root file system can be made here: "
            + "; ".join(reasons)
            + ". Run as root, allow user namespaces, or use --executor workspace, which runs the "
            "commands in a plain directory of this machine"
        )
    note(f"executor: rootfs, {mode}" + (f" ({'; '.join(reasons)})" if reasons else ""))
    return RootfsExecutor(scratch_directory(store), **options)


def scratch_directory(store: Store, kind: str = "rootfs") -> str:
    """Where an executor keeps unpacked layers and work: beside a local store, else in the
    user's cache directory."""
    directory = getattr(store.backend, "directory", None) or default_cache()
    return os.path.join(directory, kind)
