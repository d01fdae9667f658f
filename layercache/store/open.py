"""Locations: the platform's default cache, a store from a user's notation, scratch beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layercache.errors import UsageError

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["default_cache", "open_store", "scratch_directory"]


def default_cache(environment: Mapping[str, str] = os.environ) -> str:
    """LAYERCACHE_CACHE, otherwise `layercache` below the platform's cache directory of this
    user.
    """
    if chosen := environment.get("LAYERCACHE_CACHE"):
        return chosen
    if sys.platform == "win32":
        base = environment.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "layercache")


def open_store(
    location: str | None,
    *,
    durability: str = "batch",
    salt: str = "",
    cache_from: Sequence[str] = (),
    cache_to: Sequence[str] = (),
) -> Cache:
    """The store at a directory or URL; `None` is one in memory.

    `cache_from` are further caches to read from, `cache_to` further ones to write to. Raises
    `UsageError` for an invalid location.
    """
    from layercache.store.store import Store

    if location is None:
        from layercache.store.backends.memory import MemoryBackend

        backend = MemoryBackend()
        return Store(backend, salt=salt)
    from layercache.store.backends import open_backend

    store = Store(open_backend(location, durability=durability), salt=salt)
    if cache_from or cache_to:
        from layercache.store.tiered import tiered

        return tiered(store, cache_from=cache_from, cache_to=cache_to, salt=salt)
    return store


def scratch_directory(store: Cache, kind: str = "rootfs") -> str:
    """The directory for an executor's unpacked layers and work: beside a local store, otherwise in
    the user's cache directory. Raises `UsageError` if it is a link, whose target may belong to
    someone else and would be cleared.
    """
    from layercache.store.backend import InDirectory

    backend = store.backend
    directory = backend.directory if isinstance(backend, InDirectory) else default_cache()
    place = os.path.join(directory, kind)
    if os.path.islink(place):
        raise UsageError(
            f"{place} is a symbolic link, and clearing it would clear what it points to: "
            "remove the link"
        )
    return place
