"""Everything that a change must pass, as sessions of nox.

`.ci/test` makes the environment that most sessions run in (`.venv`) and runs `tests`; `.ci/run`
runs all of them. `portable` makes an environment for each further Python.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).resolve().parent
EXTRAS = ".[zstd,fastgzip,rich,otel,obstore,s3,redis]"
"""What the tests need of the project; `.ci/test` installs the same."""

PYTHONS = ("3.12", "3.13", "3.14")
"""Besides the one of `.venv`; those that are not installed are passed over."""

COVERED = 65
"""Percent of lines that the portable suites have to run in their own process; they ran 71 when
this was set."""

nox.options.sessions = ["lint", "types", "platforms", "tests", "portable", "docs"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.2"


def suites() -> dict[str, list[str]]:
    """Suite -> its files, for each folder of tests/ that holds tests: `executors/rootfs`."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        suite = path.parent.relative_to(ROOT / "tests").as_posix()
        found.setdefault(suite, []).append(path.relative_to(ROOT).as_posix())
    return found


def settings() -> dict[str, dict[str, Any]]:
    """How suites are run, by `.ci/suites.toml`."""
    text = (ROOT / ".ci" / "suites.toml").read_text(encoding="utf-8")
    described: dict[str, dict[str, Any]] = tomllib.loads(text)["suites"]
    return described


def pytest(session: nox.Session, python: str, paths: list[str], *options: str) -> None:
    """Run tests in two processes; one that has no more takes over some of the other's.

    A test that hangs ends its run after ten minutes.
    """
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=600"]
    command += ["--timeout-method=thread", "-n", "2", "--dist=worksteal"]
    session.run(*command, *options, *paths, external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff: rules everywhere, the format where it is kept."""
    session.run(sys.executable, "-m", "ruff", "check", ".", external=True)
    formatted = [".ci", "docs", "tests/cli", "noxfile.py"]
    session.run(sys.executable, "-m", "ruff", "format", "--check", *formatted, external=True)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Mypy: strictly over the package, the benchmarks and what runs CI, and over the tests."""
    mypy = (sys.executable, "-m", "mypy")
    session.run(*mypy, external=True)
    session.run(*mypy, "noxfile.py", ".ci", external=True)
    session.run(*mypy, "-p", "benchmarks", "-p", "tests", external=True)


NOT_ON_DARWIN = ("layercache/executors/rootfs/",)
NOT_ON_WINDOWS = (
    *NOT_ON_DARWIN,
    "layercache/_os/small_files.py",
    "layercache/executors/copy.py",
    "layercache/executors/workspace/leftovers.py",
    "layercache/executors/workspace/materialize.py",
    "layercache/images/archives.py",
    "layercache/images/atomic_files.py",
    "layercache/images/export.py",
    "layercache/images/layouts.py",
    "layercache/images/writers.py",
    "layercache/inputs/git.py",
    "layercache/inputs/scan/filesystems.py",
    "layercache/inputs/scan/hashing.py",
    "layercache/inputs/scan/read_beneath.py",
    "layercache/inputs/scan/statcache.py",
    "layercache/layers/apply.py",
    "layercache/layers/capture.py",
    "layercache/layers/files_beneath.py",
    "layercache/layers/lister.py",
    "layercache/layers/python_bytecode.py",
    "layercache/layers/upper_scan.py",
    "layercache/layers/write_beneath.py",
    "layercache/layers/writer.py",
    "layercache/oci/platforms.py",
    "layercache/store/backends/beneath.py",
    "layercache/store/backends/range_locks.py",
    "layercache/store/collection.py",
    "layercache/store/open_layers.py",
    "layercache/store/spool.py",
)
"""Root file systems are for Linux; the rest is not clean on Windows yet. May only shrink."""


@nox.session(venv_backend="none")
@nox.parametrize("platform", ["darwin", "win32"])
def platforms(session: nox.Session, platform: str) -> None:
    """Mypy for other platforms, over what is meant for them."""
    apart = NOT_ON_DARWIN if platform == "darwin" else NOT_ON_WINDOWS
    files = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("layercache/**/*.py"))
    files = [name for name in files if not name.startswith(apart)]
    options = ["--follow-imports=silent", "--platform", platform]
    session.run(sys.executable, "-m", "mypy", *options, *files, external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The suites that are named, all by default: `nox -s tests -- [--strict-skips] [SUITE...]`.

    `executors` names all suites below `tests/executors`, too.
    Whatever else begins with a dash is for pytest; `--list` names the suites and stops.
    """
    options = [one for one in session.posargs if one.startswith("-")]
    named = [one.rstrip("/") for one in session.posargs if not one.startswith("-")]
    there = suites()
    if "--list" in options:
        print("\n".join(there))
        return
    below = {name: [one for one in there if f"{one}/".startswith(f"{name}/")] for name in named}
    if unknown := [name for name, some in below.items() if not some]:
        session.error(f"no such suite: {', '.join(unknown)} (there are {', '.join(there)})")
    wanted = [one for one in there if not named or any(one in some for some in below.values())]
    paths = [path for one in wanted for path in there[one]]
    pytest(session, sys.executable, paths, "--counted", *options)


TRACED = ["tests/executors/tracing/test_coverage.py", "tests/executors/tracing/test_traces.py"]
"""The tests of tracing that rest on the interpreter: which calls of a command are seen, and how
builds use them. The other tests of that suite are about decisions, alike on every Python."""


@nox.session(python=PYTHONS)
def portable(session: nox.Session) -> None:
    """On another Python: the suites that need no tools of the machine, and those that rest on how
    an interpreter forks and calls C. On 3.13 it is counted what the former cover."""
    if session.python == f"{sys.version_info.major}.{sys.version_info.minor}" != "3.13":
        session.skip("the session `tests` runs on this Python")
    session.install("--quiet", "--upgrade", "pip>=25.1")
    session.install("--quiet", "--editable", EXTRAS, "--group", "test")
    there = suites()
    named = [name for name, options in settings().items() if options.get("core")]
    core = [path for name in named for path in there[name]]
    held = ("--counted", "--strict-skips")
    if session.python == "3.13":
        session.env["COVERAGE_CORE"] = "sysmon"
        covered = ("--cov=layercache", "--cov-report=", "--cov-append")
        session.run("python", "-m", "coverage", "erase")
        pytest(session, "python", core, *held, *covered)
        gate = f"--fail-under={COVERED}"
        session.run("python", "-m", "coverage", "report", "--format=total", gate)
        if sys.version_info[:2] == (3, 13):
            return
    else:
        pytest(session, "python", core, *held)
    pytest(session, "python", there["executors/rootfs"] + TRACED)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The documentation, every warning an error."""
    site = session.create_tmp()
    sphinx = (sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html")
    session.run(*sphinx, "docs", f"{site}/site", external=True)
