"""Exit statuses, and the one that an error stands for."""

from __future__ import annotations

from typing import Final

from layercache.errors import BuildError, LayerCacheError

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "of_the_system", "status_of"]

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def status_of(error: LayerCacheError) -> int:
    """The exit status that an error stands for: the build's fault 1, the caller's 2."""
    return FAILED if isinstance(error, BuildError) else MISUSED


def of_the_system(error: OSError) -> BuildError:
    """What the system refused (a full disk, a right, a path), as an error with its place."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return BuildError(f"{place}{error.strerror or error}")
