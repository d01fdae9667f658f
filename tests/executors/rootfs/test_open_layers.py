"""Layers that nobody archived: the same images, decisions and files as with archives at once."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import attrs
import pytest

from layercache import Builder, Dockerfile
from layercache._os import durability
from layercache.builds.exporting import export, seal
from layercache.builds.result import BuildResult
from layercache.cli import main
from layercache.errors import CacheError
from layercache.events import StepOutput
from layercache.executors.rootfs import RootfsExecutor
from layercache.model.digests import TreeDigest
from layercache.store import copy_state
from layercache.store.collection import collect, usage, verify
from layercache.store.open import open_store
from layercache.store.open_layers import OpenLayers
from layercache.store.parts import Cache
from layercache.store.retention import KeepDuration
from layercache.store.store import Store
from tests.executors.tracing.machines import base_layout, has_busybox
from tests.narrow import layer_of

pytestmark = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or not has_busybox(), reason="needs root and busybox"
)

RECIPE = """FROM base AS made
ENV PATH=/bin
RUN mkdir -p /d/e/f && echo one > /d/e/f/g && echo two > /d/x && ln /d/x /d/y && ln -s x /d/l
RUN rm /d/e/f/g && chmod 700 /d/e && mkfifo /p && cp -p /bin/busybox /copy && touch -d @7 /old
RUN rm -r /d && mkdir /d && echo new > /d/x && find /d | sort > /listing
FROM base
ENV PATH=/bin
COPY --from=made /copy /d /taken/
RUN --mount=type=bind,from=made,target=/made cat /made/d/x > /seen && sha256sum /taken/copy >> /seen
"""


class Machine:
    """A cache directory with an executor in it, or beside it: then archives are made at once."""

    def __init__(self, place: Path, *, eager: bool = False, **options: Any) -> None:
        self.cache = place / "cache"
        self.scratch = place / "elsewhere" if eager else self.cache / "rootfs"
        self.base = base_layout(place / "base")
        self.events: list[Any] = []
        self.options = options

    @contextlib.contextmanager
    def builder(self, **options: Any) -> Iterator[tuple[Cache, Builder]]:
        store = open_store(str(self.cache), **{**self.options, **options})
        with RootfsExecutor(self.scratch) as executor, store:
            store.events.on_event = self.events.append
            yield store, Builder(store, executor=executor)

    def run(self, builder: Builder, text: str = RECIPE, **options: Any) -> BuildResult:
        found: BuildResult = builder.build(
            Dockerfile.parse(text), contexts={"base": f"oci-layout://{self.base}"}, **options
        )
        return found

    def build(self, text: str = RECIPE, **options: Any) -> list[str | None]:
        """The decisions of one build."""
        with self.builder() as (_, builder):
            return decisions(self.run(builder, text, **options))

    @property
    def open(self) -> OpenLayers:
        return OpenLayers(str(self.cache / "rootfs"))

    def open_file(self, name: str) -> Path:
        """The file of that name in an open layer."""
        for tree in self.open:
            at = self.open.files(tree)
            if at is not None and os.path.lexists(os.path.join(at, name)):
                return Path(at, name)
        raise LookupError(name)


def decisions(result: BuildResult) -> list[str | None]:
    return [step.decision for step in result.steps if step.decision is not None]


def blobs(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("blobs/sha256/*/*")}


def exported(result: BuildResult, at: Path) -> bytes:
    export(result, f"type=oci,dest={at}")
    return at.read_bytes()


def said(events: list[Any], kind: str) -> list[str]:
    return [event.message for event in events if event.kind == kind]


ONE = "FROM base\nENV PATH=/bin\nRUN echo hello > /made && echo more > /more\n"
TWO = ONE + "RUN cat /made /more > /both\n"


def test_the_same_as_with_archives_at_once(tmp_path: Path) -> None:
    """States, decisions, archives byte for byte, trees and digests."""
    found = {}
    for eager in (True, False):
        machine = Machine(tmp_path / str(eager), eager=eager)
        with machine.builder() as (_, builder):
            result = machine.run(builder)
            assert bool(list(machine.open)) != eager
            assert result.image is not None
            assert (result.image.config_digest is None) != eager
            full = seal(result)
            layout = exported(result, tmp_path / f"{eager}.tar")
            assert result.state is not None
            found[eager] = (
                result.state.chain_id,
                decisions(result),
                full.image,
                [layer.archive for layer in full.built.layers] if full.built else None,
                layout,
                result.tree().digest(b""),
            )
        again = machine.build()
        assert set(again) == {"hit"}
    assert found[True] == found[False]


PLACES = ("/a", "/b", "/d", "/d/x", "/d/y", "/d/e", "/d/e/z", "/bin/wc", "/etc/passwd", "/tmp/q")
CHANGES = (
    "mkdir -p {p}", "rm -rf {p}", "echo {n} > {p}", "echo {n} >> {p}", "ln {p} {q}",
    "ln -s {q} {p}", "ln -sfn nowhere {p}", "mv {p} {q}", "mv {p} {q}; mkdir -p {p}",
    "cp -a {p} {q}", "cp -p {p} {q}", "chmod 700 {p}", "chmod 4755 {p}", "chown {n}:1 {p}",
    "touch -d @7 {p}", "touch -d @1700000000 {p}", "touch {p}", "mkfifo {p}", "mknod {p} c 1 3",
    "truncate -s 100000 {p}",
)  # fmt: skip


def random_recipe(seed: int) -> str:
    """A few steps that change a few places in every way, and perhaps a stage that takes them."""
    rng = random.Random(seed)
    lines = ["FROM base AS one", "ENV PATH=/bin"]
    for _ in range(rng.randrange(1, 4)):
        changes = [
            rng.choice(CHANGES).format(
                p=rng.choice(PLACES), q=rng.choice(PLACES), n=rng.randrange(3)
            )
            for _ in range(rng.randrange(1, 7))
        ]
        lines.append("RUN " + "; ".join(f"({one}) 2>/dev/null" for one in changes) + "; true")
    if rng.randrange(2):
        # No sizes of directories and no blocks, which are numbers of this file system's own.
        stat = "find /all | sort | xargs stat -c '%n %f %u %g %Y %h' > /l"
        lines += ["FROM base", "ENV PATH=/bin", "COPY --from=one / /all/", f"RUN {stat}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(9, marks=pytest.mark.soak),)])
def test_random_recipes_come_out_alike(tmp_path: Path, seed: int) -> None:
    """With archives at once and without: states, decisions, trees, images."""
    count = 200 if seed == 9 else 1
    for number in range(count):
        text = random_recipe(seed * 1000 + number)
        found = []
        for eager in (True, False):
            machine = Machine(tmp_path / f"{number}-{eager}", eager=eager, durability="none")
            with machine.builder() as (_, builder):
                result = machine.run(builder, text)
                assert result.state is not None
                out = exported(result, tmp_path / "out")
                found.append((result.state.chain_id, decisions(result), out))
            assert "miss" not in machine.build(text)
            assert not said(machine.events, "corrupt")
            shutil.rmtree(tmp_path / f"{number}-{eager}")
        assert found[0] == found[1], text


def test_nobody_archives_what_nobody_asked_for(tmp_path: Path) -> None:
    """A RUN leaves no archive; an export makes it, and a second one reads no file of it."""
    machine = Machine(tmp_path)
    with machine.builder() as (_, builder):
        machine.run(builder, "FROM base\nENV PATH=/bin\nRUN true\n")
        before = blobs(machine.cache)
        result = machine.run(builder, ONE)
        assert blobs(machine.cache) == before
        assert len(list(machine.open)) == 1
        first = exported(result, tmp_path / "first")
        assert list(machine.open) == []
    shutil.rmtree(machine.cache / "rootfs")
    with machine.builder() as (_, builder):
        result = machine.run(builder, ONE)
        assert decisions(result) == ["hit"]
        assert exported(result, tmp_path / "second") == first


def test_a_lost_layer_is_a_miss_that_heals(tmp_path: Path) -> None:
    """The directory, the mark, the list, the state: whichever is gone, the step runs again."""
    machine = Machine(tmp_path)
    for lose in ("unpacked", "open", "state", "index"):
        assert machine.build(ONE) == ["miss" if lose == "unpacked" else "hit"]
        (tree,) = machine.open
        if lose == "state":
            os.unlink(Path(str(machine.open.files(tree))).parent / "state")
        elif lose == "index":
            for path in machine.cache.glob("index/blake3-*"):
                path.unlink()
        else:
            shutil.rmtree(machine.cache / "rootfs" / lose)
        with machine.builder() as (_, builder):
            result = machine.run(builder, TWO if lose == "index" else ONE)
            assert decisions(result)[0] == "miss"
            with result.tree().open(b"made") as file:
                assert file.read() == b"hello\n"


def rot(path: Path, *, hidden: bool) -> None:
    """Change a byte; `hidden`: as a medium would, without a trace in the file's data."""
    info = os.stat(path)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    if hidden:
        from layercache.executors.rootfs.seal import write_seal

        top = path
        while top.name != "fs":
            top = top.parent
        write_seal(str(top.parent))


