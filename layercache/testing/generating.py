"""Random recipes, contexts and edits: one generator for seeded runs and for Hypothesis.

Everything is drawn through `Choices`. Files, contents and commands come from small sets, so that
coincidences (the same step twice, an edit undone, a file renamed to another's name) are common:
caches tend to fail in these cases.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from layercache._base.classes import evolve, field, frozen
from layercache.dockerfile.instructions import (
    Add,
    Arg,
    BindMount,
    CacheMount,
    Cmd,
    Copy,
    DockerfileInstruction,
    Env,
    Expose,
    From,
    HereDoc,
    Label,
    MountFlag,
    Run,
    SecretMount,
    Shell,
    TmpfsMount,
    User,
    Workdir,
)
from layercache.model.tree import Node
from layercache.trees.in_memory import directory, file, link

__all__ = [
    "BASES",
    "Choices",
    "ContextVersion",
    "Files",
    "SeededChoices",
    "Stage",
    "any_context",
    "any_edit",
    "any_history",
    "any_instruction",
    "any_version",
]

T = TypeVar("T")
Files = dict[str, "str | tuple[Node, bytes]"]

BASES = ("base:1", "base:2")
"""Names of base images that recipes may begin with, apart from `scratch` and stages."""


class Choices(Protocol):
    """A source of decisions."""

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""

    def number(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""


class SeededChoices:
    """Choices of a pseudo-random generator: the same `seed` always decides alike."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)


def _chance(choices: Choices, percent: int) -> bool:
    return choices.number(1, 100) <= percent


# -- contexts -------------------------------------------------------------------------------

_PATHS = ("a.txt", "b.txt", "package.json", "src/main.c", "src/util.c", "src/lib/x.c", "run.sh")
_CONTENTS = ("0", "1", "2", "a longer one\n", "")
_MODES = (0o644, 0o644, 0o755, 0o600)


def _any_file(choices: Choices) -> str | tuple[Node, bytes]:
    kind = choices.number(1, 12)
    if kind == 1:
        return link(choices.pick(("a.txt", "src", "/b.txt", "../a.txt")))
    if kind <= 4:
        return file(choices.pick(_CONTENTS), choices.pick(_MODES))
    return choices.pick(_CONTENTS)


def any_context(choices: Choices) -> Files:
    """A few files below a few directories; `a.txt` and `src/main.c` are always there."""
    found: Files = {"a.txt": choices.pick(_CONTENTS), "src/main.c": choices.pick(_CONTENTS)}
    for path in _PATHS:
        if path not in found and _chance(choices, 45):
            found[path] = _any_file(choices)
    if _chance(choices, 10):
        found["empty"] = directory(choices.pick((0o755, 0o700)))
    return found


def _edit_context(choices: Choices, context: Files) -> Files:
    found = dict(context)
    path = choices.pick(sorted(found))
    other = choices.pick(_PATHS)
    kind = choices.number(1, 6)
    if kind == 1:
        found[other] = _any_file(choices)
    elif kind == 2 and len(found) > 2:
        del found[path]
    elif kind == 3 and other not in found:
        found[other] = found.pop(path)
    elif kind == 4:
        value = found[path]
        node, data = value if isinstance(value, tuple) else file(value)
        if node.is_file:
            found[path] = (evolve(node, mode=0o100000 | choices.pick(_MODES)), data)
    else:
        found[path] = choices.pick(_CONTENTS)
    return found


# -- instructions ---------------------------------------------------------------------------

