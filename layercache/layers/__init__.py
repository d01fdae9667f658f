"""Layers as tar changesets: written deterministically, indexed, captured, applied safely.

Imports `model`, `trees` and the base packages; independent of registries and caches. Start at
`writer` and `reader`, then `apply` (a hostile layer is applied to a directory) and `capture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.layers.apply import export_tree, merged_tar, unpack
    from layercache.layers.capture import StatTable, capture_diff, capture_upper
    from layercache.layers.compression import compression_of, decompressed
    from layercache.layers.limits import DEFAULT_LIMITS, Limits
    from layercache.layers.reader import index_layer, read_layer
    from layercache.layers.state_tree import StateTree
    from layercache.layers.writer import OPAQUE_MARKER, WHITEOUT_PREFIX, LayerWriter

__all__ = [
    "DEFAULT_LIMITS",
    "OPAQUE_MARKER",
    "WHITEOUT_PREFIX",
    "LayerWriter",
    "Limits",
    "StatTable",
    "StateTree",
    "capture_diff",
    "capture_upper",
    "compression_of",
    "decompressed",
    "export_tree",
    "index_layer",
    "merged_tar",
    "read_layer",
    "unpack",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "apply": "export_tree merged_tar unpack",
            "capture": "StatTable capture_diff capture_upper",
            "compression": "compression_of decompressed",
            "limits": "DEFAULT_LIMITS Limits",
            "reader": "index_layer read_layer",
            "state_tree": "StateTree",
            "writer": "OPAQUE_MARKER WHITEOUT_PREFIX LayerWriter",
        },
    )
