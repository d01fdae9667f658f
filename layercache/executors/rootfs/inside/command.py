"""The command of a step: its identity, working directory and limits; started and reaped.

Runs in the step's first process, with the image as its root directory (see `step`).
"""

from __future__ import annotations

import errno
import os
import resource

from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.inside.descriptors import FIRST, keep_only
from layercache.executors.rootfs.inside.image_root import Refused, Root
from layercache.layers.passwd import resolve_user

__all__ = ["CAPABILITIES", "Refused", "identity_of", "run_command", "working_directory"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Spec = dict[str, Any]
    Identity = tuple[int, int, list[int], str]

CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
sys_chroot, mknod, audit_write, setfcap: Docker's default set (moby, `oci/caps/defaults.go`)."""

_MASK = sum(1 << number for number in CAPABILITIES)
_NET_RAW = 1 << 13


def identity_of(spec: Spec, root: Root) -> Identity:
    known = spec["identity"]
    if known is not None:
        uid, gid, groups, home = known  # looked up already, unseen by the one who watches
        return uid, gid, list(groups), home
    passwd, group = root.read("/etc/passwd"), root.read("/etc/group")
    try:
        uid, gid, groups, home = resolve_user(spec["user"], passwd, group)
    except LookupError as error:
        raise Refused(f"USER {spec['user']}: {error.args[0]}") from error
    if spec["single_id"] and (uid, gid) != (0, 0):
        raise Refused(
            f"USER {spec['user']}: this user namespace has one user only, so commands run as "
            "root: install newuidmap and give the user a range in /etc/subuid, or build as root"
        )
    if not all(_mapped("uid", uid) and _mapped("gid", n) for n in (gid, *groups)):
        raise Refused(
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


def working_directory(spec: Spec, root: Root, identity: Identity) -> int:
    """The working directory, open; created for the user if missing (as in BuildKit)."""
    uid, gid, _, _ = identity
    try:
        return root.make(spec["cwd"], directory=True, owner=(uid, gid))
    except Refused as error:
        raise Refused(f"WORKDIR {spec['cwd']} can't be used: {error}") from error


def run_command(
    stream: _wire.Stream,
    spec: Spec,
    identity: Identity,
    directory: int,
    output: int,
    program: bytes,
) -> None:
    """Start the command, reap processes until it ends, report its outcome.

    `program` is the filter of system calls, which applies unless everything is permitted.
    """
    uid, gid, groups, home = identity
    environment = [(name, value) for name, value in spec["env"]]
    if not any(name == "HOME" for name, _ in environment):
        environment.append(("HOME", home))
    os.fchown(output, uid, gid)  # so that the command may reopen /dev/stdout
    # An empty pipe, as with BuildKit: what asks for more finds the end.
    nothing, end = os.pipe2(os.O_CLOEXEC)
    os.fchown(nothing, uid, gid)
    os.close(end)
    status_read, status_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(status_read)
            os.setsid()
            os.dup2(nothing, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status_write = _keep_only(status_write, directory)
            _become(spec, uid, gid, groups, program)
            _exec(spec["args"], environment)
        except Refused as error:
            os.write(status_write, _wire.encode([str(error), error.status]))
        except OSError as error:
            os.write(status_write, _wire.encode([f"{error.strerror}", 126]))
        except BaseException as error:  # noqa: BLE001  (the child must not go on)
            os.write(status_write, _wire.encode([repr(error), 126]))
        finally:
            os._exit(126)
    for fd in (status_write, nothing, output, directory, 0, 1, 2):
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
        raise Refused(f"the working directory can't be used: {error.strerror}") from error
    keep_only((status,))
    return FIRST


def _become(spec: Spec, uid: int, gid: int, groups: list[int], program: bytes) -> None:
    """Set limits, keyring, capabilities, filter and identity of the command."""
    for number, soft, hard in spec["ulimits"]:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            raise Refused(
                f"the limit {number} can't be {soft}:{hard}, which is above what this process may "
                f"grant: {error}"
            ) from error
    os.umask(0o022)
    sys_.plain_execution()
    sys_.default_signals()
    sys_.new_session_keyring()
    kept = (1 << 64) - 1 if spec["insecure"] else _MASK
    if not spec["raw_network"]:
        kept &= ~_NET_RAW
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
    if not spec["insecure"]:
        # What is left to do passes it; afterwards this process may not install it any more.
        sys_.filter_calls(program)
    if not spec["single_id"]:
        # The primary group is among the supplementary ones, as containerd has it.
        os.setgroups(list(dict.fromkeys((gid, *groups))))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    sys_.capset(held if uid == 0 else 0)


def _exec(args: list[str], environment: list[tuple[str, str]]) -> None:
    """Replace this process by the command, found in PATH; raises `Refused`."""
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
        raise Refused(f"{name!r} can't be run: {why}", 126)
    where = "no such file" if "/" in name else f"not found in PATH ({variables['PATH']})"
    raise Refused(f"{name!r} can't be run: {where}", 127)
