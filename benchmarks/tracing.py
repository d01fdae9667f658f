"""What watching commands costs, and what it saves on a project with the worst order.

    python -m benchmarks.tracing --root DIR [--rounds N] [--check] [overhead] [project]

DIR is a Debian root with python3, pip, gcc, make, node and npm, as this makes it:

    debootstrap --variant=minbase --include=python3,python3-pip,gcc,make,libc6-dev bookworm DIR
    chroot DIR apt-get install -y --no-install-recommends nodejs npm

*overhead*: each kind of step watched and unwatched in turn, processor seconds of everything, the
tracer and the capture included, as a ratio of medians. *project*: `COPY . .` first, five RUN
steps after it; for each kind of edit the seconds of a rebuild with `trace="auto"` beside those of
the ordinary cascade (`trace="off"`, every step after the COPY runs), and whether the trees are
equal but for the files that differ between any two runs of apt; where a Docker daemon answers,
BuildKit rebuilds beside it. All inputs are made on the spot,
so no network is used. With `--check` the exit status is 1 when a limit is missed. Needs root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.buildkit import (
    BASE,
    ENVIRONMENT,
    build_command,
    import_base,
    remove_base,
)
from benchmarks.figures import Figure, own_cpu, report
from benchmarks.projects import STEPS, UNSTEADY, make_project
from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult
from layercache.executors.rootfs import RootfsExecutor
from layercache.executors.rootfs import tracer_client as tracing
from layercache.store.open import open_store
from layercache.testing.images import make_layout

NAME = "tracing"

SCAN = "whole tree"

PARTS = ("overhead", "project")


# -- building -----------------------------------------------------------------------------------


class Bench:
    """One machine with a Debian base image."""

    def __init__(self, directory: Path, layout: Path) -> None:
        self.directory = directory
        self.layout = layout
        self.executor = RootfsExecutor(directory / "rootfs")
        self.builder = Builder(
            open_store(str(directory / "cache"), durability="none"), executor=self.executor, jobs=1
        )

    def build(self, text: str, context: Path, **options: Any) -> BuildResult:
        return self.builder.build(
            Dockerfile.parse(text),
            context=str(context),
            contexts={"debian": f"oci-layout://{self.layout}"},
            **options,
        )

    def close(self) -> None:
        self.builder.store.commit()
        self.executor.close()
        self.builder.store.close()


def make_base(root: Path, target: Path) -> None:
    """An OCI layout of a root directory."""
    command = ["tar", "--sort=name", "--numeric-owner", "--one-file-system", "-C", str(root)]
    command += ["--exclude=./var/cache/apt/archives/*.deb", "-c", "."]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    make_layout(target, [made], {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})


# -- overhead -----------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Processor and wall seconds of a step."""

    cpu: float
    wall: float


def overhead(bench: Bench, context: Path, rounds: int) -> list[Figure]:
    """Each step watched and unwatched, in turn."""
    steps = {**STEPS, "500 processes": "for n in $(seq 500); do /bin/true; done"}
    steps["compileall"] = "python3 -m compileall -q /usr/lib/python3 -d x -o 2 >/dev/null 2>&1"
    steps[SCAN] = "find / -xdev -type f -print0 | xargs -0 cat > /dev/null 2>&1; true"
    watched: list[float] = []
    end = tracing.Watch.end

    def noted(self: tracing.Watch) -> Any:
        found = end(self)
        watched.append(self.cpu)
        return found

    tracing.Watch.end = noted  # type: ignore[method-assign]
    print(f"{'step':<16}{'CPU s':>8}{'traced':>8}{'ratio':>7}{'wall':>7}{'seen':>8}")
    total = [0.0, 0.0]
    figures = []
    for name, command in steps.items():
        text = f"FROM debian\nWORKDIR /app\nCOPY . .\nRUN {command}\n"
        costs: dict[str, list[Cost]] = {"off": [], "auto": []}
        for number in range(rounds + 1):
            for mode in ("off", "auto"):
                watched.clear()
                found = _measure(bench, text, context, mode)
                if number:  # the first round unpacks and warms up
                    costs[mode].append(Cost(found.cpu + sum(watched), found.wall))
        plain, traced = (_median(costs[mode]) for mode in ("off", "auto"))
        ratio = traced.cpu / plain.cpu
        seen = _seen(bench)
        print(
            f"{name:<16}{plain.cpu:>8.2f}{traced.cpu:>8.2f}{ratio:>7.2f}"
            f"{traced.wall / plain.wall:>7.2f}{seen:>8}",
            flush=True,
        )
        figures.append(Figure(NAME, f"{name}: watched / unwatched", ratio))
        if name != SCAN:
            total[0] += plain.cpu
            total[1] += traced.cpu
    mix = total[1] / total[0]
    print(f"{'mix':<16}{total[0]:>8.2f}{total[1]:>8.2f}{mix:>7.2f}   (but for {SCAN})")
    tracing.Watch.end = end  # type: ignore[method-assign]
    return [*figures, Figure(NAME, f"all but {SCAN}: watched / unwatched", mix)]


