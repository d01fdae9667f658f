"""Run one command on the host: streamed output, a time limit, cancellation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from layercache.errors import Cancelled, StepFailed
from layercache.executors.redaction import Redactor

__all__ = ["MAX_OUTPUT", "run_command", "shorten"]

MAX_OUTPUT = 2 << 20
"""Bytes of output that are kept with a step; the middle of more is left out."""

_TAIL_LINES = 20

_LINGER_SECONDS = 1.0
"""How long nothing must come until output ends that something still holds open."""

_PIPE_SIZE = 1 << 20
"""Bytes that may be in a pipe when the last writer has ended."""


def run_command(
    args: Sequence[str],
    *,
    cwd: str,
    environment: Mapping[str, str],
    log: Callable[[bytes], None],
    cancelled: Callable[[], bool],
    timeout: float | None = None,
    masks: Sequence[bytes] = (),
    end: Callable[[], None] | None = None,
) -> bytes:
    """Run `args`; returns its output (standard output and error, in order), without `masks`.

    Raises `StepFailed` if it can't be started, ends with a status other than 0 or takes more than
    `timeout` seconds; `Cancelled` if `cancelled` returns True; and the errors of `log`. Its
    processes are then ended, on platforms with process groups; `end` ends those that left the
    group. A process that can't be ended is not waited for, even if it holds the output open.
    """
    try:
        process = subprocess.Popen(
            args,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=sys.platform != "win32",
            umask=0o022 if sys.platform != "win32" else -1,  # the caller's is in no key
        )
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise StepFailed(f"{args[0]!r} can't be run: {error.strerror}", status=status) from error
    reader = _Reader(process, log, masks)
    try:
        reason = _wait(process, lambda: reader.error is not None or cancelled(), timeout)
    finally:
        _kill(process)
        if end is not None:
            end()
        output = reader.finish()
    if reader.error is not None:
        raise reader.error
    if reason == "cancelled":
        raise Cancelled(f"{_shown(args)} was cancelled")
    if reason:
        raise StepFailed(f"{_shown(args)} {reason}", status=124)
    if process.returncode:
        raise StepFailed(
            f"{_shown(args)} did not complete: exit status {process.returncode}{_tail(output)}",
            status=process.returncode,
        )
    return output


def _wait(
    process: subprocess.Popen[bytes], cancelled: Callable[[], bool], timeout: float | None
) -> str:
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            process.wait(pause)
            return ""
        except subprocess.TimeoutExpired:
            pause = min(0.1, pause * 2)
        if cancelled():
            return "cancelled"
        if deadline is not None and time.monotonic() > deadline:
            return f"took longer than {timeout:g} s"


class _Reader:
    """Reads the output of `process` in a thread of its own, so that the process never blocks.

    `error` is the exception that `log` raised; the rest of the output is then discarded.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log: Callable[[bytes], None],
        masks: Sequence[bytes],
    ) -> None:
        self.error: BaseException | None = None
        self._process = process
        self._log = log
        self._redactor = Redactor(masks)
        self._collected = bytearray()
        self._lock = threading.Lock()
        self._read = 0
        self._finished = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> bytes:
        """The output, once all possible writers are gone or can't be ended.

        The content of the pipe is read, however slow `log` is, but no more than that.
        """
        before, known = self._read, -1
        while self._thread.is_alive() and known < self._read < before + _PIPE_SIZE:
            with self._lock:
                known = self._read
            self._thread.join(_LINGER_SECONDS)
        with self._lock:
            if not self._finished:
                self._finished = True
                self._take(self._redactor.end())
            return shorten(bytes(self._collected))

    def _run(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            while read := os.read(pipe.fileno(), 1 << 16):
                with self._lock:
                    if self._finished:
                        return
                    self._read += len(read)
                    self._take(self._redactor.feed(read))

    def _take(self, chunk: bytes) -> None:
        if not chunk or self.error is not None:
            return
        self._collected += chunk
        if len(self._collected) > 2 * MAX_OUTPUT:
            self._collected[:] = shorten(bytes(self._collected))
        try:
            self._log(chunk)
        except BaseException as error:  # noqa: BLE001  (raised where the command is waited for)
            self.error = error


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: a step leaves no process behind, even if it succeeds."""
    if sys.platform != "win32":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # all gone already
    elif process.poll() is None:
        process.kill()
    process.wait()


def shorten(output: bytes, limit: int = MAX_OUTPUT) -> bytes:
    """`output`, without its middle if it is longer than `limit` bytes."""
    if len(output) <= limit:
        return output
    half = limit // 2
    return output[:half] + b"\n[... output left out ...]\n" + output[-half:]


def _shown(args: Sequence[str]) -> str:
    text = args[-1] if len(args) >= 3 and args[1] == "-c" else " ".join(args)
    first, _, rest = text.strip().partition("\n")
    return repr(first + (" ..." if rest else ""))


def _tail(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").rstrip().splitlines()[-_TAIL_LINES:]
    return "".join(f"\n    {line}" for line in lines)
