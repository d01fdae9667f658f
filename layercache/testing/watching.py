"""Random histories in which commands are reused by what they observed.

Each makes a few things, one step each, and looks at them in further steps; an edit makes one of
them otherwise, so that nearly everything after it has another parent.
"""

from __future__ import annotations

from layercache.dockerfile.instructions import Copy, From, Run
from layercache.testing.generating import Choices, ContextVersion, Files, Stage

__all__ = ["any_watched_history"]

_THINGS = (
    ("true", "write /t/a one", "write /t/a two", "write /t/a longer", "chmod 755 /t/a"),
    ("true", "rm /t/b", "chmod 600 /t/b", "rm /t/b && mkdir /t/b", "write /t/b b"),
    ("ln -s a /t/l", "ln -s b /t/l", "true", "ln -s c /t/l"),
    ("true", "write /t/c one", "write /t/c two", "ln -s a /t/c"),
    ("true", "mkdir /t/d", "mkdir /t/d && chmod 700 /t/d", "mkdir /t/d && write /t/d/a one"),
    ("true", "chown 7:7 /t/a", "chmod 700 /t", "write /t/z z"),
)
"""For each thing below /t what may be made of it. Names, sizes and times are mostly the same (what
commands write has a fixed time), so that each kind of observation is at times the only one that
tells two of them apart."""
_LOOKS = (
    "cat /t/a > /o{}",
    "cat /t/l > /o{} || write /o{} none",
    "upper /t/c > /o{} || write /o{} none",
    "ls /t > /o{}",
    "ls /t/d > /o{} || write /o{} none",
    "test -e /t/b && write /o{} there",
    "test -d /t/b && write /o{} directory",
    "test -x /t/a && write /o{} runs",
    "test -f /t/c || write /o{} none",
    "test -e /t/d/a || write /o{} none",
    "test -f /t/l && write /o{} file",
    "chmod 640 /t/a",
    "chmod 640 /t/b",
    "chmod 711 /t/d",
    "cp /t/l /o{}",
    "cp -r /t/d /o{}",
    "cp -r /t /o{}",
    "mv /t/c /o{}",
    "mv /t/l /o{}",
    "rm -r /t/d",
    "write /t/d/b {}",
    "write /t/c {}",
)


def any_watched_history(choices: Choices, builds: int) -> tuple[ContextVersion, ...]:
    """`builds` versions of a recipe that makes a few things, one step each, and looks at them in
    further ones; a version makes one or two of them otherwise than the one before."""
    looks = [choices.pick(_LOOKS).replace("{}", str(n)) for n in range(choices.number(2, 4))]
    made = [choices.pick(options) for options in _THINGS]
    content = choices.pick(("one", "two"))
    versions: list[ContextVersion] = []
    for number in range(builds):
        for _ in range(choices.number(1, 2) if number else 0):
            thing = choices.number(0, len(_THINGS))
            if thing == len(_THINGS):
                content = choices.pick(("one", "two", "longer"))
            else:
                made[thing] = choices.pick(_THINGS[thing])
        body = (
            Copy("t", "/t"),
            *(Run(f"{command} || true") for command in made),
            *(Run(f"{look} || true") for look in looks),
        )
        context: Files = {"t/a": content, "t/b": "b"}
        versions.append(
            ContextVersion(stages=(Stage(From("scratch", "s0"), body),), context=context)
        )
    return tuple(versions)
