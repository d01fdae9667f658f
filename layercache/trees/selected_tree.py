"""The part of a tree that selectors pick, as a tree of its own, which shows nothing else. Pure.

Facts that do not count in a fingerprint of files (times, labels of the host, the mode of the root)
have the values that COPY would give them, so that no plug-in can depend on them.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from layercache._base.classes import evolve
from layercache.errors import SourceError
from layercache.model.layer_times import LAYER_TIME, copied_time
from layercache.model.selectors import Everything, Files, Nothing, Selector
from layercache.model.tree import HardLinks, Node, Tree, counted_attributes
from layercache.trees.in_memory import DictTree
from layercache.trees.selection import Excludes, Selected, leading, select, walk

__all__ = ["SelectedTree"]

_ON_THE_WAY = Node(mode=stat.S_IFDIR | 0o755, mtime=LAYER_TIME)
"""A directory that only leads to selected entries."""


class SelectedTree(DictTree, HardLinks):
    """The part of `tree` that `selectors` pick, and the directories and links that lead to it.

    Directories on the way are 0755 and hold nothing else; links on the way are kept, so that
    selecting from this tree gives the same result as selecting from `tree`. Raises the errors of
    `select`. `state`: the tree is a state that is mounted, so its nodes are shown unchanged.
    """

    def __init__(self, tree: Tree, selectors: Iterable[Selector], *, state: bool = False) -> None:
        self._tree = tree
        shown: dict[bytes, Node] = {}
        passed: dict[bytes, Node] = {}
        for selector in selectors:
            if isinstance(selector, Nothing):
                continue
            if isinstance(selector, Files):
                _show(tree, selector, shown, passed, mounted=state and not selector.named)
            elif isinstance(selector, Everything):
                root = tree.lookup(b"") or _ON_THE_WAY
                for _, path, node in walk(tree, Selected(0, b"", b"", b"", root)):
                    shown.setdefault(path, _counted(node))
            else:
                raise SourceError(f"a tree can't be read by the selector {selector.name!r}")
        self._shown = frozenset(shown)
        self._names: dict[bytes, object] | None = None
        for path in list(shown) + list(passed):
            while path:
                path = path.rpartition(b"/")[0]
                passed.setdefault(path, _ON_THE_WAY)
        nodes = {**passed, **shown}
        nodes[b""] = _ON_THE_WAY
        super().__init__(
            {path.decode("utf-8", "surrogateescape"): (node, b"") for path, node in nodes.items()}
        )

    def inode(self, path: bytes) -> object | None:
        """See `HardLinks.inode`; names that were not selected do not count."""
        self.shared()
        return None if self._names is None else self._names.get(path)

    def shared(self) -> Sequence[tuple[bytes, object]]:
        """See `HardLinks.shared`."""
        if self._names is None:
            found = self._tree.shared() if isinstance(self._tree, HardLinks) else ()
            kept = [(path, token) for path, token in found if path in self._shown]
            count = Counter(token for _, token in kept)
            self._names = {path: token for path, token in kept if count[token] > 1}
        return tuple(self._names.items())

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`."""
        node = self.lookup(path)
        if node is None or not node.is_file:
            raise SourceError(f"{path!r} is not a regular file that this step reads")
        return self._tree.open(path)


def _show(
    tree: Tree,
    files: Files,
    shown: dict[bytes, Node],
    passed: dict[bytes, Node],
    *,
    mounted: bool,
) -> None:
    """Add the files that `files` picks to `shown`, and the entries on the way to `passed`."""
    for match in select(_Passing(tree, passed), files):
        root = match.path[: len(match.path) - len(match.relative)]
        for relative, node in leading(tree, match):
            shown[root + relative] = _counted(node, files)
        for _, path, node in walk(tree, match):
            shown[path] = node if mounted else _counted(node, files)


def _counted(node: Node, files: Files | None = None) -> Node:
    """A node with the facts that count, and constants for all others."""
    mode = node.mode
    if files is not None and files.fixed_mode and not node.is_link:
        mode = stat.S_IFMT(mode) | (0o755 if node.is_dir else 0o644)
    size, time = len(node.link), LAYER_TIME
    if node.is_file:
        size, time = node.size, copied_time(node.content)
    special = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return evolve(
        node,
        mode=mode,
        mtime=time,
        size=size,
        device=node.device if special else (0, 0),
        xattrs=counted_attributes(node),
    )


class _Passing(Excludes):
    """A tree that records the directories and links that a selection looks up."""

    def __init__(self, tree: Tree, passed: dict[bytes, Node]) -> None:
        self._tree = tree
        self._passed = passed
        self.digest = tree.digest
        self.open = tree.open

    def lookup(self, path: bytes) -> Node | None:
        node = self._tree.lookup(path)
        if node is not None and node.is_dir:
            self._passed.setdefault(path, _ON_THE_WAY)
        elif node is not None and node.is_link:
            bare = Node(stat.S_IFLNK | 0o777, size=len(node.link), mtime=LAYER_TIME, link=node.link)
            self._passed.setdefault(path, bare)
        return node

    def children(self, path: bytes) -> Sequence[bytes]:
        return self._tree.children(path)

    def excluded(self, path: bytes) -> str | None:
        return self._tree.excluded(path) if isinstance(self._tree, Excludes) else None
