"""Termination of processes that a command left running, since they could still write files.

A command's process group ends with it, but a process that began a session of its own (a daemon) is
in another group, and nothing ends them when the build itself is killed. All of them have an
environment variable that only commands of that workspace get. Linux only; elsewhere nothing is
found.
"""

from __future__ import annotations

import os
import signal
import time

__all__ = ["end_leftovers"]

_ROUNDS = 100
_PAUSE = 0.01
_MOST = 1 << 20


def end_leftovers(variable: str, value: str) -> None:
    """Kill the caller's processes that were started with `variable` set to `value`.

    Returns when they are gone, or after a second: a process that can't be killed is no reason to
    fail.
    """
    wanted = os.fsencode(f"{variable}={value}\0")
    for _ in range(_ROUNDS):
        found = _find(wanted)
        if not found:
            return
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # gone, or no longer the caller's
        time.sleep(_PAUSE)


def _find(wanted: bytes) -> list[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    own = os.getpid()
    found = []
    for name in names:
        if name.isdigit() and int(name) != own and _has(name, wanted):
            found.append(int(name))
    return found


def _has(process: str, wanted: bytes) -> bool:
    try:
        descriptor = os.open(f"/proc/{process}/environ", os.O_RDONLY)
    except OSError:
        return False  # another user's, or gone
    try:
        data = os.read(descriptor, _MOST)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return data.startswith(wanted) or b"\0" + wanted in data
