"""Nothing outside the root can be reached or changed by a command, however hostile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache.errors import LayerCacheError, StepFailed
from layercache.testing.images import tar_of

from .conftest import Bench

DEFAULT_CAPABILITIES = "00000000a80425fb"
"""What Docker gives a container."""


def test_capabilities_are_docker_s(bench: Bench) -> None:
    """Root has the default set and can gain no more; a user has none but can regain the set."""
    out = bench.out("grep Cap /proc/self/status")
    values = [line.split()[1] for line in out.splitlines()]
    assert values == ["0" * 16, *[DEFAULT_CAPABILITIES] * 3, "0" * 16]

    out = bench.out("grep Cap /proc/self/status", user="app")
    values = [line.split()[1] for line in out.splitlines()]
    assert values == ["0" * 16, "0" * 16, "0" * 16, DEFAULT_CAPABILITIES, "0" * 16]


def test_insecure_keeps_everything(make_bench: Callable[..., Bench]) -> None:
    """RUN --security=insecure has the capabilities of the builder, where that is allowed."""
    bench = make_bench(allow_insecure=True)
    bound = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    out = bench.out("grep -E 'CapEff|CapBnd' /proc/self/status", security="insecure")

    assert [line.split()[1] for line in out.splitlines()] == [bound, bound]
    made = bench.out("mount -t tmpfs none /tmp && echo mounted", security="insecure")
    assert made == "mounted\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /tmp",
        "mount -o remount,dev /",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/profiling",
        "mkdir /sys/fs/cgroup/x",
        "hostname evil",
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        "cat /proc/1/environ | grep .",
        "readlink /proc/1/exe",
        "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk",
        "mknod /dev/shm/disk b 8 0 && head -c 1 /dev/shm/disk",
        "mknod /dev/mem2 c 1 1 && head -c 1 /dev/mem2",
        "umount /proc/sys",
        "umount /etc/hosts",
        "rm /etc/hosts",
        "head -c 1 /proc/kcore | grep .",
        "cat /proc/keys | grep .",
    ],
)
def test_attempts_fail(bench: Bench, attempt: str) -> None:
    """Root in a container can't mount, reach devices, kernel settings or its first process."""
    with pytest.raises(StepFailed):
        bench.sh(attempt)


def test_the_device_that_every_host_has_is_out_of_reach(bench: Bench) -> None:
    """A node of an existing host device can be made (images hold them) but not opened."""
    device = os.stat("/").st_dev
    major, minor = os.major(device), os.minor(device)
    with pytest.raises(StepFailed, match="Permission denied"):
        bench.sh(f"mknod /d b {major} {minor} && head -c 1 /d")


def test_the_host_s_processes_are_not_seen(bench: Bench) -> None:
    """A command sees its own processes; killing everything ends only itself."""
    out = bench.out("ls -d /proc/[0-9]* | wc -l")
    assert int(out) <= 6
    assert bench.out("sleep 60 & kill -9 -1; wait; echo killed") == "killed\n"
    assert bench.out("echo alive") == "alive\n"


def test_the_first_process_can_t_be_killed_from_inside(bench: Bench) -> None:
    """Signals to process 1 do nothing: its death would look like the builder's fault."""
    assert bench.out("kill -9 1; kill -TERM 1; echo still here") == "still here\n"


def test_no_network(make_bench: Callable[..., Bench]) -> None:
    """`none` has only the loopback device, and that is up; `host` the host's."""
    bench = make_bench(allow_host_network=True)
    out = bench.out(
        "ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up", network="none"
    )
    assert out.split() == ["lo", "up"]
    assert bench.out("readlink /proc/self/ns/net", network="host").strip() == os.readlink(
        "/proc/self/ns/net"
    )
    assert bench.out("cat /etc/resolv.conf", network="none") == ""


def test_the_default_network_is_an_option(make_bench: Callable[..., Bench]) -> None:
    """`default` means what the executor was told, and counts as a trait."""
    bench = make_bench(network="none")

    assert bench.out("ls /sys/class/net").split() == ["lo"]
    assert ("default network", "none") in [(f.label, f.value) for f in bench.executor.traits]


@pytest.mark.parametrize(
    "links",
    [
        {"etc": "/proc/self/root/etc", "bin": None},
        {"mnt": "../../../../../../"},
        {"mnt": "/proc/1/root"},
        {"mnt": "/proc/self/cwd"},
        {"mnt": "/proc/self/fd/3"},
        {"mnt": "/proc/self/fd/5"},
    ],
)
def test_links_of_an_image_never_lead_a_mount_outside(
    bench: Bench, tmp_path: Path, links: dict[str, str | None]
) -> None:
    """Mount points and working directories stay within the image, wherever its links point."""
    before = sorted(os.listdir("/"))
    state = bench.layer(tar_of(links), bench.base)
    from layercache.model.operations import Mount

    mount = Mount(type="tmpfs", target="/mnt/inner/deep")
    try:
        bench.sh("touch /mnt/inner/deep/x", state=state, mounts=(mount,), workdir="/mnt/w")
    except LayerCacheError:
        pass  # refused is as good

    assert before == sorted(os.listdir("/"))
    assert not os.path.exists("/inner")
    assert not os.path.exists("/w")


