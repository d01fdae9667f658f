"""The network of commands: one of their own, out of which no way leads to the host's loopback."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layercache.errors import BuildError, StepFailed, UsageError
from layercache.executors.rootfs.inside.network import packet_filter
from layercache.testing.images import tar_of
from tests.executors.rootfs.conftest import Bench

PROGRAMS = ("pasta", "slirp4netns")
DEFAULT, WITHOUT_RAW = "00000000a80425fb", "00000000a80405fb"


class Server:
    """Listens for TCP and UDP on one address and port of this machine; `heard` is who came."""

    def __init__(self, address: str) -> None:
        self.heard: list[str] = []
        self.stream = socket.socket()
        self.stream.bind((address, 0))
        self.stream.listen()
        self.port: int = self.stream.getsockname()[1]
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind((address, self.port))
        for target in (self._accept, self._receive):
            threading.Thread(target=target, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.stream.accept()
            except OSError:
                return
            self.heard.append("tcp")
            client.close()

    def _receive(self) -> None:
        while True:
            try:
                data, sender = self.datagrams.recvfrom(100)
            except OSError:
                return
            self.heard.append("udp")
            self.datagrams.sendto(data, sender)

    def close(self) -> None:
        for end in (self.stream, self.datagrams):
            end.close()


@pytest.fixture
def loopback() -> Iterator[Server]:
    """A server that only this machine can reach."""
    server = Server("127.0.0.1")
    yield server
    server.close()


@pytest.fixture
def outside() -> Iterator[tuple[str, Server]]:
    """A server at an address of this machine that is none of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # sends nothing
            address: str = asked.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no network")
    server = Server(address)
    yield address, server
    server.close()


