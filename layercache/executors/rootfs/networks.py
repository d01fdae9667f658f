"""The meaning of `--network=default` on this machine: a network of its own, or the fallback.

A network of its own needs a program that serves it, and the kernel's device for that.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

from layercache._base.classes import frozen

__all__ = ["NETWORKS", "Isolation", "find_isolation"]

NETWORKS: Final = ("isolated", "host", "none")
"""What an executor can be told that `default` means."""

_PROGRAMS: Final = ("pasta", "slirp4netns")
_DEVICE: Final = "/dev/net/tun"


@frozen
class Isolation:
    """The programs (paths) that can serve a network, the best first; otherwise the reason."""

    programs: tuple[str, ...] = ()
    reason: str = ""


def find_isolation() -> Isolation:
    """The programs that this user has; nothing is tried."""
    found = tuple(path for name in _PROGRAMS if (path := shutil.which(name)))
    if not found:
        return Isolation(reason="neither pasta nor slirp4netns is installed")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Isolation(reason=f"this user can't open {_DEVICE}")
    return Isolation(programs=found)
