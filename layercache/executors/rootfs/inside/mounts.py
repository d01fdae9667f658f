"""Mounts of a step: overlays, /dev, /proc, /sys, and mount points inside an image's own tree.

Runs in the step's first process, in namespaces of its own. An image is hostile: its paths are
resolved beneath its root, never through links of /proc, by descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from layercache.executors.rootfs.inside import syscalls as sys_

__all__ = [
    "DEVICES",
    "DEV_LINKS",
    "MASKED",
    "OVERLAY_METHODS",
    "READONLY",
    "SAFE",
    "Root",
    "attach",
    "bind",
    "bind_beneath",
    "bind_fd",
    "filesystem",
    "layers",
    "overlay",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SAFE = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NODEV | sys_.MOUNT_ATTR_NOEXEC

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

_IN_ROOT = sys_.RESOLVE_IN_ROOT | sys_.RESOLVE_NO_MAGICLINKS


def filesystem(kind: str, options: Sequence[tuple[str, str | None]], attributes: int) -> int:
    """A detached mount of a new file system; an option without value is a flag."""
    context = sys_.fsopen(kind)
    try:
        for key, value in (("source", kind), *options):
            if value is None:
                sys_.fsconfig(context, sys_.FSCONFIG_SET_FLAG, key)
            else:
                sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, key, value)
        sys_.fsconfig(context, sys_.FSCONFIG_CMD_CREATE)
        return sys_.fsmount(context, attributes)
    except OSError as error:
        raise OSError(error.errno, f"mounting {kind}: {_reason(context, error)}") from error
    finally:
        os.close(context)


def _reason(context: int, error: OSError) -> str:
    """What the kernel wrote about a failure, else its error."""
    lines = []
    while True:
        try:
            lines.append(os.read(context, 4096).decode("utf-8", "replace").strip())
        except OSError:
            break
        if len(lines) > 8:
            break
    return "; ".join(line[2:] for line in lines if line) or str(error.strerror)


# -- overlays -----------------------------------------------------------------------------------

OVERLAY_METHODS = ("fd", "path", "mount")
"""How layers are named to the kernel: descriptors (Linux 6.13), paths (6.8), one option string."""


def overlay(
    target: str,
    lower: Sequence[str],
    upper: str | None,
    work: str | None,
    *,
    userxattr: bool,
    attributes: int,
    methods: Sequence[str] = OVERLAY_METHODS,
    options: Sequence[tuple[str, str]] = (),
) -> None:
    """Mount an overlay at `target`; `lower` has the topmost layer first.

    `volatile`: the upper file system isn't synced when the overlay goes away; what is kept of
    a step is made durable by whoever keeps it. Renames of lower directories fail with EXDEV, as
    everywhere (programs then copy): redirects have no form in a layer.
    """
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]
    pair = []
    if upper is not None and work is not None:
        pair = [
            (name, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            for name, path in (("upperdir", upper), ("workdir", work))
        ]
    flags = ["userxattr"] if userxattr else []
    if pair:
        flags.append("volatile")
    first: OSError | None = None
    try:
        for method in methods:
            try:
                if method == "mount":
                    _overlay_by_mount(target, fds, pair, flags, attributes, options)
                else:
                    made = _overlay_by_context(fds, pair, flags, attributes, method, options)
                    attach(made, target)
                return
            except OSError as error:
                # The first is the one that the kernel explains.
                first = first or error
                if error.errno != errno.EINVAL or method == methods[-1]:
                    raise first from None
    finally:
        for fd in [*fds, *(fd for _, fd in pair)]:
            os.close(fd)


def layers(lower: Sequence[str], *, userxattr: bool) -> int:
    """A detached, read-only overlay of at least two directories, the topmost first."""
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]
    flags = ["userxattr"] if userxattr else []
    try:
        try:
            return _overlay_by_context(fds, (), flags, sys_.MOUNT_ATTR_RDONLY, "fd", ())
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _overlay_by_context(fds, (), flags, sys_.MOUNT_ATTR_RDONLY, "path", ())
    finally:
        for fd in fds:
            os.close(fd)


_OVERLAY_OPTIONS = (("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off"))


def _overlay_by_context(
    lower: Sequence[int],
    pair: Sequence[tuple[str, int]],
    flags: Sequence[str],
    attributes: int,
    method: str,
    options: Sequence[tuple[str, str]],
) -> int:
    context = sys_.fsopen("overlay")
    try:
        named = [*(("lowerdir+", fd) for fd in lower), *pair]
        sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, "source", "overlay")
        for key, fd in named:
            if method == "fd":
                sys_.fsconfig(context, sys_.FSCONFIG_SET_FD, key, fd)
            else:
                sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, key, f"/proc/self/fd/{fd}")
        for key, value in (*_OVERLAY_OPTIONS, *options):
            sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, key, value)
        for flag in flags:
            sys_.fsconfig(context, sys_.FSCONFIG_SET_FLAG, flag)
        sys_.fsconfig(context, sys_.FSCONFIG_CMD_CREATE)
        return sys_.fsmount(context, attributes)
    except OSError as error:
        raise OSError(error.errno, f"mounting overlay: {_reason(context, error)}") from error
    finally:
        os.close(context)


def _overlay_by_mount(
    target: str,
    lower: Sequence[int],
    pair: Sequence[tuple[str, int]],
    flags: Sequence[str],
    attributes: int,
    further: Sequence[tuple[str, str]],
) -> None:
    # Descriptors name the layers here too: the option string is one page, and a path may be long
    # or hold a comma or a colon.
    options = ["lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in lower)]
    options += [f"{name}=/proc/self/fd/{fd}" for name, fd in pair]
    options += [f"{key}={value}" for key, value in (*_OVERLAY_OPTIONS, *further)] + list(flags)
    bits = 0
    for attribute, bit in (
        (sys_.MOUNT_ATTR_RDONLY, sys_.MS_RDONLY),
        (sys_.MOUNT_ATTR_NOSUID, sys_.MS_NOSUID),
        (sys_.MOUNT_ATTR_NODEV, sys_.MS_NODEV),
        (sys_.MOUNT_ATTR_NOEXEC, sys_.MS_NOEXEC),
    ):
        bits |= bit if attributes & attribute else 0
    sys_.mount("overlay", target, "overlay", bits, ",".join(options))


# -- bind mounts --------------------------------------------------------------------------------


def bind(path: str, attributes: int, *, recursive: bool = False) -> int:
    """A detached bind mount of a host path, with further attributes."""
    extra = sys_.AT_RECURSIVE if recursive else 0
    mounted = sys_.open_tree(sys_.AT_FDCWD, path, sys_.OPEN_TREE_CLONE | extra)
    if attributes:
        sys_.mount_setattr(mounted, extra, attributes)
    return mounted


def bind_beneath(root: str, path: str, attributes: int) -> int:
    """A detached bind mount of `path` within `root`, which its links can't leave."""
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = sys_.openat2(base, path.lstrip("/") or ".", os.O_PATH, _IN_ROOT)
    finally:
        os.close(base)
    try:
        return bind_fd(found, attributes)
    finally:
        os.close(found)


