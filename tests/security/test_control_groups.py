"""Each step has control groups of its own, and sees and reaches nobody's else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from layercache.errors import StepFailed
from layercache.executors.rootfs.inside.cgroups import open_own
from tests.executors.rootfs.conftest import Bench

from .conftest import Probe


def _groups() -> list[Path]:
    """Where groups below this process's own can be made, one for each hierarchy."""
    found = []
    for fd in open_own():
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        os.close(fd)
        try:
            (path / f"layercache-test-{os.getpid()}").mkdir()
            (path / f"layercache-test-{os.getpid()}").rmdir()
        except OSError:
            continue
        found.append(path)
    if not found:
        pytest.skip("no control group can be made here")
    return found


def _ours(bench: Bench, bases: list[Path]) -> list[Path]:
    """The groups of a bench's steps."""
    _, prefix = bench.helper()
    return [path for base in bases for path in base.glob(f"{prefix}*")]


def _until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_step_has_groups_of_its_own(bench: Bench) -> None:
    """Its processes are in a group in each hierarchy while it runs, which goes with it."""
    bases = _groups()
    bench.run("true")
    step = threading.Thread(target=lambda: bench.out("sleep 1"))
    step.start()
    _until(lambda: len(_ours(bench, bases)) == len(bases))
    _until(lambda: all((p / "cgroup.procs").read_text() for p in _ours(bench, bases)))
    groups = _ours(bench, bases)
    assert len(groups) == len(bases)
    step.join()
    _until(lambda: not _ours(bench, bases))


def test_a_step_sees_its_own_as_the_root(probe: Probe) -> None:
    """The namespace begins at the step's groups, so that no name of the host's is seen."""
    out = probe("shell", "cut -d: -f3 /proc/self/cgroup | sort -u")
    assert out == "/\n"


def test_nothing_is_mounted_or_unshared(bench: Bench) -> None:
    """Neither version of control groups, nor namespaces in which that would be allowed."""
    for attempt in (
        "mount -t cgroup2 none /tmp",
        "mount -t cgroup -o pids none /tmp",
        "mount -t cgroup -o none,name=x none /tmp",
        "unshare -U true",
        "unshare -r mount -t cgroup2 none /tmp",
        "unshare -m true",
        "unshare -n true",
        "mkdir /sys/fs/cgroup/x",
        "find /sys/fs/cgroup -name cgroup.procs | grep .",
    ):
        with pytest.raises(StepFailed):
            bench.sh(attempt)


def test_what_insecure_mounts_is_its_own(make_bench: Callable[..., Bench]) -> None:
    """Who may mount the hierarchies finds itself in them, and no group above its own."""
    bases = _groups()
    bench = make_bench(allow_insecure=True)
    kinds = {base.stat().st_dev: base for base in bases}
    assert kinds
    ours = {str(os.getpid()), str(os.getppid())}
    script = (
        "mkdir -p /m; for o in cgroup2 'cgroup -o pids' 'cgroup -o freezer' 'cgroup -o memory'; do "
        "mount -t $o none /m 2>/dev/null || continue; echo seen; cat /m/cgroup.procs; "
        "ls -d /m/layercache* 2>/dev/null; umount /m; done"
    )
    lines = bench.out(script, security="insecure").splitlines()
    assert "seen" in lines
    # Processes have the numbers of the step's own namespace; 0 would be one from outside.
    assert not {"0", *ours} & set(lines)
    assert not [line for line in lines if "layercache" in line]


def test_what_a_killed_build_left(bench: Bench) -> None:
    """Groups of a build that can't have been removed go with the next of its number."""
    bases = _groups()
    bench.run("true")
    _, prefix = bench.helper()
    left = [base / f"{prefix}999" for base in bases]
    bench.executor.close()
    for path in left:
        path.mkdir()
        (path / "below").mkdir()
    bench.run("true")
    _until(lambda: not any(path.exists() for path in left))


def test_a_killed_build_leaves_none(tmp_path: Path) -> None:
    """Killed at a step, the build is followed by its helper, which removes the groups."""
    bases = _groups()
    code = (
        "import sys; from pathlib import Path; from tests.executors.rootfs.conftest import Bench; "
        "from layercache.testing.images import busybox_layer; "
        "Bench(Path(sys.argv[1]), busybox_layer()).sh('sleep 60')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    place = blake3(os.fsencode(os.path.realpath(tmp_path / "s"))).hexdigest()[:12]

    def new() -> list[Path]:
        return [path for base in bases for path in base.glob(f"layercache-{place}-*")]

    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as build:
        _until(lambda: len(new()) >= len(bases))
        build.kill()
    _until(lambda: not new())