@pytest.mark.parametrize("use", ["export", "run", "tree", "tag", "seal"])
@pytest.mark.parametrize("hidden", [False, True])
def test_rot_is_found_when_it_is_read_and_never_exported(
    tmp_path: Path, use: str, *, hidden: bool
) -> None:
    machine = Machine(tmp_path)
    machine.build(ONE)
    rot(machine.open_file("made"), hidden=hidden)
    with machine.builder() as (_, builder):
        if use == "run":
            result = machine.run(builder, TWO)
            if hidden:
                return  # a command reads what the kernel gives it, as in any unpacked copy
            assert decisions(result) == ["miss", "miss"]
            with result.tree().open(b"both") as file:
                assert file.read() == b"hello\nmore\n"
            return
        if use == "tag":
            result = machine.run(builder, ONE, tags=("x",))
        else:
            result = machine.run(builder, ONE)
            assert decisions(result) == ["hit"]
        if use == "tree":
            with result.tree().open(b"made") as file, pytest.raises(CacheError):
                file.read()
            return
        if use == "seal":
            result = seal(result)
        layout = exported(result, tmp_path / "out")
    with tarfile.open(fileobj=io.BytesIO(layout)) as outer:
        names = [m.name for m in outer if m.name.startswith("blobs/") and m.size > 1024]
        for name in names:
            data = outer.extractfile(name)
            assert data is None or b"iello\n" not in data.read()
    assert said(machine.events, "corrupt")


