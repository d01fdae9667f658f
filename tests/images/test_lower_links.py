"""Hard links into lower layers, and what replaces itself within one archive: as umoci unpacks it.

umoci applies one layer after the other to a directory, as containerd does.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from layercache.errors import HostileArchive
from layercache.images.resolver import Images
from layercache.layers.apply import export_tree
from layercache.layers.reader import index_layer
from layercache.layers.state_tree import StateTree
from layercache.model.layer_index import LayerIndex
from layercache.model.layer_times import LAYER_TIME
from layercache.testing.archives import archive, entry
from layercache.testing.images import make_layout

from .support import build, needs, new_store, run, snapshot, write

ROOT = os.geteuid() == 0


def directory(name: bytes) -> bytes:
    return entry(name + b"/", kind=b"5", mode=b"0000755")


def link(name: bytes, target: bytes) -> bytes:
    return entry(name, kind=b"2", link=target)


def hard(name: bytes, target: bytes) -> bytes:
    return entry(name, kind=b"1", link=target)


LOWER = archive(
    directory(b"usr"),
    directory(b"usr/lib"),
    entry(b"usr/lib/x", b"lower x", mode=b"0004750", uid=7),
    hard(b"usr/lib/x2", b"usr/lib/x"),
    link(b"lib", b"usr/lib"),
    link(b"up", b"../../usr"),
    link(b"s", b"usr/lib/x"),
    entry(b"a", b"lower a"),
    entry(b"empty", b""),
    entry(b"pipe", kind=b"6"),
    directory(b"d"),
    entry(b"d/old", b"old"),
    directory(b"d/e"),
    entry(b"d/e/deep", b"deep"),
)

GOOD: dict[str, tuple[bytes, ...]] = {
    "one name": (archive(hard(b"n", b"a")),),
    "an absolute target": (archive(hard(b"/n", b"/a")),),
    "in a new directory": (archive(directory(b"new"), hard(b"new/n", b"usr/lib/x")),),
    "several names": (archive(hard(b"n", b"a"), hard(b"m", b"a"), hard(b"o", b"n")),),
    "of a file with two names": (archive(hard(b"n", b"usr/lib/x2")),),
    "of an empty file": (archive(hard(b"n", b"empty")),),
    "of a symbolic link": (archive(hard(b"n", b"s")),),
    "of a fifo": (archive(hard(b"n", b"pipe")),),
    "through a link": (archive(hard(b"n", b"lib/x")),),
    "through links upwards": (archive(hard(b"n", b"up/lib/x")),),
    "over a file": (archive(hard(b"d/old", b"a")),),
    "over a directory": (archive(hard(b"d", b"a")),),
    "target replaced afterwards": (archive(hard(b"n", b"a"), hard(b"m", b"a"), entry(b"a", b"2")),),
    "target deleted afterwards": (archive(hard(b"n", b"a"), hard(b"m", b"a"), entry(b".wh.a")),),
    "target a directory afterwards": (archive(hard(b"n", b"a"), directory(b"a")),),
    "link replaced afterwards": (archive(hard(b"n", b"a"), entry(b"n", b"new")),),
    "beside a new file of the name": (
        archive(hard(b"n", b"a"), entry(b"a", b"new"), hard(b"m", b"a")),
    ),
    "of a name that is a link, too": (archive(hard(b"n", b"a"), hard(b"a", b"usr/lib/x")),),
    "two layers": (archive(hard(b"n", b"a")), archive(hard(b"m", b"n"), hard(b"o", b"a"))),
    "an empty layer between": (archive(directory(b"q")), archive(hard(b"q/n", b"d/e/deep"))),
    "target new in between": (archive(entry(b"a", b"middle")), archive(hard(b"n", b"a"))),
    "deleted in a later layer": (archive(hard(b"n", b"a")), archive(entry(b".wh.a"))),
    "emptied directory beside": (archive(entry(b"d/.wh..wh..opq"), hard(b"d/n", b"a")),),
}

BAD: dict[str, tuple[bytes, ...]] = {
    "nothing": (archive(hard(b"n", b"nothing")),),
    "a directory": (archive(hard(b"n", b"d")),),
    "below a file": (archive(hard(b"n", b"a/x")),),
    "deleted before": (archive(entry(b".wh.a"), hard(b"n", b"a")),),
    "parent deleted before": (archive(entry(b"d/.wh.e"), hard(b"n", b"d/e/deep")),),
    "emptied before": (archive(entry(b"d/.wh..wh..opq"), hard(b"n", b"d/old")),),
    "root emptied before": (archive(entry(b".wh..wh..opq"), hard(b"n", b"d/old")),),
    "parent replaced": (archive(entry(b"d", b"x"), hard(b"n", b"d/old")),),
    "parent replaced twice": (archive(entry(b"d"), directory(b"d"), hard(b"n", b"d/old")),),
    "deleted below": (archive(entry(b".wh.a")), archive(hard(b"n", b"a"))),
    "itself": (archive(hard(b"n", b"n")),),
    "itself below": (archive(entry(b"n")), archive(hard(b"n", b"n"))),
    "what it replaces": (archive(hard(b"d", b"d/old")),),
}

REPLACED: dict[str, tuple[bytes, ...]] = {
    "a file, then a directory": (archive(entry(b"d", b"x"), directory(b"d")),),
    "a link, then a directory": (archive(link(b"d", b"usr"), directory(b"d")),),
    "a directory, a link, a directory": (
        archive(directory(b"d"), link(b"d", b"usr"), directory(b"d")),
    ),
    "a hard link, then a directory": (archive(hard(b"d", b"a"), directory(b"d")),),
    "with a file": (archive(link(b"d", b"usr"), directory(b"d"), entry(b"d/n", b"n")),),
    "further down": (archive(entry(b"d/e", b"x"), directory(b"d/e")),),
    "only a directory": (archive(directory(b"d")),),
    "a directory twice": (archive(directory(b"d"), entry(b"d/n", b"1"), directory(b"d")),),
    "deleted, then a directory": (archive(entry(b".wh.d"), directory(b"d")),),
}


def state(*tars: bytes) -> StateTree:
    """The state of these layers."""

    def content(number: int, offset: int, size: int) -> io.BytesIO:
        return io.BytesIO(tars[number][offset : offset + size])

    return StateTree([index_layer(io.BytesIO(tar)) for tar in tars], content)


def groups(root: Path) -> set[frozenset[str]]:
    """The names below `root` that are one file, where there are several."""
    found: dict[int, set[str]] = {}
    for where, _, files in os.walk(root):
        for name in files:
            path = Path(where, name)
            found.setdefault(path.lstat().st_ino, set()).add(str(path.relative_to(root)))
    return {frozenset(names) for names in found.values() if len(names) > 1}


def compare(tmp_path: Path, tars: tuple[bytes, ...], *, needed: bool = True) -> bool:
    """What umoci unpacks and what the state is: paths, modes, owners, contents, and which names
    of the topmost layers are one file.

    False if it is not `needed` that umoci unpacks them, and it doesn't: it refuses links to
    nothing that the layer itself replaces.
    """
    make_layout(tmp_path / "layout", tars)
    options = [] if ROOT else ["--rootless"]
    unpack = ("umoci", "unpack", *options, "--image", f"{tmp_path}/layout:latest")
    try:
        run(*unpack, tmp_path / "bundle")
    except AssertionError:
        if needed:
            raise
        return False
    os.mkdir(tmp_path / "ours")
    export_tree(state(*tars), str(tmp_path / "ours"), owners=ROOT)
    theirs = snapshot(tmp_path / "bundle/rootfs", owners=ROOT)
    ours = snapshot(tmp_path / "ours", owners=ROOT)
    for path in ours.keys() - theirs.keys():
        # What is deleted in a directory that isn't there makes it, as in a mounted overlay.
        assert (ours[path].mode, ours[path].mtime) == (0o40755, LAYER_TIME), path
        del ours[path]
    assert {p: (s.mode, s.owner, s.content) for p, s in ours.items()} == {
        p: (s.mode, s.owner, s.content) for p, s in theirs.items()
    }
    together = groups(tmp_path / "bundle/rootfs")
    assert all(any(group <= other for other in together) for group in groups(tmp_path / "ours"))
    return True


@needs("umoci")
@pytest.mark.parametrize("name", [*GOOD, *REPLACED])
def test_as_umoci_unpacks_it(name: str, tmp_path: Path) -> None:
    compare(tmp_path, (LOWER, *{**GOOD, **REPLACED}[name]))


@needs("umoci")
@pytest.mark.parametrize("name", BAD)
def test_what_umoci_refuses_is_refused(name: str, tmp_path: Path) -> None:
    """With an error that names the layer or the archive, and the entry."""
    tars = (LOWER, *BAD[name])
    with pytest.raises(HostileArchive, match=r"layer.*entry '[nd]'.*hard link to"):
        state(*tars)
    make_layout(tmp_path / "layout", tars)
    options = [] if ROOT else ["--rootless"]
    with pytest.raises(AssertionError):
        run("umoci", "unpack", *options, "--image", f"{tmp_path}/layout:latest", tmp_path / "b")


def test_a_name_that_the_layer_changes_on_the_way_is_refused() -> None:
    """A path through a link of a lower layer to what the layer itself has: never the old file."""
    for part in (
        entry(b"usr/lib/x", b"new"),
        entry(b"usr/lib/.wh.x"),
        entry(b"usr/.wh.lib"),
        entry(b"usr/lib/.wh..wh..opq"),
        directory(b"lib"),
    ):
        with pytest.raises(HostileArchive, match=r"entry 'n' is a hard link to 'lib/x'"):
            state(LOWER, archive(part, hard(b"n", b"lib/x")))


def test_names_share_the_file() -> None:
    """The names and the target are one file of the upper layer; other names stay the lower's."""
    assert state(LOWER, archive(hard(b"n", b"a"), entry(b".wh.n"))).lookup(b"n") is None
    tree = state(LOWER, archive(hard(b"n", b"usr/lib/x"), hard(b"m", b"usr/lib/x")))
    assert list(tree.names(b"n")) == [b"m", b"n", b"usr/lib/x"]
    assert tree.inode(b"n") == tree.inode(b"m") == tree.inode(b"usr/lib/x")
    assert tree.inode(b"usr/lib/x2") != tree.inode(b"n")
    assert tree.lookup(b"n") == tree.lookup(b"usr/lib/x") == tree.lookup(b"usr/lib/x2")
    for name in (b"n", b"m", b"usr/lib/x"):
        with tree.open(name) as content:
            assert content.read() == b"lower x"


