"""Lowering: from instructions as written to a graph of effective operations. Pure.

`lower` returns either the graph or the names of the images whose configuration it still needs;
the engine resolves those and calls it again. Configuration is a fold of the base's configuration
and the instructions of this build: it never comes from a record. Stages that the target does not
need are listed but not lowered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from layercache._base.classes import evolve
from layercache.dockerfile.instructions import Add, Arg, Copy, Run, Workdir
from layercache.dockerfile.lowering.copy import lower_copy
from layercache.dockerfile.lowering.metadata import METADATA
from layercache.dockerfile.lowering.options import (
    ImageNeed,
    Lowered,
    Needs,
    Options,
    ResolvedBase,
    Row,
)
from layercache.dockerfile.lowering.origins import AnyInstruction, is_dockerfile, origin_of
from layercache.dockerfile.lowering.stage import Handler, StageFold, platform_of
from layercache.dockerfile.lowering.stage_graph import (
    StageText,
    check_references,
    global_variables,
    reachable,
    split_stages,
)
from layercache.dockerfile.lowering.variables import (
    HOSTNAME,
    PROXIES,
    automatic_arguments,
)
from layercache.dockerfile.syntax.limits import Budget
from layercache.model.graph import GraphBuilder, Origin

if TYPE_CHECKING:
    from layercache.model.image_config import HistoryEntry, ImageConfig

__all__ = ["lower"]


def _lower_run(fold: StageFold, run: Run, origin: Origin) -> HistoryEntry | None:
    from layercache.dockerfile.lowering.run import lower_run  # many recipes run nothing

    return lower_run(fold, run, origin)


_HANDLERS: Final[Mapping[type, Handler]] = {
    **METADATA,
    Run: _lower_run,
    Copy: lower_copy,
    Add: lower_copy,
}


def lower(
    instructions: Sequence[AnyInstruction],
    options: Options,
    images: Mapping[ImageNeed, ResolvedBase],
) -> Lowered | Needs:
    """The graph of `instructions`, or the images that are missing from `images`.

    Raises `DockerfileError` for mistakes in the recipe, `UsageError` for a wrong option.
    """
    budget = Budget()
    preamble, stages = split_stages(instructions)
    name = options.target or stages.all[-1].alias
    automatic = automatic_arguments(options.platform, options.build_platform, name)
    variables = global_variables(preamble, automatic, options, budget)
    check_references(stages)
    for stage in stages.all:
        if stage.first is not None and stage.first.platform:
            platform_of(stage.first, variables, options)  # reported even if not needed
    target = stages.target(options.target)
    roots = {target}
    while True:
        needed = reachable(stages, roots, variables, options)
        graph = GraphBuilder()
        folds: dict[int, StageFold] = {}
        for stage in stages.all:
            if stage.number in needed:
                folds[stage.number] = StageFold(
                    stage=stage,
                    stages=stages,
                    folds=folds,
                    graph=graph,
                    options=options,
                    globals=variables,
                    images=images,
                    budget=budget,
                    handlers=_HANDLERS,
                )
                folds[stage.number].run()
        found = set().union(*(fold.wanted for fold in folds.values()))
        if not found:
            break
        roots |= found  # stages that are named only by a trigger of a base image
    rows: list[Row] = [Row(origin_of(a, stage=-1, index=i)) for i, a in enumerate(preamble)]
    for stage in stages.all:
        fold = folds.get(stage.number)
        rows.extend(_unused_rows(stage) if fold is None else fold.rows)
    missing = [need for fold in folds.values() for need in fold.missing]
    if missing:
        return Needs(tuple(dict.fromkeys(missing)))
    last = folds[target]
    config = last.finished_config()
    for name, value in options.labels.items():
        config = config.with_label(name, value)
    if options.platform_asked:
        config = _for_platform(config, options.platform)
    active = _ACTIVE | _declared_in(instructions)
    declared = variables.declared.union(*(fold.variables.declared for fold in folds.values()))
    return Lowered(
        graph=graph.build([last.vertex]),
        target=last.vertex,
        rows=tuple(rows),
        config=config,
        history=tuple(last.history()),
        base=last.base,
        unused_args=tuple(sorted(_unused(options.args, declared, frozenset(automatic)))),
        idle_args=tuple(
            sorted(n for n in options.args if n.startswith("BUILDKIT_") and n not in active)
        ),
        source_date=options.args.get(_SOURCE_DATE) or variables.get(_SOURCE_DATE),
        unnamed=tuple(sorted(options.no_cache_stages - {s.label for s in stages.all})),
    )


def _for_platform(config: ImageConfig, platform: str) -> ImageConfig:
    """`config` for the requested platform, as BuildKit writes it."""
    os, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    alike = (os, architecture) == (config.os, config.architecture)
    if alike and not variant:
        return config
    version = config.os_version if alike else ""
    return evolve(config, os=os, architecture=architecture, variant=variant, os_version=version)


def _declared_in(instructions: Sequence[AnyInstruction]) -> frozenset[str]:
    """Names that any ARG declares, in a stage that is needed or not."""
    declared = (i.arguments for i in instructions if isinstance(i, Arg))
    return frozenset(name for arguments in declared for name, _ in arguments)


_SOURCE_DATE: Final = "SOURCE_DATE_EPOCH"
_QUIET = (_SOURCE_DATE,)
_ACTIVE: Final = frozenset({HOSTNAME})


def _unused(args: Mapping[str, str], declared: frozenset[str], known: frozenset[str]) -> set[str]:
    quiet = known | frozenset(PROXIES) | frozenset(_QUIET)
    return {n for n in args if n not in declared | quiet and not n.startswith("BUILDKIT_")}


def _unused_rows(stage: StageText) -> list[Row]:
    rows = []
    offset = 0
    if stage.first is not None:
        rows.append(
            Row(origin_of(stage.first, stage=stage.number, index=0, stage_name=stage.label))
        )
        offset = 1
    for index, instruction in enumerate(stage.body, offset):
        decides = isinstance(instruction, Run | Copy | Add | Workdir) or not is_dockerfile(
            instruction
        )
        origin = origin_of(instruction, stage=stage.number, index=index, stage_name=stage.label)
        rows.append(Row(origin, decides=decides))
    return rows
