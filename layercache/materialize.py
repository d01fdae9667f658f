"""Make a directory hold exactly a tree, writing only what differs.

The directory may be in any condition and hold links that point anywhere: nothing is followed,
and nothing outside is touched.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable

from layercache.differences import Difference, differences
from layercache.errors import BuildError
from layercache.trees import Node, Tree

__all__ = ["materialize", "set_times"]

_COPY_SIZE = 1 << 20


def materialize(tree: Tree, root: str, current: Tree) -> None:
    """Make `root` hold `tree`; `current` is what it holds now (a scan of it).

    Owners are left alone; modes and times (whole seconds) are set. Raises `BuildError` with the
    path when the file system refuses.
    """
    base = os.fsencode(root)
    touched: set[bytes] = set()
    changes = list(differences(current, tree))
    for change in changes:
        parent = change.path.rpartition(b"/")[0]
        try:
            if parent and parent not in touched:
                os.chmod(os.path.join(base, parent), 0o700)
            touched.add(parent)
            _apply(base, change, tree)
        except OSError as error:
            raise BuildError(
                f"can't restore {os.fsdecode(change.path)!r} below {root!r}: {error.strerror}"
            ) from error
    _finish_directories(base, tree, changes, touched)


def _apply(base: bytes, change: Difference, tree: Tree) -> None:
    target = os.path.join(base, change.path)
    new = change.new
    if change.old is not None and not (new is not None and new.is_dir and change.old.is_dir):
        _remove(target)
    if new is None:
        return
    if new.is_dir:
        if change.old is None or not change.old.is_dir:
            os.mkdir(target, 0o700)
        return
    if new.is_link:
        os.symlink(new.link, target)
    elif new.is_file:
        _write(target, change.path, tree)
        os.chmod(target, stat.S_IMODE(new.mode))
    elif stat.S_ISFIFO(new.mode):
        os.mkfifo(target, stat.S_IMODE(new.mode))
    else:
        raise BuildError(
            f"{os.fsdecode(change.path)!r} is a device: a plain directory can't hold it"
        )
    set_times(target, new)


def _write(target: bytes, path: bytes, tree: Tree) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0)
    with tree.open(path) as content, os.fdopen(os.open(target, flags, 0o600), "wb") as out:
        shutil.copyfileobj(content, out, _COPY_SIZE)


def _remove(target: bytes) -> None:
    if stat.S_ISDIR(os.lstat(target).st_mode):
        _make_removable(target)
        shutil.rmtree(target)
    else:
        os.unlink(target)


def _make_removable(directory: bytes) -> None:
    # A step may have left directories without write permission; their owner may still clear them.
    for path, names, _ in os.walk(directory):
        for name in names:
            child = os.path.join(path, name)
            if not os.path.islink(child):
                os.chmod(child, 0o700)
    os.chmod(directory, 0o700)


def _finish_directories(
    base: bytes, tree: Tree, changes: Iterable[Difference], touched: set[bytes]
) -> None:
    """Modes and times of directories last: writing into them needs one and moves the other."""
    wanted = touched | {c.path for c in changes if c.new is not None and c.new.is_dir}
    for path in sorted(wanted - {b""}, reverse=True):
        node = tree.lookup(path)
        if node is not None and node.is_dir:
            target = os.path.join(base, path)
            os.chmod(target, stat.S_IMODE(node.mode))
            set_times(target, node)


def set_times(target: bytes, node: Node) -> None:
    """Give `target` the node's time, of a link its own."""
    if os.utime in os.supports_follow_symlinks:
        os.utime(target, (node.mtime, node.mtime), follow_symlinks=False)
    elif not node.is_link:
        os.utime(target, (node.mtime, node.mtime))
