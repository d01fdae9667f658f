"""Make a directory hold exactly a tree, writing only the differences.

The directory may be in any condition and hold links that point anywhere: no link is followed, and
nothing outside is touched. Facts that are not in a tree but visible to a command are made uniform,
too: each path is a separate file, belongs to the caller, and has no other attributes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat

from layercache._os.names import checked_path
from layercache._os.xattrs import get_xattr, list_xattrs, remove_xattr, set_xattr
from layercache.errors import BuildError
from layercache.model.tree import Node, Tree
from layercache.trees.compare import Difference, differences

__all__ = ["materialize", "remove", "set_times"]

_COPY_SIZE = 1 << 20

_ATTRIBUTES = ("user.", "system.posix_acl_", "security.capability")
"""Attributes that commands set; others are the system's own labels."""


def materialize(tree: Tree, root: str, current: Tree, times: Tree | None = None) -> None:
    """Make `root` hold `tree`; `current` is its present content (a scan of it).

    Modes and times (whole seconds) are the tree's, owners the caller's; `times` is the same tree
    with other times, to be set instead. Raises `BuildError`
    with the path if the file system refuses.
    """
    base = os.fsencode(root)
    touched: set[bytes] = set()
    for change in differences(current, tree):
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
    try:
        _Settling(base, tree, tree if times is None else times).run()
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else root
        raise BuildError(f"can't restore {where!r}: {error.strerror}") from error


def _apply(base: bytes, change: Difference, tree: Tree) -> None:
    target = os.path.join(base, checked_path(change.path)) if change.path else base
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


def remove(target: str) -> None:
    """Delete `target`, whatever modes its directories have; raises `OSError`."""
    _remove(os.fsencode(target))


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


class _Settling:
    """Sets times, modes, owners and attributes of everything below `base`, directories last.

    An earlier command may have left facts that no layer holds: hard links, owners, times of
    directories. A later command must find the same state whether the earlier one ran here or was
    reused.
    """

    def __init__(self, base: bytes, tree: Tree, times: Tree) -> None:
        self._base = base
        self._tree = tree
        self._times = times
        self._seen: set[tuple[int, int]] = set()
        self._owner = (os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else None

    def run(self) -> None:
        todo: list[tuple[bytes, bool]] = [(b"", False)]
        while todo:
            path, entered = todo.pop()
            target = os.path.join(self._base, path) if path else self._base
            if entered:
                self._settle(target, path, os.lstat(target))
                continue
            todo.append((path, True))
            try:
                entries = list(os.scandir(target))
            except PermissionError:
                os.chmod(target, 0o700)
                entries = list(os.scandir(target))
            prefix = path + b"/" if path else b""
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append((prefix + entry.name, False))
                else:
                    self._settle(entry.path, prefix + entry.name, os.lstat(entry.path))

    def _settle(self, target: bytes, path: bytes, found: os.stat_result) -> None:
        node = self._times.lookup(path)
        if node is None:
            return  # it has only just appeared: a command that is still running elsewhere
        if found.st_nlink > 1 and node.is_file:
            found = self._alone(target, path, node, found)
        changed = self._give_owner(target, node, found)
        if not node.is_link and (changed or stat.S_IMODE(found.st_mode) != stat.S_IMODE(node.mode)):
            os.chmod(target, stat.S_IMODE(node.mode))
        changed |= _set_attributes(target, node)
        if changed or found.st_mtime_ns != node.mtime * 10**9:
            set_times(target, node)

    def _alone(
        self, target: bytes, path: bytes, node: Node, found: os.stat_result
    ) -> os.stat_result:
        """Make a name that shares its file with another one a separate file."""
        identity = (found.st_dev, found.st_ino)
        if identity in self._seen:
            os.unlink(target)
            _write(target, path, self._tree)
            found = os.lstat(target)
        self._seen.add(identity)
        return found

    def _give_owner(self, target: bytes, node: Node, found: os.stat_result) -> bool:
        if not self._owner or self._owner[0] or self._owner == (found.st_uid, found.st_gid):
            return False  # only root can have given something away
        os.chown(target, *self._owner, follow_symlinks=False)
        return True


def _set_attributes(target: bytes, node: Node) -> bool:
    """Give `target` exactly the attributes of its node; returns whether something changed."""
    wanted = dict(node.xattrs)
    changed = False
    try:
        for text in list_xattrs(target, follow_symlinks=False):
            name = os.fsencode(text)
            if wanted.get(name) == get_xattr(target, text, follow_symlinks=False):
                del wanted[name]
            elif text.startswith(_ATTRIBUTES):
                remove_xattr(target, text, follow_symlinks=False)
                changed = True
        for name, value in wanted.items():
            set_xattr(target, name, value, follow_symlinks=False)
            changed = True
    except OSError as error:
        # Attributes that can't be read here can't be hidden from a command either.
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA):
            raise
    return changed


def set_times(target: bytes, node: Node) -> None:
    """Give `target` the node's time (a link its own time)."""
    if os.utime in os.supports_follow_symlinks:
        os.utime(target, (node.mtime, node.mtime), follow_symlinks=False)
    elif not node.is_link:
        os.utime(target, (node.mtime, node.mtime))
