"""What a command sees, and what becomes of how it ends."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from layercache.errors import BuildError, StepFailed, UsageError
from layercache.model.descriptors import SCRATCH
from layercache.model.layer_times import LAYER_TIME
from layercache.model.operations import Exec
from layercache.testing.images import tar_of

from .conftest import PATH, Bench, Window


def test_output_is_streamed_and_kept_in_order(bench: Bench) -> None:
    """Standard output and error come in the order they were written, once each."""
    window = Window(bench)
    result = bench.sh("echo one; echo two >&2; echo three", window=window)

    assert b"one\ntwo\nthree\n" == result.output == bytes(window.output)


def test_long_output_is_cut_in_the_middle(bench: Bench) -> None:
    """At most 2 MiB of output are kept with a step; all of it is streamed."""
    window = Window(bench)
    result = bench.sh("seq 1 600000; echo end", window=window)

    assert len(window.output) > 4_000_000
    assert 2_000_000 < len(result.output) < 2 * 1024 * 1024 + 100
    assert result.output.startswith(b"1\n2\n")
    assert result.output.endswith(b"600000\nend\n")


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (("sh", "-c", "echo a; echo b; exit 3"), 3, "did not complete: exit status 3\n    a\n"),
        (("sh", "-c", "kill -9 $$"), 137, "killed by signal 9"),
        (("sh", "-c", "kill -TERM $$"), 143, "killed by signal 15"),
        (("nowhere",), 127, "'nowhere' can't be run: not found in PATH"),
        (("/no/where",), 127, "no such file"),
        (("/etc/passwd",), 126, "Permission denied"),
        (("/tmp",), 126, "Permission denied"),
        (("sh", "-c", "nowhere"), 127, "not found"),
    ],
)
def test_failures_say_what_happened(
    bench: Bench, args: tuple[str, ...], status: int, message: str
) -> None:
    """A command that fails, is killed or can't be run is `StepFailed` with a shell's status."""
    with pytest.raises(StepFailed, match=re.escape(message)) as caught:
        bench.run(*args)

    assert status == caught.value.status


def test_a_failed_step_leaves_no_layer_and_the_next_one_runs(bench: Bench) -> None:
    """What a failing command wrote is gone."""
    with pytest.raises(StepFailed):
        bench.sh("touch /x; false")

    assert bench.out("ls -d /x 2>&1 || true").startswith("ls: /x")


def test_programs_are_found_in_the_command_s_own_path(bench: Bench) -> None:
    """PATH of the step decides, in order; what is no program there is passed over."""
    made = bench.sh(
        "mkdir -p /a /b /c/tool; echo x > /a/tool; printf '#!/bin/sh\necho b' > /b/tool;"
        "chmod +x /b/tool"
    )
    state = bench.after(made)

    assert bench.run("tool", state=state, env={"PATH": "/a:/b"}).output == b"b\n"
    assert bench.run("tool", state=state, env={"PATH": "/c:/b"}).output == b"b\n"


def test_a_path_is_given_when_the_image_has_none(bench: Bench) -> None:
    """Without PATH commands get the usual one."""
    import attrs

    task = attrs.evolve(bench.task("env"), instruction=Exec(args=("env",)))

    assert f"PATH={PATH}" in bench.executor.execute(task, Window(bench)).output.decode()


def test_the_environment_is_exactly_what_the_step_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of the build's own process don't leak in; order is kept; proxies come along."""
    monkeypatch.setenv("LEAK", "no")
    out = bench.run(
        "env", env={"PATH": PATH, "B": "2", "A": "x y\nz"}, proxies=(("http_proxy", "p"),)
    ).output

    assert out.decode() == f"http_proxy=p\nPATH={PATH}\nB=2\nA=x y\nz\nHOME=/root\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root) /root"),
        ("app", "uid=1000(app) gid=1000(app) groups=10(wheel),1000(app) /home/app"),
        ("1001", "uid=1001(other) gid=1001(other) groups=1001(other) /"),
        ("app:wheel", "uid=1000(app) gid=10(wheel) groups=10(wheel) /home/app"),
        ("4000:5000", "uid=4000 gid=5000 groups=5000 /"),
    ],
)
def test_users_and_their_groups(bench: Bench, user: str, expected: str) -> None:
    """USER takes names and numbers of the image; HOME follows; groups are those of the user,
    the first one included."""
    state = bench.after(bench.sh("echo wheel:x:10:app >> /etc/group"))
    out = bench.out("echo $(id) $HOME", state=state, user=user)

    assert expected == out.strip()


