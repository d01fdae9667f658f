"""`RUN --mount` of every type: what the command finds, and that none of it gets into a layer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layercache.errors import BuildError, Cancelled, SourceError, StepFailed, UsageError
from layercache.model.operations import Mount
from layercache.trees.in_memory import DictTree, directory, file, link

from .conftest import Bench, Window, files

TREE: dict[str, Any] = {
    "a.txt": "alpha\n",
    "src/main.py": "print()\n",
    "src/run.sh": file("#!/bin/sh\necho ran\n", 0o755),
    "src/link": link("main.py"),
    "secret": file("x", 0o600, uid=4711, gid=4711),
    "private": directory(0o700),
    "private/x": "x",
    "away": link("/etc"),
}


def bind(target: str, **fields: Any) -> Mount:
    return Mount(type="bind", target=target, role=f"mount {target}", **fields)


# -- bind ---------------------------------------------------------------------------------------


def test_a_context_is_mounted_with_what_counts_of_it(bench: Bench) -> None:
    """Names, modes, links and bytes are the context's; owners 0:0, times later than all of
    the state."""
    given = bench.context(DictTree(TREE), files("."), "mount /m")
    script = (
        "cd /m; cat a.txt; src/run.sh; readlink src/link; stat -c '%a %u %g' secret private src"
    )
    result = bench.sh(script, inputs=(given,), mounts=(bind("/m"),))

    expected = "alpha\nran\nmain.py\n600 0 0\n700 0 0\n755 0 0\n"
    assert expected == result.output.decode()
    assert result.layer is None
    look = "stat -c %Y /bin /m/src /m/a.txt"
    times = [int(t) for t in bench.out(look, inputs=(given,), mounts=(bind("/m"),)).split()]
    assert times[0] < times[1] == times[2]
    assert times[2] < time.time()


def test_only_the_source_is_mounted(bench: Bench) -> None:
    """A path of the context is what appears at the target, and nothing beside it is there."""
    given = bench.context(DictTree(TREE), files("src"), "mount /m")
    out = bench.out("ls /m", inputs=(given,), mounts=(bind("/m", source="src"),))

    assert out.split() == ["link", "main.py", "run.sh"]


def test_one_file_is_mounted(bench: Bench) -> None:
    """A file appears as a file, in a directory that is gone afterwards."""
    given = bench.context(DictTree(TREE), files("a.txt"), "mount /new/b.txt")
    result = bench.sh(
        "cat /new/b.txt; ls /new", inputs=(given,), mounts=(bind("/new/b.txt", source="a.txt"),)
    )

    assert result.output == b"alpha\nb.txt\n"
    assert result.layer is None


def test_bind_mounts_are_read_only_unless_asked(bench: Bench) -> None:
    """By default nothing can be written; with rw it can, is discarded, and the source stays."""
    given = bench.context(DictTree(TREE), files("."), "mount /m")
    with pytest.raises(StepFailed, match="Read-only file system"):
        bench.sh("echo x > /m/a.txt", inputs=(given,), mounts=(bind("/m"),))
    writable = bind("/m", readonly=False)
    script = "echo new > /m/a.txt; rm /m/secret; touch /m/more; cat /m/a.txt; ls -1 /m | wc -l"
    result = bench.sh(script, inputs=(given,), mounts=(writable,))

    assert result.output == b"new\n5\n"
    assert result.layer is None
    assert bench.out("cat /m/a.txt", inputs=(given,), mounts=(bind("/m"),)) == "alpha\n"


def test_one_writable_file(bench: Bench) -> None:
    """rw works for a single file, too."""
    given = bench.context(DictTree(TREE), files("a.txt"), "mount /a")
    mount = bind("/a", source="a.txt", readonly=False)

    assert bench.out("echo b >> /a; cat /a", inputs=(given,), mounts=(mount,)) == "alpha\nb\n"


@pytest.mark.parametrize("readonly", [True, False])
def test_a_stage_is_mounted(bench: Bench, readonly: bool) -> None:
    """Files of a stage are there with owners and all, of all its layers; it isn't changed."""
    stage = bench.after(bench.sh("mkdir -p /out/bin; echo 1 > /out/a; chown 5:6 /out/a"))
    stage = bench.after(bench.sh("echo 2 > /out/bin/b; rm /bin/wc", state=stage), stage)
    given = bench.stage(stage, files("out"), "mount /m")
    mount = bind("/m", source="/out", readonly=readonly)
    result = bench.sh("cat /m/a /m/bin/b; stat -c '%u %g' /m/a", inputs=(given,), mounts=(mount,))

    assert result.output == b"1\n2\n5 6\n"
    assert result.layer is None
    if not readonly:
        bench.sh("rm -r /m/*; echo x > /m/y", inputs=(given,), mounts=(mount,))
        assert bench.out("ls /out", state=stage) == "a\nbin\n"


