"""What the rules look at: a parsed Dockerfile with its stages, its lines and its comments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from layercache._base.classes import frozen
from layercache.checks.rule import CheckRule
from layercache.dockerfile._instruction import DockerfileInstruction, Location
from layercache.dockerfile.instructions import Arg, From
from layercache.dockerfile.syntax.lexer import split_instruction
from layercache.dockerfile.syntax.parser import Parsed
from layercache.trees.patterns import Ignore

__all__ = ["CheckedStage", "Remark", "Report", "Subject", "written"]


@frozen
class Remark:
    """One violation as a rule reports it: the place, the message, and the word to mark."""

    rule: CheckRule
    at: Location
    message: str
    word: str = ""
    expected: str | None = None
    suggestion: str | None = None


Report: TypeAlias = Callable[[Remark], None]


@frozen
class CheckedStage:
    """One stage: its FROM and the instructions after it."""

    first: From
    body: tuple[DockerfileInstruction, ...]


@frozen(kw_only=True)
class Subject:
    """One Dockerfile, ready to be checked.

    `arguments` are the build arguments that were passed, `ignore` the context's ignore file (None
    if there is none or it is not known), `environment` gives the variables of a base image by
    its reference, or None where they are not known.
    """

    parsed: Parsed
    lines: Sequence[str]
    preamble: tuple[Arg, ...]
    stages: tuple[CheckedStage, ...]
    arguments: Mapping[str, str]
    ignore: Ignore | None
    environment: Callable[[str], Mapping[str, str] | None]

    @property
    def instructions(self) -> tuple[DockerfileInstruction, ...]:
        return self.parsed.instructions

    def comments_above(self, instruction: DockerfileInstruction) -> list[str]:
        """The comment lines directly above an instruction, without their `#`, from the top."""
        line = placed(instruction).line - 1
        found: list[str] = []
        while line > 0 and (text := self.lines[line - 1].strip()).startswith("#"):
            found.append(text[1:].strip())
            line -= 1
        return found[::-1]


def placed(instruction: DockerfileInstruction) -> Location:
    """The position of a parsed instruction."""
    assert instruction.location is not None
    return instruction.location


def written(instruction: DockerfileInstruction, escape: str) -> tuple[str, list[str], str]:
    """The keyword as written, the flags and the rest of an instruction; no here-document."""
    return split_instruction(instruction.text.split("\n", 1)[0], escape)


def split(instructions: Sequence[DockerfileInstruction]) -> tuple[list[Arg], list[CheckedStage]]:
    """ARG lines before the first FROM, and the stages."""
    preamble: list[Arg] = []
    stages: list[CheckedStage] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            stages.append(CheckedStage(instruction, ()))
        elif stages:
            last = stages[-1]
            stages[-1] = CheckedStage(last.first, (*last.body, instruction))
        elif isinstance(instruction, Arg):
            preamble.append(instruction)
    return preamble, stages


def bodies(subject: Subject) -> Iterator[tuple[CheckedStage, DockerfileInstruction]]:
    """Every instruction but FROM, with its stage."""
    for stage in subject.stages:
        for instruction in stage.body:
            yield stage, instruction
