"""The order in which the selected files of a state were written. Pure.

COPY --from and mounts of a state keep that order, so it counts where they count; where all were
written at once there is none to keep.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Final

from blake3 import blake3

from layercache.model.digests import Fingerprint
from layercache.model.selectors import Files
from layercache.model.tree import Tree
from layercache.trees.selection import Selected, fingerprint, select, walk

__all__ = ["Ordered", "ordered", "ordered_fingerprint", "ranks_of"]

_CONTEXT: Final = "layercache 2026-11 selection in the order of writing 1"

MAX_RANKS: Final = 256
"""Number of latest moments that are distinguished; older ones count as the earliest of them."""


class Ordered(ABC):
    """Optional: a tree that knows the order in which its files were written."""

    __slots__ = ()

    @abstractmethod
    def moment(self, path: bytes) -> int:
        """The moment of the last write to `path`: a number that grows with time."""

    @abstractmethod
    def at_once(self, path: bytes) -> bool:
        """Whether everything at and below `path` is known to have been written at once."""


def ranks_of(tree: Tree, matches: Iterable[Selected]) -> Mapping[bytes, int]:
    """Path → how many moments before the newest a selected file was written.

    Empty where all were written at once, and where the tree knows no order. Files only: times of
    directories and links decide nothing for the tools that compare times.
    """
    if not isinstance(tree, Ordered):
        return {}
    chosen = list(matches)
    if len(chosen) == 1 and tree.at_once(chosen[0].path):
        return {}
    moments: dict[bytes, int] = {}
    for match in chosen:
        for _, path, node in walk(tree, match):
            if node.is_file:
                moments[path] = tree.moment(path)
    newest = sorted(set(moments.values()), reverse=True)
    if len(newest) < 2:
        return {}
    rank = {moment: min(n, MAX_RANKS - 1) for n, moment in enumerate(newest)}
    return {path: rank[moment] for path, moment in moments.items()}


def ordered_fingerprint(tree: Tree, files: Files) -> Fingerprint:
    """`fingerprint`, and the order in which what is selected was written, if there is one.

    Raises what `select` raises.
    """
    return ordered(fingerprint(tree, files), ranks_of(tree, select(tree, files)))


def ordered(found: Fingerprint, ranks: Mapping[bytes, int]) -> Fingerprint:
    """The fingerprint of a selection with the ranks of its files, which come in its order."""
    if not ranks:
        return found
    hasher = blake3(derive_key_context=_CONTEXT)
    hasher.update(found.encode())
    hasher.update(struct.pack(f"<{len(ranks)}H", *ranks.values()))
    return Fingerprint(hasher.hexdigest())
