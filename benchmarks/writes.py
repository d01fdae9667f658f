"""What a RUN costs that writes much, beside its command and one BLAKE3 pass over what it wrote.

    python -m benchmarks.writes [--rounds N] [--check]

CPU seconds of whole processes and their children, medians of interleaved rounds. The floor is a
build with a RUN that writes nothing, the command itself by the same busybox on the same file
system, and a pass of BLAKE3 over the files. Each is built in the scratch directory of its cache,
where layers stay open, and in another, where an archive is written at once; the third figure is
an export of what was left open, beside one of what was archived. Needs root and a static busybox.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from benchmarks.figures import Figure, report
from layercache import Builder, Dockerfile, RootfsExecutor, export, open_store
from layercache.testing.images import busybox_layer, make_layout

NAME = "writes"

WORKS = {
    "one file of 512 MB": "dd if=/dev/zero of={at}/big bs=1M count=512 2>/dev/null",
    "10,000 files of 4 KB": "cp -r {source} {at}/many",
}


class Bench:
    """Two caches over one base image, with and without open layers, and what is copied."""

    def __init__(self, place: Path, base: bytes) -> None:
        self._place = place
        self._source = place / "source"
        for number in range(10_000):
            directory = self._source / f"d{number // 100}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"f{number}").write_bytes(os.urandom(4096))
        make_layout(place / "base", [base], {"Env": ["PATH=/bin"]})
        for kind in ("open", "archived"):
            self.build(kind, "true")

    def build(self, kind: str, command: str, output: str = "") -> float:
        """CPU seconds of a process that builds with a RUN of `command`."""
        cache = self._place / kind / "cache"
        scratch = cache / "rootfs" if kind == "open" else self._place / kind / "scratch"
        text = f"FROM base\nENV PATH=/bin\nCOPY . /source\nRUN {command}\n"

        def work() -> None:
            with RootfsExecutor(scratch) as executor, open_store(str(cache)) as store:
                result = Builder(store, executor=executor).build(
                    Dockerfile.parse(text),
                    context=self._source,
                    contexts={"base": f"oci-layout://{self._place / 'base'}"},
                )
                if output:
                    export(result, f"type=oci,dest={self._place / output}")

        return _cpu(work)

    def plain(self, command: str) -> float:
        """CPU seconds of `command` alone, and of a pass over what it wrote."""
        at = self._place / "plain"
        at.mkdir()
        try:
            text = command.format(at=at, source=self._source)
            run = ["busybox", "sh", "-c", text]
            spent = _cpu(lambda: os._exit(subprocess.run(run, check=False).returncode))
            return spent + _cpu(lambda: _digest(at))
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


def _cpu(work: Callable[[], None]) -> float:
    """CPU seconds of `work` in a process of its own, with its children."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit("the work of a benchmark failed")
    return used.ru_utime + used.ru_stime


def measure(place: Path, rounds: int, base: bytes) -> list[Figure]:
    bench = Bench(place, base)
    figures = []
    for what, command in WORKS.items():
        inside = command.format(at="/", source="/source")
        nothing = f"none{len(figures)}"
        found: dict[str, list[float]] = {}
        for number in range(rounds):
            # Another command each time: it must run, and not be found.
            again = f"{inside} && echo {number} > /round"
            for name, work in {
                "nothing": lambda to=f"{number} > /{nothing}": bench.build("open", f"echo {to}"),
                "plain": lambda run=command: bench.plain(run),
                "open": lambda run=again: bench.build("open", run),
                "archived": lambda run=again: bench.build("archived", run),
                "open, exported": lambda run=again: bench.build("open", run, "layout.tar"),
                "archived, exported": lambda run=again: bench.build("archived", run, "layout.tar"),
            }.items():
                found.setdefault(name, []).append(work())
        middle = {name: statistics.median(times) for name, times in found.items()}
        floor = middle["nothing"] + middle["plain"]
        for name, value in middle.items():
            print(f"  {what}: {name:24}{value:8.2f} s CPU")
        added = middle["open"] - middle["nothing"]
        figures += [
            Figure(NAME, f"RUN that writes {what} / command and digest", middle["open"] / floor),
            Figure(NAME, f"RUN that writes {what}, over one that writes none: CPU s", added),
            Figure(
                NAME, f"{what}, archived at once / left open", middle["archived"] / middle["open"]
            ),
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
