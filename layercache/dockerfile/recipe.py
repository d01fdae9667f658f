"""Recipes from files: `Dockerfile.load` reads, `Dockerfile.parse` only parses."""

from __future__ import annotations

import os

import attrs

from layercache._base.frozen import frozen
from layercache.dockerfile.instructions import DockerfileInstruction
from layercache.errors import UsageError

__all__ = ["Dockerfile"]


@frozen(kw_only=True)
class Dockerfile:
    """A parsed Dockerfile: its instructions in file order, and what governs reading it.

    `path` is where it was read from, None for text; `escape` its escape character; `warnings`
    are sentences about what was accepted but looks wrong.
    """

    name: str
    instructions: tuple[DockerfileInstruction, ...]
    escape: str = "\\"
    path: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | bytes, name: str = "Dockerfile") -> Dockerfile:
        """Parse `text`; raises `DockerfileError` with every problem found."""
        from layercache.dockerfile.syntax.parser import parse

        parsed = parse(text, name)
        return cls(
            name=name,
            instructions=parsed.instructions,
            escape=parsed.escape,
            warnings=tuple(str(warning) for warning in parsed.warnings),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Dockerfile:
        """Read and parse the file at `path`; raises `UsageError` when it can't be read."""
        where = os.fspath(path)
        try:
            with open(where, "rb") as content:
                text = content.read()
        except OSError as error:
            raise UsageError(
                f"can't read the Dockerfile {where}: {error.strerror}. Name another with -f"
            ) from error
        return attrs.evolve(cls.parse(text, os.path.basename(where)), path=os.path.abspath(where))
