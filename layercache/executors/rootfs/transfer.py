"""Layers in and out of directories: what unpacks them, what captures them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from layercache.descriptors import LAYER_TAR, Layer, State
from layercache.digests import Digest
from layercache.errors import CorruptObject

if TYPE_CHECKING:
    from layercache.execution import Blobs
    from layercache.layers.index import LayerIndex
    from layercache.trees import Tree

__all__ = ["capture", "flatten", "unpack"]

_CHUNK = 1 << 18


def unpack(state: State, target: str, blobs: Blobs, *, rootless: bool = False) -> None:
    """Unpack the topmost layer of `state` into the empty directory `target`, for overlayfs."""
    from layercache.layers import apply

    layer = state.layer
    assert layer is not None
    with _tar(layer, target, blobs) as tar:
        apply.unpack(blobs.index(layer), tar, target, state=blobs.tree(state), rootless=rootless)


def flatten(states: list[State], target: str, blobs: Blobs, *, rootless: bool = False) -> None:
    """Apply the topmost layers of `states`, the lowest first, to the empty directory `target`."""
    from layercache.layers import apply

    for state in states:
        layer = state.layer
        assert layer is not None
        with _tar(layer, target, blobs) as tar:
            apply.apply(blobs.index(layer), tar, target, rootless=rootless)


@contextlib.contextmanager
def _tar(layer: Layer, target: str, blobs: Blobs) -> Iterator[BinaryIO]:
    """The verified, uncompressed tar of a layer; inflated to an unnamed file where need be."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(blobs.open(layer.descriptor.digest))
        if str(layer.descriptor.digest) == layer.diff_id:
            yield stream
            return
        from layercache.layers.compression import decompressed

        spool = stack.enter_context(tempfile.TemporaryFile(dir=os.path.dirname(target)))
        hasher = hashlib.sha256()
        plain = decompressed(stream, what="layer")
        while chunk := plain.read(_CHUNK):
            hasher.update(chunk)
            spool.write(chunk)
        if "sha256:" + hasher.hexdigest() != layer.diff_id:
            raise CorruptObject(f"a layer does not inflate to its diff ID {layer.diff_id}")
        spool.seek(0)
        yield spool


def capture(upper: str, tar: str, parent: Tree, blobs: Blobs) -> tuple[Layer, LayerIndex] | None:
    """The layer that an upper directory is, stored; None when it holds no change.

    `tar` is where the archive is written first. The directory is given the times of the layer.
    """
    from layercache.layers.capture import capture_upper
    from layercache.layers.tar import LayerWriter

    with open(tar, "wb") as out:
        writer = LayerWriter(out)
        capture_upper(upper, parent, writer)
        if writer.empty:
            return None
        diff_id, size, index = writer.finish()
    descriptor = blobs.add_file(tar, LAYER_TAR, Digest(diff_id), size)
    layer = Layer(descriptor, diff_id)
    blobs.keep_index(layer, index)
    return layer, index
