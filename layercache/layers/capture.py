"""A step's result on disk as a changeset: from an overlay's upper directory, or by comparison.

Both compare with the tree that the step began with, so that equal results give equal bytes: no
marker without anything to hide, no deletion of a missing entry, no entry for a directory that was
neither created nor changed, none for an unchanged file. Times become those of a layer
(`recorded_times`), and on disk those that the next step is shown. The directory must not be in
use.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Final

from layercache._base.classes import evolve, frozen
from layercache.errors import BuildError
from layercache.layers.layer_entries import LayerEntries
from layercache.layers.python_bytecode import check_by_hash, source_of
from layercache.layers.recorded_times import Times
from layercache.layers.upper_scan import (
    OPEN,
    Item,
    Scan,
    attributes_of,
    digest_of,
    remove_attributes,
)
from layercache.model.layer_times import LAYER_TIME
from layercache.model.tree import HardLinks, Node, Tree

__all__ = ["StatTable", "capture_diff", "capture_upper"]

_FOREIGN: Final = ("redirect", "metacopy")
"""Attributes by which overlayfs refers to lower content; such an upper directory is incomplete."""
_Listing = list[tuple[bytes, os.stat_result]]
_RACY: Final = 50_000_000
"""Nanoseconds within which a clock tick may hide a second change to a file."""


def capture_upper(
    upper: str | bytes | int,
    parent: Tree,
    writer: LayerEntries,
    *,
    rootless: bool = False,
    times: Times | None = None,
) -> bool:
    """Write the changes that the upper directory of an overlay mount makes to `parent`.

    `upper` is a path or an open descriptor; the overlay must be unmounted, and mode and owner of
    `upper` itself must have been those of the parent's root at the start. `rootless`: it was
    mounted in a user namespace (`userxattr`). `times` describes the times that were shown; by
    default, they were those of `parent`.

    Afterwards `upper` shows exactly the content of the layer (including times; sockets and
    attributes that no layer holds are removed) and may serve as the layer's unpacked directory,
    unless False is returned: then some times are only in the layer. Raises `BuildError` for entries
    that overlayfs moved by reference (`redirect_dir` and `metacopy` must be off) and if the file
    system refuses, `SourceError` for names that can't be in a layer.
    """
    with _trouble(), Scan(upper) as scan:
        times = times or Times(parent)
        capture = _Capture(scan, parent, writer, times, owners=True, rootless=rootless)
        capture.upper()
        return capture.faithful


def capture_diff(
    root: str | bytes | int,
    before: Tree,
    writer: LayerEntries,
    table: StatTable | None = None,
    *,
    owners: bool = False,
    times: Times | None = None,
) -> None:
    """Write the differences of the directory `root` from `before`.

    `table` was taken while `root` held `before`; files with an unchanged stat are not read.
    Without `owners` everything counts as 0:0 (the workspace of an ordinary user). Raises the errors
    of `capture_upper`.
    """
    with _trouble(), Scan(root) as scan:
        times = times or Times(before)
        _Capture(scan, before, writer, times, owners=owners).diff(table or StatTable({}, 0))


@frozen
class StatTable:
    """Path → the facts of `lstat` that show every change; `taken` in ns since 1970."""

    stats: Mapping[bytes, tuple[int, ...]]
    taken: int

    @classmethod
    def of(cls, root: str | bytes | int) -> StatTable:
        """The table of a directory in its present state."""
        stats: dict[bytes, tuple[int, ...]] = {}
        with _trouble(), Scan(root) as scan:
            for item in scan.walk():
                stats[item.path] = _identity(item.stat)
        return cls(stats, time.time_ns())

    def unchanged(self, path: bytes, now: os.stat_result) -> bool:
        """Whether `path` is provably unchanged."""
        known = self.stats.get(path)
        # A change within the tick of the table's own time would leave no trace.
        return known == _identity(now) and now.st_ctime_ns < self.taken - _RACY


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_mode,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_uid,
        found.st_gid,
        found.st_nlink,
        found.st_rdev,
    )


# -- comparing --------------------------------------------------------------------------------


class _Capture:
    def __init__(
        self,
        scan: Scan,
        before: Tree,
        writer: LayerEntries,
        times: Times,
        *,
        owners: bool,
        rootless: bool = False,
    ) -> None:
        self._scan = scan
        self._times = times
        self._before = before
        self._writer = writer
        self._owners = owners
        self._rootless = rootless
        self._links: dict[tuple[int, int], tuple[bytes, Node]] = {}
        self.faithful = True
        """Whether what is on disk has the times that the layer says."""

    def _node(self, item: Item) -> tuple[Node, Mapping[str, bytes]]:
        """The node of an item except for its content and time; attributes of overlayfs are left
        out.
        """
        found = item.stat
        attributes = attributes_of(item, rootless=self._rootless)
        remove_attributes(item, attributes.fleeting)
        if any(name in attributes.overlay for name in _FOREIGN):
            raise BuildError(
                f"overlayfs kept {os.fsdecode(item.path)!r} by reference to a lower layer: mount "
                "with redirect_dir=off and metacopy=off"
            )
        kind = stat.S_IFMT(found.st_mode)
        device = (0, 0)
        link = b""
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        elif kind == stat.S_IFLNK:
            link = os.readlink(item.name, dir_fd=item.directory)
        node = Node(
            mode=found.st_mode,
            uid=found.st_uid if self._owners else 0,
            gid=found.st_gid if self._owners else 0,
            size=found.st_size if kind == stat.S_IFREG else 0,
            link=link,
            device=device,
            xattrs=attributes.kept,
        )
        return node, attributes.overlay

    def _timed(self, item: Item, node: Node, base: Node | None) -> tuple[Node, int]:
        """The node with its time in the layer, and the time that it must have on disk."""
        found = item.stat.st_mtime_ns
        code = self._times.code(item.path, base, found)
        content = None
        if node.is_file:
            content = digest_of(item) if code else node.content
        shown = self._times.shown(code, found)
        if shown is None:
            self.faithful = False
            shown = found
        mtime = self._times.recorded(code, found, content)
        timed = Node(
            node.mode, node.uid, node.gid, node.size, mtime,
            node.content, node.link, node.device, node.xattrs,
        )  # fmt: skip
        return timed, shown

    def _touched(self, item: Item, base: Node, *, alone: bool) -> bool:
        """Whether a command set the time of a directory, rather than changing its entries.

        A time in the past was set. The present time counts if nothing in the directory changed
        (`alone`): otherwise it only shows that something did.
        """
        if self._times.as_new(item.path, base, item.stat.st_mtime_ns):
            return False
        return alone or item.stat.st_mtime < LAYER_TIME

    def _settle(self, item: Item, time: int, *, touched: bool = False) -> None:
        """Set the time of an entry on disk, in ns."""
        if not touched and item.stat.st_mtime_ns == time:
            return
        if item.opened is not None:
            os.utime(item.opened, ns=(time,) * 2)
        else:
            os.utime(item.name, ns=(time,) * 2, dir_fd=item.directory, follow_symlinks=False)

    # -- an overlay's upper directory -------------------------------------------------------

    def upper(self) -> None:
        """See `capture_upper`."""
        # For every open directory: whether the entries of `before` show through.
        shows: list[bool] = []
        self._listings: list[_Listing] = []
        self._beside: tuple[_Listing, dict[bytes, os.stat_result]] = ([], {})
        self._enter_upper(self._scan.root, shows, visible=True)
        while self._scan.open:
            item = self._scan.next()
            if item is None:
                shows.pop()
                self._listings.pop()
            elif stat.S_ISDIR(item.stat.st_mode):
                self._enter_upper(item, shows, visible=shows[-1])
            elif not _is_whiteout(item.stat):
                if not self._times.keep_bytecode:
                    self._settle_bytecode(item)
                self._leaf(item, self._lookup(item.path) if shows[-1] else None)

    def _settle_bytecode(self, item: Item) -> None:
        """See `python_bytecode`. A file with another name elsewhere is left alone."""
        found = item.stat
        if not item.name.endswith(b".pyc") or found.st_nlink > 1 or not stat.S_ISREG(found.st_mode):
            return
        source = source_of(item.path)
        if source is not None and len(self._listings) > 1:
            listing = self._listings[-2]
            if self._beside[0] is not listing:
                self._beside = listing, dict(listing)
            check_by_hash(item.name, item.directory, source, self._beside[1])

    def _lookup(self, path: bytes) -> Node | None:
        return self._before.lookup(path)

    def _enter_upper(self, item: Item, shows: list[bool], *, visible: bool) -> None:
        node, overlay = self._node(item)
        path = item.path
        base = self._lookup(path) if visible else None
        merges = base is not None and base.is_dir
        # Overlayfs marks every new directory; the mark counts only where it hides something.
        hides = bool(merges and overlay.get("opaque") == b"y" and self._before.children(path))
        merges = merges and not hides
        if not path:
            same = base is None or _same_directory(base, node)
        else:
            same = merges and base is not None and _same_directory(base, node)
        names = self._scan.enter(item)
        if same and base is not None and path and self._touched(item, base, alone=not names):
            same = False
        node, time = self._timed(item, node, base)
        if hides or not same:
            self._writer.add(path, node)
        elif base is not None:
            # A directory that only holds changes has no entry of its own: it keeps its time.
            time = base.mtime * 10**9
        if hides:
            self._writer.opaque(path)
        shows.append(merges)
        self._listings.append(names)
        touched = False
        for name, found in names:
            if _is_whiteout(found) or stat.S_ISSOCK(found.st_mode):
                child = path + b"/" + name if path else name
                touched |= self._hidden_name(child, name, found, merges)
        self._settle(item, time, touched=touched)

    def _hidden_name(self, path: bytes, name: bytes, found: os.stat_result, visible: bool) -> bool:
        """Record a deletion, or a socket, which no layer can hold: it deletes the entry it
        replaced.

        Returns whether the directory on disk was changed.
        """
        directory = self._scan.descriptor
        if visible and self._lookup(path) is not None:
            self._writer.whiteout(path)
            if not stat.S_ISSOCK(found.st_mode):
                return False
            os.unlink(name, dir_fd=directory)
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
        return True

    def _leaf(self, item: Item, base: Node | None) -> None:
        """Anything but a directory; nothing is written if it is unchanged."""
        kind = stat.S_IFMT(item.stat.st_mode)
        if kind == stat.S_IFSOCK:
            return
        if kind != stat.S_IFREG:
            self._record(item, base)
            return
        # Once open, what follows needs no look-up of its name.
        descriptor = os.open(item.name, OPEN, dir_fd=item.directory)
        try:
            self._record(Item(item.path, item.name, item.directory, item.stat, descriptor), base)
        finally:
            os.close(descriptor)

    def _record(self, item: Item, base: Node | None) -> None:
        node, _ = self._node(item)
        identity = (item.stat.st_dev, item.stat.st_ino)
        linked = item.stat.st_nlink > 1
        if linked and identity in self._links:
            first, of_first = self._links[identity]
            self._writer.add(item.path, of_first, hardlink=first)
            return
        if (
            not linked
            and base is not None
            and not self._had_names(item.path)
            and self._times.same(item.path, base, item.stat.st_mtime_ns)
            and _same_but_content(base, node)
            and (not node.is_file or digest_of(item) == base.content)
        ):
            self._settle(item, base.mtime * 10**9)
            return
        node, time = self._timed(item, node, base)
        if linked:
            self._links[identity] = item.path, node
        self._writer.add(item.path, node, item.opened)
        self._settle(item, time)

    def _had_names(self, path: bytes) -> bool:
        """Whether the entry at `path` had another name: alone now, it is another file."""
        before = self._before
        return isinstance(before, HardLinks) and before.inode(path) is not None

    # -- a plain directory ------------------------------------------------------------------

    def diff(self, table: StatTable) -> None:
        """See `capture_diff`."""
        self._enter_plain(self._scan.root)
        while self._scan.open:
            item = self._scan.next()
            if item is None or stat.S_ISSOCK(item.stat.st_mode):
                continue
            if stat.S_ISDIR(item.stat.st_mode):
                self._enter_plain(item)
            elif not table.unchanged(item.path, item.stat):
                self._leaf(item, self._lookup(item.path))

    def _enter_plain(self, item: Item) -> None:
        node, _ = self._node(item)
        path = item.path
        base = self._lookup(path)
        merges = base is not None and base.is_dir
        same = not path or (merges and base is not None and _same_directory(base, node))
        if same and base is not None and path and self._touched(item, base, alone=False):
            same = False
        node, time = self._timed(item, node, base)
        if not same:
            self._writer.add(path, node)
        elif base is not None:
            time = base.mtime * 10**9
        names = self._scan.enter(item)
        if merges:
            present = {name for name, found in names if not stat.S_ISSOCK(found.st_mode)}
            for name in self._before.children(path):
                if name not in present:
                    self._writer.whiteout(path + b"/" + name if path else name)
        self._settle(item, time)


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _same_directory(base: Node, node: Node) -> bool:
    return (base.mode, base.uid, base.gid, base.xattrs) == (
        node.mode,
        node.uid,
        node.gid,
        node.xattrs,
    )


def _same_but_content(base: Node, node: Node) -> bool:
    size = 0 if base.is_link else base.size
    return evolve(base, content=b"", mtime=0, size=size) == node


@contextlib.contextmanager
def _trouble() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"can't read the files that a step left: {error.strerror} ({error.filename!r})"
        ) from error
