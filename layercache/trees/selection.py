"""The meaning of COPY's sources in a tree: matches, links followed within the root, contents.

`select` answers `Files`, `walk` lists everything that a match brings along, `fingerprint` digests
it. Works over any `Tree`. Pure.

One module, so that what is selected, walked and digested can't differ.
"""

from __future__ import annotations

import stat
import struct
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from layercache._base.classes import field, frozen
from layercache._base.paths import clean, encoded
from layercache.errors import SourceError
from layercache.model.digests import Fingerprint
from layercache.model.selectors import Files
from layercache.model.tree import (
    Child,
    HardLinks,
    Node,
    Tree,
    described_digest,
    directory_digest,
    node_digest,
)
from layercache.trees.patterns import Glob, Ignore, has_wildcards

if TYPE_CHECKING:
    from layercache.trees._automaton import PatternState

__all__ = [
    "Excludes",
    "Filtered",
    "Selected",
    "fingerprint",
    "leading",
    "refuse_whiteout",
    "resolve",
    "select",
    "tree_digest",
    "walk",
]

MAX_LINKS: Final = 255
"""Symbolic links followed in one path before it counts as a loop (as in BuildKit
and in Go's `RootPath`)."""

_WHITEOUT: Final = b".wh."
_SELECTION: Final = "layercache 2026-11 selection digest 1"
_BARE: Final = "layercache 2026-11 selection without modes digest 1"
_SHARED: Final = "layercache 2026-11 selection with hard links digest 1"


@frozen
class Selected:
    """One match: `path` is its real place in the tree, after following links.

    `name` is the base name that it gets in a destination directory (the link's own name if a link
    was named; b"" for the root). `relative` is, with `--parents`, the path kept below the
    destination, otherwise b"". `exclude` is the state of the patterns of `--exclude` at `path`.
    """

    pattern_index: int
    path: bytes
    name: bytes
    relative: bytes
    node: Node
    exclude: PatternState | None = field(default=None, eq=False, repr=False)


class Excludes(ABC):
    """A tree that can tell why an entry is not in it."""

    __slots__ = ()

    @abstractmethod
    def excluded(self, path: bytes) -> str | None:
        """The rule that keeps `path` out, as a phrase for a message; None if none does."""


class Filtered(ABC):
    """A tree with a faster way to `tree_digest` with exclusions."""

    __slots__ = ()

    @abstractmethod
    def digest_without(self, path: bytes, exclude: PatternState) -> bytes | None:
        """`tree_digest(self, path, exclude)`."""


