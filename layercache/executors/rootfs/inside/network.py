"""Networks of steps, served by a user-space program: pasta or slirp4netns.

A step has a network namespace with one device. The program takes packets sent there and talks to
the world as an ordinary process of the host. It would also talk to the host's own loopback
addresses, so the device has a filter in the kernel, which no packet can bypass, whatever the
command does in its namespace.

A namespace belongs to one step at a time and is reused by later ones: after a step, only closed
connections are left in it.
"""

from __future__ import annotations

import _socket
import ctypes
import fcntl
import os
import select
import struct

from layercache.executors.rootfs.inside import bpf
from layercache.executors.rootfs.inside import mounts as _mounts
from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside.descriptors import FIRST, keep_only

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ADDRESS", "Networks", "loopback_up", "packet_filter"]

DEVICE = "tap0"
ADDRESS = "10.0.2.100"
GATEWAY = "10.0.2.2"
RESOLVER = "10.0.2.3"
"""The same with each program and on each machine."""

_MTU = "65520"
_HARDWARE = b"\x02\x00\x0a\x00\x02\x64"
_SECONDS = 10
"""How long a program may take until it is ready."""

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNATTACHFILTER = 0x401054D5
_IFF_TAP_NO_PI = 0x1002
# linux/sockios.h
_SIOCSIFFLAGS = 0x8914
_SIOCSIFHWADDR = 0x8924


class Network:
    """A network namespace, and the process that serves it."""

    def __init__(self, namespace: int, process: int, pid: int) -> None:
        self.namespace = namespace
        self.process = process
        self.pid = pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return not poll.poll(0)

    def end(self) -> None:
        """End the process."""
        try:
            sys_.kill(self.process)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        os.close(self.process)
        os.close(self.namespace)


class Networks:
    """The networks of a build's steps."""

    def __init__(self) -> None:
        self._free: list[Network] = []
        self._used: list[Network] = []

    def take(self, programs: Sequence[str]) -> Network:
        """A network for one step, by the first of `programs` (paths) that works.

        Raises `OSError` with the message of each of them.
        """
        while self._free:
            network = self._free.pop()
            if network.alive:
                self._used.append(network)
                return network
            network.end()
        reasons = []
        for program in programs:
            namespace = _make_namespace()
            try:
                network = _start(program, namespace)
            except OSError as error:
                os.close(namespace)
                reasons.append(f"{os.path.basename(program)}: {error.strerror}")
            else:
                self._used.append(network)
                return network
        raise OSError(0, "; ".join(reasons) or "no program for it was given")

    def give_back(self, network: Network, *, reusable: bool) -> None:
        """Return the network of a step that is gone; `reusable`: the step could not change it."""
        self._used.remove(network)
        if reusable and network.alive:
            self._free.append(network)
        else:
            network.end()

    def end(self) -> None:
        """End all processes."""
        for network in (*self._used, *self._free):
            network.end()

    def forget(self) -> None:
        """Close everything in a forked process."""
        for network in (*self._used, *self._free):
            network.close()


def _start(program: str, namespace: int) -> Network:
    """Start `program` for `namespace`; raises `OSError` with its message."""
    ready, told = os.pipe2(os.O_CLOEXEC)
    said = os.memfd_create("said")
    pid = sys_.clone(sys_.CLONE_NEWPID)
    if pid == 0:
        try:
            sys_.prctl(sys_.PR_SET_PDEATHSIG, 9)
            sys_.default_signals()  # pasta does not start where SIGPIPE is ignored
            null = os.open("/dev/null", os.O_RDWR)
            for number, fd in enumerate((null, said, said)):
                os.dup2(fd, number)
            # Whatever else is open is closed; two numbers that the command line names stay.
            keep_only((namespace, told), inheritable=True)
            os.chdir("/")
            os.execve(program, _command(program, FIRST, FIRST + 1), {})
        finally:
            os._exit(127)
    os.close(told)
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    answer = b"" if not poll.poll(_SECONDS * 1000) else os.read(ready, 64)
    os.close(ready)
    text = os.pread(said, 4096, 0).decode("utf-8", "replace").strip()
    os.close(said)
    try:
        if answer:
            _filter_device(process, pid)
            return Network(namespace, process, pid)
    except OSError as error:
        text = f"its device can't be filtered ({error.strerror})"
    try:
        sys_.kill(process)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)
    os.close(process)
    raise OSError(0, text.splitlines()[-1] if text else "it ended, and said nothing")


