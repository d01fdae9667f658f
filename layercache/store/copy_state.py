"""The file `state` of an unpacked directory: whether the directory can be trusted.

    <form> synced        its files are on the medium
    <form> boot <id>     complete, and good until this machine stops

Anything else, another form of owners and attributes, or no file at all: the directory is not used.
Its time is that of the last use.
"""

from __future__ import annotations

import os
import stat
import threading
from typing import Final

from layercache._base.classes import frozen
from layercache._os.durability import boot_id

__all__ = ["CopyState", "CopyStates"]

_MOST: Final = 1000


@frozen
class CopyState:
    """A trusted directory: whether it outlives a stop of the machine, and its last use."""

    durable: bool
    stamp: float


class CopyStates:
    """Reads and writes the states of directories whose owners and attributes lie as `form` says."""

    def __init__(self, form: str) -> None:
        boot = boot_id()
        self._boot = f"{form} boot {boot}" if boot else ""  # never trusted without one
        self._synced = f"{form} synced"

    def read(self, path: str) -> CopyState | None:
        """The state of the directory at `path`; None unless it can be trusted."""
        try:
            with open(os.path.join(path, "state"), encoding="utf-8") as file:
                said = file.read(_MOST)
                stamp = os.fstat(file.fileno()).st_mtime
            there = stat.S_ISDIR(os.lstat(os.path.join(path, "fs")).st_mode)
        except (OSError, UnicodeDecodeError):
            return None
        if not there or said not in (self._synced, self._boot) or not said:
            return None
        return CopyState(said == self._synced, stamp)

    def write(self, path: str, *, durable: bool) -> None:
        """Say that the directory is complete, and `durable` if its files are synced."""
        temporary = os.path.join(path, f"state-{os.getpid()}-{threading.get_ident()}")
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(self._synced if durable else self._boot)
        os.replace(temporary, os.path.join(path, "state"))
