"""Layers and states to disk: unpacked for overlayfs, applied to a directory, or exported.

No function follows a link or leaves the root directory (`write_beneath`). The content is read from
the uncompressed tar by offset, after an index was made of it, so the archive was checked before
the first byte is written. Nothing is synced: the caller does that once for many layers.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from layercache._base.classes import evolve
from layercache.errors import BuildError, CorruptObject, UsageError
from layercache.layers.state_tree import IMPLIED_DIRECTORY, StateTree
from layercache.layers.write_beneath import Fill, WriteBeneath
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import Entry, LayerIndex, sort_key
from layercache.model.tree import Node, Tree

__all__ = ["apply", "export_tree", "merged_tar", "unpack"]

CHUNK: Final = 256 * 1024
_SMALL: Final = 64 * 1024
_NOT_SUPPORTED: Final = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def unpack(
    index: LayerIndex,
    blob: BinaryIO,
    root: str | bytes | int,
    *,
    state: Tree | None = None,
    rootless: bool = False,
) -> None:
    """Unpack a layer into the empty directory `root`, in the form of a lower directory of
    overlayfs.

    Deletions become 0:0 character devices, opaque directories `trusted.overlay.opaque` (or
    `user.overlay.opaque` if `rootless`, which also leaves owners alone). `state` is the state
    that ends with this layer: it supplies the metadata of directories for which the layer has no
    entry of its own, since overlayfs takes them from the topmost directory.

    `blob` is the layer's uncompressed tar, verified. Raises `BuildError` if the file system
    refuses, `CorruptObject` if the tar is shorter than its index; `root` is then unusable.
    """
    below = state.below if isinstance(state, StateTree) else None
    marker = "user.overlay.opaque" if rootless else "trusted.overlay.opaque"
    hidden = b""
    with WriteBeneath(root, owners=not rootless) as out, _Source(blob, index) as source:
        names = _Names(index)
        clear_root = _is_opaque(index, b"")
        if clear_root and below is None:
            raise BuildError("a layer that clears its root needs the state it is on")
        for entry in index:
            path, node = entry.path, entry.node
            if node is None and not entry.implied:
                # Where nothing is to be hidden, overlayfs would list the marker itself.
                inside = hidden and path.startswith(hidden)
                if not inside and (below is None or below.lookup(path) is not None):
                    out.whiteout(path)
                continue
            if node is not None and not node.is_dir:
                _write(out, entry, node, names, source)
                continue
            if node is None:
                found = state.lookup(path) if state is not None else None
                node = found if found is not None and found.is_dir else IMPLIED_DIRECTORY
            out.make(path, node)
            if not path and clear_root and below is not None:
                # Overlayfs knows no opaque root: everything that is there is hidden by name.
                for name in below.children(b""):
                    if index.row(name) is None:
                        out.whiteout(name)
            elif entry.opaque or (clear_root and b"/" not in path and path):
                out.mark(path, marker, b"y")
                if not (hidden and path.startswith(hidden)):
                    hidden = path + b"/"


def _is_opaque(index: LayerIndex, path: bytes) -> bool:
    entry = index.get(path)
    return entry is not None and entry.opaque


def apply(
    index: LayerIndex,
    blob: BinaryIO,
    root: str | bytes | int,
    *,
    rootless: bool = False,
    aside: str | None = None,
) -> None:
    """Apply a layer to the directory `root`, which holds the state below it.

    Deletions of the layer are carried out, its entries replace existing ones, directories merge.
    The requirements for `blob` and the errors are those of `unpack`.

    With `aside`, an existing directory beside `root`, files keep the number of their names even if
    some are removed, as in an overlay of the layers.
    """
    with (
        WriteBeneath(root, owners=not rootless, aside=aside) as out,
        _Source(blob, index) as source,
    ):
        names = _Names(index)
        for entry in index:
            path, node = entry.path, entry.node
            if node is None and not entry.implied:
                out.remove(path)
                continue
            kind = out.kind(path)
            if entry.implied or (node is not None and node.is_dir):
                if kind is not None and kind != stat.S_IFDIR:
                    out.remove(path)
                    kind = None
                if kind is None:
                    out.make(path, node or IMPLIED_DIRECTORY)
                    continue
                if node is None:
                    out.keep_time(path)
                else:
                    out.describe(path, node)
                if entry.opaque:
                    out.empty(path)
                continue
            if kind is not None:
                out.remove(path)
            _write(out, entry, cast(Node, node), names, source)


def export_tree(
    tree: Tree,
    directory: str | bytes | int,
    *,
    owners: bool = False,
    epoch: int | None = None,
    spare: bool = False,
) -> tuple[bytes, ...]:
    """Write all of `tree` into a directory, over existing entries; nothing else is deleted.

    Devices are not created, because a device in a host directory would open the real device; their
    paths are returned.

    Files belong to the calling user unless `owners` is set; times are clamped to `epoch`, in
    seconds, if it is given. With `spare`, a non-empty directory is never replaced by anything else:
    `UsageError`. Raises `BuildError` if the file system refuses, and the errors of reading `tree`.
    """
    links: dict[object, bytes] = {}
    devices: list[bytes] = []
    with WriteBeneath(directory, owners=owners) as out:
        for path, node in _walk(tree, epoch):
            if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
                devices.append(path)
                continue
            kind = out.kind(path)
            if kind is not None and not (node.is_dir and kind == stat.S_IFDIR):
                if spare and kind == stat.S_IFDIR and not out.is_empty(path):
                    raise UsageError(
                        f"can't write {os.fsdecode(path)!r}: a directory with files is in its "
                        "place; empty the output directory first"
                    )
                out.remove(path)
                kind = None
            if node.is_dir:
                if not path:
                    continue
                if kind is None:
                    out.make(path, node)
                else:
                    out.describe(path, node)
                continue
            inode = _inode(tree, path)
            if inode is not None:
                first = links.setdefault(inode, path)
                if first is not path and out.link(path, first):
                    continue
            if node.is_file:
                out.file(path, node, _fill_from(tree, path) if node.size else None)
            else:
                out.other(path, node)
    return tuple(devices)


def merged_tar(tree: Tree, sink: BinaryIO, epoch: int | None = None) -> None:
    """Write all of `tree` as one flat archive, in the form of a layer; the root has no entry.

    Times are clamped to `epoch`, in seconds, if it is given.
    """
    links: dict[object, bytes] = {}
    writer = LayerWriter(sink)
    for path, node in _walk(tree, epoch):
        if not path:
            continue
        inode = _inode(tree, path)
        first = path if inode is None else links.setdefault(inode, path)
        if first is not path:
            writer.add(path, node, hardlink=first)
        elif node.is_file:
            with tree.open(path) as content:
                writer.add(path, node, content)
        else:
            writer.add(path, node)
    writer.finish()


def _walk(tree: Tree, epoch: int | None = None) -> Iterator[tuple[bytes, Node]]:
    """All entries of a tree, depth first, siblings by their bytes, no time after `epoch`."""
    todo = [b""]
    while todo:
        path = todo.pop()
        node = tree.lookup(path)
        if node is None:
            continue
        if epoch is not None and node.mtime > epoch:
            node = evolve(node, mtime=epoch)
        yield path, node
        if node.is_dir:
            prefix = path + b"/" if path else b""
            todo += [prefix + name for name in reversed(tree.children(path))]


def _inode(tree: Tree, path: bytes) -> object | None:
    return tree.inode(path) if isinstance(tree, StateTree) else None


def _fill_from(tree: Tree, path: bytes) -> Fill:
    def fill(descriptor: int) -> None:
        with tree.open(path) as content:
            while chunk := content.read(CHUNK):
                _write_all(descriptor, chunk)

    return fill


class _Names:
    """The paths of a layer that name the same file, and which of them was created first."""

    def __init__(self, index: LayerIndex) -> None:
        self._targets = index.link_targets
        self._first: dict[bytes, bytes] = {}

    def first(self, entry: Entry) -> bytes | None:
        """The name created earlier for the same file; None (and recorded) if this is the first."""
        target = entry.hardlink if entry.hardlink is not None else entry.path
        if entry.hardlink is None and target not in self._targets:
            return None
        first = self._first.setdefault(target, entry.path)
        return None if first is entry.path else first


def _write(out: WriteBeneath, entry: Entry, node: Node, names: _Names, source: _Source) -> None:
    first = names.first(entry)
    if first is not None and out.link(entry.path, first):
        return
    if node.is_file:
        fill = source.fill(entry.offset, node.size, entry.path) if node.size else None
        out.file(entry.path, node, fill)
    else:
        out.other(entry.path, node)


class _Source:
    """Pieces of an uncompressed tar, copied to descriptors.

    A plain file is read by offset, by the kernel alone if possible. Any other stream is read once,
    forward and to its end, so that a self-verifying stream reaches its check; it goes through an
    unnamed file if the index wants pieces in another order.
    """

    def __init__(self, blob: BinaryIO, index: LayerIndex) -> None:
        self._blob = blob
        self._spool: BinaryIO | None = None
        self._descriptor = -1
        self._position = 0
        self._in_kernel = True
        self._window = memoryview(bytearray(CHUNK))
        self._window_at = self._window_size = 0
        try:
            descriptor = blob.fileno()
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and not _wraps(blob):
                self._descriptor = descriptor
        except OSError:
            pass
        if self._descriptor < 0 and not _ascending(index):
            self._spool = _spooled(blob)
            self._descriptor = self._spool.fileno()

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._spool is not None:
            self._spool.close()
        elif self._descriptor < 0 and kind is None:
            while self._blob.read(CHUNK):
                pass

    def fill(self, offset: int, size: int, path: bytes) -> Fill:
        """A function that writes `size` bytes from `offset` on to a descriptor."""
        if self._descriptor < 0:
            return lambda to: self._stream(to, offset, size, path)
        if size > _SMALL:
            return lambda to: self._copy(to, offset, size, path)
        return lambda to: _write_all(to, self._small(offset, size, path))

    def _small(self, offset: int, size: int, path: bytes) -> memoryview:
        """A small piece, valid until the next call: one read serves many adjacent pieces."""
        at = offset - self._window_at
        if at < 0 or at + size > self._window_size:
            self._window_size = os.preadv(self._descriptor, [self._window], offset)
            self._window_at, at = offset, 0
            if size > self._window_size:
                raise _cut(path)
        return self._window[at : at + size]

    def _stream(self, descriptor: int, offset: int, size: int, path: bytes) -> None:
        while self._position < offset + size:
            skip = self._position < offset
            end = offset if skip else offset + size
            data = self._blob.read(min(end - self._position, CHUNK))
            if not data:
                raise _cut(path)
            self._position += len(data)
            if not skip:
                _write_all(descriptor, data)

    def _copy(self, descriptor: int, offset: int, size: int, path: bytes) -> None:
        while size and self._in_kernel:
            if sys.platform != "linux":
                break
            try:
                count = os.copy_file_range(self._descriptor, descriptor, size, offset)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
                self._in_kernel = False
                break
            if not count:
                raise _cut(path)
            offset += count
            size -= count
        while size:
            data = os.pread(self._descriptor, min(size, CHUNK), offset)
            if not data:
                raise _cut(path)
            _write_all(descriptor, data)
            offset += len(data)
            size -= len(data)


def _ascending(index: LayerIndex) -> bool:
    """Whether the files of a layer are written in the order of its tar."""
    last = 0
    for row in range(len(index)):
        if stat.S_ISREG(index.mode(row)):
            target = index.hardlinks.get(row)
            if target is not None and sort_key(target) < sort_key(index.paths[row]):
                continue  # written before under another name
            offset, size = index.content(row)
            if size and offset < last:
                return False
            last = max(last, offset)
    return True


def _wraps(blob: BinaryIO) -> bool:
    """Whether a stream's descriptor may hold bytes other than those of the stream."""
    import io

    raw = getattr(blob, "raw", blob)
    return not isinstance(raw, io.FileIO)


def _spooled(blob: BinaryIO) -> BinaryIO:
    import tempfile

    spool = tempfile.TemporaryFile(prefix="layercache-")  # noqa: SIM115 - closed by its owner
    try:
        while chunk := blob.read(CHUNK):
            spool.write(chunk)
        spool.flush()
    except OSError as error:
        spool.close()
        raise BuildError(f"can't unpack a layer: {error.strerror}") from error
    except BaseException:
        spool.close()
        raise
    return cast(BinaryIO, spool)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    count = os.write(descriptor, data)
    while count < len(data):
        count += os.write(descriptor, memoryview(data)[count:])


def _cut(path: bytes) -> CorruptObject:
    return CorruptObject(f"a layer ends within {os.fsdecode(path)!r}; it will be made again")
