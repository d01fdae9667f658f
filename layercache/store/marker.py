"""The `format` object, which marks a place as a layercache cache.

Other data may lie in folders named `blobs`, `index` or `results`: OCI layouts, local caches of
other builders, a user's own work. Without the object, nothing there is listed, removed or checked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from layercache.errors import UsageError
from layercache.store.backend import InDirectory
from layercache.store.codec import MARKER

if TYPE_CHECKING:
    from layercache.store.backend import Backend

__all__ = ["foreign", "is_cache"]

_BESIDE: Final = frozenset({"locks", "tmp", "scan", "rootfs", "workspaces"})
"""What a build that stored nothing may leave in a directory."""

_KINDS: Final = ("ac", "blobs", "facts", "index", "ns", "refs", "results", "salted", "trails")
"""Folders from which a collection removes what nothing refers to."""


class _Objects(Protocol):
    """What is looked at here (`layercache.store.sealed_objects.SealedObjects`)."""

    @property
    def backend(self) -> Backend: ...

    @property
    def medium(self) -> Backend: ...

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]: ...


def is_cache(objects: _Objects) -> bool:
    """Whether the place is a layercache cache; False if nothing exists there.

    Raises `UsageError` if something else is there, `CacheError` if the backend fails.
    """
    if _is_marked(objects):
        return True
    backend = objects.backend
    directory = backend.directory if isinstance(backend, InDirectory) else None
    if isinstance(directory, str):
        try:
            empty = _BESIDE.issuperset(os.listdir(directory))
        except FileNotFoundError:
            empty = True
        except OSError as error:
            raise UsageError(f"can't look into {directory!r}: {error.strerror}") from error
    else:
        empty = next(iter(objects.medium.list("")), None) is None
    if empty:
        return False
    # A build may have made the cache since the first look: it writes `format` first.
    if _is_marked(objects):
        return True
    raise UsageError(
        f"{directory or objects.backend!r} is not a cache of layercache: it has no `format` "
        "object; nothing was removed there. Name the directory or URL that builds use as --cache"
    )


def _is_marked(objects: _Objects) -> bool:
    data = objects.read_many(["format"]).get("format")
    return data is not None and data.startswith(MARKER)


def foreign(directory: str) -> str | None:
    """The name of an entry in `directory` that a cache made there would take for its own.

    None if the directory is a cache already, does not exist, or has no such entry.
    """
    if os.path.lexists(os.path.join(directory, "format")):
        return None
    found = next((kind for kind in _KINDS if os.path.lexists(os.path.join(directory, kind))), None)
    # Another store may have made the cache since the first look: it writes `format` first.
    if os.path.lexists(os.path.join(directory, "format")):
        return None
    return found
