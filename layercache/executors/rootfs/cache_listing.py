"""What cache mounts there are in a scratch directory, one by one."""

from __future__ import annotations

import json
import os
import stat

from layercache._base.classes import frozen

__all__ = ["ABOUT", "KeptCacheMount", "cache_mounts", "describe"]

ABOUT = "about"
"""The file beside the directories of a cache that names its mount."""


@frozen
class KeptCacheMount:
    """The content of a cache mount.

    `id` is the mount's, "" where it is not known; `place` names the directory that holds all of
    the same identity. `size` is in bytes, as far as this user may look. `used` is the time of the
    last use, in seconds since 1970.
    """

    id: str
    place: str
    number: int
    size: int
    used: float


def describe(place: str, mount_id: str) -> None:
    """Note beside a cache what its mount is called. Raises `OSError`."""
    path = os.path.join(place, ABOUT)
    if os.path.exists(path):
        return
    temporary = f"{path}-{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({"id": mount_id}, file)
    os.replace(temporary, path)


def cache_mounts(scratch: str) -> list[KeptCacheMount]:
    """All cache mounts in a scratch directory, the least recently used first."""
    found = []
    top = os.path.join(scratch, "caches")
    for place in _names(top):
        directory = os.path.join(top, place)
        if os.path.islink(directory):
            continue  # not ours
        for name in _names(directory):
            path = os.path.join(directory, name)
            if name.isdigit() and os.path.isdir(path) and not os.path.islink(path):
                size = _size(path)
                found.append(KeptCacheMount(_id(directory), place, int(name), size, _used(path)))
    return sorted(found, key=lambda one: (one.used, one.id, one.place, one.number))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _id(directory: str) -> str:
    try:
        with open(os.path.join(directory, ABOUT), encoding="utf-8") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return ""
    named = said.get("id") if isinstance(said, dict) else None
    return named if isinstance(named, str) else ""


def _used(path: str) -> float:
    try:
        return os.stat(path + ".lock").st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: str) -> int:
    """What the disk gives for everything below `path`; a file with two names counts once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    todo = [path]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        todo.append(entry.path)
        except (FileNotFoundError, PermissionError):
            continue  # deleted just now, or another user's of a user namespace
    return total