def _filter_device(process: int, pid: int) -> None:
    """Attach the filter to a program's device, through the program's own descriptor of it.

    It applies to what the program reads, not to the device: it is invisible in the namespace, and
    no way of sending bypasses it. Raises `OSError`: without it no step gets the namespace.
    """
    code = packet_filter()
    held = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("@HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    found = False
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if not os.readlink(f"/proc/{pid}/fd/{name}").endswith("/net/tun"):
                continue
        except FileNotFoundError:
            continue  # it was closed just now
        device = sys_.pidfd_getfd(process, int(name))
        try:
            fcntl.ioctl(device, _TUNATTACHFILTER, filter_)
            found = True
        finally:
            os.close(device)
    if not found:
        raise OSError(0, "it has none open")


def _command(program: str, namespace: int, told: int) -> list[str]:
    """The command line of a program; it writes to the descriptor `told` when it is ready."""
    place = f"/proc/self/fd/{namespace}"
    if os.path.basename(program).startswith("slirp4netns"):
        return [
            program, "--configure", f"--ready-fd={told}", f"--mtu={_MTU}",
            "--disable-host-loopback", "--enable-sandbox", "--netns-type=path", place, DEVICE,
        ]  # fmt: skip
    # No port is forwarded either way, and the gateway is no name for the host.
    return [
        program, "--foreground", "--quiet", "--config-net", "--ipv4-only", "--no-map-gw",
        "-t", "none", "-u", "none", "-T", "none", "-U", "none",
        "-a", ADDRESS, "-n", "24", "-g", GATEWAY, "--dns-forward", RESOLVER,
        "-m", _MTU, "-I", DEVICE, "--runas", "0", "-P", f"/proc/self/fd/{told}",
        "--netns", place,
    ]  # fmt: skip


# -- the namespace ------------------------------------------------------------------------------


def _make_namespace() -> int:
    """A descriptor of a new network namespace with a device."""
    read, write = os.pipe2(os.O_CLOEXEC)
    # In the namespace of another user nobody gets back to the one before: a process of its own.
    # Its /proc can be mounted in a user namespace with a process namespace of its own only.
    pid = sys_.clone(sys_.CLONE_NEWNET | sys_.CLONE_NEWPID)
    if pid == 0:
        try:
            os.close(read)
            loopback_up()
            _allow_ping()
            _make_device()
            os.write(write, b"+")
            select.poll().poll()  # until it is killed
        except OSError as error:
            os.write(write, f"-{error.strerror}".encode()[:512])
        finally:
            os._exit(1)
    os.close(write)
    try:
        answer = os.read(read, 1024)
        if answer == b"+":
            return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        reason = answer[1:].decode("utf-8", "replace") or "the process that makes it ended"
        raise OSError(0, f"a network namespace: {reason}")
    finally:
        os.close(read)
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(pid, 0)


def loopback_up() -> None:
    """Bring up `lo` of a new network namespace."""
    request = bytearray(40)
    request[:2] = b"lo"
    request[16:18] = struct.pack("=H", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)
    except OSError as error:
        raise OSError(error.errno, f"bringing up the loopback device: {error.strerror}") from error
    finally:
        control.close()


def _allow_ping() -> None:
    """Permit ping's kind of socket for every group, as container engines do."""
    mounted = _mounts.filesystem("proc", (), _mounts.SAFE)
    try:
        fd = os.open("sys/net/ipv4/ping_group_range", os.O_WRONLY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)
    try:
        for last in (2147483647, 65535, 0):  # of a user namespace not all groups are there
            try:
                os.write(fd, b"0 %d" % last)
                break
            except OSError:
                continue
    finally:
        os.close(fd)


def _make_device() -> None:
    """A persistent tap device; the program attaches to it."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        name = DEVICE.encode().ljust(16, b"\0")
        fcntl.ioctl(device, _TUNSETIFF, name + struct.pack("=H22x", _IFF_TAP_NO_PI))
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
    except OSError as error:
        raise OSError(error.errno, f"making a tap device: {error.strerror}") from error
    finally:
        os.close(device)
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        address = struct.pack("=H", 1) + _HARDWARE  # ARPHRD_ETHER
        fcntl.ioctl(control.fileno(), _SIOCSIFHWADDR, name + address.ljust(24, b"\0"))
    finally:
        control.close()


def packet_filter() -> bytes:
    """The filter of frames that may leave a namespace: ARP, and IPv4 except to the host's loopback.

    The programs connect to any address in a packet, including 127.0.0.0/8 and 0.0.0.0/8, which mean
    the host's loopback there. The same may apply to the gateway's address and, if the host's
    resolver is a local one, to that of the resolver, of which only the DNS port stays open.
    """
    drop, keep = bpf.verdict(0), bpf.verdict(0xFFFFFFFF)
    # What comes in pieces has its ports in the first only; the header has a variable length.
    port = [(0xB1, 0, 0, 14), (0x48, 0, 0, 16), *bpf.choose(53, keep, drop)]
    resolver = bpf.load(20) + bpf.choose(0, port, drop, mask=0x3FFF0000)
    some = bpf.choose(0, drop, bpf.choose(0xFF000000, drop, keep))
    others = bpf.choose(0x7F000000, drop, some, mask=0xFF000000)
    to = bpf.load(30) + bpf.choose(
        _number(GATEWAY), drop, bpf.choose(_number(RESOLVER), resolver, others)
    )
    kinds = bpf.choose(0x08000000, to, bpf.choose(0x08060000, keep, drop), mask=0xFFFF0000)
    return bpf.assemble(bpf.load(12) + kinds)


def _number(address: str) -> int:
    return int.from_bytes(_socket.inet_aton(address), "big")
