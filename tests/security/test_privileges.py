"""What a command may, against runc's defaults, each value read from inside a step."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from .conftest import Probe

DEFAULT = "00000000a80425fb"
"""The capabilities that runc and BuildKit give (moby, `oci/caps`)."""
NONE = "0" * 16


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (s.partition(":") for s in text.splitlines())}


TABLE = (
    ("CapInh", NONE, NONE),
    ("CapPrm", DEFAULT, NONE),
    ("CapEff", DEFAULT, NONE),
    ("CapBnd", DEFAULT, DEFAULT),
    ("CapAmb", NONE, NONE),
    ("NoNewPrivs", "0", "0"),  # BuildKit leaves it off: setuid programs work
    ("Seccomp", "2", "2"),
)
"""Field of /proc/self/status, what root's command has, what that of an ordinary user has."""


def test_table(probe: Probe, request: pytest.FixtureRequest) -> None:
    """Capabilities, `no_new_privs` and the filter's mode, as root and as an ordinary user."""
    found = _fields(probe("status"))
    assert [found[field] for field, _, _ in TABLE] == [root for _, root, _ in TABLE]
    if "rootless-single" not in request.node.name:  # which has no other user
        found = _fields(probe("status_of_user"))
        assert [found[field] for field, _, _ in TABLE] == [user for _, _, user in TABLE]


def test_insecure_lifts_the_filter(probe: Probe) -> None:
    """`--security=insecure` has no filter of ours, once it is allowed."""
    ours = _fields(Path("/proc/self/status").read_text())
    assert _fields(probe("insecure"))["Seccomp"] == ours["Seccomp"]


def test_keyrings_are_new(probe: Probe, program: str) -> None:
    """Even a command that all is allowed to begins with a session keyring of its own.

    Asked for by its number (KEYCTL_GET_KEYRING_ID), which creates nothing.
    """
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    answer = probe("insecure_calls", program, f"0 {keyctl} 0 -3 0 0 0 0\n")
    number, error = answer.split()
    if int(number) < 0:
        assert error in ("1", "38")  # there are none here, or a filter around us hides them
        return
    ours = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(keyctl), 0, -3, 0)
    assert int(number) != ours
