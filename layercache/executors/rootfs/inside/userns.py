"""Entering a user namespace, in the helper process: as root there, with one user or a range."""

from __future__ import annotations

import os

from layercache.executors.rootfs.inside import syscalls as sys_

__all__ = ["COUNT", "enter"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COUNT = 8
"""Arguments that `enter` takes."""


def enter(arguments: Sequence[str]) -> None:
    """Move this process to a new user namespace, in which it is root.

    Arguments: its user and group, the paths of newuidmap and newgidmap, and first number and
    count of the users and groups that the namespace gets besides; all counts 0 for one user.
    Raises `OSError` when the system does not allow it.
    """
    uid, gid = int(arguments[0]), int(arguments[1])
    if int(arguments[5]) == 0:
        _unshare()
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
        return
    # The tools must run outside the namespace: a child waits for it to exist.
    read, write = os.pipe2(os.O_CLOEXEC)
    mapper = os.fork()
    if mapper == 0:
        os.close(write)
        status = 1
        try:
            os.read(read, 1)
            parent = str(os.getppid())
            users = [parent, "0", str(uid), "1", "1", *arguments[4:6]]
            groups = [parent, "0", str(gid), "1", "1", *arguments[6:8]]
            if _spawn(arguments[2], users) == 0 == _spawn(arguments[3], groups):
                status = 0
        finally:
            os._exit(status)
    os.close(read)
    try:
        _unshare()
    finally:
        os.close(write)
        _, code = os.waitpid(mapper, 0)
    if code:
        raise OSError(1, f"{arguments[2]} and {arguments[3]} gave this user no range")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])


def _unshare() -> None:
    try:
        sys_.unshare(sys_.CLONE_NEWUSER)
    except OSError as error:
        raise OSError(
            error.errno,
            f"user namespaces are not allowed here ({os.strerror(error.errno or 0)}); see the "
            "settings user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns",
        ) from error


def _spawn(program: str, arguments: Sequence[str]) -> int:
    pid = os.posix_spawn(program, [program, *arguments], {})
    return os.waitpid(pid, 0)[1]


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
