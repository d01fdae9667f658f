"""Capabilities that this process can't grant to commands although others can, as traits.

All other facts about the caller that a command could see are fixed (environment, umask, signals,
limits, descriptors, session, personality), so that results don't depend on the caller.
"""

from __future__ import annotations

from layercache.executors.rootfs.ulimits import lowered_limits
from layercache.model.instruction import Field

__all__ = ["constraints"]

_CONTAINERS = (1 << 32) - 1
"""Capabilities that a container may be given by default are among the first 32."""


def constraints(*, rootless: bool) -> tuple[Field, ...]:
    """A field for each restriction of this process; usually none."""
    found = []
    lowered = lowered_limits(rootless=rootless)
    if lowered:
        found.append(Field("lowered limits", lowered))
    status = _status()
    bounding = int(status.get(b"CapBnd", b"ffffffff"), 16)
    missing = ~bounding & _CONTAINERS
    if missing and not rootless:  # a user namespace has them all
        found.append(Field("missing capabilities", f"{missing:08x}"))
    if status.get(b"NoNewPrivs", b"0") != b"0":
        found.append(Field("no new privileges", "yes"))
    return tuple(found)


def _status() -> dict[bytes, bytes]:
    try:
        with open("/proc/self/status", "rb") as file:
            rows = file.read().splitlines()
    except OSError:
        return {}
    pairs = (row.partition(b":") for row in rows)
    return {name: value.strip() for name, _, value in pairs}
