"""Patterns as one automaton over path components, determinised lazily.

Each pattern is a small nondeterministic machine whose edges read one component (`Component`);
a `PatternState` is the set of nodes that a path can reach, with the rules that matched above it,
as in moby's walk. States are created on first use and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from layercache.trees._components import Component, Part, PatternSyntax, tokenize

__all__ = ["Machine", "PatternState"]

_MAX_BREAKS: Final = 32
"""Places in one component of a pattern where it may go on in a deeper directory."""

_MAX_STATES: Final = 4096
"""States kept; beyond, all are dropped and made again as needed."""

_MAX_MEMO: Final = 4096
"""Names remembered in one state."""

_MAX_MEMOS: Final = 500_000
"""Names remembered in all states of a machine, some 50 MB."""

_MAX_DIRECTORIES: Final = 20_000
"""Paths of directories remembered with their states, some 5 MB."""


_Get: TypeAlias = Callable[[bytes], list[int] | None]


class _Edge(NamedTuple):
    component: Component
    target: int  # node, or -1: the pattern matches here
    rule: int


class PatternState(dict[bytes, "PatternState"]):
    """The state of the machine after a path; `state[name]` is the state one component deeper.

    `ignored`: the path matches. `settled`: all paths below have the same answer, so nothing below
    need be checked. Values are created on demand and shared; do not change them.
    """

    __slots__ = (
        "_exact",
        "_machine",
        "_nodes",
        "_other",
        "_probes",
        "_taking",
        "_targets",
        "_usual",
        "ignored",
        "settled",
        "sticky",
    )  # fmt: skip

    def __init__(self, machine: Machine, nodes: frozenset[int], sticky: int, ignored: bool):
        super().__init__()
        self._machine = machine
        self._nodes = nodes
        self.sticky = sticky
        self.ignored = ignored
        last = sticky.bit_length() - 1
        self.settled = True
        for node in nodes:
            rule = machine.rule_of[node]
            if rule > last and machine.negated[rule] == ignored:
                self.settled = False
                break
        self._exact: _Get | None = None
        self._probes: list[tuple[slice, _Get]] = []
        self._other: list[int] = []
        self._taking: tuple[list[int], list[int]] = ([], [])
        self._targets: dict[tuple[int, ...], PatternState] = {}
        self._usual: PatternState | None = None

    @property
    def prunable(self) -> bool:
        """Ignored, and no exception can include anything below again."""
        return self.ignored and self.settled

    def _index(self) -> None:
        # Edges by what can be looked up: the whole name, or what it begins or ends with. Only
        # candidates are then tried, so that many patterns cost as little as few.
        exact: dict[bytes, list[int]] = {}
        parts: dict[tuple[int | None, int | None], dict[bytes, list[int]]] = {}
        self._other = []
        taking: tuple[list[int], list[int]] = ([], [])
        for node in self._nodes:
            for number in self._machine.edges_of[node]:
                part = self._machine.edges[number].component
                if part.exact is not None:
                    exact.setdefault(part.exact, []).append(number)
                elif part.takes_all or part.takes_lines:
                    taking[0].append(number)
                    if part.takes_all:
                        taking[1].append(number)
                elif part.suffix:
                    ends = parts.setdefault((-len(part.suffix), None), {})
                    ends.setdefault(part.suffix, []).append(number)
                elif part.prefix:
                    begins = parts.setdefault((None, len(part.prefix)), {})
                    begins.setdefault(part.prefix, []).append(number)
                else:
                    self._other.append(number)
        self._exact = exact.get
        self._probes = [(slice(*cut), found.get) for cut, found in parts.items()]
        self._taking = taking
        self._targets = {}
        self._usual = None

    def __missing__(self, name: bytes) -> PatternState:
        if self.settled or not name:
            return self
        if self._exact is None:
            self._index()
        assert self._exact is not None
        found = self._exact(name)
        candidates = self._other
        for cut, get in self._probes:
            some = get(name[cut])
            if some is not None:
                candidates = candidates + some
        # Most names meet nothing but the edges that take any name.
        if found is None and not candidates and b"\n" not in name:
            state = self._usual
            if state is None:
                state = self._usual = self._machine.step(self, self._taking[0])
        else:
            state = self._follow(name, found or [], candidates)
        if len(self) < _MAX_MEMO:
            machine = self._machine
            machine.remembered += 1
            if machine.remembered > _MAX_MEMOS:
                machine.forget()
            self[name] = state
        return state

    def _follow(self, name: bytes, found: list[int], candidates: list[int]) -> PatternState:
        edges = self._machine.edges
        hits = [*found, *[n for n in candidates if edges[n].component.match(name)]]
        hits.sort()
        # Edges that take any name are no part of the key: they would make it long.
        lines = b"\n" in name
        key = (-1 if lines else -2, *hits)
        state = self._targets.get(key)
        if state is None:
            state = self._machine.step(self, [*hits, *self._taking[lines]])
            if len(self._targets) < _MAX_MEMO:
                self._targets[key] = state
        return state

    def forget(self) -> None:
        """Drop values created on demand, to bound memory; the state stays usable."""
        self.clear()
        self._exact = None
        self._targets = {}
        self._usual = None

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Machine:
    """All patterns, each with whether it is negated, determinised as paths are looked up.

    Raises `PatternSyntax` for a malformed one.
    """

    def __init__(self, rules: Sequence[tuple[str, bool]], doublestar: bool) -> None:
        self.negated = [negated for _, negated in rules]
        self.edges: list[_Edge] = []
        self.edges_of: list[list[int]] = []
        self.rule_of: list[int] = []
        starts = [
            self._add(number, tokenize(pattern, doublestar=doublestar))
            for number, (pattern, _) in enumerate(rules)
        ]
        self._states: dict[tuple[frozenset[int], int], PatternState] = {}
        self._directories: dict[bytes, PatternState] = {}
        self.remembered = 0  # names kept in all states
        self.start = PatternState(self, frozenset(starts), 0, False)

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

    def step(self, state: PatternState, edges: Sequence[int]) -> PatternState:
        """The state after one more component, given the edges that read it."""
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
                self.forget()
            found = self._states[key] = PatternState(self, nodes, sticky, ignored)
        return found

    def directory(self, path: bytes) -> PatternState:
        """The state after `path` (b"" for the root), remembered because many paths share a
        directory.
        """
        state = self._directories.get(path)
        if state is None:
            state = self.start
            for name in path.split(b"/"):
                state = state[name]
            if len(self._directories) >= _MAX_DIRECTORIES:
                self._directories.clear()
            self._directories[path] = state
        return state

    def forget(self) -> None:
        """Drop values created on demand, to bound memory."""
        for state in self._states.values():
            state.forget()
        self._states.clear()
        self._directories.clear()
        self.start.forget()
        self.remembered = 0
