"""Descriptors of new processes in the helper, by number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from layercache.executors.rootfs.inside.descriptors import keep_only

order = [int(word) for word in sys.argv[1:]]
for number in sorted(order):
    fd = os.memfd_create("one")
    os.write(fd, str(number).encode())
    os.dup2(fd, 200)
    os.close(fd)
    os.dup2(200, number)
    os.close(200)
keep_only(order)
listed = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
open_ = sorted(int(name) for name in os.listdir(listed) if int(name) not in (0, 1, 2))
print(*open_, "/", *(os.pread(3 + n, 9, 0).decode() for n in range(len(order))))
"""


@pytest.mark.parametrize("order", [(3, 4), (4, 3), (7, 3), (100, 101), (101, 100), (5, 4, 3)])
def test_numbers_that_meet_are_kept_apart(order: tuple[int, ...]) -> None:
    """Each arrives at its number with its content, whoever had that number; nothing else is open.

    With many steps at once, the numbers are high, and any of them may be a target.
    """
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, order)],
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[3],
    ).stdout.decode()
    kept, _, contents = said.partition("/")
    count = len(order)
    # The last one, or two, is what the listing itself opened.
    assert [int(number) for number in kept.split()][:count] == list(range(3, 3 + count))
    assert len(kept.split()) <= count + 2
    assert contents.split() == [str(number) for number in order]
