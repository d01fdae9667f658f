"""Checks of Dockerfiles: what a build accepts and a reader, or the cache, would have otherwise.

Imports `advice`, `dockerfile`, `trees` and the packages before them; pure. Start at
`check_dockerfile`, then at the modules of rules: `style`, `variables`, `caching`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.checks.check import CheckResult, check_dockerfile
    from layercache.checks.options import CheckOptions
    from layercache.checks.outline import Outline, Target, outline_of, targets_of
    from layercache.checks.rule import CheckRule, Violation
    from layercache.checks.ruleset import RULES

__all__ = [
    "RULES",
    "CheckOptions",
    "CheckResult",
    "CheckRule",
    "Outline",
    "Target",
    "Violation",
    "check_dockerfile",
    "outline_of",
    "targets_of",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "check": "CheckResult check_dockerfile",
            "options": "CheckOptions",
            "outline": "Outline Target outline_of targets_of",
            "rule": "CheckRule Violation",
            "ruleset": "RULES",
        },
    )
