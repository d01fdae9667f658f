"""A state as a tree: a stack of layer indexes presented as one, files read from the tars by offset.

Nothing is unpacked and no byte of a layer is read until a file is opened. Visibility follows the
rules of overlayfs: a directory is the union of the layers in which it is a directory, down to the
first that deletes it, replaces it by something else, or makes it opaque. If a layer holds something
beneath a directory but no entry for it, the metadata comes from the next layer below that has one
(0755, owner 0:0 if none has).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from layercache.errors import NotFound
from layercache.layers.follow_links import Resolved, resolve
from layercache.layers.verified_file import Verified
from layercache.model.layer_index import IMPLIED, OPAQUE, WHITEOUT, LayerIndex, sort_key
from layercache.model.layer_times import LAYER_TIME
from layercache.model.logical_clock import Clock, LayerTimes
from layercache.model.tree import (
    Child,
    HardLinks,
    Linked,
    Node,
    Timed,
    described_digest,
    directory_digest,
    node_digest,
)
from layercache.trees.order import Ordered

if TYPE_CHECKING:
    from layercache.model.tree_digest import Row

__all__ = ["IMPLIED_DIRECTORY", "StateTree"]

IMPLIED_DIRECTORY: Final = Node(mode=stat.S_IFDIR | 0o755, mtime=LAYER_TIME)
"""The node of a directory that no layer describes; also the root of an empty state."""

_AT_ONCE: Final = LayerTimes(LAYER_TIME, (0,))
"""The clock of a layer whose entries were all written at once."""

OpenContent = Callable[[int, int, int], BinaryIO]
"""Layer number, offset and size in bytes → those bytes of the layer's uncompressed tar."""


