"""The root file system of an image, flat: as one tar, or as a directory."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

import attrs

from layercache.errors import SourceError, UsageError
from layercache.trees import Node, Tree
from layercache.xattrs import set_xattr

__all__ = ["walk_tree", "write_directory", "write_tar"]

_COPY_SIZE: Final = 1 << 20


def walk_tree(tree: Tree) -> Iterator[tuple[bytes, Node]]:
    """Every path of `tree` but its root, depth first, siblings sorted by their bytes."""
    pending = [iter(tree.children(b""))]
    parents = [b""]
    while pending:
        name = next(pending[-1], None)
        if name is None:
            pending.pop()
            parents.pop()
            continue
        path = parents[-1] + b"/" + name if parents[-1] else name
        node = tree.lookup(path)
        if node is None:
            raise SourceError(f"{os.fsdecode(path)!r} disappeared while it was being written")
        yield path, node
        if node.is_dir:
            pending.append(iter(tree.children(path)))
            parents.append(path)


def write_tar(tree: Tree, out: BinaryIO, epoch: int | None = None) -> None:
    """`tree` as a tar in one fixed form, times clamped to `epoch` where that is given."""
    from layercache.layers.tar import LayerWriter

    writer = LayerWriter(out)
    for path, node in walk_tree(tree):
        node = _clamped(node, epoch)
        if node.is_file:
            with tree.open(path) as content:
                writer.add(path, node, content)
        else:
            writer.add(path, node)
    writer.finish()


def _clamped(node: Node, epoch: int | None) -> Node:
    if epoch is None or node.mtime <= epoch:
        return node
    return attrs.evolve(node, mtime=epoch)


def write_directory(tree: Tree, path: str, epoch: int | None = None) -> None:
    """`tree` into the directory `path`; files of other names that are there stay.

    Nothing is followed: what stands in the way of an entry (a link, a file) is replaced, a
    directory that stands in the way of something else only when empty. Owners are set when
    this process may; devices are left to a process that may make them.
    """
    os.makedirs(path, exist_ok=True)
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # One descriptor for each level of the path at hand: nothing is looked up twice.
    levels: list[tuple[bytes, int]] = [(b"", root)]
    finishing: list[Node | None] = [None]
    try:
        for entry, node in walk_tree(tree):
            parent, _, name = entry.rpartition(b"/")
            while levels[-1][0] != parent:
                _leave(levels, finishing)
            node = _clamped(node, epoch)
            where = levels[-1][1]
            if node.is_dir:
                levels.append((entry, _directory(where, name)))
                finishing.append(node)
            else:
                _place(tree, entry, where, name, node)
        while len(levels) > 1:
            _leave(levels, finishing)
    finally:
        for _, descriptor in levels:
            os.close(descriptor)


def _leave(levels: list[tuple[bytes, int]], finishing: list[Node | None]) -> None:
    _, descriptor = levels.pop()
    node = finishing.pop()
    try:
        if node is not None:
            _owned(descriptor, node)
            os.fchmod(descriptor, stat.S_IMODE(node.mode))
            os.utime(descriptor, ns=(node.mtime * 10**9,) * 2)
    finally:
        os.close(descriptor)


def _directory(where: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.mkdir(name, 0o700, dir_fd=where)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=where).st_mode):
            os.unlink(name, dir_fd=where)
            os.mkdir(name, 0o700, dir_fd=where)
    descriptor = os.open(name, flags, dir_fd=where)
    os.fchmod(descriptor, 0o700)
    return descriptor


def _place(tree: Tree, entry: bytes, where: int, name: bytes, node: Node) -> None:
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=where).st_mode):
            os.rmdir(name, dir_fd=where)
        else:
            os.unlink(name, dir_fd=where)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(
            f"a directory with files is where {os.fsdecode(entry)!r} should be written; "
            "empty the output directory first"
        ) from error
    if node.is_file:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            tree.open(entry) as content,
            open(os.open(name, flags, 0o600, dir_fd=where), "wb") as out,
        ):
            shutil.copyfileobj(content, out, _COPY_SIZE)
            out.flush()
            _owned(out.fileno(), node)
            os.fchmod(out.fileno(), stat.S_IMODE(node.mode))
            os.utime(out.fileno(), ns=(node.mtime * 10**9,) * 2)
        return
    if node.is_link:
        os.symlink(node.link, name, dir_fd=where)
    elif stat.S_ISFIFO(node.mode):
        os.mkfifo(name, 0o600, dir_fd=where)
    else:
        os.mknod(name, stat.S_IFMT(node.mode) | 0o600, os.makedev(*node.device), dir_fd=where)
    if os.geteuid() == 0:
        os.chown(name, node.uid, node.gid, dir_fd=where, follow_symlinks=False)
    if not node.is_link:
        os.chmod(name, stat.S_IMODE(node.mode), dir_fd=where)
    os.utime(name, ns=(node.mtime * 10**9,) * 2, dir_fd=where, follow_symlinks=False)


def _owned(descriptor: int, node: Node) -> None:
    """Owner and attributes of what is open; what only root may set is left out for others."""
    root = os.geteuid() == 0
    if root:
        os.fchown(descriptor, node.uid, node.gid)
    for key, value in node.xattrs:
        if root or key.startswith(b"user."):
            set_xattr(descriptor, key, value)