def _measure(bench: Bench, text: str, context: Path, mode: str) -> Cost:
    """One execution of the last step. The helper process is ended, so that what its children
    used is counted."""
    bench.executor.close()
    before = own_cpu()
    started = time.monotonic()
    result = bench.build(text, context, trace=mode, no_cache=lambda o: o.op == "RUN")
    wall = time.monotonic() - started
    bench.executor.close()
    if result.steps[-1].untraced:
        raise SystemExit(f"not traced: {result.steps[-1].untraced}")
    return Cost(own_cpu() - before, wall)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(c.cpu for c in costs), statistics.median(c.wall for c in costs))


def _seen(bench: Bench) -> int:
    """How many observations the newest set has."""
    places = sorted(
        Path(bench.directory, "cache", "selectors").glob("*"), key=lambda p: p.stat().st_mtime_ns
    )
    if not places:
        return 0
    known = bench.builder.store
    from layercache.store.selectors_seen import KnownSelectors

    selectors = KnownSelectors(known.derived, known.blobs)
    found = selectors.get(places[-1].name)  # type: ignore[arg-type]
    return len(selectors.observations(found.candidates[0].selector)) if found.candidates else 0


# -- a project with the worst order -------------------------------------------------------------

PROJECT = "FROM debian\nWORKDIR /app\nCOPY . .\n" + "".join(f"RUN {c}\n" for c in STEPS.values())

EDITS: dict[str, Callable[[Path, int], object]] = {
    "README": lambda root, n: (root / "README.md").write_text(f"read me {n}\n"),
    "a new file at the top": lambda root, n: (root / f"NOTES{n}.md").write_text("notes\n"),
    "a Python source": lambda root, n: (root / "src" / "m7.py").write_text(f"x = {n}\n"),
    "a C source": lambda root, n: (root / "native" / "m3.c").write_text(f"int g{n};\n"),
    "requirements.txt": lambda root, n: (root / "requirements.txt").write_text(f"pkg{n}==1.0\n"),
    "package.json": lambda root, n: (root / "package.json").write_text(
        (root / "package.json").read_text() + "\n" * (n + 1)
    ),
}
"""Each with the number of the round, so that no round repeats another."""


def build_with_buildkit(context: Path) -> float | None:
    """Wall seconds of a build of `PROJECT` by BuildKit; None where there is none."""
    recipe = context.parent / "Dockerfile.buildkit"
    recipe.write_text(PROJECT.replace("FROM debian", f"FROM {BASE}"))
    command = build_command(str(context), "-f", str(recipe))
    if command is None:
        return None
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | ENVIRONMENT)
    return time.monotonic() - started


