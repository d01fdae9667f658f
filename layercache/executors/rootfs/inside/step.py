"""The first process of a step: builds the root, starts the command, reaps, reports.

It is process 1 of a new process namespace, so nothing of the step outlives it. The image is
hostile: once its tree is the root directory, no module may be imported, every path must be resolved
safely, and code that runs before the command's exec trusts nothing in it.
"""

from __future__ import annotations

import errno
import os
import sys

from layercache.executors.rootfs.inside import mounts as _mounts
from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside import system_mounts as _system
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.inside.command import identity_of, run_command, working_directory
from layercache.executors.rootfs.inside.image_root import Refused, Root, attach_system
from layercache.executors.rootfs.inside.network import loopback_up

__all__ = ["probe", "report_broken", "report_gone", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Spec = dict[str, Any]


def run(stream: _wire.Stream, output: int, program: bytes) -> None:
    """Execute the order in the next frame of `stream`.

    `output` is the command's standard output, `program` its filter of system calls.
    """
    try:
        spec = _wire.receive(stream)
        if spec is None:
            return
        if not program and not spec["insecure"]:
            raise OSError(errno.ENOSYS, f"the system calls of {sys_.machine()} can't be filtered")
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
    """Mount everything that a step mounts, in new namespaces; raises `OSError` with the reason."""
    names = ("lower", "upper", "work", "root", "staging")
    at = {name: os.path.join(scratch, name) for name in names}
    for path in at.values():
        os.mkdir(path)
    for name in _system.NAMES:
        os.mkdir(os.path.join(at["staging"], name))
    _mounts.overlay(
        at["root"], [at["lower"]], at["upper"], at["work"], userxattr=userxattr, attributes=0
    )
    spec: Spec = {"insecure": False, "single_id": single, "shm_size": 4096, "files": []}
    system = _system.build({**spec, "staging": at["staging"]})
    _enter(at["root"], system).close()


def report_broken(stream: _wire.Stream, message: str) -> None:
    """Report that the step could not be set up, through no fault of the recipe."""
    _wire.send(stream, {"event": "broken", "message": message})


def report_gone(stream: _wire.Stream, code: int) -> None:
    """Report that nothing of the step is left."""
    _wire.send(stream, {"event": "gone", "code": code})


# -- the root -----------------------------------------------------------------------------------


def _build(spec: Spec) -> Root:
    """Make the image's tree the root directory, with everything mounted in it."""
    insecure = spec["insecure"]
    device = 0 if insecure else sys_.MOUNT_ATTR_NODEV
    if spec["hostname"]:  # empty where a filter around the build refuses it
        sys_.set_hostname(spec["hostname"])
    if spec["new_network"]:
        loopback_up()
    base = spec["root"]
    if "timed" in base:
        _overlay(spec, base["timed"], device)
    _mounts.overlay(
        base["at"], base["lower"], base["upper"], base["work"],
        userxattr=spec["userxattr"], attributes=device, methods=spec["methods"],
        options=base["options"],
    )  # fmt: skip
    upper = os.open(base["upper"], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    system = _system.build(spec)
    files = [
        (target, _mounts.bind(path, _mounts.SAFE | sys_.MOUNT_ATTR_RDONLY))
        for target, path in spec["etc"]
    ]
    for mount in spec["mounts"]:
        files.append((mount["target"], _prepare(spec, mount, device)))
    root = _enter(base["at"], system, upper)
    for target, mounted in files:
        root.attach(mounted, target)
    return root


def _enter(path: str, system: dict[str, int], upper: int = -1) -> Root:
    """Make `path`, a mount point, the root directory, with `system` in it; the old root is
    detached.
    """
    # Whatever Python would load from now on would come from the image.
    sys.path.clear()
    sys.meta_path.clear()
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stubs = [attach_system(fd, name, system[name], upper) for name in _system.NAMES]
    os.chdir(path)
    sys_.pivot_root(".", ".")
    sys_.umount(".", sys_.MNT_DETACH)
    os.chdir("/")
    for name in _system.NAMES:
        if name != "proc":
            os.close(system[name])
    root = Root(fd, proc=system["proc"], upper=upper)
    root.made += [stub for stub in stubs if stub is not None]
    return root


def _overlay(spec: Spec, layer: Spec, device: int) -> None:
    """Mount an overlay below the step's own, and set the times that it is to show."""
    times = layer.get("times", b"")
    # Then only inodes are copied; a user namespace may not.
    alone: list[tuple[str, str]] = []
    if times and not spec["userxattr"]:
        alone = [("redirect_dir", "on"), ("metacopy", "on")]
    _mounts.overlay(
        layer["at"], layer["lower"], layer["upper"], layer["work"],
        userxattr=spec["userxattr"], attributes=device, methods=spec["methods"], options=alone,
    )  # fmt: skip
    if times:
        set_times(layer["at"], layer["paths"].split(b"\0"), map(int, times.split()))


def set_times(root: str, paths: Iterable[bytes], times: Iterable[int]) -> None:
    """Set times (ns) of files below `root`, by paths in which no link is followed; those of one
    directory come together.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    rules = sys_.RESOLVE_BENEATH | sys_.RESOLVE_NO_SYMLINKS
    here, directory = b"", -1
    try:
        for path, moment in zip(paths, times, strict=True):
            parent, _, name = path.rpartition(b"/")
            if directory < 0 or parent != here:
                if directory >= 0:
                    os.close(directory)
                    directory = -1
                place = os.fsdecode(parent) or "."
                directory = sys_.openat2(top, place, os.O_PATH | os.O_DIRECTORY, rules)
                here = parent
            os.utime(name, ns=(moment, moment), dir_fd=directory, follow_symlinks=False)
    finally:
        if directory >= 0:
            os.close(directory)
        os.close(top)


def _prepare(spec: Spec, mount: Spec, device: int) -> int:
    """A detached mount for one `--mount`, made while the host's tree is still visible."""
    kind = mount["kind"]
    attributes = device | (sys_.MOUNT_ATTR_RDONLY if mount.get("readonly") else 0)
    if kind == "bind":
        for layer in mount["overlays"]:
            _overlay(spec, layer, device)
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
        options = [("mode", "1777")]
        if mount["size"]:
            options.append(("size", str(mount["size"])))
        return _system.empty(*options, attributes=device | sys_.MOUNT_ATTR_NOSUID)
    if kind == "socket":
        path = mount["path"]
        os.chown(path, mount["uid"], mount["gid"], follow_symlinks=False)
        os.chmod(path, mount["mode"])
        os.utime(path, (_system.TIME, _system.TIME))
        return _mounts.bind(path, _mounts.SAFE)
    if kind == "secret":
        private = spec["private"]
        if not os.path.ismount(private):
            # Secrets are never on a disk.
            cover = _mounts.filesystem("tmpfs", (("mode", "700"),), _mounts.SAFE)
            _mounts.attach(cover, private)
        place = os.open(private, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _system.write(mount["name"], mount["content"], mount["mode"], place)
        os.close(place)
        path = os.path.join(private, mount["name"])
        os.chown(path, mount["uid"], mount["gid"], follow_symlinks=False)
        return _mounts.bind(path, _mounts.SAFE | sys_.MOUNT_ATTR_RDONLY)
    raise ValueError(f"unknown kind of mount {kind!r}")
