"""Positions of instructions: origins for people, and errors that point at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from layercache._base.regex import expression
from layercache.errors import DockerfileError, Problem, UsageError
from layercache.model.graph import Origin

__all__ = ["AnyInstruction", "is_dockerfile", "located", "origin_of", "problem"]

_USER = expression(r"://[^/\s]{0,4096}@")

AnyInstruction: TypeAlias = Any
"""A Dockerfile instruction, or a value of an embedder's own type (`Instruction`)."""


def is_dockerfile(instruction: AnyInstruction) -> bool:
    """Whether it is an instruction of a Dockerfile rather than an embedder's own."""
    return hasattr(instruction, "op") and hasattr(instruction, "location")


def origin_of(
    instruction: AnyInstruction,
    *,
    stage: int,
    index: int,
    stage_name: str = "",
    onbuild: int | None = None,
    line: int | None = None,
) -> Origin:
    """The position of an instruction, for people."""
    location = getattr(instruction, "location", None)
    known = is_dockerfile(instruction)
    return Origin(
        stage=stage,
        index=index,
        onbuild=onbuild,
        line=line if line is not None else (location.line if location is not None else 0),
        op=instruction.op if known else instruction.name,
        text=instruction.text if known else str(getattr(instruction, "text", instruction.name)),
        stage_name=stage_name,
    )


def problem(instruction: AnyInstruction, message: str) -> DockerfileError:
    """An error at the position of `instruction`."""
    location = getattr(instruction, "location", None)
    # A password in a URL is kept out of messages, even though its author wrote it.
    text = _USER.sub("://…@", getattr(instruction, "text", "") or "")
    return DockerfileError(
        [
            Problem(
                message,
                name=location.name if location is not None else "Dockerfile",
                line=location.line if location is not None else 0,
                source_line=text.partition("\n")[0],
                length=max(1, min(len(text.partition("\n")[0]), 60)),
            )
        ]
    )


def located(instruction: AnyInstruction, function: Callable[[str], Any], word: str) -> Any:
    """`function(word)`, with errors relocated to the position of `instruction`."""
    try:
        return function(word)
    except DockerfileError as error:
        raise problem(instruction, "; ".join(p.message for p in error.problems)) from error
    except UsageError as error:
        raise problem(instruction, str(error)) from error
