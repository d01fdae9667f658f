"""What a step costs beside the command itself, against a container made by hand in a shell.

    python -m benchmarks.rootfs [--rounds N] [--check]

Wall milliseconds, medians and minima of interleaved rounds. The floor is `unshare` of
util-linux with the same namespaces, an overlay by mount(8) and chroot(1): no capture, no user,
no /dev, no /proc. What a cache mount adds where 10,000 files of the state are shown with other
times is CPU seconds; its floor is touch(1) on these files through an overlay. With `--check`
the exit status is 1 when a ratio is above its limit. Needs root and a static busybox.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from benchmarks.figures import Figure, report
from layercache.executors.rootfs import RootfsExecutor
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer, State
from layercache.model.digests import DiffID, Digest, Fingerprint
from layercache.model.instruction import Source
from layercache.model.layer_times import LAYER_TIME
from layercache.model.operations import Exec, Mount
from layercache.model.selectors import EVERYTHING
from layercache.model.task import BoundInput, NewFile, Task
from layercache.model.tree import Tree
from layercache.store.backends.local import LocalBackend
from layercache.store.store import Store
from layercache.testing.images import busybox_layer

NAME = "rootfs"
FLOOR = (
    'd=$(mktemp -d -p "$1") && mkdir "$d/u" "$d/w" "$d/r" && '
    "unshare --mount --pid --uts --ipc --fork sh -c "
    '\'mount -t overlay -o lowerdir="$2",upperdir="$3/u",workdir="$3/w",volatile none "$3/r" '
    '&& exec chroot "$3/r" /bin/true\' sh "$1" "$2" "$d"'
)


RETIME = (
    'set -e; d="$1/retime"; mkdir -p "$d/u" "$d/w" "$d/m"; unshare -m sh -ec \'mount -t overlay '
    'overlay -o "volatile,metacopy=on,redirect_dir=on,lowerdir=$2,upperdir=$1/u,workdir=$1/w" '
    '"$1/m" && '
    'find "$1/m" -type f -print0 | xargs -0 touch -d @1700000000\' sh "$d" "$2"; rm -rf "$d"'
)
"""The least that showing other times can cost: a new inode for each file."""

SOURCES = 10_000


class MissingBusybox(Exception):
    """There is no static busybox to make a base of."""


class Window:
    """The `Blobs` of a step over a store in a directory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.inputs = Inputs(store, {})

    def open(self, digest: Digest) -> BinaryIO:
        return self.store.blobs.open(digest)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        return self.store.blobs.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        return self.store.blobs.add_file(path, media_type, digest, size)

    def index(self, layer: Layer) -> Any:
        return self.inputs.index(layer)

    def keep_index(self, layer: Layer, index: Any) -> None:
        self.inputs.keep_index(layer, index)

    def tree(self, subject: State | Source) -> Tree:
        return self.inputs.tree(subject)

    def layer(self, files: Mapping[str, NewFile]) -> Layer | None:
        raise NotImplementedError("no step of these benchmarks stores a layer that way")

    def layer_from(self, directory: str) -> Layer | None:
        raise NotImplementedError("no step of these benchmarks stores a layer that way")

    def log(self, chunk: bytes) -> None:
        pass

    def cancelled(self) -> bool:
        return False


class Bench:
    """An executor over a busybox base in `place`, and the floor."""

    def __init__(self, place: str) -> None:
        layer = busybox_layer()
        if layer is None:
            raise MissingBusybox
        self.place = place
        self.window = Window(Store(LocalBackend(os.path.join(place, "store"))))
        descriptor = self.window.add(io.BytesIO(layer), LAYER_TAR)
        self.base = SCRATCH.plus(Layer(descriptor, DiffID(descriptor.digest)))
        self.executor = RootfsExecutor(os.path.join(place, "scratch"))
        self.plain = os.path.join(place, "plain")
        os.mkdir(self.plain)
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            archive.extractall(self.plain, filter="fully_trusted")

    def run(self, *args: str, state: State | None = None, mounts: tuple[Mount, ...] = ()) -> None:
        state = state or self.base
        parent = BoundInput("parent", state, EVERYTHING, Fingerprint(state.chain_id))
        self.executor.execute(Task(Exec(args=args, mounts=mounts), (parent,)), self.window)

    def script(self, text: str) -> Callable[[], None]:
        return lambda: self.run("/bin/sh", "-c", text)

    def floor(self) -> None:
        subprocess.run(["sh", "-c", FLOOR, "sh", self.place, self.plain], check=True)