class StateTree(HardLinks, Linked, Timed, Ordered):
    """A stack of layers as a `Tree`.

    `indexes` come lowest first; `open_content(number, offset, size)` returns bytes of the
    uncompressed tar of layer `number`. A look-up costs one dictionary access for each layer that
    has the parent directory. Safe for threads.
    """

    def __init__(self, indexes: Sequence[LayerIndex], open_content: OpenContent) -> None:
        self._indexes = _bound(indexes, open_content)
        self._open = open_content
        self._below: StateTree | None = None
        self._stacks: dict[bytes, tuple[int, ...]] = {
            b"": tuple(
                n
                for n in reversed(range(len(self._indexes)))
                if self._indexes[n].row(b"") is not None
            )
        }
        """Directory → numbers of the layers that it is the union of, topmost first."""
        for at, number in enumerate(self._stacks[b""]):
            index = self._indexes[number]
            if index.flags(cast(int, index.row(b""))) & OPAQUE:
                self._stacks[b""] = self._stacks[b""][: at + 1]
                break
        self._digests: dict[bytes, bytes] = {}
        self._shared: list[tuple[bytes, object]] | None = None
        self._clock: Clock | None = None

    @property
    def indexes(self) -> tuple[LayerIndex, ...]:
        """The indexes of the layers, lowest first."""
        return self._indexes

    @property
    def below(self) -> StateTree:
        """The state without its topmost layer; an empty state is returned unchanged."""
        if self._below is None:
            self._below = StateTree(self._indexes[:-1], self._open)
        return self._below

    # -- the protocol -----------------------------------------------------------------------

    def lookup(self, path: bytes) -> Node | None:
        """The node at `path`, None if nothing exists there or a parent is not a directory."""
        found = self._find(path)
        return None if found is None else self._node(path, found)

    def children(self, path: bytes) -> Sequence[bytes]:
        """The names in the directory `path`, sorted as bytes; empty if it is not a directory."""
        stack = self._stack(path)
        if not stack:
            return ()
        if len(stack) == 1:
            index = self._indexes[stack[0]]
            names = index.children(path)
            prefix = path + b"/" if path else b""
            # A single layer may still delete entries that no layer below has.
            if any(self._deleted(index, prefix + name) for name in names):
                return [name for name in names if not self._deleted(index, prefix + name)]
            return names
        prefix = path + b"/" if path else b""
        present: set[bytes] = set()
        decided: set[bytes] = set()
        for number in stack:
            index = self._indexes[number]
            for name in index.children(path):
                if name not in decided:
                    decided.add(name)
                    if not self._deleted(index, prefix + name):
                        present.add(name)
        return sorted(present)

    def digest(self, path: bytes) -> bytes:
        """`node_digest` of the node at `path`; for directories, the digest of their content.

        Raises `NotFound` if nothing exists there.
        """
        node = self.lookup(path)
        if node is None:
            raise NotFound(f"{path!r} does not exist in this state")
        if not node.is_dir:
            return node_digest(node)
        return described_digest(node, self._directory_digest(path))

    def open(self, path: bytes) -> BinaryIO:
        """The bytes of the regular file at `path`.

        Raises `NotFound` if there is none. Reading to the end raises `CorruptObject` if the bytes
        do not match the index.
        """
        found = self._find(path)
        number, row = found if found is not None else (-1, -1)
        if number < 0 or not stat.S_ISREG(self._indexes[number].mode(row)):
            raise NotFound(f"{path!r} is not a regular file in this state")
        node = self._indexes[number].node(row)
        offset, size = self._indexes[number].content(row)
        number = self._indexes[number].lenders.get(row, number)
        return cast(BinaryIO, Verified(self._open(number, offset, size), node.content, size, path))

    def place(self, path: bytes) -> tuple[int, int] | None:
        """The layer in whose tar the bytes of the file at `path` are, and their offset."""
        found = self._find(path)
        if found is None or found[0] < 0:
            return None
        index = self._indexes[found[0]]
        return index.lenders.get(found[1], found[0]), index.content(found[1])[0]

    def inode(self, path: bytes) -> object | None:
        """A token shared by all names of one file; None for a file with a single name."""
        found = self._find(path)
        if found is None or found[0] < 0:
            return None
        number, row = found
        index = self._indexes[number]
        target = index.hardlinks.get(row)
        if target is not None:
            return number, target
        if path in index.link_targets:
            return number, path
        return None

    def shared(self) -> Sequence[tuple[bytes, object]]:
        """See `HardLinks.shared`."""
        if self._shared is None:
            found: list[tuple[bytes, object]] = []
            for path in {
                path
                for index in self._indexes
                if index.hardlinks
                for path in (*index.link_targets, *map(index.paths.__getitem__, index.hardlinks))
            }:
                token = self.inode(path)
                if token is not None:
                    found.append((path, token))
            found.sort(key=lambda pair: sort_key(pair[0]))
            self._shared = found
        return self._shared

    def names(self, path: bytes) -> Sequence[bytes]:
        """All names of the file at `path` in its layer, sorted, if it has several."""
        found = self._find(path)
        if found is None or found[0] < 0:
            return ()
        return self._indexes[found[0]].names(path)

    def resolve(self, path: bytes, follow_last: bool = True) -> Resolved:
        """`path` with its symbolic links followed inside this tree; see `resolve`."""
        return resolve(self, path, follow_last)

    # -- times ------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The logical clock of the state."""
        if self._clock is None:
            self._clock = Clock.of([index.times for index in self._indexes])
        return self._clock

    def clock_from(self, start: int) -> Clock:
        """The logical clock of the state with another start than its own, in seconds."""
        if start == LAYER_TIME:
            return self.clock
        return Clock.of([index.times for index in self._indexes], start)

    def shown(self, clock: Clock | None = None) -> StateTree:
        """The state with the times at which a running step sees it.

        `clock` replaces its own clock if the state is shown beside another one.
        """
        clock = self.clock if clock is None else clock
        return StateTree(
            [
                index.shown([clock.shown(number, code) for code in index.times.codes])
                for number, index in enumerate(self._indexes)
            ],
            self._open,
        )

    def code(self, path: bytes) -> int | None:
        """The code of the time at `path`; None if it was set on purpose, or nothing exists
        there.
        """
        found = self._find(path)
        described = None if found is None else self._described(path, found)
        return None if described is None else self._indexes[described[0]].code(described[1])

    def moment(self, path: bytes) -> int:
        """The time at which a running step sees the entry at `path`, in seconds since 1970."""
        found = self._find(path)
        described = None if found is None else self._described(path, found)
        if described is None:
            return LAYER_TIME
        number, row = described
        code = self._indexes[number].code(row)
        if code is None:
            return self._indexes[number].node(row).mtime
        return self.clock.shown(number, code)

    @property
    def base_layers(self) -> int:
        """The number of lowest layers that belong to a base image, judged by their times: no layer
        that was built here has a time after LAYER_TIME.
        """
        for number in reversed(range(len(self._indexes))):
            if self._indexes[number].times.newest > LAYER_TIME:
                return number + 1
        return 0

    def files_above(self, number: int) -> Iterator[tuple[bytes, Row, int]]:
        """The regular files of the state that are in layer `number` or one above it: path, row and
        `moment` of each.
        """
        top = len(self._indexes) - 1
        for at in range(number, top + 1):
            index = self._indexes[at]
            moments = {code: self.clock.shown(at, code) for code in index.times.codes}
            for row, values in index.files():
                path = index.paths[row]
                if at == top or self._find(path) == (at, row):
                    code = index.code(row)
                    yield path, values, values[4] if code is None else moments[code]

    def age(self, path: bytes) -> int | None:
        """The code that a further layer uses for the time at which the entry at `path` was
        written.
        """
        return None if self.code(path) is None else self.clock.code(self.moment(path))

    def at_once(self, path: bytes) -> bool:
        """Whether everything at and below `path` is known to be of one instant."""
        stack = self._stack(path)
        return len(stack) == 1 and self._indexes[stack[0]].times == _AT_ONCE

    # -- finding ----------------------------------------------------------------------------

    @staticmethod
    def _deleted(index: LayerIndex, path: bytes) -> bool:
        row = index.row(path)
        return row is not None and bool(index.flags(row) & WHITEOUT)

    def _find(self, path: bytes) -> tuple[int, int] | None:
        """Layer and row of the entry at `path`; a directory's row may be implied."""
        if not path:
            stack = self._stacks[b""]
            return (stack[0], cast(int, self._indexes[stack[0]].row(b""))) if stack else (-1, -1)
        for number in self._stack(path.rpartition(b"/")[0]):
            index = self._indexes[number]
            row = index.row(path)
            if row is not None:
                return None if index.flags(row) & WHITEOUT else (number, row)
        return None

    def _stack(self, path: bytes) -> tuple[int, ...]:
        """The layers that make up the directory `path`, topmost first; empty if it is no
        directory.
        """
        known = self._stacks.get(path)
        if known is not None:
            return known
        missing = []
        while path not in self._stacks:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        stack = self._stacks[path]
        for path in reversed(missing):
            stack = self._merged(path, stack)
            self._stacks[path] = stack
        return stack

    def _merged(self, path: bytes, parents: tuple[int, ...]) -> tuple[int, ...]:
        stack = []
        for number in parents:
            index = self._indexes[number]
            row = index.row(path)
            if row is None:
                continue
            flags = index.flags(row)
            if flags & WHITEOUT or not stat.S_ISDIR(index.mode(row)):
                break
            stack.append(number)
            if flags & OPAQUE:
                break
        return tuple(stack)

    def _node(self, path: bytes, found: tuple[int, int]) -> Node:
        described = self._described(path, found)
        if described is None:
            return IMPLIED_DIRECTORY
        return self._indexes[described[0]].node(described[1])

    def _described(self, path: bytes, found: tuple[int, int]) -> tuple[int, int] | None:
        """Layer and row with the metadata of the entry `found` at `path`; None for a directory that
        no layer describes.
        """
        number, row = found
        if number < 0:
            return None
        index = self._indexes[number]
        if not index.flags(row) & IMPLIED:
            return found
        # Metadata shows through an opaque marker, as it does when layers are unpacked on top of
        # their parents: continue in every layer that makes up the parent directory.
        parents = self._stack(path.rpartition(b"/")[0]) if path else range(number, -1, -1)
        for lower in parents:
            if lower >= number:
                continue
            index = self._indexes[lower]
            at = index.row(path)
            if at is None:
                continue
            if index.flags(at) & WHITEOUT or not stat.S_ISDIR(index.mode(at)):
                break
            if not index.flags(at) & IMPLIED:
                return lower, at
        return None

    # -- digests ----------------------------------------------------------------------------

    def _directory_digest(self, top: bytes) -> bytes:
        """The Merkle digest of a directory's content, without its own attributes; uses a work list,
        because depth is not bounded by recursion.
        """
        work = [top]
        while work:
            path = work[-1]
            if self._known_digest(path) is not None:
                work.pop()
                continue
            prefix = path + b"/" if path else b""
            rows: list[Child] = []
            missing = []
            for name in self.children(path):
                child = prefix + name
                node = cast(Node, self.lookup(child))
                digest = self._known_digest(child) if node.is_dir else node_digest(node)
                if digest is None:
                    missing.append(child)
                elif not missing:
                    if node.is_dir:
                        digest = described_digest(node, digest)
                    rows.append((name, node.mode, digest, node.uid, node.gid))
            if missing:
                work += missing
                continue
            work.pop()
            self._keep_digest(path, directory_digest(rows))
        return cast(bytes, self._known_digest(top))

    def _own(self, path: bytes) -> LayerIndex | None:
        """The index that alone makes up a directory, so that other states share its digest."""
        stack = self._stack(path)
        return self._indexes[stack[0]] if len(stack) == 1 else None

    def _known_digest(self, path: bytes) -> bytes | None:
        own = self._own(path)
        return self._digests.get(path) if own is None else own.digests.get(path)

    def _keep_digest(self, path: bytes, digest: bytes) -> None:
        own = self._own(path)
        (self._digests if own is None else own.digests)[path] = digest


def _bound(indexes: Sequence[LayerIndex], open_content: OpenContent) -> tuple[LayerIndex, ...]:
    """The indexes, each with the files of lower layers that it has further names for."""
    if not any(index.lower_links for index in indexes):
        return tuple(indexes)
    from layercache.layers.lower_links import bind

    found: list[LayerIndex] = []
    for number, index in enumerate(indexes):
        if index.lower_links:
            below = StateTree(found, open_content)
            what = f"layer {number + 1} of {len(indexes)}"
            index = index.bound(tuple(found), lambda one: bind(one, below, what))  # noqa: B023
        found.append(index)
    return tuple(found)
