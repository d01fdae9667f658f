"""Build contexts against floors: what scanning costs beside a walk in C, find and git.

    python -m benchmarks.contexts [--files N] [--rounds N] [--million] [--check]

Figures are CPU seconds (user and system) of processes, medians of interleaved rounds, so that a
busy machine disturbs the ratios little. With `--check` the exit status is 1 when a ratio is
above its limit. `--million` adds the peak memory for a million files (some minutes, 5 GB).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

FLOOR = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
static int reading;
static char buffer[1 << 20];
static unsigned long sum;
static void walk(int fd) {
  DIR *directory = fdopendir(fd);
  struct dirent *entry;
  struct stat status;
  while ((entry = readdir(directory))) {
    const char *name = entry->d_name;
    if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]))) continue;
    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW)) continue;
    sum += status.st_size;
    if (S_ISDIR(status.st_mode)) {
      int below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (below >= 0) walk(below);
    } else if (reading && S_ISREG(status.st_mode)) {
      int file = openat(fd, name, O_RDONLY | O_NOFOLLOW);
      while (read(file, buffer, sizeof buffer) > 0) sum += buffer[0];
      close(file);
    }
  }
  closedir(directory);
}
int main(int count, char **words) {
  reading = count > 2;
  walk(open(words[1], O_RDONLY | O_DIRECTORY));
  printf("%lu\n", sum);
}
"""
"""The floor: openat, getdents and fstatat of everything, and with a second word reading it."""

CHECK = """
import json, resource, sys
from layercache.filetree import Context
from layercache.selections import Files

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

root, cache, copies = sys.argv[1], sys.argv[2], int(sys.argv[3])
began = cpu()
with Context(root, cache=cache).scan() as tree:
    tree.fingerprint(Files((".",)))
    once = cpu()
    for number in range(1, copies):
        tree.fingerprint(Files((".", "src%d" % number)))
    more = cpu() - once
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([cpu() - began, more, tree.counts.files_opened, peak]))
"""


class Ratio(NamedTuple):
    """A measured ratio and the limit it should stay under."""

    name: str
    value: float
    limit: float

    @property
    def ok(self) -> bool:
        return self.value <= self.limit


