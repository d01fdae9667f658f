"""The places that a build itself writes to, kept out of its contexts.

A cache, a workspace or an output below the context would be copied into the image and change with
every build. Each is left out, as if the last rules of the ignore file excluded it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layercache._base.classes import evolve
from layercache.store.backend import InDirectory
from layercache.trees.patterns import Ignore, Rule

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["below", "directories_of", "without"]

_SPECIAL = {character: "\\" + character for character in "\\*?[]"}


def directories_of(store: Cache, executor: object) -> list[str]:
    """The local directories that `store` and `executor` write to or read layers from."""
    found = [backend.directory for backend in store.backends() if isinstance(backend, InDirectory)]
    directory = getattr(executor, "directory", None)  # a workspace
    if isinstance(directory, str):
        found.append(directory)
    return found


def below(root: str, places: Iterable[str]) -> tuple[str, ...]:
    """The members of `places` below the directory `root`, as sorted relative paths."""
    root = os.path.realpath(root)
    found = set()
    for place in places:
        path = os.path.relpath(os.path.realpath(place), root)
        if path != os.curdir and path.split(os.sep)[0] != os.pardir:
            found.add(path.replace(os.sep, "/"))
    return tuple(sorted(found))


def without(ignore: Ignore | None, paths: Iterable[str]) -> Ignore | None:
    """`ignore` with further rules that leave `paths` and everything below them out."""
    rules = tuple(
        Rule("".join(_SPECIAL.get(character, character) for character in path), False, 0)
        for path in paths
    )
    if not rules:
        return ignore
    known = ignore or Ignore()
    return evolve(known, rules=(*known.rules, *rules))
