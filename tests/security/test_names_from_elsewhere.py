"""Names that come from a cache or a layer lead nowhere else."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from blake3 import blake3

from layercache import Builder, Dockerfile, Workspace, open_store
from layercache._os.names import checked_name, checked_path
from layercache.builds.result import BuildResult
from layercache.errors import BuildError, CorruptObject
from layercache.inputs.scan.read_beneath import ReadBeneath
from layercache.layers.write_beneath import WriteBeneath
from layercache.model.digests import Fingerprint
from layercache.model.layer_index import Entry, IndexBuilder, LayerIndex
from layercache.model.tree import Node

FILE = Node(0o104755, 0, 0, 0, 0, bytes(32))
DIRECTORY = Node(0o40755)

NOWHERE = [b"..", b".", b"", b"a/..", b"../a", b"/a", b"a//b", b"./a", b"a/.", b"a/", b"a/../../b"]


def encoded(*rows: tuple[bytes, Node]) -> bytes:
    """An index of just these rows, with a right checksum, as a hostile writer makes one."""
    builder = IndexBuilder()
    for path, node in rows:
        builder.put(Entry(path, node))
    whole = builder.rows
    index = LayerIndex(
        [path for path, _ in rows], [whole[path] for path, _ in rows], {}, {}, {}, {}
    )
    return index.encode()


@pytest.mark.parametrize("path", NOWHERE)
def test_an_index_with_a_name_that_leads_elsewhere_is_refused(path: bytes) -> None:
    """Whatever its checksum says."""
    with pytest.raises(CorruptObject):
        LayerIndex.decode(encoded((b"", DIRECTORY), (b"a", DIRECTORY), (path + b"", FILE)))


def test_an_index_that_is_not_canonical_is_refused() -> None:
    """Rows out of order or twice, below a file, below nothing, and links that lead elsewhere."""
    for rows in (
        [(b"", DIRECTORY), (b"b", FILE), (b"a", FILE)],
        [(b"", DIRECTORY), (b"a", FILE), (b"a", FILE)],
        [(b"", DIRECTORY), (b"a", FILE), (b"a/b", FILE)],
        [(b"", DIRECTORY), (b"a/b", FILE)],
        [(b"a", FILE)],
    ):
        with pytest.raises(CorruptObject):
            LayerIndex.decode(encoded(*rows))
    builder = IndexBuilder()
    builder.put(Entry(b"a", FILE, hardlink=b"../../etc/shadow"))
    with pytest.raises(CorruptObject):
        LayerIndex.decode(builder.build().encode())
    builder = IndexBuilder()
    builder.put(Entry(b"d/a", FILE))
    good = builder.build()
    assert good == LayerIndex.decode(good.encode())


def test_damaged_indexes_are_corrupt_and_nothing_else() -> None:
    """Random bytes, counts of any size and cuts: with a right checksum, too."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    builder = IndexBuilder()
    for number in range(20):
        builder.put(Entry(b"d%d/f" % number, FILE))
    builder.put(Entry(b"l", Node(0o120777, link=b"x")))
    whole = builder.build().encode()[:-32]
    for _ in range(2000):
        data = bytearray(whole)
        if rng.random() < 0.3:
            del data[rng.randrange(25, len(data)) :]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(25, len(data)) if len(data) > 25 else 0
            data[at] = rng.randrange(256)
        if rng.random() < 0.3:
            count = 25 + 8 * rng.randrange(6)
            data[count : count + 8] = struct.pack("<Q", rng.choice([2**40, 2**63]))
        raw = bytes(data)
        try:
            index = LayerIndex.decode(raw + blake3(raw).digest())
        except CorruptObject:
            continue
        for path in index.paths:
            assert not path.startswith(b"/"), f"seed {seed}"
            if path:
                checked_path(path)
    print(f"2000 run, seed {seed}")


