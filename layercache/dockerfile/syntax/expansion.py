"""Expansion of words: variables, quotes and escapes, as BuildKit's shell lexer does it.

`$a ${a} ${a:-b} ${a-b} ${a:+b} ${a+b} ${a:?m} ${a?m} ${a#p} ${a##p} ${a%p} ${a%%p} ${a/p/r}
${a//p/r}`, nested to a bound; single quotes take everything literally, double quotes all but
variables; the escape character takes the next one literally. An unset variable is empty.

The lexer is one loop over the text with an explicit stack of open expressions, so no nesting can
exhaust Python's stack, and every character read or copied is counted in a `Budget`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from layercache._base.classes import define, field, frozen
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.words import SPACE
from layercache.errors import DockerfileError, Problem

if TYPE_CHECKING:
    from layercache.dockerfile.syntax.shell_patterns import Pattern

__all__ = ["Expansion", "expand", "process_word", "process_words"]

_PARAMETERS: Final = "@*#?-$!0"
_MARKS: Final = frozenset("$'\"<}/")
_LIMITS: Final = RecipeLimits()


@frozen
class Expansion:
    """The result of expanding a word: as one `text`, as `words` split at unquoted white space, and
    the variables that it named, whether set (`used`) or not (`unset`).
    """

    text: str
    words: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()
    unset: frozenset[str] = frozenset()


def process_word(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    quotes: bool = True,
    budget: Budget | None = None,
    limits: RecipeLimits = _LIMITS,
) -> str:
    """Expand `word` to one text; white space in it is kept. Options and errors as for `expand`."""
    return expand(word, env, escape=escape, quotes=quotes, budget=budget, limits=limits).text


def process_words(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    budget: Budget | None = None,
    limits: RecipeLimits = _LIMITS,
) -> list[str]:
    """Expand `word`, then split it at white space outside quotes. Errors as for `expand`.

    White space from a variable splits too, unless the variable is in quotes.
    """
    return list(expand(word, env, escape=escape, budget=budget, limits=limits).words)


def expand(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    quotes: bool = True,
    keep_quotes: bool = False,
    keep_escapes: bool = False,
    keep_unset: bool = False,
    budget: Budget | None = None,
    limits: RecipeLimits = _LIMITS,
) -> Expansion:
    """Expand `word` with the variables of `env`.

    `quotes=False` gives quotes no meaning (bodies of here-documents). `keep_quotes` and
    `keep_escapes` leave those characters in the result, `keep_unset` leaves references to unset
    variables as written; the parser uses these to find here-documents.

    Raises `DockerfileError` for bad syntax, for `${a:?message}`, and if a bound is exceeded.
    """
    budget = Budget() if budget is None else budget
    budget.spend(1 + len(word))
    if "$" not in word and escape not in word and "'" not in word and '"' not in word:
        if len(word) > limits.word_chars:
            raise _problem(word, 0, f"a word is longer than {limits.word_chars:,} characters")
        if "<<" not in word:
            return Expansion(word, _split(word))
    return _Lexer(
        word, env, escape, quotes, keep_quotes, keep_escapes, keep_unset, budget, limits
    ).run()


def _split(text: str) -> tuple[str, ...]:
    words = _Words()
    words.add(text)
    return words.done()


def _problem(word: str, at: int, message: str) -> DockerfileError:
    shown = word if len(word) <= 200 else word[:200] + "…"
    return DockerfileError(
        [Problem(message, column=min(at, len(shown)) + 1, source_line=shown.replace("\n", " "))]
    )


class _Words:
    """Collects characters into words, as the text of the outermost level arrives."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.open: list[str] = []

    def add(self, text: str) -> None:
        """Add text that splits at white space."""
        start = 0
        for at, char in enumerate(text):
            if char in SPACE:
                if at > start:
                    self.open.append(text[start:at])
                self.cut()
                start = at + 1
        if start < len(text):
            self.open.append(text[start:])

    def add_raw(self, text: str) -> None:
        """Add text that does not split."""
        if text:
            self.open.append(text)

    def cut(self) -> None:
        if self.open:
            self.finished.append("".join(self.open))
            self.open.clear()

    def done(self) -> tuple[str, ...]:
        self.cut()
        return tuple(self.finished)


@define
class _Level:
    """One open expression: the whole word, a double-quoted part, or the word of a `${…}`."""

    stop: str
    keep_escapes: bool
    start: int
    out: list[str] = field(factory=list)
    size: int = 0
    # Of a ${…}: its variable, its operator as written, and the pattern of a replacement.
    name: str = ""
    operator: str = ""
    pattern: str = ""


