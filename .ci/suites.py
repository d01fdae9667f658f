"""Run the suites of tests/ one after another and print what each took.

Every folder of tests/ is a suite, and so are the test files directly in tests/ together.
`.ci/suites.toml` says how each is run, how many randomised cases each test must have run (a test
prints `N run, seed S`; where it prints past pytest's capture, `LABEL: N run, seed S`), and which
skips are allowed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
TIMEOUT = 600.0
"""Seconds that a suite may take, unless it says otherwise."""
CASES = re.compile(r"\b([0-9][0-9,_]*) run(?=,| \{|$)", re.MULTILINE)
UNCAPTURED = re.compile(r"^[.sxFE]*([a-z][\w ,.]*): ([0-9][0-9,_]*) run(?=,| \{|$)", re.MULTILINE)


@dataclass
class Outcome:
    """What one suite did."""

    name: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skips: list[tuple[str, str]] = field(default_factory=list)
    cases: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def suites() -> dict[str, list[str]]:
    """Suite -> what pytest is given, in order of names; folders without tests are left out."""
    found = {}
    for folder in sorted(path for path in TESTS.iterdir() if path.is_dir()):
        if any(folder.rglob("test_*.py")):
            found[folder.name] = [str(folder.relative_to(ROOT))]
    alone = sorted(str(path.relative_to(ROOT)) for path in TESTS.glob("test_*.py"))
    if alone:
        found["project"] = alone
    return found


def run(name: str, paths: list[str], options: dict[str, Any]) -> Outcome:
    """Run one suite in a process of its own and read its results."""
    outcome = Outcome(name)
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch, "results.xml")
        command = [
            sys.executable, "-m", "pytest", *paths, "-q", "-p", "no:cacheprovider",
            f"--junitxml={results}", "-o", "junit_logging=system-out",
            "-o", "junit_log_passing_tests=true", "-o", "faulthandler_timeout=300",
        ]  # fmt: skip
        if options.get("workers", 1) > 1:
            command += ["-n", str(options["workers"])]
        started = time.monotonic()
        said = run_within(command, options.get("timeout", TIMEOUT), outcome)
        outcome.seconds = time.monotonic() - started
        if results.exists():
            read_results(results, outcome)
        for label, count in UNCAPTURED.findall(said):
            outcome.cases[label] += number(count)
    return outcome


def run_within(command: list[str], timeout: float, outcome: Outcome) -> str:
    """Run a command, show and return what it says; one that takes longer is ended, with all that
    it started."""
    said: list[bytes] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        reader = threading.Thread(target=show, args=(process, said), daemon=True)
        reader.start()
        try:
            status = process.wait(timeout)
            if status:
                outcome.faults.append(f"pytest ended with {status}")
        except subprocess.TimeoutExpired:
            outcome.faults.append(f"took longer than {timeout:g} s and was ended")
        finally:
            with suppress(ProcessLookupError):  # also what a suite left running holds the pipe
                os.killpg(process.pid, signal.SIGKILL)
        reader.join(10)
    return b"".join(said).decode("utf-8", "replace")


def show(process: subprocess.Popen[bytes], said: list[bytes]) -> None:
    """Pass on what a process says, as it comes."""
    assert process.stdout is not None
    while chunk := os.read(process.stdout.fileno(), 1 << 16):
        said.append(chunk)
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def number(text: str) -> int:
    """A number with marks between its thousands, or without."""
    return int(re.sub("[,_]", "", text))


def read_results(results: Path, outcome: Outcome) -> None:
    """Count what passed, was skipped, and how many randomised cases each test ran."""
    for case in ElementTree.parse(results).iter("testcase"):
        name = case.get("name", "").partition("[")[0]
        skipped = case.find("skipped")
        if skipped is not None:
            outcome.skips.append((name, skipped.get("message") or "without a reason"))
        elif case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        else:
            outcome.passed += 1
        for text in case.iter("system-out"):
            for count in CASES.findall(text.text or ""):
                outcome.cases[name] += number(count)


def check(outcome: Outcome, options: dict[str, Any], allowed: list[dict[str, str]]) -> list[str]:
    """The skips that are on no list; missing cases are added to the outcome's faults."""
    skipped = {name for name, _ in outcome.skips}
    for test, wanted in options.get("cases", {}).items():
        if outcome.cases[test] < wanted and test not in skipped:
            outcome.faults.append(f"{test} ran {outcome.cases[test]} of {wanted} cases")
    return [
        f"{outcome.name}: {name}: {reason}"
        for name, reason in outcome.skips
        if not any(
            entry.get("suite") in {None, outcome.name} and re.search(entry["reason"], reason)
            for entry in allowed
        )
    ]


