"""Detached mounts: new file systems, overlays, bind mounts; each is a descriptor until attached.

Runs in a step's first process and in the tracer, in namespaces of their own. Hostile paths are
resolved beneath their root, by descriptor, never through links of /proc.
"""

from __future__ import annotations

import errno
import os

from layercache.executors.rootfs.inside import syscalls as sys_

__all__ = [
    "IN_ROOT",
    "OVERLAY_METHODS",
    "SAFE",
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

IN_ROOT = sys_.RESOLVE_IN_ROOT | sys_.RESOLVE_NO_MAGICLINKS


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
    """The kernel's message about a failure, otherwise its error."""
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

    `volatile`: the upper file system isn't synced when the overlay is unmounted; the caller makes
    kept files durable. Renames of lower directories fail with EXDEV, as everywhere (programs then
    copy), because a layer can't express redirects.
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
    """A detached bind mount of `path` within `root`; links can't leave the root."""
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = sys_.openat2(base, path.lstrip("/") or ".", os.O_PATH, IN_ROOT)
    finally:
        os.close(base)
    try:
        return bind_fd(found, attributes)
    finally:
        os.close(found)


def bind_fd(fd: int, attributes: int, *, recursive: bool = False) -> int:
    """A detached bind mount of the open file or directory `fd`."""
    extra = sys_.AT_RECURSIVE if recursive else 0
    flags = sys_.OPEN_TREE_CLONE | sys_.AT_EMPTY_PATH | extra
    mounted = sys_.open_tree(fd, "", flags)
    if attributes:
        sys_.mount_setattr(mounted, extra, attributes)
    return mounted


def attach(mounted: int, target: str) -> None:
    """Attach a detached mount at a path outside the image; closes it."""
    fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        sys_.move_mount(mounted, fd)
    finally:
        os.close(fd)
        os.close(mounted)
