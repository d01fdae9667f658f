"""Random trees and layers for property tests."""

from __future__ import annotations

import io
import stat

import attrs
from blake3 import blake3
from hypothesis import strategies as st

from layercache.layers.layer_entries import LayerEntries
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import LayerIndex, sort_key
from layercache.model.layer_times import LAYER_TIME
from layercache.model.tree import Node

names = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"c", b"a-b", b"a.b", b"..x", "ü".encode(), b"\xff\xfe", b"n" * 120]
    ),
    st.binary(min_size=1, max_size=12).filter(
        lambda n: not {0, 47} & set(n) and n not in (b".", b"..") and not n.startswith(b".wh.")
    ),
)
attributes = st.lists(
    st.tuples(st.sampled_from([b"user.a", b"user.b"]), st.binary(max_size=20)),
    max_size=2,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: tuple(sorted(pairs)))


@attrs.frozen
class Made:
    """What a test puts at a path."""

    node: Node
    data: bytes = b""
    hardlink: bytes | None = None


@st.composite
def nodes(draw: st.DrawFn, *, ordinary: bool = False) -> Made:
    """A node and its content; `ordinary`: what any user may make on any file system."""
    kinds = [stat.S_IFREG] * 4 + [stat.S_IFDIR] * 3 + [stat.S_IFLNK, stat.S_IFIFO]
    kind = draw(st.sampled_from(kinds if ordinary else [*kinds, stat.S_IFCHR, stat.S_IFBLK]))
    mode = draw(st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0]))
    big = st.sampled_from([0, 0, 0, 1000, 2**21, 2**32 - 2])
    node = Node(
        mode=kind | (0o777 if kind == stat.S_IFLNK else mode),
        uid=draw(big),
        gid=draw(big),
        mtime=draw(st.sampled_from([0, 1, LAYER_TIME])),
        xattrs=draw(attributes) if kind in (stat.S_IFREG, stat.S_IFDIR) else (),
    )
    if kind == stat.S_IFREG:
        data = draw(
            st.one_of(st.binary(max_size=1500), st.sampled_from([b"", b"x" * 512, b"y" * 300000]))
        )
        return Made(attrs.evolve(node, size=len(data), content=blake3(data).digest()), data)
    if kind == stat.S_IFLNK:
        target = draw(st.one_of(names, st.just(b"/abs/" + b"l" * 150), st.just(b"../../up")))
        return Made(attrs.evolve(node, link=target))
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        device = draw(st.sampled_from([(1, 3), (4095, 1048575), (8, 0)]))
        return Made(attrs.evolve(node, device=device))
    return Made(node)


@st.composite
def trees(
    draw: st.DrawFn,
    *,
    ordinary: bool = False,
    size: int = 12,
    below: tuple[bytes, ...] = (),
) -> dict[bytes, Made]:
    """Paths → what is there; every parent is a directory of it, or left out.

    `below` are paths that lower layers have: they are written over and into.
    """
    found: dict[bytes, Made] = {}
    places = [b"", *below]
    for _ in range(draw(st.integers(0, size))):
        parent = draw(st.sampled_from(places))
        over: bool = draw(st.booleans()) if below else False
        if over:
            path = draw(st.sampled_from(below))
        else:
            name = draw(names)
            path = parent + b"/" + name if parent else name
        if not path or path in found or any(p.startswith(path + b"/") for p in found):
            continue
        if any(above in found and not found[above].node.is_dir for above in ancestors(path)):
            continue
        made = draw(nodes(ordinary=ordinary))
        files = [p for p, m in found.items() if m.node.is_file and m.hardlink is None]
        if files and draw(st.integers(0, 5)) == 0:
            first = draw(st.sampled_from(files))
            made = attrs.evolve(found[first], hardlink=first)
        found[path] = made
        if made.node.is_dir:
            places.append(path)
    return found


def ancestors(path: bytes) -> list[bytes]:
    """The directories above `path` but the root, the nearest first."""
    found = []
    while path := path.rpartition(b"/")[0]:
        found.append(path)
    return found


def write(tree: dict[bytes, Made], **markers: object) -> tuple[bytes, LayerIndex]:
    """A layer of `tree`; hard links go to the name that comes first.

    Markers: `whiteouts` and `opaque` are collections of paths.
    """
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    put(writer, tree, **markers)
    _, _, index = writer.finish()
    return sink.getvalue(), index


def put(writer: LayerEntries, tree: dict[bytes, Made], **markers: object) -> None:
    """Give `writer` the entries of `tree`, with the markers of `write`."""
    whiteouts = set(markers.get("whiteouts", ()))  # type: ignore[call-overload]
    opaque = set(markers.get("opaque", ()))  # type: ignore[call-overload]
    first: dict[bytes, bytes] = {}
    paths = {b"", *tree, *opaque} | {p.rpartition(b"/")[0] for p in whiteouts}
    for path in sorted(paths, key=sort_key):
        made = tree.get(path)
        if made is not None and not made.node.is_dir:
            group = made.hardlink or path
            if group in first:
                writer.add(path, made.node, hardlink=first[group])
            else:
                first[group] = path
                writer.add(path, made.node, made.data if made.node.is_file else None)
            continue
        if made is not None:
            writer.add(path, made.node)
        if path in opaque:
            writer.opaque(path)
        for gone in sorted(w for w in whiteouts if w.rpartition(b"/")[0] == path):
            writer.whiteout(gone)


def state(*layers: tuple[bytes, LayerIndex]) -> StateTree:
    """The tree of a stack of layers, lowest first."""
    return StateTree(
        [index for _, index in layers],
        lambda number, offset, size: io.BytesIO(layers[number][0][offset : offset + size]),
    )
