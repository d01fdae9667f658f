"""Exit statuses, and their assignment to errors."""

from __future__ import annotations

from typing import Final

from layercache.errors import BuildError, DockerfileError, LayerCacheError

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "of_the_system", "status_of", "with_line"]

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def status_of(error: LayerCacheError) -> int:
    """The exit status for an error: 1 for the build's fault, 2 for the caller's."""
    return FAILED if isinstance(error, BuildError) else MISUSED


def of_the_system(error: OSError) -> BuildError:
    """An error of the system (a full disk, a missing right, a path) as an error with its place."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return BuildError(f"{place}{error.strerror or error}")


def with_line(error: LayerCacheError, dockerfile: str) -> str:
    """The message of an error, behind the file and line of the Dockerfile that it belongs to.

    A `DockerfileError` says its places itself.
    """
    if error.line is None or isinstance(error, DockerfileError):
        return str(error)
    return f"{dockerfile}:{error.line}: {error}"
