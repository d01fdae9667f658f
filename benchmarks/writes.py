"""What a RUN costs that writes much, beside its command and one BLAKE3 pass over what it wrote.

    python -m benchmarks.writes [--rounds N] [--check]

CPU seconds of whole processes and their children, medians of interleaved rounds. The floor is a
build with a RUN that writes nothing, the command itself by the same busybox on the same file
system, and a pass of BLAKE3 over the files. Each is built in the scratch directory of its cache,
where layers stay open, and in another, where an archive is written at once; what the process of
the build takes itself, without the command, is compared, too. Exports are shown and not compared.
Needs root and a static busybox.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from benchmarks.figures import Figure, report
from layercache import Builder, Dockerfile, RootfsExecutor, export, open_store
from layercache.testing.images import busybox_layer, make_layout

NAME = "writes"

WORKS = {
    "one file of 512 MB": "dd if=/dev/zero of={at}/big bs=1M count=512 2>/dev/null",
    "10,000 files of 4 KB": (
        "mkdir {at}/many && x=$(head -c 4095 /dev/zero | tr '\\0' x) && i=0 && "
        "while [ $i -lt 10000 ]; do echo $x > {at}/many/$i; i=$((i + 1)); done"
    ),
}


class Bench:
    """Two caches over one base image, with and without open layers."""

    def __init__(self, place: Path, base: bytes) -> None:
        self._place = place
        make_layout(place / "base", [base], {"Env": ["PATH=/bin"]})
        for kind in ("open", "archived"):
            self.build(kind, "true")

    def build(self, kind: str, command: str, output: str = "") -> Spent:
        """CPU seconds of a process that builds with a RUN of `command`."""
        cache = self._place / kind / "cache"
        scratch = cache / "rootfs" if kind == "open" else self._place / kind / "scratch"
        text = f"FROM base\nENV PATH=/bin\nRUN {command}\n"

        def work() -> None:
            with RootfsExecutor(scratch) as executor, open_store(str(cache)) as store:
                result = Builder(store, executor=executor).build(
                    Dockerfile.parse(text),
                    contexts={"base": f"oci-layout://{self._place / 'base'}"},
                )
                if output:
                    export(result, f"type=oci,dest={self._place / output}")

        return _cpu(work)

    def plain(self, command: str) -> Spent:
        """CPU seconds of `command` alone, and of a pass over what it wrote."""
        at = self._place / "plain"
        at.mkdir()
        try:
            text = command.format(at=at)
            run = ["busybox", "sh", "-c", text]

            def work() -> None:
                subprocess.run(run, check=True)
                _digest(at)

            return _cpu(work)
        finally:
            shutil.rmtree(at)


def _digest(at: Path) -> None:
    buffer = memoryview(bytearray(1 << 20))
    for directory, _, names in os.walk(at):
        for name in names:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY)
            hasher = blake3()
            while count := os.readv(descriptor, [buffer]):
                hasher.update(buffer[:count])
            hasher.digest()
            os.close(descriptor)


class Spent(NamedTuple):
    """CPU seconds of a process with its children, and of itself alone."""

    whole: float
    own: float


def _cpu(work: Callable[[], None]) -> Spent:
    """What `work` takes in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            used = resource.getrusage(resource.RUSAGE_SELF)
            os.write(writer, f"{used.ru_utime + used.ru_stime}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    _, status, used = os.wait4(pid, 0)
    own = os.read(reader, 100)
    os.close(reader)
    if status:
        raise SystemExit("the work of a benchmark failed")
    return Spent(used.ru_utime + used.ru_stime, float(own))


def measure(place: Path, rounds: int, base: bytes) -> list[Figure]:
    bench = Bench(place, base)
    figures: list[Figure] = []
    for what, command in WORKS.items():
        inside = command.format(at="")
        nothing = f"none{len(figures)}"
        found: dict[str, list[Spent]] = {}
        for number in range(rounds):
            # Another command each time: it must run, and not be found.
            again = f"{inside} && echo {number} > /round"
            layout = "layout.tar"
            for name, work in (
                ("nothing", partial(bench.build, "open", f"echo {number} > /{nothing}")),
                ("plain", partial(bench.plain, command)),
                ("open", partial(bench.build, "open", again)),
                ("archived", partial(bench.build, "archived", again)),
                ("open, exported", partial(bench.build, "open", again, layout)),
                ("archived, exported", partial(bench.build, "archived", again, layout)),
            ):
                found.setdefault(name, []).append(work())
        middle = {n: statistics.median(s.whole for s in spent) for n, spent in found.items()}
        own = {n: statistics.median(s.own for s in spent) for n, spent in found.items()}
        floor = middle["nothing"] + middle["plain"]
        for name, value in middle.items():
            print(f"  {what}: {name:24}{value:8.2f} s CPU, itself {own[name]:8.2f} s")
        added, archived = own["open"] - own["nothing"], own["archived"] - own["nothing"]
        figures += [
            Figure(NAME, f"RUN that writes {what} / command and digest", middle["open"] / floor),
            Figure(NAME, f"RUN that writes {what}, the build itself over nothing: CPU s", added),
            Figure(NAME, f"{what}, archived at once / left open", archived / added),
        ]
    return figures


def measure_all(rounds: int) -> list[Figure]:
    """All figures; none without root or a static busybox."""
    base = busybox_layer()
    if os.geteuid() != 0 or base is None:
        print("writes: skipped, needs root and busybox-static")
        return []
    place = Path(tempfile.mkdtemp(prefix="layercache-bench-"))
    try:
        return measure(place, rounds, base)
    finally:
        shutil.rmtree(place)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(measure_all(options.rounds), options.check)


if __name__ == "__main__":
    sys.exit(main())