def generate(root: str, files: int, seed: int = 1) -> None:
    """A corpus like a JavaScript project: deep packages, small text files of skewed sizes."""
    source = random.Random(seed)
    words = [f"word{n} = {n * 7919};\n".encode() for n in range(500)]
    made = package = 0
    while made < files:
        package += 1
        top = "node_modules" if source.random() < 0.7 else f"src{source.randrange(30)}"
        levels = [f"p{source.randrange(40)}" for _ in range(source.randint(0, 4))]
        here = os.path.join(root, top, *levels, f"pkg{package}")
        os.makedirs(here)
        for number in range(min(files - made, source.randint(1, 20))):
            size = min(int(source.lognormvariate(7.6, 1.2)), 1 << 20)
            ending = source.choice(("js", "ts", "md", "json", "map"))
            line = source.choice(words)
            with open(os.path.join(here, f"f{number}.{ending}"), "wb") as out:
                out.write(b"%d\n" % made + (line * (size // len(line) + 1))[:size])
            made += 1


def cpu(command: Sequence[str], **options: object) -> float:
    """CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(  # type: ignore[call-overload]
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def interleaved(rounds: int, **works: Callable[[], float]) -> dict[str, float]:
    """The median of each, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return {name: statistics.median(values) for name, values in found.items()}


class Bench:
    """One corpus with its cache, its repository and the compiled floor."""

    def __init__(self, place: str, files: int) -> None:
        self.place = place
        self.root = os.path.join(place, f"corpus-{files}")
        self.cache = os.path.join(place, f"cache-{files}")
        self.git = dict(
            os.environ,
            GIT_DIR=os.path.join(place, f"git-{files}"),
            GIT_WORK_TREE=self.root,
            GIT_CONFIG_GLOBAL="/dev/null",
            GIT_CONFIG_COUNT="1",  # no collection in the background
            GIT_CONFIG_KEY_0="gc.auto",
            GIT_CONFIG_VALUE_0="0",
        )
        generate(self.root, files)
        time.sleep(0.1)

    def floor(self, *words: str) -> float:
        """CPU of the floor, without starting a process."""
        program = os.path.join(self.place, "floor")
        if not os.path.exists(program):
            with open(program + ".c", "w") as out:
                out.write(FLOOR)
            subprocess.run(["gcc", "-O2", "-o", program, program + ".c"], check=True)
        return cpu([program, self.root, *words])

    def check(self, copies: int = 1) -> tuple[float, float, int, int]:
        """Scan and fingerprint in a new process: CPU of it, of further copies, opened, peak."""
        done = subprocess.run(
            [sys.executable, "-c", CHECK, self.root, self.cache, str(copies)],
            check=True,
            capture_output=True,
        )
        total, more, opened, peak = json.loads(done.stdout)
        return float(total), float(more), int(opened), int(peak)

    def whole(self) -> float:
        """CPU of the whole process, interpreter start and imports included."""
        return cpu([sys.executable, "-c", CHECK, self.root, self.cache, "1"])

    def fresh(self) -> float:
        """CPU of a first scan, in process."""
        if os.path.exists(self.cache):
            os.unlink(self.cache)
        return self.check()[0]

    def touch(self) -> None:
        """Give every file new stamps."""
        for where, _, names in os.walk(self.root):
            for name in names:
                os.utime(os.path.join(where, name))
        time.sleep(0.1)

    def touched(self) -> float:
        """CPU of a scan after every file got new stamps."""
        self.touch()
        return self.check()[0]

    def touched_floor(self) -> float:
        """CPU of the floor in the same situation (access times are due, too)."""
        self.touch()
        return self.floor("read")

    def git_add(self) -> float:
        """CPU of adding everything to an empty repository."""
        shutil.rmtree(self.git["GIT_DIR"], ignore_errors=True)
        subprocess.run(["git", "init", "-q"], env=self.git, cwd=self.root, check=True)
        return cpu(["git", "add", "-A"], env=self.git, cwd=self.root)

    def git_commit(self) -> None:
        """Commit, so that `git status` has nothing to say."""
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        cpu(["git", *identity, "commit", "-qm", "x"], env=self.git, cwd=self.root)
        self.git_status()

    def git_status(self) -> float:
        """CPU of `git status` where nothing changed."""
        return cpu(["git", "status", "--porcelain"], env=self.git, cwd=self.root)

    def hashing(self) -> float:
        """CPU of BLAKE3 over contents of the sizes of the corpus, in memory."""
        from blake3 import blake3

        sizes = [
            os.path.getsize(os.path.join(where, name))
            for where, _, names in os.walk(self.root)
            for name in names
        ]
        data = bytes(max(sizes))
        view = memoryview(data)
        began = time.process_time()
        for size in sizes:
            blake3(view[:size]).digest()
        return time.process_time() - began


def measure(place: str, files: int, rounds: int) -> list[Ratio]:
    """The ratios for a corpus of `files` files."""
    bench = Bench(place, files)
    ratios: list[Ratio] = []
    label = f"{files:,} files: "

    found = interleaved(1, fresh=bench.fresh, add=bench.git_add)
    ratios.append(Ratio(label + "first scan / git add", found["fresh"] / found["add"], 0.85))
    bench.git_commit()
    bench.check()

    again = interleaved(
        rounds,
        check=lambda: bench.check()[0],
        whole=bench.whole,
        walk=bench.floor,
        status=bench.git_status,
        find=lambda: cpu(["find", bench.root, "-printf", "%s %T@"]),
    )
    ratios.append(Ratio(label + "no-op / C walk", again["check"] / again["walk"], 1.7))
    ratios.append(Ratio(label + "no-op / find", again["check"] / again["find"], 1.3))
    limit = 1.4 if files >= 100_000 else 3.5
    name = label + "no-op process / git status"
    ratios.append(Ratio(name, again["whole"] / again["status"], limit))
    _, more, opened, _ = bench.check(20)
    ratios.append(Ratio(label + "ms of 20 COPY over one", more * 1000, 1.0))
    ratios.append(Ratio(label + "files opened when nothing changed", opened, 0))

    floors = interleaved(max(1, rounds // 2), touched=bench.touched, read=bench.touched_floor)
    floor = floors["read"] + bench.hashing()
    name = label + "all mtimes touched / C read and hash"
    ratios.append(Ratio(name, floors["touched"] / floor, 1.7))
    shutil.rmtree(bench.root)
    return ratios


def million(place: str) -> list[Ratio]:
    """Peak memory for a million files."""
    root = os.path.join(place, "million")
    for number in range(10_000):
        here = os.path.join(root, f"d{number % 100}", f"package{number}")
        os.makedirs(here)
        for name in range(100):
            with open(os.path.join(here, f"some-file-{name}.js"), "wb"):
                pass
    time.sleep(0.1)
    cache = os.path.join(place, "cache-million")
    ratios = []
    for what in ("first scan", "no-op"):
        done = subprocess.run(
            [sys.executable, "-c", CHECK, root, cache, "1"], check=True, capture_output=True
        )
        total, _, _, peak = json.loads(done.stdout)
        print(f"1,000,000 files, {what}: {total:.2f} s CPU")
        ratios.append(Ratio(f"1,000,000 files: peak bytes a file, {what}", peak / 1e6, 350))
    return ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 with `--check` when a ratio is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contexts")
    parser.add_argument("--files", type=int, action="append", help="default: 10000 and 100000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if shutil.which("gcc") is None or shutil.which("git") is None:
        print("needs gcc and git")
        return 0
    ratios: list[Ratio] = []
    with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
        for files in options.files or (10_000, 100_000):
            ratios += measure(place, files, options.rounds)
        if options.million:
            ratios += million(place)
    for ratio in ratios:
        verdict = "" if ratio.ok else "ABOVE  "
        print(f"{ratio.value:10.2f}  limit {ratio.limit:7.2f}  {verdict}{ratio.name}")
    return 1 if options.check and not all(ratio.ok for ratio in ratios) else 0


if __name__ == "__main__":
    sys.exit(main())
