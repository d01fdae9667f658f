"""System calls that Python lacks, through ctypes; raises `OSError` with the call's name.

Numbers from 424 on are the same on all architectures but alpha (asm-generic/unistd.h); clone
and keyctl have no suitable wrapper and are listed by machine.
"""

from __future__ import annotations

import ctypes
import errno
import os

__all__ = [
    "AT_EMPTY_PATH",
    "AT_FDCWD",
    "AT_RECURSIVE",
    "AT_SYMLINK_NOFOLLOW",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_SET_FD",
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "MNT_DETACH",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NOEXEC",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_RDONLY",
    "MOVE_MOUNT_F_EMPTY_PATH",
    "MOVE_MOUNT_T_EMPTY_PATH",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "OPEN_TREE_CLOEXEC",
    "OPEN_TREE_CLONE",
    "PR_CAPBSET_DROP",
    "PR_CAPBSET_READ",
    "PR_SET_DUMPABLE",
    "PR_SET_PDEATHSIG",
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "capset",
    "clone",
    "close_range",
    "default_signals",
    "fsconfig",
    "fsmount",
    "fsopen",
    "kill",
    "machine",
    "mount",
    "mount_setattr",
    "move_mount",
    "new_session_keyring",
    "open_tree",
    "openat2",
    "pivot_root",
    "plain_execution",
    "prctl",
    "set_hostname",
    "supported",
    "sync_filesystem",
    "umount",
    "unshare",
]

# PyDLL keeps the interpreter lock: the calls are short, and after a raw clone there is nobody
# to hand it to.
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

NEEDED = "Linux 5.12"
"""The first kernel with every call that is made here."""

_ATTEMPTS = 10_000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "loongarch64": 41,
               "ppc64le": 203, "s390x": 217, "armv7l": 218, "i686": 217}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "loongarch64": 220,
          "ppc64le": 120, "s390x": 120, "armv7l": 120, "i686": 120}  # fmt: skip
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219,
           "ppc64le": 271, "s390x": 280, "armv7l": 311, "i686": 288}  # fmt: skip
_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "loongarch64": 91,
           "ppc64le": 184, "s390x": 185, "armv7l": 185, "i686": 185}  # fmt: skip
_OTHER_WIDTH = {
    4: {"x86_64": "i686", "aarch64": "armv7l", "armv8l": "armv7l"},
    8: {"i386": "x86_64", "i686": "x86_64", "armv7l": "aarch64", "armv8l": "aarch64"},
}
"""What the kernel may call a machine to a program of another width, by the bytes of a pointer."""


def machine() -> str:
    """The machine whose table of system calls this process uses; under a personality, or for a
    32-bit program, the kernel may report another name.
    """
    name = os.uname().machine
    return _OTHER_WIDTH[ctypes.sizeof(ctypes.c_void_p)].get(name, name)


_MACHINE = machine()


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known."""
    return _MACHINE in _CLONE


def _check(result: int, name: str, detail: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        reason = os.strerror(number)
        if number == errno.ENOSYS:
            reason = f"this kernel does not have it, or a filter hides it (needed: {NEEDED})"
        raise OSError(number, f"{name}: {reason}", detail or None)
    return result


def _call(name: str, number: int, *args: object, detail: str = "") -> int:
    return _check(_syscall(ctypes.c_long(number), *args), name, detail)


def _text(value: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(os.fsencode(value))


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


# -- processes ----------------------------------------------------------------------------------


def clone(flags: int) -> int:
    """Fork into new namespaces; 0 in the child. Only for a process with one thread."""
    flags |= 17  # SIGCHLD
    zero = _long(0)
    arguments = [_long(flags), zero, zero, zero, zero]
    if _MACHINE == "s390x":
        arguments[:2] = arguments[1::-1]
    number = _long(_CLONE[_MACHINE])
    # As os.fork() does: from 3.13 on, what is released after it must have been taken before it.
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _syscall(number, *arguments)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        error = ctypes.get_errno()
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        ctypes.set_errno(error)
    return _check(pid, "clone")


def unshare(flags: int) -> None:
    """Move this process to new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(namespace: int, kind: int) -> None:
    """Move this process to the namespace open as `namespace`, of the CLONE_ flag `kind`."""
    _check(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)), "setns")


def prctl(option: int, value: int) -> int:
    """prctl(2) with one argument."""
    zero = ctypes.c_ulong(0)
    return _check(
        _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero), "prctl"
    )


def kill(pidfd: int) -> None:
    """SIGKILL to the process behind a pidfd; raises `ProcessLookupError`."""
    _call("pidfd_send_signal", 424, _long(pidfd), _long(9), None, _long(0))


def pidfd_getfd(pidfd: int, number: int) -> int:
    """The descriptor `number` of the process behind a pidfd, as one of this process."""
    return _call("pidfd_getfd", 438, _long(pidfd), _long(number), _long(0))