def test_other_times_alone_cost_nothing(tmp_path: Path) -> None:
    """A clean-up that touched a file: all bytes are right, and the layer is saved."""
    machine = Machine(tmp_path)
    machine.build(ONE)
    os.utime(machine.open_file("made"), (5, 5))
    with machine.builder() as (_, builder):
        result = machine.run(builder, TWO)
        assert decisions(result) == ["hit", "miss"]
        with result.tree().open(b"both") as file:
            assert file.read() == b"hello\nmore\n"
        node = result.tree().lookup(b"made")
        assert node is not None
        assert node.mtime > 5


def test_what_was_not_synced_does_not_outlast_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that was acknowledged does."""
    for acknowledged in (True, False):
        machine = Machine(tmp_path / str(acknowledged))
        with monkeypatch.context() as patch:
            if not acknowledged:
                patch.setattr(OpenLayers, "settle", lambda self: None)
            machine.build(ONE)
        with monkeypatch.context() as patch:
            for module in (durability, copy_state):
                patch.setattr(module, "boot_id", lambda: "another")
            assert machine.build(ONE) == (["hit"] if acknowledged else ["miss"])


POINTS = {
    "captured": "layercache.executors.rootfs.unpacked.Unpacked.adopt",
    "adopted": "layercache.store.layer_blobs.LayerBlobs.keep_open",
    "listed": "layercache.store.open_layers.OpenLayers.keep",
    "kept": "layercache.store.action_cache.Records.put",
    "recorded": "layercache.store.layer_blobs.LayerBlobs.settle",
    "synced": "layercache.store.sealed_objects.SealedObjects.acknowledge",
    "published": "layercache.store.layer_blobs.LayerBlobs.settled",
    "archived": "layercache.store.layer_blobs.LayerBlobs.add_file",
    "sealed": "layercache.store.open_layers.OpenLayers.release",
}


EXPORTING = ("archived", "sealed")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """The next build has the right files, hits what was acknowledged, and nothing is damaged."""
    machine = Machine(tmp_path)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with machine.builder() as (_, builder):
                if point not in EXPORTING:
                    monkeypatch.setattr(POINTS[point], lambda *_, **__: os._exit(7))
                result = machine.run(builder, ONE)
                monkeypatch.setattr(POINTS[point], lambda *_, **__: os._exit(7))
                export(result, f"type=oci,dest={tmp_path / 'out'}")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    with machine.builder() as (_, builder):
        result = machine.run(builder, TWO)
        if point in ("published", *EXPORTING):
            assert decisions(result)[0] == "hit"
        with result.tree().open(b"both") as file:
            assert file.read() == b"hello\nmore\n"
        exported(result, tmp_path / "again")
    with open_store(str(machine.cache)) as store:
        assert verify(store) == ()
    assert not said(machine.events, "corrupt")


def test_a_failed_sync_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build goes on with an archive of its own; the next one makes the layer again."""
    machine = Machine(tmp_path)

    def fail(self: OpenLayers) -> None:
        raise CacheError("no")

    with machine.builder() as (_, builder):
        with monkeypatch.context() as patch:
            patch.setattr(OpenLayers, "settle", fail)
            result = machine.run(builder, ONE)
        with result.tree().open(b"made") as file:
            assert file.read() == b"hello\n"
    assert said(machine.events, "degraded")
    assert machine.build(ONE) == ["miss"]


