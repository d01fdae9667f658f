"""The output of a running command: streamed without secrets, partly kept, quoted on failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layercache.executors.redaction import Redactor
from layercache.executors.workspace.processes import MAX_OUTPUT, shorten

__all__ = ["Output", "shown_command"]

_TAIL_LINES = 20


class Output:
    """Receives a command's output; `log` gets it as it arrives, without `masks`."""

    def __init__(self, log: Callable[[bytes], None], masks: Sequence[bytes]) -> None:
        self._log = log
        self._redactor = Redactor(masks)
        self._kept = bytearray()

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        self._take(self._redactor.feed(chunk))

    def end(self) -> bytes:
        """End the output; returns the part that is kept, without the middle if it is long."""
        self._take(self._redactor.end())
        return shorten(bytes(self._kept))

    def tail(self) -> str:
        """The last lines, each on its own indented line, for an error message."""
        text = self._kept[-64 * 1024 :].decode("utf-8", "replace").rstrip()
        return "".join(f"\n    {line}" for line in text.splitlines()[-_TAIL_LINES:])

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._log(chunk)
        self._kept += chunk
        if len(self._kept) > 2 * MAX_OUTPUT:
            self._kept[:] = shorten(bytes(self._kept))


def shown_command(args: Sequence[str]) -> str:
    """A command for a message, on one line: the shell's script rather than the shell."""
    text = args[-1] if len(args) >= 3 and args[1] == "-c" else " ".join(args)
    first, _, rest = text.strip().partition("\n")
    return repr(first + (" ..." if rest else ""))