def with_sources(bench: Bench) -> State:
    """The base with many small files on top, also in the plain directory `sources`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(SOURCES):
            info = tarfile.TarInfo(f"src/{number // 100}/{number}")
            info.size, info.mtime = 4096, LAYER_TIME
            tar.addfile(info, io.BytesIO((b"%d\n" % number).ljust(4096, b"x")))
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        tar.extractall(os.path.join(bench.place, "sources"), filter="fully_trusted")
    archive.seek(0)
    descriptor = bench.window.add(archive, LAYER_TAR)
    return bench.base.plus(Layer(descriptor, DiffID(descriptor.digest)))


def cache_times(place: str) -> list[Figure]:
    """What a cache mount costs a step that is shown many files."""
    bench = Bench(place)
    state = with_sources(bench)
    caches = os.path.join(place, "scratch", "caches")
    mounts = (Mount(type="cache", target="/cache", id="bench"),)

    def cached() -> None:
        bench.run("/bin/true", state=state, mounts=mounts)

    def plain() -> None:
        bench.run("/bin/true", state=state)

    def unknown() -> None:
        for path in glob.glob(os.path.join(caches, "*", "*.times")):
            os.unlink(path)
        cached()

    def cost(work: Callable[[], None]) -> float:
        """CPU seconds of one step, the helper process and what is deleted afterwards included."""
        bench.executor.close()
        work()
        before = cpu_seconds()
        for _ in range(5):
            work()
        bench.executor.close()
        return (cpu_seconds() - before) / 6

    def floor() -> None:
        sources = os.path.join(place, "sources")
        subprocess.run(["sh", "-c", RETIME, "sh", place, sources], check=True)

    plain()
    cached()
    works = {"plain": plain, "as at its last use": cached, "all times set": unknown}
    found = {name: cost(work) for name, work in works.items()}
    before = cpu_seconds()
    for _ in range(5):
        floor()
    least = (cpu_seconds() - before) / 5
    for name, seconds in {**found, "touch through an overlay": least}.items():
        print(f"  10,000 files, {name:30}{seconds:8.3f} s CPU")
    title = f"a cache mount beside {SOURCES:,} files"
    return [
        Figure(
            NAME, f"{title}, nothing changed: CPU s", found["as at its last use"] - found["plain"]
        ),
        Figure(
            NAME,
            f"{title}, all times set / touch of them",
            (found["all times set"] - found["plain"]) / least,
        ),
    ]


def cpu_seconds() -> float:
    """Of this process and the children that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def interleaved(rounds: int, works: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Milliseconds of each work, in turn."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            found[name].append((time.perf_counter() - started) * 1000)
    return found


def measure(place: str, rounds: int) -> list[Figure]:
    bench = Bench(place)
    bench.run("/bin/true")
    works = {
        "floor: unshare, mount, chroot": bench.floor,
        "RUN true": lambda: bench.run("/bin/true"),
        "RUN sh -c true": bench.script("true"),
        "RUN that writes a file": bench.script("echo $$ > /file"),
        "RUN that writes 1000 files": bench.script(
            "mkdir /d; i=0; while [ $i -lt 1000 ]; do echo $i > /d/$i; i=$((i+1)); done"
        ),
    }
    found = interleaved(rounds, works)
    first = found["first RUN of a build (helper started)"] = []
    for _ in range(max(3, rounds // 3)):
        bench.executor.close()
        started = time.perf_counter()
        bench.run("/bin/true")
        first.append((time.perf_counter() - started) * 1000)
    for _ in range(50):
        bench.run("/bin/true")
    started = time.perf_counter()
    bench.executor.close()
    closing = (time.perf_counter() - started) * 1000
    floor = statistics.median(found["floor: unshare, mount, chroot"])
    figures = []
    for name, times in [*found.items(), ("closing after 50 steps", [closing])]:
        middle = statistics.median(times)
        print(f"  {name:40}{middle:8.1f} ms (min {min(times):.1f})")
        if not name.startswith("floor"):
            figures.append(Figure(NAME, f"{name} / container by hand", middle / floor))
    return figures


def measure_all(rounds: int) -> list[Figure]:
    """All figures; none without root or a static busybox."""
    if os.geteuid() != 0:
        print("rootfs: skipped, needs root")
        return []
    place = tempfile.mkdtemp(prefix="layercache-bench-")
    try:
        for name in ("steps", "times"):
            os.mkdir(os.path.join(place, name))
        steps = measure(os.path.join(place, "steps"), rounds)
        return steps + cache_times(os.path.join(place, "times"))
    except MissingBusybox:
        print("rootfs: skipped, no busybox: apt-get install busybox-static")
        return []
    finally:
        shutil.rmtree(place)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(measure_all(options.rounds), options.check)


if __name__ == "__main__":
    sys.exit(main())