def test_an_empty_stage_is_an_empty_directory(bench: Bench) -> None:
    """FROM scratch can be mounted."""
    from layercache.model.descriptors import SCRATCH

    given = bench.stage(SCRATCH, files("."), "mount /m")

    assert bench.out("ls -A /m | wc -l", inputs=(given,), mounts=(bind("/m"),)) == "0\n"


def test_links_of_a_stage_stay_in_it(bench: Bench) -> None:
    """A source that is a link is followed inside the stage, never on the host."""
    stage = bench.after(
        bench.sh("mkdir /real; echo in > /real/f; ln -s /real /l; ln -s ../../.. /up")
    )
    given = bench.stage(stage, files("l"), "mount /m")
    assert bench.out("cat /m/f", inputs=(given,), mounts=(bind("/m", source="/l"),)) == "in\n"
    given = bench.stage(stage, files("up"), "mount /m")
    out = bench.out("ls /m", inputs=(given,), mounts=(bind("/m", source="/up"),))
    assert "real" in out.split()


def test_a_missing_source_is_an_error(bench: Bench) -> None:
    """A path that isn't in the context is an error that names it."""
    with pytest.raises(SourceError, match="nowhere"):
        bench.context(DictTree(TREE), files("nowhere"), "mount /m")


def test_mounts_within_mounts(bench: Bench) -> None:
    """A mount below another one is on top, whatever order they are written in."""
    outer = bench.context(DictTree({"sub/x": "1", "y": "2"}), files("."), "mount /m")
    inner = Mount(type="tmpfs", target="/m/sub")
    for mounts in ((bind("/m"), inner), (inner, bind("/m"))):
        out = bench.out(
            "cat /m/y; ls /m/sub | wc -l; touch /m/sub/z", inputs=(outer,), mounts=mounts
        )
        assert out == "20\n"


def test_a_mount_over_the_working_directory(bench: Bench) -> None:
    """WORKDIR and a mount may be the same place."""
    given = bench.context(DictTree(TREE), files("."), "mount /w")

    assert bench.out("cat a.txt", inputs=(given,), mounts=(bind("/w"),), workdir="/w") == "alpha\n"


def test_a_mount_point_behind_a_link_of_the_image(bench: Bench) -> None:
    """A target that leads through links appears where they lead, and leaves nothing behind."""
    state = bench.after(bench.sh("mkdir -p /real/run; ln -s /real/run /run; ln -s run /var"))
    mount = Mount(type="tmpfs", target="/var/a/b")
    result = bench.sh("ls -d /real/run/a/b; touch /var/a/b/x", state=state, mounts=(mount,))

    assert result.output == b"/real/run/a/b\n"
    assert result.layer is None


def test_a_mount_point_that_got_company_stays(bench: Bench) -> None:
    """Only what is empty of the directories made for a mount goes away again."""
    mount = Mount(type="tmpfs", target="/new/a/b")
    result = bench.sh("touch /new/keep /new/a/b/lost", mounts=(mount,))

    assert set(bench.entries(result)) == {"new", "new/keep"}


def test_an_existing_mount_point_keeps_what_it_hides(bench: Bench) -> None:
    """What a mount covers is there again afterwards."""
    state = bench.after(bench.sh("mkdir /m; echo under > /m/f"))
    result = bench.sh(
        "ls /m; touch /m/new", state=state, mounts=(Mount(type="tmpfs", target="/m"),)
    )

    assert result.output == b""
    assert result.layer is None
    assert bench.out("cat /m/f; ls /m", state=state) == "under\nf\n"


# -- cache --------------------------------------------------------------------------------------


def cache(target: str = "/c", **fields: Any) -> Mount:
    return Mount(type="cache", target=target, readonly=False, **{"mode": 0o755, **fields})


COUNT = "echo x >> /c/log; wc -l < /c/log"


