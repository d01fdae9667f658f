"""The logical clock: the times at which a running step sees what the layers below it hold. Pure.

Layers have no clock in them (`layer_times`). Tools that compare times (make, ninja, cargo) need
one: what a later instruction wrote must be newer than what an earlier one did. So each layer of
a state has its *instants*, whole seconds after everything of the layers below and after the
newest time of its own that is set on purpose; its entries of the time "now" appear at these. The
first comes after the newest file of the base image. All of it is a function of the layers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from layercache._base.classes import frozen
from layercache.model.layer_times import LAYER_TIME, MAX_CODE

__all__ = ["STRIDE", "Clock", "LayerTimes"]

STRIDE: Final = 2
"""Seconds from one instant to the next: what archives (zip, FAT) can tell apart."""


@frozen
class LayerTimes:
    """What the clock needs of a layer.

    `newest` is its newest time that is set on purpose and later than LAYER_TIME (which layers of
    base images have only), else LAYER_TIME; `codes` are the codes of the entries whose time is not
    set on purpose, sorted; `purpose` says whether there are others.
    """

    newest: int = LAYER_TIME
    codes: tuple[int, ...] = ()
    purpose: bool = False

    @property
    def own(self) -> int:
        """How many instants are the layer's own."""
        return 1 + max(((code + 1) // 2 for code in self.codes if code % 2), default=0)


@frozen
class Clock:
    """The instants of a state, in seconds since 1970, ascending.

    `instants[0]` is the start, before every layer. `layers` says of each layer, lowest first,
    how many instants come before its own, and with them.
    """

    instants: tuple[int, ...] = (LAYER_TIME,)
    layers: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, times: Sequence[LayerTimes], start: int = LAYER_TIME) -> Clock:
        """The clock of a stack of layers, lowest first, nothing of which is before `start`."""
        instants = [start]
        layers = []
        for one in times:
            before = len(instants)
            top = max(instants[-1], one.newest)
            instants += [top + STRIDE * (n + 1) for n in range(one.own)]
            layers.append((before, len(instants)))
        return cls(tuple(instants), tuple(layers))

    @property
    def now(self) -> int:
        """The instant at which the next layer's entries will appear."""
        return self.instants[-1] + STRIDE

    def shown(self, layer: int, code: int) -> int:
        """When an entry of layer number `layer` with this code appears."""
        before, through = self.layers[layer]
        if code % 2:
            return self.instants[max(before, through - 1 - (code + 1) // 2)]
        if code:
            return self.instants[max(0, before - code // 2)]
        return self.instants[through - 1]

    def code(self, moment: int) -> int | None:
        """The code in the next layer for what was last written at the instant `moment`; None
        when that is none of the instants."""
        from bisect import bisect_left

        at = bisect_left(self.instants, moment)
        if at == len(self.instants) or self.instants[at] != moment:
            return None
        return min(2 * (len(self.instants) - at), MAX_CODE) if at else MAX_CODE
