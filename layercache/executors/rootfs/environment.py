"""The variables that a command sees in a root file system."""

from __future__ import annotations

from collections.abc import Mapping

from layercache.errors import BuildError
from layercache.model.image_config import DEFAULT_PATH
from layercache.model.operations import Exec

__all__ = ["environment"]


def environment(instruction: Exec, further: Mapping[str, str]) -> list[list[str]]:
    """The variables that the command sees, in order; the helper, which knows the accounts, adds
    HOME.
    """
    found = dict(instruction.proxies) | dict(instruction.env)
    found.setdefault("PATH", DEFAULT_PATH)
    for name, value in further.items():
        if name == "SSH_AUTH_SOCK":
            found.setdefault(name, value)
        else:
            found[name] = value
    for name, value in found.items():
        if not name or "=" in name or "\0" in name + value:
            raise BuildError(
                f"the variable {name!r} can't be passed to a command: it holds a NUL byte, or its "
                "name is empty or has an equals sign"
            )
    return [[name, value] for name, value in found.items()]
