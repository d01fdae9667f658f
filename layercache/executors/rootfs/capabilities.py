"""Detection of the strongest mode that works on this machine, and why stronger ones don't."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import Literal, NamedTuple, TypeAlias

from layercache.executors.rootfs.deletion import delete_tree
from layercache.executors.rootfs.helper_command import helper_command, helper_environment
from layercache.executors.rootfs.privileges import is_root
from layercache.executors.rootfs.user_namespace import UserNamespace, user_namespace

__all__ = ["Mode", "Probe", "probe"]

Mode: TypeAlias = Literal["root", "rootless", "rootless-single"]
"""`root`: as the superuser. `rootless`: in a user namespace with a range of users.
`rootless-single`: in a user namespace with one user, root, so commands can't be others."""

_SECONDS = 30


class Probe(NamedTuple):
    """The strongest mode that works, None for none, and the reasons why stronger ones don't."""

    mode: Mode | None
    reasons: tuple[str, ...]


def probe(directory: str | os.PathLike[str] | None = None) -> Probe:
    """Find the strongest mode that works with scratch space in `directory`, by trying.

    The default is the system's directory for temporary files. Takes some 30 ms, leaves nothing
    behind and runs no command.
    """
    reasons: list[str] = []
    place = os.fspath(directory) if directory is not None else None
    if place is not None:
        os.makedirs(place, exist_ok=True)
    candidates: list[tuple[Mode, UserNamespace | None]] = []
    if is_root():
        candidates.append(("root", None))
    else:
        lacking = " with CAP_SYS_ADMIN" if os.geteuid() == 0 else ""
        reasons.append(f"this process isn't root{lacking}")
        most = user_namespace()
        if most.single:
            reasons.append(f"{most.reason}, so commands can be no other user than root")
        candidates.append(("rootless-single" if most.single else "rootless", most))
    for mode, namespace in candidates:
        scratch = tempfile.mkdtemp(dir=place, prefix="probe-")
        try:
            reason = _try(scratch, namespace)
        finally:
            delete_tree(scratch)
        if not reason:
            return Probe(mode, tuple(reasons))
        reasons.append(reason)
    return Probe(None, tuple(reasons))


def _try(scratch: str, namespace: UserNamespace | None) -> str:
    """The first problem with a step's namespaces and mounts below `scratch`; "" if there is
    none.
    """
    enter = [] if namespace is None else ["userns", *namespace.arguments()]
    flags = (namespace is not None, namespace is not None and namespace.single)
    asked = ["probe", scratch, *("1" if flag else "0" for flag in flags)]
    try:
        done = subprocess.run(
            helper_command(*enter, *asked),
            env=helper_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the helper process does not work: {error}"
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"status {done.returncode}")
