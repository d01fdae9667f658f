"""The paths of a layer's index that was read from bytes: canonical, or refused. Pure."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from layercache._base.paths import NOWHERE, stays_below
from layercache.errors import CorruptObject

__all__ = ["check_name", "check_paths"]


def check_name(path: bytes) -> None:
    """Refuse a path that is absolute, empty or leads out of where it is: `CorruptObject`."""
    if not stays_below(path):
        raise CorruptObject(f"a layer index names {path!r}, which no layer holds")


def check_paths(paths: Sequence[bytes], directories: Sequence[bool]) -> None:
    """Refuse paths that are not each once, in order and below a directory: `CorruptObject`.

    `directories` says of each path whether it is one.
    """
    keys = [path.replace(b"/", b"\0") for path in paths]
    if not all(map(operator.lt, keys, keys[1:])):
        raise CorruptObject("a layer index is not in order; it will be made again")
    above = set()
    for path, is_directory in zip(paths, directories, strict=True):
        if path:
            parent, _, name = path.rpartition(b"/")
            if name in NOWHERE or path.startswith(b"/"):
                raise CorruptObject(f"a layer index names {path!r}, which no layer holds")
            if parent not in above:
                raise CorruptObject(f"a layer index has {path!r} below no directory")
        if is_directory:
            above.add(path)
