"""The warning about an observer that raised."""

from __future__ import annotations

import traceback
import warnings

from layercache.events import Observer

__all__ = ["warn_of"]


def warn_of(observer: Observer, error: Exception) -> str:
    """Warn the embedding program; returns the message for the other observers."""
    name = getattr(observer, "__qualname__", type(observer).__name__)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = (
        f"the observer {name} raised {type(error).__name__}: {error} "
        f"({where.filename}:{where.lineno}); it gets no further events, the build goes on"
    )
    warnings.warn(text, RuntimeWarning, stacklevel=4)
    return text
