"""Two other readers of Dockerfiles, and what they say in one common form.

`dockerfile` is the parser of an older BuildKit, compiled; `e2b_dockerfile_utils` is a port of a
recent one. Both only split lines into words, so the common form is that, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import dockerfile
import e2b_dockerfile_utils

from layercache.dockerfile._instruction import DockerfileInstruction
from layercache.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    HereDoc,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from layercache.dockerfile.syntax.heredocs import parse_marker
from layercache.dockerfile.syntax.parser import parse
from layercache.errors import DockerfileError

Line: TypeAlias = tuple[str, int, int, tuple[str, ...]]
"""Name, first and last line, arguments; None in place of a list of lines is a refusal."""


def _marker(word: str) -> str:
    heredoc = parse_marker(word)
    return word if heredoc is None else heredoc.marker


def _arguments(i: DockerfileInstruction) -> tuple[str, ...]:
    match i:
        case From():
            return (i.image,) if i.alias is None else (i.image, "as", i.alias)
        case Run() | Cmd() | Entrypoint() | Shell():
            command = i.command
            return (command,) * bool(command) if isinstance(command, str) else command
        case Copy() | Add():
            words = [s.marker if isinstance(s, HereDoc) else s for s in i.sources]
            return (*words, i.destination)
        case Env() | Label():
            return tuple(word for pair in i.pairs for word in pair)
        case Arg():
            return tuple(n if d is None else f"{n}={d}" for n, d in i.arguments)
        case Expose() | Volume():
            return i.words
        case User() | Workdir() | Stopsignal() | Maintainer():
            return (i.value,)
        case Healthcheck():
            if i.command is None:
                return ("NONE",)
            return ("CMD", i.command) if isinstance(i.command, str) else ("CMD", *i.command)
        case Onbuild():
            return (i.trigger.op, *_arguments(i.trigger))
        case _:
            raise AssertionError(i)


def ours(text: str) -> list[Line] | None:
    """What this library reads."""
    try:
        instructions = parse(text).instructions
    except DockerfileError:
        return None
    lines: list[Line] = []
    for i in instructions:
        assert i.location is not None
        lines.append((i.op, i.location.line, i.location.end_line, _arguments(i)))
    return lines


def _common(name: str, words: Sequence[str]) -> tuple[str, ...]:
    """The words of an oracle in the form of `_arguments`."""
    op = name.upper()
    if op == "FROM":
        return (words[0], *(word.lower() for word in words[1:])) if words else ()
    if op in ("ADD", "COPY"):
        return tuple(map(_marker, words))
    if op == "HEALTHCHECK":
        return (words[0].upper(), *words[1:]) if words else ()
    if op == "VOLUME":
        return tuple(word.strip() for word in words)
    return tuple(words)


def older_buildkit(text: str) -> list[Line] | None:
    """What `dockerfile` reads."""
    try:
        commands = dockerfile.parse_string(text)
    except (dockerfile.GoParseError, ValueError):
        return None
    lines: list[Line] = []
    for c in commands:
        words = _common(c.sub_cmd or c.cmd or "", c.value)
        if (c.cmd or "").upper() == "ONBUILD":
            words = ((c.sub_cmd or "").upper(), *words)
        lines.append(((c.cmd or "").upper(), c.start_line, c.end_line, words))
    return lines


def recent_buildkit(text: str) -> list[Line] | None:
    """What `e2b_dockerfile_utils` reads; it does not look into ONBUILD."""
    try:
        found = e2b_dockerfile_utils.parse_dockerfile_ast(text).instructions
    except e2b_dockerfile_utils.DockerfileSyntaxError:
        return None
    lines: list[Line] = []
    for i in found:
        words = i.args
        if i.name in ("ENV", "LABEL"):  # name, value and the separator between them
            words = [word for index, word in enumerate(words) if index % 3 != 2]
        lines.append((i.name, i.start_line, i.end_line, _common(i.name, words)))
    return lines


def without_triggers(lines: list[Line] | None) -> list[Line] | None:
    """The lines with nothing of what stands behind ONBUILD."""
    if lines is None:
        return None
    return [line if line[0] != "ONBUILD" else (*line[:3], ()) for line in lines]
