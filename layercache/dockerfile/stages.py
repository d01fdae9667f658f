"""Stages as written: how a recipe falls into them, which of them a target needs."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from layercache.dockerfile.instructions import Arg, Copy, From, Onbuild, Run
from layercache.dockerfile.options import Options
from layercache.dockerfile.places import AnyInstruction, located, problem
from layercache.dockerfile.scopes import Variables
from layercache.errors import DockerfileError, Problem, UsageError

__all__ = ["StageText", "find_stage", "find_target", "reachable", "split_stages"]


@attrs.frozen
class StageText:
    """One stage as written: its FROM (None for a list without one) and what follows."""

    number: int
    first: From | None
    body: tuple[AnyInstruction, ...]

    @property
    def alias(self) -> str:
        return (self.first.alias or "").lower() if self.first is not None else ""

    @property
    def label(self) -> str:
        """Its name, or its number."""
        return self.alias or str(self.number)


def split_stages(
    instructions: Sequence[AnyInstruction],
) -> tuple[list[Arg], list[StageText]]:
    """ARG lines before the first FROM, and the stages."""
    preamble: list[Arg] = []
    stages: list[StageText] = []
    first: From | None = None
    body: list[AnyInstruction] = []
    begun = not any(isinstance(i, From) for i in instructions)
    for instruction in instructions:
        if isinstance(instruction, From):
            if begun:
                stages.append(StageText(len(stages), first, tuple(body)))
            begun, first, body = True, instruction, []
        elif begun:
            body.append(instruction)
        elif isinstance(instruction, Arg):
            preamble.append(instruction)
        else:
            raise problem(instruction, "no build stage in the current context: FROM comes first")
    if begun and (first is not None or body):
        stages.append(StageText(len(stages), first, tuple(body)))
    if not stages:
        raise DockerfileError([Problem("the file has no instructions", expected="FROM")])
    _check_names(stages)
    return preamble, stages


def _check_names(stages: Sequence[StageText]) -> None:
    seen: dict[str, int] = {}
    for stage in stages:
        if stage.alias and stage.alias in seen:
            raise problem(stage.first, f"there are two stages named {stage.alias!r}")
        seen[stage.alias] = stage.number


def find_target(stages: Sequence[StageText], target: str | None) -> int:
    if not target:
        return stages[-1].number
    for stage in stages:
        if stage.alias == target.lower():
            return stage.number
    names = ", ".join(s.alias for s in stages if s.alias) or "none of the stages has a name"
    raise UsageError(f"target stage {target!r} is not in the recipe (there are: {names})")


def reachable(
    stages: Sequence[StageText], target: int, variables: Variables, options: Options
) -> frozenset[int]:
    """The stages that the target needs, by the names that its stages give."""
    found = {target}
    for stage in reversed(stages):
        if stage.number not in found:
            continue
        names: list[str] = []
        if stage.first is not None:
            names.append(located(stage.first, variables.expand, stage.first.image))
        for instruction in stage.body:
            inner = instruction.trigger if isinstance(instruction, Onbuild) else instruction
            names += references(inner)
        for name in names:
            number = find_stage(stages, stage.number, name, options)
            if number is not None:
                found.add(number)
    return frozenset(found)


def references(instruction: AnyInstruction) -> list[str]:
    """The names of stages, contexts or images that an instruction takes files from."""
    if isinstance(instruction, Copy):
        return [instruction.from_] if instruction.from_ else []
    if isinstance(instruction, Run):
        named = [getattr(mount, "from_", None) for mount in instruction.mounts]
        return [name for name in named if name]
    return []


def find_stage(stages: Sequence[StageText], before: int, name: str, options: Options) -> int | None:
    """The earlier stage called `name` (letter case aside) or numbered so; named contexts win."""
    lower = name.lower()
    if lower in options.contexts:
        return None
    for stage in stages[:before]:
        if stage.alias == lower:
            return stage.number
    if name.isdigit() and int(name) < before:
        return int(name)
    return None
