"""What a command sees does not depend on who called the builder, nor on what no key holds."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache.errors import UsageError
from layercache.executors.rootfs import RootfsExecutor
from layercache.executors.rootfs.inside.tracefs import MAX_PATHS, TraceFS
from layercache.executors.rootfs.ulimits import lowered_limits
from layercache.executors.rootfs.written_selection import NAME, write_selection
from layercache.layers.accounts import resolve_owner
from layercache.model.layer_times import LAYER_TIME
from layercache.model.operations import Mount
from layercache.model.tree import Node
from layercache.trees.in_memory import DictTree, file
from tests.executors.rootfs.conftest import Bench, files

REPOSITORY = Path(__file__).parents[2]

FACTS = (
    "cat /proc/self/limits; umask; uname -m; id; env | sort; pwd; tty; "
    "grep -E 'Sig[PBIC]|Shd|Cap|NoNew|THP|Groups' /proc/self/status; cat /proc/self/personality; "
    "cat /proc/self/timerslack_ns; ls /proc/self/fd | wc -l; stat -c '%a %u %g %Y' / /tmp /dev; "
    "cut -d' ' -f5-7 /proc/self/stat"
)


def facts(prepare: Callable[[], None], **environment: str) -> str:
    """What a step of a builder sees that was started after `prepare`."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "tests.security.inside", "shell", f"{scratch}/s", FACTS],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            preexec_fn=prepare,
            capture_output=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def lower_limits() -> None:
    for name in ("NOFILE", "MEMLOCK", "SIGPENDING", "MSGQUEUE", "NPROC", "CORE", "STACK"):
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            least = {"NOFILE": 500, "NPROC": 5000, "STACK": 4 << 20}.get(name, 1000)
            resource.setrlimit(number, (least, least))


def hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD})
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def another_personality() -> None:
    ctypes.CDLL(None).personality(0x0008 | 0x0040000)  # linux32, fixed addresses


def further_descriptors() -> None:
    for _ in range(5):
        os.set_inheritable(os.open("/", os.O_RDONLY), True)


def slack_of_timers() -> None:
    ctypes.CDLL(None).prctl(29, ctypes.c_ulong(1_000_000), 0, 0, 0)


def roots_that_keep_what_they_may() -> None:
    """SECBIT_NO_SETUID_FIXUP: changing the user would take no capability away."""
    ctypes.CDLL(None).prctl(28, ctypes.c_ulong(0x4), 0, 0, 0)


CALLERS = (
    lower_limits, hold_signals, another_personality, further_descriptors, slack_of_timers,
    roots_that_keep_what_they_may, lambda: None,
)  # fmt: skip


