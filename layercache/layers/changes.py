"""Changes on top of an immutable tree: the working state of COPY, ADD and WORKDIR.

`Changes` answers look-ups as if all changes so far were applied, records which paths of the base
were read, and finally writes exactly the differences as a layer.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import BinaryIO, cast

from layercache._base.classes import frozen
from layercache._base.paths import shown_in_image
from layercache.errors import BuildError, Cancelled
from layercache.layers.follow_links import Resolved, resolve
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import sort_key
from layercache.model.layer_times import LAYER_TIME
from layercache.model.tree import Node, Tree

__all__ = ["Changes", "Content", "LayerChange"]

Content = bytes | Callable[[], BinaryIO] | None
"""A file's bytes, a function that opens them, or None for an entry without bytes."""


@frozen
class LayerChange:
    """A path that is there afterwards. `same_file` is a token: equal ones share an inode."""

    node: Node
    content: Content = None
    same_file: object = None


class Changes:
    """A tree with pending changes; as a `Tree` it supports only `lookup`."""

    def __init__(self, base: Tree) -> None:
        self._base = base
        self._changes: dict[bytes, LayerChange] = {}
        self._hidden: set[bytes] = set()
        """Paths at and beneath which nothing of the base is visible any more."""
        self._above: set[bytes] = set()
        """Every directory above a change: a superset."""
        self.reads: dict[bytes, Node | None] = {}
        """The paths of the base that were read, with the nodes found there."""

    # -- looking ----------------------------------------------------------------------------

    def lookup(self, path: bytes) -> Node | None:
        """The present node at `path`; links are not followed."""
        change = self._changes.get(path)
        if change is not None:
            return change.node
        if self._hidden and self._is_hidden(path):
            return None
        return self.base_lookup(path)

    def base_lookup(self, path: bytes) -> Node | None:
        """The base's node at `path`; recorded as read."""
        if path in self.reads:
            return self.reads[path]
        node = self.reads[path] = self._base.lookup(path)
        return node

    def read_base(self, path: bytes, limit: int = 16 << 20) -> bytes | None:
        """The bytes of the base's file at `path`, links followed; None if it is missing."""
        found = resolve(cast(Tree, self), path)
        node = found.node
        if node is None or not node.is_file or found.path in self._changes:
            return None
        if node.size > limit:
            raise BuildError(
                f"{shown_in_image(path)} of the image is too big to read ({node.size} bytes)"
            )
        with self._base.open(found.path) as content:
            data = content.read(limit + 1)
            # Only the end of a file confirms that its bytes are right.
            while more := content.read(limit + 1):
                data += more
        return data

    def resolve(self, path: bytes, *, follow_last: bool = True, confined: bool = False) -> Resolved:
        """`path` with its links followed inside this tree."""
        return resolve(cast(Tree, self), path, follow_last, confined=confined)

    def _is_hidden(self, path: bytes) -> bool:
        while True:
            if path in self._hidden:
                return True
            if not path:
                return False
            path = path.rpartition(b"/")[0]

    # -- changing ---------------------------------------------------------------------------

    def put(self, path: bytes, change: LayerChange) -> None:
        """Put something at `path`; a directory there keeps what it holds if it stays one."""
        self._changes[path] = change
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._above:
                return
            self._above.add(path)

    def clear(self, path: bytes) -> None:
        """Remove `path` with everything beneath, from base and changes alike."""
        node = self.lookup(path)
        self._changes.pop(path, None)
        if node is None or not node.is_dir:
            return
        if path in self._above:
            inside = path + b"/"
            for other in [p for p in self._changes if p.startswith(inside)]:
                del self._changes[other]
        self._hidden.add(path)

    def make_directories(self, path: bytes, uid: int, gid: int, mode: int = 0o755) -> None:
        """Create `path` and missing parents, with the given owner and permission bits.

        Raises `BuildError` if something else is in the way.
        """
        missing = []
        here = path
        while True:
            node = self.lookup(here)
            if node is not None:
                if not node.is_dir:
                    raise BuildError(
                        f"can't make {shown_in_image(path)}: {shown_in_image(here)} is not a "
                        "directory"
                    )
                break
            missing.append(here)
            if not here:
                break
            here = here.rpartition(b"/")[0]
        for here in reversed(missing):
            node = Node(mode=stat.S_IFDIR | mode, uid=uid, gid=gid, mtime=LAYER_TIME)
            self.put(here, LayerChange(node))

    # -- the layer --------------------------------------------------------------------------

    def write(self, writer: LayerWriter, cancelled: Callable[[], bool] | None = None) -> None:
        """Write all differences from the base, in the order of a layer.

        A directory of the base is written only if its mode, owner or attributes changed.
        Raises `Cancelled` if `cancelled` returns True.
        """
        names: dict[object, bytes] = {}
        for number, path in enumerate(sorted(self._changes, key=sort_key)):
            change = self._changes[path]
            node = change.node
            if cancelled is not None and (not number % 256 or node.size > 1 << 20) and cancelled():
                raise Cancelled("cancelled while files were being copied")
            if node.is_dir:
                self._write_directory(writer, path, node)
            elif change.same_file is not None and change.same_file in names:
                writer.add(path, node, hardlink=names[change.same_file])
            else:
                if change.same_file is not None:
                    names[change.same_file] = path
                content = change.content
                if callable(content):
                    with content() as stream:
                        writer.add(path, node, stream)
                else:
                    writer.add(path, node, content)

    def _write_directory(self, writer: LayerWriter, path: bytes, node: Node) -> None:
        base = None
        if not (self._hidden and path and self._is_hidden(path.rpartition(b"/")[0])):
            base = self.base_lookup(path)
        hidden = path in self._hidden
        was_directory = base is not None and base.is_dir
        if hidden or base is None or not was_directory or _metadata(base) != _metadata(node):
            writer.add(path, node)
        if hidden and was_directory:
            writer.opaque(path)


def _metadata(node: Node) -> tuple[object, ...]:
    return node.mode, node.uid, node.gid, node.xattrs