def test_home_of_the_step_wins(bench: Bench) -> None:
    """HOME from ENV is kept."""
    assert bench.out("echo $HOME", env={"PATH": PATH, "HOME": "/h"}, user="app") == "/h\n"


def test_an_unknown_user_fails_the_step(bench: Bench) -> None:
    """A user that the image doesn't know is an error that names it."""
    with pytest.raises(StepFailed, match="USER ghost: the image has no user 'ghost'"):
        bench.run("true", user="ghost")


def test_accounts_made_by_an_earlier_step_count(bench: Bench) -> None:
    """The accounts are those of the step's own state."""
    state = bench.after(bench.sh("echo new:x:7:8::/new: >> /etc/passwd"))

    assert bench.out("id -u; id -g; echo $HOME", state=state, user="new") == "7\n8\n/new\n"


def test_setuid_programs_can_work(bench: Bench) -> None:
    """Nothing keeps privileges from being gained through the image's own programs (sudo, su)."""
    out = bench.out("grep NoNewPrivs /proc/self/status; grep ' / ' /proc/mounts", user="app")

    assert out.startswith("NoNewPrivs:\t0\n")
    assert "nosuid" not in out


def test_the_working_directory(bench: Bench) -> None:
    """Commands start in WORKDIR; a missing one is made for the user and is in the layer."""
    assert bench.out("pwd", workdir="/tmp") == "/tmp\n"
    result = bench.sh("pwd", workdir="/a/b", user="app")

    assert result.output == b"/a/b\n"
    made = bench.entries(result)
    assert {path: (n.mode, n.uid, n.gid) for path, n in made.items() if n} == {
        "a": (0o40755, 1000, 1000),
        "a/b": (0o40755, 1000, 1000),
    }


def test_a_working_directory_that_is_a_file_fails_the_step(bench: Bench) -> None:
    """WORKDIR on a file is an error, not a crash."""
    with pytest.raises(StepFailed, match="working directory can't be used"):
        bench.run("true", workdir="/etc/passwd")


def test_umask_stdin_and_session(bench: Bench) -> None:
    """umask 022, an empty standard input, the command first in its own session."""
    out = bench.out("umask; cat; readlink /proc/self/fd/0 | tr -d 0-9; test -t 0 || echo no-tty")

    assert out == "0022\npipe:[]\nno-tty\n"