def test_a_cache_lives_on_and_is_in_no_layer(bench: Bench) -> None:
    """What one step left in a cache the next one finds, in another build too."""
    assert bench.sh(COUNT, mounts=(cache(),)).output == b"1\n"
    result = bench.sh(COUNT, mounts=(cache(),))
    assert result.output == b"2\n"
    assert result.layer is None
    bench.executor.close()
    assert bench.out(COUNT, mounts=(cache(),)) == "3\n"


def test_no_cache_starts_with_an_empty_one(bench: Bench) -> None:
    """A bypassing step starts anew, and what it left is what comes after it."""
    bench.out(COUNT, mounts=(cache(),))
    bench.out(COUNT, mounts=(cache(),))
    assert bench.out(COUNT, mounts=(cache(),), bypass=True) == "1\n"
    assert bench.out(COUNT, mounts=(cache(),)) == "2\n"


def test_caches_are_told_apart_by_id_else_target(bench: Bench) -> None:
    """Equal ids share, whatever the target; without an id the target is the id."""
    bench.out("echo 1 > /c/f", mounts=(cache(id="one"),))
    assert bench.out("cat /d/f", mounts=(cache("/d", id="one"),)) == "1\n"
    assert bench.out("ls /c", mounts=(cache(id="two"),)) == ""
    assert bench.out("ls /c", mounts=(cache(),)) == ""


def test_owner_and_mode_of_a_cache(bench: Bench) -> None:
    """A new cache has the owner and mode asked for; others are other caches."""
    mount = cache(uid=1000, gid=1001, mode=0o750)
    assert (
        bench.out("stat -c '%a %u %g' /c; touch /c/x", mounts=(mount,), user="app")
        == "750 1000 1001\n"
    )
    assert bench.out("ls /c", mounts=(cache(),)) == ""
    assert bench.out("ls /c", mounts=(mount,), user="app") == "x\n"


def test_initial_content_of_a_cache(bench: Bench) -> None:
    """`from` fills a cache once; its content tells caches apart."""
    first = bench.context(DictTree({"in/f": "1"}), files("in"), "mount /c")
    mount = cache(role="mount /c", source="in")
    script = "cat /c/f; echo -n 2 > /c/f"
    assert bench.out(script, inputs=(first,), mounts=(mount,)) == "1"
    assert bench.out(script, inputs=(first,), mounts=(mount,)) == "2"
    other = bench.context(DictTree({"in/f": "7"}), files("in"), "mount /c")
    assert bench.out(script, inputs=(other,), mounts=(mount,)) == "7"


def test_a_stage_as_initial_content(bench: Bench) -> None:
    """A stage's files keep their owners in a cache."""
    stage = bench.after(bench.sh("mkdir /seed; echo s > /seed/f; chown 5:6 /seed/f"))
    given = bench.stage(stage, files("seed"), "mount /c")
    mount = cache(role="mount /c", source="/seed")

    assert bench.out("stat -c %u:%g /c/f", inputs=(given,), mounts=(mount,)) == "5:6\n"


def test_a_read_only_cache(bench: Bench) -> None:
    """`ro` caches can be read only."""
    bench.out("echo 1 > /c/f", mounts=(cache(),))
    mount = Mount(type="cache", target="/c", readonly=True, mode=0o755)
    with pytest.raises(StepFailed, match="Read-only"):
        bench.sh("cat /c/f; touch /c/g", mounts=(mount,))


