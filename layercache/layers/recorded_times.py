"""The meaning of the times on disk after a step, for its layer. Pure.

A step was shown the times of a logical clock (`model.logical_clock`), and for a few files others
(`kept`). A file that still has the time that was shown was written by an earlier step, even if it
was moved or given another owner; anything newer was written by this step.
"""

# ruff: noqa: ARG002 - `Times` is the base of the other kinds

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from layercache.layers.state_tree import StateTree
from layercache.model.layer_times import LAYER_TIME, MAX_CODE, clamped_time, coded_time

if TYPE_CHECKING:
    from layercache.model.logical_clock import Clock
    from layercache.model.tree import Node, Tree

__all__ = ["RecordedTimes", "Times"]

_SECOND: Final = 10**9


class Times:
    """Times are shown as the layers have them: the tree's own, and clamped afterwards."""

    def __init__(self, before: Tree) -> None:
        self.keep_bytecode = False
        """Whether `.pyc` files stay as they were compiled (`python_bytecode`)."""
        self.before = before
        """The state before the step, with the times that it was shown."""

    def same(self, path: bytes, base: Node, found: int) -> bool:
        """Whether the time `found` (ns since 1970) is what `path` was shown with."""
        return clamped_time(found // _SECOND) == base.mtime

    def as_new(self, path: bytes, base: Node, found: int) -> bool:
        """Whether the layer would have the time of `base` for `found`, too."""
        return self.same(path, base, found)

    def code(self, path: bytes, base: Node | None, found: int) -> int | None:
        """The code of `found` in the layer, which is now at `path`; None for a time set on
        purpose.
        """
        return None

    def recorded(self, code: int | None, found: int, content: bytes | None) -> int:
        """The time in the layer, in seconds; `content` is the digest of a file's bytes."""
        return clamped_time(found // _SECOND)

    def shown(self, code: int | None, found: int) -> int | None:
        """The time, in ns, at which the next step sees the entry; None if only the layer
        determines it.
        """
        return clamped_time(found // _SECOND) * _SECOND

    def kept(self, path: bytes, base: Node) -> int:
        """The time, in ns, that `path` was shown with."""
        return base.mtime * _SECOND


class RecordedTimes(Times):
    """Times were those of the logical clock of the layers of `state`.

    `kept` are paths that were shown with another time (ns since 1970) than the clock gives.
    `mounted` are the moments (ns), ascending, that were shown in bind mounts: copies that keep
    them are as new as the layer, in that order.
    """

    def __init__(
        self,
        state: StateTree,
        kept: Mapping[bytes, int] | None = None,
        mounted: Sequence[int] = (),
        *,
        keep_bytecode: bool = False,
    ) -> None:
        super().__init__(state.shown())
        self.keep_bytecode = keep_bytecode
        self._clock: Clock = state.clock
        self._state = state
        self._kept = kept or {}
        self._ranks = {ns: len(mounted) - 1 - n for n, ns in enumerate(sorted(set(mounted)))}
        self._others = frozenset(self._kept.values())
        self._moments: dict[int, int] | None = None

    def _moment(self, found: int) -> int:
        """The moment of the clock at which an entry shown with the time `found` was written."""
        if self._moments is None:
            # Few steps write anything with such a time: only a copy that keeps times does.
            self._moments = {}
            for path, ns in self._kept.items():
                moment = LAYER_TIME
                if self._state.code(path) is not None:
                    moment = self._state.moment(path)
                self._moments[ns] = max(moment, self._moments.get(ns, 0))
        return self._moments[found]

    def kept(self, path: bytes, base: Node) -> int:
        return self._kept.get(path, base.mtime * _SECOND)

    def same(self, path: bytes, base: Node, found: int) -> bool:
        return found == self.kept(path, base)

    def as_new(self, path: bytes, base: Node, found: int) -> bool:
        if self.same(path, base, found):
            return True
        return (
            self._state.code(path) == 0
            and self.code(path, base, found) in (0, None)
            and (clamped_time(found // _SECOND) == LAYER_TIME)
        )

    def code(self, path: bytes, base: Node | None, found: int) -> int | None:
        if base is not None and self.same(path, base, found):
            if self._state.code(path) is not None:
                return self._clock.code(self._state.moment(path))
            return MAX_CODE if base.mtime > LAYER_TIME else None
        if found in self._others:
            moment = self._moment(found)
            return MAX_CODE if moment <= LAYER_TIME else self._clock.code(moment)
        rank = self._ranks.get(found)
        if rank is not None:
            return max(0, 2 * rank - 1)
        seconds, rest = divmod(found, _SECOND)
        code = None if rest else self._clock.code(seconds)
        # Nothing was written at the start of the clock.
        return None if code == MAX_CODE else code

    def recorded(self, code: int | None, found: int, content: bytes | None) -> int:
        if not code:
            return clamped_time(found // _SECOND)
        return coded_time(code, content)

    def shown(self, code: int | None, found: int) -> int | None:
        if code is None:
            seconds = clamped_time(found // _SECOND)
            return (self._clock.now if seconds == LAYER_TIME else seconds) * _SECOND
        if code % 2:
            return None
        if not code:
            return self._clock.now * _SECOND
        return self._clock.instants[-min(code // 2, len(self._clock.instants))] * _SECOND
