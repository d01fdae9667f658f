"""The default profile of containers as a plain table, and a machine that runs filters."""

from __future__ import annotations

import errno
import struct

from layercache.executors.rootfs.inside import seccomp_profile, syscall_numbers

ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS

ARCHITECTURES = {
    "x86_64": 0xC000003E,
    "x32": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
TABLES = {
    "x86_64": syscall_numbers.x86_64(),
    "x32": syscall_numbers.x32(),
    "i386": syscall_numbers.i386(),
    "aarch64": syscall_numbers.aarch64(),
    "arm": syscall_numbers.arm(),
}


def run(program: bytes, architecture: int, number: int, arguments: list[int]) -> int:
    """What a filter says of a call, as the kernel would run it."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = taken = 0
    while True:
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x20:
            taken = struct.unpack_from("<I", data, value)[0]
        elif kind == 0x54:
            taken &= value
        elif kind == 0x05:
            at += value
        elif kind == 0x15:
            at += yes if taken == value else no
        elif kind == 0x35:
            at += yes if taken >= value else no
        else:
            assert kind == 0x06, hex(kind)
            return int(value)


def expected(machine: str, name: str, arguments: list[int]) -> int:
    """What the profile says of a call, for the capabilities that commands have."""
    low = arguments[0] & 0xFFFFFFFF
    if name == "clone3":
        return ENOSYS
    if name == "clone":
        return EPERM if low & 0x7E020000 else ALLOW
    if name == "personality":
        return ALLOW if low in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF) else EPERM
    if name == "socket":
        refused = {12, 19, 20, 23, 25, 34, 37, 38, 40}
        return ALLOW if low < 46 and low not in refused else EPERM
    extra = {"chroot"} | (
        {"arch_prctl", "modify_ldt"}
        if machine in ("x86_64", "x32")
        else {"modify_ldt"}
        if machine == "i386"
        else {"sync_file_range2"}
        if machine == "aarch64"
        else {
            "arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint",
            "cacheflush", "set_tls",
        }
    )  # fmt: skip
    return ALLOW if name in extra or name in seccomp_profile.ALLOWED.split() else EPERM