_COMMANDS = (
    "build",
    "build all",
    "npm install",
    "echo $A $B > /variables",
    "echo $A $V > /variables",
    "env > /environment",
    "ls > /listing",
    "pwd > /where && id >> /where",
    "mkdir -p /d/e && write /d/e/a.txt $A",
    "mkdir -p /d/e /app && write /d/e/a.txt one && write /app/a.txt $A",
    "mkdir -p /d/e /app && write /d/e/a.txt one && write /app/a.txt two",
    "write /a.txt $V",
    "rm -rf /app/src /src",
    "cat a.txt > /copied || true",
    "cat /app/a.txt > /copied || cat a.txt > /copied",
    "upper /app/a.txt > /upper || write /upper none",
    "touch /stamp",
    "rm -f /copied /d/e/a.txt",
    "chmod 700 /app || chmod 755 /d || true",
    "true",
    "ln -s /app/a.txt /link || rm /link",
    "mv /copied /moved || true",
)
_SOURCES = ("a.txt", "src", "src/", ".", "*.txt", "package*.json", "src/*.c", "s*", "b.tx[t]")
_STAGE_SOURCES = (
    "/", "/*", "/mad[e]", "/app/*", "/env*", "/src*", "/app/src*",
    "/a.txt*", "/app/a.txt*", "/d/e/a.txt*", "/a.txt*", "/app/a.txt*", "/d/e/a.txt*",
)  # fmt: skip
_TARGETS = ("/app/", "./", "/app/a.txt", "/d/e/", "/x", ".", "/d/e/")


def _any_mount(choices: Choices, stages: Sequence[str]) -> MountFlag:
    kind = choices.number(1, 6)
    if kind == 1:
        return CacheMount(choices.pick(("/cache", "/app/cache")))
    if kind == 2:
        return TmpfsMount("/tmp")
    if kind == 3:
        return SecretMount("token")
    if kind == 4 and stages:
        return BindMount(
            "/mnt", source=choices.pick(("/", "/", "/app")), from_=choices.pick(stages)
        )
    return BindMount("/mnt", source=choices.pick((None, "src", "a.txt")))


def _any_run(choices: Choices, stages: Sequence[str]) -> Run:
    mounts = [_any_mount(choices, stages)] if _chance(choices, 20) else []
    command = choices.pick(_COMMANDS)
    if mounts and _chance(choices, 50):
        command = choices.pick(("ls /mnt > /listing || true", "build", "cat /mnt/main.c || true"))
    if _chance(choices, 8):
        return Run(command.split(), mounts=mounts)
    if _chance(choices, 6):
        body = "".join(f"{choices.pick(_COMMANDS)}\n" for _ in range(2))
        return Run("<<EOF", heredocs=[HereDoc("EOF", body)], mounts=mounts)
    network = choices.pick((None, None, None, None, "none"))
    return Run(command, mounts=mounts, network=network)


def _any_copy(choices: Choices, stages: Sequence[str]) -> Copy | Add:
    flags: dict[str, Any] = {}
    if _chance(choices, 15):
        flags["chown"] = choices.pick(("1:1", "7"))
    if _chance(choices, 15):
        flags["chmod"] = choices.pick(("755", "0600", "u=rwX,go=rX"))
    if _chance(choices, 20):
        flags["link"] = True
    if _chance(choices, 10):
        flags["exclude"] = [choices.pick(("*.c", "src", "**/x.c"))]
    if _chance(choices, 5):
        document = HereDoc("EOF", f"{choices.pick(_CONTENTS)}\n$A\n")
        return Copy(document, choices.pick(("/app/doc", "/d/")), **flags)
    sources = [choices.pick(_SOURCES) for _ in range(choices.pick((1, 1, 1, 2)))]
    target = choices.pick(_TARGETS)
    if len(sources) > 1 and not target.endswith("/"):
        target = "/app/"
    if stages and _chance(choices, 45):
        flags["from_"] = choices.pick(stages)
        sources = [choices.pick(_STAGE_SOURCES) for _ in range(choices.pick((1, 1, 2)))]
        if not target.endswith("/"):
            target = choices.pick(("/from/", "/app/", "/"))
        return Copy(*sources, target, **flags)
    if _chance(choices, 10):
        return Copy(*sources, target, parents=True, **flags)
    if _chance(choices, 10):
        return Add(*sources, target, **flags)
    return Copy(*sources, target, **flags)


