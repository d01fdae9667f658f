"""Other tools where nothing changed, beside ours: those that are found on the machine.

    python -m benchmarks.peers [--rounds N] [--files N]

CPU seconds of one command over the corpus of `benchmarks.contexts`, of a builder's daemon too
where it has one. Builders build `FROM scratch` and one `COPY . /`; dvc tracks the directory,
SCons has one target that depends on every file, joblib hashes the contents. They do different
things, and more of other things: the figures tell what people pay, not who is better.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

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


def works(command: Sequence[str]) -> bool:
    """Whether a command is there and says yes."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


def peers(place: str, project: Project) -> dict[str, Callable[[], float]]:
    """What is found here, ready to be run again with nothing to do."""
    found: dict[str, Callable[[], float]] = {}
    env = environment()

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

    if works(["docker", "buildx", "version"]) and works(["docker", "version"]):
        ready("docker buildx", ["docker", "buildx", "build", "-q", project.context])
    for name in ("buildah", "podman"):
        if shutil.which(name) is not None:
            store = ["--root", f"{place}/{name}", "--runroot", f"{place}/{name}-run"]
            command = [name, *store, "build", "--layers", "-q", project.context]
            ready(f"{name} build", command)
    if shutil.which("dvc") is not None:
        work = os.path.join(place, "dvc")
        os.mkdir(work)
        shutil.copytree(project.context, os.path.join(work, "context"))
        subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=work, check=True)
        subprocess.run(["dvc", "add", "-q", "context"], cwd=work, check=True)
        ready("dvc status", ["dvc", "status", "-q"], work)
    if shutil.which("scons") is not None:
        with open(os.path.join(place, "SConstruct"), "w") as out:
            out.write(SCONS)
        os.symlink(project.context, os.path.join(place, "context"))
        ready("scons", ["scons", "-Q", "-s"])
    if importlib.util.find_spec("joblib") is not None:
        ready("joblib.hash of the contents", [sys.executable, "-c", JOBLIB, project.context])
    return found


def measure_all(rounds: int, files: int = 10_000) -> list[Figure]:
    """One figure for each peer that is here; a line says which are not."""
    with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
        project = Project(place, "corpus", RECIPE)
        generate(project.context, files)
        project.build()
        project.build()
        here = peers(place, project)
        taken = interleaved(rounds, {"ours": project.build, **here})
        for name in ("buildah", "podman"):  # their layers are mounted below
            if shutil.which(name) is not None:
                words = ["--root", f"{place}/{name}", "--runroot", f"{place}/{name}-run"]
                subprocess.run([name, *words, "rmi", "-a", "-f"], capture_output=True)
    known = ("docker buildx", "buildah build", "podman build", "dvc status", "scons", "joblib")
    missing = [name for name in known if not any(name in other for other in here)]
    if missing:
        print(f"peers: not on this machine: {', '.join(missing)}")
    for name, seconds in taken.items():
        print(f"  {name:30} {seconds:8.3f} s CPU")
    return [
        Figure(NAME, f"{files:,} files, nothing changed: {name} / layercache", s / taken["ours"])
        for name, s in taken.items()
        if name != "ours"
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args(arguments)
    return report(measure_all(options.rounds, options.files), check=False)


if __name__ == "__main__":
    sys.exit(main())
