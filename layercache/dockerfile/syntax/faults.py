"""Mistakes in a Dockerfile, collected for the whole file, each with its position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from layercache.dockerfile.syntax.limits import RecipeLimits
from layercache.errors import DockerfileError, Problem

__all__ = ["Fault", "Faults", "nearest"]

_SHOWN: Final = 160
"""Characters of a source line that are shown around the marked place."""


class Fault(Exception):
    """One mistake in one instruction. `word` is the part of the text to mark."""

    def __init__(
        self,
        message: str,
        word: str = "",
        *,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.word = word
        self.expected = expected
        self.suggestion = suggestion


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` is most likely a misspelling of, or None."""
    import difflib

    if not word or len(word) > 40:
        return None
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


def _for_one_line(text: str) -> str:
    """A quoted text shortened to fit on one line of a message."""
    return text if len(text) <= 400 else text[:399] + "…"


class Faults:
    """Collects the problems of one file. `lines` are its physical lines."""

    def __init__(self, name: str, lines: Sequence[str], limits: RecipeLimits) -> None:
        self.name = name
        self.lines = lines
        self.limits = limits
        self.problems: list[Problem] = []

    def add(self, fault: Fault, line: int, end_line: int | None = None) -> None:
        """Record a mistake in the instruction on these lines (counted from 1).

        Raises `DockerfileError` if there are too many to continue.
        """
        self.problems.append(self.problem(fault, line, end_line or line))
        if len(self.problems) >= self.limits.problems:
            self.finish()

    def problem(self, fault: Fault, line: int, end_line: int) -> Problem:
        """The position of `fault`: the first occurrence of its word, else the start of the first
        line.
        """
        shown = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        word, at = fault.word, -1
        if word:
            for number in range(line, min(end_line, len(self.lines)) + 1):
                at = self.lines[number - 1].find(word)
                if at >= 0:
                    line, shown = number, self.lines[number - 1]
                    break
        if at < 0:
            at = len(shown) - len(shown.lstrip())
            word = shown[at:].split(" ", 1)[0]
        cut = max(0, at - _SHOWN // 2)
        text = shown[cut : cut + _SHOWN].rstrip("\r\n")
        # One column for each character, so that the marker stands below its place.
        text = "".join(c if c.isprintable() else "\ufffd" if c > "\x7f" else " " for c in text)
        column = min(at - cut, len(text)) + 1
        return Problem(
            message=_for_one_line(fault.message),
            name=self.name,
            line=line,
            column=column,
            source_line=text,
            length=max(1, min(len(word), len(text) - column + 1)),
            expected=None if fault.expected is None else _for_one_line(fault.expected),
            suggestion=fault.suggestion,
        )

    def finish(self) -> None:
        """Raise `DockerfileError` if any problem was noted."""
        if self.problems:
            raise DockerfileError(sorted(self.problems, key=lambda problem: problem.line))
