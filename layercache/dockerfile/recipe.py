"""Recipes from files: `Dockerfile.load` reads and parses, `Dockerfile.parse` only parses."""

from __future__ import annotations

import os

from layercache._base.classes import evolve, field, frozen
from layercache.dockerfile.instructions import DockerfileInstruction
from layercache.errors import UsageError

__all__ = ["Dockerfile", "beneath"]


def beneath(root: str, path: str) -> str | None:
    """`path` relative to the directory `root`, by text alone; None if it is not in `root`."""
    relative = os.path.relpath(os.path.abspath(path), os.path.abspath(root))
    return None if relative == ".." or relative.startswith("../") else relative


@frozen(kw_only=True)
class Dockerfile:
    """A parsed Dockerfile: its instructions in file order, and its parsing options.

    `path` is the file that it was read from, None for text; `escape` its escape character;
    `warnings` are sentences about text that was accepted but looks wrong. `text` is what was
    parsed, and `check` the value of its `# check=`; both are None for a recipe made otherwise.
    """

    name: str
    instructions: tuple[DockerfileInstruction, ...]
    escape: str = "\\"
    path: str | None = None
    warnings: tuple[str, ...] = ()
    text: str | bytes | None = field(default=None, eq=False, repr=False)
    check: str | None = field(default=None, eq=False)

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
            text=text,
            check=parsed.directives.check,
        )

    @classmethod
    def in_context(cls, context: str | os.PathLike[str]) -> Dockerfile:
        """The recipe of the directory `context`: `Dockerfile`, otherwise `dockerfile`.

        Raises as `load` does.
        """
        root = os.fspath(context)
        names = [os.path.join(root, name) for name in ("Dockerfile", "dockerfile")]
        there = [path for path in names if os.path.lexists(path)]
        return cls.load((there or names)[0], context=root)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, context: str | os.PathLike[str] | None = None
    ) -> Dockerfile:
        """Read and parse the file at `path`; raises `UsageError` if it can't be read.

        A file in the directory `context` is read without leaving the context: no link there leads
        to another file of this machine, which a message could quote.
        """
        from layercache._os.small_files import read_beneath, read_file

        where = os.fspath(path)
        inside = None if context is None else beneath(os.fspath(context), where)
        try:
            if context is not None and inside is not None:
                text = read_beneath(os.fspath(context), inside)
            else:
                text = read_file(where)
        except OSError as error:
            raise UsageError(
                f"can't read the Dockerfile {where}: {error.strerror}. Name another with -f"
            ) from error
        return evolve(cls.parse(text, os.path.basename(where)), path=os.path.abspath(where))