@pytest.mark.parametrize("program", ["/proc/self/exe", "/bin/evil"])
def test_the_helper_s_own_program_is_not_run(bench: Bench, program: str) -> None:
    """A link to the program that is running (the interpreter of the host) is refused."""
    state = bench.layer(tar_of({"bin/evil": "/proc/self/exe"}), bench.base)
    with pytest.raises(StepFailed, match="can't be run"):
        bench.run(program, "-c", "print(1)", state=state)


def test_the_helper_s_own_program_can_t_be_written(bench: Bench) -> None:
    """Run through `#!`, the host's interpreter may start, but its file is read-only there."""
    real = os.path.realpath(sys.executable)
    before = os.stat(real)
    script = b"#!/proc/self/exe\n"
    state = bench.layer(tar_of({"evil": script}, mode=0o755), bench.base)
    try:
        bench.run("/evil", state=state)
    except StepFailed:
        pass  # it has no libraries of its own there
    after = os.stat(real)

    assert (before.st_mtime_ns, before.st_size, before.st_ino) == (
        after.st_mtime_ns,
        after.st_size,
        after.st_ino,
    )


def test_the_host_is_read_only_to_the_helper(bench: Bench) -> None:
    """Even the process that sets steps up can write nothing of the host but its scratch space."""
    bench.run("true")
    helper, _ = bench.helper()
    lines = Path(f"/proc/{helper}/mountinfo").read_text().splitlines()
    writable = [line.split()[4] for line in lines if "rw" in line.split()[5].split(",")]

    assert writable == [str(bench.directory)]


def test_ipc_and_host_names_are_separate(bench: Bench) -> None:
    """Each namespace that a step needs is not the host's."""
    spaces = ("mnt", "pid", "uts", "ipc")
    out = bench.out(" ; ".join(f"readlink /proc/self/ns/{name}" for name in spaces)).split()

    assert all(os.readlink(f"/proc/self/ns/{n}") != o for n, o in zip(spaces, out, strict=True))


def test_steps_leave_nothing_in_the_helper(bench: Bench) -> None:
    """A hundred steps later neither it nor we have more descriptors than after the first."""
    bench.run("true")
    helper, _ = bench.helper()
    places = ("/proc/self/fd", f"/proc/{helper}/fd")

    def settled(place: str) -> int:
        """The number of descriptors, once it stays the same: a step's are closed a bit later."""
        counts = [-1, len(os.listdir(place))]
        while counts[-1] != counts[-2]:
            time.sleep(0.1)
            counts.append(len(os.listdir(place)))
        return counts[-1]

    before = [settled(place) for place in places]
    for _ in range(100):
        bench.run("true")
    # One that waits for its turn on a busy machine is no leak: that would be a hundred.
    after = [settled(place) for place in places]

    assert all(now < then + 10 for then, now in zip(before, after, strict=True)), (before, after)


def test_a_secret_of_one_step_is_not_seen_by_another(make_bench: Callable[..., Bench]) -> None:
    """Nothing of a mounted secret is found in the next step or on the disk."""
    from layercache.model.operations import Mount

    bench = make_bench(secrets={"s": b"very-secret-value"})
    mount = Mount(type="secret", id="s", target="/run/secrets/s")
    result = bench.sh("test -s /run/secrets/s", mounts=(mount,))

    assert result.layer is None
    assert bench.out("ls /run 2>&1 || true").startswith("ls: /run")
    found = subprocess.run(
        ["grep", "-rl", "very-secret-value", str(bench.directory)], capture_output=True, check=False
    )
    assert found.stdout == b""


def test_static_setuid_program(bench: Bench, tmp_path: Path) -> None:
    """A setuid program of the image really runs as its owner."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "up.c"
    source.write_text(
        "#include <stdio.h>\n#include <unistd.h>\n"
        'int main(void) { printf("%d\\n", (int)geteuid()); return 0; }\n'
    )
    done = subprocess.run(
        [compiler, "-static", "-o", str(tmp_path / "up"), str(source)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no static C library")
    layer = tar_of({"up": (tmp_path / "up").read_bytes()}, mode=0o4755)

    assert bench.out("/up", state=bench.layer(layer, bench.base), user="app") == "0\n"
