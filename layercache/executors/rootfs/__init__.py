"""The rootfs executor: each command in an overlay of the image's layers, in its own namespaces.

Imports the same packages as `layercache.executors`; the modules of `inside` run within the
namespaces and import next to nothing. Start at `executor` and `session`, then `inside.helper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.executors.rootfs.capabilities import Mode, Probe, probe
    from layercache.executors.rootfs.executor import RootfsExecutor

__all__ = [
    "Mode",
    "Probe",
    "RootfsExecutor",
    "probe",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "capabilities": "Mode Probe probe",
            "executor": "RootfsExecutor",
        },
    )
