"""Regular expressions that are compiled when they are first used.

Compiling costs 0.1 ms each, which a build that needs none of them should not pay.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast

__all__ = ["expression"]


class _Expression:
    """Becomes its compiled pattern, method by method, at the first one asked for."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self._source = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._source, self._flags), name)
        setattr(self, name, found)
        return found


def expression(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What `re.compile` gives, later; a mistake in `source` shows at the first use."""
    return cast("re.Pattern[AnyStr]", _Expression(source, flags))
