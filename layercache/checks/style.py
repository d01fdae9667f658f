"""Rules of writing: letter case, names, forms of instructions, what counts once."""

from __future__ import annotations

from typing import Final

from layercache.checks.rule import CheckRule
from layercache.checks.subject import Remark, Report, Subject, begins, placed, written
from layercache.dockerfile._instruction import Location
from layercache.dockerfile.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Shell,
    Workdir,
)
from layercache.dockerfile.syntax.words import split_blanks, split_words

__all__ = ["check_style"]

STAGE_NAME_CASING: Final = CheckRule("StageNameCasing", "Stage names are lower case.", "note")
FROM_AS_CASING: Final = CheckRule(
    "FromAsCasing", "AS is written in the letter case of its FROM.", "note"
)
NO_EMPTY_CONTINUATION: Final = CheckRule(
    "NoEmptyContinuation", "No empty line continues an instruction; it will become an error."
)
CONSISTENT_INSTRUCTION_CASING: Final = CheckRule(
    "ConsistentInstructionCasing",
    "All instructions are written in one letter case, upper or lower.",
    "note",
)
DUPLICATE_STAGE_NAME: Final = CheckRule("DuplicateStageName", "Stage names are unique.")
RESERVED_STAGE_NAME: Final = CheckRule(
    "ReservedStageName", "A stage is not named `scratch` or `context`."
)
JSON_ARGS_RECOMMENDED: Final = CheckRule(
    "JSONArgsRecommended",
    "CMD and ENTRYPOINT are JSON lists, so that signals reach the program and not a shell.",
)
MAINTAINER_DEPRECATED: Final = CheckRule(
    "MaintainerDeprecated", "A label names the author, not the deprecated MAINTAINER."
)
WORKDIR_RELATIVE_PATH: Final = CheckRule(
    "WorkdirRelativePath",
    "The first WORKDIR of a stage is absolute, so that it does not depend on the base image.",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED: Final = CheckRule(
    "MultipleInstructionsDisallowed",
    "CMD, ENTRYPOINT and HEALTHCHECK stand once in a stage: only the last one counts.",
)
LEGACY_KEY_VALUE_FORMAT: Final = CheckRule(
    "LegacyKeyValueFormat", "ENV, LABEL and ARG are written with `=`, not with white space."
)
EXPOSE_PROTO_CASING: Final = CheckRule(
    "ExposeProtoCasing", "The protocol of EXPOSE is lower case.", "note"
)
EXPOSE_INVALID_FORMAT: Final = CheckRule(
    "ExposeInvalidFormat", "EXPOSE names a port of the container, no address and no host port."
)
INVALID_DEFINITION_DESCRIPTION: Final = CheckRule(
    "InvalidDefinitionDescription",
    "A comment directly above FROM … AS or ARG begins with the name that it describes.",
    "note",
    experimental=True,
)

_RESERVED: Final = ("scratch", "context")


def check_style(subject: Subject, report: Report) -> None:
    """Apply the rules of this module."""
    _casing(subject, report)
    _stages(subject, report)
    _continuations(subject, report)
    _forms(subject, report)
    _once(subject, report)
    _descriptions(subject, report)


def _casing(subject: Subject, report: Report) -> None:
    words = [
        (instruction, written(instruction, subject.parsed.escape)[0])
        for instruction in subject.instructions
    ]
    lower = sum(word == word.lower() for _, word in words)
    upper = sum(word == word.upper() for _, word in words)
    right, name = (str.lower, "lower") if lower > upper else (str.upper, "upper")
    for instruction, word in words:
        if word != right(word):
            report(
                Remark(
                    CONSISTENT_INSTRUCTION_CASING,
                    placed(instruction),
                    f"{word} is not in {name} case, as most instructions of this file are",
                    word,
                    expected=right(word),
                )
            )


def _stages(subject: Subject, report: Report) -> None:
    seen: dict[str, int] = {}
    for stage in subject.stages.all:
        first = begins(stage)
        at = placed(first)
        keyword, _, rest = written(first, subject.parsed.escape)
        words = split_blanks(rest)
        if not stage.alias or len(words) != 3:
            continue
        _, joint, alias = words
        if alias != alias.lower():
            report(
                Remark(
                    STAGE_NAME_CASING,
                    at,
                    f"the name of the stage {alias} is not lower case",
                    alias,
                    expected=alias.lower(),
                )
            )
        if keyword in (keyword.lower(), keyword.upper()):
            same = joint.lower() if keyword == keyword.lower() else joint.upper()
            if joint != same:
                report(
                    Remark(
                        FROM_AS_CASING,
                        at,
                        f"{joint} and {keyword} are not in the same letter case",
                        joint,
                        expected=same,
                    )
                )
        name = stage.alias
        if name in _RESERVED:
            report(Remark(RESERVED_STAGE_NAME, at, f"{name} is a reserved name", alias))
        if name in seen:
            report(
                Remark(
                    DUPLICATE_STAGE_NAME,
                    at,
                    f"a stage {name} stands in line {seen[name]} already: the last one counts",
                    alias,
                )
            )
        seen.setdefault(name, at.line)


def _continuations(subject: Subject, report: Report) -> None:
    for line in subject.parsed.empty_continuations:
        at = Location(subject.parsed.name, line, line)
        report(Remark(NO_EMPTY_CONTINUATION, at, "an empty line continues an instruction"))


def _forms(subject: Subject, report: Report) -> None:
    escape = subject.parsed.escape
    for instruction in subject.instructions:
        at = placed(instruction)
        if isinstance(instruction, Maintainer):
            report(
                Remark(
                    MAINTAINER_DEPRECATED,
                    at,
                    "MAINTAINER is deprecated",
                    expected="LABEL org.opencontainers.image.authors=…",
                )
            )
        elif isinstance(instruction, Env | Label):
            rest = written(instruction, escape)[2]
            words = split_words(rest, escape)
            if words and "=" not in words[0]:
                op = instruction.op
                report(
                    Remark(
                        LEGACY_KEY_VALUE_FORMAT,
                        at,
                        f"{op} {words[0]} is written with white space before its value",
                        words[0],
                        expected=f"{op} {words[0]}=VALUE",
                    )
                )
        elif isinstance(instruction, Expose):
            for port in instruction.words:
                _port(port, at, report)
    for stage in subject.stages.all:
        workdir = next((each for each in stage.body if isinstance(each, Workdir)), None)
        if workdir is not None and not workdir.value.lstrip("\"'").startswith(("/", "$")):
            report(
                Remark(
                    WORKDIR_RELATIVE_PATH,
                    placed(workdir),
                    f"{workdir.value} is relative to whatever the base image sets",
                    workdir.value,
                    expected="an absolute path, or a WORKDIR with one before it",
                )
            )


def _port(port: str, at: Location, report: Report) -> None:
    number, slash, protocol = port.rpartition("/")
    if slash and protocol != protocol.lower() and "$" not in protocol:
        report(
            Remark(
                EXPOSE_PROTO_CASING,
                at,
                f"the protocol of {port} is not lower case",
                port,
                expected=f"{number}/{protocol.lower()}",
            )
        )
    if ":" in (number if slash else port) and "$" not in port:
        report(
            Remark(
                EXPOSE_INVALID_FORMAT,
                at,
                f"{port} names an address or a port of the host, which EXPOSE has no use for",
                port,
                expected="PORT[/PROTOCOL], a port of the container",
            )
        )


def _once(subject: Subject, report: Report) -> None:
    for stage in subject.stages.all:
        earlier: dict[str, Cmd | Entrypoint | Healthcheck] = {}
        shell = False
        for instruction in stage.body:
            if isinstance(instruction, Shell):
                shell = True
            if not isinstance(instruction, Cmd | Entrypoint | Healthcheck):
                continue
            op = instruction.op
            if op in earlier:
                report(
                    Remark(
                        MULTIPLE_INSTRUCTIONS_DISALLOWED,
                        placed(earlier[op]),
                        f"this {op} has no effect: line {placed(instruction).line} replaces it",
                        op,
                    )
                )
            earlier[op] = instruction
            if isinstance(instruction, Healthcheck) or shell:
                continue
            if isinstance(instruction.command, str):
                report(
                    Remark(
                        JSON_ARGS_RECOMMENDED,
                        placed(instruction),
                        f"a shell runs this {op}, and signals end at the shell",
                        op,
                        expected=f'{op} ["PROGRAM", "ARGUMENT", …]',
                    )
                )


def _descriptions(subject: Subject, report: Report) -> None:
    for instruction in subject.instructions:
        if isinstance(instruction, Arg):
            names = [name for name, _ in instruction.arguments]
        elif isinstance(instruction, From) and instruction.alias:
            names = [instruction.alias]
        else:
            continue
        comments = subject.comments_above(instruction)
        if not comments or comments[-1].split(" ", 1)[0] in names:
            continue
        if comments[-1].lower().startswith(("check=", "layercache:")):
            continue
        report(
            Remark(
                INVALID_DEFINITION_DESCRIPTION,
                placed(instruction),
                "the comment above does not describe it",
                expected=f"# {names[0] if len(names) == 1 else 'NAME'} DESCRIPTION, or an empty "
                "line after the comment",
            )
        )


STYLE_RULES: Final = (
    STAGE_NAME_CASING,
    FROM_AS_CASING,
    NO_EMPTY_CONTINUATION,
    CONSISTENT_INSTRUCTION_CASING,
    DUPLICATE_STAGE_NAME,
    RESERVED_STAGE_NAME,
    JSON_ARGS_RECOMMENDED,
    MAINTAINER_DEPRECATED,
    WORKDIR_RELATIVE_PATH,
    MULTIPLE_INSTRUCTIONS_DISALLOWED,
    LEGACY_KEY_VALUE_FORMAT,
    EXPOSE_PROTO_CASING,
    EXPOSE_INVALID_FORMAT,
    INVALID_DEFINITION_DESCRIPTION,
)
