"""Patterns: `.dockerignore`, `COPY --exclude` and the globs of COPY sources, on one machine.

The rules are those of moby's pattern matcher as BuildKit uses it (a walk from the root that
passes each parent's matches down), and of Go's `filepath.Match` for globs. Patterns never become
regular expressions: each becomes a small automaton whose edges read one path component, and all
patterns together become one lazily built deterministic machine, so that a path costs one
dictionary look-up per component, whatever the number of patterns.

In two places moby passes text to a regular expression by accident, and this module differs on
purpose: an escaped character always stands for itself (`\\d` is no digit class), and `|`, `{`, `}`
and a `*` or `?` inside brackets are literal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from layercache._base.classes import field, frozen
from layercache._base.paths import clean
from layercache.errors import DockerfileError, Problem, UsageError
from layercache.trees._components import PatternSyntax

if TYPE_CHECKING:
    from layercache.trees._automaton import Machine, PatternState

__all__ = ["Glob", "Ignore", "Rule", "clean", "has_wildcards"]

MAX_TEXT: Final = 1 << 20
"""The maximum size of an ignore file in bytes: far above real files, to bound parsing."""

MAX_LINE: Final = 1 << 16
"""Bytes of a line, the limit of the line scanner that moby uses."""

MAX_PATTERN: Final = 4096
"""Characters of a pattern (PATH_MAX)."""

MAX_RULES: Final = 20_000
"""Patterns of one machine."""

_BLANK: Final = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)
"""What Go's `strings.TrimSpace` removes (Unicode White_Space; Python's `strip` takes more)."""


def has_wildcards(pattern: str) -> bool:
    """Whether `*`, `?` or `[` occurs unescaped, which makes a COPY source a glob."""
    position = 0
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] in "*?[":
            return True
        position += 1
    return False


@frozen
class Rule:
    """One pattern, cleaned; `negated` for `!`; `line` counts from 1, 0 outside a file."""

    pattern: str
    negated: bool = False
    line: int = 0

    def __str__(self) -> str:
        return "!" + self.pattern if self.negated else self.pattern


def _compile(rules: Sequence[Rule], doublestar: bool) -> Machine:
    if len(rules) > MAX_RULES:
        raise UsageError(f"{len(rules)} patterns; at most {MAX_RULES} are taken")
    for rule in rules:
        if len(rule.pattern) > MAX_PATTERN:
            raise UsageError(f"pattern of {len(rule.pattern)} characters; at most {MAX_PATTERN}")
    from layercache.trees._automaton import Machine

    return Machine([(rule.pattern, rule.negated) for rule in rules], doublestar)


@frozen
class Ignore:
    """An ordered list of patterns; the last pattern that matches decides.

    Use `state = ignore.start`, then `state = state[name]` for each component of a path; or
    `matches` for one path. Make it with `parse` (an ignore file) or `of` (`--exclude`); `name` is
    the file's.
    """

    rules: tuple[Rule, ...] = ()
    name: str = field(default=".dockerignore", eq=False)
    _machine: Machine = field(init=False, eq=False, repr=False)

    @_machine.default
    def _compiled(self) -> Machine:
        return _compile(self.rules, doublestar=True)

    def __bool__(self) -> bool:
        return bool(self.rules)

    @classmethod
    def parse(cls, text: str | bytes, name: str = ".dockerignore") -> Ignore:
        """The rules of an ignore file.

        Comments, blank lines, a byte order mark and CRLF are dropped, patterns cleaned.
        Raises `DockerfileError` with all malformed lines (`name` is for the message).
        """
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if len(data) > MAX_TEXT:
            raise UsageError(f"{name} has {len(data)} bytes; at most {MAX_TEXT} are read")
        rules: list[Rule] = []
        problems: list[Problem] = []
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        for number, raw in enumerate(lines, 1):
            line = raw.removesuffix(b"\r").decode("utf-8", "surrogateescape")
            if line.startswith("#"):
                continue
            try:
                if len(raw) >= MAX_LINE:
                    raise PatternSyntax("the line is too long")
                rule = _rule(line, number)
                if rule is not None:
                    _compile([rule], doublestar=True)
                    rules.append(rule)
            except PatternSyntax as error:
                shown = line[:200].strip(_BLANK)
                problems.append(Problem(str(error), name, number, 1, shown, max(len(shown), 1)))
        if problems:
            raise DockerfileError(problems)
        return cls(tuple(rules), name)

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Ignore:
        """The rules of `--exclude`; raises `UsageError` for a malformed pattern."""
        rules = []
        for pattern in patterns:
            try:
                rule = _checked(pattern.strip(_BLANK), 0)
                if rule is not None:
                    _compile([rule], doublestar=True)
                    rules.append(rule)
            except PatternSyntax as error:
                raise UsageError(f"pattern {pattern!r}: {error}") from None
        return cls(tuple(rules))

    @property
    def start(self) -> PatternState:
        """The state at the root, which is never ignored."""
        return self._machine.start

    def state(self, path: bytes) -> PatternState:
        """The state after `path` (b"" or b"." for the root)."""
        state = self.start
        if path in (b"", b"."):
            return state
        for name in path.split(b"/"):
            state = state[name]
        return state

    def matches(self, path: bytes | str) -> bool:
        """Whether `path` (relative, cleaned) is ignored, itself or through a parent."""
        if isinstance(path, str):
            path = path.encode("utf-8", "surrogateescape")
        if path == b".":
            return False
        directory, _, name = path.rpartition(b"/")
        return self._machine.directory(directory)[name].ignored

    def reason(self, path: bytes) -> Rule | None:
        """The rule by which `path` is ignored, or None."""
        state = self.state(path)
        return self.rules[state.sticky.bit_length() - 1] if state.ignored else None


def _rule(line: str, number: int) -> Rule | None:
    # In moby, the reader of an ignore file cleans patterns (it handles `!` and makes rooted
    # paths relative) and the matcher cleans them again; both are needed, in this order.
    text = line.strip(_BLANK)
    if not text:
        return None
    negated = text[0] == "!"
    if negated:
        text = text[1:].strip(_BLANK)
    if text:
        text = clean(text)
        if len(text) > 1 and text[0] == "/":
            text = text[1:]
    return _checked("!" + text if negated else text.strip(_BLANK), number)


def _checked(text: str, number: int) -> Rule | None:
    if not text:
        return None
    text = clean(text)
    negated = text[0] == "!"
    if negated:
        text = text[1:]
        if not text:
            raise PatternSyntax("! needs a pattern after it")
    return Rule(text, negated, number)


@frozen
class Glob:
    """One glob of a COPY source, matched against whole paths (Go's `filepath.Match`).

    `**` acts like `*`, unless `doublestar` (the rules of `--parents`): then it crosses
    directories. Raises `UsageError` for a malformed pattern.
    """

    pattern: str
    doublestar: bool = False
    start: PatternState = field(init=False, eq=False, repr=False)

    @start.default
    def _compiled(self) -> PatternState:
        try:
            return _compile([Rule(self.pattern)], self.doublestar).start
        except PatternSyntax as error:
            raise UsageError(f"pattern {self.pattern!r}: {error}") from None


IGNORE_FILE = ".dockerignore"
