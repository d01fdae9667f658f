"""What a run of the tests is held to: enough randomised cases, and no skips but those allowed.

A pytest plug-in that tests/conftest.py registers. `.ci/suites.toml` says how many randomised
cases each test must run at least, and which reasons for a skip are allowed; a test prints
`N run, seed S`, or `LABEL: N run, seed S` where it has several kinds. A suite is a folder of
tests/ that holds tests.

With `--counted` a suite that ran fewer cases makes the run fail, with `--strict-skips` so does a
skip that is on no list. Both are for whole suites: `-k` and single tests run fewer on purpose.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

CASES = re.compile(
    r"^(?:(?P<label>[a-zA-Z][\w ,]*): )?(?P<count>[0-9][0-9,_]*) run(?=,| \{|$)", re.MULTILINE
)
SETTINGS = Path(__file__).resolve().parents[1] / ".ci" / "suites.toml"


def suite_of(nodeid: str) -> str:
    """The suite of a test: `store` of `tests/store/test_tiers.py::test_it`."""
    return nodeid.partition("::")[0].rpartition("/")[0].removeprefix("tests/")


class Counted:
    """Counts cases and skips, also where they ran in the processes of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._settings: dict[str, Any] = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
        self._cases: dict[str, Counter[str]] = defaultdict(Counter)
        self._skipped: dict[str, set[str]] = defaultdict(set)
        self._unlisted: list[str] = []
        self._seen: set[str] = set()
        self._outcomes: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up what one phase of a test printed, or why it was skipped."""
        suite = suite_of(report.nodeid)
        self._seen.add(suite)
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.outcome] += 1
        test = report.nodeid.rpartition("::")[2].partition("[")[0]
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[suite].add(test)
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
            if not self._allowed(suite, reason):
                self._unlisted.append(f"{suite}: {test}: {reason.removeprefix('Skipped: ')}")
        elif report.when == "teardown":  # has what earlier phases printed, too
            for match in CASES.finditer(report.capstdout):
                count = int(re.sub("[,_]", "", match["count"]))
                for name in {test, match["label"] or test}:
                    self._cases[suite][name] += count

    def _allowed(self, suite: str, reason: str) -> bool:
        return any(
            entry.get("suite") in {None, suite} and re.search(entry["reason"], reason)
            for entry in self._settings.get("skips", [])
        )

    def faults(self) -> list[str]:
        """What the run lacks, as sentences."""
        found = []
        if self._config.getoption("--counted"):
            for suite in sorted(self._seen):
                options = self._settings.get("suites", {}).get(suite, {})
                for name, wanted in options.get("cases", {}).items():
                    ran = self._cases[suite][name]
                    if ran < wanted and name not in self._skipped[suite]:
                        found.append(f"{suite}: {name} ran {ran} of {wanted} cases")
        if self._config.getoption("--strict-skips"):
            found += [f"skipped, and on no list: {text}" for text in sorted(set(self._unlisted))]
        return found

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the run fail where it lacks something, and leave its numbers for `.ci/run`."""
        if hasattr(self._config, "workerinput"):
            return
        if faults := self.faults():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if tally := os.environ.get("LAYERCACHE_TALLY"):
            done = self._outcomes
            with open(tally, "a", encoding="utf-8") as file:
                failed = done["failed"] + len(faults)
                file.write(f"{done['passed']} {failed} {done['skipped']}\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what ran, what was skipped, and what lacks."""
        if self._cases:
            terminalreporter.section("randomised cases")
            for suite, counts in sorted(self._cases.items()):
                for name, count in sorted(counts.items()):
                    terminalreporter.write_line(f"{suite}: {name}: {count:,}")
        if self._unlisted and not self._config.getoption("--strict-skips"):
            terminalreporter.section("skipped here: a tool or a right is missing")
            for text in sorted(set(self._unlisted)):
                terminalreporter.write_line(text)
        if faults := self.faults():
            terminalreporter.section("faults of this run", red=True)
            for text in faults:
                terminalreporter.write_line(f"FAULT {text}")


def add_options(parser: pytest.Parser) -> None:
    """The options of the plug-in."""
    group = parser.getgroup("counted")
    group.addoption("--counted", action="store_true", help="fail where a suite ran too few cases")
    group.addoption("--strict-skips", action="store_true", help="fail at skips that are on no list")