def _any_metadata(choices: Choices) -> DockerfileInstruction:
    value = choices.pick(("1", "2", "three $A", ""))
    return choices.pick(
        (
            Env([("A", value)]),
            Env([("A", value)]),
            Env([("B", value), ("A", "$B")]),
            Arg("V", value),
            Arg("V"),
            Arg("A"),
            User(choices.pick(("1000", "0", "7:7"))),
            Label(a=value),
            Cmd(["run", value]),
            Expose(80),
            Shell(choices.pick((["/bin/sh", "-c"], ["/bin/bash", "-e", "-c"]))),
        )
    )


def any_instruction(choices: Choices, stages: Sequence[str] = ()) -> DockerfileInstruction:
    """One instruction for the body of a stage; `stages` are the names it may copy from."""
    kind = choices.number(1, 20)
    if kind <= 7:
        return _any_run(choices, stages)
    if kind <= 15:
        return _any_copy(choices, stages)
    if kind <= 17:
        return Workdir(choices.pick(("/app", "sub", "/d/e", "/")))
    return _any_metadata(choices)


# -- recipes and their edits ----------------------------------------------------------------


@frozen
class Stage:
    """A FROM and the instructions that follow it."""

    first: From
    body: tuple[DockerfileInstruction, ...]


@frozen(kw_only=True)
class ContextVersion:
    """One state of a project: the inputs of a build.

    `options` are further arguments of `Builder.build`.
    """

    stages: tuple[Stage, ...]
    context: Files
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def recipe(self) -> tuple[DockerfileInstruction, ...]:
        """The instructions of all stages, in order."""
        return tuple(i for stage in self.stages for i in (stage.first, *stage.body))

    @property
    def text(self) -> str:
        """The recipe as a Dockerfile."""
        return "".join(f"{instruction.render()}\n" for instruction in self.recipe)


_TEMPLATES = (
    (
        Stage(
            From("scratch", "s0"),
            (
                Env(A="1"),
                Run("mkdir -p /d/e /app && write /d/e/a.txt one && write /app/a.txt $A"),
            ),
        ),
        Stage(
            From("scratch", "s1"),
            (
                Copy("/d/e/a.txt", "/from/", from_="s0"),
                Copy("/app/a.txt", "/x", from_="s0"),
                Run("build"),
            ),
        ),
    ),
    (
        Stage(
            From("base:1", "s0"),
            (Workdir("/app"), Copy("package*.json", "./"), Run("npm install"), Copy(".", ".")),
        ),
        Stage(From("s0", "s1"), (Run("build"), Run("ls > /listing"))),
        Stage(
            From("base:2", "s2"),
            (Copy("/app", "/app/", from_="s1"), Copy("/made", "/d/", from_="s0", link=True)),
        ),
    ),
    (
        Stage(From("scratch", "s0"), (Copy("src", "/app/"), Run("build"))),
        Stage(From("scratch", "s1"), (Copy("src", "/app/"), Run("build"))),
        Stage(
            From("s0", "s2"),
            (
                Arg("V", "1"),
                Run("echo $V > /variables", mounts=[BindMount("/mnt", from_="s1")]),
                Copy("a.txt", "/x", link=True),
                User("7"),
                Run("build all"),
            ),
        ),
    ),
)
"""Recipes like those that people write, where steps depend on each other in every way."""


def any_version(choices: Choices) -> ContextVersion:
    """A recipe of one to three stages with a context."""
    if _chance(choices, 25):
        return ContextVersion(stages=choices.pick(_TEMPLATES), context=any_context(choices))
    stages: list[Stage] = []
    for number in range(choices.pick((1, 2, 2, 3))):
        stages.append(_any_stage(choices, number))
    options: dict[str, Any] = {}
    if _chance(choices, 30):
        options["args"] = {"V": choices.pick(("1", "2"))}
    return ContextVersion(stages=tuple(stages), context=any_context(choices), options=options)