@pytest.fixture(params=[f"{program}{mode}" for program in PROGRAMS for mode in ("", " rootless")])
def isolated(
    request: pytest.FixtureRequest,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Bench:
    """An executor whose commands have a network of their own, by each of the programs, as root
    and in a user namespace."""
    program, _, rootless = request.param.partition(" ")
    found = shutil.which(program)
    if found is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip(f"no {program}, or no tap devices")
    only = tmp_path / "only"
    only.mkdir()
    (only / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(only))  # without newuidmap as well
    bench = make_bench(rootless=bool(rootless))
    assert bench.executor.network_reason == ""
    return bench


def _with(bench: Bench, program: str) -> dict[str, object]:
    image = tar_of({"probe": Path(program).read_bytes()}, mode=0o755)
    return {"state": bench.layer(image, bench.base)}


def test_what_a_command_sees(isolated: Bench) -> None:
    """One device with an address that is the same everywhere, a resolver, raw sockets, ping."""
    out = isolated.out(
        "ls /sys/class/net; ip -4 -o addr show tap0 | awk '{print $4}'; "
        "ip route | grep ^default | awk '{print $3, $5}'; grep nameserver /etc/resolv.conf; "
        "cat /sys/class/net/tap0/address /sys/class/net/tap0/mtu; "
        "ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up; grep CapEff /proc/self/status"
    )
    assert out.split("\n") == [
        "lo", "tap0", "10.0.2.100/24", "10.0.2.2 tap0", "nameserver 10.0.2.3",
        "02:00:0a:00:02:64", "65520", "up", f"CapEff:\t{DEFAULT}", "",
    ]  # fmt: skip
    first, last = isolated.out("cat /proc/sys/net/ipv4/ping_group_range").split()
    assert first == "0"
    assert last in ("2147483647", "0")  # all groups that there are


def test_the_outside_is_reached(isolated: Bench, program: str, outside: tuple[str, Server]) -> None:
    """TCP and UDP reach what listens at an address that others could reach as well."""
    address, server = outside
    out = isolated.out(
        f"/probe connect {address} {server.port}; /probe datagram {address} {server.port} ''",
        **_with(isolated, program),
    )
    assert out == "0\nanswered\n"


def test_loopback_of_the_host_is_not_reached(
    isolated: Bench, program: str, loopback: Server, outside: tuple[str, Server]
) -> None:
    """By its addresses, through the device, by the gateway and the resolver, in raw frames."""
    ways = []
    for address in (
        "127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.2.2", "10.0.2.3",
        "10.0.2.100", "10.0.2.255", "255.255.255.255",
    ):  # fmt: skip
        for device in ("", "tap0"):
            ways.append(f"connect {address} {loopback.port} {device}")
            ways.append(f"datagram {address} {loopback.port} '{device}'")
        ways += [f"frame {address} {loopback.port} {bypass}" for bypass in (0, 1)]
    ways += [f"connect {address} {loopback.port} tap0" for address in ("::1", "::ffff:127.0.0.1")]
    script = " & ".join(f"/probe {way}" for way in ways)
    answers = isolated.out(f"{script} & wait", **_with(isolated, program)).splitlines()

    assert loopback.heard == []
    assert len(answers) == len(ways)
    assert not {"0", "answered"} & set(answers)
    # The ways do lead out of there: a frame to an address outside arrives.
    address, server = outside
    isolated.out(f"/probe frame {address} {server.port} 0", **_with(isolated, program))
    limit = time.monotonic() + 10
    while not server.heard and time.monotonic() < limit:
        time.sleep(0.01)
    assert server.heard == ["udp"]


def test_abstract_sockets_of_the_host_are_not_reached(isolated: Bench, program: str) -> None:
    """They belong to the network namespace."""
    name = f"layercache-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        script = f"/probe ask @{name} 00 || true"
        assert isolated.out(script, **_with(isolated, program)) == "error 111\n"


def test_steps_at_once_do_not_share(isolated: Bench, program: str) -> None:
    """Each has a namespace of its own; one after the other they use the same."""
    look = "readlink /proc/self/ns/net"
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(isolated.out(f"{look}; sleep 0.5")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 3
    assert isolated.out(look) in found


def test_nothing_is_left(isolated: Bench) -> None:
    """The programs end with the executor."""
    isolated.out("true")
    helper, _ = isolated.helper()
    children = Path(f"/proc/{helper}/task/{helper}/children").read_text().split()
    assert children
    isolated.executor.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


def test_nothing_is_left_when_the_helper_is_killed(isolated: Bench) -> None:
    """The programs end with the process that started them, however that ends."""
    isolated.out("true")
    helper, _ = isolated.helper()
    children = Path(f"/proc/{helper}/task/{helper}/children").read_text().split()
    ends = [os.pidfd_open(int(pid)) for pid in children]
    assert ends
    os.kill(helper, 9)
    for end in ends:
        assert select.select([end], [], [], 10)[0]
        os.close(end)
    with contextlib.suppress(BuildError):
        isolated.executor.close()  # which misses who deletes in a user namespace


def test_a_program_that_died_is_replaced(
    isolated: Bench, outside: tuple[str, Server], program: str
) -> None:
    """The next step gets another network."""
    isolated.out("true")
    helper, _ = isolated.helper()
    for pid in Path(f"/proc/{helper}/task/{helper}/children").read_text().split():
        if not Path(f"/proc/{pid}/comm").read_text().startswith(PROGRAMS):
            continue
        end = os.pidfd_open(int(pid))
        os.kill(int(pid), 9)
        select.select([end], [], [], 10)
        os.close(end)
    address, server = outside
    script = f"/probe connect {address} {server.port}"
    assert isolated.out(script, **_with(isolated, program)) == "0\n"


def test_host_needs_to_be_allowed(
    bench: Bench, make_bench: Callable[..., Bench], program: str, loopback: Server
) -> None:
    """`--network=host` is refused by name, and reaches loopback with raw sockets where allowed."""
    with pytest.raises(UsageError, match=r"--allow network\.host"):
        bench.run("true", network="host")
    for options in ({"allow_host_network": True}, {"network": "host"}):
        allowed = make_bench(**options)
        out = allowed.out(
            f"/probe connect 127.0.0.1 {loopback.port}; grep CapEff /proc/self/status",
            network="host",
            **_with(allowed, program),
        )
        assert out == f"0\nCapEff:\t{DEFAULT}\n"


def test_without_a_program(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Commands have the host's network without raw sockets; the reason and the trait say so."""
    bench = make_bench()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "neither pasta nor slirp4netns" in bench.executor.network_reason
    traits = {field.label: field.value for field in bench.executor.traits}
    assert traits["default network"] == "host without raw sockets"
    out = bench.out("readlink /proc/self/ns/net; grep -E 'CapEff|CapBnd' /proc/self/status")
    space, *capabilities = out.split()
    assert space == os.readlink("/proc/self/ns/net")
    assert capabilities[1::2] == [WITHOUT_RAW] * 2


def test_a_program_that_fails_fails_the_step(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No command runs in another network than its key says; what the program said is told."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no tap devices")
    place = tmp_path / "bin"
    place.mkdir()
    fake = place / "pasta"
    fake.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    fake.chmod(0o755)
    bench = make_bench()
    monkeypatch.setenv("PATH", str(place))
    assert bench.executor.network_reason == ""
    with pytest.raises(BuildError, match="pasta: no such luck") as caught:
        bench.run("true")
    assert not isinstance(caught.value, StepFailed)
    assert bench.out("echo works", network="none") == "works\n"


def test_the_host_by_name_is_refused(isolated: Bench) -> None:
    """`host-gateway` has no address in a network that does not reach the host."""
    with pytest.raises(UsageError, match="--network host"):
        isolated.run("true", hosts=(("host", "host-gateway"),))


def test_the_filter_is_what_the_kernel_takes() -> None:
    """It is a program of whole instructions, and short."""
    assert 0 < len(packet_filter()) // 8 < 64


@pytest.mark.parametrize("program_name", PROGRAMS)
def test_a_resolver_on_loopback_is_asked(
    program_name: str, program: str, tmp_path: Path, busybox: bytes
) -> None:
    """Where /etc/resolv.conf names an address of loopback, a command's queries get there."""
    found = shutil.which(program_name)
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or found is None or unshare is None:
        pytest.skip(f"needs root, {program_name} and unshare")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no tap devices")
    only = tmp_path / "only"
    only.mkdir()
    (only / program_name).symlink_to(found)
    (only / "busybox").symlink_to(str(shutil.which("busybox")))
    conf = tmp_path / "resolv.conf"
    address = f"127.0.0.{153 + PROGRAMS.index(program_name)}"
    conf.write_text(f"nameserver {address}\nsearch example.test\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((address, 53))
        except OSError:
            pytest.skip(f"port 53 of {address} is taken")

        def answer() -> None:
            while True:
                try:
                    data, sender = server.recvfrom(512)
                except OSError:
                    return
                server.sendto(data, sender)

        threading.Thread(target=answer, daemon=True).start()
        code = (
            "import os, sys; from pathlib import Path; from tests.security import inside; "
            "from tests.executors.rootfs.conftest import Bench; "
            "from layercache.testing.images import busybox_layer; "
            "bench = Bench(Path(sys.argv[1]), busybox_layer()); "
            "print(inside.resolve(bench, sys.argv[2])); bench.executor.close()"
        )
        # The file is another one for this process and those that it starts.
        shell = f'mount --bind {conf} /etc/resolv.conf && PATH={only} exec "$@"'
        done = subprocess.run(
            [unshare, "-m", "sh", "-c", shell, "sh", sys.executable, "-c", code,
             str(tmp_path / "s"), program],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    assert done.stdout == "nameserver 10.0.2.3\nsearch example.test\nanswered\n\n", done.stderr
