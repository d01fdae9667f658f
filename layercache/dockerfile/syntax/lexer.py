"""From the text of a Dockerfile to logical lines: directives, continuations, here-documents.

A logical line is one instruction: its physical lines joined, comments and empty lines between
them dropped, split into name, flags and the rest, with the bodies of its here-documents.
"""

from __future__ import annotations

from typing import Final

from layercache._base.classes import evolve, frozen
from layercache.dockerfile.syntax.faults import Fault, Faults
from layercache.dockerfile.syntax.heredocs import HereDoc, find_heredocs
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.words import (
    SPACE,
    NotStrings,
    json_list,
    split_first,
    split_flags,
)

__all__ = ["Directives", "Lexed", "LogicalLine", "read", "split_instruction"]

_DIRECTIVES: Final = ("syntax", "escape", "check")
_WITH_HEREDOCS: Final = frozenset({"ADD", "COPY", "RUN"})
_ASCII_BLANKS: Final = "\t\n\f\r "


@frozen(kw_only=True)
class Directives:
    """Parser directives at the top of a file: `# syntax=`, `# escape=`, `# check=`, as written."""

    syntax: str | None = None
    escape: str = "\\"
    check: str | None = None


@frozen(kw_only=True)
class LogicalLine:
    """One instruction before parsing.

    `keyword` is as written, `flags` have quotes and escapes removed, `rest` is trimmed.
    `text` is for people: the joined line with the lines of its here-documents, the blanks at
    each joint shown as one (in `rest` they count).
    """

    keyword: str
    flags: tuple[str, ...]
    rest: str
    text: str
    line: int
    end_line: int
    heredocs: tuple[HereDoc, ...] = ()


@frozen
class Lexed:
    """A file as logical lines. `empty_continuations` are lines that should not be empty."""

    directives: Directives
    lines: tuple[LogicalLine, ...]
    empty_continuations: tuple[int, ...]


def split_instruction(text: str, escape: str) -> tuple[str, list[str], str]:
    """Name, flags and the rest of an instruction."""
    keyword, rest = split_first(text.strip(SPACE))
    flags, rest = split_flags(rest, escape)
    return keyword, flags, rest.strip(SPACE)


def read(text: str, faults: Faults, limits: RecipeLimits, budget: Budget) -> Lexed:
    """Split a file into logical lines. Mistakes go to `faults`; reading continues where possible.

    `text` has no byte order mark; bytes that are not UTF-8 are lone surrogates in it.
    """
    return _Reader(text, faults, limits, budget).run()


