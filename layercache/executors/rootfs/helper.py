"""How the helper process is started: by path, so that it imports nothing but what it needs."""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["helper_command", "helper_environment"]

_CODE: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from layercache.executors.rootfs._runner import main; main(sys.argv[2:])"
)
_KEPT: Final = ("LD_LIBRARY_PATH", "PYTHONHOME")
"""Variables that an interpreter may need in order to start; nothing else is passed on."""


def helper_command(*arguments: str) -> list[str]:
    """The command line of a helper process."""
    place = os.path.abspath(__file__)
    for _ in range(4):
        place = os.path.dirname(place)
    return [sys.executable, "-I", "-S", "-c", _CODE, place, *arguments]


def helper_environment() -> dict[str, str]:
    """The environment of a helper process."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}
