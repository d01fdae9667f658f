"""All rules, in the order of the documentation."""

from __future__ import annotations

from typing import Final

from layercache.checks.caching import CACHING_RULES
from layercache.checks.style import STYLE_RULES
from layercache.checks.variables import VARIABLE_RULES

__all__ = ["RULES"]

RULES: Final = (*STYLE_RULES, *VARIABLE_RULES, *CACHING_RULES)
"""Every rule, by group."""
