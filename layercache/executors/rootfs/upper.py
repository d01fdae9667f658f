"""The upper directory of an overlay, which commands see as the root of the overlay."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from layercache.model.layer_times import LAYER_TIME

if TYPE_CHECKING:
    from layercache.executors.rootfs.file_work import FileWork
    from layercache.model.tree import Tree

__all__ = ["make_upper", "show_root"]


def make_upper(container: str, tree: Tree, files: FileWork) -> str:
    """The upper directory of a step in `container`, with the metadata of the root directory."""
    upper = os.path.join(container, "fs")
    os.mkdir(upper)
    show_root(upper, tree, files)
    return upper


def show_root(directory: str, tree: Tree | None, files: FileWork) -> None:
    """Give a directory the mode, owner and time of the root of `tree`, or the defaults for an
    undescribed root: independent of the caller's umask and of the clock.
    """
    node = tree.lookup(b"") if tree is not None else None
    mode, time, owner = 0o755, LAYER_TIME, (0, 0)
    if node is not None:
        mode, time, owner = stat.S_IMODE(node.mode), node.mtime, (node.uid, node.gid)
    os.chmod(directory, mode)
    os.utime(directory, (time, time))
    if owner != (0, 0):
        files.give(directory, [(b"", *owner)])
