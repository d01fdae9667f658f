"""The first process of a step: builds the root, starts the command, reaps, reports.

It is process 1 of a new process namespace, so nothing of the step outlives it. The image is
hostile: once its tree is the root directory, no module may be imported, no path of it is
followed unresolved, and what runs before the command's exec trusts nothing of it.
"""

from __future__ import annotations

import errno
import os
import sys

from layercache.executors.rootfs.inside import mounts as _mounts
from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.inside.command import (
    Refused,
    identity_of,
    run_command,
    working_directory,
)

__all__ = ["probe", "report_broken", "report_gone", "run"]
from layercache.executors.rootfs.inside.network import loopback_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Spec = dict[str, Any]


def run(stream: _wire.Stream, output: int, program: bytes) -> None:
    """Do what the next frame of `stream` says.

    `output` is the command's standard output, `program` its filter of system calls.
    """
    try:
        spec = _wire.receive(stream)
        if spec is None:
            return
        if not program and not spec["insecure"]:
            raise OSError(
                errno.ENOSYS, f"the system calls of {os.uname().machine} can't be filtered"
            )
        root = _build(spec)
        try:
            identity = identity_of(spec, root)
            directory = working_directory(spec, root, identity)
            made = root.made
        finally:
            root.close()
        _wire.send(stream, {"event": "ready", "made": made})
        run_command(stream, spec, identity, directory, output, program)
    except Refused as error:
        _wire.send(stream, {"event": "failed", "message": str(error), "status": error.status})
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        report_broken(stream, f"{error.strerror}{where}")
    except Exception as error:  # noqa: BLE001  (reported: this process has no other way out)
        report_broken(stream, f"{type(error).__name__}: {error}")


def probe(scratch: str, *, userxattr: bool, single: bool) -> None:
    """Mount what every step mounts, in new namespaces; raises `OSError` with the reason."""
    for name in ("lower", "upper", "work", "root"):
        os.mkdir(os.path.join(scratch, name))
    at, lower, upper, work = (
        os.path.join(scratch, name) for name in ("root", "lower", "upper", "work")
    )
    for name in ("proc", "sys", "dev"):
        os.mkdir(os.path.join(lower, name))
    _mounts.overlay(at, [lower], upper, work, userxattr=userxattr, attributes=0)
    spec: Spec = {"insecure": False, "single_id": single, "shm_size": 4096, "etc": [], "files": []}
    system = _system_mounts(spec)
    _enter(at)
    _attach_system(spec, _mounts.Root(), system)


def report_broken(stream: _wire.Stream, message: str) -> None:
    """Tell the build that the step could not be set up, through no fault of the recipe."""
    _wire.send(stream, {"event": "broken", "message": message})


def report_gone(stream: _wire.Stream, code: int) -> None:
    """Tell the build that nothing of the step is left."""
    _wire.send(stream, {"event": "gone", "code": code})


# -- the root -----------------------------------------------------------------------------------


def _build(spec: Spec) -> _mounts.Root:
    """Make the image's tree the root directory, with everything mounted in it."""
    insecure = spec["insecure"]
    device = 0 if insecure else sys_.MOUNT_ATTR_NODEV
    sys_.set_hostname(spec["hostname"])
    if spec["new_network"]:
        loopback_up()
    base = spec["root"]
    _mounts.overlay(
        base["at"], base["lower"], base["upper"], base["work"],
        userxattr=spec["userxattr"], attributes=device, methods=spec["methods"],
        options=base["options"],
    )  # fmt: skip
    system = _system_mounts(spec)
    prepared = [(mount, _prepare(spec, mount, device)) for mount in spec["mounts"]]
    _enter(base["at"])
    root = _mounts.Root()
    _attach_system(spec, root, system)
    for mount, mounted in prepared:
        root.attach(mounted, mount["target"])
    if not insecure:
        root.mask(_mounts.MASKED)
        root.freeze(_mounts.READONLY)
    return root


def _enter(path: str) -> None:
    """Make `path`, a mount point, the root directory; the old one is gone afterwards."""
    # Whatever Python would load from now on would come from the image.
    sys.path.clear()
    sys.meta_path.clear()
    os.chdir(path)
    sys_.pivot_root(".", ".")
    sys_.umount(".", sys_.MNT_DETACH)
    os.chdir("/")


