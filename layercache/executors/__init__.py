"""Executors: commands on the host in `workspace`, in root file systems in `rootfs`.

Imports `inputs`, `images`, `layers` and the packages before them. Start at `layercache.model.task`
(the protocol), then `copy` (file operations, for every executor) and either package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.executors.auto import Strongest, strongest
    from layercache.executors.copy import CopyPlan, copy_layer
    from layercache.executors.redaction import MASK, Redactor, masks_of
    from layercache.executors.rootfs.capabilities import Mode, Probe, probe
    from layercache.executors.rootfs.executor import RootfsExecutor
    from layercache.executors.workspace.executor import ALLOWED_ENVIRONMENT, Workspace

__all__ = [
    "ALLOWED_ENVIRONMENT",
    "MASK",
    "CopyPlan",
    "Mode",
    "Probe",
    "Redactor",
    "RootfsExecutor",
    "Strongest",
    "Workspace",
    "copy_layer",
    "masks_of",
    "probe",
    "strongest",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "auto": "Strongest strongest",
            "copy": "CopyPlan copy_layer",
            "redaction": "MASK Redactor masks_of",
            "rootfs.capabilities": "Mode Probe probe",
            "rootfs.executor": "RootfsExecutor",
            "workspace.executor": "ALLOWED_ENVIRONMENT Workspace",
        },
    )
