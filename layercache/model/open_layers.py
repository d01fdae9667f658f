"""What a step's window may offer: to take a layer whose archive nobody made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from layercache.model.descriptors import Layer
    from layercache.model.layer_index import LayerIndex

__all__ = ["KeepsOpenLayers"]


@runtime_checkable
class KeepsOpenLayers(Protocol):
    """Optional for a `Blobs`: takes layers whose files lie in a directory of the executor."""

    @property
    def open_layers(self) -> str | None:
        """The scratch directory in which it looks for them; None where it takes none."""

    def keep_open(self, layer: Layer, index: LayerIndex, name: str) -> None:
        """Take an open layer with the files in the unpacked directory `name`; raises
        `CacheError`."""
