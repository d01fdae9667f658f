"""Selected files of a tree, written to a directory to mount it or to fill a cache with it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layercache._base.classes import evolve
from layercache._os.names import checked_path
from layercache.errors import BuildError
from layercache.model.selectors import Files
from layercache.model.tree import counted_attributes
from layercache.trees.order import Ordered
from layercache.trees.selection import select, walk

if TYPE_CHECKING:
    from layercache.model.tree import Node, Tree

__all__ = ["NAME", "write_selection"]

NAME = "content"
"""What a selection is called in the directory it is written to."""

_COPY_SIZE = 1 << 20


def write_selection(
    tree: Tree, files: Files, directory: str, time: int, *, attributes: bool = False
) -> list[tuple[bytes, int, int]]:
    """Write the selection of `files` in `tree` to `directory`/content, as the calling user's files.

    `time`, in seconds since 1970, is the time of everything; for a state, entries have the time
    that a step would see (`Ordered`), but not later than `time`. The root of `tree` is shown with
    mode 0755: its own mode is in no fingerprint of a selection, and neither are attributes like
    labels of the host, unless `attributes` says that they are. Returns the owners according to the
    tree: paths below `directory`, users and groups, if they are not 0:0. Raises `SourceError` for a
    missing name.
    """
    owners = []
    for selected in select(tree, files):
        base = os.fsencode(NAME)
        entries = [
            (
                os.path.join(base, relative) if relative else base,
                path,
                node if attributes else _counted(path, node),
            )
            for relative, path, node in walk(tree, selected)
        ]
        try:
            _write(tree, os.fsencode(directory), entries, time)
        except OSError as error:
            raise BuildError(f"what a mount reads can't be written: {error.strerror}") from error
        owners += [(name, n.uid, n.gid) for name, _, n in entries if n.uid or n.gid]
    return owners


def _counted(path: bytes, node: Node) -> Node:
    """The facts of a node that are in the fingerprint of a selection
    (`trees.selection.fingerprint`).
    """
    if not path:
        return evolve(node, mode=stat.S_IFDIR | 0o755, uid=0, gid=0, xattrs=())
    return evolve(node, xattrs=counted_attributes(node)) if node.xattrs else node


def _write(
    tree: Tree, root: bytes, entries: Sequence[tuple[bytes, bytes, Node]], latest: int
) -> None:
    moment = tree.moment if isinstance(tree, Ordered) else lambda _path: latest
    directories = []
    for name, path, node in entries:
        target = os.path.join(root, checked_path(name))
        if stat.S_ISSOCK(node.mode):
            continue
        if node.is_dir:
            os.mkdir(target, 0o700)
            directories.append((target, node))
            continue
        if node.is_link:
            os.symlink(node.link, target)
        elif node.is_file:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with tree.open(path) as source, os.fdopen(os.open(target, flags, 0o600), "wb") as out:
                shutil.copyfileobj(source, out, _COPY_SIZE)
        elif stat.S_ISFIFO(node.mode):
            os.mkfifo(target)
        elif os.geteuid() == 0:
            os.mknod(target, node.mode, os.makedev(*node.device))
        else:
            continue  # nobody could open it in a user namespace
        _finish(target, node, min(moment(path), latest))
    for target, node in reversed(directories):
        _finish(target, node, latest)


def _finish(target: bytes, node: Node, time: int) -> None:
    if not node.is_link:
        os.chmod(target, stat.S_IMODE(node.mode))
        for name, value in node.xattrs:
            try:
                os.setxattr(target, name, value, follow_symlinks=False)
            except PermissionError:
                if os.geteuid() == 0:
                    raise  # capabilities take root
    os.utime(target, (time, time), follow_symlinks=False)
