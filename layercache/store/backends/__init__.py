"""Backends: the media on which named objects are kept.

Imports the same packages as `layercache.store`, and each backend on first use. Start at
`open_backend` (which selects one by URL), then `local`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache.errors import UsageError

if TYPE_CHECKING:
    from layercache.store.backend import Backend

__all__ = ["open_backend"]


def open_backend(location: str, *, durability: str = "batch") -> Backend:
    """The backend behind a URL, a plain path, or a cache written as buildx does.

    - a path or `file:` URL: a directory of this machine (`LocalBackend`);
    - `memory://NAME`: this process only, shared by name;
    - `redis://…`, `rediss://…`, `unix://…`: Redis;
    - `registry://REF`, `oci://REF`: an OCI registry;
    - `obstore+s3://…` and so on: object storage by obstore;
    - any other URL: fsspec;
    - `HOST/NAME[:TAG]`, where no such directory is: an OCI registry, as for buildx (a path that
      is not there yet begins with `/` or `./`);
    - `type=local,dest=DIR` (or `src=`), `type=registry,ref=REF[,registry.insecure=true]`,
      `type=s3,bucket=B[,region=R][,prefix=P][,endpoint_url=U]` and its credentials.

    `durability` counts for directories. Nothing is contacted yet. Raises `UsageError`.
    """
    if not location:
        raise UsageError("a cache needs a directory or a URL; an empty text was given")
    if location.startswith("type="):
        from layercache.store.backends.buildx import open_buildx

        return open_buildx(location, durability)
    scheme, separator, rest = location.partition("://")
    if not separator or len(scheme) == 1:  # C:\… is a path
        if location.startswith("file:"):
            location = location.removeprefix("file:")
        elif not separator and _is_reference(location):
            return open_backend("registry://" + location)
        return _local(location, durability)
    _refuse_credentials(scheme, rest)
    if scheme in ("file", "local"):
        return _local(_path_of(rest), durability)
    if scheme == "memory":
        from layercache.store.backends.memory import shared_memory

        return shared_memory(rest)
    if scheme in ("redis", "rediss", "unix"):
        from layercache.store.backends.redis import RedisBackend

        return RedisBackend(location)
    if scheme in ("registry", "oci"):
        from layercache.store.backends.registry import RegistryBackend

        return RegistryBackend(rest)
    if scheme.startswith("obstore+"):
        from layercache.store.backends.obstore import ObstoreBackend

        return ObstoreBackend(location.removeprefix("obstore+"))
    from layercache.store.backends.fsspec import FsspecBackend

    return FsspecBackend(location).check()


def _is_reference(text: str) -> bool:
    if "/" not in text or text[0] in "/.~":
        return False
    from layercache.store.backends.buildx import is_reference

    return is_reference(text)


def _local(path: str, durability: str) -> Backend:
    from layercache.store.backends.local import LocalBackend

    return LocalBackend(path, durability=durability)


def _path_of(rest: str) -> str:
    from urllib.parse import unquote

    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise UsageError("a file URL names this machine only: write file:///PATH")
    return unquote(slash + path)


def _refuse_credentials(scheme: str, rest: str) -> None:
    from layercache._base.urls import user_of

    user = user_of(rest)
    if ":" in user and scheme not in ("redis", "rediss"):
        raise UsageError(
            f"a password in a {scheme} URL is refused: URLs reach logs and process listings; "
            "put it into the environment or the client's configuration"
        )
