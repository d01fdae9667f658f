"""Layers and archives as real ones are: read as containerd, Docker and tar read them."""

from __future__ import annotations

import io
from collections.abc import Callable

import attrs
import pytest

from layercache.errors import LayerCacheError
from layercache.layers.reader import index_layer
from layercache.layers.writer import LayerWriter
from layercache.model.descriptors import SCRATCH
from layercache.model.tree import Node
from layercache.testing.archives import archive, entry
from layercache.trees.in_memory import DictTree

from .kit import MemoryBlobs, copy, listing, run

LOWER = archive(entry(b"f", b"old"), entry(b"d/x", b"old"), entry(b"d/y", b"old"))


def link(name: bytes, target: bytes) -> bytes:
    return entry(name, kind=b"2", link=target)


def hard(name: bytes, target: bytes) -> bytes:
    return entry(name, kind=b"1", link=target)


def seen(*parts: bytes) -> dict[str, str]:
    """The state of a layer of `parts` over LOWER; the last word of each line."""
    blobs = MemoryBlobs()
    found = listing(blobs.tree(blobs.state(LOWER, archive(*parts))))
    return {path: line.split(" ")[-1] if "file" in line else line for path, line in found.items()}


KEPT = {"d": "dir 0755 0:0", "d/x": "b'old'", "d/y": "b'old'", "f": "b'old'"}
FIRST = {"first": "b'innocent\\n'"}


@pytest.mark.parametrize(
    ("parts", "changed"),
    [
        ((entry(b"/a", b"1"),), {"a": "b'1'"}),
        ((entry(b"//d//x", b"1"),), {"d/x": "b'1'"}),
        ((entry(b"f", b"1"), entry(b"f", b"2")), {"f": "b'2'"}),
        ((entry(b"f", b"1"), entry(b"./f", b"2")), {"f": "b'2'"}),
        ((entry(b"f", b"1"), entry(b"f/", kind=b"5")), {"f": "dir 0644 0:0"}),
        ((entry(b"e/", kind=b"5"), entry(b"e/a", b"1"), entry(b"e", b"2")), {"e": "b'2'"}),
        ((entry(b"f", b"1"), link(b"f", b"d")), {"f": "link 0777 0:0 -> d"}),
        ((entry(b".wh.f"), entry(b"f", b"1")), {"f": "b'1'"}),
        ((entry(b"f", b"1"), entry(b".wh.f")), {"f": None}),
        ((entry(b"/.wh.f"),), {"f": None}),
        ((entry(b"d/z", b"1"), entry(b".wh.d")), {"d": None, "d/x": None, "d/y": None}),
        ((entry(b".wh.d"), entry(b"d/z", b"1")), {"d/z": "b'1'", "d/x": None, "d/y": None}),
        (
            (entry(b"d/z", b"1"), entry(b"d/.wh..wh..opq")),
            {"d/z": "b'1'", "d/x": None, "d/y": None},
        ),
    ],
)
def test_layers(parts: tuple[bytes, ...], changed: dict[str, str | None]) -> None:
    """A leading slash, a name twice, a deletion beside what it names: the order decides."""
    expected = {p: t for p, t in {**KEPT, **FIRST, **changed}.items() if t is not None}
    assert seen(*parts) == expected


def test_names_of_a_file_that_is_replaced_stay_one_file() -> None:
    """What is put in the place of the first name takes nothing from the others."""
    data = archive(
        entry(b"a", b"1"), hard(b"b", b"a"), hard(b"c", b"b"), entry(b"a", b"2"), hard(b"e", b"a")
    )
    index = index_layer(io.BytesIO(data))
    assert list(index.names(b"b")) == list(index.names(b"c")) == [b"b", b"c"]
    assert list(index.names(b"a")) == [b"a", b"e"]
    blobs = MemoryBlobs()
    found = listing(blobs.tree(blobs.state(data)))
    assert {path: line[-4:] for path, line in found.items() if path in "abce"} == {
        "a": "b'2'",
        "b": "b'1'",
        "c": "b'1'",
        "e": "b'2'",
    }