@pytest.mark.parametrize("path", [p for p in NOWHERE if p])
def test_who_opens_beneath_a_directory_refuses_such_names(tmp_path: Path, path: bytes) -> None:
    """By themselves, whoever calls: for reading, making, linking and removing."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "b").write_text("outside")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with ReadBeneath(str(root)) as reader:
        for read in (reader.open, reader.readlink):
            with pytest.raises(OSError, match="not the name of an entry"):
                read(path)
        with pytest.raises(OSError, match="not the name of an entry"):
            reader.open_at(reader.root, b"..")
    acts: list[Callable[[WriteBeneath], object]] = [
        lambda writer: writer.make(path, DIRECTORY),
        lambda writer: writer.file(path, FILE, None),
        lambda writer: writer.other(path, Node(0o120777, link=b"x")),
        lambda writer: writer.whiteout(path),
        lambda writer: writer.remove(path),
        lambda writer: writer.link(path, b"a"),
        lambda writer: writer.link(b"new", path),
    ]
    for act in acts:
        with WriteBeneath(str(root)) as writer, pytest.raises(BuildError):
            act(writer)
    assert before == sorted(p.name for p in tmp_path.rglob("*"))


def test_names_are_checked_one_by_one() -> None:
    """A slash or NUL in a name, and paths that climb."""
    for name in (b"", b".", b"..", b"a/b", b"a\0b"):
        with pytest.raises(OSError, match="not the name"):
            checked_name(name)
    for path in NOWHERE:
        with pytest.raises(OSError, match="does not stay"):
            checked_path(path)
    assert b"a/b" == checked_path(b"a/b")


RECIPE = "FROM scratch AS one\nCOPY a.txt /\nFROM scratch\nCOPY --from=one a.txt /b\n"


def build(machine: Path, content: str, **caches: Any) -> BuildResult:
    """One build on a machine with a cache of its own."""
    machine.mkdir(exist_ok=True)
    with open_store(str(machine / "cache"), **caches) as store:
        builder = Builder(store, executor=Workspace(machine / "work"))
        return builder.build(Dockerfile.parse(RECIPE), context={"a.txt": content})


def names(place: Path) -> set[str]:
    return {path.name for path in place.rglob("*") if path.is_file()}


def test_an_index_is_not_taken_from_a_shared_cache(tmp_path: Path) -> None:
    """It is made from the verified layer: what the cache says of it is never asked for."""
    shared = tmp_path / "shared"
    first = build(tmp_path / "first", "alpha", cache_to=[str(shared)])
    assert not (shared / "index").exists()
    hostile = encoded((b"", DIRECTORY), (b"z", FILE))
    with open_store(str(shared)) as store:
        for path in (tmp_path / "first" / "cache" / "index").iterdir():
            store.derived.put("index", path.name.replace("-", ":", 1), hostile)
    assert (shared / "index").exists()
    second = build(tmp_path / "second", "alpha", cache_from=[str(shared)])
    assert {"hit", None} == {step.decision for step in second.steps}
    with open_store(str(tmp_path / "second" / "cache"), cache_from=[str(shared)]) as store:
        for path in (shared / "index").iterdir():
            assert store.derived.get("index", path.name.replace("-", ":", 1)) is None
    assert first.image == second.image


def test_a_lie_about_a_state_poisons_nothing(tmp_path: Path) -> None:
    """A fact of a remote chooses what is reused; nothing is stored under a key made of a lie."""
    shared = tmp_path / "shared"
    build(tmp_path / "first", "alpha", cache_to=[str(shared)])
    lie = Fingerprint("00" * 32)
    with open_store(str(shared)) as store:
        for trail in store.trails.all():
            assert trail.facts
            false = tuple(attrs.evolve(fact, fingerprint=lie) for fact in trail.facts)
            store.trails.put(attrs.evolve(trail, facts=false))
        store.commit()
    second = build(tmp_path / "second", "alpha", cache_from=[str(shared)])
    # The second COPY asked for a key that nobody has, so it was executed.
    assert [None, "hit", None, "miss"] == [step.decision for step in second.steps]
    truth = names(tmp_path / "first" / "cache" / "ac")
    assert names(tmp_path / "second" / "cache" / "ac") <= truth
    third = build(tmp_path / "second", "alpha", cache_from=[str(shared)])
    assert second.image == third.image
    assert names(tmp_path / "second" / "cache" / "ac") <= truth
