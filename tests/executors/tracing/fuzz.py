"""Every hit by a trace is compared with a real run, unwatched, on the same files."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

from layercache.builds.result import BuildResult
from layercache.trees.in_memory import DictTree, file, link
from tests.executors.tracing.machines import Machine, snapshot
from tests.executors.tracing.scripts import Files, mutate, random_files, random_script

__all__ = ["Tally", "context", "differences", "fuzz", "recipe"]


@attrs.define
class Tally:
    """What a fuzz run did: hits by a trace, misses, records compared; `wrong` tells each fault."""

    hits: int = 0
    misses: int = 0
    recordings: int = 0
    refused: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)


def context(files: Files) -> DictTree:
    """The files as a build context."""
    found: dict[str, Any] = {}
    for path, value in files.items():
        if isinstance(value, tuple):
            kind, rest = value
            found[path] = link(rest) if kind == "link" else file(rest, int(kind, 8))
        else:
            found[path] = value
    return DictTree(found)


def recipe(script: str, *, touched: bool = False) -> str:
    """COPY the files to /w, run the script. The time of what is copied is a function of its
    content; `touched` gives all files one time before, so that only reading tells contents of
    one size apart."""
    touch = "RUN find /w -type f | xargs touch\n" if touched else ""
    return f"FROM base\nCOPY . /w\n{touch}RUN {script}\n"


def differences(one: BuildResult, other: BuildResult) -> list[str]:
    """Where two results differ: trees with times, and what the last step wrote."""
    mine, yours = snapshot(one.tree()), snapshot(other.tree())
    found = [
        f"/{path}: {mine.get(path)} and {yours.get(path)}"
        for path in sorted(mine.keys() | yours.keys())
        if mine.get(path) != yours.get(path)
    ]
    output, expected = (result.log(len(result.steps) - 1) for result in (one, other))
    if output != expected:
        found.append(f"output: {output!r} and {expected!r}")
    return found


def fuzz(
    traced: Machine,
    plain: Machine,
    seed: int,
    enough: Callable[[Tally], bool],
    *,
    compare_recordings: bool = True,
) -> Tally:
    """Scripts on random trees with random changes, until `enough`."""
    chance = random.Random(seed)
    tally = Tally()
    while not enough(tally):
        files, script = random_files(chance), random_script(chance)
        text = recipe(script, touched=chance.random() < 0.5)
        first = traced.build(text, context(files), trace="auto")
        if reason := traced.refusal(first):
            tally.refused.append(f"{reason}: {script}")
        if compare_recordings:
            tally.recordings += 1
            _compare(tally, first, plain, files, text, "recorded")
        for _ in range(3):
            changed = mutate(chance, files)
            again = traced.build(text, context(changed), trace="auto")
            run = again.steps[-1]
            if run.evidence == "trace":
                tally.hits += 1
                _compare(tally, again, plain, changed, text, f"reused from {files!r} for")
            elif run.decision == "miss":
                tally.misses += 1
    return tally


def _compare(
    tally: Tally, result: BuildResult, plain: Machine, files: Files, text: str, how: str
) -> None:
    clean = plain.build(text, context(files), no_cache=lambda origin: origin.op == "RUN")
    if found := differences(result, clean):
        shown = "\n  ".join(found[:5])
        tally.wrong.append(f"{text}\n{how} {files!r}:\n  {shown}")
