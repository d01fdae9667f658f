"""Whether steps are traced: "off", "auto", or "audit" with the share that is run again."""

from __future__ import annotations

from typing import Final

from layercache.errors import UsageError

__all__ = ["AUDIT_SHARE", "audit_share", "trace_mode"]

AUDIT_SHARE: Final = 0.1
"""The share of hits by a trace that "audit" runs again."""


def trace_mode(text: str) -> str:
    """`text` when it is a mode; raises `UsageError` for another one."""
    if text not in {"off", "auto"}:
        audit_share(text)
    return text


def audit_share(text: str) -> float:
    """The share of hits by a trace that are to be run again, 0 to 1."""
    name, equals, share = text.partition("=")
    if text in {"off", "auto"}:
        return 0.0
    if name == "audit" and not equals:
        return AUDIT_SHARE
    try:
        found = float(share)
    except ValueError:
        found = -1.0
    if name != "audit" or not 0.0 <= found <= 1.0:
        raise UsageError(f"trace {text!r}: expected off, auto, audit or audit=SHARE (0 to 1)")
    return found
