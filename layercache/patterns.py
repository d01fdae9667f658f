"""Patterns: `.dockerignore`, `COPY --exclude` and the globs of COPY sources, on one machine.

The rules are those of moby's pattern matcher as BuildKit drives it (a walk from the root that
hands each parent's matches down), and of Go's `filepath.Match` for globs. No regular expression
is made: a pattern becomes a small automaton whose edges read one path component each, and all
patterns together one lazily built deterministic machine, so that a path costs one dictionary
look-up for each component, whatever the number of patterns.

Two places differ from moby on purpose, where it hands text to a regular expression by accident:
an escaped character always stands for itself (`\\d` is no digit class), and `|`, `{`, `}` and a
`*` or `?` inside brackets are literal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import attrs

from layercache.components import Component, Part, PatternSyntax, tokenize
from layercache.errors import DockerfileError, Problem, UsageError

__all__ = ["Glob", "Ignore", "Rule", "State", "clean", "has_wildcards"]

MAX_TEXT: Final = 1 << 20
"""Bytes of an ignore file; far above any seen, and bounds what parsing can cost."""

MAX_LINE: Final = 1 << 16
"""Bytes of a line, the limit of the line scanner that moby uses."""

MAX_PATTERN: Final = 4096
"""Characters of a pattern (PATH_MAX)."""

MAX_RULES: Final = 20_000
"""Patterns of one machine."""

_MAX_BREAKS: Final = 32
"""Places in one component of a pattern where it may go on in a deeper directory."""

_MAX_STATES: Final = 4096
_MAX_MEMO: Final = 4096

_BLANK: Final = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)
"""What Go's `strings.TrimSpace` removes (Unicode White_Space; Python's `strip` takes more)."""


def clean(path: str) -> str:
    """`path` as Go's `filepath.Clean` writes it: no `.`, `//`, inner `..` or trailing slash."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not rooted:
                kept.append(part)
        elif part not in ("", "."):
            kept.append(part)
    text = "/".join(kept)
    return "/" + text if rooted else text or "."


def has_wildcards(pattern: str) -> bool:
    """Whether `*`, `?` or `[` occurs unescaped: what makes a COPY source a glob."""
    position = 0
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] in "*?[":
            return True
        position += 1
    return False


@attrs.frozen
class Rule:
    """One pattern, cleaned; `negated` for `!`; `line` counts from 1, 0 outside a file."""

    pattern: str
    negated: bool = False
    line: int = 0

    def __str__(self) -> str:
        return "!" + self.pattern if self.negated else self.pattern


class _Edge(NamedTuple):
    component: Component
    target: int  # node, or -1: the pattern matches here
    rule: int


