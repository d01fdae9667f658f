"""Files that every container has outside its image: mount points, /etc/hosts and the like.

The mount points are in a directory below all layers, so they never appear in a captured layer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from layercache.executors.rootfs.inside.network import RESOLVER
from layercache.executors.rootfs.scratch import Scratch
from layercache.model.layer_times import LAYER_TIME

__all__ = ["HOSTNAME", "Surroundings"]

HOSTNAME: Final = "layercache"
"""The host name that commands see: the same everywhere, or results would tell machines apart."""

_HOSTS: Final = (
    "127.0.0.1\tlocalhost {name}\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_GATEWAY: Final = "host-gateway"


class Surroundings:
    """Directories and files of one build that all its steps share."""

    def __init__(self, scratch: Scratch) -> None:
        self._directory = scratch.new("inputs")
        self.skeleton = os.path.join(self._directory, "skeleton")
        """The lowest layer of every overlay."""
        self.empty = os.path.join(self._directory, "empty")
        """A directory with nothing in it."""
        self.root = os.path.join(self._directory, "root")
        """Where steps mount their root, each in its own mount namespace."""
        self.private = os.path.join(self._directory, "private")
        """Where steps mount what is theirs alone (secrets), likewise."""
        self.staging = os.path.join(self._directory, "staging")
        """Where steps put together their /proc, /sys and /dev, likewise."""
        staged = [os.path.join(self.staging, name) for name in ("proc", "sys", "dev")]
        points = [os.path.join(self.skeleton, name) for name in ("proc", "sys", "dev", "etc")]
        places = (self.empty, self.root, self.private, self.staging, self.skeleton)
        for path in (*places, *staged, *points):
            os.mkdir(path)
            os.chmod(path, 0o755)  # whatever the umask of this process is
        for name in ("hosts", "hostname", "resolv.conf"):
            self._write(os.path.join("skeleton", "etc", name), b"")
        for path in (self.empty, self.skeleton, *points):
            os.utime(path, (LAYER_TIME, LAYER_TIME))  # seen where the image has no such directory
        try:
            with open("/etc/resolv.conf", "rb") as file:
                resolver = file.read(1 << 20)
        except OSError:
            resolver = b""
        self._hosts = self._write("hosts", _hosts(()))
        self._hostname = self._write("hostname", HOSTNAME.encode() + b"\n")
        self._resolver = self._write("resolv.conf", resolver)
        self._own_resolver = self._write("own-resolv.conf", _resolved(resolver))
        self._no_resolver = self._write("no-resolv.conf", b"")

    def _write(self, name: str, content: bytes) -> str:
        path = os.path.join(self._directory, name)
        return _write(path, content)

    def files(
        self, hosts: Sequence[tuple[str, str]], network: str, work: str, name: str = ""
    ) -> list[list[str]]:
        """The files to mount over those of the image: target and path of each."""
        path, hostname = self._hosts, self._hostname
        if hosts or name:
            path = _write(os.path.join(work, "hosts"), _hosts(hosts, name or HOSTNAME))
        if name:
            hostname = _write(os.path.join(work, "hostname"), name.encode() + b"\n")
        resolver = {"none": self._no_resolver, "isolated": self._own_resolver}.get(
            network, self._resolver
        )
        return [
            ["/etc/hosts", path],
            ["/etc/hostname", hostname],
            ["/etc/resolv.conf", resolver],
        ]


def _write(path: str, content: bytes) -> str:
    with open(path, "xb") as file:
        file.write(content)
    os.chmod(path, 0o644)
    os.utime(path, (LAYER_TIME, LAYER_TIME))  # like everything that a command finds
    return path


def _resolved(host: bytes) -> bytes:
    """/etc/resolv.conf for a network of its own: the program that serves the network forwards to
    the host's resolvers, including one that listens only on the host's loopback address.
    """
    kept = [line for line in host.splitlines() if line.split()[:1] in ([b"search"], [b"options"])]
    return b"".join(line + b"\n" for line in (b"nameserver " + RESOLVER.encode(), *kept))


def _hosts(extra: Sequence[tuple[str, str]], own: str = HOSTNAME) -> bytes:
    lines = _HOSTS.format(name=own)
    for name, address in extra:
        # With the host's network, the host is where the command is.
        lines += f"{'127.0.0.1' if address == _GATEWAY else address}\t{name}\n"
    return lines.encode("utf-8", "surrogateescape")
