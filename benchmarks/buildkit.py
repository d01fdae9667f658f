"""BuildKit, where a Docker daemon answers: the builder that most people have.

Its client is `docker buildx build`, or `docker build` of the releases that have one built in.
Commands run with the host's network, so that a daemon without one will do.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BASE", "ENVIRONMENT", "build_command", "import_base", "remove_base", "works"]

BASE = "layercache-benchmark-base"
"""The image that `import_base` makes."""

BUILT = "layercache-benchmark-built"

ENVIRONMENT = {"DOCKER_BUILDKIT": "1"}


def works(command: Sequence[str]) -> bool:
    """Whether a command is there and says yes."""
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, capture_output=True, env=os.environ | ENVIRONMENT)
    return done.returncode == 0


@functools.cache
def _client() -> tuple[str, ...] | None:
    if not works(["docker", "version"]):
        return None
    for words in (("docker", "buildx", "build", "--load"), ("docker", "build")):
        # The help of a client that needs a missing buildx, or has no BuildKit, lacks the option.
        done = subprocess.run(
            [*words, "--help"], capture_output=True, text=True, env=os.environ | ENVIRONMENT
        )
        if done.returncode == 0 and "--progress" in done.stdout:
            return words
    return None


def build_command(context: str, *options: str) -> list[str] | None:
    """What builds `context`, to be run with `ENVIRONMENT`; None where there is no BuildKit."""
    client = _client()
    if client is None:
        return None
    return [*client, "--network=host", "-q", "-t", BUILT, *options, context]


def import_base(root: Path) -> None:
    """Make `BASE` of a root directory."""
    pack = ["tar", "--numeric-owner", "--one-file-system", "-C", str(root)]
    pack += ["--exclude=./var/cache/apt/archives/*.deb", "-c", "."]
    path = "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        command = ["docker", "import", "-c", path, "-", BASE]
        subprocess.run(command, stdin=packing.stdout, check=True, capture_output=True)


def remove_base() -> None:
    """Remove `BASE` and the last build from the daemon; its cache is its own affair."""
    subprocess.run(["docker", "rmi", "-f", BUILT, BASE], capture_output=True)
