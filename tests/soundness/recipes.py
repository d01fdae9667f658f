"""Random Dockerfiles over random contexts, and random edits of both.

Every command is a function of what it reads, so that two clean builds give one tree. Made from a
seeded generator and not from text, so that a failing history can be shrunk by dropping edits.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

__all__ = ["Project"]

NAMES = ("a.txt", "b.txt", "c.md", "d/x", "d/y.txt", "d/e/z", "s/run.sh", "s/t", "empty")
WORDS = ("one", "two", "three", "", "x" * 4000)


class Project:
    """A context directory and a Dockerfile in it, as a list of lines for each stage."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self.rng = rng
        self.args = {"V": "1"}
        root.mkdir()
        for name in NAMES:
            if rng.random() < 0.8:
                self.write(name)
        self.stages = [self.lines(number) for number in range(rng.choice((1, 1, 2, 3)))]
        self.save()

    # -- files ------------------------------------------------------------------------------

    def write(self, name: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            return
        if path.is_symlink():
            path.unlink()
        path.write_text(f"{name} {self.rng.choice(WORDS)} {self.rng.randrange(4)}\n")
        path.chmod(self.rng.choice((0o644, 0o644, 0o755, 0o600)))

    def files(self) -> list[Path]:
        return sorted(
            p for p in self.root.rglob("*") if p.name not in {"Dockerfile", ".dockerignore"}
        )

    def edit(self) -> str:
        """One random change; says which."""
        kinds = (
            self.change_file, self.change_file, self.same_size_edit, self.touch, self.chmod,
            self.add_file, self.remove_file, self.rename_file, self.to_link, self.change_line,
            self.insert_line, self.remove_line, self.swap_lines, self.change_argument, self.ignore,
        )  # fmt: skip
        kind = self.rng.choice(kinds)
        kind()
        self.save()
        return kind.__name__

    def change_file(self) -> None:
        if found := [p for p in self.files() if p.is_file() and not p.is_symlink()]:
            self.write(str(self.rng.choice(found).relative_to(self.root)))

    def same_size_edit(self) -> None:
        """Other bytes, the same size and time: only a read can tell, or the change time."""
        if found := [p for p in self.files() if p.is_file() and not p.is_symlink()]:
            path = self.rng.choice(found)
            times = path.stat()
            data = bytearray(path.read_bytes())
            if data:
                data[0] = ord("a") + (data[0] + 1) % 26
                path.write_bytes(bytes(data))
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def touch(self) -> None:
        for path in self.files():
            if not path.is_symlink():
                when = self.rng.randrange(2_000_000_000)
                os.utime(path, (when, when))

    def chmod(self) -> None:
        if found := [p for p in self.files() if not p.is_symlink()]:
            path = self.rng.choice(found)
            modes = (0o755, 0o700, 0o775) if path.is_dir() else (0o644, 0o600, 0o755, 0o4755)
            path.chmod(self.rng.choice(modes))

    def add_file(self) -> None:
        self.write(self.rng.choice((*NAMES, "d/new", "n/ew/file", "z.txt")))

    def remove_file(self) -> None:
        if found := [p for p in self.files() if not p.is_dir() or p.is_symlink()]:
            self.rng.choice(found).unlink()

    def rename_file(self) -> None:
        if found := [p for p in self.files() if not p.is_dir() or p.is_symlink()]:
            path = self.rng.choice(found)
            path.rename(path.with_name("renamed-" + path.name[:20]))

    def to_link(self) -> None:
        if found := [p for p in self.files() if p.is_file() and not p.is_symlink()]:
            path = self.rng.choice(found)
            path.unlink()
            path.symlink_to(self.rng.choice(("a.txt", "d", "/d/x", "../outside", "nowhere")))

    def ignore(self) -> None:
        patterns = ("*.md", "d/e", "**/*.txt\n!a.txt", "s", "", "d/*\n!d/x")
        (self.root / ".dockerignore").write_text(self.rng.choice(patterns) + "\nDockerfile\n")

    # -- the recipe ---------------------------------------------------------------------------

    def save(self) -> None:
        """Write the Dockerfile; what a line refers to may have gone, which then fails both."""
        parts = []
        for number, lines in enumerate(self.stages):
            base = f"s{number - 1}" if number and self.rng_of(number) < 0.4 else "base"
            parts.append(f"FROM {base} AS s{number}")
            parts.extend(lines)
        (self.root / "Dockerfile").write_text("\n".join(parts) + "\n")

    @staticmethod
    def rng_of(number: int) -> float:
        return random.Random(number * 7 + 1).random()

    def lines(self, stage: int) -> list[str]:
        return [self.line(stage) for _ in range(self.rng.randint(2, 6))]

    def line(self, stage: int) -> str:
        rng = self.rng
        source = rng.choice((".", "d", "d/", "*.txt", "[ab].txt", "d/e", "s"))
        target = rng.choice(("/t/", "/t/u/", "/", "/w/", "/t"))
        into = target if target.endswith("/") else target + "/"
        flag = rng.choice(("", "", "", "--chmod=750 ", "--chown=1000:1000 ", "--chown=app ",
                           "--link ", "--exclude=*.md "))  # fmt: skip
        if flag == "--link ":
            into = "/linked/"
        choices = [
            f"COPY {flag}{source} {into}",
            f"COPY {flag}{source} {into}",
            f"COPY --parents d*/** {into}",
            f"ADD {source} {into}",
            f"COPY <<EOF /here/{rng.choice('xyz')}\nbody ${{V:-unset}} {rng.randrange(3)}\nEOF",
            f"WORKDIR {rng.choice(('/w', 'rel', '/t/u', '/'))}",
            f"ENV {rng.choice('AB')}={rng.randrange(3)}",
            rng.choice(("ARG V", "ARG V=9", "ARG W=2")),
            f"USER {rng.choice(('root', 'app', '1000:1000', '0'))}",
            rng.choice(
                (
                    "LABEL l=1",
                    "EXPOSE 80",
                    'CMD ["x"]',
                    "STOPSIGNAL 9",
                    "VOLUME /v",
                    'ENTRYPOINT ["y"]',
                    "HEALTHCHECK --interval=5s CMD true",
                    "MAINTAINER someone",
                    "ONBUILD RUN echo triggered >> /tmp/onbuild",
                )
            ),
            'SHELL ["/bin/sh", "-ec"]',
        ]
        runs = [
            f"RUN find /t /w /etc /here /from -type f 2>/dev/null | sort "
            f"> /tmp/list{rng.randrange(3)}",
            f"RUN cat /t/*.txt /w/* 2>/dev/null | md5sum > /tmp/sum{rng.randrange(3)}",
            f"RUN env | sort | grep -v HOSTNAME > /tmp/env{rng.randrange(3)}",
            "RUN id > /tmp/id && pwd > /tmp/pwd",
            "RUN rm -rf /t/u /tmp/list0",
            "RUN mkdir -p /tmp/m && cp -r /t /tmp/m/ 2>/dev/null || true",
            "RUN mv /t /tmp/moved 2>/dev/null || true",
            "RUN ls -lR /t /w 2>/dev/null > /tmp/ls || true",
            "RUN ln -sf /t/a.txt /tmp/link && chmod -R g+w /tmp 2>/dev/null || true",
            f"RUN --mount=type=bind,target=/ctx,source={rng.choice(('.', 'd'))} "
            "ls -R /ctx > /tmp/ctx; find /ctx -type f | sort | xargs cat > /tmp/all",
            "RUN --mount=type=tmpfs,target=/scratch echo x > /scratch/f && ls /scratch > /tmp/sc",
            "RUN --mount=type=cache,target=/cache echo y > /cache/f && cat /cache/f > /tmp/c",
            "RUN --network=none true",
            f"RUN <<EOF\necho here {rng.randrange(3)} > /tmp/h\nEOF",
        ]
        choices += runs
        if stage:
            other = rng.randrange(stage)
            choices += [
                f"COPY --from=s{other} {rng.choice(('/t', '/tmp', '/w', '/etc/passwd'))} /from/",
                f"COPY --from={other} /tmp /from{rng.randrange(2)}/",
                f"RUN --mount=type=bind,from=s{other},target=/o,source=/tmp ls -l /o > /tmp/o",
            ]
        return rng.choice(choices)

    def _place(self) -> tuple[int, int] | None:
        places = [(s, i) for s, lines in enumerate(self.stages) for i in range(len(lines))]
        return self.rng.choice(places) if places else None

    def change_line(self) -> None:
        if place := self._place():
            self.stages[place[0]][place[1]] = self.line(place[0])

    def insert_line(self) -> None:
        stage = self.rng.randrange(len(self.stages))
        at = self.rng.randint(0, len(self.stages[stage]))
        self.stages[stage].insert(at, self.line(stage))

    def remove_line(self) -> None:
        if (place := self._place()) and len(self.stages[place[0]]) > 1:
            del self.stages[place[0]][place[1]]

    def swap_lines(self) -> None:
        stage = self.rng.randrange(len(self.stages))
        self.rng.shuffle(self.stages[stage])

    def change_argument(self) -> None:
        self.args = self.rng.choice(({"V": "1"}, {"V": "2"}, {"V": ""}, {}, {"W": "5"}))