def bind_fd(fd: int, attributes: int, *, recursive: bool = False) -> int:
    """A detached bind mount of what is open as `fd`."""
    extra = sys_.AT_RECURSIVE if recursive else 0
    flags = sys_.OPEN_TREE_CLONE | sys_.AT_EMPTY_PATH | extra
    mounted = sys_.open_tree(fd, "", flags)
    if attributes:
        sys_.mount_setattr(mounted, extra, attributes)
    return mounted


def attach(mounted: int, target: str) -> None:
    """Attach a detached mount at a path of our own; closes it."""
    fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        sys_.move_mount(mounted, fd)
    finally:
        os.close(fd)
        os.close(mounted)


def _real(fd: int, path: str) -> str:
    """The path of an open directory; `path` while /proc itself is being made."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return path


# -- inside the new root ------------------------------------------------------------------------


class Root:
    """The image's tree, once it is the root directory.

    `made` lists what had to be created in the image as a mount point, with every link resolved,
    each after the directory it is in.
    """

    def __init__(self) -> None:
        self.fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self.fd).st_dev
        self.made: list[str] = []

    def close(self) -> None:
        os.close(self.fd)

    def find(self, path: str) -> int | None:
        """`path` as a descriptor, None when it is not there."""
        try:
            return sys_.openat2(self.fd, path.lstrip("/") or ".", os.O_PATH, _IN_ROOT)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def read(self, path: str, limit: int = 8 << 20) -> bytes:
        """The content of a regular file, empty when there is none."""
        try:
            fd = sys_.openat2(
                self.fd, path.lstrip("/"), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, _IN_ROOT
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                return b""
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""
            parts = []
            while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def make(self, path: str, *, directory: bool) -> int:
        """`path` as a descriptor; it and what is above it are created where missing."""
        missing: list[str] = []
        at = os.path.normpath("/" + path)
        while (found := self.find(at)) is None:
            at, name = os.path.split(at)
            missing.append(name)
        while missing:
            name = missing.pop()
            try:
                if missing or directory:
                    os.mkdir(name, 0o755, dir_fd=found)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(name, flags, 0o644, dir_fd=found))
                if os.fstat(found).st_dev == self.device:
                    self.made.append(os.path.join(_real(found, at), name))
                at = os.path.join(at, name)
                inner = sys_.openat2(found, name, os.O_PATH | os.O_NOFOLLOW, sys_.RESOLVE_BENEATH)
            except OSError as error:
                raise OSError(
                    error.errno, f"making the mount point {path}: {error.strerror}"
                ) from error
            finally:
                os.close(found)
            found = inner
        return found

    def attach(self, mounted: int, path: str, *, directory: bool | None = None) -> None:
        """Attach a detached mount at `path`, which is created where missing; closes it."""
        if directory is None:
            directory = stat.S_ISDIR(os.fstat(mounted).st_mode)
        target = self.make(path, directory=directory)
        try:
            sys_.move_mount(mounted, target)
        except OSError as error:
            raise OSError(error.errno, f"mounting at {path}: {error.strerror}") from error
        finally:
            os.close(target)
            os.close(mounted)

    def mask(self, paths: Sequence[str]) -> None:
        """Hide files behind /dev/null and directories behind an empty one."""
        for path in paths:
            found = self.find(path)
            if found is None:
                continue
            if stat.S_ISDIR(os.fstat(found).st_mode):
                cover = filesystem("tmpfs", (("size", "0"),), SAFE | sys_.MOUNT_ATTR_RDONLY)
            else:
                null = self.find("/dev/null")
                if null is None:
                    raise OSError(errno.ENOENT, "the container has no /dev/null")
                cover = bind_fd(null, 0)
                os.close(null)
            sys_.move_mount(cover, found)
            os.close(cover)
            os.close(found)

    def freeze(self, paths: Sequence[str]) -> None:
        """Make what is there read-only."""
        for path in paths:
            found = self.find(path)
            if found is None:
                continue
            again = bind_fd(found, sys_.MOUNT_ATTR_RDONLY | SAFE, recursive=True)
            sys_.move_mount(again, found)
            os.close(again)
            os.close(found)
