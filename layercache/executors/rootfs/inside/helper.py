"""The helper process: one for a build, forks the first process of every step.

It exists because a build has threads, and a process with threads must not fork. It is
single-threaded, imports only what steps need, and is started with `python -I -S`.

First it makes a mount namespace of its own, in which the host is read-only except for the scratch
directory, and executes itself again from there: even if a step reaches something of the host, e.g.
this program through /proc/self/exe, it can't be written.
"""

from __future__ import annotations

import _socket
import os
import select
import sys

from layercache.executors.rootfs.inside import cgroups as _cgroups
from layercache.executors.rootfs.inside import seccomp as _seccomp
from layercache.executors.rootfs.inside import step as _step
from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside import userns as _userns
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.inside.command import CAPABILITIES
from layercache.executors.rootfs.inside.descriptors import FIRST, keep_only
from layercache.executors.rootfs.inside.network import Network, Networks

__all__ = ["AGENT", "KILL", "NAMESPACES", "START", "main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NAMESPACES = sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | sys_.CLONE_NEWUTS | sys_.CLONE_NEWIPC
"""What every step has of its own from its first process on; a control group namespace follows."""

_LAST_GROUPS_SECONDS = 1.0
"""How long the end of a build waits for the kernel to let go of control groups."""

_MOST_FDS = 253
"""Descriptors of one message (SCM_MAX_FD): the kernel refuses more where they are sent."""

START = "start"
KILL = "kill"
AGENT = "agent"


def main(arguments: Sequence[str]) -> None:
    """Run one of the helper's programs; the arguments are one of

    `enclose CHANNEL SCRATCH COMMAND...`, which is followed by `serve CHANNEL PREFIX GROUP...`:
    serve the SOCK_SEQPACKET socket CHANNEL until the build closes it or is gone; names of the
    steps' control groups begin with PREFIX, each GROUP is a descriptor of their parent directory;
    `probe SCRATCH USERXATTR SINGLE`: try everything that a step needs.

    A leading `userns` and its arguments request a user namespace.
    """
    if arguments[0] == "userns":
        try:
            _userns.enter(arguments[1 : 1 + _userns.COUNT])
        except OSError as error:
            print(error.strerror, file=sys.stderr)
            sys.exit(1)
        arguments = arguments[1 + _userns.COUNT :]
    command, *rest = arguments
    if command == "probe":
        os._exit(_probe(rest[0], userxattr=rest[1] == "1", single=rest[2] == "1"))
    if command == "enclose":
        groups = _cgroups.open_own()
        for fd in groups:
            os.set_inheritable(fd, True)
        enclose(rest[1])
        os.execv(rest[2], [*rest[2:], *map(str, groups)])
    channel, *groups = int(rest[0]), *map(int, rest[2:])
    os.umask(0o022)
    for fd in (channel, *groups):
        os.set_inheritable(fd, False)
    Runner(_socket.socket(fileno=channel), _cgroups.Groups(groups, rest[1])).serve()


def enclose(scratch: str) -> None:
    """Enter a mount namespace in which only `scratch` is writable."""
    sys_.unshare(sys_.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sys_.mount_setattr(root, sys_.AT_RECURSIVE, 0, propagation=sys_.MS_PRIVATE)
    writable = sys_.open_tree(place, "", sys_.OPEN_TREE_CLONE | sys_.AT_EMPTY_PATH)
    sys_.mount_setattr(root, sys_.AT_RECURSIVE, sys_.MOUNT_ATTR_RDONLY)
    sys_.move_mount(writable, place)
    for fd in (writable, place, root):
        os.close(fd)


def _probe(scratch: str, *, userxattr: bool, single: bool) -> int:
    """Try everything that a step needs; 0 if all of it works, otherwise the reason is printed."""
    machine = sys_.machine()
    program = _seccomp.filter_of(machine, CAPABILITIES)
    if not (sys_.supported() and program):
        print(f"the system calls of {machine} are not known, so none can be filtered", flush=True)
        return 1
    try:
        enclose(scratch)
        pid = sys_.clone(NAMESPACES)
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys_.unshare(sys_.CLONE_NEWCGROUP)
        _step.probe(scratch, userxattr=userxattr, single=single)
        sys_.filter_calls(program)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"{error.strerror}{where}", flush=True)  # nothing flushes on the way out
        return 1
    return 0


class Runner:
    """The running steps: each has a process 1 and a stream to the build."""

    def __init__(self, sock: _socket.socket, groups: _cgroups.Groups) -> None:
        self.sock = sock
        self.groups = groups
        self.parent = os.pidfd_open(os.getppid())
        self.self = os.pidfd_open(os.getpid())
        self.steps: dict[int, tuple[int, int, _socket.socket]] = {}
        """Descriptor of the process → its number, the step's number, its stream."""
        self.networks = Networks()
        self.network_of: dict[int, tuple[Network, bool]] = {}
        """Descriptor of the process → its network, and whether others may have it next."""
        self.agents: dict[int, int] = {}
        """Descriptor of the process → its number."""
        self.filter = _seccomp.filter_of(sys_.machine(), CAPABILITIES)
        self.poll = select.poll()
        self.poll.register(sock.fileno(), select.POLLIN)
        self.poll.register(self.parent, select.POLLIN)

    def serve(self) -> None:
        while True:
            for fd, _ in self.poll.poll():
                if fd in self.steps:
                    self.reap(fd)
                elif fd in self.agents:
                    self.poll.unregister(fd)
                    os.close(fd)
                    os.waitpid(self.agents.pop(fd), 0)
                elif fd == self.parent or not self.request():
                    self.end()
                    return

    def request(self) -> bool:
        """Handle one request; False at the end."""
        size = _socket.CMSG_SPACE(_MOST_FDS * 4)
        data, ancillary, _, _ = self.sock.recvmsg(1 << 17, size)
        if not data:
            return False
        fds: list[int] = []
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                usable = len(content) - len(content) % 4
                fds += memoryview(content[:usable]).cast("i").tolist()
        for fd in fds:
            os.set_inheritable(fd, False)
        command, number, argument = _wire.decode(data)
        if command == KILL:
            for pidfd, (_, known, _) in self.steps.items():
                if known == number:
                    _kill(pidfd)
        elif command == START:
            self.start(number, argument, fds)
        elif command == AGENT:
            self.agent(argument, fds)
        return True

    def agent(self, command: list[str], fds: list[int]) -> None:
        """Start a program in these namespaces; its last argument becomes the first of `fds`.

        No program means the tracer, for which everything is already loaded.
        """
        pid = os.fork()
        if pid == 0:
            try:
                sys_.prctl(sys_.PR_SET_PDEATHSIG, 9)
                if not command:
                    self.trace(fds)
                for fd in fds:
                    os.set_inheritable(fd, True)
                os.execv(command[0], [*command, str(fds[0])])
            finally:
                os._exit(127)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self.agents[pidfd] = pid
        self.poll.register(pidfd, select.POLLIN)

    @staticmethod
    def trace(fds: list[int]) -> None:
        """In a new process: run the tracer of this build; does not return."""
        status = 1
        try:
            keep_only(fds)  # streams of steps must not stay open in here
            from layercache.executors.rootfs.inside import tracefs as _tracefs

            _tracefs.main(FIRST)
            status = 0
        finally:
            os._exit(status)

    def start(self, number: int, order: dict[str, Any], fds: list[int]) -> None:
        """Fork process 1 of a step; `fds` are its stream, its output, and the locks that it holds.

        `order` tells which namespaces are new (`flags`), and which programs can serve its network
        (`network`, none for the present namespace); `reusable` means that the step can't change the
        network.
        """
        network = None
        groups = self.groups.make(number)
        try:
            if order["network"]:
                try:
                    network = self.networks.take(order["network"])
                except OSError as error:
                    raise OSError(error.errno, f"a network of its own: {error.strerror}") from error
            try:
                pid = sys_.clone(order["flags"])
            except OSError as error:
                raise OSError(error.errno, f"new namespaces: {error.strerror}") from error
        except OSError as error:
            if network is not None:
                self.networks.give_back(network, reusable=True)
            stream = _socket.socket(fileno=fds[0])
            _step.report_broken(stream, str(error.strerror))
            stream.close()
            for fd in (*fds[1:], *groups):
                os.close(fd)
            self.groups.clear()
            return
        if pid == 0:
            self.child(fds, groups, network)
        for fd in (*fds[1:], *groups):
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self.steps[pidfd] = (pid, number, _socket.socket(fileno=fds[0]))
        if network is not None:
            self.network_of[pidfd] = (network, order["reusable"])
        self.poll.register(pidfd, select.POLLIN)

    def child(self, fds: list[int], groups: list[int], network: Network | None) -> None:
        """In the step's process 1: run the step; does not return."""
        status = 1
        try:
            sys_.prctl(sys_.PR_SET_PDEATHSIG, 9)
            alive = select.poll()
            alive.register(self.self, select.POLLIN)
            if not alive.poll(0):
                self.sock.close()
                os.close(self.parent)
                os.close(self.self)
                for pidfd, (_, _, stream) in self.steps.items():
                    os.close(pidfd)
                    stream.close()
                for pidfd in self.agents:
                    os.close(pidfd)
                _cgroups.enter(groups)
                self.groups.close()
                sys_.unshare(sys_.CLONE_NEWCGROUP)
                if network is not None:
                    sys_.setns(network.namespace, sys_.CLONE_NEWNET)
                self.networks.forget()
                _unreachable()
                _step.run(_socket.socket(fileno=fds[0]), fds[1], self.filter)
                status = 0
        finally:
            os._exit(status)

    def reap(self, pidfd: int) -> None:
        """Report that a process 1 has ended, and with it everything in its namespace."""
        pid, _, stream = self.steps.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        _, code = os.waitpid(pid, 0)
        network, reusable = self.network_of.pop(pidfd, (None, False))
        if network is not None:
            self.networks.give_back(network, reusable=reusable)
        try:
            _step.report_gone(stream, os.waitstatus_to_exitcode(code))
        except OSError:
            pass  # the build has stopped listening
        stream.close()
        self.groups.clear()

    def end(self) -> None:
        """Kill running steps and wait until they are gone."""
        for pidfd in (*self.steps, *self.agents):
            _kill(pidfd)
        for pid in (*(pid for pid, _, _ in self.steps.values()), *self.agents.values()):
            os.waitpid(pid, 0)
        self.networks.end()
        self.groups.finish(_LAST_GROUPS_SECONDS)


def _unreachable() -> None:
    """Protect this process, the first of a step, from everything in the step.

    Its namespace delivers only signals that it handles, and the interpreter handles one; it can't
    be traced or inspected, although the command has the same user; and the scheduler's per-session
    settings don't reach other steps.
    """
    sys_.default_signals()
    sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
    os.setsid()


def _kill(pidfd: int) -> None:
    try:
        sys_.kill(pidfd)
    except ProcessLookupError:
        pass
