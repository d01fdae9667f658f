"""What this machine's configuration says of registries: certificates, mirrors, insecure ones.

The files are those of docker and podman, so that what these tools reach is reached here:
`certs.d/HOST[:PORT]/` with authorities (`*.crt`) and client certificates (`*.cert`, `*.key`),
`registries.conf` (version 2), and `registry-mirrors` and `insecure-registries` of docker's
`daemon.json`. Each is read once, when a registry is first spoken to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from layercache._base.classes import frozen
from layercache.errors import SourceError, UsageError
from layercache.oci.references import DOCKER_HUB, Reference

if TYPE_CHECKING:
    import ssl

__all__ = ["RegistryHosts"]

_SIZE: Final = 4 << 20
_NEEDED: Final = "is not a configuration of registries that can be read"


@frozen(kw_only=True)
class _Mirror:
    """A place to pull from instead; `pulls` is `all`, `digest-only` or `tag-only`."""

    location: str
    pulls: str = "all"

    def serves(self, reference: Reference) -> bool:
        by_digest = reference.digest is not None
        return self.pulls in ("all", "digest-only" if by_digest else "tag-only")


@frozen(kw_only=True)
class _Entry:
    """A `[[registry]]`: what begins with `prefix` is at `location`, or at a mirror."""

    prefix: str
    location: str
    blocked: bool = False
    mirrors: tuple[_Mirror, ...] = ()

    def covers(self, name: str) -> bool:
        if self.prefix.startswith("*."):
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        rest = name.removeprefix(self.prefix)
        return rest != name and rest[:1] in ("", "/")

    def moved(self, name: str, location: str) -> str:
        """The name below another location."""
        if self.prefix.startswith("*."):
            return name if not location else location + "/" + name.partition("/")[2]
        return location + name.removeprefix(self.prefix)


@frozen(kw_only=True)
class _Known:
    entries: tuple[_Entry, ...] = ()
    insecure: frozenset[str] = frozenset()


class RegistryHosts:
    """The configuration of registries on this machine. Safe for threads.

    `directories` are those named `certs.d`, the first with a directory for a host counts; `files`
    are `registries.conf` files, of which the first that exists counts; `daemon` is docker's
    configuration. By default all are in their usual places.
    """

    def __init__(
        self,
        *,
        directories: Sequence[str] | None = None,
        files: Sequence[str] | None = None,
        daemon: str | None = None,
    ) -> None:
        usual = directories is None and files is None and daemon is None
        self._directories = tuple(_certificates() if usual else directories or ())
        self._files = tuple(_configurations() if usual else files or ())
        self._daemon = "/etc/docker/daemon.json" if usual else daemon
        self._lock = threading.Lock()
        self._read: _Known | None = None

    @property
    def _known(self) -> _Known:
        with self._lock:
            if self._read is None:
                self._read = self._load()
            return self._read

    def insecure(self, host: str) -> bool:
        """Whether `host` (with its port) may be spoken to over http, or without a certificate that
        can be verified. Raises `SourceError` if the configuration is broken.
        """
        return host in self._known.insecure

    def load_certificates(self, host: str, context: ssl.SSLContext) -> None:
        """Add the authorities and the client certificate for `host` to `context`.

        Raises `SourceError` for a file that is none.
        """
        if host in (".", ".."):
            return
        for directory in self._directories:
            place = os.path.join(directory, host)
            try:
                names = sorted(os.listdir(place))
            except OSError:
                continue
            for name in names:
                path = os.path.join(place, name)
                try:
                    if name.endswith(".crt"):
                        context.load_verify_locations(cafile=path)
                    elif name.endswith(".cert"):
                        context.load_cert_chain(path, path.removesuffix("cert") + "key")
                except OSError as error:  # what OpenSSL says is one, too
                    raise SourceError(f"can't use the certificate {path}: {error}") from error
            return

    def places(self, reference: Reference) -> tuple[Reference, ...]:
        """Where to pull an image from, in order: mirrors, then its registry.

        Raises `SourceError` for a blocked registry.
        """
        name = reference.name
        found = [entry for entry in self._known.entries if entry.covers(name)]
        if not found:
            return (reference,)
        entry = max(found, key=lambda entry: len(entry.prefix))
        if entry.blocked:
            raise SourceError(
                f"{entry.prefix} is blocked by the configuration of registries on this machine"
            )
        places = [m.location for m in entry.mirrors if m.serves(reference)] + [entry.location]
        suffix = str(reference).removeprefix(name)
        try:
            moved = [Reference.parse(entry.moved(name, place) + suffix) for place in places]
        except UsageError as error:
            raise SourceError(f"the location of {entry.prefix} {_NEEDED}: {error}") from error
        return tuple(dict.fromkeys(moved))

    # -- files ------------------------------------------------------------------------------

    def _load(self) -> _Known:
        entries: list[_Entry] = []
        insecure: set[str] = set()
        for path in self._files:
            data = _content(path)
            if data is None:
                continue
            import tomllib

            try:
                _read_registries(tomllib.loads(data.decode()), entries, insecure)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise SourceError(f"{path} {_NEEDED}: {error}") from error
            break
        data = _content(self._daemon) if self._daemon else None
        if data is not None:
            import json

            try:
                _read_daemon(json.loads(data), entries, insecure)
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise SourceError(f"{self._daemon} {_NEEDED}: {error}") from error
        return _Known(entries=tuple(entries), insecure=frozenset(insecure))


def _certificates() -> list[str]:
    home = os.path.expanduser("~")
    return [
        f"{home}/.config/containers/certs.d",
        "/etc/containers/certs.d",
        f"{home}/.docker/certs.d",
        "/etc/docker/certs.d",
    ]


def _configurations() -> list[str]:
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    home = os.path.expanduser("~")
    usual = [
        f"{home}/.config/containers/registries.conf",
        "/etc/containers/registries.conf",
    ]
    return [named] if named else usual


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_SIZE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror}") from error


def _read_registries(value: Mapping[str, Any], entries: list[_Entry], insecure: set[str]) -> None:
    for row in value.get("registry", ()):
        location = row.get("location", "")
        prefix = row.get("prefix") or location
        mirrors = []
        for mirror in row.get("mirror", ()):
            only = "digest-only" if row.get("mirror-by-digest-only") else "all"
            pulls = mirror.get("pull-from-mirror", only)
            mirrors.append(_Mirror(location=mirror["location"].strip("/"), pulls=pulls))
            if mirror.get("insecure"):
                insecure.add(mirrors[-1].location.partition("/")[0])
        if row.get("insecure"):
            insecure.add((location or prefix).partition("/")[0])
        wild = prefix.startswith("*.")
        entries.append(
            _Entry(
                prefix=prefix.strip("/"),
                location=location.strip("/") or ("" if wild else prefix.strip("/")),
                blocked=bool(row.get("blocked")),
                mirrors=tuple(mirrors),
            )
        )


def _read_daemon(value: Mapping[str, Any], entries: list[_Entry], insecure: set[str]) -> None:
    insecure.update(map(str, value.get("insecure-registries", ())))
    mirrors = []
    for url in value.get("registry-mirrors", ()):
        scheme, _, place = str(url).rpartition("://")
        mirrors.append(_Mirror(location=place.strip("/")))
        if scheme == "http":
            insecure.add(mirrors[-1].location.partition("/")[0])
    known = any(entry.prefix == DOCKER_HUB for entry in entries)
    if mirrors and not known:
        entries.append(_Entry(prefix=DOCKER_HUB, location=DOCKER_HUB, mirrors=tuple(mirrors)))
