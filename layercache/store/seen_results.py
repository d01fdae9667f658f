"""The number of different results of a key, recorded beside the records when a step runs again.

If a key has different layers from run to run, the result of its step does not depend on its inputs
alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from layercache.errors import CorruptObject
from layercache.store.codec import pack, unpack

if TYPE_CHECKING:
    from layercache.model.descriptors import Layer
    from layercache.model.digests import CacheKey
    from layercache.store.parts import DerivedStore

__all__ = ["note_results", "results_of"]

_KIND: Final = "results"
_MOST: Final = 64


def note_results(derived: DerivedStore, key: CacheKey, layers: Iterable[Layer | None]) -> int:
    """Remember a result of `key`; returns the number of different results so far.

    Nothing is written where all are the same.
    """
    found = dict.fromkeys(results_of(derived, key))
    before = len(found)
    found.update(dict.fromkeys("" if layer is None else str(layer.id) for layer in layers))
    if len(found) > max(before, 1):
        derived.put(_KIND, key, pack(tuple(found)[:_MOST]))
    return len(found)


def results_of(derived: DerivedStore, key: CacheKey) -> tuple[str, ...]:
    """What identifies the layers that `key` is known to have given ("" for no change).

    None where all runs that could be compared gave the same.
    """
    data = derived.get(_KIND, key)
    if data is None:
        return ()
    try:
        return tuple(str(name) for name in unpack(data))
    except (CorruptObject, TypeError):
        return ()