def project(traced: Bench, cascade: Bench, root: Path, context: Path, rounds: int) -> list[Figure]:
    """Seconds of a rebuild for each kind of edit, with traces, without, and by BuildKit."""
    if build_command(".") is None:
        print("tracing: no BuildKit beside it, no Docker daemon answers")
    else:
        import_base(root)
        print(f"first build, BuildKit: {build_with_buildkit(context):.1f} s")
    started = time.monotonic()
    traced.build(PROJECT, context, trace="auto")
    print(f"first build, watched: {time.monotonic() - started:.1f} s")
    started = time.monotonic()
    cascade.build(PROJECT, context)
    print(f"first build, unwatched: {time.monotonic() - started:.1f} s")
    print(f"{'edit':<24}{'traced':>8}{'cascade':>9}{'times':>7}{'BuildKit':>9}  run again")
    figures = []
    wrong = 0
    for name, edit in EDITS.items():
        spent: list[tuple[float, float]] = []
        others: list[float] = []
        for number in range(rounds):
            changed = context.parent / f"edited-{number}"
            shutil.rmtree(changed, ignore_errors=True)
            shutil.copytree(context, changed)
            (changed / "LICENSE").write_text(f"{name} {number}\n")  # so that each round is new
            edit(changed, number)
            found = []
            results = []
            for bench, mode in ((traced, "auto"), (cascade, "off")):
                started = time.monotonic()
                results.append(bench.build(PROJECT, changed, trace=mode))
                found.append(time.monotonic() - started)
            spent.append((found[0], found[1]))
            if (other := build_with_buildkit(changed)) is not None:
                others.append(other)
            again, full = results
            if different := _different(again, full):
                print(f"WRONG after {name}: {different[:5]}")
                wrong += 1
        fast, slow = (statistics.median(f[n] for f in spent) for n in (0, 1))
        ran = [
            kind
            for kind, step in zip(STEPS, again.steps[-len(STEPS) :], strict=True)
            if step.decision == "miss"
        ]
        print(
            f"{name:<24}{fast:>8.2f}{slow:>9.2f}{slow / fast:>7.1f}"
            f"{statistics.median(others) if others else 0:>9.2f}  {', '.join(ran) or 'nothing'}",
            flush=True,
        )
        again_text = ", ".join(ran) or "nothing"
        figures += [
            Figure(NAME, f"edit of {name} ({again_text} runs again): seconds, traced", fast),
            Figure(NAME, f"edit of {name}: seconds, every step after COPY", slow),
        ]
        if others:
            figures.append(
                Figure(NAME, f"edit of {name}: seconds, BuildKit", statistics.median(others))
            )
    remove_base()
    return [*figures, Figure(NAME, "rebuilds with another tree than without traces", wrong)]


def _different(one: BuildResult, other: BuildResult) -> list[str]:
    """The paths at which two results differ, but for logs and caches."""
    trees = one.tree(), other.tree()
    found = []
    pending = [b""]
    while pending:
        path = pending.pop()
        names = [set(tree.children(path)) for tree in trees]
        for name in names[0] | names[1]:
            child = path + b"/" + name if path else name
            text = "/" + os.fsdecode(child)
            if text.startswith(UNSTEADY):
                continue
            nodes = [tree.lookup(child) for tree in trees]
            if nodes[0] != nodes[1]:
                found.append(text)
            elif nodes[0] is not None and nodes[0].is_dir:
                pending.append(child)
    return found


def measure_all(root: Path, rounds: int, wanted: Sequence[str] = PARTS) -> list[Figure]:
    """All figures, or those of the parts that are wanted."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        make_project(place / "project")
        make_base(root, place / "base")
        benches = [Bench(place / name, place / "base") for name in ("one", "two")]
        try:
            if "overhead" in wanted:
                figures += overhead(benches[0], place / "project", rounds)
            if "project" in wanted:
                figures += project(benches[0], benches[1], root, place / "project", rounds)
        finally:
            for bench in benches:
                bench.close()
    return figures


def main() -> int:
    """Print the tables; 1 with `--check` when a figure is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing")
    parser.add_argument("--root", type=Path, required=True, help="a Debian root directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("what", nargs="*", choices=[*PARTS, []], default=[])
    options = parser.parse_args()
    figures = measure_all(options.root, options.rounds, options.what or PARTS)
    return report(figures, options.check)


if __name__ == "__main__":
    sys.exit(main())
