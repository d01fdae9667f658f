"""The digest of a mounted state: everything that the kernel shows of its files. Pure.

COPY writes each file anew, with a time of its own, so only content counts for it. A command that
mounts the state itself sees more: times (those of an unpacked archive, say), attributes, hard
links, and the mode of the root.
"""

from __future__ import annotations

import struct
from typing import Final

from blake3 import blake3

from layercache.model.digests import Fingerprint
from layercache.model.selectors import Files
from layercache.model.tree import HardLinks, Linked, Node, Tree
from layercache.trees.order import ordered, ranks_of
from layercache.trees.selection import select, walk

__all__ = ["mount_fingerprint"]

_CONTEXT: Final = "layercache 2026-11 mount digest 1"
_ROW: Final = struct.Struct("<8IqQQ")


def mount_fingerprint(tree: Tree, files: Files) -> Fingerprint:
    """The digest of everything that a command can see of the files that `files` selects.

    As with `fingerprint`, the place of the selection within the state does not count. Raises the
    errors of `select`.
    """
    hasher = blake3(derive_key_context=_CONTEXT)
    links_of = tree if isinstance(tree, HardLinks) else None
    names_of = tree.names if isinstance(tree, Linked) else None
    matches = select(tree, files)
    for match in matches:
        first: dict[object, bytes] = {}
        for relative, path, node in walk(tree, match):
            inode = links_of.inode(path) if links_of is not None and node.is_file else None
            same, links = b"", 1
            if names_of is not None and inode is not None:
                same = first.setdefault(inode, relative)
                links = len(names_of(path))
            hasher.update(_row(relative, node, same, links))
        hasher.update(_row(b"", None, b"", 0))
    return ordered(Fingerprint(hasher.hexdigest()), ranks_of(tree, matches))


def _row(relative: bytes, node: Node | None, same: bytes, links: int) -> bytes:
    """One path, encoded injectively: all lengths come first."""
    if node is None:
        return _ROW.pack(*(0,) * 11)
    attributes = b"".join(
        struct.pack("<II", len(name), len(value)) + name + value for name, value in node.xattrs
    )
    parts = (relative, node.link, node.content, attributes, same)
    head = _ROW.pack(*map(len, parts), node.mode, node.uid, node.gid, node.mtime, *node.device)
    return head + struct.pack("<I", links) + b"".join(parts)