def default_signals() -> None:
    """Unblock all signals and ignore none: the interpreter ignores some (SIGPIPE, SIGXFSZ), and so
    may the caller (SIGINT in the background, SIGHUP by nohup).
    """
    for number in range(1, 65):
        _libc.signal(ctypes.c_int(number), None)  # those that can't be changed stay
    empty = ctypes.create_string_buffer(128)
    _libc.sigprocmask(ctypes.c_int(2), empty, None)


def plain_execution() -> None:
    """Reset other inherited settings: the personality (another machine name, fixed addresses), the
    timer slack, and bits that change the meaning of being root.
    """
    _check(_libc.personality(ctypes.c_ulong(0)), "personality")
    prctl(PR_SET_TIMERSLACK, 50_000)
    if prctl(PR_GET_SECUREBITS, 0):
        prctl(PR_SET_SECUREBITS, 0)


def new_session_keyring() -> None:
    """Replace the caller's session keyring by a new one for this process and its children.

    A kernel without keyrings, or a filter that hides them, is equally good.
    """
    try:
        _call("keyctl", _KEYCTL[_MACHINE], _long(1), None)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            raise OSError(error.errno, f"a new session keyring: {error.strerror}") from error


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls(program: bytes) -> None:
    """Put this process and its children behind a filter of system calls (seccomp(2)).

    Needs CAP_SYS_ADMIN in this user namespace: the alternative would disable setuid programs.
    """
    filter_ = _FilterProgram(len(program) // 8, program)
    zero = ctypes.c_ulong(0)
    result = _libc.prctl(
        ctypes.c_int(_PR_SET_SECCOMP), ctypes.c_ulong(_SECCOMP_MODE_FILTER),
        ctypes.byref(filter_), zero, zero,
    )  # fmt: skip
    _check(result, "seccomp")


def set_hostname(name: str) -> None:
    """sethostname(2)."""
    data = os.fsencode(name)
    _check(_libc.sethostname(ctypes.c_char_p(data), ctypes.c_size_t(len(data))), "sethostname")


def capset(mask: int) -> None:
    """Set the permitted and effective capabilities to `mask`, and inherit none."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _call("capset", _CAPSET[_MACHINE], header, data)


# -- mounts -------------------------------------------------------------------------------------


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open `path` beneath `directory` under the rules `resolve`."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for attempt in range(_ATTEMPTS):
        try:
            return _call(
                "openat2", 437, _long(directory), _text(path), ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)), detail=path,
            )  # fmt: skip
        except BlockingIOError:
            # A rename or mount anywhere in the system came in between "..": openat2(2), EAGAIN.
            if attempt == _ATTEMPTS - 1:
                raise
            os.sched_yield()
    raise AssertionError


def open_tree(directory: int, path: str, flags: int) -> int:
    """A mount, or with OPEN_TREE_CLONE a detached bind mount, of `path`."""
    return _call(
        "open_tree", 428, _long(directory), _text(path), _long(flags | OPEN_TREE_CLOEXEC),
        detail=path,
    )  # fmt: skip


def move_mount(mount: int, target: int) -> None:
    """Attach the detached mount `mount` over the file or directory open as `target`."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", 429, _long(mount), _text(""), _long(target), _text(""), _long(flags))


def fsopen(kind: str) -> int:
    """A file system context; raises ENODEV where the kernel does not know `kind`."""
    return _call("fsopen", 430, _text(kind), _long(1), detail=kind)


def fsconfig(context: int, command: int, key: str | None = None, value: object = None) -> None:
    """One setting, a string or a descriptor, or a command, to a file system context."""
    data: object = None
    extra = 0
    if command == FSCONFIG_SET_FD and isinstance(value, int):
        extra = value
    elif isinstance(value, str):
        data = _text(value)
    name = None if key is None else _text(key)
    _call("fsconfig", 431, _long(context), _long(command), name, data, _long(extra),
          detail=key or "")  # fmt: skip


def fsmount(context: int, attributes: int) -> int:
    """A detached mount of a created file system context."""
    return _call("fsmount", 432, _long(context), _long(1), _long(attributes))


def mount_setattr(mount: int, flags: int, add: int, propagation: int = 0, clear: int = 0) -> None:
    """Change attributes of the mount open as `mount` (Linux 5.12)."""
    attr = _MountAttr(add, clear, propagation, 0)
    _call("mount_setattr", 442, _long(mount), _text(""), _long(flags | AT_EMPTY_PATH),
          ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr)))  # fmt: skip


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        _text(source), _text(target), _text(kind), ctypes.c_ulong(flags),
        _text(data) if data else None,
    )  # fmt: skip
    _check(result, "mount", target)


def umount(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(_text(target), ctypes.c_int(flags)), "umount2", target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _call("pivot_root", _PIVOT_ROOT[_MACHINE], _text(new), _text(old))


def close_range(first: int, last: int) -> None:
    """Close all descriptors from `first` to `last`."""
    _call("close_range", 436, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0))


def sync_filesystem(path: str) -> None:
    """Write everything of the file system that `path` is on to its medium."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(ctypes.c_int(fd)), "syncfs", path)
    finally:
        os.close(fd)
