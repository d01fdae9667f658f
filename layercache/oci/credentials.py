"""The user's existing registry credentials, as written by `docker login` and `podman login`.

Read from `$DOCKER_CONFIG/config.json` (default `~/.docker`), `$REGISTRY_AUTH_FILE` and podman's
`auth.json`, with credential helpers and stores. Nothing is written, and no secret is ever part
of an error or a repr.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from layercache._base.classes import field, frozen
from layercache.errors import SourceError, UsageError
from layercache.oci.references import DOCKER_HUB

__all__ = ["Credential", "Credentials"]

_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_HELPER: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_HELPER_SECONDS: Final = 60
_LIMIT: Final = 4 << 20


@frozen
class Credential:
    """User name and secret; with an identity token, the secret is that token."""

    user: str
    secret: str = field(repr=False)
    identity: bool = False

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        pair = f"{self.user}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


class Credentials:
    """Finds the credential for a registry host; each is looked up once."""

    def __init__(self, files: tuple[str, ...] | None = None) -> None:
        self._files = _default_files() if files is None else files
        self._known: dict[tuple[str, str], Credential | None] = {}

    def get(self, host: str, path: str = "") -> Credential | None:
        """The credential for the repository `path` at `host` (with its port), if any.

        Raises `SourceError` if a configuration file or a credential helper is broken.
        """
        key = (host, path)
        if key not in self._known:
            self._known[key] = self._find(host, path)
        return self._known[key]

    def _find(self, host: str, path: str) -> Credential | None:
        for file in self._files:
            config = _load(file)
            names = _names(host, path)
            helpers = config.get("credHelpers")
            if isinstance(helpers, Mapping):
                for name in names:
                    if isinstance(helper := helpers.get(name), str):
                        return _ask_helper(helper, name)
            found = _stored(config.get("auths"), names, file)
            if found is not None:
                return found
            store = config.get("credsStore")
            if isinstance(store, str) and store:
                for name in _names(host, ""):
                    if found := _ask_helper(store, name):
                        return found
        return None


def _default_files() -> tuple[str, ...]:
    home = os.path.expanduser("~")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    files = [
        os.environ.get("REGISTRY_AUTH_FILE"),
        os.path.join(os.environ.get("DOCKER_CONFIG") or f"{home}/.docker", "config.json"),
        f"{runtime}/containers/auth.json" if runtime else None,
        f"{home}/.config/containers/auth.json",
    ]
    return tuple(file for file in files if file)


def _names(host: str, path: str) -> tuple[str, ...]:
    """The keys under which a registry may be listed, the most specific first."""
    if host == DOCKER_HUB:
        return (*_HUB_KEYS, host)
    parts = path.split("/") if path else []
    narrow = [f"{host}/{'/'.join(parts[:n])}" for n in range(len(parts), 0, -1)]
    return (*narrow, host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/")


def _load(file: str) -> Mapping[str, Any]:
    try:
        with open(file, "rb") as stream:
            value = json.loads(stream.read(_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SourceError(f"can't read the credentials in {file}: {error.strerror}") from error
    except (ValueError, RecursionError):
        # The parser's message may quote the file, so it is not passed on.
        raise SourceError(f"the credentials in {file} are not JSON") from None
    return value if isinstance(value, Mapping) else {}


def _stored(auths: Any, names: tuple[str, ...], file: str) -> Credential | None:
    if not isinstance(auths, Mapping):
        return None
    for name in names:
        entry = auths.get(name)
        if not isinstance(entry, Mapping):
            continue
        token = entry.get("identitytoken")
        if isinstance(token, str) and token:
            return Credential("<token>", token, identity=True)
        auth = entry.get("auth")
        if isinstance(auth, str) and auth:
            try:
                pair = base64.b64decode(auth.strip(), validate=True).decode()
                user, colon, secret = pair.rstrip("\0").partition(":")
                if not colon:
                    raise ValueError(pair)
            except (binascii.Error, ValueError):
                raise SourceError(
                    f"the credential for {name} in {file} is damaged; log in again"
                ) from None
            return Credential(user, secret)
        plain = entry.get("username"), entry.get("password")
        if isinstance(plain[0], str) and isinstance(plain[1], str):
            return Credential(plain[0], plain[1])
    return None


def _ask_helper(helper: str, server: str) -> Credential | None:
    """`docker-credential-HELPER get`: JSON with Username and Secret, or "not found"."""
    import subprocess

    if not _HELPER.fullmatch(helper):
        raise UsageError(f"not a name of a credential helper: {helper!r}")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise SourceError(
            f"the credential helper {program} that the configuration names is not installed"
        ) from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{program} did not answer within {_HELPER_SECONDS} s") from None
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if "not found" in said.lower():
            return None
        raise SourceError(f"{program} failed for {server} with status {done.returncode}")
    try:
        value = json.loads(done.stdout)
        user, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{program} did not print a credential in the expected form") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise SourceError(f"{program} did not print a credential in the expected form")
    return Credential(user, secret, identity=user == "<token>") if secret else None
