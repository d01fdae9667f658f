"""A live display in a terminal: running steps, with their time and last line of output."""

from __future__ import annotations

import threading
from typing import Any

from layercache.errors import MissingExtra
from layercache.events import (
    BuildFinished,
    BuildStarted,
    CacheTrouble,
    Event,
    Note,
    StepExecuted,
    StepOutput,
    StepStarted,
)

__all__ = ["Live"]


class Live:
    """An observer; finished steps stay above, running ones are updated. Needs the extra `rich`.

    `console` is a `rich.console.Console`, standard error by default. Raises `MissingExtra`.
    """

    def __init__(self, console: Any = None) -> None:
        try:
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        except ImportError as error:
            raise MissingExtra("the live display", "rich") from error
        self._console = console if console is not None else Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[last]}", justify="left"),
            console=self._console,
            transient=True,
        )
        self._lock = threading.Lock()
        self._tasks: dict[int, Any] = {}
        self._lines: dict[int, bytes] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case BuildStarted():
                self._progress.start()
            case StepStarted(vertex, origin):
                text = _plain(" ".join(origin.text.split())[:80])
                self._tasks[vertex] = self._progress.add_task(text, total=None, last="")
            case StepOutput(vertex, _, chunk):
                self._show_last(vertex, chunk)
            case StepExecuted(vertex):
                task = self._tasks.pop(vertex, None)
                if task is not None:
                    self._progress.remove_task(task)
            case CacheTrouble(kind, message):
                self._console.print(f"[yellow]cache: {kind}[/]: {_plain(message)}")
            case Note(message):
                self._console.print(_plain(message))
            case BuildFinished():
                self._progress.stop()
            case _:
                pass

    def _show_last(self, vertex: int, chunk: bytes) -> None:
        task = self._tasks.get(vertex)
        if task is None:
            return
        whole = self._lines.get(vertex, b"") + chunk
        lines = [line for line in whole.replace(b"\r", b"\n").split(b"\n") if line.strip()]
        self._lines[vertex] = whole.rpartition(b"\n")[2][-4096:]
        if lines:
            last = lines[-1].decode("utf-8", "replace")
            shown = "".join(c if c.isprintable() else " " for c in last)[:60]
            self._progress.update(task, last=_plain(shown))


def _plain(text: str) -> str:
    """`text` with rich's markup escaped."""
    from rich.markup import escape

    from layercache.reports.visible import visible

    return escape(visible(text))
