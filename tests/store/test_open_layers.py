"""Open layers in a store: kept, read, sealed, lost; without an executor."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.layers.lister import LayerLister
from layercache.layers.reader import index_layer
from layercache.model.descriptors import Layer
from layercache.model.digests import DiffID, TreeDigest
from layercache.model.layer_index import LayerIndex
from layercache.model.tree import Node
from layercache.store import spool
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.copy_state import CopyStates
from layercache.store.open_layers import FORM, OpenLayers, open_directories, place_of
from layercache.store.store import Store
from layercache.testing.storage import make_record

FILES = {b"a": b"alpha", b"d/b": b"beta" * 40_000, b"d/c": b"", b"d/e/f": b"phi"}


def listed() -> tuple[int, LayerIndex]:
    lister = LayerLister()
    made = set()
    for path, data in FILES.items():
        parent = path.rpartition(b"/")[0]
        if parent and parent not in made:
            lister.add(parent, Node(mode=0o40755))
            made.add(parent)
        lister.add(path, Node(mode=0o100640, uid=7, size=len(data), mtime=5), data)
    lister.add(b"g", Node(mode=0o120777, link=b"a"))
    lister.add(b"h", Node(mode=0o100640, uid=7, size=5, mtime=5), hardlink=b"a")
    return lister.finish()


def lay(store: Store, directory: Path) -> tuple[Layer, LayerIndex, Path]:
    """An open layer in the cache `directory`, as an executor leaves one."""
    size, index = listed()
    name = index.tree.partition(":")[2] + "-0a"
    at = directory / "rootfs" / "unpacked" / name
    shutil.rmtree(at, ignore_errors=True)
    for path, data in FILES.items():
        place = at / "fs" / os.fsdecode(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    CopyStates(FORM).write(str(at), durable=False)
    layer = Layer.opened(index.tree, size)
    store.blobs.keep_open(layer, index, name)
    return layer, index, at


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_one_archive_whoever_asks_and_when(directory: Path) -> None:
    """Sealing, reading whole and by pieces; the second time from the archive."""
    with Store(LocalBackend(directory)) as store:
        layer, index, at = lay(store, directory)
        assert store.blobs.has(layer.descriptor)
        assert store.blobs.intact(layer.descriptor)
        for row, path in enumerate(index.paths):
            if FILES.get(path):
                with store.blobs.open_range(layer.descriptor, *index.content(row)) as piece:
                    assert piece.read() == FILES[path]
        with store.blobs.open(layer.descriptor.digest) as content:
            tar = content.read()
        assert len(tar) == layer.descriptor.size
        sealed = store.blobs.sealed(layer)
        assert (sealed.tree, sealed.descriptor.size) == (layer.tree, len(tar))
        assert store.blobs.sealed(sealed) == sealed
        store.commit()
        at.rename(at.with_name("gone"))
    with Store(LocalBackend(directory)) as store:
        assert store.blobs.sealed(layer) == sealed
        with store.blobs.open(layer.descriptor.digest) as content:
            assert index_layer(content).tree == layer.tree
        for row, path in enumerate(index.paths):
            if FILES.get(path):
                with store.blobs.open_range(layer.descriptor, *index.content(row)) as piece:
                    assert piece.read() == FILES[path]


WAYS = ["other", "longer", "shorter", "gone", "link", "directory", "fifo"]


@pytest.mark.parametrize(
    ("how", "path"),
    [
        (how, path)
        for how in WAYS
        for path in (b"a", b"d/b", b"d/c", b"d/e/f")
        if FILES[path] or how != "shorter"
    ],
)
def test_no_wrong_file_gets_into_an_archive(directory: Path, path: bytes, how: str) -> None:
    """Whatever took its place, and however it is asked for, the layer is lost and said to be."""
    said: list[Any] = []
    with Store(LocalBackend(directory), on_event=said.append) as store:
        layer, _, at = lay(store, directory)
        place = at / "fs" / os.fsdecode(path)
        data = FILES[path]
        place.unlink()
        if how in ("other", "longer", "shorter"):
            changed = {"other": b"x" + data[1:], "longer": data + b"!", "shorter": data[:-1]}[how]
            place.write_bytes(changed)
        elif how == "link":
            (at / "secret").write_bytes(data)
            place.symlink_to(at / "secret")
        elif how == "directory":
            place.mkdir()
        elif how == "fifo":
            os.mkfifo(place)
        with pytest.raises(CorruptObject):
            store.blobs.sealed(layer)
        assert [event.kind for event in said] == ["corrupt"]
        assert not store.blobs.has(layer.descriptor)
        with pytest.raises(NotFound):
            store.blobs.sealed(layer)
        assert list(directory.glob("blobs/**/*")) == []
        assert list(directory.glob("tmp/*")) == []
    with Store(LocalBackend(directory)) as store:
        assert not store.blobs.has(layer.descriptor)
        layer, _, _ = lay(store, directory)  # its step made it again
        assert store.blobs.sealed(layer).diff_id is not None


def test_a_directory_on_the_way_that_leads_elsewhere(directory: Path) -> None:
    with Store(LocalBackend(directory)) as store:
        layer, _, at = lay(store, directory)
        (at / "fs" / "d").rename(at / "d")
        (at / "fs" / "d").symlink_to(at / "d")
        with pytest.raises(CorruptObject):
            store.blobs.sealed(layer)


def test_another_list_is_not_taken_for_that_of_the_layer(directory: Path) -> None:
    """A list whose bytes are sound, but of another layer."""
    with Store(LocalBackend(directory)) as store:
        layer, index, _ = lay(store, directory)
        other = LayerLister()
        for path in (b"a", b"d"):
            node = index.node(index.row(path) or 0)
            other.add(path, attrs.evolve(node, mtime=6), FILES.get(path))
        wrong = other.finish()[1]
        forged = bytearray(wrong.encode())
        store.derived.put("index", layer.tree, bytes(forged))
        with pytest.raises(CorruptObject):
            store.blobs.sealed(layer)


@pytest.mark.parametrize("call", ["write", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_a_failing_system_costs_no_layer(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """An archive that can't be written is an error of the cache; the layer stays open."""
    with Store(LocalBackend(directory)) as store:
        layer, _, _ = lay(store, directory)

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            if call == "write":
                patch.setattr("layercache.layers.lister.write_archive", fail)
            else:
                patch.setattr(spool, "_new_file", _as_cache_error(fail))
            with pytest.raises(CacheError) as found:
                store.blobs.sealed(layer)
            assert not isinstance(found.value, CorruptObject | NotFound)
        assert store.blobs.sealed(layer).diff_id is not None
        assert list(directory.glob("tmp/*")) == []


