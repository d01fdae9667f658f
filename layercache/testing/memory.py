"""A state's files in memory, changed by a step, and the layer of the changes.

One class for both: what a change does to the files decides what of it the layer has.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable
from typing import cast

import attrs
from blake3 import blake3

from layercache._base.classes import evolve, frozen
from layercache.errors import BuildError
from layercache.layers.follow_links import Resolved, resolve
from layercache.layers.writer import LayerWriter
from layercache.model.descriptors import LAYER_TAR, Layer
from layercache.model.layer_index import KeepsIndex, sort_key
from layercache.model.layer_times import LAYER_TIME, code_of, copied_time
from layercache.model.observations import (
    ABSENT,
    ATTRIBUTES,
    FOUND,
    LINK,
    LISTING,
    METADATA,
    SIZE,
    WHOLE,
    Observations,
)
from layercache.model.task import Blobs
from layercache.model.tree import Node, Tree

__all__ = ["MemoryEntry", "MemoryFiles", "NotPermitted", "snapshot"]

_LOOK = FOUND | METADATA | SIZE | LINK | ATTRIBUTES
_FILE = stat.S_IFREG | 0o644
_DIRECTORY = stat.S_IFDIR | 0o755
_LINK = stat.S_IFLNK | 0o777
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}


class NotPermitted(BuildError):
    """A command requested an impossible file operation; the message gives the reason."""


@frozen
class MemoryEntry:
    """One path of a snapshot: all facts about it that a build may determine.

    `content` is a file's bytes or a link's target; `mode` the permission bits; `mtime` seconds
    since 1970, 0 for directories (which a layer need not mention).
    """

    type: str
    mode: int
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    mtime: int = 0


def snapshot(tree: Tree) -> dict[str, MemoryEntry]:
    """Every path of `tree` but its root, with its entry, to compare whole trees."""
    found = {}
    for path, node in _nodes(tree):
        content = node.link
        if node.is_file:
            with tree.open(path) as source:
                content = source.read()
        found[path.decode("utf-8", "surrogateescape")] = MemoryEntry(
            _KINDS.get(stat.S_IFMT(node.mode), "other"),
            node.mode & 0o7777,
            node.uid,
            node.gid,
            content,
            0 if node.is_dir else node.mtime,
        )
    return found


def _nodes(tree: Tree, top: bytes = b"") -> Iterable[tuple[bytes, Node]]:
    todo = [_join(top, name) for name in reversed(tree.children(top))]
    while todo:
        path = todo.pop()
        node = tree.lookup(path)
        if node is not None:
            yield path, node
            todo += [_join(path, name) for name in reversed(tree.children(path))]


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


class MemoryFiles:
    """A tree that one step changes; as a `Tree` it supports `lookup`, `children` and `open`.

    Paths are absolute or relative to the root; links in them are followed inside it. New files are
    root's unless `owner` is set, and have the time that layers give to files of commands. Raises
    `NotPermitted` for operations that a file system would refuse. Reads of the initial state are
    recorded: `observed`.
    """

    def __init__(self, base: Tree, owner: tuple[int, int] = (0, 0)) -> None:
        self.owner = owner
        self._base = base
        self._before = {b"": Node(mode=_DIRECTORY), **dict(_nodes(base))}
        self._nodes = dict(self._before)
        self._data: dict[bytes, bytes] = {}
        self._elsewhere: dict[bytes, tuple[Tree, bytes]] = {}
        self._mounts: dict[bytes, bool] = {}
        self._uncounted: set[bytes] = set()
        self._covered: dict[bytes, Node] = {}
        self._stubs: set[bytes] = set()
        self._seen: dict[bytes, int] = {}
        self._own: set[bytes] = set()
        self._all_seen = False

    # -- observations -----------------------------------------------------------------------

    @property
    def observed(self) -> Observations | None:
        """All facts of the initial state that the layer depends on; None if that is everything."""
        return None if self._all_seen else Observations.of(self._seen)

    def _note(self, path: bytes, bits: int) -> None:
        """Record a read of `path`, unless this step itself wrote or removed the entry."""
        if path in self._own or self._mount_of(path) is not None:
            return
        if path not in self._before:
            bits = ABSENT
        self._seen[path] = self._seen.get(path, 0) | bits

    def _note_all(self, path: bytes) -> None:
        self._note(path, WHOLE | (LISTING if self._nodes[path].is_dir else 0))

    def _claim(self, path: bytes) -> None:
        """Mark `path` as determined by this step."""
        self._note(path, WHOLE)
        if self._mount_of(path) is None:
            self._own.add(path)

    # -- looking ----------------------------------------------------------------------------

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`."""
        if path:
            self._note(path, _LOOK)
        return self._nodes.get(path)

    def children(self, path: bytes) -> list[bytes]:
        """See `Tree.children`."""
        self._note(path, LISTING)
        start = path + b"/" if path else b""
        return sorted(
            other[len(start) :]
            for other in self._nodes
            if other.startswith(start) and other and b"/" not in other[len(start) :]
        )

    def open(self, path: bytes) -> io.BytesIO:
        """See `Tree.open`."""
        return io.BytesIO(self._content(path))

    def resolve(self, path: str, *, last: bool = True) -> Resolved:
        """The target of `path` inside the root; `last`: a link at its end is followed, too."""
        return resolve(cast(Tree, self), path.encode("utf-8", "surrogateescape"), last)

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        found = self.resolve(path)
        if found.node is None:
            raise NotPermitted(f"{path}: no such file")
        if not found.node.is_file:
            raise NotPermitted(f"{path}: not a regular file")
        return self._content(found.path)

    def _content(self, path: bytes) -> bytes:
        self._note(path, WHOLE)
        if path in self._data:
            return self._data[path]
        tree, there = self._elsewhere.get(path, (self._base, path))
        with tree.open(there) as source:
            return source.read()

    def digest_of_all(self) -> bytes:
        """A digest of everything that a command could see here, including times."""
        self._all_seen = True
        hasher = blake3()
        for path in sorted(self._nodes):
            if self._mount_of(path) in self._uncounted:
                continue
            node = self._nodes[path]
            hasher.update(repr((path, attrs.astuple(node))).encode())
            if node.is_file and not node.content:
                hasher.update(self._content(path))
        return hasher.digest()

    # -- changing ---------------------------------------------------------------------------

    def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Write a file; an existing one keeps its mode and owner."""
        found = self.resolve(path)
        there = found.node
        if there is not None and not there.is_file:
            raise NotPermitted(f"{path}: not a regular file")
        if there is None:
            there = Node(mode=_FILE, uid=self.owner[0], gid=self.owner[1])
        if mode is not None:
            there = evolve(there, mode=stat.S_IFREG | mode)
        content = blake3(data).digest()
        node = evolve(there, size=len(data), content=content, mtime=LAYER_TIME, xattrs=())
        self._put(found.path, node, data)

    def make_directory(self, path: str, *, parents: bool = False) -> None:
        """Make a directory, and with `parents` its missing parents."""
        found = self.resolve(path)
        if found.node is not None:
            if parents and found.node.is_dir:
                return
            raise NotPermitted(f"{path}: is there already")
        missing = [found.path]
        while parents and self.lookup(above := missing[-1].rpartition(b"/")[0]) is None:
            missing.append(above)
        for here in reversed(missing):
            self._put(here, self._made(_DIRECTORY))

    def link(self, target: str, path: str) -> None:
        """Make a symbolic link at `path`."""
        found = self.resolve(path, last=False)
        if found.node is not None:
            raise NotPermitted(f"{path}: is there already")
        text = target.encode("utf-8", "surrogateescape")
        self._put(found.path, evolve(self._made(_LINK), size=len(text), link=text))

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or link, with `recursive` also a directory and everything below."""
        found = self.resolve(path, last=False)
        if found.node is None:
            raise NotPermitted(f"{path}: no such file")
        below = [p for p in self._nodes if p.startswith(found.path + b"/")]
        if found.node.is_dir and (not recursive or not found.path):
            raise NotPermitted(f"{path}: is a directory")
        for here in (found.path, *below):
            self._check_writable(here)
            if here in self._mounts:
                raise NotPermitted(f"{path}: something is mounted there")
        for here in (found.path, *below):
            self._note_all(here)
        for here in (found.path, *below):
            self._claim(here)
            del self._nodes[here]
            self._data.pop(here, None)
            self._elsewhere.pop(here, None)

    def rename(self, old: str, new: str) -> None:
        """Move a file, link or directory; an existing file at the target is replaced."""
        source = self.resolve(old, last=False)
        if source.node is None:
            raise NotPermitted(f"{old}: no such file")
        target = self.resolve(new, last=False)
        goal = target.path
        if target.node is not None and target.node.is_dir:
            goal = _join(goal, source.path.rpartition(b"/")[2])
        if goal == source.path or goal.startswith(source.path + b"/"):
            raise NotPermitted(f"{new}: is within {old}")
        moved = [p for p in self._nodes if p == source.path or p.startswith(source.path + b"/")]
        for path in moved:
            self._note_all(path)
        items = [
            (goal + p[len(source.path) :], self._nodes[p], self._bytes_of(p)) for p in sorted(moved)
        ]
        self.remove(old, recursive=True)
        for path, node, data in items:
            self._put(path, node, data)

    def _bytes_of(self, path: bytes) -> bytes | None:
        return self._content(path) if self._nodes[path].is_file else None

    def copy(self, old: str, new: str, *, recursive: bool = False) -> None:
        """Copy a file, with `recursive` a directory; modes are kept."""
        source = self.resolve(old)
        if source.node is None:
            raise NotPermitted(f"{old}: no such file")
        target = self.resolve(new)
        goal = target.path
        if target.node is not None and target.node.is_dir:
            goal = _join(goal, source.path.rpartition(b"/")[2])
        if not source.node.is_dir:
            data = self.read(old)
            self.write("/" + goal.decode("utf-8", "surrogateescape"), data)
            self._change(goal, evolve(self._nodes[goal], mode=source.node.mode))
            return
        if not recursive:
            raise NotPermitted(f"{old}: is a directory")
        below = sorted(p for p in self._nodes if p == source.path or _below(p, source.path))
        for path in below:
            self._note_all(path)
            node = evolve(self._nodes[path], uid=self.owner[0], gid=self.owner[1], mtime=LAYER_TIME)
            self._put(goal + path[len(source.path) :], node, self._bytes_of(path))

    def change_mode(self, path: str, mode: int) -> None:
        """Set permission bits."""
        found = self._existing(path)
        node = self._nodes[found.path]
        self._change(found.path, evolve(node, mode=stat.S_IFMT(node.mode) | mode))

    def change_owner(self, path: str, uid: int, gid: int) -> None:
        """Set the owner."""
        found = self._existing(path)
        self._change(found.path, evolve(self._nodes[found.path], uid=uid, gid=gid))

    def touch(self, path: str) -> None:
        """Make an empty file, or give an existing one the time of what commands write."""
        found = self.resolve(path)
        if found.node is None:
            self.write(path, b"")
        else:
            self._change(found.path, evolve(found.node, mtime=LAYER_TIME))

    def _existing(self, path: str) -> Resolved:
        found = self.resolve(path)
        if found.node is None:
            raise NotPermitted(f"{path}: no such file")
        return found

    def _change(self, path: bytes, node: Node) -> None:
        self._check_writable(path)
        self._claim(path)
        self._nodes[path] = node

    def _made(self, mode: int) -> Node:
        return Node(mode=mode, uid=self.owner[0], gid=self.owner[1], mtime=LAYER_TIME)

    def _put(self, path: bytes, node: Node, data: bytes | None = None) -> None:
        self._check_writable(path)
        above = self.lookup(path.rpartition(b"/")[0])
        if above is None or not above.is_dir:
            raise NotPermitted(f"/{path.decode(errors='replace')}: its directory is not there")
        self._claim(path)
        self._nodes[path] = node
        self._elsewhere.pop(path, None)
        if data is not None:
            self._data[path] = data

    # -- mounts -----------------------------------------------------------------------------

    def mount(
        self,
        target: str,
        source: Tree | None,
        at: bytes = b"",
        *,
        writable: bool,
        counts: bool = True,
    ) -> None:
        """Show the content of `source` at `at` (None: nothing) at `target`.

        Changes below it are not part of the layer; see `unmount`. Times are those of a copy, so
        that no uncovered fact is visible. Facts that don't count are left out of `digest_of_all`.
        """
        goal = self.resolve(target).path
        above = goal
        while self.lookup(above) is None:
            self._stubs.add(above)
            above = above.rpartition(b"/")[0]
        for path in sorted(self._stubs):
            self._nodes.setdefault(path, Node(mode=_DIRECTORY, mtime=LAYER_TIME))
        for path in [p for p in self._nodes if p == goal or _below(p, goal)]:
            self._covered.setdefault(path, self._nodes.pop(path))
        top: Node | None = Node(mode=_DIRECTORY, mtime=LAYER_TIME)
        if source is not None and at:
            top = source.lookup(at)
        if top is None:
            raise NotPermitted(f"there is nothing to be mounted at {target}")
        entries = [(goal, top, at)]
        if source is not None:
            start = len(at) + 1 if at else 0
            entries += [(_join(goal, p[start:]), node, p) for p, node in _nodes(source, at)]
        for path, node, there in entries:
            time = copied_time(node.content) if node.is_file and node.content else LAYER_TIME
            self._nodes[path] = evolve(node, mtime=time)
            self._data.pop(path, None)
            if source is not None:
                self._elsewhere[path] = (source, there)
        self._mounts[goal] = writable
        if not counts:
            self._uncounted.add(goal)

    def mounted(self, target: str) -> dict[bytes, tuple[Node, bytes]]:
        """The present content of the mount `target`, relative to it; for mounts that are kept."""
        goal = self.resolve(target).path
        return {
            path[len(goal) + 1 :]: (node, self._content(path) if node.is_file else b"")
            for path, node in self._nodes.items()
            if _below(path, goal)
        }

    def unmount(self) -> None:
        """Remove all mounts: covered entries are visible again."""
        for path in [p for p in self._nodes if self._mount_of(p) is not None]:
            del self._nodes[path]
            self._data.pop(path, None)
            self._elsewhere.pop(path, None)
        self._mounts.clear()
        self._uncounted.clear()
        for path, node in self._covered.items():
            if path not in self._stubs:
                self._nodes[path] = node
        for path in sorted(self._stubs, reverse=True):
            if path in self._nodes and not self.children(path):
                del self._nodes[path]
        self._covered.clear()
        self._stubs.clear()

    def _mount_of(self, path: bytes) -> bytes | None:
        return next((m for m in self._mounts if path == m or _below(path, m)), None)

    def _check_writable(self, path: bytes) -> None:
        mount = self._mount_of(path)
        if mount is not None and not self._mounts[mount]:
            raise NotPermitted(f"/{path.decode(errors='replace')}: read-only")

    # -- the layer --------------------------------------------------------------------------

    def become(self, tree: Tree) -> None:
        """Replace everything by the content of `tree`."""
        self._all_seen = True
        self._nodes = {b"": self._nodes[b""], **dict(_nodes(tree))}
        self._data.clear()
        self._elsewhere = {path: (tree, path) for path in self._nodes}

    def layer(self, blobs: Blobs) -> Layer | None:
        """The differences from the initial state as a layer in `blobs`; None if there are none."""
        sink = io.BytesIO()
        writer = LayerWriter(sink)
        before, after = self._before, self._nodes
        gone = [p for p in before if p not in after and self._shows(p.rpartition(b"/")[0])]
        changed = [p for p, node in after.items() if _differs(before.get(p), node)]
        for path, deleted in sorted(
            [(p, True) for p in gone] + [(p, False) for p in changed], key=_layer_order
        ):
            if deleted:
                writer.whiteout(path)
                continue
            node = after[path]
            writer.add(path, _as_written(node), self._content(path) if node.is_file else None)
        if writer.empty:
            return None
        diff_id, _, index = writer.finish()
        sink.seek(0)
        layer = Layer(blobs.add(sink, LAYER_TAR), diff_id)
        if isinstance(blobs, KeepsIndex):
            blobs.keep_index(layer, index)
        return layer

    def _shows(self, directory: bytes) -> bool:
        """Whether a directory of the initial state is still a directory, so that a deletion is
        needed.
        """
        before, after = self._before.get(directory), self._nodes.get(directory)
        return before is not None and before.is_dir and after is not None and after.is_dir


def _below(path: bytes, directory: bytes) -> bool:
    return not directory or path.startswith(directory + b"/")


def _differs(before: Node | None, node: Node) -> bool:
    if before is None or before.is_dir != node.is_dir:
        return True
    if node.is_dir:
        return (before.mode, before.uid, before.gid) != (node.mode, node.uid, node.gid)
    return before != node


def _as_written(node: Node) -> Node:
    """The node as its layer has it.

    A trace sees that the time of a file was not set on purpose, not which instruction wrote the
    file: so a file that keeps such a time gets the time of what commands write.
    """
    if node.is_file and code_of(node.mtime, node.content) == 0:
        return evolve(node, mtime=LAYER_TIME)
    return node


def _layer_order(item: tuple[bytes, bool]) -> tuple[bytes, ...]:
    """Depth first; the deletions of a directory come before its entries."""
    path, deleted = item
    if not deleted:
        return (sort_key(path),)
    directory, _, name = path.rpartition(b"/")
    return (sort_key(directory) + (b"\0" if directory else b""), b"", name)