def _decode(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def resolve(tree: Tree, path: bytes, *, last: bool = True) -> tuple[bytes, Node] | None:
    """The real path behind `path`, and its node; None if nothing exists there.

    Links are followed inside the root only: absolute targets start at the root of the tree,
    `..` stops there. `last` tells whether a link at the very end is followed, too. Raises
    `SourceError` for a loop.
    """
    node = tree.lookup(path)
    if node is not None and not (last and node.is_link):
        return path, node  # no link was crossed, because `lookup` follows none
    todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
    here: list[bytes] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            del here[-1:]
            continue
        here.append(part)
        node = tree.lookup(b"/".join(here))
        if node is None:
            return None
        if node.is_link and (todo or last):
            links += 1
            if links > MAX_LINKS:
                raise SourceError(f"{_decode(path)}: too many levels of symbolic links")
            here.pop()
            if node.link.startswith(b"/"):
                here.clear()
            todo += [part for part in reversed(node.link.split(b"/")) if part not in (b"", b".")]
        elif todo and not node.is_dir:
            return None
    real = b"/".join(here)
    node = tree.lookup(real)
    return None if node is None else (real, node)


def select(tree: Tree, files: Files) -> tuple[Selected, ...]:
    """The entries that `files` names in `tree`, in the order of the patterns, then of matched
    paths.

    A glob without a match selects nothing if its directory exists. Raises `SourceError` for a
    missing name (with a suggestion, and with the rule that excludes it if the tree is
    `Excludes`), also before a wildcard; for a dangling or looping link; and for a file named like
    a whiteout (`.wh.`). Raises `UsageError` for a malformed pattern.

    Entries whose own name matches `files.exclude` are left out: files in any case, directories if
    a wildcard found them (for a directory named directly, the patterns apply to its contents).
    """
    exclude = Ignore.of(files.exclude).start if files.exclude else None
    found: list[Selected] = []
    for index, pattern in enumerate(files.patterns):
        if files.parents:
            matches = _with_parents(tree, index, pattern, exclude)
        else:
            matches = _named(tree, index, pattern, files.wildcards, exclude)
        for match in matches:
            for part in (match.relative or match.name or match.path).split(b"/"):
                refuse_whiteout(part)
            found.append(match)
    return tuple(found)


def refuse_whiteout(path: bytes) -> None:
    """Raise `SourceError` for a name that would mean a deletion in a layer."""
    if path.rpartition(b"/")[2].startswith(_WHITEOUT):
        raise SourceError(
            f"{_decode(path)}: names that start with .wh. mean a deletion in a layer and can't be "
            "copied; exclude or rename the file"
        )


def _named(
    tree: Tree, index: int, pattern: str, wildcards: bool, exclude: PatternState | None
) -> Iterator[Selected]:
    text = clean("/" + pattern)[1:]
    path = encoded(text)
    if not (wildcards and has_wildcards(text)):
        found = resolve(tree, path)
        if found is None and wildcards and "\\" in text:
            found = resolve(tree, path := _unescaped(text))
        if found is None:
            raise _missing(tree, path)
        name = path.rpartition(b"/")[2]
        if found[1].is_dir or not _left_out(name, found[1], exclude):
            yield Selected(index, found[0], name, b"", found[1], exclude)
        return
    for base, rest in _bases(tree, text):
        for matched in _matches(tree, base, Glob(rest).start):
            followed = resolve(tree, matched)
            if followed is None:
                raise _missing(tree, matched)
            name = matched.rpartition(b"/")[2]
            if not _left_out(name, followed[1], exclude):
                yield Selected(index, followed[0], name, b"", followed[1], exclude)


def _left_out(name: bytes, node: Node, exclude: PatternState | None) -> bool:
    """Whether the patterns of --exclude exclude a source with this name."""
    if exclude is None or not name:
        return False
    state = exclude[name]
    return state.prunable if node.is_dir else state.ignored


def _bases(tree: Tree, text: str) -> Iterator[tuple[bytes, str]]:
    """The directory named by the part before the first wildcard (links are followed)."""
    parts = text.split("/")
    count = next(n for n, part in enumerate(parts) if has_wildcards(part))
    named = encoded("/".join(parts[:count]))
    base = resolve(tree, named)
    if base is None:
        raise _missing(tree, named)
    if base[1].is_dir:
        yield base[0], "/".join(parts[count:])


def _with_parents(
    tree: Tree, index: int, pattern: str, exclude: PatternState | None
) -> Iterator[Selected]:
    head, pivot, tail = pattern.partition("/./")
    if not pivot:
        head, tail = "", pattern
    head = clean("/" + head)[1:]
    tail = clean("/" + tail)[1:]
    literal = not (has_wildcards(head) or has_wildcards(tail))
    if has_wildcards(head):
        roots = [match.path for match in _named(tree, index, head, True, None) if match.node.is_dir]
    else:
        root = resolve(tree, encoded(head))
        roots = [root[0]] if root is not None and root[1].is_dir else []
    empty = True
    for root_path in roots:
        if not tail:
            node = tree.lookup(root_path)
            if node is not None:
                empty = False
                yield Selected(index, root_path, b"", b"", node, exclude)
            continue
        for path in _matches(tree, root_path, Glob(tail, doublestar=True).start):
            node = tree.lookup(path)
            relative = path[len(root_path) + 1 :] if root_path else path
            state = exclude
            if state is not None:
                for part in relative.split(b"/"):
                    state = state[part]
                if state.prunable or (state.ignored and node is not None and not node.is_dir):
                    empty = False
                    continue
            if node is not None:
                empty = False
                name = path.rpartition(b"/")[2]
                yield Selected(index, path, name, relative, node, state)
    if empty and literal:
        raise _missing(tree, encoded(clean("/" + head + "/" + tail)[1:]))


def _unescaped(text: str) -> bytes:
    kept: list[str] = []
    characters = iter(text)
    for character in characters:
        kept.append(next(characters, character) if character == "\\" else character)
    return encoded("".join(kept))


def _matches(tree: Tree, base: bytes, start: PatternState) -> Iterator[bytes]:
    """Paths below `base` that match, sorted; as in BuildKit, nothing below a match is tried."""
    todo: list[tuple[bytes, PatternState]] = [(base, start)]
    while todo:
        path, state = todo.pop()
        if state.ignored:
            yield path
        elif not state.settled:
            for name in reversed(tree.children(path)):
                todo.append((_join(path, name), state[name]))


def _missing(tree: Tree, path: bytes) -> SourceError:
    message = f"{_decode(path)} was not found"
    rule = tree.excluded(path) if isinstance(tree, Excludes) else None
    if rule is not None:
        message += f": it is excluded by {rule}"
    elif (node := tree.lookup(path)) is not None and node.is_link:
        message += f": it is a link to {_decode(node.link)!r}, whose target does not exist there"
    else:
        near = _near(tree, path)
        if near is not None:
            message += f"; did you mean {near!r}?"
    return SourceError(message)


def _near(tree: Tree, path: bytes) -> str | None:
    from difflib import get_close_matches

    parent, _, name = path.rpartition(b"/")
    found = resolve(tree, parent)
    if found is None:
        return None
    names = {_decode(child): child for child in tree.children(found[0])[:2000]}
    folded = [text for text in names if text.lower() == _decode(name).lower()]
    close = folded or get_close_matches(_decode(name), list(names), 1)
    return _decode(_join(parent, names[close[0]])) if close else None


def walk(
    tree: Tree, selected: Selected, exclude: PatternState | None = None
) -> Iterator[tuple[bytes, bytes, Node]]:
    """Everything that copying `selected` brings along: (relative path, path, node).

    Parents come before children, siblings in the order of their bytes; the match itself is
    first, with the relative path b"". `exclude` overrides `selected.exclude`. An excluded
    directory appears only if an exception includes something below it. Raises `SourceError` for
    names that can't be in a layer.
    """
    state = exclude if exclude is not None else selected.exclude
    hidden = state is not None and state.ignored and bool(selected.relative)
    if not hidden:
        yield b"", selected.path, selected.node
    if not selected.node.is_dir:
        return
    # Excluded directories wait until something below them is kept.
    waiting: list[tuple[bytes, bytes, Node]] = [(b"", selected.path, selected.node)] * hidden
    todo: list[tuple[bytes, PatternState | None]] = []

    def push(relative: bytes, path: bytes, state: PatternState | None) -> None:
        for name in reversed(tree.children(path)):
            below = None if state is None else state[name]
            if below is None or not below.prunable:
                todo.append((_join(relative, name), below))

    push(b"", selected.path, state)
    while todo:
        relative, below = todo.pop()
        path = _join(selected.path, relative)
        node = tree.lookup(path)
        if node is None:
            continue
        kept = below is None or not below.ignored
        while waiting and not _is_below(relative, waiting[-1][0]):
            waiting.pop()
        if kept:
            refuse_whiteout(relative)
            yield from waiting
            waiting.clear()
            yield relative, path, node
        elif node.is_dir:
            waiting.append((relative, path, node))
        if node.is_dir:
            push(relative, path, below)


def _is_below(path: bytes, parent: bytes) -> bool:
    return not parent or path.startswith(parent + b"/")


def tree_digest(tree: Tree, path: bytes, exclude: PatternState | None = None) -> bytes | None:
    """`tree.digest(path)` without excluded entries; None if nothing is left."""
    if exclude is None or (exclude.settled and not exclude.ignored):
        return tree.digest(path)
    if exclude.prunable:
        return None
    if isinstance(tree, Filtered):
        return tree.digest_without(path, exclude)
    node = tree.lookup(path)
    if node is None or not node.is_dir:
        return None if exclude.ignored else tree.digest(path)
    # One frame for each open directory: its children so far, and those still to do.
    frames: list[tuple[bytes, PatternState, Node, list[Child], Iterator[bytes]]] = [
        (path, exclude, node, [], iter(tree.children(path)))
    ]
    while True:
        here, state, node, rows, names = frames[-1]
        for name in names:
            child_path = _join(here, name)
            child = tree.lookup(child_path)
            below = state[name]
            if child is None or below.prunable or (below.ignored and not child.is_dir):
                continue
            if child.is_dir and not below.settled:
                frames.append((child_path, below, child, [], iter(tree.children(child_path))))
                break
            rows.append((name, child.mode, tree.digest(child_path), child.uid, child.gid))
        else:
            frames.pop()
            digest = None
            if rows or not state.ignored:
                digest = described_digest(node, directory_digest(rows))
            if not frames:
                return digest
            if digest is not None:
                name = here.rpartition(b"/")[2]
                frames[-1][3].append((name, node.mode, digest, node.uid, node.gid))


def fingerprint(tree: Tree, files: Files) -> Fingerprint:
    """The digest of everything in the selection of `files` that can change the copied tree.

    It covers names, types, permission bits (unless `files.fixed_mode`), owners as the tree
    reports them, link targets, attributes, bytes, and hard links between the files; with `parents`
    also mode, owner and attributes of the directories that lead to a match. It does not cover
    times or the mode of the tree's root. Raises the errors of `select`.
    """
    parts: list[bytes] = []
    kept: list[Selected] = []
    made: set[bytes] = set()
    for match in select(tree, files):
        if files.fixed_mode:
            digest = _bare_digest(tree, match)
        elif match.exclude is not None and not match.relative:
            digest = tree_digest(tree, match.path, match.exclude if match.node.is_dir else None)
        else:
            digest = tree_digest(tree, match.path, match.exclude)
        if digest is None:
            if match.relative:
                continue  # excluded with all that is below it
            digest = directory_digest(())
        kept.append(match)
        node = match.node
        name = (match.relative or match.name) if files.named else b""
        mode, uid, gid = (_mode(node, files), node.uid, node.gid) if match.path else (0, 0, 0)
        parts.append(
            struct.pack("<IIIII", match.pattern_index, len(name), mode, uid, gid) + name + digest
        )
        for path, parent in leading(tree, match):
            if path not in made:
                made.add(path)
                numbers = struct.pack("<III", _mode(parent, files), parent.uid, parent.gid)
                parts.append(numbers + described_digest(parent, bytes(32)))
    digest = blake3(b"".join(parts), derive_key_context=_SELECTION).digest()
    together = _shared_names(tree, kept)
    if together:
        digest = blake3(digest + together, derive_key_context=_SHARED).digest()
    return Fingerprint(digest.hex())


def leading(tree: Tree, match: Selected) -> Iterator[tuple[bytes, Node]]:
    """The source directories that lead to a match of `--parents`, the topmost first, each with its
    path below the destination and its node.
    """
    parts = match.relative.split(b"/")[:-1]
    root = match.path[: len(match.path) - len(match.relative)]
    for count in range(1, len(parts) + 1):
        relative = b"/".join(parts[:count])
        node = tree.lookup(root + relative)
        if node is not None:
            yield relative, node


def _mode(node: Node, files: Files) -> int:
    return stat.S_IFMT(node.mode) if files.fixed_mode and not node.is_link else node.mode


def _bare_digest(tree: Tree, match: Selected) -> bytes | None:
    """Like `tree_digest`, without permission bits; None if nothing is left."""
    hasher = blake3(derive_key_context=_BARE)
    empty = True
    for relative, _, node in walk(tree, match):
        empty = False
        if not relative and not match.path:
            continue  # the root of a tree has neither mode nor owner of its own
        kind = node.mode if node.is_link else stat.S_IFMT(node.mode)
        digest = described_digest(node, bytes(32)) if node.is_dir else node_digest(node)
        hasher.update(struct.pack("<4I", len(relative), kind, node.uid, node.gid))
        hasher.update(relative + digest)
    return None if empty else hasher.digest()


def _shared_names(tree: Tree, matches: Iterable[Selected]) -> bytes:
    """The selected paths that name the same file; empty if none do."""
    if not isinstance(tree, HardLinks):
        return b""
    shared = tree.shared()
    if not shared:
        return b""
    order = [path.replace(b"/", b"\0") for path, _ in shared]
    names: dict[object, list[bytes]] = {}
    for number, match in enumerate(matches):
        # In this order, the entries below a path follow it without a gap.
        key = match.path.replace(b"/", b"\0")
        at = bisect_left(order, key)
        prefix = key + b"\0" if key else b""
        while at < len(order) and (order[at] == key or order[at].startswith(prefix)):
            path, token = shared[at]
            at += 1
            relative = path[len(match.path) :].lstrip(b"/")
            if not _kept_out(relative, match):
                name = struct.pack("<II", number, len(relative)) + relative
                names.setdefault(token, []).append(name)
    groups = sorted(group for group in names.values() if len(group) > 1)
    return b"".join([struct.pack("<I", len(group)) + b"".join(group) for group in groups])


def _kept_out(relative: bytes, match: Selected) -> bool:
    """Whether --exclude excludes a file below a match."""
    state = match.exclude
    if state is None or not relative:
        return False
    for part in relative.split(b"/"):
        state = state[part]
    return state.ignored