@define
class _Lexer:
    """One run over one word."""

    word: str
    env: Mapping[str, str]
    escape: str
    quotes: bool
    keep_quotes: bool
    keep_escapes: bool
    keep_unset: bool
    budget: Budget
    limits: RecipeLimits
    at: int = 0
    levels: list[_Level] = field(factory=list)
    words: _Words = field(factory=_Words)
    used: set[str] = field(factory=set)
    unset: set[str] = field(factory=set)

    def run(self) -> Expansion:
        whole = _Level("", self.keep_escapes, 0)
        self.levels.append(whole)
        word, end = self.word, len(self.word)
        while True:
            level = self.levels[-1]
            if self.at >= end:
                if level is whole:
                    break
                raise self._unfinished(level)
            char = word[self.at]
            if level.stop == '"':
                self._in_quotes(level, char)
            elif level.stop and char == level.stop:
                self.at += 1
                self.levels.pop()
                self._close(level)
            elif char == "$":
                self._dollar()
            elif char == "'" and self.quotes:
                self._single_quote()
            elif char == '"' and self.quotes:
                self._open(_Level('"', level.keep_escapes, self.at))
                if self.keep_quotes:
                    self._raw('"')
                self.at += 1
            elif char == self.escape:
                self._escape(level, char)
            elif char == "<":
                self._less_than()
            else:
                self._put(self._plain())
        return Expansion(
            self._text(whole), self.words.done(), frozenset(self.used), frozenset(self.unset)
        )

    # -- results ------------------------------------------------------------------------------

    def _put(self, text: str) -> None:
        """Add text that splits words if it is outside all quotes."""
        self._count(text)
        if len(self.levels) == 1:
            self.words.add(text)

    def _raw(self, text: str) -> None:
        """Add text that does not split words."""
        self._count(text)
        if len(self.levels) == 1:
            self.words.add_raw(text)

    def _count(self, text: str) -> None:
        level = self.levels[-1]
        level.out.append(text)
        level.size += len(text)
        if level.size > self.limits.word_chars:
            raise self._error(
                f"the word becomes longer than {self.limits.word_chars:,} characters", level.start
            )
        self.budget.spend(len(text))

    def _text(self, level: _Level) -> str:
        self.budget.spend(level.size)
        return "".join(level.out)

    # -- syntax -------------------------------------------------------------------------------

    def _open(self, level: _Level) -> None:
        if len(self.levels) > self.limits.nesting:
            raise self._error(f"expressions nest deeper than {self.limits.nesting}", level.start)
        self.levels.append(level)

    def _single_quote(self) -> None:
        close = self.word.find("'", self.at + 1)
        if close < 0:
            raise self._error("a single quote is never closed", self.at)
        shift = 0 if self.keep_quotes else 1
        self._raw(self.word[self.at + shift : close + 1 - shift])
        self.at = close + 1

    def _escape(self, level: _Level, char: str) -> None:
        kept = char if level.keep_escapes else ""
        # At the end of the word the escape is dropped.
        self._raw(kept + self.word[self.at + 1 : self.at + 2])
        self.at += 2

    def _in_quotes(self, level: _Level, char: str) -> None:
        self.at += 1
        if char == '"':
            if self.keep_quotes:
                self._raw('"')
            self.levels.pop()
            self._raw(self._text(level))
        elif char == "$":
            self.at -= 1
            self._dollar()
        elif char == self.escape:
            if level.keep_escapes:
                self._raw(char)
            after = self.word[self.at : self.at + 1]
            if after and after in ('"', "$", self.escape):
                self.at += 1
                self._raw(after)
            elif after:
                self._raw(char)
        else:
            self.at -= 1
            self._raw(self._plain())

    def _plain(self) -> str:
        """The run of characters from here that have no meaning on any level; at least one."""
        word, start, escape = self.word, self.at, self.escape
        at = start + 1
        while at < len(word) and word[at] not in _MARKS and word[at] != escape:
            at += 1
        self.at = at
        return word[start:at]

    def _less_than(self) -> None:
        # `<< name` is one word, so that the parser can find here-documents written like that.
        start = self.at
        self.at += 1
        if self.word.startswith("<", self.at):
            self.at += 1
            while self.at < len(self.word) and self.word[self.at] in "\t\r ":
                self.at += 1
        self._raw(self.word[start : self.at])

    def _dollar(self) -> None:
        start = self.at
        self.at += 1
        if not self.word.startswith("{", self.at):
            name = self._name()
            self._put(self._get(name, "$" + name) if name else "$")
            return
        self.at += 1
        first = self.word[self.at : self.at + 1]
        if not first:
            raise self._error("syntax error: missing '}'", start)
        if first in "{}:":
            raise self._error("syntax error: bad substitution", start)
        name = self._name()
        operator = self.word[self.at : self.at + 1]
        self.at += 1
        if operator == "}":
            self._put(self._get(name, "${" + name + "}"))
            return
        if operator == ":":
            operator += self.word[self.at : self.at + 1]
            self.at += 1
        if operator in ("", ":"):
            raise self._error("syntax error: missing '}'", start)
        if operator == "/":
            if self.word.startswith("/", self.at):
                operator = "//"
                self.at += 1
            self._open(_Level("/", True, start, name=name, operator=operator))
            return
        # An unknown modifier after ":" is refused only where its value is needed.
        if operator in (":#", ":%") or (operator[0] != ":" and operator not in "+-?#%"):
            raise self._error(f"unsupported modifier ({operator}) in substitution", start)
        self._open(_Level("}", operator in "#%", start, name=name, operator=operator))

    def _name(self) -> str:
        """A variable name: letters, digits and `_`; or digits only; or a special parameter."""
        word, start = self.word, self.at
        if start == len(word):
            return ""
        first = word[start]
        if first.isdecimal():
            while self.at < len(word) and word[self.at].isdecimal():
                self.at += 1
        elif first in _PARAMETERS:
            self.at += 1
        else:
            while self.at < len(word) and (
                word[self.at] == "_" or word[self.at].isalpha() or word[self.at].isdecimal()
            ):
                self.at += 1
        return word[start : self.at]

    # -- variables ----------------------------------------------------------------------------

    def _lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _get(self, name: str, written: str) -> str:
        value = self._lookup(name)
        if value is None:
            return written if self.keep_unset else ""
        return value

    def _close(self, level: _Level) -> None:
        """End the word of a `${…}`: `level` is off the stack, its result goes to the level
        above.
        """
        text = self._text(level)
        if level.stop == "/":
            level = _Level(
                "}", True, level.start, name=level.name, operator=level.operator, pattern=text
            )
            self._open(level)
            return
        value = self._lookup(level.name)
        if value is None and self.keep_unset:
            middle = f"{level.pattern}/" if level.operator in ("/", "//") else ""
            self._put("${" + level.name + level.operator + middle + text + "}")
            return
        if level.operator in ("/", "//"):
            self._replace(level, value or "", text)
            return
        missing = value is None or (level.operator[0] == ":" and not value)
        match level.operator.removeprefix(":"):
            case "-":
                self._put(text if value is None or missing else value)
            case "+":
                self._put("" if missing else text)
            case "?":
                if value is None or missing:
                    how = "unset" if value is None else "empty"
                    text = text or f"is not allowed to be {how}"
                    raise self._error(f"{level.name}: {text}", level.start)
                self._put(value)
            case "#" | "%" as side:
                self._trim(level, value or "", text, side)
            case _:
                raise self._error(
                    f"unsupported modifier ({level.operator}) in substitution", level.start
                )

    def _trim(self, level: _Level, value: str, text: str, side: str) -> None:
        longest = text.startswith(side)
        pattern = self._pattern(level, text[1:] if longest else text)
        if side == "#":
            length = pattern.prefix(value, longest, self.budget)
            self._put(value[length or 0 :])
        else:
            self.budget.spend(len(value))
            length = pattern.reversed().prefix(value[::-1], longest, self.budget)
            self._put(value[: len(value) - (length or 0)])

    def _replace(self, level: _Level, value: str, replacement: str) -> None:
        pattern = self._pattern(level, level.pattern)
        try:
            pieces = pattern.replace(value, replacement, level.operator == "//", self.budget)
        except ValueError as error:
            raise self._error(f"in ${{{level.name}/…}}: {error}", level.start) from None
        if sum(map(len, pieces)) > self.limits.word_chars:  # before they are joined
            raise self._error(
                f"the word becomes longer than {self.limits.word_chars:,} characters", level.start
            )
        self._put("".join(pieces))

    def _pattern(self, level: _Level, text: str) -> Pattern:
        if len(text) > self.limits.pattern_chars:
            raise self._error(
                f"a pattern is longer than {self.limits.pattern_chars:,} characters", level.start
            )
        from layercache.dockerfile.syntax.shell_patterns import Pattern

        try:
            return Pattern.parse(text)
        except ValueError as error:
            raise self._error(f"invalid pattern ({text}): {error}", level.start) from None

    # -- errors -------------------------------------------------------------------------------

    def _unfinished(self, level: _Level) -> DockerfileError:
        if level.stop == '"':
            return self._error("a double quote is never closed", level.start)
        return self._error(f"syntax error: missing '{level.stop}' in ${{…}}", level.start)

    def _error(self, message: str, at: int) -> DockerfileError:
        return _problem(self.word, at, message)
