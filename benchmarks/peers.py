"""Other tools where nothing changed, beside ours: those that are found on the machine.

    python -m benchmarks.peers [--rounds N] [--files N] [--tools DIR]

CPU seconds of one command over the corpus of `benchmarks.contexts`, of a builder's daemon too
where it has one. Builders build `FROM scratch` and one `COPY . /`; dvc tracks the directory,
SCons has one target that depends on every file, joblib hashes the contents. They do different
things, and more of other things: the figures tell what people pay, not who is better. `--tools`
names a directory of programs, such as that of a virtual environment with dvc, SCons and joblib.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from benchmarks.buildkit import ENVIRONMENT, build_command, works
from benchmarks.contexts import generate
from benchmarks.figures import Figure, cpu, environment, interleaved, report
from benchmarks.steps import Project

NAME = "peers"

RECIPE = "FROM scratch\nCOPY . /\n"

DAEMONS = frozenset({"dockerd", "containerd", "buildkitd"})

SCONS = """\
import os
files = [os.path.join(w, n) for w, _, names in os.walk("context") for n in names]
Command("#built", sorted(files), "touch $TARGET")
"""

JOBLIB = """
import os, sys
import joblib
found = {}
for where, _, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(where, name), "rb") as content:
            found[os.path.join(where, name)] = content.read()
print(joblib.hash(found))
"""


def daemons() -> float:
    """CPU seconds so far of the daemons of builders."""
    total = 0
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{entry}/stat") as source:
                name, _, rest = source.read().rpartition(")")
        except OSError:
            continue
        if name.partition("(")[2] in DAEMONS:
            fields = rest.split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def versions(tools: str | None) -> str:
    """What is compared with, in a line."""
    found = []
    for name in ("docker", "buildctl", "buildah", "podman", "dvc", "scons"):
        path = shutil.which(name, path=_path(tools))
        if path is None:
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        number = re.search(r"\d+\.\d[\w.]*", done.stdout)
        found.append(f"{name} {number[0] if number else '?'}")
    if (python := _with_joblib(tools)) is not None:
        words = [python, "-c", "import joblib; print(joblib.__version__)"]
        found.append(
            f"joblib {subprocess.run(words, capture_output=True, text=True).stdout.strip()}"
        )
    return ", ".join(found)


def _path(tools: str | None) -> str:
    return os.pathsep.join(filter(None, (tools, os.environ.get("PATH"))))


def _with_joblib(tools: str | None) -> str | None:
    """An interpreter that has joblib."""
    for python in (os.path.join(tools, "python") if tools else None, sys.executable):
        if (
            python
            and not subprocess.run([python, "-c", "import joblib"], capture_output=True).returncode
        ):
            return python
    return None


def peers(place: str, project: Project, tools: str | None) -> dict[str, Callable[[], float]]:
    """What is found here, ready to be run again with nothing to do."""
    found: dict[str, Callable[[], float]] = {}
    env = environment() | {"PATH": _path(tools)}

    def which(name: str) -> bool:
        return shutil.which(name, path=env["PATH"]) is not None

    def ready(name: str, command: Sequence[str], cwd: str = place) -> None:
        def run() -> float:
            before = daemons()
            return cpu(command, cwd=cwd, env=env) + daemons() - before

        try:
            run()
            run()
        except subprocess.CalledProcessError as error:
            print(f"peers: {name} fails here: {error}")
        else:
            found[name] = run

    if (command := build_command(project.context)) is not None:
        env |= ENVIRONMENT
        ready("docker (BuildKit)", command)
    if works(["buildctl", "debug", "workers"]):
        places = [
            word
            for name in ("context", "dockerfile")
            for word in ("--local", f"{name}={project.context}")
        ]
        ready("buildctl", ["buildctl", "build", "--frontend", "dockerfile.v0", *places])
    for name in ("buildah", "podman"):
        if which(name):
            store = ["--root", f"{place}/{name}", "--runroot", f"{place}/{name}-run"]
            command = [name, *store, "build", "--layers", "-q", project.context]
            ready(f"{name} build", command)
    if which("dvc"):
        work = os.path.join(place, "dvc")
        os.mkdir(work)
        shutil.copytree(project.context, os.path.join(work, "context"))
        subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=work, check=True, env=env)
        subprocess.run(["dvc", "add", "-q", "context"], cwd=work, check=True, env=env)
        ready("dvc status", ["dvc", "status", "-q"], work)
    if which("scons"):
        with open(os.path.join(place, "SConstruct"), "w") as out:
            out.write(SCONS)
        os.symlink(project.context, os.path.join(place, "context"))
        ready("scons", ["scons", "-Q", "-s"])
    python = _with_joblib(tools)
    if python is not None:
        ready("joblib.hash of the contents", [python, "-c", JOBLIB, project.context])
    return found


def measure_all(rounds: int, files: int = 10_000, tools: str | None = None) -> list[Figure]:
    """One figure for each peer that is here; a line says which are not."""
    with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
        project = Project(place, "corpus", RECIPE)
        generate(project.context, files)
        project.build()
        project.build()
        here = peers(place, project, tools)
        taken = interleaved(rounds, {"layercache": project.build, **here})
        for name in ("buildah", "podman"):  # their layers are mounted below
            if shutil.which(name) is not None:
                words = ["--root", f"{place}/{name}", "--runroot", f"{place}/{name}-run"]
                subprocess.run([name, *words, "rmi", "-a", "-f"], capture_output=True)
    known = (
        "docker",
        "buildctl",
        "buildah build",
        "podman build",
        "dvc status",
        "scons",
        "joblib",
    )
    missing = [name for name in known if not any(name in other for other in here)]
    if missing:
        print(f"peers: not on this machine, or not working: {', '.join(missing)}")
    seconds = [
        Figure(NAME, f"{files:,} files, nothing changed: {name}, CPU s", s)
        for name, s in taken.items()
    ]
    return seconds + [
        Figure(
            NAME, f"{files:,} files, nothing changed: {name} / layercache", s / taken["layercache"]
        )
        for name, s in taken.items()
        if name != "layercache"
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--tools", help="a directory of programs that is searched first")
    options = parser.parse_args(arguments)
    return report(measure_all(options.rounds, options.files, options.tools), check=False)


if __name__ == "__main__":
    sys.exit(main())