def _system_mounts(spec: Spec) -> dict[str, int]:
    """Detached mounts of /proc, /sys, /dev and what is in it, and /etc.

    All are made while the host's /proc and /sys are still there: in a user namespace the kernel
    allows new ones only beside them.
    """
    insecure = spec["insecure"]
    mounts = {"/proc": _mounts.filesystem("proc", (), _mounts.SAFE)}
    readonly = 0 if insecure else sys_.MOUNT_ATTR_RDONLY
    try:
        mounts["/sys"] = _mounts.filesystem("sysfs", (), _mounts.SAFE | readonly)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        # The network namespace is another user's: show the host's, which can't be written.
        mounts["/sys"] = _mounts.bind("/sys", readonly | _mounts.SAFE, recursive=True)
    safe_dev = sys_.MOUNT_ATTR_NOSUID | (0 if insecure else sys_.MOUNT_ATTR_NODEV)
    mounts["/dev"] = _mounts.filesystem("tmpfs", (("mode", "755"), ("size", "64m")), safe_dev)
    for name in _mounts.DEVICES:
        mounts[f"/dev/{name}"] = _mounts.bind(f"/dev/{name}", 0)
    pts: list[tuple[str, str | None]] = [("ptmxmode", "0666"), ("mode", "0620")]
    if not spec["single_id"]:
        pts.append(("gid", "5"))
    no_exec = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NOEXEC
    mounts["/dev/pts"] = _mounts.filesystem("devpts", pts, no_exec)
    mounts["/dev/shm"] = _mounts.filesystem(
        "tmpfs", (("mode", "1777"), ("size", str(spec["shm_size"]))), _mounts.SAFE
    )
    try:
        mounts["/dev/mqueue"] = _mounts.filesystem("mqueue", (), _mounts.SAFE)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    for target, path in spec["etc"]:
        mounts[target] = _mounts.bind(path, _mounts.SAFE | sys_.MOUNT_ATTR_RDONLY)
    return mounts


def _attach_system(spec: Spec, root: _mounts.Root, mounts: dict[str, int]) -> None:
    for target, mounted in mounts.items():
        root.attach(mounted, target)
        if target == "/dev":
            for link, name in _mounts.DEV_LINKS:
                os.symlink(link, f"/dev/{name}")
    if spec["files"]:
        os.mkdir("/dev/pipes", 0o755)
        for name, content in spec["files"]:
            _write(f"/dev/pipes/{name}", content, 0o755)


def _write(path: str, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _prepare(spec: Spec, mount: Spec, device: int) -> int:
    """A detached mount for one `--mount`, made while the host's tree is still there."""
    kind = mount["kind"]
    attributes = device | (sys_.MOUNT_ATTR_RDONLY if mount.get("readonly") else 0)
    if kind == "bind":
        for layer in mount["overlays"]:
            _mounts.overlay(
                layer["at"], layer["lower"], layer["upper"], layer["work"],
                userxattr=spec["userxattr"], attributes=device, methods=spec["methods"],
            )  # fmt: skip
        try:
            return _mounts.bind_beneath(mount["base"], mount["source"], attributes)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise Refused(
                    f"RUN --mount: {mount['source']!r} is not in what is mounted at "
                    f"{mount['target']}"
                ) from error
            raise
    if kind == "path":
        if mount["owner"] is not None:
            os.chown(mount["path"], *mount["owner"], follow_symlinks=False)
        return _mounts.bind(mount["path"], attributes)
    if kind == "tmpfs":
        options: list[tuple[str, str | None]] = [("mode", "1777")]
        if mount["size"]:
            options.append(("size", str(mount["size"])))
        return _mounts.filesystem("tmpfs", options, device | sys_.MOUNT_ATTR_NOSUID)
    if kind == "socket":
        path = mount["path"]
        os.chown(path, mount["uid"], mount["gid"], follow_symlinks=False)
        os.chmod(path, mount["mode"])
        return _mounts.bind(path, _mounts.SAFE)
    if kind == "secret":
        private = spec["private"]
        if not os.path.ismount(private):
            # Secrets are never on a disk.
            cover = _mounts.filesystem("tmpfs", (("mode", "700"),), _mounts.SAFE)
            _mounts.attach(cover, private)
        path = os.path.join(private, mount["name"])
        _write(path, mount["content"], mount["mode"])
        os.chown(path, mount["uid"], mount["gid"], follow_symlinks=False)
        return _mounts.bind(path, _mounts.SAFE | sys_.MOUNT_ATTR_RDONLY)
    raise ValueError(f"unknown kind of mount {kind!r}")
