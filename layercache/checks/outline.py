"""What a Dockerfile offers: its targets, and the arguments, secrets and agents of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layercache._base.classes import frozen
from layercache.checks.check import subject_of
from layercache.checks.subject import CheckedStage, Subject
from layercache.dockerfile.instructions import (
    Arg,
    BindMount,
    CacheMount,
    Copy,
    Run,
    SecretMount,
    SshMount,
)
from layercache.dockerfile.lowering.variables import automatic_arguments
from layercache.dockerfile.syntax.expansion import expand
from layercache.dockerfile.syntax.faults import nearest
from layercache.errors import DockerfileError, UsageError

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
    last = len(subject.stages) - 1
    return tuple(
        Target(
            name=stage.first.alias or "",
            default=number == last,
            description=_description(subject, stage),
            base=stage.first.image,
            platform=stage.first.platform or "",
            line=stage.first.location.line if stage.first.location else 0,
        )
        for number, stage in enumerate(subject.stages)
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
    stages = subject.stages
    names = [stage.first.alias or str(number) for number, stage in enumerate(stages)]
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
    needed = _needed(subject, chosen, {each.name: each.value for each in globals_.values()})
    found: dict[str, OutlineArgument] = {}
    secrets: dict[str, OutlineNeed] = {}
    agents: dict[str, OutlineNeed] = {}
    for number in needed:
        stage = stages[number]
        for word in (stage.first.image, stage.first.platform or ""):
            for used in _used(word, globals_):
                found.setdefault(used, globals_[used])
        for argument in dict(_arguments(subject, stage.body, globals_)).values():
            found.setdefault(argument.name, argument)
        _mounts(stage, secrets, agents)
    return Outline(
        target=stages[chosen].first.alias or "",
        description=_description(subject, stages[chosen]),
        arguments=tuple(found.values()),
        secrets=tuple(secrets.values()),
        ssh=tuple(agents.values()),
    )


def _description(subject: Subject, stage: CheckedStage) -> str:
    alias = stage.first.alias
    comments = subject.comments_above(stage.first)
    if not alias or not comments:
        return ""
    named, _, rest = comments[-1].partition(" ")
    return rest.strip() if named.lower() == alias else ""


def _arguments(
    subject: Subject, instructions: Sequence[object], globals_: Mapping[str, OutlineArgument]
) -> Iterator[tuple[str, OutlineArgument]]:
    known = {each.name: each.value for each in globals_.values()}
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
                value = _expanded(default, known)
            else:
                value = inherited.value if inherited is not None else ""
            known[name] = value
            yield (
                name,
                OutlineArgument(
                    name=name,
                    value=value,
                    description=described or (inherited.description if inherited else ""),
                    line=arg.location.line if arg.location else 0,
                ),
            )


def _expanded(word: str, values: Mapping[str, str]) -> str:
    try:
        return expand(word, values).text
    except DockerfileError:
        return word


def _used(word: str, known: Mapping[str, object]) -> list[str]:
    try:
        found = expand(word, dict.fromkeys(known, ""))
    except DockerfileError:
        return []
    return sorted(found.used)


def _needed(subject: Subject, chosen: int, values: Mapping[str, str]) -> list[int]:
    """The stages that `chosen` is made of, itself last."""
    stages = subject.stages
    known = {**automatic_arguments("linux/amd64", "linux/amd64"), **values}
    found = {chosen}
    ahead = [chosen]
    while ahead:
        number = ahead.pop()
        stage = stages[number]
        named = [_expanded(stage.first.image, known)]
        for each in stage.body:
            if isinstance(each, Copy) and each.from_ is not None:
                named.append(each.from_)
            elif isinstance(each, Run):
                named += [
                    mount.from_
                    for mount in each.mounts
                    if isinstance(mount, BindMount | CacheMount) and mount.from_
                ]
        for name in named:
            earlier = _find(stages, number, name)
            if earlier is not None and earlier not in found:
                found.add(earlier)
                ahead.append(earlier)
    return sorted(found)


def _find(stages: Sequence[CheckedStage], before: int, name: str) -> int | None:
    if name.isdecimal() and int(name) < before:
        return int(name)
    return next(
        (n for n in range(before - 1, -1, -1) if stages[n].first.alias == name.lower()), None
    )


def _mounts(
    stage: CheckedStage, secrets: dict[str, OutlineNeed], agents: dict[str, OutlineNeed]
) -> None:
    for run in stage.body:
        for mount in run.mounts if isinstance(run, Run) else ():
            line = run.location.line if run.location else 0
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
