"""Differences between two trees: a walk that stops at equal directory digests. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from layercache._base.classes import frozen
from layercache.model.tree import Node, Tree

__all__ = ["Difference", "differences"]


@frozen
class Difference:
    """One path at which two trees differ; a side is None if the path is absent there.

    A new directory comes before its entries; the entries of a removed directory are not listed.
    """

    path: bytes
    old: Node | None
    new: Node | None


def _same(old: Node, new: Node, old_tree: Tree, new_tree: Tree, path: bytes) -> bool:
    if old.mode != new.mode or old.uid != new.uid or old.gid != new.gid:
        return False
    return old.is_dir or old_tree.digest(path) == new_tree.digest(path)


def differences(old: Tree, new: Tree) -> Iterator[Difference]:
    """Every path whose type, mode, owner, content, link or device differs, parents first.

    Times are not compared: they are a function of content. The cost is proportional to the
    differences, plus one directory listing for each directory on the way to them.
    """
    pending = [(b"", True)]
    while pending:
        directory, both = pending.pop()
        if both and old.digest(directory) == new.digest(directory):
            continue
        below = old.children(directory) if both else ()
        names = sorted({*below, *new.children(directory)})
        for name in names:
            path = directory + b"/" + name if directory else name
            before, after = old.lookup(path) if both else None, new.lookup(path)
            if before is None or after is None or not _same(before, after, old, new, path):
                yield Difference(path, before, after)
            if after is not None and after.is_dir:
                pending.append((path, before is not None and before.is_dir))
