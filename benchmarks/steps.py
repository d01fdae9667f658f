"""Builds that reuse everything, as whole commands, and the walk by itself.

    python -m benchmarks.steps [--rounds N] [--files N] [--check]

The command is `layercache build` over a Dockerfile of five steps (WORKDIR, COPY of the package
files, RUN, COPY of everything, RUN) whose context is the corpus of `benchmarks.contexts`; its CPU
seconds have the interpreter's start, all imports and the exit in them. Modules are compiled, as
those of an installed package are. Figures without a floor are absolute: their limits hold for
machines like those of the goals.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contexts import Bench
from benchmarks.figures import Figure, cpu, environment, interleaved, report

NAME = "steps"

COMMAND = "from layercache.cli import script; script()"

RECIPE = """\
FROM scratch
WORKDIR /app
COPY package*.json ./
RUN echo install > installed
COPY . .
RUN echo build > built
CMD ["./built"]
"""

WALK = """
import itertools, json, sys, time
from blake3 import blake3
from layercache.model import (
    LAYER_TAR, PARENT, SCRATCH, SOURCE, Base, ContextSource, CopyFiles, CopySource, Descriptor,
    Exec, Files, Graph, Input, Layer, Record, Step, cache_key
)
from layercache.solver import (
    AskExecute, AskFingerprint, AskLookup, AskSelectors, ContentKeys, Executed, Fingerprinted,
    Found, GraphWalker, Selectors
)

steps = int(sys.argv[1])
if len(sys.argv) > 2:
    import gc
    gc.disable()
path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
vertices, last = [Base("scratch", SCRATCH), ContextSource()], 0
for number in range(steps):
    inputs, name = [Input(PARENT, last)], f"f{number}"
    if number % 4:
        what = Exec(args=("/bin/sh", "-c", f"echo {number}"), env=(("PATH", path),))
    else:
        what = CopyFiles(sources=(CopySource(role=SOURCE, pattern=name),), destination="/app/")
        inputs.append(Input(SOURCE, 1, Files((name,))))
    vertices.append(Step(what, tuple(inputs)))
    last = len(vertices) - 1
graph = Graph(tuple(vertices), (last,))
records = {}

def drive():
    walk, numbers = GraphWalker().start(graph, ContentKeys()), itertools.count()
    while asks := walk.asks():
        for ask in asks:
            if isinstance(ask, AskLookup):
                walk.tell(Found({key: records.get(key) for key in ask.keys}))
            elif isinstance(ask, AskFingerprint):
                walk.tell(Fingerprinted(ask, "ab" * 32))
            elif isinstance(ask, AskExecute):
                digest = f"sha256:{next(numbers):064x}"
                layer = Layer(Descriptor(LAYER_TAR, digest, 10), digest)
                chain = ask.task.parent.chain_id
                made = Record(
                    key=ask.key, material=ask.material, layer=layer, parent=chain,
                    seconds=1.0, created=0.0,
                )
                records[ask.key] = made
                walk.tell(Executed(ask.key, made))
            else:
                walk.tell(Selectors(dict.fromkeys(ask.keys, ())))
    return walk

drive()
best = key = bare = 1e9
for _ in range(3):
    began = time.process_time()
    walk = drive()
    best = min(best, time.process_time() - began)
    materials = [decision.material for decision in walk.decisions()]
    del walk
    began = time.process_time()
    for material in materials:
        cache_key(material)
    key = min(key, time.process_time() - began)
    began = time.process_time()
    for _ in materials:
        blake3(bytes(600), derive_key_context="a context").hexdigest()
    bare = min(bare, time.process_time() - began)