def _any_stage(choices: Choices, number: int) -> Stage:
    earlier = [f"s{n}" for n in range(number)]
    image = choices.pick(("scratch", *BASES, *earlier, *earlier))
    body = tuple(any_instruction(choices, earlier) for _ in range(choices.number(1, 5)))
    return Stage(From(image, f"s{number}"), body)


def any_edit(choices: Choices, version: ContextVersion) -> ContextVersion:
    """`version` after one realistic change, or none."""
    kind = choices.number(1, 20)
    if kind <= 8:
        return evolve(version, context=_edit_context(choices, version.context))
    if kind <= 15:
        return _edit_recipe(choices, version)
    if kind <= 19:
        return _edit_options(choices, version)
    return version


def _edit_recipe(choices: Choices, version: ContextVersion) -> ContextVersion:
    number = choices.number(0, len(version.stages) - 1)
    stage = version.stages[number]
    body = list(stage.body)
    earlier = [f"s{n}" for n in range(number)]
    place = choices.number(0, max(0, len(body) - 1))
    kind = choices.number(1, 13)
    first = stage.first
    if kind == 1 or not body:
        body.insert(place, any_instruction(choices, earlier))
    elif kind == 2 and len(body) > 1:
        del body[place]
    elif kind == 3 and len(body) > 1:
        body.insert(choices.number(0, len(body) - 1), body.pop(place))
    elif kind == 4:
        body.insert(choices.number(0, len(body)), body[place])
    elif kind == 5:
        first = From(choices.pick(("scratch", *BASES, *earlier)), first.alias)
    elif kind == 6:
        body[place] = any_instruction(choices, earlier)
    else:
        body[place] = _retouched(choices, body[place], earlier)
    stages = list(version.stages)
    stages[number] = Stage(first, tuple(body))
    return evolve(version, stages=tuple(stages))


def _retouched(
    choices: Choices, instruction: DockerfileInstruction, stages: Sequence[str]
) -> DockerfileInstruction:
    """The same instruction with another value."""
    value = choices.pick(("1", "2", "3"))
    match instruction:
        case Env(pairs=pairs):
            return Env([(name, value) for name, _ in pairs])
        case Arg(arguments=((name, _), *_)):
            return Arg(name, value)
        case Run():
            return Run(choices.pick(_COMMANDS), mounts=instruction.mounts)
        case Copy(sources=(str(), *_)):
            target, mode, owner = instruction.destination, instruction.chmod, instruction.chown
            kind = choices.number(1, 3)
            if kind == 1:
                target = choices.pick(("/app/", "/d/e/", "/from/"))
            elif kind == 2:
                mode = choices.pick((None, "755", "0600"))
            else:
                owner = choices.pick((None, "1:1", "7"))
            return Copy(
                *instruction.sources,
                target,
                from_=instruction.from_,
                link=instruction.link,
                chmod=mode,
                chown=owner,
            )
    return any_instruction(choices, stages)


def _edit_options(choices: Choices, version: ContextVersion) -> ContextVersion:
    options = {k: v for k, v in version.options.items() if not k.startswith("no_cache")}
    kind = choices.number(1, 5)
    if kind == 1:
        options["args"] = {"V": choices.pick(("1", "2", ""))}
    elif kind == 2:
        options.pop("args", None)
    elif kind == 3:
        options["target"] = choices.pick([stage.first.alias for stage in version.stages])
    elif kind == 4:
        options.pop("target", None)
        options["no_cache"] = True
    else:
        options["no_cache_filter"] = [choices.pick(["s0", "s1"])]
    return evolve(version, options=options)


def any_history(choices: Choices, builds: int) -> tuple[ContextVersion, ...]:
    """`builds` versions of one project; each is one to three edits away from the previous one."""
    versions = [any_version(choices)]
    while len(versions) < builds:
        version = versions[choices.number(0, len(versions) - 1)] if _chance(choices, 15) else None
        version = version or versions[-1]
        for _ in range(choices.pick((1, 1, 1, 2, 3))):
            version = any_edit(choices, version)
        versions.append(version)
    return tuple(versions)
