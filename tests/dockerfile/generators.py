"""Dockerfiles made at random, from a seed: mostly right ones, and scrambled ones."""

from __future__ import annotations

import random

_NAMES = ["a", "B", "foo", "a_b", "x1"]
_VALUES = [
    "1",
    "v",
    '"two words"',
    "'single $a'",
    "a@ b",
    "$a",
    "${B:-d}",
    "${foo#x}",
    '"x$a"',
    "",
    "a=b",
    "é",
]
_OPS = ["RUN", "RUN", "RUN", "COPY", "COPY", "ADD", "ENV", "LABEL", "ARG", "CMD", "ENTRYPOINT"]
_OPS += ["EXPOSE", "VOLUME", "USER", "WORKDIR", "STOPSIGNAL", "SHELL", "HEALTHCHECK", "ONBUILD"]
_PATHS = ["a", "./b/", "*.txt", "/x", "$a/y", "d", "c/../e", "/dst/", '"q"', "."]
_SHELL = [
    "echo hi",
    "a && b",
    "echo 'x  y'",
    'echo "$A"',
    "true   # note",
    "[ -f x ] || y",
    "[[ a ]]",
    "echo a\\ b",
    "cat < x > y",
    "echo $((1+2))",
    "echo ${x%y}",
]
_JSON = ['["a"]', '[ "a" , "b c" ]', '["\\u00e9", "\\"q\\""]', "[]", '["a",""]']


class Maker:
    """Makes Dockerfiles; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.escape = "\\"

    def pick(self, choices: list[str]) -> str:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def dockerfile(self, *, escapes: bool = True) -> str:
        """A file that reads without error."""
        lines: list[str] = []
        self.escape = "\\"
        if escapes and self.chance(0.15):
            self.escape = "`"
            lines.append("# escape=`")
        if self.chance(0.1):
            lines.append("# syntax=docker/dockerfile:1")
        if self.chance(0.2):
            lines.append("ARG V=1")
        for number in range(self.random.randint(1, 3)):
            lines.append(self.keyword("FROM") + " base" + (f" AS s{number}" * self.chance(0.5)))
            for _ in range(self.random.randint(0, 6)):
                if self.chance(0.1):
                    lines.append(self.pick(["# comment", "", "   ", "  # indented"]))
                lines.extend(self.instruction().split("\n"))
        ending = "\r\n" if self.chance(0.1) and not any("<<" in line for line in lines) else "\n"
        return ending.join(lines) + (ending if self.chance(0.9) else "")

    def keyword(self, name: str) -> str:
        blanks = " " * (self.random.randint(0, 2) if self.chance(0.1) else 0)
        return blanks + (name if self.chance(0.8) else self.pick([name.lower(), name.title()]))

    def blanks(self) -> str:
        return " " if self.chance(0.8) else self.pick(["  ", "\t", " \t "])

    def instruction(self) -> str:
        name = self.pick(_OPS)
        rest: str = getattr(self, "_" + name.lower())()
        if self.chance(0.15):
            rest = self.continued(rest)
        return self.keyword(name) + self.blanks() + rest

    def continued(self, text: str) -> str:
        """`text` broken at one of its blanks, sometimes with a comment between."""
        if "<<" in text or " " not in text or self.escape in text:
            return text
        at = self.pick([str(i) for i, char in enumerate(text) if char == " "])
        middle = self.pick(["", "", "# note\n", "  # note\n"])
        return f"{text[: int(at)]} {self.escape}\n{middle}{text[int(at) :]}"

    def _run(self) -> str:
        flags = ""
        if self.chance(0.2):
            flags = self.pick(
                ["--mount=type=cache,target=/c ", "--network=none ", "--mount=target=/m,from=s0 "]
            )
        if self.chance(0.15):
            return flags + self.heredoc("cat ", " > /x")
        return flags + self.pick(_SHELL + _JSON)

    def heredoc(self, before: str, after: str) -> str:
        mark = self.pick(["EOF", "'EOF'", '"EOF"', "-EOF"])
        body = "\n".join(
            self.pick(["line", "\ttab", "v=$a", "# no comment", "", "FROM x"]) for _ in "ab"
        )
        return f"{before}<<{mark}{after}\n{body}\nEOF"

    def _copy(self) -> str:
        flags = self.pick(["--from=s0 ", "--chown=1:2 ", "--link "]) if self.chance(0.3) else ""
        if self.chance(0.1):
            return flags + self.heredoc("", " /x")
        if self.chance(0.1):
            return flags + '["a b", "/x y/"]'
        return flags + " ".join(self.pick(_PATHS) for _ in range(self.random.randint(2, 4)))

    def _add(self) -> str:
        return " ".join(self.pick(_PATHS) for _ in range(self.random.randint(2, 3)))

    def _pair(self) -> str:
        value = self.pick(_VALUES).replace("@", self.escape)
        return f"{self.pick(_NAMES)}={value}"

    def _env(self) -> str:
        if self.chance(0.2):
            return self.pick(_NAMES) + " " + self.pick(["v", "two  words", '"q x" y', "$a b"])
        return " ".join(self._pair() for _ in range(self.random.randint(1, 3)))

    _label = _env

    def _arg(self) -> str:
        return " ".join(
            self._pair() if self.chance(0.5) else self.pick(_NAMES)
            for _ in range(self.random.randint(1, 2))
        )

    def _cmd(self) -> str:
        return self.pick(_SHELL + _JSON)

    _entrypoint = _cmd

    def _expose(self) -> str:
        return self.pick(["80", "80/tcp 53/udp", "$a", "8000-8010"])

    def _volume(self) -> str:
        return self.pick(["/data", "/a /b", '["/v"]', "$a"])

    def _user(self) -> str:
        return self.pick(["app", "1:1", "$a", "a b"])

    def _workdir(self) -> str:
        return self.pick(["/app", "rel", "$a/x", '"/with blank"', "/a b"])

    def _stopsignal(self) -> str:
        return self.pick(["SIGTERM", "9", "$a"])

    def _shell(self) -> str:
        return self.pick(['["/bin/bash", "-c"]', '["sh"]'])

    def _healthcheck(self) -> str:
        if self.chance(0.2):
            return "NONE"
        flags = self.pick(["", "--interval=5s ", "--retries=3 --timeout=1m "])
        return (
            f"{flags}CMD {self.pick(['curl x', 'true   y', '[' + chr(34) + 'x' + chr(34) + ']'])}"
        )

    def _onbuild(self) -> str:
        return self.pick(["RUN make", "COPY . .", "ENV a=b", 'RUN ["x"]'])

    def scrambled(self) -> str:
        """A file with pieces removed, doubled, swapped or foreign to it."""
        text = list(self.dockerfile())
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(text) + 1)
            match self.random.randrange(4):
                case 0:
                    del text[at : at + self.random.randint(1, 8)]
                case 1:
                    text[at:at] = text[at : at + self.random.randint(1, 20)]
                case 2:
                    text.insert(at, self.pick(list("\\`'\"$<{}[]#=\n\r\t ,-\0\ufeff\u3000")))
                case 3:
                    piece = text[at : at + 10]
                    del text[at : at + 10]
                    other = self.random.randrange(len(text) + 1)
                    text[other:other] = piece
        return "".join(text)
