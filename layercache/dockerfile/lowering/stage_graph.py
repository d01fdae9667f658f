"""The stages of a recipe as written, the arguments before them, and the stages that a target
needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from layercache._base.classes import field, frozen
from layercache.dockerfile.instructions import Arg, Copy, From, Onbuild, Run
from layercache.dockerfile.lowering.options import Options
from layercache.dockerfile.lowering.origins import AnyInstruction, located, problem
from layercache.dockerfile.lowering.variables import Variables
from layercache.dockerfile.syntax.limits import Budget
from layercache.errors import DockerfileError, Problem, UsageError

__all__ = [
    "RecipeStages",
    "StageText",
    "check_references",
    "global_variables",
    "reachable",
    "split_stages",
]


@frozen
class StageText:
    """One stage as written: its FROM (None for a list without one) and the following
    instructions.
    """

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


@frozen
class RecipeStages:
    """All stages of a recipe, found by name or number."""

    all: tuple[StageText, ...]
    _by_name: Mapping[str, tuple[int, ...]] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        names: dict[str, tuple[int, ...]] = {}
        for stage in self.all:
            if stage.alias:
                names[stage.alias] = (*names.get(stage.alias, ()), stage.number)
        object.__setattr__(self, "_by_name", names)

    def find(self, before: int, name: str, options: Options) -> int | None:
        """The earlier stage of this name (letter case aside) or number; named contexts win.

        Of stages of one name the last counts.
        """
        if options.context_named(name) is not None:
            return None
        number = self._named(name)
        return number if number is not None and number < before else None

    def base(self, before: int, name: str, options: Options) -> int | None:
        """The stage that FROM begins with: of several of one name the last before it."""
        if name.isdigit() or options.context_named(name) is not None:
            return None
        earlier = [number for number in self._by_name.get(name.lower(), ()) if number < before]
        return earlier[-1] if earlier else None

    def is_later(self, number: int, name: str) -> bool:
        """Whether `name` refers to the stage `number` itself or to a later one."""
        found = self._named(name)
        return found is not None and found >= number

    def target(self, name: str | None) -> int:
        """The stage to build: the last one, or the one with this name. Raises `UsageError`."""
        if not name:
            return len(self.all) - 1
        numbers = self._by_name.get(name.lower())
        if numbers is None:
            names = ", ".join(self._by_name) or "none of the stages has a name"
            raise UsageError(f"target stage {name!r} is not in the recipe (there are: {names})")
        return numbers[-1]

    def _named(self, name: str) -> int | None:
        numbers = self._by_name.get(name.lower())
        number = None if numbers is None else numbers[-1]
        if number is None and name.isdecimal() and len(name) < 10:
            number = int(name)
        return number if number is not None and number < len(self.all) else None


def split_stages(instructions: Sequence[AnyInstruction]) -> tuple[list[Arg], RecipeStages]:
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
    return preamble, RecipeStages(tuple(stages))


def global_variables(
    preamble: Sequence[Arg], automatic: Mapping[str, str], options: Options, budget: Budget
) -> Variables:
    """What FROM sees: the `automatic` arguments, and the ARGs before the first FROM."""
    variables = Variables(escape=options.escape, budget=budget)
    for name, value in automatic.items():
        variables.set(name, options.args.get(name, value))
    for instruction in preamble:
        for name, default in instruction.arguments:
            if name in options.args:
                variables.declare(name, options.args[name])
            elif default is not None:
                variables.declare(name, located(instruction, variables.expand, default))
            else:
                variables.declare(name, variables.get(name))
    return variables


def check_references(stages: RecipeStages) -> None:
    """Report references that are wrong in every build, whether the stage is needed or not."""
    for stage in stages.all:
        for instruction in stage.body:
            for name in references(instruction) if isinstance(instruction, Copy) else ():
                if name.isdecimal() and not stages.is_later(0, name):
                    raise problem(instruction, f"the file has no stage {name}: invalid stage index")


def reachable(
    stages: RecipeStages, roots: Collection[int], variables: Variables, options: Options
) -> frozenset[int]:
    """The stages that `roots` need, according to the names in their instructions."""
    found = set(roots)
    asked: set[int] = set()
    for stage in reversed(stages.all):
        if stage.number not in found:
            continue
        names = [name for instruction in stage.body for name in references(instruction)]
        if stage.first is not None:
            base = located(stage.first, variables.expand, stage.first.image)
            number = stages.base(stage.number, base, options)
            if number is not None:
                found.add(number)
                if number not in asked:
                    # A later heir finds all that an earlier one does: once is enough.
                    asked.add(number)
                    names += _triggered(stages.all[number])
        for name in names:
            number = stages.find(stage.number, name, options)
            if number is not None:
                found.add(number)
    return frozenset(found)


def _triggered(stage: StageText) -> list[str]:
    """The names in the triggers of a stage, used by the stage that is based on it."""
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
