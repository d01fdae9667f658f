"""What a build asks of the system, counted call by call; these figures know no noise.

    python -m benchmarks.counts [--files N] [--check]

Whole commands (interpreter and imports included) under strace, over the corpus of
`benchmarks.contexts` and the recipe of `benchmarks.steps`. Bytes and opened files are those of
the context without the recipe's own; stats, listings and syncs are all that the command makes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.contexts import generate
from benchmarks.figures import Figure, environment, report
from benchmarks.steps import COMMAND, RECIPE, Project

NAME = "counts"

STATS = ("stat", "lstat", "fstat", "newfstatat", "statx")
LISTINGS = ("getdents", "getdents64")
READS = ("read", "readv", "pread64", "preadv")
SYNCS = ("fsync", "fdatasync", "sync", "syncfs")

_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((?:\d+<([^>]*)>)?(.*)\) += (\d+)(?:<([^>]*)>)?")


class Counts(NamedTuple):
    """What one command asked."""

    opened: int
    bytes_read: int
    stats: int
    listings: int
    syncs: int
    below: int
    """Calls that open or list the directory `ignored`, or name something below it."""


def counted(project: Project, command: str = "build") -> Counts:
    """Run the command over a project and count."""
    words = [command, "--executor", "workspace", "--cache", project.cache, project.context]
    log = project.cache + ".strace"
    calls = ",".join(f"?{name}" for name in (*STATS, *LISTINGS, *READS, *SYNCS, "open", "openat"))
    subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-qq",
            "-s",
            "0",
            "-o",
            log,
            "-e",
            f"trace={calls},%file",
            sys.executable,
            "-c",
            COMMAND,
            *words,
        ],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    opened, read = set(), 0
    kinds: dict[str, int] = {}
    below = 0
    prefix = project.context + os.sep
    recipe = (prefix + "Dockerfile", prefix + ".dockerignore")
    with open(log, errors="replace") as lines:
        for line in lines:
            below += f"{prefix}ignored/" in line or f"{prefix}ignored>" in line
            found = _CALL.match(line)
            if found is None:
                continue
            name, place, _, value, result = found.groups()
            kinds[name] = kinds.get(name, 0) + 1
            if name in ("open", "openat") and result and result.startswith(prefix):
                if not os.path.isdir(result) and not result.startswith(recipe):
                    opened.add(result)
            elif name in READS and place and place.startswith(prefix):
                read += 0 if place.startswith(recipe) else int(value)
    os.unlink(log)

    def total(names: Sequence[str]) -> int:
        return sum(kinds.get(name, 0) for name in names)

    return Counts(len(opened), read, total(STATS), total(LISTINGS), total(SYNCS), below)


def measure_all(files: int = 10_000) -> list[Figure]:
    """All figures; none where strace is missing."""
    if shutil.which("strace") is None:
        print("counts: skipped, needs strace")
        return []
    figures: list[Figure] = []

    def add(what: str, value: float) -> None:
        figures.append(Figure(NAME, what, value))

    with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
        place = os.path.realpath(place)
        project = Project(place, "corpus", RECIPE)
        generate(project.context, files)
        generate(os.path.join(project.context, "ignored"), 100)
        project.write("package.json", "{}")
        project.write(".dockerignore", "ignored\n")
        size = sum(
            os.path.getsize(os.path.join(where, name))
            for where, _, names in os.walk(project.context)
            for name in names
            if not os.path.relpath(where, project.context).startswith("ignored")
        )
        time.sleep(0.1)
        found = counted(project)
        add("first build: context bytes read / their size", found.bytes_read / size)
        add("first build: syncs", found.syncs)
        add("first build: calls below an ignored directory", found.below)
        project.build()
        found = counted(project)
        add("nothing changed: files of the context opened", found.opened)
        add("nothing changed: bytes of them read", found.bytes_read)
        add("nothing changed: stat calls a file", found.stats / files)
        add("nothing changed: listings (of modules)", found.listings)
        add("nothing changed: syncs", found.syncs)
        add("nothing changed: calls below an ignored directory", found.below)
        path = os.path.join(project.context, "package.json")
        project.write("package.json", '{"name": "edited"}')
        time.sleep(0.1)
        found = counted(project, "plan")
        add("one file changed, decided: files of the context opened", found.opened)
        add(
            "one file changed, decided: bytes read / its size",
            found.bytes_read / os.path.getsize(path),
        )
        found = counted(project)
        add("one file changed, built: syncs", found.syncs)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 with `--check` when a figure is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(measure_all(options.files), options.check)


if __name__ == "__main__":
    sys.exit(main())
