"""Selected files of a tree, written out as a directory to mount or to fill a cache with."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layercache.errors import BuildError
from layercache.layers.times import LAYER_TIME, copied_time
from layercache.selections import Files, select, walk

if TYPE_CHECKING:
    from layercache.trees import Node, Tree

__all__ = ["NAME", "write_selection"]

NAME = "content"
"""What a selection is called in the directory it is written to."""

_COPY_SIZE = 1 << 20


def write_selection(tree: Tree, files: Files, directory: str, *, owned: bool) -> None:
    """Write what `files` names in `tree` to `directory`/content.

    Times are those that COPY gives; owners are the tree's when `owned`, else 0:0, and are left
    alone where this process may not set them. Raises `SourceError` when it isn't there.
    """
    for selected in select(tree, files):
        base = os.path.join(os.fsencode(directory), os.fsencode(NAME))
        entries = (
            (os.path.join(base, relative) if relative else base, path, node)
            for relative, path, node in walk(tree, selected)
        )
        try:
            _write(tree, entries, owned=owned and os.geteuid() == 0)
        except OSError as error:
            raise BuildError(f"what a mount reads can't be written: {error.strerror}") from error


def _write(tree: Tree, entries: Iterable[tuple[bytes, bytes, Node]], *, owned: bool) -> None:
    directories = []
    for target, path, node in entries:
        if stat.S_ISSOCK(node.mode):
            continue
        if node.is_dir:
            os.mkdir(target, 0o700)
            directories.append((target, node))
            continue
        time = LAYER_TIME
        if node.is_link:
            os.symlink(node.link, target)
        elif node.is_file:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with tree.open(path) as source, os.fdopen(os.open(target, flags, 0o600), "wb") as out:
                shutil.copyfileobj(source, out, _COPY_SIZE)
            time = copied_time(node.content)
        elif stat.S_ISFIFO(node.mode):
            os.mkfifo(target)
        else:
            os.mknod(target, node.mode, os.makedev(*node.device))
        _finish(target, node, time, owned)
    for target, node in reversed(directories):
        _finish(target, node, LAYER_TIME, owned)


def _finish(target: bytes, node: Node, time: int, owned: bool) -> None:
    if owned and (node.uid or node.gid):
        os.chown(target, node.uid, node.gid, follow_symlinks=False)
    if not node.is_link:
        os.chmod(target, stat.S_IMODE(node.mode))
        for name, value in node.xattrs:
            os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, (time, time), follow_symlinks=False)