def test_a_file_keeps_its_time() -> None:
    """A step sees a file that got a further name with the time that it had."""
    lower = archive(
        entry(b"a", b"1", mtime=b"14000000000"), entry(b"b", b"2", mtime=b"00000000000")
    )
    below, tree = state(lower), state(lower, archive(entry(b"new"), hard(b"n", b"a")))
    assert tree.moment(b"n") == tree.moment(b"a") == below.moment(b"a")


def test_an_index_with_such_links_survives_its_bytes() -> None:
    """And versions that don't know them find no index of theirs."""
    index = index_layer(io.BytesIO(archive(hard(b"n", b"a"), hard(b"m", b"lib/x"), entry(b"z"))))
    again = LayerIndex.decode(index.encode())
    assert again == index
    assert again.lower_links == index.lower_links != {}
    assert [e for e in again if e.lower] == [e for e in index if e.lower] != []
    other = index_layer(io.BytesIO(archive(hard(b"n", b"b"), hard(b"m", b"lib/x"), entry(b"z"))))
    assert other.tree != index.tree
    head = index_layer(io.BytesIO(LOWER)).encode()[:25]
    assert head.startswith(b"layercache layer index ")
    assert not index.encode().startswith(head)


def test_an_image_passes_through_unchanged(tmp_path: Path) -> None:
    """Exported again: the same blobs and diff IDs, and an archive of the tree with the file."""
    tars = (LOWER, archive(hard(b"n", b"a")), archive(hard(b"m", b"lib/x")))
    made = make_layout(tmp_path / "base", tars)
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, f"oci-layout://{tmp_path}/base:latest")
        write(
            store, images, image, f"type=oci,tar=false,dest={tmp_path}/d,compression=uncompressed"
        )
        write(store, images, image, f"type=tar,dest={tmp_path}/flat.tar")
    assert tuple(layer.diff_id for layer in image.layers) == made.diff_ids
    for tar, diff_id in zip(tars, made.diff_ids, strict=True):
        assert (tmp_path / "d/blobs/sha256" / diff_id[7:]).read_bytes() == tar
    with tarfile.open(tmp_path / "flat.tar") as flat:
        for name, content in (("n", b"lower a"), ("m", b"lower x")):
            found = flat.extractfile(name)
            assert found is not None
            assert found.read() == content


