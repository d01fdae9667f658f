"""The filter of system calls: every call of every table, and from inside a step."""

from __future__ import annotations

import os
import random

import pytest

from layercache.executors.rootfs.inside.command import CAPABILITIES
from layercache.executors.rootfs.inside.seccomp import filter_of

from .conftest import Probe
from .filters import ALLOW, ARCHITECTURES, ENOSYS, EPERM, KILL, TABLES, expected, run

MACHINES = {"x86_64": ("x86_64", "x32", "i386"), "aarch64": ("aarch64", "arm")}

_FORBIDDEN = """
acct add_key bpf clock_settime create_module delete_module fanotify_init finit_module
fsconfig fsmount fsopen fspick get_mempolicy init_module io_uring_enter io_uring_register
io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie
lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr
move_mount move_pages nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open
pidfd_getfd pivot_root process_madvise quotactl quotactl_fd reboot request_key set_mempolicy
set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog
umount2 unshare uselib userfaultfd ustat vhangup _sysctl file_getattr file_setattr
"""
"""What the default profile keeps from containers (and that this kernel may have)."""


@pytest.mark.parametrize("machine", list(MACHINES))
def test_the_filter_decides_as_the_profile_says(machine: str) -> None:
    """Each call of each table of a machine, with arguments on both sides of what counts."""
    program = filter_of(machine, CAPABILITIES)
    pick = random.Random(7)
    for abi in MACHINES[machine]:
        for name, number in TABLES[abi].items():
            for first in (0, 8, 40, 38, 0x10000000, 0x20008, 0x7E020000, pick.getrandbits(64)):
                arguments = [first, *(pick.getrandbits(64) for _ in range(5))]
                found = run(program, ARCHITECTURES[abi], number, arguments)
                assert found == expected(abi, name, arguments), (abi, name, hex(first))


@pytest.mark.parametrize("machine", list(MACHINES))
def test_numbers_that_no_table_has(machine: str) -> None:
    """What is newer than the tables is as from an older kernel; gaps and negative numbers too
    are never allowed, nor is any call of a machine that there is no table of."""
    program = filter_of(machine, CAPABILITIES)
    for abi in MACHINES[machine]:
        known = set(TABLES[abi].values())
        bit = 0x40000000 if abi == "x32" else 0
        for number in [*range(bit, bit + 1200), 0x7FFFFFFF, 0xFFFFFFFF, 0x3FFFFFFF, bit + 0xF0000]:
            found = run(program, ARCHITECTURES[abi], number, [0] * 6)
            if machine == "x86_64" and abi != "i386" and number >= 0x40000000:
                known = set(TABLES["x32"].values())
            if number not in known:
                assert found in (EPERM, ENOSYS), (abi, number)
        assert run(program, ARCHITECTURES[abi], bit | 470, [0] * 6) == ENOSYS
    assert run(program, 0x8, 1, [0] * 6) == KILL
    assert run(program, 0xC00000F3, 64, [0] * 6) == KILL


def test_there_is_none_for_other_machines() -> None:
    """No filter is claimed where no table is."""
    assert filter_of("riscv64", CAPABILITIES) == b""


def test_capabilities_open_their_groups() -> None:
    """With CAP_SYS_ADMIN among the capabilities mount and namespaces are allowed."""
    program = filter_of("x86_64", (*CAPABILITIES, 21))
    for name in ("mount", "unshare", "clone3", "setns"):
        assert run(program, 0xC000003E, TABLES["x86_64"][name], [0x10000000] * 6) == ALLOW
    program = filter_of("x86_64", tuple(set(CAPABILITIES) - {18}))
    assert run(program, 0xC000003E, TABLES["x86_64"]["chroot"], [0] * 6) == EPERM


BAD = "-1 " * 6
"""Arguments that no call takes: a door that stood open would lead nowhere."""


def _asked(probe: Probe, program: str, lines: list[str]) -> list[str]:
    answers = probe("calls", program, "".join(f"{line}\n" for line in lines)).splitlines()
    assert len(answers) == len(lines), answers
    return answers


def test_forbidden_calls(probe: Probe, program: str) -> None:
    """Each call that containers must not make is refused in a step, in each of its numbers."""
    machine = os.uname().machine
    asked: list[tuple[str, str, str]] = []
    for abi in MACHINES[machine]:
        if abi == "arm":
            continue  # not every processor runs them
        for name in _FORBIDDEN.split():
            number = TABLES[abi].get(name)
            if number is not None:
                asked.append((abi, name, f"{int(abi == 'i386')} {number} {BAD}"))
    answers = _asked(probe, program, [line for _, _, line in asked])

    wrong = [
        (*case[:2], answer)
        for case, answer in zip(asked, answers, strict=True)
        if answer != "-1 1"  # EPERM
    ]
    assert not wrong
    assert len(asked) > 60


def test_arguments_that_count(probe: Probe, program: str) -> None:
    """Namespaces by clone, AF_VSOCK, AF_ALG and address layouts are refused; the rest is not."""
    table = TABLES[os.uname().machine]
    cases = [
        *((f"clone {flag:#x} -1 0 0 0 0", "-1 1") for flag in (
            0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
        )),
        ("clone3 0 0 0 0 0 0", "-1 38"),
        ("socket 40 1 0 0 0 0", "-1 1"),
        ("socket 38 5 0 0 0 0", "-1 1"),
        ("socket 0x100000028 1 0 0 0 0", "-1 1"),
        ("clone 0x110000000 -1 0 0 0 0", "-1 1"),
        ("personality 0x100040000 0 0 0 0 0", "-1 1"),
        ("personality 0x40000 0 0 0 0 0", "-1 1"),
        ("personality 0x0400000 0 0 0 0 0", "-1 1"),
        ("personality 0xffffffff 0 0 0 0 0", "0 0"),
        ("personality 0 0 0 0 0 0", "0 0"),
        ("keyctl 0 -3 0 0 0 0", "-1 1"),
        ("keyctl 11 -4 0 0 0 0", "-1 1"),
        ("getppid 0 0 0 0 0 0", ""),
        ("470 0 0 0 0 0 0", "-1 38"),
        ("socket 1 1 0 0 0 0", ""),
    ]  # fmt: skip
    lines = []
    for text, _ in cases:
        name, *arguments = text.split()
        numbers = [str(int(argument, 0)) for argument in arguments]
        lines.append(" ".join(["0", str(table.get(name, name)), *numbers]))
    answers = _asked(probe, program, lines)

    for (text, wanted), answer in zip(cases, answers, strict=True):
        assert answer == wanted if wanted else not answer.startswith("-1"), (text, answer)
