"""Earlier builds to compare with: a project's last one, a tagged one, one of another cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layercache._base.classes import frozen
from layercache.builds.history import tag_project, trail_id
from layercache.errors import UsageError
from layercache.store.trails import Trail

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["Against", "baseline_of"]


@frozen
class Against:
    """An earlier build to compare with: its trail, and the store that has what it names."""

    store: Cache
    trail: Trail
    name: str


def baseline_of(store: Cache, name: str, texts: Sequence[str]) -> Against:
    """The build that `--against name` means.

    A tag of this cache, else a cache (directory or URL), of which the build with the most steps
    of these texts is taken. Raises `UsageError` when there is none.
    """
    from layercache.store.open import open_store

    looks_like_place = "://" in name or os.path.isdir(name) or name.startswith("type=")
    if not looks_like_place:
        try:
            trail = store.trails.get(trail_id(tag_project(name)))
        except UsageError:  # a path, for example, is not the name of an image
            trail = None
        if trail is None:
            raise UsageError(
                f"--against {name}: this cache has built no image of that name, and it is "
                "neither the directory nor the URL of another cache"
            )
        return Against(store, trail, name)
    other = open_store(name)
    wanted = set(texts)
    best: Trail | None = None
    most = 0
    for found in other.trails.all():
        common = len(wanted & {step.text for step in found.steps})
        if common > most:
            best, most = found, common
    if best is None:
        raise UsageError(f"--against {name}: that cache has no build with these steps")
    return Against(other, best, name)
