"""A mapping that is never changed: `with_item` gives another that shares nearly all of it.

A trie over the hashes of the keys, sixteen ways at a level. Hashes of texts differ from process
to process, so nobody can choose keys that fall together; the order of iteration tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar, cast

__all__ = ["PersistentMap"]

_Value = TypeVar("_Value")

_BITS: Final = 4
_MASK: Final = (1 << _BITS) - 1
_LEVELS: Final = 15
"""Levels told apart by the hash; below them a node holds all keys of one hash."""


class PersistentMap(Mapping[str, _Value], Generic[_Value]):
    """Texts to values; a change costs the logarithm of the size, a copy nothing."""

    __slots__ = ("_root", "_size")

    def __init__(self, items: Mapping[str, _Value] | None = None) -> None:
        self._root: dict[int, object] = {}
        self._size = 0
        if items:
            grown: PersistentMap[_Value] = self
            for key, value in items.items():
                grown = grown.with_item(key, value)
            self._root, self._size = grown._root, len(grown)  # noqa: SLF001

    def with_item(self, key: str, value: _Value) -> PersistentMap[_Value]:
        """The same with `key` set to `value`."""
        made: PersistentMap[_Value] = PersistentMap.__new__(PersistentMap)
        made._root, added = _with(self._root, key, hash(key), value, 0)
        made._size = self._size + added
        return made

    def without(self, key: str) -> PersistentMap[_Value]:
        """The same without `key`, itself where it has none."""
        if key not in self:
            return self
        made: PersistentMap[_Value] = PersistentMap.__new__(PersistentMap)
        made._root, made._size = _without(self._root, key, hash(key), 0), self._size - 1
        return made

    def __getitem__(self, key: str) -> _Value:
        node, code = self._root, hash(key)
        for _ in range(_LEVELS):
            found = node.get(code & _MASK)
            if type(found) is not dict:
                if found is not None and found[0] == key:  # type: ignore[index]
                    return cast(_Value, found[1])  # type: ignore[index]
                raise KeyError(key)
            node, code = found, code >> _BITS
        return cast("dict[str, _Value]", node)[key]

    def __iter__(self) -> Iterator[str]:
        stack: list[tuple[dict[int, object], int]] = [(self._root, 0)]
        while stack:
            node, level = stack.pop()
            if level == _LEVELS:
                yield from cast("dict[str, object]", node)
                continue
            for found in node.values():
                if type(found) is dict:
                    stack.append((found, level + 1))
                else:
                    yield found[0]  # type: ignore[index]

    def __len__(self) -> int:
        return self._size


def _with(
    node: dict[int, object], key: str, code: int, value: object, level: int
) -> tuple[dict[int, object], bool]:
    """`node` with the item, and whether that is one more."""
    copy = dict(node)
    if level == _LEVELS:
        same = cast("dict[str, object]", copy)
        added = key not in same
        same[key] = value
        return copy, added
    place = code & _MASK
    found = copy.get(place)
    if found is None or (type(found) is tuple and found[0] == key):
        copy[place] = (key, value)
        return copy, found is None
    if type(found) is tuple:
        other, kept = found
        found, _ = _with({}, other, hash(other) >> _BITS * (level + 1), kept, level + 1)
    below = cast("dict[int, object]", found)
    copy[place], added = _with(below, key, code >> _BITS, value, level + 1)
    return copy, added


def _without(node: dict[int, object], key: str, code: int, level: int) -> dict[int, object]:
    copy = dict(node)
    if level == _LEVELS:
        del cast("dict[str, object]", copy)[key]
        return copy
    place = code & _MASK
    found = copy[place]
    below = _without(found, key, code >> _BITS, level + 1) if type(found) is dict else None
    if below:
        copy[place] = below
    else:
        del copy[place]
    return copy
