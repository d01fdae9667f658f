"""`python -m tests.conformance [DIR] [ID…]`: every scenario of DIR against what was observed.

Prints a line for each scenario that differs and ends with the counts; exit status 1 when one
failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .running import run_scenario

HERE = os.path.dirname(os.path.abspath(__file__))


def load(directory: str) -> list[dict[str, Any]]:
    """The scenarios of a folder, by name."""
    inner = os.path.join(directory, "scenarios")
    place = inner if os.path.isdir(inner) else directory
    found = []
    for name in sorted(os.listdir(place)):
        if name.endswith(".json"):
            with open(os.path.join(place, name), encoding="utf-8") as content:
                value = json.load(content)
            if isinstance(value, dict) and "builds" in value:
                found.append(value)
    return found


def verdicts(directory: str) -> tuple[dict[str, str], dict[str, str]]:
    """Where BuildKit was seen stale, and what is not scored: of DIR, else our own."""
    for place in (directory, os.path.dirname(os.path.abspath(directory)), HERE):
        path = os.path.join(place, "verdicts.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as content:
                value = json.load(content)
            return value["stale"], value["unscored"]
    return {}, {}


def deviations() -> dict[str, str]:
    """Scenarios in which we differ on purpose, with the reason."""
    with open(os.path.join(HERE, "deviations.toml"), "rb") as content:
        return {str(k): str(v) for k, v in tomllib.load(content).get("deviations", {}).items()}


class Judge:
    """Runs scenarios of a folder and says how each went."""

    def __init__(self, directory: str) -> None:
        self.stale, self.unscored = verdicts(directory)
        self.meant = deviations()

    def run(self, scenario: Mapping[str, Any]) -> tuple[str, str]:
        """What became of one scenario, a word of `KINDS`, and what there is to say of it."""
        name = scenario["id"]
        if name in self.unscored:
            return "skipped", ""
        outcome = run_scenario(scenario, name in self.stale or name in self.meant)
        if outcome.skipped:
            return "skipped", ""
        if outcome.differences:
            return "failed", f"{name}: " + "; ".join(outcome.differences)
        if name in self.meant:
            return "deviated", f"{name}: deviates: {self.meant[name]}"
        return ("better" if outcome.better else "passed"), ""


KINDS = ("passed", "better", "deviated", "skipped", "failed")


def closing_line(counts: Mapping[str, int]) -> str:
    """The counts of a run; what is better has passed, too."""
    passed, better, deviated, skipped, failed = (counts.get(kind, 0) for kind in KINDS)
    return (
        f"{passed + better} passed ({better} better), {deviated} deviated, {skipped} skipped, "
        f"{failed} failed"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("directory", nargs="?", default=os.path.join(HERE, "scenarios"))
    parser.add_argument("ids", nargs="*", help="only these scenarios")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    judge = Judge(options.directory)
    counts: Counter[str] = Counter()
    for scenario in load(options.directory):
        if options.ids and scenario["id"] not in options.ids:
            continue
        try:
            kind, line = judge.run(scenario)
        except Exception as error:  # noqa: BLE001  (one broken scenario must not hide the rest)
            kind, line = "failed", f"{scenario['id']}: {type(error).__name__}: {error}"
            if options.verbose:
                import traceback

                traceback.print_exc()
        counts[kind] += 1
        if line:
            print(line, flush=True)
    print(closing_line(counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
