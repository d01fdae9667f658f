"""A rule of good Dockerfiles, and one place that violates it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from layercache._base.classes import frozen
from layercache.errors import Problem

__all__ = ["CheckRule", "Severity", "Violation"]

Severity: TypeAlias = Literal["error", "warning", "note"]
"""How much a violation matters: `error` a build that goes wrong or gives a secret away,
`warning` a build that surprises, `note` a matter of style or of time."""


_PAGE: Final = "https://github.com/layercache/layercache/blob/main/docs/reference/checks.md"


@frozen
class CheckRule:
    """One rule. `name` is the name for `# check=skip=`, `summary` one sentence for people.

    An `experimental` rule is off unless it is asked for. `own` rules are layercache's; the others
    have the names and the meaning of the Dockerfile reference ("Build checks").
    """

    name: str
    summary: str
    severity: Severity = "warning"
    experimental: bool = False
    own: bool = False

    @property
    def page(self) -> str:
        """The URL of its place in the documentation."""
        return f"{_PAGE}#{self.name.lower()}"


@frozen
class Violation:
    """One violation: the rule, the place with the message, and the last line of the instruction."""

    rule: CheckRule
    problem: Problem
    end_line: int

    def __str__(self) -> str:
        place = f"{self.problem.name}:{self.problem.line}"
        first, *more = str(self.problem).removeprefix(f"{place}: ").split("\n")
        head = f"{place}: {self.rule.severity}: {first} [{self.rule.name}]"
        return "\n".join([head, *more])
