"""The build's side of the helper process: start it, give it steps, follow each to its end."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from layercache._base.classes import frozen
from layercache.errors import BuildError, Cancelled
from layercache.executors.rootfs.helper_command import (
    agent_command,
    helper_command,
    helper_environment,
)
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.user_namespace import UserNamespace

if TYPE_CHECKING:
    from layercache.executors.rootfs.inside.wire import Sendable

__all__ = ["Ended", "HelperClient"]

_POLL_SECONDS = 0.1
"""How often a waiting step asks whether the build was cancelled."""

# New mount, process, UTS and IPC namespaces; a network namespace (linux/sched.h).
_NAMESPACES = 0x00020000 | 0x20000000 | 0x04000000 | 0x08000000
_NEW_NETWORK = 0x40000000

METHODS = ("fd", "path", "mount")
"""How an overlay may be mounted, the first that works."""

_ADVICE = (
    "; overlayfs can't write to the file system of the scratch directory: name one on a local "
    "disk or a tmpfs, in a container a volume"
)

_CLOSE_SECONDS = 30
"""How long the helper may take to end its steps."""


@frozen
class Ended:
    """The outcome of a step: the command's status, or the reason why it did not start.

    `code` is the exit status, or minus the number of the signal that killed the command.
    `message` is set if the command never ran. `made` are mount points that had to be created
    in the image's tree, with their inodes in its upper directory, each after its parent
    directory.
    """

    code: int
    message: str = ""
    made: tuple[tuple[str, int], ...] = ()
    timed_out: bool = False


class HelperClient:
    """One helper process, started at the first step. Safe for threads.

    `scratch` is the only directory of the host that it and its steps can write to. `held` are
    descriptors of locks that must last until the last process of every step is gone. Names of the
    steps' control groups begin with `prefix`, which is unique among running builds. With
    `namespace` everything happens in this user namespace.
    """

    def __init__(
        self,
        scratch: str,
        held: Sequence[int],
        prefix: str,
        namespace: UserNamespace | None = None,
    ) -> None:
        self._scratch = scratch
        self._prefix = prefix
        self._held = tuple(held)
        self._namespace = namespace
        self._lock = threading.Lock()
        self._number = 0
        self._active: set[int] = set()
        self._ended = threading.Condition()
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._errors: BinaryIO | None = None

    # -- the process ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the helper if it isn't running; raises `BuildError` on failure."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._close()
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the helper)
        channel = str(theirs.fileno())
        enter: list[str] = []
        if self._namespace is not None:
            enter = ["userns", *self._namespace.arguments()]
        serve = helper_command("serve", channel, self._prefix)
        try:
            self._process = subprocess.Popen(
                helper_command(*enter, "enclose", channel, self._scratch, *serve),
                env=helper_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the build; it ends the helper in order
            )
        except OSError as error:
            ours.close()
            raise BuildError(f"the helper process can't be started: {error}") from error
        finally:
            theirs.close()
        self._channel = ours
        self._errors = errors

    def stop_steps(self) -> None:
        """End every step and accept no further ones; returns when they are gone."""
        self._stopping = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        with self._ended:
            for number in self._active:
                self.kill(number)
            while self._active and time.monotonic() < deadline:
                self._ended.wait(0.1)

    def close(self) -> None:
        """End the helper and every step; returns when they are gone."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its steps die with it
                self._process.wait()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def said(self) -> str:
        """The helper's output before it died."""
        if self._errors is None:
            return ""
        # The helper writes through the same open file: its position is not to be moved.
        said = os.pread(self._errors.fileno(), 1 << 16, 0)
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return ": " + lines[-1] if lines else ""

    # -- steps ------------------------------------------------------------------------------

    def run(
        self,
        spec: Mapping[str, Sendable],
        *,
        network: Sequence[str] = (),
        held: Sequence[int] = (),
        log: Callable[[bytes], None],
        cancelled: Callable[[], bool],
        timeout: float | None = None,
    ) -> Ended:
        """Run a step to its end, when nothing of it is left.

        `network` are programs that can serve a network of its own, the best first; without any, the
        step has none. `held` are further locks that it holds, `log` receives its output as it
        arrives. Raises `Cancelled` if `cancelled` returns True, `BuildError` if the step can't be
        set up. Even if it raises, the step's processes are gone.
        """
        self.start()
        namespace = self._namespace
        spec = {
            **spec,
            "userxattr": namespace is not None,
            "single_id": namespace is not None and namespace.single,
            "methods": METHODS,
        }
        order: dict[str, Sendable] = {
            "flags": _NAMESPACES | (_NEW_NETWORK if spec["new_network"] else 0),
            "network": list(network),
            "reusable": not spec["insecure"],
        }
        ours, theirs = socket.socketpair()
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            with self._lock:
                self._number += 1
                number = self._number
                self._request("start", number, order, [theirs.fileno(), write, *self._held, *held])
        except BaseException:
            ours.close()
            os.close(read)
            raise
        finally:
            theirs.close()
            os.close(write)
        with self._ended:
            self._active.add(number)
        try:
            if self._stopping:
                self.kill(number)
            step = _Step(self, number, ours, read, log)
            try:
                _wire.send(ours, spec)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it ended while being set up; what it said is still to be read
            return step.follow(cancelled, timeout)
        finally:
            ours.close()
            os.close(read)
            with self._ended:
                self._active.discard(number)
                self._ended.notify_all()

    def agent(self) -> socket.socket:
        """Start an agent beside the steps; returns the channel for requests. Closing it ends the
        agent.
        """
        single = self._namespace is not None and self._namespace.single
        return self.program(agent_command(single=single))

    def program(self, command: Sequence[str]) -> socket.socket:
        """Start one of this package's programs beside the steps, in their mount namespace."""
        self.start()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    fds = [theirs.fileno(), *self._held]
                    self._request("agent", 0, list(command), fds)
            except BaseException:
                ours.close()
                raise
        return ours

    def kill(self, number: int) -> None:
        """Kill a step; has no effect if it has ended."""
        with self._lock:
            if self._channel is not None:
                try:
                    self._request("kill", number, None, [])
                except BuildError:
                    pass  # the helper is gone, and its steps with it

    def _request(self, command: str, number: int, argument: Sendable, fds: Sequence[int]) -> None:
        channel = self._channel
        if channel is None:
            raise BuildError("the helper process was closed")
        try:
            socket.send_fds(channel, [_wire.encode([command, number, argument])], list(fds))
        except OSError as error:
            raise BuildError(f"the helper process is gone{self.said()}") from error


