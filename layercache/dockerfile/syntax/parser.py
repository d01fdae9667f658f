"""The grammar of Dockerfiles: from text to instruction values, all mistakes reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from layercache._base.classes import evolve, frozen
from layercache.dockerfile import instructions as values
from layercache.dockerfile._instruction import Command, DockerfileInstruction, Location
from layercache.dockerfile.syntax.faults import Fault, Faults, nearest
from layercache.dockerfile.syntax.flags import Flags, parse_device, parse_mount, read_flags
from layercache.dockerfile.syntax.heredocs import HereDoc, parse_marker
from layercache.dockerfile.syntax.lexer import Directives, LogicalLine, read, split_instruction
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.words import (
    SPACE,
    NotStrings,
    json_list,
    split_blanks,
    split_first,
    split_words,
)
from layercache.errors import DockerfileError, Problem, UsageError

__all__ = ["Parsed", "parse", "parse_trigger"]


@frozen
class Parsed:
    """A parsed Dockerfile: its instructions in order, and warnings.

    `empty_continuations` are the lines that are empty within an instruction.
    """

    name: str
    directives: Directives
    instructions: tuple[DockerfileInstruction, ...]
    warnings: tuple[Problem, ...] = ()
    empty_continuations: tuple[int, ...] = ()

    @property
    def escape(self) -> str:
        """The escape character of its words."""
        return self.directives.escape


def parse(
    text: bytes | str,
    name: str = "Dockerfile",
    *,
    limits: RecipeLimits = RecipeLimits(),  # noqa: B008 - frozen
    budget: Budget | None = None,
) -> Parsed:
    """Parse a Dockerfile. Nothing in it is expanded, and only the text is read.

    `name` is the file's name in messages. For any text, raises either nothing or one
    `DockerfileError` with all mistakes of the file.
    """
    return _parse(text, name, limits, budget, whole=True)


def parse_trigger(text: str, name: str = "ONBUILD trigger") -> DockerfileInstruction:
    """Parse the trigger of a base image, one entry of `OnBuild` in its configuration.

    Raises `DockerfileError`, also if it is not exactly one instruction that may be a trigger.
    """
    parsed = _parse(text, name, RecipeLimits(), None, whole=False)
    first = parsed.instructions[0]
    try:
        values.Onbuild(first)
        if len(parsed.instructions) != 1:
            raise UsageError("a trigger is one instruction")
    except UsageError as error:
        line = text.split("\n", 1)[0][:200]
        raise DockerfileError([Problem(str(error), name, 1, source_line=line)]) from None
    return first


def _parse(
    text: bytes | str, name: str, limits: RecipeLimits, budget: Budget | None, whole: bool
) -> Parsed:
    if len(text) > limits.file_bytes:
        message = f"the file is larger than {limits.file_bytes:,} bytes"
        raise DockerfileError([Problem(message, name)])
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    text = text.removeprefix("\ufeff")
    faults = Faults(name, text.split("\n"), limits)
    lexed = read(text, faults, limits, Budget() if budget is None else budget)
    reader = _Parser(name, lexed.directives.escape, faults, whole)
    for number in lexed.empty_continuations[: limits.problems]:
        reader.warn(Fault("an empty line continues an instruction"), number, number)
    for line in lexed.lines:
        reader.read(line)
    if whole and not reader.stages and not faults.problems:
        if not lexed.lines:
            raise DockerfileError([Problem("the file has no instructions", name)])
        faults.add(Fault("no build stage: the file has no FROM"), lexed.lines[0].line)
    elif not lexed.lines and not faults.problems:
        raise DockerfileError([Problem("there is no instruction", name)])
    faults.finish()
    return Parsed(
        name,
        lexed.directives,
        tuple(reader.found),
        tuple(reader.warnings),
        lexed.empty_continuations,
    )


class _Parser:
    """Reads logical lines in order; mistakes go to `faults`."""

    def __init__(self, name: str, escape: str, faults: Faults, whole: bool) -> None:
        self.name = name
        self.whole = whole
        self.escape = escape
        self.faults = faults
        self.found: list[DockerfileInstruction] = []
        self.warnings: list[Problem] = []
        self.stages: set[str | int] = set()

    def warn(self, fault: Fault, line: int, end_line: int) -> None:
        if len(self.warnings) < self.faults.limits.problems:
            self.warnings.append(self.faults.problem(fault, line, end_line))

    def read(self, line: LogicalLine) -> None:
        try:
            instruction = self.instruction(
                line.keyword, line.flags, line.rest, line.heredocs, line.text, line
            )
        except (Fault, UsageError) as error:
            fault = error if isinstance(error, Fault) else Fault(str(error), line.keyword)
            self.faults.add(fault, line.line, line.end_line)
            if line.keyword.upper() == "FROM":
                self.stages.add(
                    len(self.stages)
                )  # so that the following instructions are not reported, too
            return
        self._note(instruction, line)
        self.found.append(instruction)

    def _note(self, instruction: DockerfileInstruction, line: LogicalLine) -> None:
        if isinstance(instruction, values.From):
            alias = instruction.alias
            if alias is not None and alias in self.stages:
                fault = Fault(f"two stages are named {alias}: the last one counts", alias)
                self.warn(fault, line.line, line.end_line)
            if alias in ("scratch", "context"):
                self.warn(Fault(f"{alias} is a reserved name", alias), line.line, line.end_line)
            self.stages.add(len(self.stages) if alias is None else alias)
        elif isinstance(instruction, values.Maintainer):
            fault = Fault(
                "MAINTAINER is deprecated",
                line.keyword,
                expected="LABEL org.opencontainers.image.authors=…",
            )
            self.warn(fault, line.line, line.end_line)

    def instruction(
        self,
        keyword: str,
        flags: Sequence[str],
        rest: str,
        heredocs: Sequence[HereDoc],
        text: str,
        line: LogicalLine,
    ) -> DockerfileInstruction:
        op = keyword.upper()
        build = _GRAMMAR.get(op)
        if build is None:
            raise Fault(
                f"unknown instruction: {keyword}" if keyword else "the instruction is empty",
                keyword,
                suggestion=nearest(op, _GRAMMAR),
            )
        if self.whole and not self.stages and op not in ("ARG", "FROM"):
            raise Fault(
                f"{op} stands before the first FROM", keyword, expected="FROM, or ARG before it"
            )
        context = _Context(self, op, read_flags(op, flags), rest, tuple(heredocs), text, line)
        return build(context)


@frozen
class _Context:
    """One instruction while it is parsed."""

    parser: _Parser
    op: str
    flags: Flags
    rest: str
    heredocs: tuple[HereDoc, ...]
    text: str
    line: LogicalLine

    @property
    def origin(self) -> dict[str, Any]:
        location = Location(self.parser.name, self.line.line, self.line.end_line)
        return {"location": location, "source": self.text}

    @property
    def escape(self) -> str:
        return self.parser.escape

    def need(self, given: object, expected: str) -> None:
        if not given:
            raise Fault(f"{self.op} requires at least one argument", "", expected=expected)

    def command(self, rest: str) -> Command:
        """Exec form if it is a JSON list of strings, otherwise shell form."""
        items = self.json(rest)
        return rest if items is None else tuple(items)

    def json(self, rest: str) -> list[str] | None:
        try:
            return json_list(rest)
        except NotStrings:
            raise Fault(
                f"the JSON list of {self.op} holds something other than strings",
                rest[:1],
                expected='["text", "text"]',
            ) from None

    def paths(self) -> list[str]:
        items = self.json(self.rest)
        return split_blanks(self.rest) if items is None else items


def _from(c: _Context) -> DockerfileInstruction:
    words = split_blanks(c.rest)
    expected = "FROM [--platform=PLATFORM] IMAGE [AS NAME]"
    if len(words) not in (1, 3):
        raise Fault("FROM requires either one or three arguments", "", expected=expected)
    alias = None
    if len(words) == 3:
        if words[1].lower() != "as":
            raise Fault(f"unexpected {words[1]!r} in FROM", words[1], expected=expected)
        alias = words[2]
    try:
        return values.From(words[0], alias, c.flags.text("platform"), **c.origin)
    except UsageError as error:
        raise Fault(str(error), alias or words[0]) from None


def _run(c: _Context) -> DockerfileInstruction:
    command = c.command(c.rest)
    if not command:
        c.parser.warn(Fault("RUN has no command"), c.line.line, c.line.end_line)
    return values.Run(
        command,
        mounts=[parse_mount(text) for text in c.flags.many("mount")],
        network=c.flags.text("network"),
        security=c.flags.text("security"),
        devices=[parse_device(text) for text in c.flags.many("device")],
        heredocs=c.heredocs,
        **c.origin,
    )


def _files(c: _Context) -> list[str | HereDoc]:
    """Sources and destination of COPY and ADD; markers of here-documents are replaced by them."""
    words = c.paths()
    if len(words) < 2:
        raise Fault(
            f"{c.op} requires at least one source and a destination",
            words[0] if words else "",
            expected=f"{c.op} [flags] SOURCE … DESTINATION",
        )
    if not c.heredocs:
        return list(words)
    # Of two bodies with one name the last counts, wherever the name stands.
    bodies = {heredoc.name: heredoc for heredoc in c.heredocs}
    paths: list[str | HereDoc] = []
    for word in words:
        marker = parse_marker(word)
        if marker is None:
            paths.append(word)
        elif marker.name in bodies:
            content = bodies[marker.name].content
            paths.append(evolve(marker, content=content))
        else:
            raise Fault(f"the here-document of {word} has no body", word)
    if sum(isinstance(path, HereDoc) for path in paths) != len(c.heredocs):
        raise Fault(
            f"a here-document of {c.op} is not a whole word", "<<", expected="<<NAME, no blanks"
        )
    if isinstance(paths[-1], HereDoc):
        raise Fault(f"the destination of {c.op} can't be a here-document", words[-1])
    return paths


def _copy(c: _Context) -> DockerfileInstruction:
    paths = _files(c)
    try:
        return values.Copy(
            *paths,
            from_=c.flags.text("from"),
            chown=c.flags.text("chown"),
            chmod=c.flags.text("chmod"),
            link=c.flags.switch("link"),
            parents=c.flags.switch("parents"),
            exclude=c.flags.many("exclude"),
            **c.origin,
        )
    except UsageError as error:
        raise Fault(str(error), "--from") from None


def _add(c: _Context) -> DockerfileInstruction:
    return values.Add(
        *_files(c),
        checksum=c.flags.text("checksum"),
        keep_git_dir=c.flags.switch("keep-git-dir"),
        unpack=c.flags.maybe("unpack"),
        chown=c.flags.text("chown"),
        chmod=c.flags.text("chmod"),
        link=c.flags.switch("link"),
        exclude=c.flags.many("exclude"),
        **c.origin,
    )


def _pairs(c: _Context) -> list[tuple[str, str]]:
    words = split_words(c.rest, c.escape)
    c.need(words, f"{c.op} NAME=VALUE …")
    if "=" not in words[0]:
        name, value = split_first(c.rest)
        if not value and name == c.rest:
            raise Fault(f"{c.op} {name} has no value", name, expected=f"{c.op} {name}=VALUE")
        return [(name, value)]
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Fault(
                f"{word} of {c.op} has no {'=' if not equals else 'name'}",
                word,
                expected=f"{c.op} NAME=VALUE … (quote a value with blanks)",
            )
        pairs.append((name, value))
    return pairs


def _env(c: _Context) -> DockerfileInstruction:
    return values.Env(_pairs(c), **c.origin)


def _label(c: _Context) -> DockerfileInstruction:
    return values.Label(_pairs(c), **c.origin)


def _arg(c: _Context) -> DockerfileInstruction:
    words = split_words(c.rest, c.escape)
    c.need(words, "ARG NAME[=DEFAULT] …")
    arguments: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise Fault("an ARG has no name", word, expected="ARG NAME[=DEFAULT] …")
        arguments.append((name, value if equals else None))
    return values.Arg(*arguments, **c.origin)


def _executed(make: Callable[..., DockerfileInstruction]) -> Callable[[_Context], Any]:
    def build(c: _Context) -> DockerfileInstruction:
        return make(c.command(c.rest), **c.origin)

    return build


def _shell(c: _Context) -> DockerfileInstruction:
    items = c.json(c.rest)
    if not items:
        raise Fault(
            "SHELL requires its arguments in JSON form", c.rest[:40], expected='SHELL ["sh", "-c"]'
        )
    return values.Shell(items, **c.origin)


def _expose(c: _Context) -> DockerfileInstruction:
    words = split_blanks(c.rest)
    c.need(words, "EXPOSE PORT[/PROTOCOL] …")
    return values.Expose(*words, **c.origin)


def _volume(c: _Context) -> DockerfileInstruction:
    words = c.paths()
    c.need(words, "VOLUME PATH …")
    return values.Volume(*words, **c.origin)


def _single(make: Callable[..., DockerfileInstruction]) -> Callable[[_Context], Any]:
    def build(c: _Context) -> DockerfileInstruction:
        if not c.rest:
            raise Fault(f"{c.op} requires exactly one argument")
        return make(c.rest, **c.origin)

    return build


def _healthcheck(c: _Context) -> DockerfileInstruction:
    from layercache.model.units import parse_integer

    expected = "HEALTHCHECK [flags] CMD COMMAND, or HEALTHCHECK NONE"
    c.need(c.rest, expected)
    at = next((i for i, char in enumerate(c.rest) if char in SPACE), len(c.rest))
    kind, rest = c.rest[:at], c.rest[at:].lstrip(SPACE)
    if kind.upper() == "NONE":
        if rest:
            raise Fault("HEALTHCHECK NONE takes no arguments", rest, expected=expected)
        if c.flags.values:
            fault = Fault("HEALTHCHECK NONE has no use for flags", "--")
            c.parser.warn(fault, c.line.line, c.line.end_line)
        return values.Healthcheck(None, **c.origin)
    if kind.upper() != "CMD":
        raise Fault(f"unknown type {kind!r} in HEALTHCHECK", kind, expected=expected)
    retries = c.flags.text("retries")
    return values.Healthcheck(
        c.command(rest),
        interval=c.flags.text("interval"),
        timeout=c.flags.text("timeout"),
        start_period=c.flags.text("start-period"),
        start_interval=c.flags.text("start-interval"),
        retries=None if retries is None else parse_integer(retries),
        **c.origin,
    )


def _onbuild(c: _Context) -> DockerfileInstruction:
    c.need(c.rest, "ONBUILD INSTRUCTION")
    keyword, flags, rest = split_instruction(c.rest, c.escape)
    op = keyword.upper()
    if op == "ONBUILD":
        raise Fault("ONBUILD ONBUILD isn't allowed", c.rest)
    if op in ("FROM", "MAINTAINER"):
        raise Fault(f"{op} isn't allowed as a trigger of ONBUILD", keyword)
    # Not c.text: the image keeps the trigger exactly, blanks and all.
    text = "\n".join([c.rest, *(heredoc.lines for heredoc in c.heredocs)])
    trigger = c.parser.instruction(keyword, flags, rest, c.heredocs, text, c.line)
    return values.Onbuild(trigger, **c.origin)


_GRAMMAR: Final[Mapping[str, Callable[[_Context], DockerfileInstruction]]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _executed(values.Cmd),
    "COPY": _copy,
    "ENTRYPOINT": _executed(values.Entrypoint),
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _single(values.Maintainer),
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _single(values.Stopsignal),
    "USER": _single(values.User),
    "VOLUME": _volume,
    "WORKDIR": _single(values.Workdir),
}
