"""The tar writer, the time policy, contents out of tars, links resolved in trees."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import (
    BuildError,
    ContextChanged,
    CorruptObject,
    HostileArchive,
    MissingExtra,
    NotFound,
    SourceError,
    UsageError,
)
from layercache.layers.apply import apply
from layercache.layers.capture import StatTable, capture_diff
from layercache.layers.compression import compression_of, decompressed
from layercache.layers.follow_links import resolve
from layercache.layers.limits import Limits
from layercache.layers.state_tree import StateTree
from layercache.layers.verified_file import Verified
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import LayerIndex
from layercache.model.layer_times import LAYER_TIME, clamped_time, copied_time
from layercache.model.tree import Node
from layercache.trees.in_memory import DictTree, directory, file, link

from .kit import MemoryBlobs, copy, run
from .trees import Made, state, write

FILE = Node(mode=stat.S_IFREG | 0o644)
DIRECTORY = Node(mode=stat.S_IFDIR | 0o755)


def _file(size: int, content: bytes = b"") -> Node:
    return Node(mode=stat.S_IFREG | 0o644, size=size, content=content)


# -- times ------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32))
def test_copied_files_are_never_newer_than_what_commands_make(content: bytes) -> None:
    """COPY's times lie within 2**24 seconds before the constant, RUN's at the constant."""
    assert LAYER_TIME - 2**24 < copied_time(content) <= LAYER_TIME
    assert clamped_time(2**40) == LAYER_TIME >= copied_time(content)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_other_content_gets_another_time(first: bytes, second: bytes) -> None:
    """Up to one chance in sixteen million."""
    times = [copied_time(blake3(data).digest()) for data in (first, second)]
    assert (times[0] == times[1]) == (first == second)


@given(st.floats(-1e12, 1e12))
def test_clamped_times_are_whole_seconds_within_bounds(mtime: float) -> None:
    """Never before 1970, never after the constant, never rounded up."""
    found = clamped_time(mtime)
    assert 0 <= found <= LAYER_TIME
    if 0 <= mtime <= LAYER_TIME:
        assert found <= mtime < found + 1


def test_bytecode_of_an_older_source_is_not_used(tmp_path: Path) -> None:
    """A same-size edit of a module under a reused layer with its .pyc: Python sees the new one."""

    def python(root: Path) -> str:
        command = [sys.executable, "-c", "import mod; print(mod.VALUE)"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    def materialised(name: str, *layers: tuple[bytes, LayerIndex]) -> Path:
        root = tmp_path / name
        root.mkdir()
        for tar, index in layers:
            apply(index, io.BytesIO(tar), str(root), rootless=True)
        return root

    def copied(text: str) -> tuple[bytes, LayerIndex]:
        blobs = MemoryBlobs({"source": DictTree({"mod.py": text})})
        _, result = run(blobs, copy("mod.py", to="/"))
        assert result.layer is not None
        return blobs.blobs[result.layer.descriptor.digest], blobs.index(result.layer)

    old, new = copied("VALUE = 1\n"), copied("VALUE = 2\n")
    first = materialised("first", old)
    assert python(first) == "1"
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    capture_diff(str(first), state(old), writer)
    _, _, index = writer.finish()
    assert any(path.endswith(b".pyc") for path in index.paths)
    second = materialised("second", new, (sink.getvalue(), index))
    assert python(second) == "2"


# -- the writer -------------------------------------------------------------------------------


def test_entries_out_of_order_are_refused() -> None:
    """The order is part of the form; so is each path once."""
    for wrong in (b"a", b"b", b"b/a/x"):
        writer = LayerWriter(io.BytesIO())
        writer.add(b"b", DIRECTORY)
        writer.add(b"b/c", FILE)
        with pytest.raises(UsageError):
            writer.add(wrong, FILE)
    writer = LayerWriter(io.BytesIO())
    writer.add(b"b/c", FILE)
    for marker in (writer.whiteout, writer.opaque):
        with pytest.raises(UsageError):
            marker(b"b/a" if marker == writer.whiteout else b"b")
    with pytest.raises(UsageError):
        writer.add(b"d", FILE, hardlink=b"nothing")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 256 * 1024 - 512, 256 * 1024, 700_001])
@pytest.mark.parametrize("kind", ["bytes", "stream", "reader", "descriptor"])
def test_content_of_any_size_and_kind(size: int, kind: str, tmp_path: Path) -> None:
    """Bytes, streams with and without `readinto`, and descriptors give the same archive."""
    data = os.urandom(size)
    path = tmp_path / "data"
    path.write_bytes(data)

    class Reader:
        """A stream that can do nothing but read, and reads little."""

        def __init__(self) -> None:
            self.rest = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self.rest.read(min(size, 1000))

    sink = io.BytesIO()
    writer = LayerWriter(sink)
    with open(path, "rb") as opened:
        content: object = {
            "bytes": data,
            "stream": io.BytesIO(data),
            "reader": Reader(),
            "descriptor": opened.fileno(),
        }[kind]
        writer.add(b"f", _file(size, blake3(data).digest()), content)  # type: ignore[arg-type]
        writer.add(b"g", _file(3), b"end")
    diff_id, length, index = writer.finish()
    assert length == len(sink.getvalue())
    entry = index.get(b"f")
    assert entry is not None
    assert entry.node is not None
    assert entry.node.content == blake3(data).digest()
    assert sink.getvalue()[entry.offset : entry.offset + size] == data
    import hashlib

    assert diff_id == "sha256:" + hashlib.sha256(sink.getvalue()).hexdigest()


@pytest.mark.parametrize("data", [b"", b"12", b"1234", b"12345678"])
@pytest.mark.parametrize("kind", ["bytes", "stream", "descriptor"])
def test_content_of_another_size_is_a_change(data: bytes, kind: str, tmp_path: Path) -> None:
    """A file that shrank or grew after its stat is not stored."""
    path = tmp_path / "data"
    path.write_bytes(data)
    writer = LayerWriter(io.BytesIO())
    with open(path, "rb") as opened:
        content: object = {"bytes": data, "stream": opened, "descriptor": opened.fileno()}[kind]
        with pytest.raises(ContextChanged):
            writer.add(b"f", _file(3), content)  # type: ignore[arg-type]


def test_content_of_another_digest_is_a_change() -> None:
    """The bytes that were hashed are the bytes in the layer."""
    writer = LayerWriter(io.BytesIO())
    with pytest.raises(ContextChanged):
        writer.add(b"f", _file(3, blake3(b"abc").digest()), b"abd")


def test_what_a_layer_can_not_hold() -> None:
    """Names and devices that mean deletions; sockets are left out without a word."""
    writer = LayerWriter(io.BytesIO())
    for path in (b".wh.x", b"d/.wh..wh..opq", b".wh.d/x"):
        with pytest.raises(SourceError):
            writer.add(path, FILE)
    with pytest.raises(SourceError):
        writer.add(b"f", Node(mode=stat.S_IFCHR | 0o600))
    writer.add(b"s", Node(mode=stat.S_IFSOCK | 0o755))
    assert writer.empty
    writer.add(b"x.wh.y", FILE)
    assert not writer.empty


def test_a_sink_that_takes_little_gets_all() -> None:
    """Short writes are continued."""
    taken = bytearray()

    class Slow(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            piece = bytes(memoryview(data)[:1000])  # type: ignore[arg-type]
            taken.extend(piece)
            return len(piece)

    writer = LayerWriter(Slow())  # type: ignore[arg-type]
    writer.add(b"f", _file(5000), b"x" * 5000)
    _, size, _ = writer.finish()
    assert len(taken) == size


def test_nothing_at_all_is_two_blocks() -> None:
    """The archive of an empty changeset; who writes layers makes none of it."""
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    assert writer.empty
    assert writer.finish()[1] == 1024
    assert sink.getvalue() == bytes(1024)


def test_the_form_is_frozen() -> None:
    """The bytes of a known changeset: another digest is another scheme of layers."""
    data = b"content\n"
    tree = {
        b"d": Made(DIRECTORY),
        b"d/" + b"n" * 150: Made(_file(8, blake3(data).digest()), data),
        b"d/" + b"p" * 90 + b"/" + b"q" * 90: Made(_file(8, blake3(data).digest()), data),
        "ü".encode(): Made(Node(mode=0o120777, link=b"t" * 101, mtime=LAYER_TIME)),
        b"dev": Made(Node(mode=0o060640, device=(8, 1), uid=2**31, gid=6)),
        b"f": Made(
            Node(
                mode=0o104755, size=8, content=blake3(data).digest(), xattrs=((b"user.a", b"\0="),)
            ),
            data,
        ),
        b"g": Made(_file(8, blake3(data).digest()), data, hardlink=b"f"),
    }
    tar, index = write(tree, whiteouts=[b"gone", b"d/gone"], opaque=[b"d"])
    assert blake3(tar).hexdigest() == FORM
    assert blake3(index.encode()).hexdigest() == INDEX_FORM


FORM = "9bc5f282b501fd198ba7e8f62daceede3b9e82f92389179edf28207b9c169984"
INDEX_FORM = "95bb5a58407931885b36df4583dabd2cddd5abfc72aad4e3f1c09ba24343010d"


def test_only_what_ustar_can_not_say_is_in_pax_headers() -> None:
    """A path that splits into prefix and name needs none."""
    tree = {b"p" * 90 + b"/" + b"q" * 90: Made(FILE), b"z": Made(FILE)}
    tree = {path: Made(_file(0, blake3(b"").digest())) for path in tree}
    with tarfile.open(fileobj=io.BytesIO(write(tree)[0])) as tar:
        assert [member.pax_headers for member in tar] == [{}, {}]


# -- reading files out of tars ----------------------------------------------------------------


def test_a_state_notices_damaged_content() -> None:
    """Wrong or missing bytes raise at the end of the file instead of ending it."""
    tar, index = write({b"f": Made(_file(5, blake3(b"12345").digest()), b"12345")})
    for bad in (tar.replace(b"12345", b"12346"), tar[:515]):
        with state((bad, index)).open(b"f") as content, pytest.raises(CorruptObject):
            content.read()
    tree = state((tar, index))
    for path in (b"nothing", b"", b"f/x"):
        with pytest.raises(NotFound):
            tree.open(path)
    with pytest.raises(NotFound):
        tree.digest(b"nothing")


def test_a_verified_stream_reads_no_further_than_its_size() -> None:
    """Bytes behind the file belong to the next entry."""
    stream = Verified(io.BytesIO(b"12345rest"), blake3(b"12345").digest(), 5, b"f")
    assert stream.read() == b"12345"
    assert stream.read() == b""


def test_an_empty_state_has_a_root() -> None:
    """A directory like any other, with nothing in it."""
    tree = state()
    root = tree.lookup(b"")
    assert root is not None
    assert root.is_dir
    assert (list(tree.children(b"")), tree.lookup(b"x")) == ([], None)
    assert tree.digest(b"") == DictTree().digest(b"")
    with pytest.raises(NotFound):
        tree.open(b"")


def test_deep_trees_need_no_recursion() -> None:
    """Thousands of levels are digested and walked on work lists."""
    path = b"/".join([b"d"] * 1500)
    tar, index = write({path: Made(_file(0, blake3(b"").digest()))})
    tree = state((tar, index))
    assert len(tree.digest(b"")) == 32
    assert tree.lookup(path) is not None


# -- links ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"a/b", b"a/b"),
        (b"l/f", b"a/f"),
        (b"abs/f", b"a/f"),
        (b"up/f", b"a/f"),
        (b"chain", b"a/f"),
        (b"a/../l/./f", b"a/f"),
        (b"dangling/x", b"none/x"),
        (b"", b""),
        (b"../../a", b"a"),
    ],
)
def test_links_are_resolved_inside_the_root(path: bytes, expected: bytes) -> None:
    """Absolute targets start at the root, and `..` stops there."""
    tree = DictTree(
        {
            "a/f": "1",
            "l": link("a"),
            "abs": link("/a"),
            "up": link("../../../a"),
            "chain": link("l/f"),
            "dangling": link("none"),
        }
    )
    found = resolve(tree, path)
    assert found.path == expected
    assert found.node == tree.lookup(expected)
    assert all(tree.lookup(read) == node for read, node in found.reads)


def test_loops_and_ways_out_end() -> None:
    """A loop is an error; with `confined`, leaving the root is one."""
    tree = DictTree({"a": link("b"), "b": link("a"), "out": link("../x"), "x": "1"})
    with pytest.raises(BuildError, match="loop"):
        resolve(tree, b"a/x")
    assert resolve(tree, b"a", follow_last=False).path == b"a"
    assert resolve(tree, b"out").path == b"x"
    with pytest.raises(BuildError, match="outside"):
        resolve(tree, b"out", confined=True)


# -- compression ------------------------------------------------------------------------------


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", CODECS)
def test_compressed_data_is_found_by_its_content(name: str) -> None:
    """Also in several members, also with zeros behind; what is plain stays as it is."""
    data = bytes(range(256)) * 3000
    packed = CODECS[name](data)
    assert compression_of(packed) == name
    assert decompressed(io.BytesIO(packed)).read() == data
    assert decompressed(io.BytesIO(packed + packed)).read() == data * 2
    assert decompressed(io.BytesIO(packed + bytes(10240))).read() == data
    assert decompressed(io.BytesIO(CODECS[name](b""))).read() == b""
    assert decompressed(io.BytesIO(data)).read() == data
    assert decompressed(io.BytesIO(b"")).read() == b""


@pytest.mark.parametrize("name", CODECS)
def test_bombs_are_stopped_by_ratio_and_by_size(name: str) -> None:
    """Beyond the grace the ratio counts, and the size always."""
    packed = CODECS[name](bytes(4 << 20))
    assert len(decompressed(io.BytesIO(packed)).read()) == 4 << 20
    for limits in (Limits(grace=1 << 16, ratio=10), Limits(size=1 << 20)):
        with pytest.raises(HostileArchive, match="bomb"):
            decompressed(io.BytesIO(packed), limits=limits).read()


def test_zstd_needs_its_extra_and_says_so() -> None:
    """With the extra it is read, without it the message names what to install."""
    magic = b"\x28\xb5\x2f\xfd"
    assert compression_of(magic) == "zstd"
    try:
        from backports import zstd
    except ImportError:
        if sys.version_info < (3, 14):
            with pytest.raises(MissingExtra, match=r"layercache-engine\[zstd\]"):
                decompressed(io.BytesIO(magic + bytes(20)))
        return
    data = bytes(range(256)) * 3000
    assert decompressed(io.BytesIO(zstd.compress(data))).read() == data


# -- plain directories ------------------------------------------------------------------------


def _captured(root: Path, before: StateTree, table: StatTable | None = None) -> LayerIndex:
    writer = LayerWriter(io.BytesIO())
    capture_diff(str(root), before, writer, table)
    return writer.finish()[2]


@pytest.fixture
def workspace(tmp_path: Path) -> tuple[Path, StateTree, StatTable]:
    """A directory that holds a state, with a table of its stats that is old enough to count."""
    import attrs

    blobs = MemoryBlobs(
        {"source": DictTree({"a": "one", "b": "two", "d/c": "three", "l": link("a")})}
    )
    new, result = run(blobs, copy(".", to="/"))
    assert result.layer is not None
    root = tmp_path / "root"
    root.mkdir()
    tar = blobs.blobs[result.layer.descriptor.digest]
    apply(blobs.index(result.layer), io.BytesIO(tar), str(root), rootless=True)
    table = StatTable.of(str(root))
    tree = blobs.tree(new)
    assert isinstance(tree, StateTree)
    return root, tree, attrs.evolve(table, taken=table.taken + 10**9)


def test_an_untouched_workspace_has_no_changes(
    workspace: tuple[Path, StateTree, StatTable],
) -> None:
    """With and without the table, whoever owns the files."""
    root, before, table = workspace
    assert len(_captured(root, before, table)) == 0
    assert len(_captured(root, before)) == 0


def test_changes_of_a_workspace_are_found(workspace: tuple[Path, StateTree, StatTable]) -> None:
    """Edits, additions, removals, modes, kinds; nothing else is in the layer."""
    root, before, table = workspace
    (root / "a").write_text("ONE")
    (root / "b").unlink()
    (root / "d" / "c").chmod(0o600)
    (root / "d" / "new").write_text("n")
    (root / "l").unlink()
    (root / "l").mkdir()
    index = _captured(root, before, table)
    assert list(index.paths) == [b"", b"a", b"b", b"d", b"d/c", b"d/new", b"l"]
    deleted = index.get(b"b")
    assert deleted is not None
    assert deleted.node is None
    for path in (b"", b"d"):
        entry = index.get(path)
        assert entry is not None
        assert entry.implied
    entry = index.get(b"a")
    assert entry is not None
    assert entry.node is not None
    assert (entry.node.uid, entry.node.mtime) == (0, LAYER_TIME)
    assert (root / "a").stat().st_mtime == LAYER_TIME


def test_what_the_table_vouches_for_is_not_read(
    workspace: tuple[Path, StateTree, StatTable],
) -> None:
    """A table taken after an edit hides it: contents behind an equal stat are never looked at."""
    import attrs

    root, before, _ = workspace
    (root / "a").write_text("ONE")
    late = StatTable.of(str(root))
    late = attrs.evolve(late, taken=late.taken + 10**9)
    assert len(_captured(root, before, late)) == 0
    assert b"a" in _captured(root, before).paths


def test_a_change_within_the_tick_of_the_table_is_found(
    workspace: tuple[Path, StateTree, StatTable],
) -> None:
    """An edit that leaves size and times as they were is seen while the table is young."""
    root, before, table = workspace
    young = StatTable.of(str(root))
    found = (root / "a").stat()
    assert not young.unchanged(b"a", os.lstat(root / "a"))
    assert table.unchanged(b"a", os.lstat(root / "a"))
    (root / "a").write_text("ONE")
    os.utime(root / "a", ns=(found.st_mtime_ns, found.st_mtime_ns))
    assert b"a" in _captured(root, before, young).paths


def test_names_that_mean_deletions_can_not_be_captured(
    workspace: tuple[Path, StateTree, StatTable],
) -> None:
    """A command that makes a file called .wh.a has not deleted a."""
    root, before, table = workspace
    (root / ".wh.a").write_text("x")
    with pytest.raises(SourceError):
        _captured(root, before, table)


def test_directories_of_a_tree_are_described_by_helpers() -> None:
    """The helpers of the kit make what these tests take them to make."""
    assert directory(0o711)[0].mode == 0o40711
    assert file("x")[0].size == 1
