"""How a context's cost grows with its files: time by the fitted exponent, memory by the file.

    python -m benchmarks.scaling [--quick] [--check]

Directories of 100 small files, each looked at by a process of its own: the first time, with
every file to be read (cold), and again (warm). The exponent is the slope of a line through the
logarithms of CPU seconds, from 10,000 files on: below that the start of the process counts more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.contexts import CHECK
from benchmarks.figures import Figure, report

NAME = "scaling"

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_FITTED = 10_000


def make(root: str, files: int) -> None:
    """A tree of `files` files, 100 in each directory, all different."""
    for number in range(files // 100):
        here = os.path.join(root, f"d{number % 100}", f"package{number}")
        os.makedirs(here)
        for name in range(100):
            fd = os.open(f"{here}/some-file-{name}.js", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, b"%d %d\n" % (number, name))
            os.close(fd)
    time.sleep(0.1)


def look(root: str, cache: str) -> tuple[float, int]:
    """CPU seconds and peak bytes of one look at the context, in a new process."""
    words = [sys.executable, "-c", CHECK, root, cache, "1"]
    total, _, _, peak, _ = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return float(total), int(peak)


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """The power of its size that a cost grows with: 1 is linear."""
    fitted = [(math.log(n), math.log(cost)) for n, cost in points if n >= _FITTED]
    return statistics.linear_regression(*zip(*fitted, strict=True)).slope


def measure_all(rounds: int, sizes: Sequence[int] = SIZES) -> list[Figure]:
    """Seconds of each size, cold and warm; the exponents; memory of the largest."""
    figures = []
    costs: dict[str, list[tuple[int, float]]] = {"cold": [], "warm": []}
    for files in sizes:
        with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
            root, cache = os.path.join(place, "tree"), os.path.join(place, "cache")
            make(root, files)
            cold, peak = look(root, cache)
            warm = [look(root, cache) for _ in range(rounds)]
            shutil.rmtree(root)
        seconds = statistics.median(spent for spent, _ in warm)
        costs["cold"].append((files, cold))
        costs["warm"].append((files, seconds))
        figures.append(Figure(NAME, f"{files:,} files, first scan: CPU seconds", cold))
        figures.append(Figure(NAME, f"{files:,} files, nothing changed: CPU seconds", seconds))
    per_file = f"{sizes[-1]:,} files: peak bytes a file"
    figures.append(Figure(NAME, f"{per_file}, first scan", peak / sizes[-1]))
    figures.append(
        Figure(NAME, f"{per_file}, nothing changed", max(p for _, p in warm) / sizes[-1])
    )
    figures.append(Figure(NAME, "first scan: exponent", exponent(costs["cold"])))
    figures.append(Figure(NAME, "nothing changed: exponent", exponent(costs["warm"])))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 with `--check` when a figure is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--quick", action="store_true", help="up to 100,000 files")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(measure_all(3, SIZES[:-1] if options.quick else SIZES), options.check)


if __name__ == "__main__":
    sys.exit(main())
