"""New layers from an executor's files: given by path, or as a directory on disk.

Order, sizes, types, times and digests are determined here, so that equal files give equal bytes.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, cast

from blake3 import blake3

from layercache._base.classes import evolve
from layercache.errors import BuildError, UsageError
from layercache.layers.writer import LayerWriter
from layercache.model.descriptors import LAYER_TAR, Layer
from layercache.model.digests import Digest
from layercache.model.layer_index import KeepsIndex
from layercache.model.layer_times import LAYER_TIME, clamped_time
from layercache.model.tree import Node, Tree

if TYPE_CHECKING:
    from layercache.model.task import Blobs, NewFile

__all__ = ["layer_from", "layer_of", "layer_of_tree"]

_Entry = tuple[bytes, "Node | None", "bytes | str | Tree | None"]
"""Path, node (None deletes), its bytes or the file or tree that has them."""


def layer_of(files: Mapping[str, NewFile], blobs: Blobs) -> Layer | None:
    """See `Blobs.layer`."""
    entries: list[_Entry] = []
    for name, value in files.items():
        path = _checked(name)
        if value is None:
            entries.append((path, None, None))
            continue
        if isinstance(value, bytes | str):
            value = (Node(mode=stat.S_IFREG | 0o644), value)
        node, content = value if isinstance(value, tuple) else (value, b"")
        if not isinstance(node, Node) or not isinstance(content, bytes | str):
            raise UsageError(
                f"blobs.layer: the value of {name!r} is {value!r}; give bytes, a Node, a "
                "pair of Node "
                "and bytes, or None for a deletion"
            )
        data = content.encode() if isinstance(content, str) else content
        entries.append((path, _whole(node, data), data))
    return _write(entries, blobs)


def layer_from(directory: str | os.PathLike[str], blobs: Blobs) -> Layer | None:
    """See `Blobs.layer_from`."""
    root = os.fsencode(os.fspath(directory))
    if not os.path.isdir(root):
        raise UsageError(f"blobs.layer_from: {os.fsdecode(root)!r} is not a directory")
    return _write(list(_found(root)), blobs)


def layer_of_tree(tree: Tree, blobs: Blobs) -> Layer | None:
    """A layer of everything in `tree`, with its owners and times; None if it is empty."""
    entries: list[_Entry] = []
    todo = [b""]
    while todo:
        here = todo.pop()
        for name in tree.children(here):
            path = here + b"/" + name if here else name
            node = tree.lookup(path)
            if node is not None and node.is_dir:
                todo.append(path)
            entries.append((path, node, tree if node is not None and node.is_file else None))
    return _write(entries, blobs)


def _found(root: bytes) -> Iterator[_Entry]:
    todo = [b""]
    while todo:
        here = todo.pop()
        with os.scandir(os.path.join(root, here)) as entries:
            for entry in entries:
                path = os.path.join(here, entry.name)
                status = entry.stat(follow_symlinks=False)
                mode, full = status.st_mode, os.path.join(root, path)
                if stat.S_ISDIR(mode):
                    todo.append(path)
                    yield path, Node(mode=mode, mtime=LAYER_TIME), None
                elif stat.S_ISLNK(mode):
                    target = os.readlink(full)
                    node = Node(mode=mode, size=len(target), link=target, mtime=LAYER_TIME)
                    yield path, node, None
                elif stat.S_ISREG(mode):
                    node = Node(mode=mode, size=status.st_size, mtime=LAYER_TIME)
                    yield path, node, os.fsdecode(full)
                elif not stat.S_ISSOCK(mode):
                    raise BuildError(
                        f"blobs.layer_from: {os.fsdecode(full)!r} is neither a file, a directory "
                        "nor a link"
                    )


def _checked(name: str) -> bytes:
    path = os.fsencode(name).strip(b"/")
    parts = path.split(b"/")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise UsageError(f"blobs.layer: {name!r} is not a path below the root")
    return path


def _whole(node: Node, data: bytes) -> Node:
    """`node` completed from its content; a mode without a type means a file."""
    mode = node.mode
    if not stat.S_IFMT(mode):
        mode |= stat.S_IFLNK if node.link else stat.S_IFREG
    time = clamped_time(node.mtime) if node.mtime else LAYER_TIME
    if not stat.S_ISREG(mode):
        return evolve(node, mode=mode, mtime=time)
    return evolve(node, mode=mode, mtime=time, size=len(data), content=blake3(data).digest())


def _write(entries: list[_Entry], blobs: Blobs) -> Layer | None:
    """The layer of these entries, in canonical order; None if there are none."""
    if not entries:
        return None
    below = {path for path, node, _ in entries if node is not None and not node.is_dir}
    descriptor, name = tempfile.mkstemp(prefix="layercache-", suffix=".tar")
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as sink:
            writer = LayerWriter(cast(BinaryIO, sink))
            for path, node, content in sorted(entries, key=_order):
                parent = path.rpartition(b"/")[0]
                while parent:
                    if parent in below:
                        raise UsageError(
                            f"{os.fsdecode(parent)!r} is a file, and {os.fsdecode(path)!r} can't "
                            "be below it"
                        )
                    parent = parent.rpartition(b"/")[0]
                if node is None:
                    writer.whiteout(path)
                elif isinstance(content, str):
                    with open(content, "rb") as source:
                        writer.add(path, node, cast(BinaryIO, source))
                elif content is None or isinstance(content, bytes):
                    writer.add(path, node, content)
                else:
                    with content.open(path) as source:
                        writer.add(path, node, source)
            diff_id, size, index = writer.finish()
        stored = blobs.add_file(name, LAYER_TAR, Digest(diff_id), size)
    finally:
        if os.path.exists(name):
            os.unlink(name)
    layer = Layer(stored, diff_id, index.tree)
    if isinstance(blobs, KeepsIndex):
        blobs.keep_index(layer, index)
    return layer


def _order(entry: _Entry) -> list[tuple[bool, bytes]]:
    """Depth first by bytes; the deletions in a directory come before its entries."""
    parts = [(True, part) for part in entry[0].split(b"/")]
    if entry[1] is None:
        parts[-1] = (False, parts[-1][1])
    return parts
