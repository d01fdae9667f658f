"""Build contexts against floors: what scanning costs beside a walk in C, find and git.

    python -m benchmarks.contexts [--files N] [--rounds N] [--check]

Figures are CPU seconds (user and system) of processes, medians of interleaved rounds, so that a
busy machine disturbs the ratios little. With `--check` the exit status is 1 when a ratio is
above its limit. `benchmarks.scaling` goes up to a million files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.figures import Figure, cpu, environment, interleaved, report, timed
from layercache.trees.patterns import Ignore

NAME = "contexts"

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
from layercache.inputs.scan.context_tree import Context
from layercache.model import Files

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
print(json.dumps([cpu() - began, more, tree.counts.files_opened, peak, once - began]))
"""


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


class Scan(NamedTuple):
    """A scan with fingerprints, in a process of its own.

    CPU seconds in all, of further copies, and until the first answer (the stat cache is then not
    yet saved); files opened; peak memory in bytes; wall seconds of the process.
    """

    total: float
    more: float
    opened: int
    peak: int
    answer: float
    wall: float


def scan(root: str, cache: str, copies: int = 1) -> Scan:
    """Scan and fingerprint in a new process."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHECK, root, cache, str(copies)],
        check=True,
        capture_output=True,
        env=environment(),
    )
    told = [*json.loads(done.stdout), time.perf_counter() - began]
    return Scan(*told)


def forget(root: str) -> None:
    """Drop the contents below `root` from memory; names and stamps stay there."""
    os.sync()  # what is not yet written can't be dropped
    for where, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(os.path.join(where, name), os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


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

    def check(self, copies: int = 1) -> Scan:
        """Scan and fingerprint in a new process."""
        return scan(self.root, self.cache, copies)

    def whole(self) -> float:
        """CPU of the whole process, interpreter start and imports included."""
        return cpu([sys.executable, "-c", CHECK, self.root, self.cache, "1"])

    def fresh(self) -> float:
        """CPU of a first scan, in process."""
        if os.path.exists(self.cache):
            os.unlink(self.cache)
        return self.check().total

    def edited(self) -> float:
        """CPU until the answer after one file changed."""
        with open(os.path.join(self.root, *self._some_file()), "ab") as out:
            out.write(b"x")
        time.sleep(0.05)
        return self.check().answer

    def _some_file(self) -> tuple[str, ...]:
        where, _, names = next(entry for entry in os.walk(self.root) if entry[2])
        return os.path.relpath(where, self.root), min(names)

    def touch(self) -> None:
        """Give every file new stamps."""
        for where, _, names in os.walk(self.root):
            for name in names:
                os.utime(os.path.join(where, name))
        time.sleep(0.1)

    def touched(self) -> float:
        """CPU of a scan after every file got new stamps."""
        self.touch()
        return self.check().total

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


def measure(place: str, files: int, rounds: int) -> list[Figure]:
    """The ratios for a corpus of `files` files."""
    bench = Bench(place, files)
    figures: list[Figure] = []

    def add(name: str, value: float) -> None:
        figures.append(Figure(NAME, f"{files:,} files: {name}", value))

    found = interleaved(1, {"fresh": bench.fresh, "add": bench.git_add})
    add("first scan / git add", found["fresh"] / found["add"])
    bench.git_commit()
    bench.check()

    again = interleaved(
        rounds,
        {
            "check": lambda: bench.check().total,
            "whole": bench.whole,
            "walk": bench.floor,
            "status": bench.git_status,
            "find": lambda: cpu(["find", bench.root, "-printf", "%s %T@"]),
        },
    )
    # A few ms of difference: the least of many of each, or the noise is all there is to see.
    works = {"same": lambda: bench.check().answer, "edited": bench.edited}
    answers = interleaved(3 * rounds, works, min)
    add("nothing changed / C walk with stat", again["check"] / again["walk"])
    add("nothing changed / find", again["check"] / again["find"])
    add("nothing changed, whole process / git status", again["whole"] / again["status"])
    add("one file changed: ms over nothing changed", (answers["edited"] - answers["same"]) * 1000)
    copied = bench.check(20)
    add("20 COPY of it: ms over one", copied.more * 1000)
    add("files opened when nothing changed", copied.opened)

    def cold() -> float:
        forget(bench.root)
        os.unlink(bench.cache)
        return bench.check().wall

    def warm() -> float:
        os.unlink(bench.cache)
        return bench.check().wall

    if hasattr(os, "posix_fadvise"):
        scans = interleaved(max(1, rounds // 2), {"cold": cold, "warm": warm}, min)
        add("first scan, contents on disk: wall s", scans["cold"])
        add("first scan, contents in memory: wall s", scans["warm"])

    touched = interleaved(max(1, rounds // 2), {"ours": bench.touched, "read": bench.touched_floor})
    floor = touched["read"] + bench.hashing()
    add("all mtimes touched / read and hash in C", touched["ours"] / floor)
    shutil.rmtree(bench.root)
    return figures


def ignoring(rounds: int) -> list[Figure]:
    """Ignore matching: 30 patterns over 100,000 paths, no two names alike, as a walk asks,
    as whole paths, and three times as many."""
    words = [f"*.ext{n}" for n in range(8)] + [f"**/dir{n}/**" for n in range(8)]
    words += [f"top{n}/*.js" for n in range(6)] + [f"src/**/test{n}*" for n in range(6)]
    words += ["!src/**/test1*", "!**/dir3/keep/**"]
    source = random.Random(2)
    beginnings = ("file", "test", "a")
    names = [f"{w}{n}" for w in ("dir", "top", "src", "test", "file") for n in range(40)]
    directories = [
        [source.choice(names).encode() for _ in range(source.randint(1, 5))] for _ in range(5_000)
    ]
    files = [
        [f"{source.choice(beginnings)}{n}-{number}.ext{n % 12}".encode() for n in range(20)]
        for number in range(len(directories))
    ]
    whole = [
        b"/".join((*d, name)) for d, below in zip(directories, files, strict=True) for name in below
    ]

    def match(patterns: Sequence[str], again: bool = False) -> Callable[[], None]:
        known = Ignore.of(patterns)

        def work() -> None:
            start = (known if again else Ignore.of(patterns)).start
            for parts, below in zip(directories, files, strict=True):
                state = start
                for part in parts:
                    state = state[part]
                for name in below:
                    state[name]

        return work

    def match_whole() -> None:
        matches = Ignore.of(words).matches
        for path in whole:
            matches(path)

    more = [f"{word}x{n}" for n in range(2) for word in words]
    works = {
        "new": timed(match(words)),
        "few": timed(match(words, again=True)),
        "many": timed(match(words + more, again=True)),
        "whole": timed(match_whole),
    }
    found = interleaved(rounds, works)
    paths = sum(map(len, files)) + sum(map(len, directories))
    return [
        Figure(
            NAME, "ignore matching, 30 patterns, as a walk: us a path", found["new"] / paths * 1e6
        ),
        Figure(NAME, "ignore matching, whole paths: us a path", found["whole"] / len(whole) * 1e6),
        Figure(NAME, "ignore matching, 90 patterns / 30 patterns", found["many"] / found["few"]),
    ]


def measure_all(rounds: int, sizes: Sequence[int] = (10_000, 100_000)) -> list[Figure]:
    """All figures; none where gcc or git are missing."""
    if shutil.which("gcc") is None or shutil.which("git") is None:
        print("contexts: skipped, needs gcc and git")
        return []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="layercache-bench-") as place:
        for files in sizes:
            figures += measure(place, files, rounds)
    return figures + ignoring(rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 with `--check` when a ratio is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contexts")
    parser.add_argument("--files", type=int, action="append", help="default: 10000 and 100000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(measure_all(options.rounds, options.files or (10_000, 100_000)), options.check)


if __name__ == "__main__":
    sys.exit(main())
