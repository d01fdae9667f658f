"""Tracers that are broken on purpose: the same program, with something patched before it runs."""

from __future__ import annotations

import sys

import pytest

from layercache.executors.rootfs import helper_command as helper
from layercache.executors.rootfs import tracer_client as tracing

__all__ = ["drops", "use_tracer"]

_CODE = """\
import sys; sys.path.append(sys.argv[1])
from layercache.executors.rootfs import _tracefs as t
TraceFS = t.TraceFS
{patch}
t.main(int(sys.argv[2]))
"""

_DROP = """\
note = TraceFS.note
def dropped(self, path, bit):
    note(self, path, bit & ~{bit})
TraceFS.note = dropped
"""


def drops(bit: int) -> str:
    """The patch of a tracer that never says `bit`."""
    return _DROP.format(bit=bit)


def use_tracer(monkeypatch: pytest.MonkeyPatch, patch: str) -> None:
    """Let executors that are opened from now on use a tracer with `patch` applied."""
    code = _CODE.format(patch=patch)
    command = [sys.executable, "-I", "-S", "-c", code, helper._place()]
    monkeypatch.setattr(tracing, "tracer_command", lambda: command)
