"""Hard links of a layer to files of lower layers: found where a state is put together. Pure.

Some tools write such links: containerd and umoci look the name up in what is unpacked so far. Here,
as in a mounted overlay, the file then belongs to the upper layer with all its names; its bytes stay
in the tar of the lower one. Other names of it in the lower layer keep the file as it was there.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from layercache._base.classes import evolve
from layercache.errors import BuildError, HostileArchive
from layercache.layers.follow_links import resolve
from layercache.layers.tar_headers import shown
from layercache.model.layer_index import OPAQUE, WHITEOUT, Entry, IndexBuilder, LayerIndex
from layercache.model.layer_times import coded_time
from layercache.model.tree import Tree

if TYPE_CHECKING:
    from layercache.model.tree import Node

__all__ = ["LowerState", "appended", "bind", "lent"]


class LowerState(Tree, Protocol):
    """The layers below as one tree, with the place and the time of each file."""

    def place(self, path: bytes) -> tuple[int, int] | None:
        """The layer in whose tar the bytes of the file at `path` are, and their offset."""

    def age(self, path: bytes) -> int | None:
        """The code for the time at which the entry at `path` was written."""


def bind(index: LayerIndex, below: LowerState, what: str) -> LayerIndex:
    """`index` on top of the state `below`: its links to lower layers have become names of one
    file, with a row for the target itself unless the layer replaces or deletes that afterwards.

    Raises `HostileArchive`, which begins with `what`, if the target of a link is no file there.
    """
    builder = IndexBuilder()
    for entry in index:
        if not entry.lower:
            builder.put(entry)
    first: dict[bytes, bytes] = {}
    lenders: dict[bytes, int] = {}
    for row, target in index.lower_links.items():
        path = index.paths[row]
        place = _found(index, below, path, target, what)
        node = _as_shown(below, place)
        lender, offset = below.place(place) or (0, 0)
        if place not in first:
            first[place] = path if index.row(place) is not None else place
            builder.put(Entry(first[place], node, offset=offset))
        if path != first[place]:
            builder.put(Entry(path, node, offset=offset, hardlink=first[place]))
        lenders[path] = lenders[first[place]] = lender
    found = builder.build()
    found.lenders = {row: lenders[path] for row, path in enumerate(found.paths) if path in lenders}
    return found


def _found(index: LayerIndex, below: LowerState, path: bytes, target: bytes, what: str) -> bytes:
    """The path in `below` of the file that the link at `path` of the layer names."""
    said = f"{what}: entry {shown(path)} is a hard link to {shown(target)}"
    try:
        found = resolve(below, target, follow_last=False)
    except BuildError as error:
        raise HostileArchive(f"{said}, which goes through a loop of links") from error
    if found.node is None or found.node.is_dir:
        raise HostileArchive(
            f"{said}, which is no file of the layer or of a layer below; the image is incomplete"
        )
    if found.path == path or found.path.startswith(path + b"/"):
        raise HostileArchive(f"{said}, which the entry itself replaces")
    for passed, node in found.reads:
        row = index.row(passed)
        if row is None or (passed == found.path == target):
            continue
        # A directory of both is one; anything else here has changed what the name leads to.
        same = node is not None and node.is_dir and stat.S_ISDIR(index.mode(row))
        if not same or index.flags(row) & (OPAQUE | WHITEOUT):
            raise HostileArchive(
                f"{said}, which goes through {shown(passed)}, and the layer replaces that"
            )
    return found.path


def _as_shown(below: LowerState, path: bytes) -> Node:
    """The node at `path` as the next layer has it: a step sees it with the time that it had."""
    node = below.lookup(path)
    assert node is not None
    code = below.age(path)
    if code is None:
        return node
    return evolve(node, mtime=coded_time(code, node.content if node.is_file else None))


def lent(index: LayerIndex) -> Iterator[tuple[bytes, int]]:
    """Path and size of each content that a layer has from lower ones, once for all its names."""
    for row in index.lenders:
        if row not in index.hardlinks and stat.S_ISREG(index.mode(row)):
            yield index.paths[row], index.content(row)[1]


def appended(index: LayerIndex, end: int) -> LayerIndex:
    """`index` for a tar of which the contents of `lent` are appended, in that order, at `end`."""
    if not index.lenders:
        return index
    offsets: dict[bytes, int] = {}
    for path, size in lent(index):
        offsets[path] = end
        end += size
    first = {row: index.hardlinks.get(row, index.paths[row]) for row in index.lenders}
    return index.moved({row: offsets[path] for row, path in first.items() if path in offsets})
