"""Exit statuses, and their assignment to errors."""

from __future__ import annotations

from typing import Final

from layercache.errors import BuildError, LayerCacheError

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "of_the_system", "status_of"]

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
