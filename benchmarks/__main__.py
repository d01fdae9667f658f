"""All benchmarks in one run, with the machine that they ran on.

    python -m benchmarks [--check] [--quick] [--rounds N] [--write FILE] [--tools DIR] [NAME...]

NAME is one or more of counts, contexts, scaling, steps, archives, store, rootfs, writes, peers
(all by default) and tracing, which needs `--root` (see `benchmarks.tracing`). Every figure is
printed with its limit from `floors.toml`; with `--check` the exit status is 1 when one is above it.
`--quick` leaves the largest corpora out. `--tools` names a directory of other
tools' programs, for peers. `--write` puts the tables between the markers in FILE, a page of the
documentation.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import Figure

BEGIN = "<!-- figures: begin -->"
END = "<!-- figures: end -->"

NAMES = (
    "counts", "contexts", "scaling", "steps", "archives", "store", "rootfs", "writes", "peers",
    "tracing",
)  # fmt: skip


def machine(tools: str | None = None) -> list[str]:
    """What the figures were measured on, in lines."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as source:
            model = next(
                (line.partition(":")[2].strip() for line in source if "model name" in line), model
            )
    except OSError:
        pass
    from benchmarks.peers import versions

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("attrs", "blake3", "fsspec")),
        ", ".join(filter(None, (_tool(["git", "--version"]), _tool(["tar", "--version"])))),
        f"found beside it: {versions(tools) or 'no other tool'}",
        f"load averages at the end (1, 5, 15 minutes): {load}",
    ]


def _tool(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.partition("\n")[0]


def benchmark(
    name: str, rounds: int | None, quick: bool, root: str | None, tools: str | None
) -> list[Figure]:
    """The figures of one benchmark."""
    from benchmarks import archives, contexts, counts, peers, rootfs, scaling, steps, store, writes

    sizes = (10_000,) if quick else (10_000, 100_000)
    if name == "tracing":
        if root is None:
            print("tracing: skipped, needs --root with a Debian root directory")
            return []
        from benchmarks import tracing

        return tracing.measure_all(Path(root), rounds or 3)
    runs: dict[str, Callable[[], list[Figure]]] = {
        "counts": counts.measure_all,
        "contexts": lambda: contexts.measure_all(rounds or 5, sizes),
        "scaling": lambda: scaling.measure_all(rounds or 3, scaling.SIZES[: 3 if quick else None]),
        "steps": lambda: steps.measure_all(rounds or 7, sizes),
        "archives": lambda: archives.measure_all(rounds or 5),
        "store": lambda: store.measure_all(rounds or 7),
        "rootfs": lambda: rootfs.measure_all(rounds or 15),
        "writes": lambda: writes.measure_all(rounds or 5),
        "peers": lambda: peers.measure_all(rounds or 3, tools=tools),
    }
    return runs[name]()


def tables(figures: Sequence[Figure], about: Sequence[str]) -> str:
    """The figures as Markdown."""
    lines = [f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())}:", ""]
    lines += [f"* {line}" for line in about if line]
    for name in NAMES:
        rows = [figure for figure in figures if figure.benchmark == name]
        if not rows:
            continue
        lines += [
            "",
            f"### {name}",
            "",
            "| figure | measured | goal: at most | |",
            "|---|---|---|---|",
        ]
        for figure in rows:
            limit = "" if figure.limit is None else f"{figure.limit:g}"
            missed = "" if figure.ok else "missed"
            lines.append(f"| {figure.name} | {figure.shown} | {limit} | {missed} |")
    return "\n".join(lines)


def write(path: str, text: str) -> None:
    """Put `text` between the markers in the file at `path`."""
    with open(path, encoding="utf-8") as source:
        page = source.read()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} lacks the markers {BEGIN} and {END}")
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, help="of each comparison; a fitting number each")
    parser.add_argument("--quick", action="store_true", help="without the largest corpora")
    parser.add_argument("--root", help="a Debian root directory, for tracing")
    parser.add_argument("--tools", help="a directory of other tools' programs, for peers")
    parser.add_argument("--check", action="store_true", help="1 when a figure is above its limit")
    parser.add_argument("--write", metavar="FILE", help="put the tables into this page")
    options = parser.parse_args(arguments)
    if wrong := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(wrong))}")
    figures: list[Figure] = []
    for name in options.names or NAMES:
        print(f"{name}:", flush=True)
        found = benchmark(name, options.rounds, options.quick, options.root, options.tools)
        for figure in found:
            print(f"  {figure}", flush=True)
        figures += found
    about = machine(options.tools)
    print(*about, sep="\n")
    if options.write:
        write(options.write, tables(figures, about))
    missed = [figure for figure in figures if not figure.ok]
    print(f"{len(figures)} figures, {len(missed)} above their limits")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