FILES = (b"a", b"n", b"m", b"lib", b"usr/lib/x", b"d/n", b"d/old", b"d/e/deep")
TARGETS = (*FILES, b"s", b"lib/x", b"up/lib/x", b"d/e")


def any_tar(choose: random.Random) -> bytes:
    """A layer of a few entries at few paths.

    Deletions come first, as tools write them: umoci keeps them from what the layer itself has.
    Nothing lies beneath a link: there umoci follows it, and Docker on overlayfs doesn't.
    """
    parts = []
    deletions = []
    for _ in range(choose.randint(1, 4)):
        name = choose.choice(FILES)
        where, _, last = name.rpartition(b"/")
        prefix = where + b"/" if where else b""
        kind = choose.randint(0, 9)
        if kind < 6:
            parts.append(hard(name, choose.choice(TARGETS)))
        elif kind < 7:
            parts.append(entry(name, b"new %d" % choose.randint(0, 9)))
        elif kind < 8:
            parts.append(link(name, choose.choice((b"/usr", b"d", b"../a", b"usr/lib"))))
        elif kind < 9:
            deletions.append(entry(prefix + b".wh." + last))
        else:
            replaced = choose.choice((b"d", b"d/e"))
            parts += [entry(replaced, b"for a while"), directory(replaced)]
    return archive(*deletions, *parts)


def _agree(seed: int, place: Path) -> bool:
    """Whether random layers were read; where umoci reads them too, it sees the same tree."""
    choose = random.Random(seed)
    tars = (LOWER, *(any_tar(choose) for _ in range(choose.randint(1, 3))))
    try:
        state(*tars)
    except HostileArchive:
        return False
    place.mkdir()
    try:
        return compare(place, tars, needed=False)
    finally:
        shutil.rmtree(place)


@needs("umoci")
def test_random_layers_are_as_umoci_unpacks_them(tmp_path: Path) -> None:
    """Whatever is not refused."""
    assert sum(_agree(seed, tmp_path / str(seed)) for seed in range(60)) > 10


@needs("umoci")
@pytest.mark.soak
def test_more_random_layers_are_as_umoci_unpacks_them(tmp_path: Path) -> None:
    for seed in range(60, 3000):
        _agree(seed, tmp_path / str(seed))