def test_only_standard_descriptors_are_open(bench: Bench) -> None:
    """No descriptor of the builder reaches the command."""
    assert bench.out("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_stdout_can_be_reopened_by_any_user(bench: Bench) -> None:
    """/dev/stdout and /dev/stderr work for USER, too."""
    assert bench.out("echo a > /dev/stdout; echo b > /dev/stderr", user="app") == "a\nb\n"


def test_limits(bench: Bench) -> None:
    """--ulimit sets soft and hard limits; without it they are the same on every machine."""
    out = bench.out("ulimit -n; ulimit -Hn; ulimit -c", ulimits=("nofile=100:200",))
    assert out.split() == ["100", "200", "0"]
    assert bench.out("ulimit -n").split() == ["1024"]


@pytest.mark.parametrize("text", ["nofile", "nofile=x", "files=1", "nofile=5:4", "nofile=-2"])
def test_bad_limits_are_refused(bench: Bench, text: str) -> None:
    """A limit that can't be understood is a usage error before anything runs."""
    with pytest.raises(UsageError, match="limit"):
        bench.run("true", ulimits=(text,))


def test_hosts_and_names(make_bench: Callable[..., Bench]) -> None:
    """Extra hosts are in /etc/hosts; the host name is the same everywhere; nothing of it stays."""
    bench = make_bench(network="host")
    result = bench.sh(
        "hostname; cat /etc/hostname /etc/hosts; cat /etc/resolv.conf > /dev/null",
        hosts=(("db", "10.0.0.9"), ("me", "host-gateway")),
    )

    out = result.output.decode()
    assert out.startswith("layercache\nlayercache\n")
    assert "127.0.0.1\tlocalhost layercache\n" in out
    assert "10.0.0.9\tdb\n127.0.0.1\tme\n" in out
    assert result.layer is None


def test_what_the_image_lacks_has_a_time_like_everything_else(bench: Bench) -> None:
    """The directory that /etc/hosts is in does not tell when the build began."""
    program = bench.read(bench.base, "bin/busybox")
    state = bench.layer(tar_of({"bin/busybox": program}, mode=0o755))
    result = bench.run("/bin/busybox", "stat", "-c", "%Y", "/etc", state=state)

    assert result.output == b"%d\n" % LAYER_TIME


def test_files_of_the_surroundings_can_t_be_changed(bench: Bench) -> None:
    """/etc/hosts and its kind are read-only: a change would be lost silently."""
    with pytest.raises(StepFailed, match="Read-only file system"):
        bench.sh("echo x >> /etc/hosts")


def test_the_image_s_own_hosts_file_is_kept(bench: Bench) -> None:
    """A file of the image below the mounted one stays as it was."""
    state = bench.layer(tar_of({"etc/hosts": b"mine\n"}), bench.base)
    result = bench.sh("grep -c mine /etc/hosts || true", state=state)

    assert result.output == b"0\n"
    assert bench.read(bench.after(result, state), "etc/hosts") == b"mine\n"


def test_shared_memory_and_devices(bench: Bench) -> None:
    """/dev has the usual nodes and no other; /dev/shm the size asked for."""
    out = bench.out("ls /dev; df -k /dev/shm | tail -1", shm_size=8 << 20)

    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert out.split()[:15] == names.split()
    assert out.split()[-5] == "8192"
    probe = (
        "head -c 3 /dev/zero | wc -c; echo x > /dev/null; head -c 2 /dev/urandom | wc -c; "
        "echo x > /dev/full || echo full; test -c /dev/pts/ptmx && echo ptmx"
    )
    assert bench.out(probe + " 2>&1").split()[:2] == ["3", "2"]


def test_here_documents_with_an_interpreter(bench: Bench) -> None:
    """The script is there to be run, and is in no layer."""
    script = b"#!/bin/cat\nhello\n"
    result = bench.run("/dev/pipes/EOF", files=(("EOF", script),))

    assert script == result.output
    assert result.layer is None


def test_scratch_has_a_root_too(bench: Bench) -> None:
    """On an empty state a command isn't found, and that is what is said."""
    with pytest.raises(StepFailed, match="can't be run") as caught:
        bench.run("/bin/true", state=SCRATCH)

    assert caught.value.status == 127


def test_processes_that_stay_behind_end_with_the_command(bench: Bench) -> None:
    """A background process doesn't hold up the step, and what it would write is not waited for."""
    result = bench.sh("(sleep 100; touch /late) & echo started")

    assert result.output == b"started\n"
    assert result.layer is None


def test_orphans_are_reaped_while_the_command_runs(bench: Bench) -> None:
    """Processes whose parent is gone don't stay as zombies."""
    out = bench.out(
        "for i in 1 2 3; do (sh -c true &) ; done; sleep 0.3; ps -o stat | grep -c Z;true"
    )

    assert out == "0\n"


def test_time_limit(make_bench: object) -> None:
    """A command that takes too long is killed with all its processes."""
    bench = make_bench(step_timeout=0.5)  # type: ignore[operator]
    with pytest.raises(StepFailed, match=r"took longer than 0.5 s\n    begin") as caught:
        bench.sh("echo begin; sleep 60 & sleep 60")

    assert caught.value.status == 124


def test_what_can_t_be_honoured_is_refused(bench: Bench) -> None:
    """Devices and, unless allowed, privileges are usage errors; nothing is run."""
    with pytest.raises(UsageError, match="--device"):
        bench.run("true", devices=("vendor.com/gpu=all",))
    with pytest.raises(UsageError, match="--allow security"):
        bench.run("true", security="insecure")
    with pytest.raises(UsageError, match="--network=bridge"):
        bench.run("true", network="bridge")


def test_variables_with_odd_names_are_refused(bench: Bench) -> None:
    """What execve can't take is an error, not a truncated environment."""
    with pytest.raises(BuildError, match="can't be passed"):
        bench.run("true", env={"PATH": PATH, "A": "x\0y"})


def test_control_groups_of_the_host_are_not_seen(bench: Bench) -> None:
    """The path of a control group tells one machine from another."""
    lines = bench.out("cat /proc/self/cgroup").splitlines()

    assert all(line.split(":")[2] == "/" for line in lines)


def test_programs_of_another_kind(bench: Bench) -> None:
    """What is no program for this machine is an error that says so."""
    state = bench.layer(tar_of({"odd": b"\x00\x01"}, mode=0o755), bench.base)
    with pytest.raises(StepFailed, match="neither a program for this machine"):
        bench.run("/odd", state=state)


def test_a_failing_log_ends_the_step(bench: Bench) -> None:
    """When nobody takes the output any more, the step is over and gone."""

    class Full(Window):
        def log(self, chunk: bytes) -> None:
            raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        bench.sh("echo x; sleep 60", window=Full(bench))
    assert bench.out("echo alive") == "alive\n"


@pytest.mark.parametrize("hosts", [(("a b", "1.2.3.4"),), (("a", ""),), (("a", "1\n2 evil"),)])
def test_hosts_that_would_break_the_file_are_refused(
    bench: Bench, hosts: tuple[tuple[str, str], ...]
) -> None:
    """An extra host is one name and one address."""
    with pytest.raises(UsageError, match="--add-host"):
        bench.run("true", hosts=hosts)


def test_executors_can_be_sent_to_another_process(bench: Bench) -> None:
    """Pickled, an executor leaves what it has open behind and works on."""
    import pickle

    bench.run("true")
    other = pickle.loads(pickle.dumps(bench.executor))
    with other:
        assert other.execute(bench.task("echo", "hi"), Window(bench)).output == b"hi\n"
    assert bench.out("echo still") == "still\n"


def test_a_scratch_directory_that_overlayfs_can_t_use(
    bench: Bench, tmp_path: object, make_bench: object
) -> None:
    """On a file system that can't hold an upper directory the error says what to do."""
    import os
    import subprocess
    import sys

    script = (
        "import sys; from tests.executors.rootfs.conftest import *; "
        "from layercache.testing.images import busybox_layer; from pathlib import Path; "
        "from layercache.executors.rootfs import probe; print(probe(sys.argv[1]).reasons); "
        "Bench(Path(sys.argv[1]), busybox_layer()).run('true')"
    )
    place = str(tmp_path)
    for name in ("l", "u", "w", "m"):
        os.mkdir(f"{place}/{name}")
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"mount -t overlay -o lowerdir={place}/l,upperdir={place}/u,workdir={place}/w none "
            f'{place}/m && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            script,
            f"{place}/m/s",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.count("upperdir") == 1
    assert "name one on a local disk" in done.stderr
