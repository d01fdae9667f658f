"""What is loaded: a build that reuses everything decides in less time than imports take."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.speed.conftest import RECIPE, Project

HEAVY = (
    # the standard library's heavy weights
    "asyncio",
    "concurrent.futures",
    "ctypes",
    "dataclasses",
    "difflib",
    "email",
    "hashlib",
    "http",
    "ipaddress",
    "logging",
    "multiprocessing",
    "pathlib",
    "pickle",
    "random",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tarfile",
    "tempfile",
    "unittest",
    "urllib",
    "zipfile",
    # what a cache at a distance needs, and every extra
    "adlfs",
    "aiohttp",
    "backports",
    "fsspec",
    "gcsfs",
    "isal",
    "obstore",
    "opentelemetry",
    "redis",
    "rich",
    "s3fs",
    "zstandard",
    # what executes, stores, fetches and explains
    "layercache._os.allowance",
    "layercache.advice.advise",
    "layercache.executors.copy",
    "layercache.dockerfile.mounts",
    "layercache.reports.reasons",
    "layercache.images.sources",
    "layercache.oci.manifests",
    "layercache.images.output_spec",
    "layercache.images.registry",
    "layercache.layers",
    "layercache.executors.workspace.materialize",
    "layercache.engine.probe",
    "layercache.builds.reasons",
    "layercache.store.remote",
    "layercache.reports.chrome_trace",
    "layercache.reports.diagrams",
    "layercache.reports.html",
    "layercache.reports.markdown",
    "layercache.observers",
    "layercache.testing",
    "layercache.cli.status",
    "layercache.engine.audit",
    "layercache.engine.selected_window",
    "layercache.engine.window",
    "layercache.builds.baseline",
    "layercache.builds.exporting",
    "layercache.executors.redaction",
    "layercache.model.layer_index",
    "layercache.model.units",
    "layercache.solver.could_match",
    "layercache.store.guarded",
    "layercache.store.spool",
    "layercache.store.tiered",
)
"""No build that reuses everything loads one of these, or anything below it."""


def heavy(modules: list[str]) -> list[str]:
    return [name for name in modules if any(f"{name}.".startswith(f"{h}.") for h in HEAVY)]


def test_the_package_loads_next_to_nothing(python: Callable[[str], str]) -> None:
    """Importing layercache loads what makes it lazy, and `typing`, which any use of it needs."""
    program = (
        "import sys, json, typing, __future__; before = set(sys.modules)\n"
        "import layercache\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    expected = {"layercache", "layercache._base", "layercache._base.lazy"}
    assert expected == set(json.loads(python(program)))


def test_reusing_everything_loads_nothing_heavy(project: Project) -> None:
    """A build from the command line that executes nothing loads neither what executes, nor
    remote storage, nor any extra."""
    project.write("Dockerfile", RECIPE)
    project.write("package.json", "{}")
    project.build()
    told = project.build()

    assert [] == heavy(told.modules)


def test_reusing_everything_with_the_default_executor(project: Project) -> None:
    """The same, where the executor is left to the machine."""
    project.write("Dockerfile", "FROM scratch\nWORKDIR /app\nCOPY . .\nENV A=b\nUSER nobody\n")
    project.build("--executor", "auto")
    told = project.build("--executor", "auto")

    assert [] == heavy(told.modules)


def test_nothing_is_compiled_in_advance(python: Callable[[str], str]) -> None:
    """No module on the way to a hit compiles a regular expression when it is loaded."""
    program = (
        "import re, sys\n"
        "real = re._compiler.compile\n"
        "found = []\n"
        "def compile(pattern, flags=0):\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        name = frame.f_globals.get('__name__', '')\n"
        "        if name.startswith('layercache') and frame.f_code.co_name == '<module>':\n"
        "            found.append((name, str(pattern)))\n"
        "            break\n"
        "        if frame.f_code.co_name == '<module>':\n"
        "            break\n"
        "        frame = frame.f_back\n"
        "    return real(pattern, flags)\n"
        "re._compiler.compile = compile\n"
        "import layercache.cli.build, layercache.executors.workspace.executor\n"
        "import layercache.inputs.scan.context_tree, layercache.executors.rootfs\n"
        "import layercache.store.backends.local, layercache.store.store\n"
        "print(found)"
    )
    assert "[]" == python(program).strip()
