"""Archives made to mislead: refused whole, with one clear error, and nothing outside is touched."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layercache.errors import BuildError, HostileArchive, LayerCacheError
from layercache.layers.apply import apply, unpack
from layercache.layers.limits import Limits
from layercache.layers.reader import index_layer, read_archive, read_layer
from layercache.layers.state_tree import StateTree
from layercache.model.layer_index import Entry, LayerIndex
from layercache.model.tree import Node
from layercache.testing.archives import END, Hostile, archive, entry, header, hostile_archives, pax
from layercache.trees.in_memory import DictTree

from .disk import snapshot
from .kit import MemoryBlobs, copy, run

ALL = hostile_archives()
names = [hostile.name for hostile in ALL]


def test_there_are_enough_of_them_and_each_has_a_name() -> None:
    """At least 60, each telling by its name what it tries."""
    assert len(ALL) >= 60
    assert len(set(names)) == len(ALL)
    assert all(hostile.as_layer or hostile.as_archive for hostile in ALL)


def nothing(layer: int, offset: int, size: int) -> io.BytesIO:
    raise AssertionError("no content is read here")


def read_added(data: io.BytesIO) -> None:
    list(read_archive(data, what="the archive"))


@pytest.mark.parametrize("hostile", ALL, ids=names)
def test_reading_refuses_it_with_one_line(hostile: Hostile) -> None:
    """As a layer and as an archive, where it is one to be refused; never another exception.

    What a hard link names may be in a lower layer: an image of the layer alone is refused."""

    def read_image(data: io.BytesIO) -> None:
        StateTree([index_layer(data, what="the archive")], nothing)

    for read, refused in ((read_image, hostile.as_layer), (read_added, hostile.as_archive)):
        if not refused:
            read(io.BytesIO(hostile.data))
            continue
        with pytest.raises(HostileArchive) as caught:
            read(io.BytesIO(hostile.data))
        message = str(caught.value)
        assert message.startswith(("the archive: ", "layer 1 of 1: "))
        assert "\n" not in message
        assert len(message) < 300


@pytest.mark.parametrize("hostile", [h for h in ALL if h.as_archive], ids=lambda h: h.name)
def test_add_refuses_it_and_stores_nothing(hostile: Hostile, tmp_path: Path) -> None:
    """ADD fails, no blob is stored, and no file appears beside the context."""
    blobs = MemoryBlobs({"source": DictTree({"a.tar": hostile.data})})
    with pytest.raises(LayerCacheError):
        run(blobs, copy("a.tar", to="/into/", name="ADD", unpack=None))
    assert blobs.blobs == {}


@pytest.mark.parametrize("hostile", [h for h in ALL if len(h.data) < 1 << 20], ids=lambda h: h.name)
def test_copy_does_not_look_into_it(hostile: Hostile) -> None:
    """COPY takes any bytes as they are."""
    blobs = MemoryBlobs({"source": DictTree({"a.tar": hostile.data})})
    state, _ = run(blobs, copy("a.tar", to="/into/"))
    with blobs.tree(state).open(b"into/a.tar") as content:
        assert content.read() == hostile.data


def _file(name: bytes, data: bytes = b"x") -> tuple[bytes, LayerIndex]:
    tar = entry(name, data) + END
    return tar, index_layer(io.BytesIO(tar))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root directory with links planted in it, and a directory beside it to protect."""
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (root / "absolute").symlink_to(outside)
    (root / "relative").symlink_to("../outside")
    (root / "file").symlink_to(outside / "precious")
    (root / "dangling").symlink_to(outside / "new")
    (root / "d").mkdir()
    (root / "d" / "up").symlink_to("../../outside")
    return root


@pytest.mark.parametrize(
    "path", [b"absolute/x", b"relative/precious", b"file", b"dangling", b"d/up/x/y", b"file/x"]
)
def test_planted_links_are_replaced_and_never_followed(path: bytes, place: Path) -> None:
    """What stands in the way gives way; where it pointed nothing happens."""
    before = snapshot(place.parent / "outside")
    tar, index = _file(path)
    apply(index, io.BytesIO(tar), str(place), rootless=os.geteuid() != 0)
    assert snapshot(place.parent / "outside") == before
    target = place / os.fsdecode(path)
    assert target.read_bytes() == b"x"
    assert not target.is_symlink()
    assert target.resolve().is_relative_to(place)


@pytest.mark.parametrize("path", [b"absolute", b"relative", b"file", b"d"])
def test_deletions_remove_links_and_not_their_targets(path: bytes, place: Path) -> None:
    """A deletion takes away the link itself, a deleted directory only what is in it."""
    before = snapshot(place.parent / "outside")
    apply(LayerIndex.of([Entry(path, None)]), io.BytesIO(), str(place), rootless=True)
    assert snapshot(place.parent / "outside") == before
    assert not os.path.lexists(place / os.fsdecode(path))