def test_where_none_can_be_kept_archives_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)

    def fail(self: OpenLayers, tree: TreeDigest, size: int, name: str) -> None:
        raise CacheError("no")

    with monkeypatch.context() as patch:
        patch.setattr(OpenLayers, "keep", fail)
        assert machine.build(ONE) == ["miss"]
    assert list(machine.open) == []
    assert machine.build(ONE) == ["hit"]


def test_a_shared_cache_holds_archives(tmp_path: Path) -> None:
    """Others could not read what lies open."""
    machine = Machine(tmp_path)
    machine.cache.mkdir(mode=0o770)
    machine.cache.chmod(0o2770)
    machine.build(ONE)
    assert list(machine.open) == []
    assert machine.build(ONE) == ["hit"]


# -- collections --------------------------------------------------------------------------------


def test_collections_spare_what_is_held_and_take_what_nobody_names(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with machine.builder() as (store, builder):
        machine.run(builder, ONE)
        assert isinstance(store, Store)
        used = usage(store)
        assert used.objects["open layers"] == 1
        store.blobs.seal(next(iter(machine.open)))
        store.commit()
        now = usage(store)
        assert "open layers" not in now.objects
        assert now.objects["rootfs"] > used.objects["rootfs"]  # counted once
        machine.build(TWO)
        with store.in_use():
            store.records.lookup([record.key for record in store.records.all(9) or ()])
            with open_store(str(machine.cache)) as other:
                collect(other, [], everything=True, grace=0.0)
            assert len(list(machine.open)) == 1
        with open_store(str(machine.cache)) as other:
            collect(other, [], everything=True, grace=0.0)
        assert list(machine.open) == []
    assert machine.build(ONE) == ["miss"]


def test_a_running_step_keeps_the_open_layer_below_it(tmp_path: Path) -> None:
    """Whatever is collected and pruned beside it meanwhile."""
    machine = Machine(tmp_path)
    machine.build(ONE)
    began = threading.Event()
    found: list[bytes] = []

    def work() -> None:
        def observe(event: object) -> None:
            if isinstance(event, StepOutput):
                began.set()

        text = ONE + "RUN cat /made; sleep 1; cat /made /more > /both\n"
        with RootfsExecutor(machine.scratch) as executor, open_store(str(machine.cache)) as store:
            builder = Builder(store, executor=executor, observers=[observe])
            with machine.run(builder, text).tree().open(b"both") as file:
                found.append(file.read())

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(60)
    for more in ([], ["--all"]):
        assert main(["cache", "prune", *more, "--cache", str(machine.cache)]) == 0
    thread.join()
    assert found == [b"hello\nmore\n"]


def test_pruning_copies_spares_open_layers(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.build(TWO)
    assert main(["cache", "prune", "--cache", str(machine.cache)]) == 0
    with RootfsExecutor(machine.scratch) as executor:
        assert executor.prune() >= 1  # the base's
    assert len(list(machine.open)) == 2
    assert machine.build(TWO) == ["hit", "hit"]
    assert main(["cache", "prune", "--all", "--cache", str(machine.cache)]) == 0
    assert list(machine.open) == []
    assert os.listdir(machine.scratch / "unpacked") == []


def test_policies_release_open_layers(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.build(TWO)
    with open_store(str(machine.cache)) as store:
        done = collect(store, [KeepDuration(0.0)], grace=0.0)
    assert sum("blobs/blake3/" in name for name in done.removed) == 2
    assert list(machine.open) == []


def test_namespaces_have_their_own(tmp_path: Path) -> None:
    """Collecting one leaves the other's layers."""
    machine = Machine(tmp_path)
    with machine.builder() as (store, builder):
        machine.run(builder, ONE)
        other = Store(store.backend, namespace="other")
        with RootfsExecutor(machine.scratch) as executor, other:
            second = Builder(other, executor=executor)
            assert decisions(machine.run(second, ONE)) == ["miss"]
            collect(other, [], everything=True, grace=0.0)
    assert machine.build(ONE) == ["hit"]


# -- the command line ---------------------------------------------------------------------------


def test_verify_reads_open_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(tmp_path)
    machine.build(ONE)
    with open_store(str(machine.cache)) as store:
        assert verify(store) == ()
    rot(machine.open_file("made"), hidden=True)
    check = ["cache", "verify", "--json", "--cache", str(machine.cache)]
    assert main(check) == 1
    assert "blobs/blake3/" in capsys.readouterr().out
    assert len(list(machine.open)) == 1  # only told
    assert main([*check, "--repair"]) == 0
    capsys.readouterr()
    assert main(check) == 0
    assert machine.build(ONE) == ["miss"]


def test_seal_makes_all_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(tmp_path)
    machine.build(TWO)
    seal = ["cache", "seal", "--json", "--cache", str(machine.cache)]
    assert main(["cache", "du", "--cache", str(machine.cache)]) == 0
    assert "open layers" in capsys.readouterr().out
    assert main(seal) == 0
    assert json.loads(capsys.readouterr().out)["sealed"] == 2
    assert list(machine.open) == []
    assert main(seal) == 0
    assert json.loads(capsys.readouterr().out)["sealed"] == 0
    shutil.rmtree(machine.cache / "rootfs")
    assert machine.build(TWO) == ["hit", "hit"]
    with open_store(str(machine.cache)) as store:
        assert verify(store) == ()
        collect(store, [], grace=0.0)  # the archives are referred to
    assert machine.build(TWO) == ["hit", "hit"]


def test_a_tag_needs_archives(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.build(ONE, tags=("x",))
    assert list(machine.open) == []
    shutil.rmtree(machine.cache / "rootfs")
    assert machine.build("FROM x\nENV PATH=/bin\nRUN cat /made > /again\n") == ["miss"]


# -- others -------------------------------------------------------------------------------------


def test_remotes_hold_archives_only(tmp_path: Path) -> None:
    """A second machine reuses what the first one left open, and runs on top of it."""
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    remote = str(tmp_path / "remote")
    with one.builder(cache_to=[remote]) as (_, builder):
        one.run(builder, ONE)
        assert len(list(one.open)) <= 1
    assert not (tmp_path / "remote" / "rootfs").exists()
    with two.builder(cache_from=[remote]) as (_, builder):
        result = two.run(builder, TWO)
        assert decisions(result) == ["hit", "miss"]
        with result.tree().open(b"both") as file:
            assert file.read() == b"hello\nmore\n"
        for layer in result.state.layers if result.state is not None else ():
            assert layer.tree == "" or layer.id.startswith("blake3:")


@pytest.mark.parametrize("use", ["run", "export", "tree"])
def test_a_remote_that_names_the_archive_of_another_layer(tmp_path: Path, use: str) -> None:
    """Its record is damage: no command runs on such files, and no image has them."""
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    remote = tmp_path / "remote"
    with one.builder(cache_to=[str(remote)]) as (_, builder):
        one.run(builder, TWO)
    shutil.rmtree(remote / "trails")
    with open_store(str(remote)) as store:
        records = [r for r in store.records.all(9) or () if r.layer is not None and r.layer.tree]
        first, second = (r for r in records if r.material.name == "RUN")
        assert first.layer is not None
        assert second.layer is not None
        for record, other in ((first, second.layer), (second, first.layer)):
            layer = attrs.evolve(
                layer_of(record), descriptor=other.descriptor, diff_id=other.diff_id
            )
            store.records.put(attrs.evolve(record, layer=layer), replace=True)
        store.commit()
    with two.builder(cache_from=[str(remote)]) as (_, builder):
        if use == "run":
            result = two.run(builder, TWO + "RUN cat /both > /third\n")
            with result.tree().open(b"third") as file:
                assert file.read() == b"hello\nmore\n"
            return
        result = two.run(builder, TWO)
        if use == "tree":
            with pytest.raises(CacheError):
                result.tree().lookup(b"made")
            return
        exported(result, tmp_path / "out")
    reference = Machine(tmp_path / "three", eager=True)
    with reference.builder() as (_, builder):
        exported(reference.run(builder, TWO), tmp_path / "right")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "right").read_bytes()


def test_a_worker_gets_archives(tmp_path: Path) -> None:
    """It may be on another machine, and what it makes is needed here."""
    machine = Machine(tmp_path)
    machine.build(ONE)
    with (
        RootfsExecutor(machine.scratch) as executor,
        open_store(str(machine.cache)) as store,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        builder = Builder(store, executor=executor, pool=pool)
        result = machine.run(builder, TWO)
        assert decisions(result) == ["hit", "miss"]
        with result.tree().open(b"both") as file:
            assert file.read() == b"hello\nmore\n"
    assert list(machine.open) == []
    assert machine.build(TWO) == ["hit", "hit"]


def test_traces_come_out_alike(tmp_path: Path) -> None:
    """A step that is reused on another state, on which its open layer has other times."""
    text = "FROM base\nENV PATH=/bin\nRUN echo {} > /unread\n" + TWO.partition("bin\n")[2]
    found = []
    for eager in (True, False):
        machine = Machine(tmp_path / str(eager), eager=eager)
        machine.build(text.format(1), trace="auto")
        with machine.builder() as (_, builder):
            result = machine.run(
                builder,
                text.format(2) + "RUN stat -c '%n %s %Y' /made /more /both /unread > /all\n",
                trace="auto",
            )
            assert decisions(result) == ["miss", "hit", "hit", "miss"]
            assert result.state is not None
            found.append((result.state.chain_id, result.tree().digest(b"")))
    assert found[0] == found[1]


def test_racers_make_one_layer(tmp_path: Path) -> None:
    """Several builds at once, none of which waits for the other's archive."""
    machine = Machine(tmp_path)
    found: list[Any] = []

    def work() -> None:
        with machine.builder() as (_, builder):
            result = machine.run(builder, TWO)
            found.append((result.state and result.state.chain_id, result.tree().digest(b"")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert machine.build(TWO) == ["hit", "hit"]
