"""Every error the library raises on purpose: one hierarchy under `LayerCacheError`.

A message says what was being done, with what, what was wrong, and what to do.
Each class is also the builtin that a caller would guess, and says whose fault it is:
`UsageError` and `DockerfileError` are the caller's (exit status 2), `BuildError` and its
children are the build's (exit status 1), `CacheError` is the cache's and never fails a build
(the engine turns it into an event and a miss).
"""

from __future__ import annotations

from collections.abc import Sequence

from layercache._base.classes import frozen

__all__ = [
    "BuildError",
    "CacheError",
    "Cancelled",
    "ConnectionBroken",
    "ContextChanged",
    "CorruptObject",
    "DockerfileError",
    "ExecutorUnavailable",
    "HostileArchive",
    "LayerCacheError",
    "MissingExtra",
    "NotFound",
    "PolicyError",
    "Problem",
    "SourceError",
    "StepFailed",
    "UsageError",
]


class LayerCacheError(Exception):
    """Root of all errors raised on purpose.

    `code` is the stable word for it in JSON output; `line` the line of the Dockerfile that it
    belongs to, where there is one.
    """

    code: str = "error"
    line: int | None = None
    report: object = None
    """The `Report` of the build that this ended, where it was one."""


class UsageError(LayerCacheError, ValueError):
    """An argument, option or value that can't be used; nothing was changed."""

    code = "usage"


class MissingExtra(UsageError):
    """An optional dependency is needed; the message names the extra that brings it."""

    code = "missing-extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the optional extra {extra!r}: "
            f"install it with  pip install 'layercache-engine[{extra}]'"
        )
        self.what = what
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.what, self.extra)


class ExecutorUnavailable(UsageError):
    """No executor of the kind asked for works here; the message says why and what to do."""

    code = "executor-unavailable"


@frozen
class Problem:
    """One thing wrong in a Dockerfile, with the place.

    `line` and `column` count from 1; `length` is the number of characters to mark.
    """

    message: str
    name: str = "Dockerfile"
    line: int = 0
    column: int = 1
    source_line: str = ""
    length: int = 1
    expected: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.name}:{self.line}" if self.line else self.name
        parts = [f"{place}: {self.message}"]
        if self.source_line:
            parts.append("    " + self.source_line)
            parts.append("    " + " " * (self.column - 1) + "^" + "~" * (self.length - 1))
        if self.expected:
            parts.append(f"    expected: {self.expected}")
        if self.suggestion:
            parts.append(f"    did you mean {self.suggestion}?")
        return "\n".join(parts)


class DockerfileError(LayerCacheError, ValueError):
    """All problems found in one Dockerfile, in the order of its lines."""

    code = "dockerfile"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
        self.line = self.problems[0].line or None if self.problems else None

    def __reduce__(self) -> tuple[type[DockerfileError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class BuildError(LayerCacheError):
    """The build failed: a command, a missing source, a checksum, a registry, the context."""

    code = "build-failed"

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class StepFailed(BuildError):
    """A command of a step ended with a status other than 0."""

    code = "step-failed"

    def __init__(self, message: str, *, status: int = 1, line: int | None = None) -> None:
        super().__init__(message, line=line)
        self.status = status


class SourceError(BuildError):
    """A source can't be had: a file that is not in the context, a URL, an image, a checksum."""

    code = "source"


class ConnectionBroken(SourceError, OSError):
    """A server's answer broke off, is damaged or came too slowly; trying again may help."""


class ContextChanged(SourceError):
    """A file changed between being hashed and being copied; nothing was stored."""

    code = "context-changed"


class HostileArchive(SourceError):
    """An archive breaks a rule of safe unpacking; it was refused whole."""

    code = "hostile-archive"


class Cancelled(BuildError):
    """The build was cancelled before it was done."""

    code = "cancelled"


class PolicyError(BuildError):
    """A rule set by the user forbids what the build needs (trust, offline, pinning)."""

    code = "policy"


class CacheError(LayerCacheError):
    """The cache can't do what was asked. It never fails a build."""

    code = "cache"


class NotFound(CacheError, KeyError):
    """No object has this name."""

    code = "not-found"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "not found"


class CorruptObject(CacheError):
    """An object is not what its name or its checksum says; it counts as absent."""

    code = "corrupt"