print(json.dumps([best, key, bare]))
"""


class Project:
    """A context with its cache; the command over both."""

    def __init__(self, place: str, name: str, recipe: str) -> None:
        self.context = os.path.join(place, name)
        self.cache = os.path.join(place, f"{name}-store")
        os.makedirs(self.context, exist_ok=True)
        self.write("Dockerfile", recipe)

    def write(self, name: str, content: str | bytes) -> None:
        with open(os.path.join(self.context, name), "wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)

    def build(self) -> float:
        """CPU seconds of the command."""
        words = ["build", "--executor", "workspace", "--cache", self.cache, self.context]
        return cpu([sys.executable, "-c", COMMAND, *words])


def starting(rounds: int) -> list[Figure]:
    """What importing the package costs over a bare interpreter."""
    found = interleaved(
        max(rounds, 9),
        {
            "bare": lambda: cpu([sys.executable, "-c", "pass"]),
            "import": lambda: cpu([sys.executable, "-c", "import layercache"]),
        },
    )
    over = (found["import"] - found["bare"]) * 1000
    return [Figure(NAME, "import layercache: ms over a bare interpreter", over)]


def unchanged(place: str, files: int, rounds: int) -> list[Figure]:
    """The whole command where nothing changed, beside git."""
    bench = Bench(place, files)
    project = Project(place, os.path.basename(bench.root), RECIPE)
    project.write("package.json", "{}")
    add = bench.git_add()
    bench.git_commit()
    first = project.build()
    project.build()
    found = interleaved(rounds, {"command": project.build, "status": bench.git_status})
    shutil.rmtree(bench.root)
    shutil.rmtree(project.cache)
    what = f"{files:,} files, nothing changed: the command"
    return [
        Figure(NAME, f"{files:,} files, first build: the command / git add", first / add),
        Figure(NAME, f"{what} / git status", found["command"] / found["status"]),
        Figure(NAME, f"{what}: ms", found["command"] * 1000),
    ]


def many_steps(place: str, rounds: int) -> list[Figure]:
    """Hundreds of steps, COPY and RUN in turns, all reused."""
    projects = {}
    for steps in (100, 500):
        lines = ["FROM scratch", "WORKDIR /app"]
        for number in range(steps // 2):
            lines += [f"COPY f{number} ./", f"RUN echo {number}"]
        project = Project(place, f"steps-{steps}", "\n".join(lines[: steps + 1]) + "\n")
        for number in range(steps // 2):
            project.write(f"f{number}", str(number))
        project.build()
        project.build()
        projects[steps] = project
    found = interleaved(rounds, {str(steps): p.build for steps, p in projects.items()})
    further = (found["500"] - found["100"]) / 400
    return [
        Figure(NAME, "100 steps, all reused: ms of the command", found["100"] * 1000),
        Figure(NAME, "each further step, reused: ms", further * 1000),
    ]


def large_layers(place: str, rounds: int) -> list[Figure]:
    """A layer that is reused costs the same, whatever its size."""
    builds: dict[str, Callable[[], float]] = {}
    for size in (1, 256):
        project = Project(place, f"large-{size}", "FROM scratch\nCOPY blob /\nRUN true\n")
        project.write("blob", os.urandom(1 << 20) * size)
        project.build()
        project.build()
        builds[str(size)] = project.build
    found = interleaved(rounds, builds)
    return [Figure(NAME, "a layer of 256 MB / of 1 MB, reused", found["256"] / found["1"])]


def walking() -> list[Figure]:
    """Keys and walk over answers in memory, in processes of their own."""

    def walked(*words: str) -> list[float]:
        done = subprocess.run(
            [sys.executable, "-c", WALK, *words],
            check=True,
            capture_output=True,
            env=environment(),
        )
        found: list[float] = json.loads(done.stdout)
        return found

    taken = {steps: walked(str(steps)) for steps in (10_000, 100_000)}
    walk, key, bare = taken[10_000]
    uncollected = walked("10000", "no collector")[0]
    return [
        Figure(NAME, "10,000 steps, keys and walk over answers in memory: s", walk),
        Figure(NAME, "10,000 steps, the same without Python's cycle collector: s", uncollected),
        Figure(NAME, "100,000 steps / ten times 10,000 steps", taken[100_000][0] / walk / 10),
        Figure(NAME, "a key / BLAKE3 of its bytes", key / bare),
    ]


def measure_all(rounds: int, sizes: Sequence[int] = (10_000, 100_000)) -> list[Figure]:
    """All figures; those beside git are left out where it is missing."""
    figures = starting(rounds) + walking()
    with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
        figures += many_steps(place, rounds)
        figures += large_layers(place, rounds)
        if shutil.which("git") is None:
            print("steps: no comparison with git, which is missing")
            return figures
        for files in sizes:
            figures += unchanged(place, files, rounds)
            time.sleep(0.1)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 with `--check` when a figure is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, action="append", help="default: 10000 and 100000")
    parser.add_argument("--check", action="store_true")
    options: Any = parser.parse_args(arguments)
    figures = measure_all(options.rounds, options.files or (10_000, 100_000))
    return report(figures, options.check)


if __name__ == "__main__":
    sys.exit(main())
