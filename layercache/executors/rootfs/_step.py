"""The first process of a step: builds the root, starts the command, reaps, reports.

It is process 1 of a new process namespace, so nothing of the step outlives it. The image is
hostile: once its tree is the root directory, no module may be imported, no path of it is
followed unresolved, and what runs before the command's exec trusts nothing of it.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import resource
import sys

from layercache.executors.accounts import resolve_user
from layercache.executors.rootfs import _mounts, _wire
from layercache.executors.rootfs import _syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Spec = dict[str, Any]

CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
sys_chroot, mknod, audit_write, setfcap: Docker's default set (moby, `oci/caps/defaults.go`)."""

_MASK = sum(1 << number for number in CAPABILITIES)


class _Refused(Exception):
    """The step can't start, and it is the recipe's fault; `status` as a shell would give it."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def run(stream: _wire.Stream, output: int) -> None:
    """Do what the next frame of `stream` says; `output` is the command's standard output."""
    try:
        spec = _wire.receive(stream)
        if spec is None:
            return
        root = _build(spec)
        try:
            identity = _identity(spec, root)
            directory = _working_directory(spec, root, identity)
            made = root.made
        finally:
            root.close()
        _wire.send(stream, {"event": "ready", "made": made})
        _run_command(stream, spec, identity, directory, output)
    except _Refused as error:
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
        _loopback_up()
    base = spec["root"]
    _mounts.overlay(
        base["at"], base["lower"], base["upper"], base["work"],
        userxattr=spec["userxattr"], attributes=device, methods=spec["methods"],
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
                raise _Refused(
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


def _loopback_up() -> None:
    """Bring up `lo` of a new network namespace."""
    request = bytearray(40)
    request[:2] = b"lo"
    request[16:18] = (0x1 | 0x40).to_bytes(2, sys.byteorder)  # IFF_UP | IFF_RUNNING
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(control.fileno(), 0x8914, request)  # SIOCSIFFLAGS
    except OSError as error:
        raise OSError(error.errno, f"bringing up the loopback device: {error.strerror}") from error
    finally:
        control.close()


# -- the command --------------------------------------------------------------------------------


def _identity(spec: Spec, root: _mounts.Root) -> tuple[int, int, list[int], str]:
    passwd, group = root.read("/etc/passwd"), root.read("/etc/group")
    try:
        uid, gid, groups, home = resolve_user(spec["user"], passwd, group)
    except LookupError as error:
        raise _Refused(f"USER {spec['user']}: {error.args[0]}") from error
    if spec["single_id"] and (uid, gid) != (0, 0):
        raise _Refused(
            f"USER {spec['user']}: this user namespace has one user only, so commands run as "
            "root: install newuidmap and give the user a range in /etc/subuid, or build as root"
        )
    if not all(_mapped("uid", uid) and _mapped("gid", n) for n in (gid, *groups)):
        raise _Refused(
            f"USER {spec['user']}: {uid}:{gid} is outside the range that /etc/subuid and "
            "/etc/subgid give to this user namespace"
        )
    return uid, gid, list(groups), home


def _mapped(kind: str, number: int) -> bool:
    """Whether this user namespace has the user (`uid`) or group (`gid`) `number`."""
    with open(f"/proc/self/{kind}_map", "rb", buffering=0) as file:
        rows = file.read(65536).split(b"\n")
    for row in rows:
        fields = row.split()
        if len(fields) == 3 and int(fields[0]) <= number < int(fields[0]) + int(fields[2]):
            return True
    return False


def _working_directory(
    spec: Spec, root: _mounts.Root, identity: tuple[int, int, list[int], str]
) -> int:
    """The working directory, open; made for the user where missing (as BuildKit does)."""
    found = root.find(spec["cwd"])
    if found is None:
        made = len(root.made)
        found = root.make(spec["cwd"], directory=True)
        new = root.made[made:]
        del root.made[made:]  # no stub of a mount: it stays
        for path in new:
            os.chown(path, identity[0], identity[1], follow_symlinks=False)
    return found


def _run_command(
    stream: _wire.Stream,
    spec: Spec,
    identity: tuple[int, int, list[int], str],
    directory: int,
    output: int,
) -> None:
    """Start the command, reap what ends until it does, report how it ended."""
    uid, gid, groups, home = identity
    environment = [(name, value) for name, value in spec["env"]]
    if not any(name == "HOME" for name, _ in environment):
        environment.append(("HOME", home))
    os.fchown(output, uid, gid)  # so that the command may reopen /dev/stdout
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    status_read, status_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(status_read)
            os.setsid()
            os.dup2(null, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status_write = _keep_only(status_write, directory)
            _become(spec, uid, gid, groups)
            _exec(spec["args"], environment)
        except _Refused as error:
            os.write(status_write, _wire.encode([str(error), error.status]))
        except OSError as error:
            os.write(status_write, _wire.encode([f"{error.strerror}", 126]))
        except BaseException as error:  # noqa: BLE001  (the child must not go on)
            os.write(status_write, _wire.encode([repr(error), 126]))
        finally:
            os._exit(126)
    for fd in (status_write, null, output, directory, 0, 1, 2):
        os.close(fd)
    said = b""
    while part := os.read(status_read, 65536):
        said += part
    ended, code = os.waitpid(-1, 0)
    while ended != pid:
        ended, code = os.waitpid(-1, 0)
    if said:
        message, status = _wire.decode(said)
        _wire.send(stream, {"event": "failed", "message": message, "status": status})
    else:
        _wire.send(stream, {"event": "exit", "code": os.waitstatus_to_exitcode(code)})


def _keep_only(status: int, directory: int) -> int:
    """Change to `directory` and leave no descriptor open but 0, 1, 2 and `status`."""
    try:
        os.fchdir(directory)
    except OSError as error:
        raise _Refused(f"the working directory can't be used: {error.strerror}") from error
    if status != 3:
        os.dup2(status, 3, inheritable=False)
    sys_.close_range(4, 0xFFFFFFFF)
    return 3


def _become(spec: Spec, uid: int, gid: int, groups: list[int]) -> None:
    """Limits, capabilities and identity of the command."""
    for number, soft, hard in spec["ulimits"]:
        resource.setrlimit(number, (soft, hard))
    os.umask(0o022)
    sys_.default_signals()
    sys_.new_session_keyring()
    kept = (1 << 64) - 1 if spec["insecure"] else _MASK
    number = 0
    held = 0
    while True:
        try:
            has = sys_.prctl(sys_.PR_CAPBSET_READ, number)
        except OSError:
            break  # past the last capability of this kernel
        if has and kept >> number & 1:
            held |= 1 << number
        elif has:
            sys_.prctl(sys_.PR_CAPBSET_DROP, number)
        number += 1
    if not spec["single_id"]:
        # The primary group is among the supplementary ones, as containerd has it.
        os.setgroups(list(dict.fromkeys((gid, *groups))))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if uid == 0:
        sys_.capset(held)


def _exec(args: list[str], environment: list[tuple[str, str]]) -> None:
    """Replace this process by the command, found in PATH; raises `_Refused`."""
    name = args[0]
    variables = dict(environment)
    if "/" in name:
        candidates = [name]
    else:
        candidates = [os.path.join(place or ".", name) for place in variables["PATH"].split(":")]
    denied: OSError | None = None
    for candidate in candidates:
        try:
            # Not through a link of /proc, e.g. to this very program of the host.
            os.close(sys_.openat2(sys_.AT_FDCWD, candidate, os.O_PATH, sys_.RESOLVE_NO_MAGICLINKS))
            os.execve(candidate, args, variables)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                denied = denied or error
                if error.errno not in (errno.EACCES, errno.EPERM):
                    break
    if denied is not None:
        why = denied.strerror
        if denied.errno == errno.ENOEXEC:
            why = f"{why}: it is neither a program for this machine nor begins with #!"
        raise _Refused(f"{name!r} can't be run: {why}", 126)
    where = "no such file" if "/" in name else f"not found in PATH ({variables['PATH']})"
    raise _Refused(f"{name!r} can't be run: {where}", 127)