class _Step:
    """One running step, seen from the build."""

    def __init__(
        self,
        runner: HelperClient,
        number: int,
        stream: socket.socket,
        output: int,
        log: Callable[[bytes], None],
    ) -> None:
        self._runner = runner
        self._number = number
        self._stream = stream
        self._output = output
        self._log = log
        self._events: dict[str, dict[str, Any]] = {}
        self._gone = False

    def follow(self, cancelled: Callable[[], bool], timeout: float | None) -> Ended:
        deadline = None if timeout is None else time.monotonic() + timeout
        reason = ""
        try:
            while not self._gone:
                self._wait(_POLL_SECONDS)
                if self._gone or reason:
                    continue
                if cancelled():
                    reason = "cancelled"
                elif deadline is not None and time.monotonic() > deadline:
                    reason = "timeout"
                if reason:
                    self._runner.kill(self._number)
        finally:
            if not self._gone:
                self._abandon()
        self._drain()
        if reason == "cancelled":
            raise Cancelled("the step was cancelled")
        return self._ended(timed_out=reason == "timeout")

    def _wait(self, seconds: float) -> None:
        """Take the available output and events."""
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        if self._output >= 0:
            poll.register(self._output, select.POLLIN)
        for fd, _ in poll.poll(seconds * 1000):
            if fd == self._output:
                self._read()
            else:
                self._event()

    def _read(self) -> bool:
        chunk = os.read(self._output, 1 << 16)
        if chunk:
            self._log(chunk)
        else:
            self._output = -1
        return bool(chunk)

    def _event(self) -> None:
        try:
            event = _wire.receive(self._stream)
        except ConnectionResetError:
            event = None
        if event is None:
            self._gone = True
            message = f"the helper process is gone{self._runner.said()}"
            self._events.setdefault("broken", {"message": message})
        else:
            self._events[event["event"]] = event
            self._gone = event["event"] == "gone"

    def _drain(self) -> None:
        """Read the output to its end; no writer is left."""
        while self._output >= 0 and self._read():
            pass

    def _abandon(self) -> None:
        """Something was raised here: the step must be gone before it goes on."""
        self._runner.kill(self._number)
        self._log = lambda chunk: None
        while not self._gone:
            self._wait(1.0)

    def _ended(self, timed_out: bool) -> Ended:
        stubs = self._events.get("ready", {}).get("made", ())
        made = tuple((path, inode) for path, inode in stubs)
        if timed_out:
            return Ended(code=-9, made=made, timed_out=True)
        if failed := self._events.get("failed"):
            return Ended(code=failed["status"], message=failed["message"], made=made)
        if ended := self._events.get("exit"):
            return Ended(code=ended["code"], made=made)
        if broken := self._events.get("broken"):
            message = f"the step could not be set up: {broken['message']}"
            if "upperdir" in message:
                message += _ADVICE
            raise BuildError(message)
        code = self._events.get("gone", {}).get("code", 0)
        if "ready" in self._events:
            # E.g. for lack of memory, or because the command lowered the limits of its parent.
            message = f"the first process of the step ended before it (signal {-code})"
            return Ended(code=128 - code, message=message, made=made)
        raise BuildError(f"the step's first process was killed by signal {-code}")