def test_commands_do_not_see_who_called(busybox: bytes) -> None:
    """Limits, signals, personality, descriptors, slack, secure bits, umask, environment: all of
    the caller's stay with the caller."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    expected = facts(lambda: None)
    fixed = not lowered_limits(rootless=False)  # else they are traits, see below
    for prepare in CALLERS if fixed else CALLERS[1:]:
        assert facts(prepare) == expected, prepare.__name__
    old = os.umask(0o077)
    try:
        assert facts(lambda: None, LANG="xx", SECRET="1", PYTHONSTARTUP="/x") == expected
    finally:
        os.umask(old)


def test_limits_that_can_t_be_given_are_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to raise limits, what is granted is in every key."""

    def labels() -> dict[str, object]:
        return {field.label: field.value for field in executor.traits}

    granted = {resource.RLIMIT_NOFILE: (100, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda n: granted.get(n, (-1, -1)))
    executor = RootfsExecutor("/nowhere", rootless=True)
    assert labels()["lowered limits"] == "nofile=1024:4096"
    granted[resource.RLIMIT_NOFILE] = (100, 1 << 20)
    assert "lowered limits" not in labels()


Lookup = Callable[[bytes], Node | None]


def test_the_root_of_a_context_shows_no_mode_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two contexts of one fingerprint look alike: mode, owner and attributes of the root are not
    in it, and neither are labels of the host."""
    from layercache.trees.selection import fingerprint

    shown = []
    selected = files(".")
    for number, mode in enumerate((0o40700, 0o41777, 0o40755)):
        tree = DictTree({"a": file("x", xattrs=((b"security.label", b"%d" % number),)), "d/b": "y"})
        plain = tree.lookup
        root = Node(mode=mode, uid=number, gid=number, mtime=number)

        def lookup(path: bytes, root: Node = root, plain: Lookup = plain) -> Node | None:
            return plain(path) if path else root

        monkeypatch.setattr(tree, "lookup", lookup)
        place = tmp_path / str(number)
        place.mkdir()
        write_selection(tree, selected, str(place), LAYER_TIME)
        info = (place / NAME).stat()
        attributes = os.listxattr(place / NAME / "a")
        shown.append(
            (fingerprint(tree, selected), info.st_mode, info.st_uid, info.st_mtime, attributes)
        )
    assert shown == [shown[0]] * 3
    assert shown[0][1:] == (0o40755, os.geteuid(), LAYER_TIME, [])


def test_a_mounted_context_is_open_to_every_user(bench: Bench) -> None:
    """From inside a step: the root is 0755 and root's, whether it is written to or not."""
    from layercache.model.tree import Node

    tree = DictTree({"a": "x"})
    plain = tree.lookup
    tree.lookup = (  # type: ignore[method-assign]
        lambda path: plain(path) if path else Node(mode=0o40700, uid=7, gid=7)
    )
    given = bench.context(tree, files("."), "mount /m")
    seen = {
        bench.out(
            "stat -c '%a %u %g %Y' /m; cat /m/a",
            inputs=(given,),
            mounts=(Mount(type="bind", target="/m", role="mount /m", readonly=readonly),),
            user="app",
        )
        for readonly in (True, False)
    }
    assert len(seen) == 1
    head, _, content = seen.pop().partition("\n")
    *facts, moment = head.split(" ")
    assert (facts, content) == (["755", "0", "0"], "x")
    # After everything that the step's own state shows, not the time at which it was written.
    assert 0 < int(moment) - LAYER_TIME < 10_000


def test_a_writable_mount_of_a_stage_shows_its_root(bench: Bench) -> None:
    """Mode, owner and time of the root of a stage are those of the stage, written to or not."""
    stage = bench.after(bench.sh("chmod 711 /; chown 5:6 /"))
    given = bench.stage(stage, files("."), "mount /m")
    seen = {
        bench.out(
            "stat -c '%a %u %g %Y' /m",
            inputs=(given,),
            mounts=(Mount(type="bind", target="/m", role="mount /m", readonly=readonly),),
        )
        for readonly in (True, False)
    }
    assert len(seen) == 1
    assert seen.pop().startswith("711 5 6 ")


def test_what_is_noted_has_a_bound(tmp_path: Path) -> None:
    """A command that asks for names without end costs no memory without end, and every answer
    stays right; what it depends on is then not known."""
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    traced = TraceFS(root, -1, attributes=False)
    for number in range(MAX_PATHS):
        traced.note(b"%d" % number, 1)
    assert len(traced.seen) == MAX_PATHS
    assert not traced.full
    traced.note(b"0", 2)
    assert traced.seen[b"0"] == 3
    traced.note(b"one more", 1)
    assert traced.full
    assert traced.seen == {}
    traced.note(b"and more", 1)
    assert traced.seen == {}
    long = TraceFS(root, -1, attributes=False)
    for number in range(20_000):
        long.note(b"%d" % number + b"x" * 4000, 1)
    assert long.full
    assert not traced.trouble
    os.close(root)


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("0" * 30 + "1000", (1000, 1000)), ("0001:0000000000000002", (1, 2)), ("000", (0, 0))],
)
def test_owners_with_leading_zeros(owner: str, expected: tuple[int, int]) -> None:
    """`--chown` reads a number to its end."""
    assert resolve_owner(owner, lambda _: b"") == expected


@pytest.mark.parametrize(
    "fields",
    [{"uid": 2**32 - 1}, {"gid": 2**32 - 1}, {"uid": -1}, {"mode": 0o10000}, {"mode": -1}],
)
def test_mounts_for_nobody_are_refused(bench: Bench, fields: dict[str, int]) -> None:
    """The number that means "leave the owner as it is" is no owner; modes have twelve bits."""
    mount = Mount(type="cache", target="/c", readonly=False, **{"mode": 0o755, **fields})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"is not a (valid owner|mode)"):
        bench.run("true", mounts=(mount,))
