"""Statuses with which registries answer, as sets: they take the freedom that the specification
leaves them.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ACCEPTED", "READ", "STORED"]

READ: Final = frozenset({200})
"""What was asked for."""

ACCEPTED: Final = frozenset({200, 202, 204})
"""An upload that can begin."""

STORED: Final = frozenset({200, 201, 202, 204})
"""A blob or a manifest that was taken."""
