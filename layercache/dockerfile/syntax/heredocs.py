"""Here-documents: the `<<NAME` markers in a line, and their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from layercache._base.classes import frozen
from layercache._base.regex import expression
from layercache.dockerfile.syntax.expansion import expand
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.words import literal
from layercache.errors import DockerfileError, UsageError

__all__ = ["HereDoc", "find_heredocs", "parse_marker"]

_NOTHING: Final[Mapping[str, str]] = {}
_UNBOUNDED: Final = RecipeLimits(word_chars=1 << 62)  # a line that is not expanded doesn't grow
_TABS: Final = expression(r"^\t+", re.MULTILINE)


@frozen
class HereDoc:
    """A here-document, `<<NAME` … `NAME`.

    `content` is the text between the marker lines as written, each line with its newline.
    `expand`: variables in it are expanded (False if the name was quoted); it counts for COPY and
    ADD only, since for RUN the shell expands. `strip_tabs`: leading tabs are removed (`<<-`).
    `descriptor` is the file descriptor of RUN's `3<<NAME`.
    """

    name: str
    content: str = ""
    expand: bool = True
    strip_tabs: bool = False
    descriptor: int = 0

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or set(self.name) & set("\n<"):
            raise UsageError(f"a here-document needs a name without '<': {self.name!r}")
        if not isinstance(self.content, str):
            raise UsageError(f"the content of here-document {self.name} is not text")
        if self.content and not self.content.endswith("\n"):
            raise UsageError(f"the last line of here-document {self.name} has no newline")
        if any(self.ends_at(line) for line in self.content.split("\n")):
            raise UsageError(f"a line of here-document {self.name} is its own end mark")

    @property
    def body(self) -> str:
        """The content, without leading tabs if `strip_tabs` is set."""
        return _TABS.sub("", self.content) if self.strip_tabs else self.content

    @property
    def marker(self) -> str:
        """The announcement in the instruction's line, e.g. `<<-"EOF"`."""
        number = str(self.descriptor) if self.descriptor else ""
        dash = "-" if self.strip_tabs else ""
        if self.expand:
            name = literal(self.name)
        elif "'" not in self.name:
            name = f"'{self.name}'"
        else:
            name = '"' + "".join("\\" + c if c in '\\"$' else c for c in self.name) + '"'
        return f"{number}<<{dash}{name}"

    @property
    def lines(self) -> str:
        """The lines that follow the instruction: content and end mark, without a final newline."""
        return self.content + self.name

    def ends_at(self, line: str) -> bool:
        """Whether `line` (without its newline) is the end mark."""
        line = line.rstrip("\r")
        return (line.lstrip("\t") if self.strip_tabs else line) == self.name


def parse_marker(word: str) -> HereDoc | None:
    """The here-document that `word` announces, without content, or None.

    If part of the name is quoted, expansion is off. The escape character is always the backslash
    here, whatever the file's directive says.
    """
    at = 0
    while at < len(word) and word[at] in "0123456789":
        at += 1
    number = word[:at]
    if not word.startswith("<<", at):
        return None
    at += 2
    strip_tabs = word.startswith("-", at)
    name = word[at + strip_tabs :].lstrip("\t\n\f\r ")
    if not name or "<" in name or len(number) > 9:
        return None
    try:
        words = _words(name, quotes=False)
        quoted = _words(name, quotes=True)
    except DockerfileError:  # an open quote
        return None
    if len(words) != 1:
        return None
    expands = _quotes(quoted[0]) == _quotes(words[0])
    return HereDoc(words[0], "", expands, strip_tabs, int(number or "0"))


def _words(text: str, *, quotes: bool) -> tuple[str, ...]:
    """Words of `text` with variables as written; `quotes` keeps the quotes, too."""
    return expand(text, _NOTHING, keep_quotes=quotes, keep_unset=True).words


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


def find_heredocs(line: str, budget: Budget | None = None) -> list[HereDoc]:
    """The here-documents that an instruction announces, in order, still without content.

    A line that is not well-formed shell text (an open quote, a malformed `${…}`) announces none.
    """
    if "<<" not in line:
        return []
    budget = Budget() if budget is None else budget
    try:
        words = expand(
            line,
            _NOTHING,
            keep_quotes=True,
            keep_escapes=True,
            keep_unset=True,
            budget=budget,
            limits=_UNBOUNDED,
        ).words
        found = [parse_marker(word) for word in words if "<<" in word]
    except DockerfileError:
        if budget.used > budget.limit:
            raise
        return []
    return [heredoc for heredoc in found if heredoc is not None]
