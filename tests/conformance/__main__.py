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
from typing import Any

from .running import Outcome, run_scenario

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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("directory", nargs="?", default=os.path.join(HERE, "scenarios"))
    parser.add_argument("ids", nargs="*", help="only these scenarios")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    stale, unscored = verdicts(options.directory)
    meant = deviations()
    passed = better = deviated = skipped = failed = 0
    for scenario in load(options.directory):
        name = scenario["id"]
        if options.ids and name not in options.ids:
            continue
        if name in unscored:
            skipped += 1
            continue
        try:
            outcome = run_scenario(scenario, name in stale or name in meant)
        except Exception as error:  # noqa: BLE001  (one broken scenario must not hide the rest)
            outcome = Outcome(name, [f"{type(error).__name__}: {error}"])
            if options.verbose:
                import traceback

                traceback.print_exc()
        if outcome.skipped:
            skipped += 1
        elif outcome.differences:
            failed += 1
            print(f"{name}: " + "; ".join(outcome.differences), flush=True)
        elif name in meant:
            deviated += 1
            print(f"{name}: deviates: {meant[name]}", flush=True)
        else:
            passed += 1
            better += bool(outcome.better)
    print(
        f"{passed} passed ({better} better), {deviated} deviated, {skipped} skipped, "
        f"{failed} failed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
