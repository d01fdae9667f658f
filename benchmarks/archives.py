"""Layers against floors: writing them beside read-and-hash and tarfile, unpacking beside tar.

    python -m benchmarks.archives [--rounds N] [--check]

Figures are CPU seconds (user and system) of interleaved rounds, so that a busy machine disturbs
the ratios little. With `--check` the exit status is 1 when a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable

from blake3 import blake3

from benchmarks.figures import Figure, interleaved, report, timed
from layercache.layers.apply import unpack
from layercache.layers.capture import capture_diff
from layercache.layers.reader import index_layer
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import LayerIndex
from layercache.model.layer_times import copied_time
from layercache.model.tree import Node

NAME = "archives"

MEMORY = "/dev/shm"
CHUNK = 256 * 1024


class Corpus:
    """Files in directories of a hundred, read by path from a list made beforehand."""

    def __init__(self, root: str, files: int, size: int) -> None:
        self.root = root
        source = random.Random(files)
        self.files: list[tuple[bytes, str, Node]] = []
        for number in range(files):
            directory = os.path.join(root, f"{number // 100:04d}")
            if not number % 100:
                os.makedirs(directory)
            path = os.path.join(directory, f"{number % 100:02d}")
            length = size if files < 10 else source.randrange(2 * size)
            data = source.randbytes(min(length, 1 << 20)) * max(1, length >> 20)
            with open(path, "wb") as out:
                out.write(data)
            name = os.fsencode(os.path.relpath(path, root))
            content = blake3(data).digest()
            node = Node(0o100644, size=len(data), mtime=copied_time(content), content=content)
            self.files.append((name, path, node))

    def floor(self) -> None:
        """Read everything, take both hashes."""
        total = hashlib.sha256()
        buffer = memoryview(bytearray(CHUNK))
        for _, path, _ in self.files:
            one = blake3()
            descriptor = os.open(path, os.O_RDONLY)
            while count := os.readv(descriptor, [buffer]):
                total.update(buffer[:count])
                one.update(buffer[:count])
                if count < CHUNK:
                    break
            os.close(descriptor)
            one.digest()

    def ours(self, sink: io.RawIOBase | None = None) -> LayerIndex:
        """A layer with its diff ID and index."""
        writer = LayerWriter(sink or _Nowhere())  # type: ignore[arg-type]
        for name, path, node in self.files:
            descriptor = os.open(path, os.O_RDONLY)
            writer.add(name, node, descriptor)
            os.close(descriptor)
        return writer.finish()[2]

    def tarfile(self) -> None:
        """The same with the standard library: a pax archive, both hashes."""
        sink = _Hashing()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path, _ in self.files:
                member = tar.gettarinfo(path, os.fsdecode(name))
                with open(path, "rb") as content:
                    tar.addfile(member, _Reading(content))


class _Nowhere(io.RawIOBase):
    def write(self, data: object) -> int:
        return len(data)  # type: ignore[arg-type]


class _Hashing(io.RawIOBase):
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._at = 0

    def tell(self) -> int:
        return self._at

    def write(self, data: object) -> int:
        self._hash.update(data)  # type: ignore[arg-type]
        self._at += len(data)  # type: ignore[arg-type]
        return len(data)  # type: ignore[arg-type]


class _Reading:
    def __init__(self, content: io.BufferedReader) -> None:
        self._content = content
        self._hash = blake3()

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self._hash.update(data)
        return data


def writing(small: Corpus, large: Corpus, rounds: int) -> list[Figure]:
    """What a layer costs beside reading and hashing, and beside tarfile."""
    found = interleaved(
        rounds,
        {
            "floor": timed(small.floor),
            "ours": timed(small.ours),
            "tarfile": timed(small.tarfile),
            "large_floor": timed(large.floor),
            "large_ours": timed(large.ours),
        },
    )
    return [
        Figure(NAME, "write 20,000 small files / read and hash", found["ours"] / found["floor"]),
        Figure(NAME, "write 20,000 small files / tarfile", found["ours"] / found["tarfile"]),
        Figure(
            NAME, "read and hash 20,000 small files / tarfile", found["floor"] / found["tarfile"]
        ),
        Figure(NAME, "write 200 MB / read and hash", found["large_ours"] / found["large_floor"]),
    ]


def unpacking(corpus: Corpus, place: str, name: str, rounds: int) -> Figure:
    """What unpacking costs beside `tar x`."""
    path = os.path.join(place, "layer.tar")
    with open(path, "wb", buffering=0) as out:
        index = corpus.ours(out)
    target = os.path.join(place, "target")

    def fresh(work: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            os.mkdir(target)
            taken = timed(work)()
            shutil.rmtree(target)
            return taken

        return measure

    def ours() -> None:
        with open(path, "rb") as blob:
            unpack(index, blob, target)

    def tar() -> None:
        subprocess.run(["tar", "-xpf", path, "-C", target], check=True)

    # What creating files costs swings widely: the least of each is compared.
    found = interleaved(rounds, {"tar": fresh(tar), "ours": fresh(ours)}, min)
    return Figure(NAME, f"unpack {name} / tar x", found["ours"] / found["tar"])


def reading(corpus: Corpus, place: str, rounds: int) -> list[Figure]:
    """What indexing a foreign layer costs beside reading and hashing, and a capture."""
    path = os.path.join(place, "layer.tar")
    with open(path, "wb", buffering=0) as out:
        index = corpus.ours(out)

    def content(_number: int, offset: int, size: int) -> io.BytesIO:
        raise AssertionError("nothing is read")

    def indexed() -> None:
        with open(path, "rb") as blob:
            index_layer(blob)

    def decoded() -> None:
        data = LayerIndex.decode(encoded)
        StateTree([data], content).lookup(data.paths[-1])

    def captured() -> None:
        capture_diff(corpus.root, StateTree([], content), LayerWriter(_Nowhere()))  # type: ignore[arg-type]

    encoded = index.encode()
    found = interleaved(
        rounds,
        {
            "floor": timed(corpus.floor),
            "indexed": timed(indexed),
            "decoded": timed(decoded),
            "captured": timed(captured),
        },
    )
    return [
        Figure(NAME, "index 20,000 entries / read and hash", found["indexed"] / found["floor"]),
        Figure(
            NAME, "index again from the cache / from the tar", found["decoded"] / found["indexed"]
        ),
        Figure(NAME, "capture 20,000 files / read and hash", found["captured"] / found["floor"]),
    ]


def measure_all(rounds: int) -> list[Figure]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="layercache-benchmark-") as place:
        small = Corpus(os.path.join(place, "small"), 20_000, 5500)
        large = Corpus(os.path.join(place, "large"), 1, 200 << 20)
        figures = writing(small, large, rounds) + reading(small, place, rounds)
        # In memory where there is such a place: on a disk, journal and allocator swing by ten.
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="layercache-benchmark-", dir=memory) as fast:
            figures.append(unpacking(small, fast, "20,000 small files", rounds))
            figures.append(unpacking(large, fast, "200 MB", rounds))
    return figures


def main() -> int:
    """Measure and print; the exit status tells whether every ratio is within its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    return report(measure_all(options.rounds), options.check)


if __name__ == "__main__":
    sys.exit(main())
