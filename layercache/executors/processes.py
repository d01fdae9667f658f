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
from layercache.executors.rootfs.redaction import Redactor

__all__ = ["MAX_OUTPUT", "run_command", "shorten"]

MAX_OUTPUT = 2 << 20
"""Bytes of output that are kept with a step; the middle of more is left out."""

_TAIL_LINES = 20


def run_command(
    args: Sequence[str],
    *,
    cwd: str,
    environment: Mapping[str, str],
    log: Callable[[bytes], None],
    cancelled: Callable[[], bool],
    timeout: float | None = None,
    masks: Sequence[bytes] = (),
) -> bytes:
    """Run `args`; returns its output (standard output and error, in order), without `masks`.

    Raises `StepFailed` when it can't be started, ends with a status other than 0 or takes more
    than `timeout` seconds, `Cancelled` when `cancelled` says so. Nothing that it started is
    left running then, where the platform has process groups.
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
    collected = bytearray()
    reader = threading.Thread(target=_pump, args=(process, collected, log, masks), daemon=True)
    reader.start()
    try:
        reason = _wait(process, cancelled, timeout)
    finally:
        _kill(process)
        reader.join()
    output = shorten(bytes(collected))
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


def _pump(
    process: subprocess.Popen[bytes],
    collected: bytearray,
    log: Callable[[bytes], None],
    masks: Sequence[bytes],
) -> None:
    pipe = process.stdout
    assert pipe is not None
    redactor = Redactor(masks)
    ended = False
    while not ended:
        read = os.read(pipe.fileno(), 1 << 16)
        ended = not read
        chunk = redactor.end() if ended else redactor.feed(read)
        if chunk:
            log(chunk)
        collected += chunk
        if len(collected) > 2 * MAX_OUTPUT:
            collected[:] = shorten(bytes(collected))
    pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: a step leaves no process behind, also when it succeeds."""
    if sys.platform != "win32":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # all gone already
    elif process.poll() is None:
        process.kill()
    process.wait()


def shorten(output: bytes, limit: int = MAX_OUTPUT) -> bytes:
    """`output`, its middle left out when it is longer than `limit` bytes."""
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
