"""Nothing is left of a step: no process, no mount, no directory; however it or its build ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layercache.errors import BuildError, Cancelled, LayerCacheError, StepFailed
from layercache.executors.rootfs import RootfsExecutor
from layercache.executors.rootfs.deletion import delete_tree
from layercache.executors.rootfs.scratch import Scratch
from layercache.model.operations import Mount

from .conftest import Bench, Window

REPOSITORY = Path(__file__).parents[3]
ONE_BUILD = "tests.executors.rootfs.build_once"
KEPT = {"owners", "unpacked", "caches", "work", "inputs", "trash"}
MARK = f"sleep {10_000_000 + os.getpid()}"
UP = f"mkdir /big; echo x > /big/x; ({MARK}) & {MARK} & echo up; {MARK}"


def processes(scratch: Path) -> list[str]:
    """Command lines of processes that have to do with a scratch directory or with `UP`."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        try:
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            roots = os.readlink(place / "root")
        except OSError:
            continue
        if str(scratch) in line + roots or MARK in line:
            found.append(line)
    return found


def mounts(scratch: Path) -> list[str]:
    return [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(scratch) in line
    ]


def assert_clean(scratch: Path) -> None:
    """Neither process nor mount is left, nor a directory that isn't meant to stay."""
    deadline = time.monotonic() + 20
    while processes(scratch) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes(scratch) == []
    assert mounts(scratch) == []
    assert {p.name for p in scratch.iterdir()} <= KEPT
    for name in ("work", "inputs", "trash"):
        assert list((scratch / name).iterdir()) == []


def test_after_success(bench: Bench) -> None:
    """Closing leaves unpacked layers and caches only."""
    mount = Mount(type="cache", target="/c", readonly=False)
    bench.sh("echo x > /c/x; echo y > /y", mounts=(mount,))
    bench.executor.close()

    assert_clean(bench.directory)


def test_after_failure(bench: Bench) -> None:
    """A failed step leaves nothing, even of many and unreadable files."""
    with pytest.raises(StepFailed):
        bench.sh(
            "mkdir -p /d/e; for i in $(seq 50); do touch /d/e/$i; done; chmod 0 /d /d/e; false"
        )
    bench.executor.close()

    assert_clean(bench.directory)


def test_after_a_time_limit(make_bench: Callable[..., Bench]) -> None:
    """A step that was killed for its time leaves nothing."""
    bench = make_bench(step_timeout=0.3)
    with pytest.raises(StepFailed, match="longer"):
        bench.sh(UP)
    assert [line for line in processes(bench.directory) if MARK in line] == []
    bench.executor.close()

    assert_clean(bench.directory)


def test_after_cancellation(bench: Bench) -> None:
    """A cancelled step ends at once, all of it, before the call returns."""
    window = Window(bench)

    def stop() -> None:
        assert window.told.wait(20)
        window.stop.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Cancelled):
        bench.sh(UP, window=window)
    thread.join()
    assert [line for line in processes(bench.directory) if MARK in line] == []
    bench.executor.close()

    assert_clean(bench.directory)


def test_closing_ends_running_steps(bench: Bench) -> None:
    """A step that runs while its executor is closed is an error, and gone."""
    window = Window(bench)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            bench.sh(UP, window=window)
        except LayerCacheError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert window.told.wait(20)
    bench.executor.close()
    thread.join()

    assert len(caught) == 1
    assert [line for line in processes(bench.directory) if MARK in line] == []


@pytest.fixture
def start(tmp_path: Path, busybox: bytes) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a build in a process of its own, and waits until its command is up."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    started = []

    def start(*more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", ONE_BUILD, str(tmp_path / "s"), UP, *more],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_after_ctrl_c(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group; the build ends its step, then itself."""
    process = start()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)

    assert_clean(tmp_path / "s")


@pytest.mark.parametrize("how", [(), ("thread",)])
def test_after_kill_9(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, how: tuple[str, ...]
) -> None:
    """A killed build takes its processes and mounts with it; its directories go with the next."""
    process = start(*how)
    assert processes(tmp_path / "s")
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while processes(tmp_path / "s") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes(tmp_path / "s") == []
    assert mounts(tmp_path / "s") == []
    assert list((tmp_path / "s" / "work").iterdir()) != []
    with RootfsExecutor(tmp_path / "s") as executor, executor._open():
        pass

    assert_clean(tmp_path / "s")