def test_trust_domains_don_t_share(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A cache that an untrusted build filled is not seen by a trusted one."""
    one = make_bench(directory=tmp_path / "s", trust="pull-requests")
    two = make_bench(directory=tmp_path / "s", trust="main")
    one.out("echo bad > /c/f", mounts=(cache(),))

    assert two.out("ls /c", mounts=(cache(),)) == ""


def _both(bench: Bench, sharing: str, script: str) -> list[str]:
    """Run a script twice at once, and what each wrote."""
    found: list[str] = []

    def work() -> None:
        found.append(bench.out(script, mounts=(cache(sharing=sharing),)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


MEET = (
    "echo $$ > /c/$(cat /proc/sys/kernel/random/uuid); for i in $(seq 40); do "
    "n=$(ls /c | wc -l); [ $n = 2 ] && break; sleep 0.05; done; echo $n"
)
ALONE = "[ -e /c/busy ] && echo busy; touch /c/busy; sleep 0.3; rm /c/busy; echo done"


def test_shared_caches_are_used_at_once(bench: Bench) -> None:
    """Two steps see each other's files while both run."""
    assert _both(bench, "shared", MEET) == ["2\n", "2\n"]


def test_locked_caches_are_used_one_after_the_other(bench: Bench) -> None:
    """The second step waits until the first has ended."""
    assert _both(bench, "locked", ALONE) == ["done\n", "done\n"]


def test_private_caches_are_used_by_one_step_each(bench: Bench) -> None:
    """Steps that run at once get directories of their own, and a later one gets one of those."""
    script = "ls /c | wc -l; echo > /c/mine; sleep 0.5"
    assert _both(bench, "private", script) == ["0\n", "0\n"]
    assert bench.out("ls /c", mounts=(cache(sharing="private"),)) == "mine\n"


def test_waiting_for_a_cache_can_be_cancelled(bench: Bench) -> None:
    """A step that waits for a locked cache ends when the build is cancelled."""
    started, stop = Window(bench), Window(bench)
    mounts = (cache(sharing="locked"),)
    holder = threading.Thread(
        target=lambda: bench.run("sh", "-c", "echo up; sleep 3", window=started, mounts=mounts)
    )
    holder.start()
    assert started.told.wait(10)
    stop.stop.set()
    with pytest.raises(Cancelled):
        bench.run("true", window=stop, mounts=mounts)
    holder.join()


def test_one_locked_cache_mounted_twice(bench: Bench) -> None:
    """A step doesn't wait for itself."""
    mounts = (cache(sharing="locked", id="x"), cache("/d", sharing="locked", id="x"))

    assert bench.out("echo 1 > /c/f; cat /d/f", mounts=mounts) == "1\n"


# -- tmpfs, secret, ssh -------------------------------------------------------------------------


def test_tmpfs(bench: Bench) -> None:
    """A tmpfs is empty, writable for everyone, as large as asked for, and gone afterwards."""
    mount = Mount(type="tmpfs", target="/t", size=1 << 20)
    result = bench.sh(
        "stat -c %a /t; df -k /t | tail -1; touch /t/x; "
        "dd if=/dev/zero of=/t/big bs=1M count=2 2>/dev/null || echo full",
        mounts=(mount,),
        user="app",
    )

    words = result.output.decode().split()
    assert words[0] == "1777"
    assert "1024" in words
    assert words[-1] == "full"
    assert result.layer is None


def secret(**fields: Any) -> Mount:
    return Mount(type="secret", **{"id": "s", "target": "", "mode": 0o400, **fields})


@pytest.fixture
def keeper(make_bench: Callable[..., Bench]) -> Bench:
    """A bench with a secret."""
    return make_bench(secrets={"s": b"hush-hush\n"})


def test_secrets_as_files(keeper: Bench) -> None:
    """The default place, mode and owner; and those that were asked for."""
    out = keeper.out(
        "stat -c '%a %u %g' /run/secrets/s; wc -c < /run/secrets/s", mounts=(secret(),)
    )
    assert out == "400 0 0\n10\n"
    mount = secret(target="/k/key", mode=0o440, uid=1000, gid=1001)
    result = keeper.sh("stat -c '%a %u %g' /k/key; cat /k/key | wc -c", mounts=(mount,), user="app")
    assert result.output == b"440 1000 1001\n10\n"
    assert result.layer is None
    with pytest.raises(StepFailed, match="Permission denied"):
        keeper.sh("cat /run/secrets/s", mounts=(secret(),), user="app")


def test_secrets_can_t_be_changed(keeper: Bench) -> None:
    """A mounted secret is read-only."""
    with pytest.raises(StepFailed, match="Read-only"):
        keeper.sh("echo x > /run/secrets/s", mounts=(secret(),))


def test_secrets_as_variables(keeper: Bench) -> None:
    """With `env` the command gets a variable, and no file unless it names a target."""
    out = keeper.out("echo ${#TOKEN}; ls /run 2>&1 || true", mounts=(secret(env="TOKEN"),))
    assert out.startswith("10\nls: /run")
    mount = secret(env="TOKEN", target="/f")
    assert keeper.out("echo ${#TOKEN}; wc -c < /f", mounts=(mount,)) == "10\n10\n"


def test_secrets_never_reach_the_log(keeper: Bench) -> None:
    """A command that prints a secret prints stars, also when it fails, and in pieces."""
    window = Window(keeper)
    script = "cat /run/secrets/s; printf hush-; sleep 0.2; printf hush; exit 1"
    with pytest.raises(StepFailed) as caught:
        keeper.sh(script, mounts=(secret(),), window=window)

    assert bytes(window.output) == b"***\n***"
    assert "hush" not in str(caught.value).partition("\n")[2]
    assert keeper.executor.masks == (b"hush-hush",)


def test_missing_secrets(bench: Bench) -> None:
    """A secret that wasn't given is simply not there, unless it is required."""
    assert bench.out("ls /run 2>&1 || true", mounts=(secret(),)).startswith("ls: /run")
    with pytest.raises(BuildError, match="--secret id=s,src=FILE"):
        bench.run("true", mounts=(secret(required=True),))


def test_secrets_from_files(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A secret may be given as the path of a file; one that can't be read is a usage error."""
    (tmp_path / "key").write_bytes(b"from-file")
    keeper = make_bench(secrets={"s": tmp_path / "key"})
    assert keeper.out("wc -c < /run/secrets/s", mounts=(secret(),)) == "9\n"
    with pytest.raises(UsageError, match="can't be read"):
        make_bench(secrets={"s": tmp_path / "none"})


class Agent:
    """Answers every message of an agent's protocol with itself, upside down."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.served = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            with client:
                while data := client.recv(100):
                    self.served += 1
                    client.sendall(data[:4] + data[:3:-1])


def test_ssh_agents(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """The agent is reached through a socket with the owner asked for, named in SSH_AUTH_SOCK."""
    agent = Agent(tmp_path / "agent")
    bench = make_bench(ssh={"default": str(tmp_path / "agent")})
    mount = Mount(type="ssh", target="", id="default", mode=0o600, uid=1000, gid=1000)
    script = "echo $SSH_AUTH_SOCK; stat -c '%a %u %F' $SSH_AUTH_SOCK"
    result = bench.sh(script, mounts=(mount,), user="app")

    assert result.output == b"/run/buildkit/ssh_agent.0\n600 1000 socket\n"
    assert result.layer is None
    assert agent.served == 0


def test_a_key_is_no_agent(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """It would be an agent that hangs up without a word."""
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    bench = make_bench(ssh={"default": str(tmp_path / "key")})
    mount = Mount(type="ssh", target="", id="default", mode=0o600)
    with pytest.raises(BuildError, match=r"is none: add a key to an agent with ssh-add"):
        bench.sh("true", mounts=(mount,))


def test_the_agent_s_socket_speaks(tmp_path: Path) -> None:
    """Messages go both ways, for several clients at once, until the step is over."""
    from layercache.executors.rootfs.ssh_proxy import AgentProxy

    agent = Agent(tmp_path / "agent")
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    proxy = AgentProxy(str(deep / "agent"), str(tmp_path / "agent"))
    import os

    place = os.open(deep, os.O_PATH)
    for message in (b"\x00\x00\x00\x04\x0bone", b"\x00\x00\x00\x04\x0dtwo"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{place}/agent")
            client.sendall(message)
            assert client.recv(100) == message[:4] + message[:3:-1]
    assert agent.served == 2
    proxy.close()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(f"/proc/self/fd/{place}/agent")
    os.close(place)


def test_an_agent_that_is_gone_hangs_up(tmp_path: Path) -> None:
    """Without an agent behind it a client sees the end of the connection."""
    from layercache.executors.rootfs.ssh_proxy import AgentProxy

    proxy = AgentProxy(str(tmp_path / "p"), str(tmp_path / "none"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "p"))
        assert client.recv(10) == b""
    proxy.close()


def test_missing_agents(bench: Bench) -> None:
    """Without an agent nothing is mounted, though the variable is set; unless it is required."""
    mount = Mount(type="ssh", target="", id="default")
    script = "echo $SSH_AUTH_SOCK; test -e $SSH_AUTH_SOCK || echo nothing there"
    assert bench.out(script, mounts=(mount,)) == "/run/buildkit/ssh_agent.0\nnothing there\n"
    import attrs

    with pytest.raises(BuildError, match="--ssh default=SOCKET"):
        bench.run("true", mounts=(attrs.evolve(mount, required=True),))


def test_unknown_mounts_are_refused(bench: Bench) -> None:
    """A type that isn't known is never ignored."""
    with pytest.raises(UsageError, match="'overlay'"):
        bench.run("true", mounts=(Mount(type="overlay", target="/x"),))
