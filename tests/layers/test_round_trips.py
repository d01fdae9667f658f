"""Laws: what is written is what is read, indexed, seen, applied and exported."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import attrs
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layercache.errors import CorruptObject
from layercache.layers.apply import apply, export_tree, merged_tar, unpack
from layercache.layers.capture import capture_diff
from layercache.layers.reader import index_layer, read_layer
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import Entry, LayerIndex, sort_key
from layercache.model.tree import Node, Tree
from layercache.testing.archives import END, entry
from layercache.trees.in_memory import DictTree

from .disk import differences, overlay, overlay_works, snapshot, tree_snapshot, without_groups
from .trees import Made, ancestors, state, trees, write

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
slow = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@given(trees())
@settings(max_examples=150, deadline=None)
def test_the_reader_finds_what_the_writer_indexed(tree: dict[bytes, Made]) -> None:
    """The index made while writing is the one made by reading the tar."""
    tar, index = write(tree)
    assert index_layer(io.BytesIO(tar)) == index


@given(trees())
@settings(max_examples=100, deadline=None)
def test_the_reader_yields_the_nodes_that_were_written(tree: dict[bytes, Made]) -> None:
    """Paths, metadata, contents by digest, offsets and names of one file survive."""
    tar, _ = write(tree)
    entries = {entry.path: entry for entry in read_layer(io.BytesIO(tar))}
    assert entries.keys() == tree.keys()
    for path, made in tree.items():
        entry = entries[path]
        assert entry.node == made.node
        if made.node.is_file:
            assert tar[entry.offset : entry.offset + made.node.size] == made.data


@given(trees())
@settings(max_examples=60, deadline=None)
def test_equal_trees_are_equal_bytes(tree: dict[bytes, Made]) -> None:
    """The order in which a tree was put together leaves no trace."""
    shuffled = dict(reversed(tree.items()))
    assert write(tree)[0] == write(shuffled)[0]


@given(trees())
@settings(max_examples=100, deadline=None)
def test_an_index_survives_its_bytes(tree: dict[bytes, Made]) -> None:
    """Decoding gives every entry back."""
    _, index = write(tree)
    again = LayerIndex.decode(index.encode())
    assert list(again) == list(index)
    assert again == index


@given(trees(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_index_is_noticed(tree: dict[bytes, Made], data: st.DataObject) -> None:
    """Any changed or missing byte makes it corrupt, never another index."""
    encoded = bytearray(write(tree)[1].encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    if data.draw(st.booleans()):
        encoded[at] ^= data.draw(st.integers(1, 255))
    else:
        del encoded[at:]
    with pytest.raises(CorruptObject):
        LayerIndex.decode(bytes(encoded))


@given(trees())
@settings(max_examples=60, deadline=None)
def test_tarfile_reads_our_archives(tree: dict[bytes, Made]) -> None:
    """Python's reader finds the same names, kinds, owners, times, links and contents."""
    tar, _ = write(tree)
    with tarfile.open(
        fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        found = {os.fsencode(member.name): member for member in archive}
        assert found.keys() == tree.keys()
        for path, made in tree.items():
            member, node = found[path], made.node
            assert (member.uid, member.gid, member.mtime) == (node.uid, node.gid, node.mtime)
            if not member.islnk():
                assert member.isdir() == node.is_dir
                assert member.issym() == node.is_link
                assert member.isreg() == node.is_file
            if node.is_link:
                assert os.fsencode(member.linkname) == node.link
            if node.is_file:
                content = archive.extractfile(member)
                assert content is not None
                assert content.read() == made.data


def _lookup_all(tree: Tree) -> dict[str, tuple[object, ...]]:
    return tree_snapshot(tree)


@given(trees())
@settings(max_examples=60, deadline=None)
def test_the_view_of_one_layer_is_the_tree(tree: dict[bytes, Made]) -> None:
    """Nodes, contents, children and digests are those of the tree that was written."""
    view = state(write(tree))
    model = DictTree(
        {p.decode("utf-8", "surrogateescape"): (m.node, m.data) for p, m in tree.items()}
    )
    for path, made in tree.items():
        assert view.lookup(path) == made.node
        assert view.children(path) == tuple(model.children(path)) or list(
            view.children(path)
        ) == list(model.children(path))
        if made.node.is_file:
            with view.open(path) as content:
                assert content.read() == made.data
    assert view.digest(b"") == model.digest(b"")


@st.composite
def stacks(draw: st.DrawFn, *, ordinary: bool = False) -> list[tuple[bytes, LayerIndex]]:
    """Layers on top of each other, with deletions and opaque directories of what was there."""
    layers = [write(draw(trees(ordinary=ordinary)))]
    for _ in range(draw(st.integers(1, 3))):
        below = state(*layers)
        present = _paths(below)[1:]
        tree = draw(trees(ordinary=ordinary, size=6, below=tuple(present)))
        free = [
            path
            for path in present
            if path not in tree
            and not any(p.startswith(path + b"/") for p in tree)
            and all(_directory(tree, above) for above in ancestors(path))
        ]
        gone = draw(st.sets(st.sampled_from(free), max_size=3)) if free else set()
        gone = {w for w in gone if not any(w.startswith(o + b"/") for o in gone)}
        places = [b""] if draw(st.integers(0, 9)) == 0 else []
        places += [p for p, made in tree.items() if made.node.is_dir]
        places += [
            path
            for path in present
            if (node := below.lookup(path)) is not None
            and node.is_dir
            and all(_directory(tree, above) for above in [path, *ancestors(path)])
            and not any(path == w or path.startswith(w + b"/") for w in gone)
        ]
        opaque = draw(st.sets(st.sampled_from(places), max_size=2)) if places else set()
        layers.append(write(tree, whiteouts=gone, opaque=opaque))
    return layers


def _directory(tree: dict[bytes, Made], path: bytes) -> bool:
    return path not in tree or tree[path].node.is_dir


def _paths(tree: Tree) -> list[bytes]:
    found = []
    todo = [b""]
    while todo:
        path = todo.pop()
        found.append(path)
        node = tree.lookup(path)
        if node is not None and node.is_dir:
            todo += [path + b"/" + n if path else n for n in tree.children(path)]
    return found


@root_only
@given(stacks())
@slow
def test_the_view_of_a_stack_is_the_directory_it_makes(
    layers: list[tuple[bytes, LayerIndex]],
) -> None:
    """Applied one after the other, layers make the tree that the view shows."""
    with tempfile.TemporaryDirectory() as root:
        for tar, index in layers:
            apply(index, io.BytesIO(tar), root)
        assert (
            differences(without_groups(snapshot(Path(root))), tree_snapshot(state(*layers))) == []
        )


@root_only
@given(stacks())
@slow
def test_an_exported_state_is_the_applied_one(layers: list[tuple[bytes, LayerIndex]]) -> None:
    """A state written out whole, as directory or as one tar, is what its layers make."""
    tree = state(*layers)
    sink = io.BytesIO()
    merged_tar(tree, sink)
    flat = index_layer(io.BytesIO(sink.getvalue()))
    with tempfile.TemporaryDirectory() as top:
        first, second, third = (Path(top) / name for name in "abc")
        for place in (first, second, third):
            place.mkdir()
        for tar, index in layers:
            apply(index, io.BytesIO(tar), str(first))
        devices = export_tree(tree, str(second), owners=True)
        apply(flat, io.BytesIO(sink.getvalue()), str(third))
        for place in (first, third):  # no device is made in a directory of the host
            for device in devices:
                (place / os.fsdecode(device)).unlink()
            for path in (place, *place.rglob("*")):
                assert path.is_symlink() or not (path.is_char_device() or path.is_block_device())
        # What is removed moves the times of directories.
        timed = not devices
        one, two, three = (snapshot(place, times=timed) for place in (first, second, third))
        assert differences(without_groups(one), without_groups(two)) == []
        assert differences(two, three) == []


@root_only
def test_unpacked_layers_stack_up_in_overlayfs(tmp_path: Path) -> None:
    """Mounted over each other, unpacked layers show what the view shows."""
    probe = tmp_path / "probe"
    probe.mkdir()
    if not overlay_works(probe):
        pytest.skip("overlay file systems can't be mounted here")
    number = iter(range(10**6))

    @given(stacks())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def check(layers: list[tuple[bytes, LayerIndex]]) -> None:
        top = tmp_path / f"run{next(number)}"
        top.mkdir()
        lowers: list[Path] = []
        for count, (tar, index) in enumerate(layers, 1):
            lower = top / f"l{count}"
            lower.mkdir()
            tree = state(*layers[:count])
            unpack(index, io.BytesIO(tar), str(lower), state=tree)
            lowers.insert(0, lower)
        with overlay(top / "merged", [*lowers, _empty(top)]) as merged:
            found = without_groups(snapshot(merged))
        assert differences(found, tree_snapshot(state(*layers))) == []

    check()


def _empty(top: Path) -> Path:
    empty = top / "empty"
    empty.mkdir()
    return empty


@given(stacks())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_digests_do_not_depend_on_how_a_tree_is_stacked(
    layers: list[tuple[bytes, LayerIndex]],
) -> None:
    """A state flattened into one layer has the digest of its stack."""
    tree = state(*layers)
    sink = io.BytesIO()
    merged_tar(tree, sink)
    flat = state((sink.getvalue(), index_layer(io.BytesIO(sink.getvalue()))))
    assert flat.digest(b"") == tree.digest(b"")
    assert flat.digest(b"") == StateTree(tree._indexes, tree._open).digest(b"")


@root_only
def test_gnu_tar_unpacks_the_same(tmp_path: Path) -> None:
    """`tar x` makes of our archive what `apply` makes of it, attributes apart."""

    @given(trees(size=20))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def check(tree: dict[bytes, Made]) -> None:
        tar, index = write(tree)
        with tempfile.TemporaryDirectory(dir=tmp_path) as top:
            ours, theirs = Path(top) / "ours", Path(top) / "theirs"
            ours.mkdir()
            theirs.mkdir()
            apply(index, io.BytesIO(tar), str(ours))
            command = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=user.*", "-xpf", "-"]
            subprocess.run([*command, "-C", str(theirs)], input=tar, check=True)
            explicit = {p.decode("utf-8", "surrogateescape") for p in tree}
            expected = {p: v for p, v in snapshot(theirs).items() if p in explicit}
            found = {p: v for p, v in snapshot(ours).items() if p in explicit}
            assert differences(expected, found) == []

    check()


def test_entries_of_a_layer_come_depth_first_with_markers_in_front() -> None:
    """Siblings by their bytes, a directory's opaque marker and deletions before its entries."""
    directory = Made(_node(stat.S_IFDIR | 0o755))
    file = Made(_node(stat.S_IFREG | 0o644))
    tree = {b"a": directory, b"a/z": file, b"a-b": file, b"a/.h": file}
    tar, _ = write(tree, whiteouts=[b"a/zz", b"b", b"a/a"], opaque=[b"a"])
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.getnames() == [
            ".wh.b",
            "a",
            "a/.wh..wh..opq",
            "a/.wh.a",
            "a/.wh.zz",
            "a/.h",
            "a/z",
            "a-b",
        ]


def _node(mode: int) -> Node:
    content = blake3(b"").digest() if stat.S_ISREG(mode) else b""
    return Node(mode=mode, content=content)


def test_an_index_of_entries_in_any_order_is_the_same() -> None:
    """Deletion and presence at one path are one row, however they come."""
    node = _node(stat.S_IFDIR | 0o755)
    entries = [
        Entry(b"d", node),
        Entry(b"d", None),
        Entry(b"d/e/f", _node(stat.S_IFREG | 0o644)),
        Entry(b"g", None),
        Entry(b"g/h", node),
    ]
    first = LayerIndex.of(entries)
    assert first == LayerIndex.of(reversed(entries))
    assert [e.path for e in first] == sorted(
        [b"", b"d", b"d/e", b"d/e/f", b"g", b"g/h"], key=sort_key
    )
    for path in (b"d", b"g"):
        found = first.get(path)
        assert found is not None
        assert found.opaque
    assert first.get(b"x") is None


def _as_ordinary_user(work: Callable[[], None]) -> None:
    """Run `work` as nobody where the tests run as root, in a process of its own."""
    if os.geteuid() != 0:
        work()
        return
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the parent sees the status
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users get into; those of pytest are private."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place)


def test_an_ordinary_user_can_do_all_but_owners(open_place: Path) -> None:
    """Without root layers are applied, exported, unpacked and captured; files are the user's."""
    file = _node(stat.S_IFREG | 0o644)
    tree = {
        b"d": Made(_node(stat.S_IFDIR | 0o500)),
        b"d/f": Made(attrs.evolve(file, uid=0, gid=7)),
        b"l": Made(attrs.evolve(_node(stat.S_IFLNK | 0o777), link=b"/etc")),
        b"p": Made(_node(stat.S_IFIFO | 0o600)),
    }
    tar, index = write(tree)
    places = [open_place / name for name in ("applied", "exported", "unpacked")]
    for place in places:
        place.mkdir()
        if os.geteuid() == 0:
            os.chown(place, 65534, 65534)
    captured = open_place / "applied.tar"
    captured.touch()
    captured.chmod(0o666)

    def work() -> None:
        apply(index, io.BytesIO(tar), str(places[0]), rootless=True)
        export_tree(state((tar, index)), str(places[1]))
        unpack(index, io.BytesIO(tar), str(places[2]), state=state((tar, index)), rootless=True)
        with open(captured, "wb") as sink:
            writer = LayerWriter(sink)
            capture_diff(str(places[0]), state(), writer)
            writer.finish()

    _as_ordinary_user(work)
    applied = snapshot(places[0])
    assert applied == snapshot(places[1])
    assert applied == snapshot(places[2])
    assert applied["d"][0] == oct(stat.S_IFDIR | 0o500)
    assert applied["d/f"][1] != (0, 7)
    flat = {path: Made(attrs.evolve(made.node, uid=0, gid=0)) for path, made in tree.items()}
    assert index_layer(io.BytesIO(captured.read_bytes())) == write(flat)[1]


@pytest.mark.parametrize("backwards", [False, True])
def test_layers_are_applied_from_streams_that_can_not_seek(tmp_path: Path, backwards: bool) -> None:
    """Read once and to the end, whatever the order in which the tar holds its files."""
    names = [b"c", b"b", b"a"] if backwards else [b"a", b"b", b"c"]
    tar = b"".join(entry(name, name * 5000) for name in names)
    tar += entry(b"z", kind=b"1", link=b"a") + END

    class Stream(io.RawIOBase):
        """Forward only, and noting its end."""

        ended = False

        def __init__(self) -> None:
            self.rest = io.BytesIO(tar)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            view = memoryview(buffer)[:777]  # type: ignore[arg-type]
            count = self.rest.readinto(view)
            self.ended = self.ended or not count
            return count

    stream = Stream()
    index = index_layer(io.BytesIO(tar))
    apply(index, cast(BinaryIO, stream), str(tmp_path), rootless=True)
    assert stream.ended
    for name in names:
        assert (tmp_path / os.fsdecode(name)).read_bytes() == name * 5000
    assert (tmp_path / "z").samefile(tmp_path / "a")


@pytest.mark.parametrize("plain_file", [False, True])
def test_a_tar_shorter_than_its_index_is_corrupt(tmp_path: Path, plain_file: bool) -> None:
    """Whether read by the kernel or through us, what is missing is noticed."""
    data = os.urandom(300_000)
    tar, index = write(
        {b"f": Made(attrs.evolve(_node(0o100644), size=len(data), content=b""), data)}
    )
    root = tmp_path / "root"
    root.mkdir()
    short = tmp_path / "short.tar"
    short.write_bytes(tar[:200_000])
    with open(short, "rb") as file:
        blob = file if plain_file else io.BytesIO(file.read())
        with pytest.raises(CorruptObject):
            apply(index, blob, str(root), rootless=True)