def _as_cache_error(fail: Any) -> Any:
    def new_file(directory: str) -> Any:
        try:
            return fail()
        except OSError as error:
            raise CacheError(str(error)) from error

    return new_file


def test_a_record_of_an_open_layer_counts_as_long_as_its_files_are_there(directory: Path) -> None:
    with Store(LocalBackend(directory)) as store:
        layer, _, at = lay(store, directory)
        record = attrs.evolve(make_record(store, 1), layer=layer)
        store.records.put(record)
        store.commit()
    assert (at / "state").read_text() == f"{FORM} synced"
    with Store(LocalBackend(directory)) as store:
        assert store.records.lookup([record.key])[record.key].layer == layer
        (at / "state").write_text("root boot of another time")
        assert store.records.lookup([record.key]) == {}


def test_whoever_relies_on_a_layer_makes_it_durable(directory: Path) -> None:
    """A build that reuses what another one left before that was acknowledged."""
    one = Store(LocalBackend(directory))
    layer, _, at = lay(one, directory)
    record = attrs.evolve(make_record(one, 1), layer=layer)
    one.records.put(record)  # and is killed here
    with Store(LocalBackend(directory)) as two:
        assert two.records.lookup([record.key])
        two.commit()
    assert (at / "state").read_text() == f"{FORM} synced"


@pytest.mark.parametrize("durability", ["full", "batch", "none"])
def test_durability(directory: Path, durability: str) -> None:
    with Store(LocalBackend(directory, durability=durability)) as store:
        _, _, at = lay(store, directory)
        synced = f"{FORM} synced"
        assert ((at / "state").read_text() == synced) == (durability == "full")
        store.commit()
        assert ((at / "state").read_text() == synced) == (durability != "none")


NAMES = st.one_of(
    st.text(),
    st.sampled_from(["../../x", "/etc", ".", "", "a\nb", "\0", "0" * 64 + "/../x"]),
    st.builds(lambda text: "ab" * 32 + text, st.text()),
)


@given(NAMES, st.one_of(st.text(), st.integers().map(str)), st.text(max_size=3))
def test_a_mark_of_any_bytes_names_a_directory_beside_it_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, name: str, size: str, end: str
) -> None:
    directory = tmp_path_factory.mktemp("scratch")
    tree = TreeDigest("blake3:" + "ab" * 32)
    opened = OpenLayers(str(directory))
    mark = Path(opened._mark(tree))  # noqa: SLF001
    mark.parent.mkdir(parents=True)
    mark.write_bytes(f"{name}\n{size}\n{end}".encode("utf-8", "surrogatepass"))
    assert opened.stat(tree) is None
    for found in open_directories(str(directory)):
        assert found.startswith("ab" * 32)
        assert "/" not in found
    opened.touch(tree)
    opened.discard(tree)
    assert not mark.exists()


def test_where_layers_may_be_open(tmp_path: Path) -> None:
    """In a directory of this user alone; that does not exist yet or is ours."""
    assert place_of(MemoryBackend()) is None
    backend = LocalBackend(tmp_path / "cache")
    assert place_of(backend) == str(tmp_path / "cache" / "rootfs")
    (tmp_path / "cache").mkdir(mode=0o700)
    assert place_of(backend) is not None
    for mode in (0o770, 0o2700, 0o777):
        (tmp_path / "cache").chmod(mode)
        assert place_of(backend) is None
        store = Store(backend)
        with pytest.raises(CacheError):
            store.blobs.keep_open(
                Layer.opened(TreeDigest("blake3:" + "0" * 64), 1), *listed()[1:], "0"
            )


def test_a_layer_knows_its_archive_only_once_sealed() -> None:
    layer = Layer.opened(TreeDigest("blake3:" + "0" * 64), 10)
    assert layer.is_open
    with pytest.raises(Exception, match="seal"):
        _ = layer.archive
    made = attrs.evolve(layer, diff_id=DiffID("sha256:" + "1" * 64))
    assert made.archive == made.diff_id
    assert made.id == layer.id
