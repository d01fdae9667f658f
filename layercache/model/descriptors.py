"""Stored bytes (`Descriptor`), a filesystem changeset (`Layer`), and a stack of them (`State`)."""

from __future__ import annotations

from typing import Final

from layercache._base.classes import frozen
from layercache.errors import UsageError
from layercache.model.digests import (
    ChainID,
    DiffID,
    Digest,
    LayerID,
    TreeDigest,
    next_chain_id,
)

__all__ = [
    "LAYER_TAR",
    "LAYER_TAR_GZIP",
    "LAYER_TAR_ZSTD",
    "MAX_UNPACKED_SIZE",
    "SCRATCH",
    "Descriptor",
    "Layer",
    "State",
]

LAYER_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_TAR_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_TAR_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"

MAX_UNPACKED_SIZE: Final = 32 << 30
"""Bytes that one build may unpack and fetch in all, where nobody gives another bound."""


@frozen
class Descriptor:
    """Media type, digest and size of a blob, in bytes (OCI descriptor)."""

    media_type: str
    digest: Digest
    size: int


@frozen
class Layer:
    """A filesystem changeset, identified by `id`.

    `tree` digests its entries; it is "" for a layer that came as an archive, which its diff ID
    identifies. `diff_id` is the digest of its uncompressed tar, None as long as nobody made one:
    the layer is then *open*, and its descriptor names it by its tree, with the size that the tar
    will have. A store seals it (`Store.sealed`). Of two layers with one identity both stand for
    the same entries, whatever is known of their archives.
    """

    descriptor: Descriptor
    diff_id: DiffID | None
    tree: TreeDigest = TreeDigest("")

    @property
    def id(self) -> LayerID:
        """What identifies the layer in states, keys and records."""
        return LayerID(self.tree or self.diff_id or "")

    @property
    def is_open(self) -> bool:
        """Whether nobody made its archive yet, as far as this value knows."""
        return self.diff_id is None

    @property
    def archive(self) -> DiffID:
        """The diff ID. Raises `UsageError` for an open layer, which must be sealed first."""
        if self.diff_id is None:
            raise UsageError(f"the layer {self.tree} has no archive yet: seal it first")
        return self.diff_id

    @classmethod
    def opened(cls, tree: TreeDigest, size: int) -> Layer:
        """An open layer, whose tar would have `size` bytes."""
        return cls(Descriptor(LAYER_TAR, Digest(tree), size), None, tree)


@frozen(eq=False, repr=False)
class State:
    """The result of a step: a stack of layers, identified by its chain ID alone.

    A linked list, so that a chain of n steps takes O(n) memory instead of O(n²). Two states are
    equal exactly if their chain IDs are.
    """

    chain_id: ChainID
    parent: State | None = None
    layer: Layer | None = None
    depth: int = 0

    def plus(self, layer: Layer | None) -> State:
        """This state with `layer` on top; the same state if `layer` is None (nothing changed)."""
        if layer is None:
            return self
        chain = next_chain_id(self.chain_id, layer.id)
        return State(chain_id=chain, parent=self, layer=layer, depth=self.depth + 1)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, the lowest first."""
        found = []
        state: State | None = self
        while state is not None and state.layer is not None:
            found.append(state.layer)
            state = state.parent
        return tuple(reversed(found))

    def __reduce__(self) -> tuple[object, tuple[ChainID, tuple[Layer, ...]]]:
        """Pickled as a list, because a linked list would need one level of recursion per layer."""
        bottom = self
        while bottom.parent is not None and bottom.layer is not None:
            bottom = bottom.parent
        return _stacked, (bottom.chain_id, self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and other.chain_id == self.chain_id

    def __hash__(self) -> int:
        return hash(self.chain_id)

    def __repr__(self) -> str:
        return f"State({self.chain_id or 'scratch'}, {self.depth} layers)"


def _stacked(bottom: ChainID, layers: tuple[Layer, ...]) -> State:
    state = State(chain_id=bottom)
    for layer in layers:
        state = state.plus(layer)
    return state


SCRATCH: Final = State(chain_id=ChainID(""))
"""The state without any layer."""
