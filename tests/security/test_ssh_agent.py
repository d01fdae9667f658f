"""A forwarded agent's keys can be listed and used, and nothing else be done to it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layercache.executors.rootfs.ssh_proxy import AgentProxy
from layercache.model.operations import Mount
from layercache.testing.images import tar_of
from tests.executors.rootfs.conftest import Bench

FAILURE = b"\x00\x00\x00\x01\x05"


class RealAgent:
    """An `ssh-agent` with one key, and a proxy before it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.agent, self.proxy = str(place / "agent"), str(place / "proxy")
        self.process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.agent], stdout=subprocess.DEVNULL
        )
        while not os.path.exists(self.agent):
            time.sleep(0.01)
        key = str(place / "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.run(self.agent, "ssh-add", "-q", key)
        self.key = (place / "key.pub").read_text().split()[1]
        self.serving = AgentProxy(self.proxy, self.agent)

    def run(self, at: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**os.environ, "SSH_AUTH_SOCK": at},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )

    def listed(self) -> str:
        """What the agent has, asked for directly."""
        return self.run(self.agent, "ssh-add", "-L").stdout

    def close(self) -> None:
        self.serving.close()
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RealAgent]:
    for program in ("ssh-agent", "ssh-add", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    made = RealAgent(tmp_path)
    yield made
    made.close()


def _ask(path: str, data: bytes, *, wait: float = 5.0) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(wait)
        client.connect(path)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while part := client.recv(1 << 16):
                found += part
        except ConnectionResetError:
            pass  # it hung up with what was sent unread
        return found


def test_keys_are_listed_and_sign(agent: RealAgent) -> None:
    """What `ssh` needs works: listing, and a signature that verifies."""
    assert agent.key in agent.run(agent.proxy, "ssh-add", "-L").stdout
    text = agent.place / "text"
    text.write_text("text")
    public = str(agent.place / "key.pub")
    done = agent.run(agent.proxy, "ssh-keygen", "-Y", "sign", "-n", "file", "-f", public, str(text))
    assert done.returncode == 0, done.stderr
    assert "BEGIN SSH SIGNATURE" in text.with_suffix(".sig").read_text()


def test_keys_are_not_removed_added_or_locked(agent: RealAgent) -> None:
    """`ssh-add -D`, `-d`, `-X` and a new key fail, and the agent is as it was."""
    before = agent.listed()
    other = agent.place / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    for command in (["-D"], ["-d", str(agent.place / "key.pub")], [str(other)]):
        assert agent.run(agent.proxy, "ssh-add", *command).returncode != 0, command
        assert agent.listed() == before


@pytest.mark.parametrize("kind", [n for n in range(256) if n not in (11, 13)])
def test_every_other_request_fails(agent: RealAgent, kind: int) -> None:
    """Requests by number, with nothing and something in them; the agent stays as it was."""
    for body in (b"", b"\x00\x00\x00\x00", b"\x00\x00\x00\x18session-bind@openssh.com"):
        message = bytes([kind]) + body
        assert _ask(agent.proxy, len(message).to_bytes(4, "big") + message) == FAILURE
    assert agent.key in agent.listed()


def test_messages_in_pieces_and_together(agent: RealAgent) -> None:
    """A forbidden request is one however it is cut, behind a good one, or within one."""
    remove_all, listing = b"\x00\x00\x00\x01\x13", b"\x00\x00\x00\x01\x0b"
    for cut in range(1, 5):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(agent.proxy)
            client.sendall(remove_all[:cut])
            time.sleep(0.02)
            client.sendall(remove_all[cut:])
            assert client.recv(100) == FAILURE
    answer = _ask(agent.proxy, listing + remove_all + listing)
    assert answer.count(FAILURE) == 1
    # What looks like a further request is the content of the one before it.
    hidden = b"\x00\x00\x00\x06\x0b" + remove_all
    _ask(agent.proxy, hidden)
    _ask(agent.proxy, b"\x00\x00\x00\x06\x0d" + remove_all)
    assert agent.key in agent.listed()


@pytest.mark.parametrize("head", [b"\x00" * 4, b"\xff" * 4, b"\x00\x04\x00\x01\x0b"])
def test_lengths_are_bounded(agent: RealAgent, head: bytes) -> None:
    """Nothing is read for a message that is empty or longer than an agent takes."""
    assert _ask(agent.proxy, head + b"\x0b" * 100) == b""


def test_many_clients_that_say_nothing(agent: RealAgent) -> None:
    """They take no more than a bounded number of descriptors here, and closing does not wait."""
    before = len(os.listdir("/proc/self/fd"))
    clients = []
    for _ in range(40):
        client = socket.socket(socket.AF_UNIX)
        client.connect(agent.proxy)
        clients.append(client)
    time.sleep(0.1)
    ours = len(os.listdir("/proc/self/fd")) - before - len(clients)
    began = time.monotonic()
    closing = threading.Thread(target=agent.serving.close)
    closing.start()
    closing.join(5)
    for client in clients:
        client.close()

    assert not closing.is_alive()
    assert time.monotonic() - began < 5
    assert ours <= 2 * 32


def test_from_inside_a_step(
    agent: RealAgent, program: str, make_bench: Callable[..., Bench]
) -> None:
    """The socket that a command gets is such a proxy."""
    bench = make_bench(ssh={"default": agent.agent})
    mount = Mount(type="ssh", target="/agent", id="default", mode=0o600)
    image = tar_of({"probe": Path(program).read_bytes()}, mode=0o755)
    script = "/probe ask /agent 0000000113; /probe ask /agent 000000010b"
    state = bench.layer(image, bench.base)
    answers = bench.out(script, state=state, mounts=(mount,)).splitlines()

    assert answers[0] == "0000000105"
    assert answers[1][8:10] == "0c"
    assert agent.key in agent.listed()