class State(dict[bytes, "State"]):
    """Where the machine stands after a path; `state[name]` is where it stands one deeper.

    `ignored`: the path matches. `settled`: all paths below have the same answer, so that
    nothing below need be asked. Values are made on demand and shared; do not change them.
    """

    __slots__ = (
        "_always", "_exact", "_first", "_last", "_machine", "_nodes", "_targets", "ignored",
        "settled", "sticky",
    )  # fmt: skip

    def __init__(self, machine: _Machine, nodes: frozenset[int], sticky: int, ignored: bool):
        super().__init__()
        self._machine = machine
        self._nodes = nodes
        self.sticky = sticky
        self.ignored = ignored
        last = sticky.bit_length() - 1
        self.settled = not any(
            machine.rule_of[node] > last and machine.negated[machine.rule_of[node]] == ignored
            for node in nodes
        )
        self._exact: dict[bytes, list[int]] | None = None

    @property
    def prunable(self) -> bool:
        """Ignored, and no exception can bring back anything below."""
        return self.ignored and self.settled

    def _index(self) -> dict[bytes, list[int]]:
        # Edges by what can be looked up: the whole name, its first byte, its last byte. Only
        # candidates are then tried, so that many patterns cost as little as few.
        exact: dict[bytes, list[int]] = {}
        self._exact = exact
        self._first: dict[int, list[int]] = {}
        self._last: dict[int, list[int]] = {}
        self._always: list[int] = []
        self._targets: dict[tuple[int, ...], State] = {}
        for node in self._nodes:
            for number in self._machine.edges_of[node]:
                part = self._machine.edges[number].component
                if part.exact is not None:
                    exact.setdefault(part.exact, []).append(number)
                elif part.prefix:
                    self._first.setdefault(part.prefix[0], []).append(number)
                elif part.suffix:
                    self._last.setdefault(part.suffix[-1], []).append(number)
                else:
                    self._always.append(number)
        return exact

    def __missing__(self, name: bytes) -> State:
        if self.settled or not name:
            return self
        exact = self._exact if self._exact is not None else self._index()
        edges = self._machine.edges
        found = list(exact.get(name, ()))
        for candidates in (
            self._first.get(name[0]), self._last.get(name[-1]), self._always
        ):  # fmt: skip
            if candidates:
                found += [n for n in candidates if edges[n].component.match(name)]
        key = tuple(sorted(found))
        state = self._targets.get(key)
        if state is None:
            state = self._machine.step(self, key)
            if len(self._targets) < _MAX_MEMO:
                self._targets[key] = state
        if len(self) < _MAX_MEMO:
            self[name] = state
        return state

    def forget(self) -> None:
        """Drop what was made on demand, to bound memory; the state stays usable."""
        self.clear()
        self._exact = None
        self._targets = {}

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Machine:
    """All patterns as one automaton over components, determinised as paths are asked."""

    def __init__(self, rules: Sequence[Rule], doublestar: bool) -> None:
        self.negated = [rule.negated for rule in rules]
        self.edges: list[_Edge] = []
        self.edges_of: list[list[int]] = []
        self.rule_of: list[int] = []
        starts = [
            self._add(number, tokenize(rule.pattern, doublestar=doublestar))
            for number, rule in enumerate(rules)
        ]
        self._states: dict[tuple[frozenset[int], int], State] = {}
        self.start = State(self, frozenset(starts), 0, False)

    def _add(self, rule: int, parts: Sequence[Part]) -> int:
        # Nodes stand where a component begins: (position, False), or in a `**` that has
        # swallowed at least one component: (position of the `**`, True).
        numbers: dict[tuple[int, bool], int] = {}
        todo: list[tuple[int, bool]] = []

        def node(position: int, inside: bool) -> int:
            key = (position, inside)
            if key not in numbers:
                numbers[key] = len(self.edges_of)
                self.edges_of.append([])
                self.rule_of.append(rule)
                todo.append(key)
            return numbers[key]

        def edge(source: int, parts: Sequence[Part], target: int) -> None:
            self.edges_of[source].append(len(self.edges))
            self.edges.append(_Edge(Component(parts), target, rule))

        first = node(0, False)
        while todo:
            position, inside = todo.pop()
            here = numbers[position, inside]
            if inside:
                edge(here, [parts[position].as_rest()], here)
                if parts[position].is_rest:
                    edge(here, [parts[position]], -1)
                    continue
                position += 1
            taken: list[Part] = []
            breaks = 0
            while position < len(parts):
                part = parts[position]
                if part.is_slash:
                    edge(here, taken, node(position + 1, False))
                    break
                if part.is_gap:
                    edge(here, [*taken, part.as_rest()], node(position, True))
                    breaks += 1
                elif part.is_rest:
                    edge(here, [*taken, part], -1)
                    edge(here, [*taken, part], node(position, True))
                    break
                else:
                    if part.may_be_slash:
                        edge(here, taken, node(position + 1, False))
                        breaks += 1
                    taken.append(part)
                if breaks > _MAX_BREAKS:
                    raise PatternSyntax("too many ** or [^...] in one component")
                position += 1
            else:
                edge(here, taken, -1)
        return first

    def step(self, state: State, edges: tuple[int, ...]) -> State:
        """The state after one more component, given which edges read it."""
        matched_now = 0
        targets: list[int] = []
        for number in edges:
            edge = self.edges[number]
            if edge.target < 0:
                matched_now |= 1 << edge.rule
            else:
                targets.append(edge.target)
        # In order, as moby evaluates: a rule that would not change the answer so far is not
        # asked, and then counts as not matched for everything below, too.
        ignored = False
        sticky = 0
        todo = state.sticky | matched_now
        while todo:
            bit = todo & -todo
            todo ^= bit
            negated = self.negated[bit.bit_length() - 1]
            if state.sticky & bit or negated == ignored:
                sticky |= bit
                ignored = not negated
        nodes = frozenset(n for n in targets if not sticky >> self.rule_of[n] & 1)
        key = (nodes, sticky)
        found = self._states.get(key)
        if found is None:
            if len(self._states) >= _MAX_STATES:
                for old in self._states.values():
                    old.forget()
                self._states.clear()
                self.start.forget()
            found = self._states[key] = State(self, nodes, sticky, ignored)
        return found


def _compile(rules: Sequence[Rule], doublestar: bool) -> _Machine:
    if len(rules) > MAX_RULES:
        raise UsageError(f"{len(rules)} patterns; at most {MAX_RULES} are taken")
    for rule in rules:
        if len(rule.pattern) > MAX_PATTERN:
            raise UsageError(f"pattern of {len(rule.pattern)} characters; at most {MAX_PATTERN}")
    return _Machine(rules, doublestar)


@attrs.frozen
class Ignore:
    """An ordered list of patterns, the last match of which decides.

    Use `state = ignore.start`, then `state = state[name]` for each component of a path; or
    `matches` for one path. Make it with `parse` (an ignore file) or `of` (`--exclude`); `name` is
    the file's.
    """

    rules: tuple[Rule, ...] = ()
    name: str = attrs.field(default=".dockerignore", eq=False)
    _machine: _Machine = attrs.field(init=False, eq=False, repr=False)

    @_machine.default
    def _compiled(self) -> _Machine:
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
                    tokenize(rule.pattern, doublestar=True)
                    _Machine([rule], doublestar=True)
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
                    _Machine([rule], doublestar=True)
                    rules.append(rule)
            except PatternSyntax as error:
                raise UsageError(f"pattern {pattern!r}: {error}") from None
        return cls(tuple(rules))

    @property
    def start(self) -> State:
        """The state at the root, which is never ignored."""
        return self._machine.start

    def state(self, path: bytes) -> State:
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
        return self.state(path).ignored

    def reason(self, path: bytes) -> Rule | None:
        """The rule that makes `path` ignored, None when it is not."""
        state = self.state(path)
        return self.rules[state.sticky.bit_length() - 1] if state.ignored else None


def _rule(line: str, number: int) -> Rule | None:
    # An ignore file is cleaned once by its reader (which knows `!` and makes rooted paths
    # relative) and once by the matcher; both, since their order shows.
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


@attrs.frozen
class Glob:
    """One glob of a COPY source, matched against whole paths (Go's `filepath.Match`).

    `**` acts like `*`, unless `doublestar` (the rules of `--parents`): then it crosses
    directories. Raises `UsageError` for a malformed pattern.
    """

    pattern: str
    doublestar: bool = False
    start: State = attrs.field(init=False, eq=False, repr=False)

    @start.default
    def _compiled(self) -> State:
        try:
            return _compile([Rule(self.pattern)], self.doublestar).start
        except PatternSyntax as error:
            raise UsageError(f"pattern {self.pattern!r}: {error}") from None
