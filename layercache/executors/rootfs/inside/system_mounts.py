"""/proc, /sys and /dev of a step, built, masked and frozen before the image is mounted.

Each is assembled outside the image, and only then moved over the image's directory: no path of an
image can change what is masked.
"""

from __future__ import annotations

import errno
import os
import stat

from layercache.executors.rootfs.inside import mounts as _mounts
from layercache.executors.rootfs.inside import syscalls as sys_

__all__ = [
    "DEVICES",
    "DEV_LINKS",
    "MASKED",
    "NAMES",
    "READONLY",
    "TIME",
    "build",
    "empty",
    "write",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

NAMES = ("proc", "sys", "dev")
"""What every step has of its own at the root, and the directories of the place to build it."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""Device nodes of a container (OCI runtime specification, config-linux.md)."""

DEV_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
)

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
"""What containers must not see (moby, `oci/defaults.go`)."""

READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What containers must not change (moby, `oci/defaults.go`)."""

TIME = 1_600_000_000
"""What is made for a step has the time of layers (`model.layer_times`), whenever it runs."""

_NO_LINKS = sys_.RESOLVE_BENEATH | sys_.RESOLVE_NO_SYMLINKS | sys_.RESOLVE_NO_MAGICLINKS


def build(spec: Mapping[str, Any]) -> dict[str, int]:
    """/proc, /sys and /dev, complete, attached below `spec["staging"]`.

    Made while the host's own are still there: in a user namespace the kernel allows new ones
    only beside them.
    """
    insecure = spec["insecure"]
    built = {"proc": _mounts.filesystem("proc", (), _mounts.SAFE)}
    readonly = 0 if insecure else sys_.MOUNT_ATTR_RDONLY
    try:
        built["sys"] = _mounts.filesystem("sysfs", (), _mounts.SAFE | readonly)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        # The network namespace is another user's: show the host's, which can't be written.
        built["sys"] = _mounts.bind("/sys", readonly | _mounts.SAFE, recursive=True)
    safe_dev = sys_.MOUNT_ATTR_NOSUID | (0 if insecure else sys_.MOUNT_ATTR_NODEV)
    built["dev"] = _mounts.filesystem("tmpfs", (("mode", "755"), ("size", "64m")), safe_dev)
    for name in NAMES:
        at = os.path.join(spec["staging"], name)
        target = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        sys_.move_mount(built[name], target)
        os.close(target)
    _fill_dev(built["dev"], spec)
    if not insecure:
        _mask(built)
        _freeze(built)
    return built


def _fill_dev(dev: int, spec: Mapping[str, Any]) -> None:
    for name in DEVICES:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=dev))
        _put(_mounts.bind(f"/dev/{name}", 0), dev, name)
    for link, name in DEV_LINKS:
        os.symlink(link, name, dir_fd=dev)
    pts: list[tuple[str, str | None]] = [("ptmxmode", "0666"), ("mode", "0620")]
    if not spec["single_id"]:
        pts.append(("gid", "5"))
    no_exec = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NOEXEC
    _put_new(_mounts.filesystem("devpts", pts, no_exec), dev, "pts")
    _put_new(empty(("mode", "1777"), ("size", str(spec["shm_size"]))), dev, "shm")
    try:
        _put_new(_mounts.filesystem("mqueue", (), _mounts.SAFE), dev, "mqueue")
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    if spec["files"]:
        os.mkdir("pipes", 0o755, dir_fd=dev)
        pipes = sys_.openat2(dev, "pipes", os.O_PATH | os.O_DIRECTORY, _NO_LINKS)
        for name, content in spec["files"]:
            write(name, content, 0o755, pipes)
        os.utime(".", (TIME, TIME), dir_fd=pipes)
        os.close(pipes)
    for _, name in DEV_LINKS:
        os.utime(name, (TIME, TIME), dir_fd=dev, follow_symlinks=False)
    os.utime(".", (TIME, TIME), dir_fd=dev)


def empty(*options: tuple[str, str], attributes: int = _mounts.SAFE) -> int:
    """A detached tmpfs that shows no time of its making."""
    mounted = _mounts.filesystem("tmpfs", options, attributes)
    os.utime(".", (TIME, TIME), dir_fd=mounted)
    return mounted


def write(name: str, content: bytes, mode: int, directory: int) -> None:
    """Write a new file in an open directory."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        os.utime(fd, (TIME, TIME))
    finally:
        os.close(fd)


def _put_new(mounted: int, directory: int, name: str) -> None:
    os.mkdir(name, 0o755, dir_fd=directory)
    _put(mounted, directory, name)


def _put(mounted: int, directory: int, name: str) -> None:
    """Attach a detached mount at what is there; closes it."""
    target = sys_.openat2(directory, name, os.O_PATH, _NO_LINKS)
    try:
        sys_.move_mount(mounted, target)
    finally:
        os.close(target)
        os.close(mounted)


def _mask(built: Mapping[str, int]) -> None:
    """Hide files behind /dev/null and directories behind an empty one."""
    cover = -1  # one for all directories; a mount that is attached nowhere is slow to go away
    for path, found in _there(built, MASKED):
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            over = _mounts.bind("/dev/null", 0)
        elif cover < 0:
            readonly = _mounts.SAFE | sys_.MOUNT_ATTR_RDONLY
            over = _mounts.filesystem("tmpfs", (("size", "4k"), ("mode", "755")), readonly)
            cover = os.dup(over)
        else:
            over = _mounts.bind_fd(cover, 0)
        try:
            sys_.move_mount(over, found)
        except OSError as error:
            raise OSError(error.errno, f"masking {path}: {error.strerror}") from error
        finally:
            os.close(over)
            os.close(found)
    if cover >= 0:
        os.close(cover)


def _freeze(built: Mapping[str, int]) -> None:
    """Make what is there read-only."""
    for path, found in _there(built, READONLY):
        again = _mounts.bind_fd(found, sys_.MOUNT_ATTR_RDONLY | _mounts.SAFE, recursive=True)
        try:
            sys_.move_mount(again, found)
        except OSError as error:
            raise OSError(error.errno, f"freezing {path}: {error.strerror}") from error
        finally:
            os.close(again)
            os.close(found)


def _there(built: Mapping[str, int], paths: Sequence[str]) -> list[tuple[str, int]]:
    """The `paths` that exist in this kernel, each open; the caller closes them."""
    found = []
    for path in paths:
        name, inner = path[1:].split("/", 1)
        try:
            found.append((path, sys_.openat2(built[name], inner, os.O_PATH, _NO_LINKS)))
        except FileNotFoundError:
            continue
    return found
