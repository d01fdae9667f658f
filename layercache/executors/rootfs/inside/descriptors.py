"""Descriptors of a new process: those that it needs by number, and no others."""

from __future__ import annotations

import fcntl
import os

from layercache.executors.rootfs.inside import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FIRST", "keep_only"]

FIRST = 3
"""The first number after standard input, output and errors."""


def keep_only(fds: Sequence[int], *, inheritable: bool = False) -> None:
    """Move `fds` to the numbers from `FIRST` on, in their order; close all others above 2.

    `inheritable`: a program that is executed gets them, too.
    """
    end = FIRST + len(fds)
    # First out of the way: one of them may have a number that another one gets.
    apart = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, end) for fd in fds]
    for number, fd in enumerate(apart, FIRST):
        os.dup2(fd, number, inheritable=inheritable)
    sys_.close_range(end, 0xFFFFFFFF)
