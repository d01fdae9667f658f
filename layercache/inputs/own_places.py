"""What a build writes itself, where that lies in one of its contexts.

A cache, a workspace or an output below the context would be copied into the image, change with
every build, and be missed by none: it is left out, as if the ignore file's last rules said so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layercache._base.classes import evolve
from layercache.store.backend import InDirectory
from layercache.trees.patterns import Ignore, Rule

if TYPE_CHECKING:
    from layercache.store.store import Store

__all__ = ["below", "directories_of", "without"]

_SPECIAL = {character: "\\" + character for character in "\\*?[]"}


def directories_of(store: Store, executor: object) -> list[str]:
    """The directories of this machine that a build over these writes to or reads layers from."""
    found = [backend.directory for backend in store.backends() if isinstance(backend, InDirectory)]
    directory = getattr(executor, "directory", None)  # a workspace
    if isinstance(directory, str):
        found.append(directory)
    return found


def below(root: str, places: Iterable[str]) -> tuple[str, ...]:
    """Those of `places` that lie below the directory `root`, as paths from there, sorted."""
    root = os.path.realpath(root)
    found = set()
    for place in places:
        path = os.path.relpath(os.path.realpath(place), root)
        if path != os.curdir and path.split(os.sep)[0] != os.pardir:
            found.add(path.replace(os.sep, "/"))
    return tuple(sorted(found))


def without(ignore: Ignore | None, paths: Iterable[str]) -> Ignore | None:
    """`ignore`, and after its rules those that leave `paths` out, whatever they hold."""
    rules = tuple(
        Rule("".join(_SPECIAL.get(character, character) for character in path), False, 0)
        for path in paths
    )
    if not rules:
        return ignore
    known = ignore or Ignore()
    return evolve(known, rules=(*known.rules, *rules))
