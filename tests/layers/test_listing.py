"""The list of a layer without its archive: the same entries, and the archive a function of it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import ContextChanged
from layercache.layers.layer_entries import LayerEntries
from layercache.layers.lister import LayerLister, write_archive
from layercache.layers.reader import index_layer
from layercache.layers.writer import LayerWriter
from layercache.model.digests import TreeDigest
from layercache.model.layer_index import LayerIndex
from layercache.model.tree import Node
from tests.layers.trees import Made, put, trees

HAS = ("a", "b", "x" * 120)


def listed(tree: dict[bytes, Made], **markers: Any) -> tuple[int, LayerIndex]:
    """The list of the layer that `tests.layers.trees.write` writes of `tree`."""
    lister = LayerLister()
    put(lister, tree, **markers)
    return lister.finish()


def written(tree: dict[bytes, Made], **markers: Any) -> tuple[bytes, str, LayerIndex]:
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    put(writer, tree, **markers)
    diff_id, size, index = writer.finish()
    assert size == len(sink.getvalue())
    return sink.getvalue(), diff_id, index


def opener(tree: dict[bytes, Made]) -> Any:
    """The files of `tree` as descriptors, by path."""

    def open_file(path: bytes) -> int:
        descriptor = os.memfd_create("file")
        os.write(descriptor, tree[path].data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    return open_file


@st.composite
def layers(draw: st.DrawFn) -> tuple[dict[bytes, Made], dict[str, Any]]:
    """A tree, with deletions beside its entries and opaque directories."""
    tree = draw(trees())
    places = [b"", *(path for path, made in tree.items() if made.node.is_dir)]
    gone = set()
    for _ in range(draw(st.integers(0, 3))):
        place, name = draw(st.sampled_from(places)), draw(st.sampled_from([b"gone", b"old", b"~"]))
        path = place + b"/" + name if place else name
        if path not in tree:
            gone.add(path)
    opaque = {path for path in places if path and draw(st.integers(0, 3)) == 0}
    return tree, {"whiteouts": gone, "opaque": opaque}


@given(layers())
def test_a_list_is_the_index_of_the_archive_and_the_archive_a_function_of_it(
    made: tuple[dict[bytes, Made], dict[str, Any]],
) -> None:
    tree, markers = made
    tar, diff_id, index = written(tree, **markers)
    size, listing = listed(tree, **markers)
    assert (size, listing.encode()) == (len(tar), index.encode())
    again = io.BytesIO()
    assert write_archive(listing, again, opener(tree))[:2] == (diff_id, size)
    assert again.getvalue() == tar
    assert index_layer(io.BytesIO(tar)).tree == listing.tree


@given(layers(), st.data())
def test_every_fact_of_an_entry_is_in_the_digest(
    made: tuple[dict[bytes, Made], dict[str, Any]], data: st.DataObject
) -> None:
    """Two layers have one digest exactly if they have one archive."""
    tree, markers = made
    _, first = listed(tree, **markers)
    other = dict(tree)
    marks = {name: set(paths) for name, paths in markers.items()}
    kind = data.draw(st.sampled_from(["node", "drop", "gone", "opaque", "link"]))
    if kind == "node" and tree:
        path = data.draw(st.sampled_from(sorted(tree)))
        node, content = tree[path].node, tree[path].data
        fact = data.draw(st.sampled_from(["mode", "uid", "gid", "mtime", "data", "link"]))
        if fact == "data" and node.is_file:
            node, content = attrs.evolve(node, size=node.size + 1, content=b""), content + b"x"
        elif fact == "link" and node.is_link:
            node = attrs.evolve(node, link=node.link + b"x")
        elif fact == "mode" and not node.is_link:
            node = attrs.evolve(node, mode=node.mode ^ 0o1)
        elif fact in ("uid", "gid", "mtime"):
            node = attrs.evolve(node, **{fact: getattr(node, fact) + 1})
        other[path] = attrs.evolve(tree[path], node=node, data=content)
        for path, one in other.items():  # all names of one file are alike
            if one.hardlink in other and one.hardlink is not None:
                main = other[one.hardlink]
                other[path] = attrs.evolve(one, node=main.node, data=main.data)
    elif kind == "drop" and tree:
        path = max(tree)
        if not any(one.hardlink == path for one in tree.values()):
            del other[path]
            marks["opaque"].discard(path)
    elif kind == "gone":
        marks["whiteouts"] ^= {b"vanished"}
    elif kind == "opaque" and marks["opaque"]:
        marks["opaque"].pop()
    elif kind == "link":
        other = {p: attrs.evolve(one, hardlink=None) for p, one in tree.items()}
    tar, _, _ = written(tree, **markers)
    other_tar, _, _ = written(other, **marks)
    _, second = listed(other, **marks)
    assert (first.tree == second.tree) == (tar == other_tar)


def test_the_digest_is_the_same_for_ever() -> None:
    """A change of the digest is a change of the key scheme."""
    lister = LayerLister()
    lister.add(b"a", Node(mode=0o40755, uid=1, gid=2, mtime=7))
    lister.whiteout(b"a/gone")
    lister.add(b"a/f", Node(mode=0o100640, size=2, mtime=9, xattrs=((b"user.k", b"v"),)), b"hi")
    lister.add(b"a/g", Node(mode=0o100640, size=2, mtime=9), hardlink=b"a/f")
    lister.add(b"a/l", Node(mode=0o120777, link=b"f"))
    lister.add(b"n", Node(mode=0o20600, device=(1, 3)))
    _, index = lister.finish()
    assert index.tree == TreeDigest(PINNED)
    assert LayerIndex.decode(index.encode()).tree == index.tree


def test_bytes_that_changed_are_never_archived(tmp_path: Path) -> None:
    """Another content of the same size, a shorter and a longer one."""
    lister = LayerLister()
    lister.add(b"f", Node(mode=0o100644, size=4), b"good")
    _, index = lister.finish()
    path = tmp_path / "f"
    for wrong in (b"evil", b"goo", b"good!"):
        path.write_bytes(wrong)
        with pytest.raises(ContextChanged):
            write_archive(index, io.BytesIO(), lambda _: os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 256 * 1024, 256 * 1024 + 1, 3 << 20])
def test_files_of_any_size_are_digested_alike(tmp_path: Path, size: int) -> None:
    """As a descriptor, as a stream and as bytes, listed and written."""
    data = os.urandom(size)
    path = tmp_path / "f"
    path.write_bytes(data)
    node = Node(mode=0o100644, size=size)
    found = set()
    kinds: list[type[LayerEntries]] = [LayerLister, LayerWriter]
    for kind in kinds:
        for how in ("descriptor", "stream", "bytes"):
            made: Any = kind() if kind is LayerLister else LayerWriter(io.BytesIO())
            with path.open("rb", buffering=0) as file:
                content = {"descriptor": file.fileno(), "stream": file, "bytes": data}[how]
                made.add(b"f", node, content)
            found.add(made.finish()[-1].encode())
    assert len(found) == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_size_is_refused(tmp_path: Path, change: int) -> None:
    path = tmp_path / "f"
    for size in (10, 256 * 1024, 600_000):
        path.write_bytes(bytes(size + change))
        for content in ("descriptor", "stream", "bytes"):
            node = Node(mode=0o100644, size=size)
            with path.open("rb", buffering=0) as file:
                ways = {"descriptor": file.fileno(), "stream": file, "bytes": path.read_bytes()}
                data: Any = ways[content]
                with pytest.raises(ContextChanged):
                    LayerLister().add(b"f", node, data)


PINNED = "blake3:d1911dca2ecacbb58212698d55c8533b958b11bf766e2a296619d98f742db9e2"
