"""Matching one path component against one pattern component: tokens, and linear matching.

Names are bytes and patterns text; `?` and brackets read characters, so that a name is decoded
only if one of them meets a byte outside ASCII. Undecodable bytes count as one character each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from layercache.errors import LayerCacheError

__all__ = ["Component", "Part", "PatternSyntax", "tokenize"]


class PatternSyntax(LayerCacheError, ValueError):
    """A malformed pattern; callers turn it into the error that names the place."""

    code = "usage"


class Part:
    """A token of a pattern: a literal, `/`, `?`, `*`, brackets, or one of the forms of `**`.

    A gap is a `**` inside a pattern: nothing, or anything up to and with a slash. A rest is a
    `**` at the end. `newlines` tells whether those match line ends (in moby only where the
    pattern has no other wildcard).
    """

    __slots__ = ("kind", "negated", "newlines", "ranges", "text")

    def __init__(
        self,
        kind: str,
        text: str = "",
        ranges: tuple[tuple[str, str], ...] = (),
        negated: bool = False,
        newlines: bool = False,
    ) -> None:
        self.kind = kind
        self.text = text
        self.ranges = ranges
        self.negated = negated
        self.newlines = newlines

    @property
    def is_slash(self) -> bool:
        return self.kind == "/"

    @property
    def is_gap(self) -> bool:
        return self.kind == "gap"

    @property
    def is_rest(self) -> bool:
        return self.kind == "rest"

    @property
    def may_be_slash(self) -> bool:
        return self.kind == "[" and self.has("/")

    def as_rest(self) -> Part:
        return Part("rest", newlines=self.newlines)

    def has(self, character: str) -> bool:
        """Whether the brackets (or `?`) match `character`."""
        if self.kind == "?":
            return True
        return self.negated != any(low <= character <= high for low, high in self.ranges)


_SLASH: Final = Part("/")
_ONE: Final = Part("?")
_STAR: Final = Part("*")


# Moby's rules for one character each, read in one loop over the pattern: divided, they would share
# its position and the literal text so far.
def tokenize(pattern: str, *, doublestar: bool) -> list[Part]:  # noqa: C901
    """The tokens of `pattern`; raises `PatternSyntax` where Go's `filepath.Match` does.

    Without `doublestar`, `**` is `*` twice. With it the rules are moby's: `**/` swallows its
    slash; and `**` before or after nothing but literal text is a plain suffix or prefix test.
    """
    parts: list[Part] = []
    literal: list[str] = []
    plain = True  # neither a wildcard nor an escape so far

    def flush() -> None:
        if literal:
            parts.append(Part("text", "".join(literal)))
            literal.clear()

    position, end = 0, len(pattern)
    while position < end:
        character = pattern[position]
        position += 1
        if character == "/":
            flush()
            parts.append(_SLASH)
        elif character == "\\":
            if position == end:
                raise PatternSyntax("a trailing backslash escapes nothing")
            plain = False
            character = pattern[position]
            position += 1
            if character == "/":
                flush()
                parts.append(_SLASH)
            else:
                literal.append(character)
        elif character == "[":
            flush()
            plain = False
            part, position = _brackets(pattern, position)
            parts.append(part)
        elif character == "?":
            flush()
            plain = False
            parts.append(_ONE)
        elif character == "*" and doublestar and pattern.startswith("*", position):
            flush()
            first = position == 1
            position += 1
            if pattern.startswith("/", position):
                position += 1
                slash = True
            else:
                slash = False
            rest = pattern[position:]
            if not rest:
                parts.append(Part("rest", newlines=plain))
            elif first and not any(c in rest for c in "*?[]\\"):
                parts.append(Part("gap", newlines=True))
                if not slash:
                    parts.append(_STAR)
            else:
                parts.append(Part("gap"))
            plain = False
        elif character == "*":
            flush()
            plain = False
            if not parts or parts[-1] is not _STAR:
                parts.append(_STAR)
        else:
            plain = plain and character != "]"
            literal.append(character)
    flush()
    return parts


def _brackets(pattern: str, position: int) -> tuple[Part, int]:
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _bound(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _bound(pattern, position + 1)
        if high < low:
            raise PatternSyntax(f"the range {low}-{high} is empty")
        ranges.append((low, high))
    return Part("[", ranges=tuple(ranges), negated=negated), position + 1


def _bound(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern) or pattern[position] in "-]":
        raise PatternSyntax("syntax error in [...]")
    if pattern[position] == "\\":
        position += 1
        if position >= len(pattern):
            raise PatternSyntax("syntax error in [...]")
    if position + 1 >= len(pattern):
        raise PatternSyntax("[ without ]")
    return pattern[position], position + 1


class Component:
    """A compiled component: `exact` when only one name matches, else `prefix` and `suffix`.

    `takes_all`: every name matches; `takes_lines`: every name without a line end does.

    Matching is linear in the name for each literal run between stars, by `bytes.find` where
    there are no single-character wildcards.
    """

    __slots__ = (
        "_newlines", "_rest", "_runs", "_simple", "exact", "prefix", "suffix", "takes_all",
        "takes_lines",
    )  # fmt: skip

    def __init__(self, parts: Sequence[Part]) -> None:
        self._rest = bool(parts) and parts[-1].kind == "rest"
        self._newlines = self._rest and parts[-1].newlines
        runs: list[list[Part | str]] = [[]]
        for part in parts[:-1] if self._rest else parts:
            if part.kind == "*":
                runs.append([])
            elif part.kind == "text":
                runs[-1].extend(part.text)
            else:
                runs[-1].append(part)
        self._runs = runs
        self._simple = all(isinstance(item, str) for run in runs for item in run)
        self.exact: bytes | None = None
        self.prefix = _literal(runs[0])
        self.suffix = b""
        if len(runs) == 1 and not self._rest and self._simple:
            self.exact = self.prefix
        free = not any(runs) and (self._rest or len(runs) > 1)
        self.takes_all = free and (not self._rest or self._newlines)
        self.takes_lines = free and not self.takes_all
        if not self._rest:
            self.suffix = _literal(runs[-1][::-1], reverse=True)

    def match(self, name: bytes) -> bool:
        """Whether the component reads exactly `name`."""
        if self.exact is not None:
            return name == self.exact
        if not (name.startswith(self.prefix) and name.endswith(self.suffix)):
            return False
        if self._simple and len(self._runs) <= 2 and (not self._rest or self._newlines):
            if self._rest and len(self._runs) == 1:
                return True
            if not self._rest and len(name) >= len(self.prefix) + len(self.suffix):
                return True  # one star between two literals
        return self._match(name.decode("utf-8", "surrogateescape"))

    def _match(self, name: str) -> bool:
        # A rest that may not hold a line end must begin after the last one.
        floor = name.rfind("\n") + 1 if self._rest and not self._newlines else 0
        runs = self._runs
        last = len(runs) - 1
        at = 0
        for number, run in enumerate(runs):
            size = len(run)
            if number == 0:
                if not _matches_at(run, name, 0):
                    return False
                at = size
                if last == 0:
                    return at >= floor if self._rest else at == len(name)
            elif number == last and not self._rest:
                start = len(name) - size
                return start >= at and _matches_at(run, name, start)
            else:
                if number == last:
                    at = max(at, floor - size)
                at = _find(run, name, at)
                if at < 0:
                    return False
                at += size
        return True


def _literal(run: Sequence[Part | str], reverse: bool = False) -> bytes:
    characters: list[str] = []
    for item in run:
        if not isinstance(item, str):
            break
        characters.append(item)
    if reverse:
        characters.reverse()
    return "".join(characters).encode("utf-8", "surrogateescape")


def _matches_at(run: Sequence[Part | str], name: str, at: int) -> bool:
    if at + len(run) > len(name):
        return False
    for item, character in zip(run, name[at : at + len(run)], strict=True):
        if item != character and (isinstance(item, str) or not item.has(character)):
            return False
    return True


def _find(run: Sequence[Part | str], name: str, at: int) -> int:
    if all(isinstance(item, str) for item in run):
        return name.find("".join(run), at)  # type: ignore[arg-type]
    for start in range(at, len(name) - len(run) + 1):
        if _matches_at(run, name, start):
            return start
    return -1
