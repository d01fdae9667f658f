"""What a Dockerfile offers: its targets, and the arguments, secrets and agents of one of them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence

from layercache._base.classes import frozen
from layercache.checks.check import subject_of
from layercache.checks.subject import Subject, begins, placed
from layercache.dockerfile.instructions import Arg, Run, SecretMount, SshMount
from layercache.dockerfile.lowering.options import Options
from layercache.dockerfile.lowering.stage_graph import StageText, global_variables, reachable
from layercache.dockerfile.syntax.faults import nearest
from layercache.errors import UsageError

__all__ = ["Outline", "OutlineArgument", "OutlineNeed", "Target", "outline_of", "targets_of"]


@frozen(kw_only=True)
class Target:
    """One stage that can be built by name; `description` comes from the comment above its FROM."""

    name: str
    default: bool
    description: str
    base: str
    platform: str
    line: int


@frozen(kw_only=True)
class OutlineArgument:
    """A build argument that a target uses. `value` is what it has in this call, "" for none."""

    name: str
    value: str
    description: str
    line: int


@frozen(kw_only=True)
class OutlineNeed:
    """A secret or an SSH agent that a target mounts; `required` if the build fails without it."""

    name: str
    required: bool
    line: int


@frozen(kw_only=True)
class Outline:
    """What one target takes: the arguments, secrets and agents of the stages that it needs."""

    target: str
    description: str
    arguments: tuple[OutlineArgument, ...]
    secrets: tuple[OutlineNeed, ...]
    ssh: tuple[OutlineNeed, ...]


def targets_of(text: str | bytes, name: str = "Dockerfile") -> tuple[Target, ...]:
    """The stages of a Dockerfile in order. Raises `DockerfileError` for a malformed file."""
    subject = subject_of(text, name)
    last = subject.stages.all[-1].number
    return tuple(
        Target(
            name=stage.alias,
            default=stage.number == last,
            description=_description(subject, stage),
            base=begins(stage).image,
            platform=begins(stage).platform or "",
            line=placed(begins(stage)).line,
        )
        for stage in subject.stages.all
    )


def outline_of(
    text: str | bytes,
    name: str = "Dockerfile",
    *,
    target: str | None = None,
    build_args: Mapping[str, str] | None = None,
) -> Outline:
    """What the stage `target` (the last one by default) takes.

    Raises `DockerfileError` for a malformed file and `UsageError` for a stage that it lacks.
    """
    subject = subject_of(text, name, build_args=build_args)
    stages = subject.stages.all
    names = [stage.label for stage in stages]
    if target is None:
        chosen = len(stages) - 1
    elif target.lower() in names:
        chosen = len(names) - 1 - names[::-1].index(target.lower())
    else:
        guess = nearest(target, names)
        raise UsageError(
            f"{name} has no stage {target}" + (f" (did you mean {guess}?)" if guess else "")
        )
    globals_ = dict(_arguments(subject, subject.preamble, {}))
    found: dict[str, OutlineArgument] = {}
    secrets: dict[str, OutlineNeed] = {}
    agents: dict[str, OutlineNeed] = {}
    for number in _needed(subject, chosen):
        stage = stages[number]
        for word in (begins(stage).image, begins(stage).platform or ""):
            for used in _used(subject, word, globals_):
                found.setdefault(used, globals_[used])
        for argument in dict(_arguments(subject, stage.body, globals_)).values():
            found.setdefault(argument.name, argument)
        _mounts(stage, secrets, agents)
    return Outline(
        target=stages[chosen].alias,
        description=_description(subject, stages[chosen]),
        arguments=tuple(found.values()),
        secrets=tuple(secrets.values()),
        ssh=tuple(agents.values()),
    )


def _description(subject: Subject, stage: StageText) -> str:
    comments = subject.comments_above(begins(stage))
    if not stage.alias or not comments:
        return ""
    named, _, rest = comments[-1].partition(" ")
    return rest.strip() if named.lower() == stage.alias else ""


def _arguments(
    subject: Subject, instructions: Sequence[object], globals_: Mapping[str, OutlineArgument]
) -> Iterator[tuple[str, OutlineArgument]]:
    known = ChainMap[str, str]({}, {each.name: each.value for each in globals_.values()})
    for arg in instructions:
        if not isinstance(arg, Arg):
            continue
        comments = subject.comments_above(arg)
        for name, default in arg.arguments:
            described = next(
                (c.partition(" ")[2].strip() for c in comments if c.partition(" ")[0] == name), ""
            )
            inherited = globals_.get(name)
            if name in subject.arguments:
                value = subject.arguments[name]
            elif default is not None:
                expansion = subject.expansion(default, known)
                value = default if expansion is None else expansion.text
            else:
                value = inherited.value if inherited is not None else ""
            known[name] = value
            yield (
                name,
                OutlineArgument(
                    name=name,
                    value=value,
                    description=described or (inherited.description if inherited else ""),
                    line=placed(arg).line,
                ),
            )


def _used(subject: Subject, word: str, known: Mapping[str, OutlineArgument]) -> list[str]:
    found = subject.expansion(word, {name: each.value for name, each in known.items()})
    return [] if found is None else sorted(found.used)


def _needed(subject: Subject, chosen: int) -> list[int]:
    """The stages that `chosen` is made of, itself last."""
    options = Options(args=subject.arguments, escape=subject.parsed.escape)
    variables = global_variables(subject.preamble, subject.automatic, options, subject.budget)
    return sorted(reachable(subject.stages, {chosen}, variables, options))


def _mounts(
    stage: StageText, secrets: dict[str, OutlineNeed], agents: dict[str, OutlineNeed]
) -> None:
    for run in stage.body:
        for mount in run.mounts if isinstance(run, Run) else ():
            line = placed(run).line
            if isinstance(mount, SecretMount):
                target = mount.target or ""
                name, kept = mount.id or target.rpartition("/")[2], secrets
            elif isinstance(mount, SshMount):
                name, kept = mount.id or "default", agents
            else:
                continue
            required = bool(mount.required) or (name in kept and kept[name].required)
            line = kept[name].line if name in kept else line
            kept[name] = OutlineNeed(name=name, required=required, line=line)
