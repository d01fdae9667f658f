"""Stages as written: how a recipe falls into them, which of them a target needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from layercache.dockerfile.instructions import Arg, Copy, From, Onbuild, Run
from layercache.dockerfile.options import Options
from layercache.dockerfile.places import AnyInstruction, located, problem
from layercache.dockerfile.scopes import Variables
from layercache.errors import DockerfileError, Problem, UsageError

__all__ = [
    "StageText",
    "check_references",
    "find_stage",
    "find_target",
    "is_later_stage",
    "reachable",
    "split_stages",
]


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


def check_references(stages: Sequence[StageText]) -> None:
    """What no build of the recipe can get right, whether the stage is needed or not."""
    for stage in stages:
        for instruction in stage.body:
            for name in references(instruction) if isinstance(instruction, Copy) else ():
                if name.isdigit() and int(name) >= len(stages):
                    raise problem(instruction, f"there is no stage {name}: invalid stage index")


def reachable(
    stages: Sequence[StageText], roots: Collection[int], variables: Variables, options: Options
) -> frozenset[int]:
    """The stages that `roots` need, by the names that their instructions give."""
    found = set(roots)
    for stage in reversed(stages):
        if stage.number not in found:
            continue
        names = [name for instruction in stage.body for name in references(instruction)]
        if stage.first is not None:
            base = located(stage.first, variables.expand, stage.first.image)
            number = find_stage(stages, stage.number, base, options)
            if number is not None and not base.isdigit():
                found.add(number)
                names += _triggered(stages[number])
        for name in names:
            number = find_stage(stages, stage.number, name, options)
            if number is not None:
                found.add(number)
    return frozenset(found)


def _triggered(stage: StageText) -> list[str]:
    """What the triggers of a stage name in the stage that is made from it."""
    triggers = [i.trigger for i in stage.body if isinstance(i, Onbuild)]
    return [name for trigger in triggers for name in references(trigger)]


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
    if options.context_named(name) is not None:
        return None
    for stage in stages[:before]:
        if stage.alias == lower:
            return stage.number
    if name.isdigit() and int(name) < before:
        return int(name)
    return None


def is_later_stage(stages: Sequence[StageText], number: int, name: str) -> bool:
    """Whether `name` is that of the stage `number` itself or of one after it."""
    if name.isdigit():
        return number <= int(name) < len(stages)
    return any(stage.alias == name.lower() for stage in stages[number:])
