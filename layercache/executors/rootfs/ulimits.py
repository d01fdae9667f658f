"""Resource limits of commands: `--ulimit` in Docker's notation, and fixed defaults.

Limits of the calling shell would make results depend on it, so each limit is always set. If this
process may not grant a default, the value that it may grant is part of the executor's traits.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final

from layercache.errors import UsageError

__all__ = ["lowered_limits", "parse_ulimits"]

_NAMES: Final = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as",
    "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip
"""In the order of their numbers (asm-generic/resource.h; the same on x86, Arm, RISC-V)."""

_DEFAULTS: Final = {
    **dict.fromkeys(_NAMES, (-1, -1)),
    "nofile": (1024, 524288),
    "core": (0, -1),
    "stack": (8 << 20, -1),
    "memlock": (8 << 20, 8 << 20),
    "msgqueue": (819200, 819200),
    "sigpending": (8192, 8192),
    "nice": (0, 0),
    "rtprio": (0, 0),
}
"""Soft and hard: as containers get them under systemd, and those of the kernel; what the kernel
takes from the size of memory is fixed. Core files would end up in layers."""

_UNPRIVILEGED: Final = {**_DEFAULTS, "nproc": (16384, 16384)}
"""Where no limit can be raised: the kernel has one on processes, by the size of memory."""

_RESOURCE: Final = 24
"""CAP_SYS_RESOURCE, which raises hard limits, in the first user namespace only."""

Limit = tuple[int, int, int]
"""Number, soft and hard limit; -1 is none."""


def lowered_limits(*, rootless: bool) -> str:
    """The defaults that this process can't grant, as `name=soft:hard` with the values that it can;
    empty if it grants all of them.
    """
    found = []
    wanted, raises = _wanted(rootless=rootless)
    for name, (soft, hard) in wanted.items():
        limit = _possible(_NAMES.index(name), soft, hard, raises=raises)
        if limit[1:] != (soft, hard):
            found.append(f"{name}={limit[1]}:{limit[2]}")
    return " ".join(found)


def _wanted(*, rootless: bool) -> tuple[dict[str, tuple[int, int]], bool]:
    """The defaults, and whether hard limits can be raised."""
    raises = not rootless and _raises()
    return (_DEFAULTS if raises else _UNPRIVILEGED), raises


def _raises() -> bool:
    """Whether this process may raise hard limits."""
    try:
        with open("/proc/self/status", "rb") as file:
            status = file.read()
        with open("/proc/self/uid_map", "rb") as file:
            users = file.read().split()
    except OSError:
        return False
    line = next((r for r in status.splitlines() if r.startswith(b"CapEff:")), b"CapEff: 0")
    held = int(line.split()[1], 16) >> _RESOURCE & 1
    return bool(held) and users == [b"0", b"0", b"4294967295"]


def parse_ulimits(texts: Sequence[str], *, rootless: bool = False) -> tuple[Limit, ...]:
    """`name=soft[:hard]` as numbers, the last of a name counts, and a default for every other;
    raises `UsageError`.
    """
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
    wanted, raises = _wanted(rootless=rootless)
    for name, (soft, hard) in wanted.items():
        if name not in found:
            limits.append(_possible(_NAMES.index(name), soft, hard, raises=raises))
    return tuple(sorted(limits))


def _possible(number: int, soft: int, hard: int, *, raises: bool) -> Limit:
    """A default, limited to the values that this process may grant."""
    most = resource.getrlimit(number)[1]
    if raises:
        most = _most_files() if number == resource.RLIMIT_NOFILE else resource.RLIM_INFINITY
    if most != resource.RLIM_INFINITY:
        hard = most if hard == -1 else min(hard, most)
        soft = hard if soft == -1 else min(soft, hard)
    return number, soft, hard


def _most_files() -> int:
    """The system-wide maximum for open files of a process."""
    try:
        with open("/proc/sys/fs/nr_open", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return resource.RLIM_INFINITY
