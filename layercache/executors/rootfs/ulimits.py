"""Resource limits of commands: `--ulimit` as Docker writes it, and fixed defaults.

Limits of the calling shell would make results depend on it, so what matters is always set.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final

from layercache.errors import UsageError

__all__ = ["parse_ulimits"]

_NAMES: Final = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as",
    "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip
"""In the order of their numbers (asm-generic/resource.h; the same on x86, Arm, RISC-V)."""

_DEFAULTS: Final = {
    "nofile": (1024, 524288),
    "core": (0, -1),
    "stack": (8 << 20, -1),
    **dict.fromkeys(("as", "cpu", "data", "fsize", "nproc"), (-1, -1)),
}
"""Soft and hard: as containers get them under systemd; core files would end up in layers."""

Limit = tuple[int, int, int]
"""Number, soft and hard limit; -1 is none."""


def parse_ulimits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """`name=soft[:hard]` as numbers, the last of a name counts; raises `UsageError`."""
    found: dict[str, tuple[int, int]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        soft_text, colon, hard_text = value.partition(":")
        try:
            soft = int(soft_text)
            hard = int(hard_text) if colon else soft
        except ValueError:
            equals = ""
        if not equals or name not in _NAMES:
            raise UsageError(f"not a limit: {text!r} (expected e.g. nofile=1024:2048)")
        if min(soft, hard) < -1 or (hard != -1 and (soft == -1 or soft > hard)):
            raise UsageError(f"limit {text!r}: the soft limit is above the hard one")
        found[name] = (soft, hard)
    limits = [(_NAMES.index(name), *pair) for name, pair in found.items()]
    for name, (soft, hard) in _DEFAULTS.items():
        if name not in found:
            limits.append(_possible(_NAMES.index(name), soft, hard))
    return tuple(sorted(limits))


def _possible(number: int, soft: int, hard: int) -> Limit:
    """A default within what this process may grant."""
    most = resource.getrlimit(number)[1]
    if most != resource.RLIM_INFINITY:
        hard = most if hard == -1 else min(hard, most)
        soft = hard if soft == -1 else min(soft, hard)
    return number, soft, hard
