"""The target of a path: the symbolic links of a tree, followed within it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.classes import frozen
from layercache._base.paths import shown_in_image
from layercache.errors import BuildError
from layercache.trees.selection import MAX_LINKS

if TYPE_CHECKING:
    from layercache.model.tree import Node, Tree

__all__ = ["Resolved", "resolve"]


@frozen
class Resolved:
    """The target of a path: `path` without links, its `node` (None if nothing exists there), and
    every path that was looked up on the way with the node found.
    """

    path: bytes
    node: Node | None
    reads: tuple[tuple[bytes, Node | None], ...] = ()


def resolve(
    tree: Tree, path: bytes, follow_last: bool = True, *, confined: bool = False
) -> Resolved:
    """Follow the symbolic links of `path` inside `tree`, whose root is "/" to them.

    Missing components are kept as they are; ".." stops at the root, or with `confined` is an error
    if it would leave the root. Raises `BuildError` for a loop.
    """
    parts = path.split(b"/")[::-1]
    done: list[bytes] = []
    reads: list[tuple[bytes, Node | None]] = []
    node: Node | None = tree.lookup(b"")
    links = 0
    while parts:
        part = parts.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not done and confined:
                raise BuildError(f"{shown_in_image(path)} leads outside through a symbolic link")
            if done:
                done.pop()
            node = tree.lookup(b"/".join(done))
            continue
        here = b"/".join([*done, part])
        node = tree.lookup(here)
        reads.append((here, node))
        if node is None or not node.is_link or (not parts and not follow_last):
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise BuildError(f"{shown_in_image(path)}: too many symbolic links (a loop?)")
        if node.link.startswith(b"/"):
            done.clear()
        parts += node.link.split(b"/")[::-1]
    return Resolved(b"/".join(done), node, tuple(reads))
