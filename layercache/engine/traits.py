"""The executor's traits for the steps of a graph, and its check of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeGuard

from layercache._base.classes import evolve
from layercache.errors import LayerCacheError
from layercache.model.framing import share
from layercache.model.graph import Graph, Origin, Step, Vertex
from layercache.model.instruction import Field, Instruction
from layercache.model.task import ChecksInstructions, Executor, StepTraits

__all__ = ["check_steps", "stage_of", "traits_of", "with_traits"]


def with_traits(
    graph: Graph, executor: Callable[[], Executor], trace: str | Callable[[Origin], str]
) -> Graph:
    """`graph` with the executor's traits on the steps that execute commands.

    `executor` gives it, and is called only where there is such a step. `trace` says whether a
    step is to be watched, for all or for the step of an origin.
    """
    vertices = list(graph.vertices)
    needed = graph.needed()
    commands = [
        (number, vertex)
        for number, vertex in enumerate(vertices)
        if number in needed and _runs_commands(vertex)
    ]
    if not commands:
        return graph
    steps = [step for _, step in commands]
    for (number, step), traits in zip(commands, _traits_of(steps, executor()), strict=True):
        mode = trace(step.origin) if callable(trace) else trace
        if mode != "off":  # the default needs no check
            from layercache.solver.trace_mode import trace_mode

            mode = trace_mode(mode)
        vertices[number] = evolve(step, traits=traits, trace=mode)
    return Graph(tuple(vertices), graph.targets)


def _traits_of(steps: Sequence[Step], executor: Executor) -> list[tuple[Field, ...]]:
    common = share(*executor.traits)
    if not isinstance(executor, StepTraits):
        return [common] * len(steps)
    asked = [(s.instruction, stage_of(s.origin)) for s in steps]
    return [(*common, *further) for further in executor.traits_of_steps(asked)]


def stage_of(origin: Origin) -> str:
    """The name by which executors know a stage: its own, else its number."""
    return origin.stage_name or str(origin.stage)


def traits_of(executor: Executor, instruction: Instruction, stage: str) -> tuple[Field, ...]:
    """The traits of one step: the executor's and its own, as `with_traits` puts them on steps."""
    common = share(*executor.traits)
    if not isinstance(executor, StepTraits):
        return common
    return (*common, *executor.traits_of_steps([(instruction, stage)])[0])


def _runs_commands(vertex: Vertex) -> TypeGuard[Step]:
    """Whether the executor's traits count for a vertex; an unknown instruction counts as one."""
    return isinstance(vertex, Step) and getattr(vertex.instruction, "commands", True)


def check_steps(graph: Graph, executor: Executor | None) -> None:
    """Raise the executor's objection to a step, with the step's line."""
    if not isinstance(executor, ChecksInstructions):
        return
    for number in sorted(graph.needed()):
        vertex = graph.vertices[number]
        if isinstance(vertex, Step):
            try:
                executor.check(vertex.instruction)
            except LayerCacheError as error:
                error.line = error.line or vertex.origin.line or None
                raise