def test_after_the_helper_is_killed(bench: Bench) -> None:
    """Without its helper process a step is an error and gone; the next step gets a new helper."""
    window = Window(bench)

    def kill() -> None:
        assert window.told.wait(20)
        os.kill(bench.helper()[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    from layercache.errors import BuildError

    with pytest.raises(BuildError, match="helper process"):
        bench.sh(UP, window=window)
    thread.join()
    assert bench.out("echo again") == "again\n"
    bench.executor.close()

    assert_clean(bench.directory)


def test_two_builds_share_a_directory(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A build that begins beside another one leaves what that one uses alone."""
    one, two = make_bench(directory=tmp_path / "s"), make_bench(directory=tmp_path / "s")
    window = Window(one)
    thread = threading.Thread(target=lambda: one.sh("echo up; sleep 1; echo x > /x", window=window))
    thread.start()
    assert window.told.wait(20)
    assert two.out("echo two") == "two\n"
    two.executor.close()
    thread.join()
    assert one.out("echo one") == "one\n"
    one.executor.close()

    assert_clean(tmp_path / "s")


def test_steps_side_by_side(bench: Bench) -> None:
    """Many steps at once, on different states, each with its own result."""
    states = [bench.after(bench.sh(f"echo {n} > /n")) for n in range(4)]
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = bench.out(
            "read n < /n; echo $n >> /tmp/log; sleep 0.1; cat /tmp/log", state=states[number % 4]
        )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {n: f"{n % 4}\n" for n in range(16)}


def test_one_layer_wanted_by_many_steps_at_once(bench: Bench) -> None:
    """Steps that need the same layer first unpack it once."""
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(bench.out("echo ok"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == ["ok\n"] * 8
    assert len(list((bench.directory / "unpacked").iterdir())) == 1


def test_a_foreign_scratch_directory_is_refused(tmp_path: Path) -> None:
    """A directory that another user controls is not worked in."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    from layercache.errors import BuildError

    place = tmp_path / "s"
    place.mkdir()
    os.chown(place, 12345, 12345)
    with pytest.raises(BuildError, match="another user"):
        Scratch(str(place))


def test_owner_locks_are_few(tmp_path: Path) -> None:
    """Lock files are not made anew for each build."""
    for _ in range(5):
        Scratch(str(tmp_path / "s")).close()

    assert {p.name for p in (tmp_path / "s" / "owners").iterdir()} == {"0", "use"}


def test_deleting_follows_no_link_and_knows_no_depth(tmp_path: Path) -> None:
    """A tree deeper than paths may be long goes; what its links point at stays."""
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.symlink(keep, "link", dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    delete_tree(str(top))

    assert not top.exists()
    assert (keep / "file").read_text() == "x"
    delete_tree(str(top))


def test_pruning(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Unpacked layers and, when asked for, caches go; not while another build is at work."""
    one, two = make_bench(directory=tmp_path / "s"), make_bench(directory=tmp_path / "s")
    mount = Mount(type="cache", target="/c", readonly=False)
    state = one.after(one.sh("echo x > /x; echo y > /c/y", mounts=(mount,)))
    two.run("true")
    assert one.executor.prune(caches=True) == 0
    two.executor.close()
    assert one.executor.prune(unused_for=3600) == 0
    assert one.executor.prune() == 2
    assert one.out("cat /x /c/y", state=state, mounts=(mount,)) == "x\ny\n"
    one.executor.prune(caches=True)

    assert one.out("cat /x; ls /c", state=state, mounts=(mount,)) == "x\n"


def test_odd_names_in_a_scratch_directory_are_left(tmp_path: Path) -> None:
    """What no build has named so is nobody's leftover, and stops nobody."""
    names = ["\u00b2-1", "\u0661-1", "-1", "x"]
    for name in names:
        (tmp_path / "work" / name).mkdir(parents=True)
    scratch = Scratch(str(tmp_path))
    assert list(scratch.leftovers()) == []
    scratch.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
@pytest.mark.parametrize("name", sorted(KEPT))
def test_directories_of_another_user_are_refused(tmp_path: Path, name: str) -> None:
    """Whoever owns one could change what is unpacked in it."""
    (tmp_path / name).mkdir()
    os.chown(tmp_path / name, 1, 1)
    with pytest.raises(BuildError, match="belongs to another user"):
        Scratch(str(tmp_path))
