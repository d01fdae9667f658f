"""The start of the helper process: by path, so that it imports only what it needs."""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["agent_command", "helper_command", "helper_environment", "tracer_command"]

_CODE: Final = (
    "import sys; sys.path.append(sys.argv[1]); place = sys.argv[1] + '/'; bare = type(sys)\n"
    "for name in {packages}:\n"
    "    package = sys.modules[name] = bare(name); "
    "package.__path__ = [place + name.replace('.', '/')]\n"
    "from layercache.executors.rootfs.inside.helper import main; main(sys.argv[2:])"
).format(
    packages=(
        "layercache",
        "layercache.executors",
        "layercache.executors.rootfs",
        "layercache.executors.rootfs.inside",
        "layercache.layers",
    )
)
"""The helper's packages are without their public names: those load `typing`, which takes as long
as all the rest of its start."""
_AGENT: Final = (
    "import sys; sys.path[:] = sys.argv[2:-1]; "
    "from layercache.executors.rootfs.inside.agent import main; main(int(sys.argv[-1]), {single})"
)
_KEPT: Final = ("LD_LIBRARY_PATH", "PYTHONHOME")
"""Variables that an interpreter may need in order to start; nothing else is passed on."""


def helper_command(*arguments: str) -> list[str]:
    """The command line of a helper process."""
    return [sys.executable, "-I", "-S", "-c", _CODE, _place(), *arguments]


def agent_command(*, single: bool) -> list[str]:
    """The command line of an agent, which may import anything that this process may; the number of
    its socket must follow.
    """
    paths = [path for path in sys.path if os.path.isabs(path)]
    code = _AGENT.format(single=single)
    return [sys.executable, "-I", "-S", "-c", code, "agent", *paths, _place()]


def tracer_command() -> list[str]:
    """The command line of a tracer: empty, because the helper process forks it."""
    return []


def _place() -> str:
    """The directory that contains this package's root."""
    place = os.path.abspath(__file__)
    for _ in range(4):
        place = os.path.dirname(place)
    return place


def helper_environment() -> dict[str, str]:
    """The environment of a helper process."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}
