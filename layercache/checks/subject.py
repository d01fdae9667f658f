"""What the rules look at: a parsed Dockerfile with its stages, its lines and its comments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

from layercache._base.classes import frozen
from layercache.checks.rule import CheckRule
from layercache.dockerfile._instruction import DockerfileInstruction, Location
from layercache.dockerfile.instructions import Arg, From
from layercache.dockerfile.lowering.stage_graph import RecipeStages, StageText
from layercache.dockerfile.lowering.variables import automatic_arguments
from layercache.dockerfile.syntax.expansion import Expansion, expand
from layercache.dockerfile.syntax.faults import nearest
from layercache.dockerfile.syntax.lexer import split_instruction
from layercache.dockerfile.syntax.limits import Budget
from layercache.dockerfile.syntax.parser import Parsed
from layercache.errors import DockerfileError
from layercache.trees.patterns import Ignore

__all__ = ["Remark", "Report", "Subject", "begins", "placed", "written"]


@frozen
class Remark:
    """One violation as a rule reports it: the place, the message, and the word to mark."""

    rule: CheckRule
    at: Location
    message: str
    word: str = ""
    expected: str | None = None
    suggestion: str | None = None


_COMPARISON: Final = 200
"""Steps that one name costs in the search for a similar one."""

Report: TypeAlias = Callable[[Remark], None]


@frozen(kw_only=True)
class Subject:
    """One Dockerfile, ready to be checked.

    `arguments` are the build arguments that were passed, `ignore` the context's ignore file (None
    if there is none or it is not known), `environment` gives the variables of a base image by
    its reference, or None where they are not known. All rules together spend from `budget`.
    """

    parsed: Parsed
    lines: Sequence[str]
    preamble: tuple[Arg, ...]
    stages: RecipeStages
    arguments: Mapping[str, str]
    ignore: Ignore | None
    environment: Callable[[str], Mapping[str, str] | None]
    budget: Budget

    @property
    def instructions(self) -> tuple[DockerfileInstruction, ...]:
        return self.parsed.instructions

    @property
    def automatic(self) -> dict[str, str]:
        """The automatic platform arguments, for this machine unless one was passed."""
        platform = self.arguments.get("TARGETPLATFORM", "linux/amd64")
        return automatic_arguments(platform, self.arguments.get("BUILDPLATFORM", platform))

    def expansion(self, word: str, values: Mapping[str, str]) -> Expansion | None:
        """The expansion of `word`; None if it is malformed, which a build reports.

        Raises `DockerfileError` if the file takes too many steps.
        """
        try:
            return expand(word, values, escape=self.parsed.escape, budget=self.budget)
        except DockerfileError:
            if self.budget.used > self.budget.limit:
                raise
            return None

    def nearest(self, name: str, known: Collection[str]) -> str | None:
        """The name that `name` is most likely a misspelling of, or None."""
        self.budget.spend(_COMPARISON * len(known))
        return nearest(name, known)

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


def begins(stage: StageText) -> From:
    """The FROM of a stage; a parsed Dockerfile has one for each."""
    assert stage.first is not None
    return stage.first
