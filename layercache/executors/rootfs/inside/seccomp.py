"""The filter of system calls for commands, made once per build.

It applies to the command and all its descendants, and can't be removed. Programs for other
machines that the processor can also run (32 bits, x32) have numbers and a search tree of their own.
"""

from __future__ import annotations

import errno

from layercache.executors.rootfs.inside import bpf
from layercache.executors.rootfs.inside import seccomp_profile as _profile
from layercache.executors.rootfs.inside import syscall_numbers as _numbers

__all__ = ["MACHINES", "filter_of"]

_REFUSED = bpf.errno_of(errno.EPERM)
_UNKNOWN = bpf.errno_of(errno.ENOSYS)

# linux/audit.h
_X86_64, _I386, _AARCH64, _ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028

MACHINES = ("x86_64", "aarch64")
"""As uname(2) calls them: where there is a filter."""


def filter_of(machine: str, capabilities: tuple[int, ...]) -> bytes:
    """The program for commands with at most `capabilities`; empty if the machine is unsupported."""
    if machine == "x86_64":
        wide = _cases("x86_64", _numbers.x86_64(), capabilities)
        narrow = _cases("x32", _numbers.x32(), capabilities)
        # Whatever is from the bit on is x32's; its cases but the first begin there.
        wide += narrow[1:]
        other = _tree("i386", _numbers.i386(), capabilities)
        trees = ((_X86_64, bpf.search(wide)), (_I386, other))
    elif machine == "aarch64":
        trees = (
            (_AARCH64, _tree("aarch64", _numbers.aarch64(), capabilities)),
            (_ARM, _tree("arm", _numbers.arm(), capabilities)),
        )
    else:
        return b""
    block = bpf.verdict(bpf.KILL)
    for architecture, tree in reversed(trees):
        block = bpf.choose(architecture, bpf.load(bpf.NUMBER) + tree, block)
    return bpf.assemble(bpf.load(bpf.ARCHITECTURE) + block)


def _tree(machine: str, numbers: dict[str, int], capabilities: tuple[int, ...]) -> bpf.Block:
    return bpf.search(_cases(machine, numbers, capabilities))


def _cases(
    machine: str, numbers: dict[str, int], capabilities: tuple[int, ...]
) -> list[tuple[int, bpf.Block]]:
    """Numbers and the verdict that applies from each on; the first is 0."""
    newest = _numbers.NEWEST | (_numbers.X32_BIT if machine == "x32" else 0)
    allowed = _profile.calls_of(machine, capabilities)
    by_arguments = _profile.arguments_of(capabilities)
    verdicts: dict[int, bpf.Block] = {}
    for name, number in numbers.items():
        if name in allowed:
            verdicts[number] = bpf.verdict(bpf.ALLOW)
        elif name in by_arguments:
            verdicts[number] = _by_argument(*by_arguments[name])
        elif name == "clone3":
            verdicts[number] = bpf.verdict(_UNKNOWN)
        else:
            verdicts[number] = bpf.verdict(_REFUSED)
    cases: list[tuple[int, bpf.Block]] = [(0, bpf.verdict(_REFUSED))]
    if machine == "x32":
        cases.append((_numbers.X32_BIT, bpf.verdict(_REFUSED)))
    for number in sorted({*verdicts, *(n + 1 for n in verdicts), newest + 1}):
        known = number <= newest
        block = verdicts.get(number) or bpf.verdict(_REFUSED if known else _UNKNOWN)
        if block != cases[-1][1]:
            cases.append((number, block))
    return cases


def _by_argument(index: int, mask: int, values: tuple[int, ...]) -> bpf.Block:
    """Allow the call if the argument is one of `values`; otherwise refuse it."""
    block = bpf.verdict(_REFUSED)
    if mask == 0xFFFFFFFF and len(values) > 8:
        cases: list[tuple[int, bpf.Block]] = [(0, bpf.verdict(_REFUSED))]
        for value in sorted({*values, *(v + 1 for v in values)}):
            found = bpf.verdict(bpf.ALLOW if value in values else _REFUSED)
            if value == 0:
                cases = [(0, found)]
            elif found != cases[-1][1]:
                cases.append((value, found))
        return bpf.load(bpf.argument(index)) + bpf.search(cases)
    for value in values:
        block = bpf.choose(value, bpf.verdict(bpf.ALLOW), block, mask=mask)
    return bpf.load(bpf.argument(index)) + block