class _Reader:
    def __init__(self, text: str, faults: Faults, limits: RecipeLimits, budget: Budget) -> None:
        # faults.lines are the same lines; the reader needs their newlines, too.
        self.lines = text.split("\n")
        self.ended = text.endswith("\n") or not text
        self.faults = faults
        self.limits = limits
        self.budget = budget
        self.at = 0
        self.found: dict[str, str] = {}
        self.in_directives = True
        self.escape = "\\"
        self.empty: list[int] = []

    def run(self) -> Lexed:
        logical: list[LogicalLine] = []
        count = len(self.lines) - (1 if self.ended else 0)
        while self.at < count:
            if len(logical) >= self.limits.instructions:
                message = f"the file has more than {self.limits.instructions:,} instructions"
                self.faults.add(Fault(message), self.at + 1)
                self.faults.finish()
            line = self._logical(count)
            if line is not None:
                logical.append(line)
        directives = Directives(
            syntax=self.found.get("syntax"), escape=self.escape, check=self.found.get("check")
        )
        return Lexed(directives, tuple(logical), tuple(self.empty))

    def _physical(self) -> str:
        """The next line without its line end. Raises `DockerfileError` if it is too long."""
        line = self.lines[self.at]
        self.at += 1
        self.budget.spend(len(line) + 1)
        if len(line) > self.limits.line_chars:
            self.faults.add(
                Fault(f"the line is longer than {self.limits.line_chars:,} characters"), self.at
            )
            self.faults.finish()
        return line.rstrip("\r\n")

    def _logical(self, count: int) -> LogicalLine | None:
        first = self._physical().lstrip(SPACE)
        start = self.at
        if self.in_directives:
            self._directive(first)
        if first.startswith("#"):
            first = ""
        piece, more = self._continued(first)
        if not more and not piece:
            return None
        pieces = [piece]
        while more and self.at < count:
            line = self._physical()
            stripped = line.lstrip(SPACE)
            if stripped.startswith("#"):
                continue
            if not stripped:
                self.empty.append(self.at)
                continue
            piece, more = self._continued(line)
            pieces.append(piece)
        text = "".join(pieces).strip(SPACE)
        shown = text if len(pieces) == 1 else _joined(pieces)
        self.budget.spend(len(text))
        fault = _unusable(text)
        if fault is not None:
            self.faults.add(fault, start, self.at)
            return None
        keyword, flags, rest = split_instruction(text, self.escape)
        heredocs: list[HereDoc] = []
        if "<<" in text:
            for heredoc in self._announced(text, keyword, rest):
                complete = self._body(heredoc, count, start)
                if complete is None:
                    return None
                heredocs.append(complete)
        return LogicalLine(
            keyword=keyword,
            flags=tuple(flags),
            rest=rest,
            text="\n".join([shown, *(heredoc.lines for heredoc in heredocs)]),
            line=start,
            end_line=self.at,
            heredocs=tuple(heredocs),
        )

    def _directive(self, line: str) -> None:
        key, equals, value = line[1:].partition("=")
        key, value = key.strip(_ASCII_BLANKS), value.strip(_ASCII_BLANKS)
        name = key.lower()
        if not line.startswith("#") or not equals or not value or name not in _DIRECTIVES:
            self.in_directives = False
        elif name in self.found:
            self.faults.add(Fault(f"only one {name} directive can be used", key), self.at)
        elif name == "escape" and value not in ("\\", "`"):
            fault = Fault(f"invalid escape character {value!r}", value, expected="\\ or `")
            self.faults.add(fault, self.at)
        else:
            self.found[name] = value
            if name == "escape":
                self.escape = value

    def _continued(self, line: str) -> tuple[str, bool]:
        """`line` without its continuation, and whether it had one (a final escape character)."""
        end = len(line.rstrip("\t "))
        if line[end - 1 : end] == self.escape and line[end - 2 : end - 1] != self.escape:
            return line[: end - 1], True
        return line, False

    def _announced(self, text: str, keyword: str, rest: str) -> list[HereDoc]:
        keyword = keyword.upper()
        if keyword == "ONBUILD":
            keyword, _, rest = split_instruction(rest, self.escape)
            keyword = keyword.upper()
        if keyword not in _WITH_HEREDOCS:
            return []
        try:
            if json_list(rest) is not None:
                return []
        except NotStrings:
            return []
        return find_heredocs(text, self.budget)

    def _body(self, heredoc: HereDoc, count: int, start: int) -> HereDoc | None:
        first = self.at
        while self.at < count:
            line = self._physical()
            if heredoc.ends_at(line):
                content = "".join(each + "\n" for each in self.lines[first : self.at - 1])
                fault = _unusable(content)
                if fault is not None:
                    self.faults.add(fault, first + 1, self.at)
                    return None
                return evolve(heredoc, content=content)
        self.faults.add(
            Fault(
                f"here-document {heredoc.name} is never ended",
                f"<<{'-' if heredoc.strip_tabs else ''}",
                expected=f"a line that is just {heredoc.name}",
            ),
            start,
        )
        return None


def _joined(pieces: list[str]) -> str:
    """The pieces of a continued line, joined, with the blanks at each joint reduced to one."""
    out: list[str] = []
    gap = False
    for piece in pieces:
        core = piece.strip(SPACE)
        if not core:
            gap = gap or bool(piece)
            continue
        if out and (gap or piece[0] in SPACE):
            out.append(" ")
        out.append(core)
        gap = piece[-1] in SPACE
    return "".join(out)


def _unusable(text: str) -> Fault | None:
    """The reason why `text` can't be used anywhere, if there is one."""
    if "\0" in text:
        return Fault("a NUL character can't be used here", "\0")
    if not text.isascii():
        for char in text:
            if "\ud800" <= char <= "\udfff":
                return Fault("this is not UTF-8", char, expected="a file in UTF-8")
    return None
