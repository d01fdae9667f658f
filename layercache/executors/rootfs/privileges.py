"""Privileges of this process: whether it works as root, and whether it may set its host name.

Read from /proc, because this decides traits before anything is tried.
"""

from __future__ import annotations

import os

__all__ = ["is_root", "may_set_host_name", "status"]

_ADMIN = 1 << 21
"""CAP_SYS_ADMIN."""


def status() -> dict[str, str]:
    """The fields of /proc/self/status, empty if there is no such file."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_root() -> bool:
    """Whether this process is the superuser with the capability to mount.

    Root of an ordinary container has the user number but not the capability.
    """
    return os.geteuid() == 0 and bool(int(status().get("CapEff", "0"), 16) & _ADMIN)


def may_set_host_name() -> bool:
    """Whether no known filter around this process refuses that, even in a user namespace.

    The filters of container engines permit it only with CAP_SYS_ADMIN, as given to the container.
    """
    found = status()
    filtered = found.get("Seccomp", "0") == "2"
    return not filtered or bool(int(found.get("CapBnd", "0"), 16) & _ADMIN)
