"""Regular expressions that are compiled on first use.

Compiling one costs 0.1 ms; a build that does not use it should not pay for it.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast

__all__ = ["expression"]


class _Expression:
    """Replaces itself by the compiled pattern, method by method, on first use."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self._source = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._source, self._flags), name)
        setattr(self, name, found)
        return found


def expression(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """A lazily compiled `re.compile(source)`; a mistake in `source` shows on first use."""
    return cast("re.Pattern[AnyStr]", _Expression(source, flags))
