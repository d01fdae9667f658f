"""Builds in an ordinary container: root by number only, behind a container engine's filter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(tmp_path: Path, *options: str) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.contained", str(tmp_path / "s"), *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PATH": f"{tmp_path}:/bin"},  # without newuidmap
        capture_output=True,
        text=True,
        check=False,
    )
    if "user namespaces are not allowed" in done.stdout + done.stderr and not options:
        pytest.skip("user namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_root_without_the_capability_works_rootless(tmp_path: Path) -> None:
    """A user namespace is taken; the host name stays as it is, which a trait tells."""
    busybox = next((p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p)), None)
    if busybox is None:
        pytest.skip("no busybox: apt-get install busybox-static")
    (tmp_path / "busybox").symlink_to(busybox)
    out = _run(tmp_path)
    assert "mode='rootless" in out
    assert "isn't root with CAP_SYS_ADMIN" in out
    assert "'host name': ''" in out
    assert f"\n{os.uname().nodename}\n0\n" in out


def test_where_nothing_works_the_reasons_are_told(tmp_path: Path) -> None:
    """Neither way is open: the reasons are given, and each way that is left is named."""
    out = _run(tmp_path, "closed")
    assert "mode=None" in out
    for part in (
        "isn't root with CAP_SYS_ADMIN", "user namespaces are not allowed", "--privileged",
        "seccomp=unconfined", "--executor workspace",
    ):  # fmt: skip
        assert part in out.partition("ExecutorUnavailable")[2]
