"""Dockerfiles: text to instructions in `syntax`, instructions to a graph in `lowering`.

Imports `trees`, `model` and the packages before them; only `Dockerfile.load` reads a file. Start
at `recipe` and `instructions`, then `lowering.lower`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.dockerfile.instructions import (
        Add,
        Arg,
        BindMount,
        CacheMount,
        Cmd,
        Command,
        Copy,
        Device,
        DockerfileInstruction,
        Entrypoint,
        Env,
        Expose,
        From,
        Healthcheck,
        Label,
        Location,
        Maintainer,
        Onbuild,
        Run,
        SecretMount,
        Shell,
        SshMount,
        Stopsignal,
        TmpfsMount,
        User,
        Volume,
        Workdir,
    )
    from layercache.dockerfile.recipe import Dockerfile
    from layercache.dockerfile.syntax.heredocs import HereDoc
    from layercache.dockerfile.syntax.words import literal

__all__ = [
    "Add",
    "Arg",
    "BindMount",
    "CacheMount",
    "Cmd",
    "Command",
    "Copy",
    "Device",
    "Dockerfile",
    "DockerfileInstruction",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "HereDoc",
    "Label",
    "Location",
    "Maintainer",
    "Onbuild",
    "Run",
    "SecretMount",
    "Shell",
    "SshMount",
    "Stopsignal",
    "TmpfsMount",
    "User",
    "Volume",
    "Workdir",
    "literal",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "instructions": (
                "Add Arg BindMount CacheMount Cmd Command Copy Device DockerfileInstruction "
                "Entrypoint Env Expose From Healthcheck Label Location Maintainer Onbuild Run "
                "SecretMount Shell SshMount Stopsignal TmpfsMount User Volume Workdir"
            ),
            "recipe": "Dockerfile",
            "syntax.heredocs": "HereDoc",
            "syntax.words": "literal",
        },
    )
