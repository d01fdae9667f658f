"""The program git, run without anything that belongs to the user who builds.

It gets no configuration of the user, no home, helper, hook, filter, key or agent, and may use only
the protocol of the given URL. Credentials are those of `Access`, for the given host.
"""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import time
import urllib.parse
from collections.abc import Mapping
from typing import Final, TypeAlias

from layercache._os.allowance import UnpackAllowance
from layercache.errors import SourceError
from layercache.http.client import masked, words
from layercache.inputs.access import Access

__all__ = ["Git", "size_below"]

_SECONDS: Final = 3600.0
_PAUSE: Final = 0.25
_BLOCK: Final = 512
"""Bytes counted for each name: a repository may consist of names alone."""

_Said: TypeAlias = "tuple[bytes, bytes]"
_KEPT: Final = (
    "PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
)  # fmt: skip
"""The only variables of the builder that git sees: paths of programs, certificates, proxies."""

_SPOKEN: Final[Mapping[str, str]] = {
    "http": "http:https",
    "https": "https",
    "ssh": "ssh:https",
    "git": "git:https",
}
"""The protocols that a redirect or submodule may use, by the scheme of the URL."""

_SETTINGS: Final[Mapping[str, str]] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.askPass": "",
    "core.pager": "cat",
    "core.autocrlf": "false",
    "core.symlinks": "true",
    "credential.helper": "",
    "init.templateDir": "",
    "init.defaultBranch": "main",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "protocol.version": "2",
    "submodule.fetchJobs": "1",
    "pack.threads": "1",
    "pack.writeReverseIndex": "false",
    "index.threads": "1",
    "index.version": "2",
    "core.untrackedCache": "false",
    "feature.manyFiles": "false",
    "user.name": "layercache",
    "user.email": "layercache@localhost",
}


class Git:
    """Runs git for one repository `url`; `home` is an empty directory.

    All commands together may take one hour, so that no server holds up a build for ever. The
    files below `place` may take as many bytes as `allowance` has left. They are measured while git
    runs, because a few bytes of a repository can expand to any number of files.
    """

    def __init__(
        self, url: str, home: str, access: Access, allowance: UnpackAllowance, place: str
    ) -> None:
        self._shown = masked(url)
        self._allowance = allowance
        self._place = place
        self._environment = _environment(url, home, access)
        self._deadline = time.monotonic() + _SECONDS

    def run(self, directory: str, *arguments: str, data: bytes | None = None) -> bytes:
        """The output of `git ARGUMENTS` in `directory`; raises `SourceError`."""
        if any("\0" in argument for argument in arguments):
            raise SourceError(f"ADD {self._shown}: a name with a null byte")
        process = subprocess.Popen(
            ["git", "-C", directory, *arguments],
            env=self._environment,
            stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # no terminal for questions, and one process group to end
            umask=0o022,  # modes are content, so they must not depend on the user's umask
        )
        try:
            said, complaint = self._communicate(process, data)
        except BaseException as error:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SourceError(f"ADD {self._shown}: git took more than {_SECONDS} s") from None
            raise
        if process.returncode:
            lines = [line for line in complaint.strip().splitlines() if line] or [b"git failed"]
            raise SourceError(f"ADD {self._shown}: {words(lines[-1])}")
        return said

    def _communicate(self, process: subprocess.Popen[bytes], data: bytes | None) -> _Said:
        pause = _PAUSE
        while True:  # the input is passed with the first call only
            try:
                return process.communicate(data, timeout=pause)
            except subprocess.TimeoutExpired:
                data = None
                began = time.monotonic()
                if began > self._deadline:
                    raise
                size = size_below(self._place)
                if size > self._allowance.left:
                    self._allowance.take(size, f"ADD {self._shown}")
                # Measuring takes longer the more files there are: at most a tenth of the time.
                pause = max(_PAUSE, 9 * (time.monotonic() - began))


def size_below(directory: str) -> int:
    """Bytes of the files below a directory, and a block for each name; follows no link."""
    total = 0
    pending = [directory]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    total += _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # removed in the meantime
    return total


def _environment(url: str, home: str, access: Access) -> dict[str, str]:
    scheme, host = _place(url)
    if scheme not in _SPOKEN:
        raise SourceError(f"ADD {masked(url)}: only http, https, ssh and git URLs are supported")
    settings = dict(_SETTINGS)
    header = access.for_git(host) if scheme in ("http", "https") else None
    if header is not None:
        origin = "/".join(url.split("/")[:3])
        settings[f"http.{origin}/.extraHeader"] = f"Authorization: {header}"
        # git would send it on to the target of any redirect.
        settings["http.followRedirects"] = "false"
    found = {name: os.environ[name] for name in _KEPT if name in os.environ}
    found |= {
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_PROTOCOL_FROM_USER": "0",
        # This also limits redirects and submodules: never weaker than the named protocol.
        "GIT_ALLOW_PROTOCOL": _SPOKEN[scheme],
        "GIT_SSH_COMMAND": _ssh(access),
        "GIT_SSH_VARIANT": "ssh",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    # Not on the command line, which every user of the machine can read.
    for number, (key, value) in enumerate(settings.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = key
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found


def _place(url: str) -> tuple[str, str]:
    """The scheme and the host (with its port) of a URL that git accepts."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        place, colon, _ = url.partition(":")
        if "/" in place or not colon or url.startswith("-") or "::" in url:
            return "file", ""
        return "ssh", url.partition(":")[0].rpartition("@")[2]
    try:
        return scheme.lower(), urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        raise SourceError(f"ADD {masked(url)}: the URL has no valid host name") from None


def _ssh(access: Access) -> str:
    """The ssh command without any configuration and keys of the user; hosts must be known."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "GSSAPIAuthentication": "no",
        "HostbasedAuthentication": "no",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "ControlMaster": "no",
        "ControlPath": "none",
        "PKCS11Provider": "none",
        "ConnectTimeout": "30",
        "ServerAliveInterval": "30",
        "IdentityFile": "none",
        "IdentityAgent": "none",
        "PubkeyAuthentication": "no",
    }
    agent = access.agents.get("default")
    if agent is not None:
        options["PubkeyAuthentication"] = "yes"
        if stat.S_ISSOCK(os.stat(agent).st_mode) if os.path.exists(agent) else True:
            options["IdentityAgent"] = agent
        else:
            options |= {"IdentityFile": agent, "IdentitiesOnly": "yes"}
    words_ = ["ssh", "-F", "none"]
    for name, value in options.items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        words_ += ["-o", f'{name}="{quoted}"' if not value.isalnum() else f"{name}={value}"]
    return shlex.join(words_)
