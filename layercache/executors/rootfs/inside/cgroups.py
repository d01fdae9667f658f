"""A control group for each step, below that of the build, if the build may create one.

A step enters it before it gets its control group namespace, which then begins at the step's own
group, so a mount of the hierarchy shows no other processes. Limits of a step belong on it. There is
one group in each hierarchy of the machine (version 2, and those of version 1).
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Groups", "enter", "open_own"]

_INHERITED = ("cpuset.cpus", "cpuset.mems")
"""What a group of version 1 must be given before a process may enter it."""


def open_own() -> list[int]:
    """The directories of this process's own control groups, as descriptors.

    Opened before the host becomes read-only for this process: open descriptors stay writable.
    """
    found = []
    for path in _own():
        try:
            found.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            pass  # it is another namespace's, or hidden
    return found


def _own() -> Iterator[str]:
    """The path of this process's group in each mounted hierarchy."""
    groups = {}
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                number, controllers, path = line.rstrip("\n").split(":", 2)
                for name in controllers.split(",") if number != "0" else [""]:
                    groups[name] = path
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return
    seen = set()
    for fields in mounts:
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind == "cgroup2":
            names = [""]
        elif kind == "cgroup":
            names = options.split(",")
        else:
            continue
        own = next((groups[name] for name in names if name in groups), "")
        root = fields[3].rstrip("/")
        if not own or not (own + "/").startswith(root + "/") or tuple(names) in seen:
            continue
        seen.add(tuple(names))
        yield fields[4] + own[len(root) :]


class Groups:
    """The groups of a build's steps; `prefix` begins their names and is unique to the build."""

    def __init__(self, bases: Sequence[int], prefix: str) -> None:
        self._bases = list(bases)
        self._prefix = prefix
        self._left: list[tuple[int, str]] = []
        # A build of the same number that was killed, its helper too, may have left some.
        for base in self._bases:
            for name in os.listdir(base):
                if name.startswith(prefix):
                    self._left.append((base, name))
        self.clear()

    def make(self, number: int) -> list[int]:
        """The group of step `number`: a descriptor for each hierarchy, through which a process
        enters by writing 0. A hierarchy that permits no new group is skipped from then on.
        """
        name = f"{self._prefix}{number}"
        found = []
        for base in tuple(self._bases):
            try:
                os.mkdir(name, 0o755, dir_fd=base)
                self._left.append((base, name))
                _inherit(base, name)
                flags = os.O_WRONLY | os.O_CLOEXEC
                found.append(os.open(f"{name}/cgroup.procs", flags, dir_fd=base))
            except OSError:
                self._bases.remove(base)
        return found

    def clear(self) -> None:
        """Remove all empty groups."""
        self._left = [(base, name) for base, name in self._left if not _remove(base, name)]

    def finish(self, seconds: float) -> None:
        """Remove all groups, waiting at most so long for the kernel to let the last process go.

        A process that was waited for still counts in its group for a moment.
        """
        deadline = time.monotonic() + seconds
        self.clear()
        while self._left and time.monotonic() < deadline:
            time.sleep(0.01)
            self.clear()

    def close(self) -> None:
        """Close everything in a forked process."""
        for base in {*self._bases, *(base for base, _ in self._left)}:
            os.close(base)


def enter(groups: Sequence[int]) -> None:
    """Move this process to the groups, and close the descriptors of `make`."""
    for group in groups:
        try:
            os.write(group, b"0")
        except OSError:
            pass  # not delegated: it stays where it is
        os.close(group)


def _inherit(base: int, name: str) -> None:
    for setting in _INHERITED:
        try:
            above = os.open(setting, os.O_RDONLY | os.O_CLOEXEC, dir_fd=base)
        except FileNotFoundError:
            return
        try:
            value = os.read(above, 4096)
        finally:
            os.close(above)
        own = os.open(f"{name}/{setting}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=base)
        try:
            os.write(own, value)
        finally:
            os.close(own)


def _remove(base: int, name: str) -> bool:
    """Remove a group and those below it; False as long as one contains a process."""
    try:
        os.rmdir(name, dir_fd=base)  # works unless there are groups below
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            return True  # it will never work
    try:
        group = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base)
    except OSError:
        return True
    try:
        with os.scandir(group) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        if not below or not all(_remove(group, one) for one in below):
            return False
    finally:
        os.close(group)
    try:
        os.rmdir(name, dir_fd=base)
    except OSError:
        return False
    return True
