"""What a command finds in its environment: variables in order, shared from step to step.

A recipe may set a variable before each of its commands. All environments together are then as
large as the square of the recipe, so none of them is written down until somebody asks for it,
and a large one counts in keys by a digest that each change moves on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias, overload

from blake3 import blake3

from layercache._base.persistent_map import PersistentMap
from layercache.model.framing import frame

__all__ = ["Environment", "is_large"]

MANY: Final = 256
"""Variables that count one by one at most."""

LARGE: Final = 32_768
"""Characters of names and values that count one by one at most."""

_CONTEXT: Final = "layercache 2026-11 environment 1"
_BYTES: Final = 512
_MODULUS: Final = 1 << 8 * _BYTES
"""Sums of so many bits give no two multisets of hashes that anybody could find."""


_Entry: TypeAlias = tuple[str, str | None, str | None]
"""The value of a variable, and the names before and after it."""


class Environment(Sequence[tuple[str, str]]):
    """Variables in the order in which a command sees them; each change gives another.

    Equal environments hold the same pairs in the same order, however they came to. Setting a
    variable again moves it to the end. `size` counts the characters of names and values.
    """

    __slots__ = ("_entries", "_first", "_last", "_pairs", "_sum", "size")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._entries: PersistentMap[_Entry] = PersistentMap()
        self._first: str | None = None
        self._last: str | None = None
        self._pairs: tuple[tuple[str, str], ...] | None = None
        self._sum: int | None = None
        self.size = 0
        for name, value in pairs:
            self._insert(name, value, None)

    def with_variable(self, name: str, value: str, *, before: str | None = None) -> Environment:
        """The same with `name` at the end, or before another variable."""
        made: Environment = self._copy()
        made._insert(name, value, before)
        return made

    def with_value(self, name: str, value: str) -> Environment:
        """The same with another value of `name`, which keeps its place; at the end if new."""
        known = self._entries.get(name)
        return self.with_variable(name, value, before=None if known is None else known[2])

    def without(self, name: str) -> Environment:
        """The same without `name`."""
        made: Environment = self._copy()
        known = made._entries.get(name)
        if known is not None:
            made._take_out(name, known)
        return made

    def _copy(self) -> Environment:
        made: Environment = Environment.__new__(Environment)
        made._entries, made._pairs, made.size = self._entries, None, self.size
        made._first, made._last = self._first, self._last
        # A large one is summed up once, and from then on with each change.
        made._sum = self._summed() if is_large(self) else None
        return made

    def _insert(self, name: str, value: str, after: str | None) -> None:
        """Put `name` before `after`, None for the end."""
        known = self._entries.get(name)
        if known is not None:
            self._take_out(name, known)
        entries = self._entries
        before = self._last
        if after is not None:
            there, before, further = entries[after]
            entries = entries.with_item(after, (there, name, further))
            if self._sum is not None:
                self._sum += _hash(after, there, name) - _hash(after, there, before)
        else:
            self._last = name
        if before is None:
            self._first = name
        else:
            there, further, _ = entries[before]
            entries = entries.with_item(before, (there, further, name))
        self._entries = entries.with_item(name, (value, before, after))
        self.size += len(name) + len(value)
        if self._sum is not None:
            self._sum += _hash(name, value, before)

    def _take_out(self, name: str, known: _Entry) -> None:
        value, before, after = known
        entries = self._entries.without(name)
        if before is None:
            self._first = after
        else:
            there, further, _ = entries[before]
            entries = entries.with_item(before, (there, further, after))
        if after is None:
            self._last = before
        else:
            there, _, further = entries[after]
            entries = entries.with_item(after, (there, before, further))
            if self._sum is not None:
                self._sum += _hash(after, there, before) - _hash(after, there, name)
        self._entries = entries
        self.size -= len(name) + len(value)
        if self._sum is not None:
            self._sum -= _hash(name, value, before)

    def _summed(self) -> int:
        if self._sum is None:
            before = None
            total = 0
            for name, value in self.pairs:
                total += _hash(name, value, before)
                before = name
            self._sum = total
        self._sum %= _MODULUS
        return self._sum

    def get(self, name: str) -> str | None:
        """The value of a variable, None where there is none."""
        found = self._entries.get(name)
        return None if found is None else found[0]

    @property
    def first(self) -> str | None:
        """The name of the first variable."""
        return self._first

    def name_after(self, name: str) -> str | None:
        """The name of the variable that follows `name`."""
        return self._entries[name][2]

    def has(self, name: str) -> bool:
        """Whether there is a variable of this name."""
        return name in self._entries

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All of it, written down once."""
        if self._pairs is None:
            found = []
            name = self._first
            while name is not None:
                value, _, after = self._entries[name]
                found.append((name, value))
                name = after
            self._pairs = tuple(found)
        return self._pairs

    @property
    def digest(self) -> str:
        """Stands for the pairs and their order; 64 hexadecimal digits."""
        data = self._summed().to_bytes(_BYTES, "big")
        return blake3(data, derive_key_context=_CONTEXT + " sum").hexdigest()

    @overload
    def __getitem__(self, place: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[tuple[str, str], ...]: ...
    def __getitem__(self, place: int | slice) -> tuple[str, str] | tuple[tuple[str, str], ...]:
        return self.pairs[place]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Environment):
            return NotImplemented
        return len(self) == len(other) and self._summed() == other._summed()

    def __hash__(self) -> int:
        return hash(self._summed())

    def __repr__(self) -> str:
        return f"Environment({len(self)} variables)"

    def __reduce__(self) -> tuple[type[Environment], tuple[tuple[tuple[str, str], ...]]]:
        return (Environment, (self.pairs,))


def is_large(env: Sequence[tuple[str, str]]) -> bool:
    """Whether `env` counts by its digest, and not variable by variable."""
    if len(env) > MANY:
        return True
    if isinstance(env, Environment):
        return env.size > LARGE
    return sum(len(name) + len(value) for name, value in env) > LARGE


def _hash(name: str, value: str, before: str | None) -> int:
    """A variable after the one `before` it, as a number of 4,096 bits."""
    data = frame((name, value, before))
    return int.from_bytes(blake3(data, derive_key_context=_CONTEXT).digest(length=_BYTES), "big")