EVIL = entry(b"l/evil", b"x")


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ((link(b"l", b"/"), EVIL), "evil"),
        ((link(b"l", b"../../.."), EVIL), "evil"),
        ((link(b"l", b"d"), entry(b"d/", kind=b"5"), EVIL), "d/evil"),
        ((link(b"k", b"/etc"), link(b"l", b"k"), EVIL), "etc/evil"),
        ((link(b"l", b"later"), EVIL, entry(b"later/", kind=b"5")), "later/evil"),
        ((entry(b"l/", kind=b"5"), entry(b"l/f"), link(b"l", b"/etc"), EVIL), "etc/evil"),
        ((link(b"a/b", b"../c"), link(b"l", b"a/b"), EVIL), "c/evil"),
    ],
)
def test_add_goes_below_links_of_the_archive(parts: tuple[bytes, ...], where: str) -> None:
    """Where they lead, with the destination as their root: nothing is written beside it."""
    blobs = MemoryBlobs({"source": DictTree({"a.tar": archive(*parts)})})
    state, _ = run(blobs, copy("a.tar", to="/into/", name="ADD", unpack=None))
    found = listing(blobs.tree(state))
    assert found[f"into/{where}"].endswith("b'x'")
    assert all(path == "into" or path.startswith("into/") for path in found)


def test_add_leaves_out_entries_without_a_name() -> None:
    """The destination itself, and what has no name at all; the rest is there."""
    parts = (entry(b"", b"1"), entry(b"./", kind=b"5"), entry(b".", b"2"), entry(b"///", b"3"))
    blobs = MemoryBlobs({"source": DictTree({"a.tar": archive(*parts, entry(b"last", b"4"))})})
    state, _ = run(blobs, copy("a.tar", to="/into/", name="ADD", unpack=None))
    assert sorted(listing(blobs.tree(state))) == ["into", "into/first", "into/last"]


def test_add_makes_devices_and_fifos(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the image whoever builds it; who can't see them later is told."""
    null = entry(b"null", kind=b"3", device=(1, 3))
    data = archive(null, entry(b"disk", kind=b"4", device=(8, 1)), entry(b"pipe", kind=b"6"))
    blobs = MemoryBlobs({"source": DictTree({"a.tar": data})})
    for euid, warned in ((0, 0), (1000, 2)):
        monkeypatch.setattr("os.geteuid", lambda euid=euid: euid)
        state, result = run(blobs, copy("a.tar", to="/into/", name="ADD", unpack=None))
        found = listing(blobs.tree(state))
        assert found["into/null"] == "chr 0644 0:0 1,3"
        assert found["into/disk"] == "blk 0644 0:0 8,1"
        assert found["into/pipe"] == "fifo 0644 0:0"
        assert result.output.count(b"warning:") == warned


@pytest.mark.parametrize(
    "path", [b"..", b".", b"a/..", b"a/../b", b"a//b", b"/a", b"a/", b"a\0b", b"a/./b", b".wh.a"]
)
@pytest.mark.parametrize("how", ["add", "link", "whiteout", "opaque"])
def test_no_layer_with_such_a_name_is_written(path: bytes, how: str) -> None:
    """Whoever gives it: names are checked where layers are written."""
    writer = LayerWriter(io.BytesIO())
    node = Node(mode=0o100644)
    calls: dict[str, Callable[[], None]] = {
        "add": lambda: writer.add(path, node),
        "link": lambda: writer.add(path, Node(mode=0o120777, link=b"x")),
        "whiteout": lambda: writer.whiteout(path),
        "opaque": lambda: writer.opaque(path),
    }
    with pytest.raises(LayerCacheError):
        calls[how]()


@pytest.mark.parametrize("name", ["..", ".", "", "a\0b"])
def test_no_source_gives_such_a_name(name: str) -> None:
    """A here-document or a URL whose name is none."""
    blobs = MemoryBlobs()
    document = copy(name, to="/into/")
    source = attrs.evolve(document.sources[0], content=b"x", role="")
    with pytest.raises(LayerCacheError):
        run(blobs, attrs.evolve(document, sources=(source,)), SCRATCH)
    assert blobs.blobs == {}
