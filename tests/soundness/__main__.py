"""Run histories on and on, and count them: `python -m tests.soundness KIND --seconds 60`.

Goes on with the seed after the last counted one, and adds what held to `counts.json` beside this
file, with the version and a digest of the sources that were tried. A lie ends it, with the seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from blake3 import blake3

import layercache
from layercache._version import __version__
from tests.soundness.histories import KINDS, Tally

COUNTS = Path(__file__).parent / "counts.json"


def sources() -> str:
    """A digest of the library's own code, the same wherever it lies."""
    root = Path(layercache.__file__).parent
    hasher = blake3()
    for path in sorted(root.rglob("*.py")):
        hasher.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return hasher.hexdigest()[:16]


def next_seed(rows: list[dict[str, Any]], kind: str) -> int:
    """The first seed of a kind that is not counted yet."""
    return max((row["seeds"][1] + 1 for row in rows if row["kind"] == kind), default=1)


def run(kind: str, seed: int, seconds: float, most: int) -> tuple[Tally, int]:
    """Histories of `kind` from `seed` on; what they did, and the last seed."""
    total, until, first = Tally(), time.monotonic() + seconds, seed
    while seed < first + most and (seed == first or time.monotonic() < until):
        try:
            total.add(KINDS[kind](seed))
        except Exception as error:
            raise SystemExit(f"{kind}, seed {seed}: {type(error).__name__}: {error}") from error
        seed += 1
    return total, seed - 1


def counted(
    rows: list[dict[str, Any]], kind: str, code: str, first: int, last: int, total: Tally
) -> None:
    """Add to the row of this kind and code that the seeds continue, or begin one."""
    told = {name: getattr(total, name) for name in ("histories", "builds", "hits", "misses")}
    what = {name: count for name, count in told.items() if count}
    for row in rows:
        if (row["kind"], row["sources"]) == (kind, code) and row["seeds"][1] + 1 == first:
            row["seeds"][1] = last
            for name, count in what.items():
                row[name] = row.get(name, 0) + count
            return
    row = {"kind": kind, "version": __version__, "sources": code, "seeds": [first, last]}
    rows.append(row | what)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soundness", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=1_000_000, help="histories at most")
    parser.add_argument("--counts", type=Path, default=COUNTS, help="the file to count in")
    options = parser.parse_args()
    rows = json.loads(options.counts.read_text()) if options.counts.exists() else []
    first = next_seed(rows, options.kind)
    total, last = run(options.kind, first, options.seconds, options.count)
    counted(rows, options.kind, sources(), first, last, total)
    options.counts.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{options.kind} histories: {total.histories} run, seeds {first} to {last}")
    print(f"of this kind in all: {sum(r['histories'] for r in rows if r['kind'] == options.kind)}")


if __name__ == "__main__":
    main()
