"""All errors that the library raises on purpose: one hierarchy under `LayerCacheError`.

A message says what was being done, with which object, what was wrong, and what to do.
Each class also derives from the matching builtin exception and tells who is at fault:
`UsageError` and `DockerfileError` are the caller's fault (exit status 2), `BuildError` and its
subclasses the build's (exit status 1). `CacheError` is the cache's fault and never fails a build
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
    "Unreachable",
    "UsageError",
]


class LayerCacheError(Exception):
    """Root of all errors raised on purpose.

    `code` is the stable word for the error in JSON output; `line` is the line of the Dockerfile
    that it belongs to, or None.
    """

    code: str = "error"
    line: int | None = None
    report: object = None
    """The `Report` of the build that this ended, where it was one."""


class UsageError(LayerCacheError, ValueError):
    """An argument, option or value is invalid; nothing was changed."""

    code = "usage"


class MissingExtra(UsageError):
    """An optional dependency is missing; the message names the extra that installs it."""

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
    """No executor of the requested kind works here; the message gives the reason and the remedy."""

    code = "executor-unavailable"


@frozen
class Problem:
    """One mistake in a Dockerfile, with its position.

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
    """A source is not available: a file missing from the context, a URL, an image, a checksum."""

    code = "source"


class Unreachable(SourceError):
    """A server did not answer, or only that it can't do so now; a retry may help."""

    retry_after: float | None = None
    """The seconds that the server asks to wait."""


class ConnectionBroken(SourceError, OSError):
    """A server's response was cut off, damaged or too slow; a retry may help."""


class ContextChanged(SourceError):
    """A file changed between being hashed and being copied; nothing was stored."""

    code = "context-changed"


class HostileArchive(SourceError):
    """An archive violates a rule of safe unpacking; it was rejected as a whole."""

    code = "hostile-archive"


class Cancelled(BuildError):
    """The build was cancelled before it finished."""

    code = "cancelled"


class PolicyError(BuildError):
    """A rule set by the user forbids what the build needs (trust, offline, pinning)."""

    code = "policy"


class CacheError(LayerCacheError):
    """The cache could not do what was requested. This error never fails a build."""

    code = "cache"


class NotFound(CacheError, KeyError):
    """No object has this name."""

    code = "not-found"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "not found"


class CorruptObject(CacheError):
    """An object does not match its name or its checksum; it counts as absent.

    `finding` says how a store reports it: `corrupt`; `untrusted` if no trusted writer signed it;
    `newer` if it has a later format.
    """

    code = "corrupt"
    finding: str = "corrupt"