def table(outcomes: list[Outcome]) -> str:
    """Seconds, tests and cases of each suite."""
    lines = [f"{'suite':<14}{'seconds':>9}{'passed':>8}{'skipped':>9}{'failed':>8}{'cases':>12}"]
    for one in outcomes:
        lines.append(
            f"{one.name:<14}{one.seconds:>9.1f}{one.passed:>8}{len(one.skips):>9}"
            f"{one.failed:>8}{sum(one.cases.values()):>12,}"
        )
    total = sum(one.seconds for one in outcomes)
    lines.append(
        f"{'all':<14}{total:>9.1f}{sum(one.passed for one in outcomes):>8}"
        f"{sum(len(one.skips) for one in outcomes):>9}{sum(one.failed for one in outcomes):>8}"
        f"{sum(sum(one.cases.values()) for one in outcomes):>12,}"
    )
    return "\n".join(lines)


def main() -> int:
    """Exit status 0 when every suite passed and ran what it states."""
    known = suites()
    settings = tomllib.loads((ROOT / ".ci" / "suites.toml").read_text(encoding="utf-8"))
    described: dict[str, dict[str, Any]] = settings.get("suites", {})
    parser = argparse.ArgumentParser(prog=".ci/test")
    parser.add_argument("--strict", action="store_true", help="refuse skips that are on no list")
    parser.add_argument("--core", action="store_true", help="only the portable, quick suites")
    parser.add_argument("--list", action="store_true", help="name the suites and stop")
    parser.add_argument("--cases", action="store_true", help="print the numbers for suites.toml")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(known))
    options = parser.parse_args()
    if unknown := [name for name in options.suites if name not in known]:
        parser.error(f"no such suite: {', '.join(unknown)} (there are {', '.join(known)})")
    if options.list:
        print("\n".join(known))
        return 0
    wanted = options.suites or [
        name for name in known if not options.core or described.get(name, {}).get("core")
    ]
    gone = [name for name in described if name not in known]
    outcomes, unlisted = [], []
    for name in wanted:
        print(f"== {name}", flush=True)
        outcome = run(name, known[name], described.get(name, {}))
        unlisted += check(outcome, described.get(name, {}), settings.get("skips", []))
        outcomes.append(outcome)
    print()
    if options.cases:
        for outcome in outcomes:
            print(f"[suites.{outcome.name}.cases]")
            for name, count in sorted(outcome.cases.items()):
                print(f'"{name}" = {count:_}')
            print()
    print(table(outcomes))
    faults = [f"{one.name}: {fault}" for one in outcomes for fault in one.faults]
    faults += [f"{name}: is described in .ci/suites.toml, but has no tests" for name in gone]
    if options.strict:
        faults += [f"skipped, and on no list: {text}" for text in unlisted]
    elif unlisted:
        print("\nskipped here (a tool or a right is missing):")
        print("\n".join(f"  {text}" for text in sorted(set(unlisted))))
    if faults:
        print("\n" + "\n".join(f"FAULT {fault}" for fault in faults))
    passed, failed = sum(one.passed for one in outcomes), sum(one.failed for one in outcomes)
    print(f"\n{passed} passed, {failed} failed, {sum(len(one.skips) for one in outcomes)} skipped")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
