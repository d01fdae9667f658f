"""An assembler for seccomp(2) filters: classic BPF over `struct seccomp_data`.

A program is a list of instructions. Blocks that end in a verdict are concatenated; a binary search
over the numbers of calls selects one.
"""

from __future__ import annotations

import struct

__all__ = [
    "ALLOW", "ARCHITECTURE", "KILL", "NUMBER", "argument", "assemble", "choose", "errno_of",
    "load", "search", "verdict",
]  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Instruction = tuple[int, int, int, int]
    Block = list[Instruction]

# linux/bpf_common.h
_LOAD = 0x20
_AND = 0x54
_JUMP = 0x05
_IF_EQUAL = 0x15
_IF_GREATER_OR_EQUAL = 0x35
_RETURN = 0x06

# linux/seccomp.h
ALLOW = 0x7FFF0000
KILL = 0x80000000
_ERRNO = 0x00050000

NUMBER = 0
ARCHITECTURE = 4
"""Where `struct seccomp_data` has the number of the call and the machine it is made for."""


def errno_of(number: int) -> int:
    """The verdict that a call fails with the error `number`."""
    return _ERRNO | number


def argument(index: int) -> int:
    """The offset of the lower half of an argument, on little-endian machines."""
    return 16 + 8 * index


def load(offset: int) -> Block:
    """Load the 32 bits at `offset`."""
    return [(_LOAD, 0, 0, offset)]


def verdict(value: int) -> Block:
    """Return a verdict."""
    return [(_RETURN, 0, 0, value)]


def choose(value: int, then: Block, otherwise: Block, *, mask: int = 0xFFFFFFFF) -> Block:
    """`then` if the loaded value, masked with `mask`, equals `value`; otherwise `otherwise`.

    `then` must end in a verdict. Afterwards, the loaded value has only the masked bits.
    """
    test: Block = [] if mask == 0xFFFFFFFF else [(_AND, 0, 0, mask)]
    return [*test, (_IF_EQUAL, 1, 0, value), (_JUMP, 0, 0, len(then)), *then, *otherwise]


def search(cases: Sequence[tuple[int, Block]]) -> Block:
    """The block of the last case whose number is not above the loaded value.

    Cases are sorted by number, the first is 0; every block must end in a verdict.
    """
    if len(cases) == 1:
        return list(cases[0][1])
    middle = len(cases) // 2
    low, high = search(cases[:middle]), search(cases[middle:])
    # A conditional jump reaches 255 instructions, the other kind any.
    return [
        (_IF_GREATER_OR_EQUAL, 0, 1, cases[middle][0]), (_JUMP, 0, 0, len(low)), *low, *high,
    ]  # fmt: skip


def assemble(block: Block) -> bytes:
    """The program in the kernel's format (`struct sock_filter`)."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in block)
