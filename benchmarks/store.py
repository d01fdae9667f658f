"""The store against floors: lookups, content in and out, and an all-hit build from afar.

    python -m benchmarks.store [--rounds N] [--check]

Figures are CPU seconds (user and system) of interleaved rounds where work is compared, wall time
where waiting for a network is the matter. With `--check` the exit status is 1 when a ratio or a
count is above its limit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.figures import Figure, own_cpu, report
from layercache.model.descriptors import LAYER_TAR
from layercache.model.digests import CacheKey
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.codec import encode_record
from layercache.store.store import Store
from layercache.store.tiered import tiered
from layercache.store.trails import Trail, TrailStep
from layercache.testing.faults import CountingBackend
from layercache.testing.storage import make_record

NAME = "store"
RECORDS = 1000
LATENCY = 0.020
SIZE = 64 << 20


def _measure(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of each, the rounds interleaved."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            start = own_cpu()
            work()
            taken[name].append(own_cpu() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def lookups(rounds: int) -> list[Figure]:
    """Hits and misses of a local store beside open, read, close of the same files."""
    with tempfile.TemporaryDirectory() as directory:
        backend = LocalBackend(directory, durability="none")
        store = Store(backend)
        records = [store.records.put(make_record(store, number)) for number in range(RECORDS)]
        keys = [record.key for record in records]
        absent = [CacheKey(f"{number:064x}") for number in range(RECORDS)]
        names = [store.records.name(key) for key in keys]
        missing = [store.records.name(key) for key in absent]
        paths = [backend.path(name) for name in names]
        missing_paths = [backend.path(name) for name in missing]

        def bare(paths: list[str]) -> None:
            for path in paths:
                try:
                    fd = os.open(path, os.O_RDONLY)
                except FileNotFoundError:
                    continue
                os.read(fd, 65_536)
                os.close(fd)

        found = _measure(
            rounds,
            {
                "bare hit": lambda: bare(paths),
                "bare miss": lambda: bare(missing_paths),
                "read hit": lambda: backend.read_many(names),
                "read miss": lambda: backend.read_many(missing),
                "lookup hit": lambda: Store(backend).records.lookup(keys),
                "lookup miss": lambda: Store(backend).records.lookup(absent),
                "encode": lambda: [encode_record(record) for record in records],
            },
        )
    for name, seconds in found.items():
        print(f"  {name:14} {seconds / RECORDS * 1e6:8.1f} us")
    print(f"  lookups per CPU second: {RECORDS / found['lookup hit']:,.0f}")
    return [
        Figure(
            NAME, "local read of a hit / open, read, close", found["read hit"] / found["bare hit"]
        ),
        Figure(
            NAME, "local read of a miss / failing open", found["read miss"] / found["bare miss"]
        ),
        Figure(
            NAME, "verified lookup / open, read, close", found["lookup hit"] / found["bare hit"]
        ),
    ]


def content(rounds: int) -> list[Figure]:
    """A blob in and out beside a copy, and beside a copy that is hashed."""
    import hashlib

    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "source")
        with open(source, "wb") as out:
            out.write(os.urandom(SIZE))
        target = os.path.join(directory, "copy")
        store = Store(LocalBackend(os.path.join(directory, "cache"), durability="none"))

        def add() -> None:
            shutil.rmtree(os.path.join(directory, "cache", "blobs"), ignore_errors=True)
            with open(source, "rb") as data:
                store.blobs.add(data, LAYER_TAR)

        def floor() -> None:
            hasher = hashlib.sha256()
            with open(source, "rb") as data, open(target, "wb") as out:
                while chunk := data.read(1 << 18):
                    hasher.update(chunk)
                    out.write(chunk)

        def read() -> None:
            with store.blobs.open(descriptor.digest) as data:
                while data.read(1 << 18):
                    pass

        def verified() -> None:
            with open(store.blobs.verified_path(descriptor), "rb") as data:
                while data.read(1 << 18):
                    pass

        with open(source, "rb") as data:
            descriptor = store.blobs.add(data, LAYER_TAR)
        found = _measure(
            rounds,
            {
                "cp": lambda: shutil.copyfile(source, target),
                "copy and hash": floor,
                "put": add,
                "get, verified": read,
                "get, known": verified,
            },
        )
    for name, seconds in found.items():
        print(f"  {name:14} {SIZE / seconds / 1e6:8.0f} MB/s")
    return [
        Figure(NAME, "put / copy and hash", found["put"] / found["copy and hash"]),
        Figure(
            NAME, "verified get / copy and hash", found["get, verified"] / found["copy and hash"]
        ),
    ]


def distance() -> list[Figure]:
    """All-hit lookups of a chain from a clean machine, at 20 ms for each round trip."""
    figures = []
    for steps in (10, 30, 100):
        shared = MemoryBackend()
        maker = Store(shared)
        records = [maker.records.put(make_record(maker, number)) for number in range(steps)]
        rows = tuple(
            TrailStep(stage=0, index=n, op="RUN", text=f"RUN {n}", key=r.key, record=r)
            for n, r in enumerate(records)
        )
        maker.trails.put(Trail("t", rows))
        with tempfile.TemporaryDirectory() as directory:
            far = CountingBackend(shared, latency=LATENCY)
            store = tiered(Store(LocalBackend(directory)), cache_from=[far])
            before, cpu, start = far.requests, own_cpu(), time.monotonic()
            store.trails.get("t")
            for record in records:  # as a walk asks: one key after the other
                assert store.records.lookup([record.key])
            wall, cpu = time.monotonic() - start, own_cpu() - cpu
            requests = far.requests - before
            print(
                f"  {steps:4} steps: {requests} requests, {far.bytes_read:7,} bytes, "
                f"{wall * 1000:6.1f} ms, {cpu * 1000:6.1f} ms CPU"
            )
            figures.append(Figure(NAME, f"requests for {steps} steps", requests))
            store.close()
    return figures


def syncs() -> None:
    """What durability costs: wall time of one put with its commit."""
    for durability in ("none", "batch", "full"):
        with tempfile.TemporaryDirectory(dir=".") as directory:
            store = Store(LocalBackend(directory, durability=durability))
            start = time.monotonic()
            for number in range(20):
                store.records.put(make_record(store, number, os.urandom(4096)))
                store.commit()
            print(f"  {durability:6} {(time.monotonic() - start) / 20 * 1000:8.2f} ms")


def measure_all(rounds: int) -> list[Figure]:
    """All figures; what has no floor is printed on the way."""
    print("lookups of local records")
    figures = lookups(rounds)
    print("content of 64 MiB")
    figures += content(rounds)
    print(f"all-hit chains from a clean machine, {LATENCY * 1000:.0f} ms a round trip")
    figures += distance()
    print("put and commit, wall")
    syncs()
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; 1 with `--check` when one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(measure_all(options.rounds), options.check)


if __name__ == "__main__":
    sys.exit(main())