def test_an_opaque_directory_empties_itself_and_not_what_links_point_to(place: Path) -> None:
    """Links beneath go, their targets stay."""
    before = snapshot(place.parent / "outside")
    index = LayerIndex.of([Entry(b"d", None, opaque=True, implied=True)])
    apply(index, io.BytesIO(), str(place), rootless=True)
    assert snapshot(place.parent / "outside") == before
    assert list((place / "d").iterdir()) == []


def test_unpacking_needs_an_empty_place(place: Path) -> None:
    """Over a planted link nothing is unpacked: files are made anew or not at all."""
    for path in (b"absolute/x", b"dangling", b"file"):
        tar, index = _file(path)
        with pytest.raises(BuildError):
            unpack(index, io.BytesIO(tar), str(place), rootless=True)
    assert sorted(os.listdir(place.parent / "outside")) == ["precious"]


@given(st.binary(max_size=4096))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(noise: bytes) -> None:
    """No bytes make the reader fail in another way than by refusing them."""
    for data in (noise, archive(noise), archive(header(b"f", size=len(noise)) + noise)):
        for read in (read_layer, read_archive):
            try:
                list(read(io.BytesIO(data)))
            except HostileArchive:
                pass


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    """Bytes changed anywhere in a good archive end in entries or in a refusal."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=data.draw(st.sampled_from([1, 2]))) as tar:
        for name in ("a", "d/" + "x" * 120, "ü"):
            member = tarfile.TarInfo(name)
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
    bytes_ = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        bytes_[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    try:
        list(read_layer(io.BytesIO(bytes(bytes_))))
    except HostileArchive:
        pass


@pytest.mark.parametrize(
    "limits",
    [
        Limits(entries=2),
        Limits(size=100),
        Limits(path=3),
        Limits(depth=1),
        Limits(name=3),
        Limits(header=600),
        Limits(metadata=10),
    ],
    ids=["entries", "size", "path", "depth", "name", "header", "metadata"],
)
def test_bounds_hold(limits: Limits) -> None:
    """Each bound refuses what goes beyond it, and a generous one does not."""
    data = archive(pax((b"comment", b"x" * 200)), entry(b"dir/file", b"x" * 200), entry(b"e"))
    list(read_layer(io.BytesIO(data)))
    with pytest.raises(HostileArchive):
        list(read_layer(io.BytesIO(data), limits=limits))


def test_links_may_point_anywhere() -> None:
    """A link is content: images are full of absolute ones, and nothing follows them."""
    data = archive(
        entry(b"a", kind=b"2", link=b"/etc/passwd"), entry(b"b", kind=b"2", link=b"../../up")
    )
    found = {e.path: e.node for e in read_layer(io.BytesIO(data))}
    assert isinstance(found[b"a"], Node)
    assert found[b"a"].link == b"/etc/passwd"


def test_names_that_only_look_like_a_compression_are_names() -> None:
    """A tar whose first file is called BZh… or begins like gzip is a tar."""
    for name in (b"BZh9", b"BZh91AY&SY", b"\x1f\x8b\x08", b"\xfd7zXZ\0"[:5], b"\x28\xb5\x2f\xfd"):
        data = entry(name, b"x") + END
        assert [e.path for e in read_layer(io.BytesIO(data))] == [name]


def test_git_archives_are_read() -> None:
    """A global header with a comment, as `git archive` writes it, changes nothing."""
    data = pax((b"comment", b"0" * 40), kind=b"g") + archive()
    assert [e.path for e in read_archive(io.BytesIO(data))] == [b"first"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tarfile_writes_is_read(form: int) -> None:
    """Long names, links and big numbers in the ways that others write them."""
    sink = io.BytesIO()
    long = form != tarfile.USTAR_FORMAT
    with tarfile.open(fileobj=sink, mode="w", format=form) as tar:
        for name in ("short", "d/" * 40 + "file", *(["n" * 200] if long else [])):
            member = tarfile.TarInfo(name)
            member.size = 3
            member.uid = 3_000_000_000 if long else 7
            member.mtime = -5 if long else 5
            tar.addfile(member, io.BytesIO(b"abc"))
        member = tarfile.TarInfo("link")
        member.type = tarfile.SYMTYPE
        member.linkname = "t" * (300 if long else 90)
        tar.addfile(member)
    found = {e.path: e.node for e in read_layer(io.BytesIO(sink.getvalue()))}
    assert len(found) == (4 if long else 3)
    node = found[b"d/" * 40 + b"file"]
    assert node is not None
    assert (node.uid, node.mtime) == ((3_000_000_000, -5) if long else (7, 5))
    link = found[b"link"]
    assert link is not None
    assert len(link.link) == (300 if long else 90)
