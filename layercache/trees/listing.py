"""Listings: the flat manifest behind a fingerprint of files, and the comparison of two. Pure.

Kept beside a record so that a later miss can be explained down to the file; never evidence.
"""

from __future__ import annotations

import stat
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from layercache._base.classes import frozen
from layercache._base.paths import shown_below
from layercache.errors import CorruptObject
from layercache.model.digests import Fingerprint
from layercache.model.selectors import Files
from layercache.model.tree import Node, Tree, counted_attributes, described_digest, node_digest
from layercache.trees.selection import leading, select, walk

__all__ = [
    "FileChange",
    "Listed",
    "Lists",
    "Selects",
    "decode_listing",
    "diff_listings",
    "encode_listing",
    "list_by_walking",
    "listed_digest",
    "listing",
]

_MAGIC: Final = b"layercache listing 1\n"
_HEAD: Final = struct.Struct("<IIQ?")
_DIGEST: Final = 16
_DESCRIBED: Final = 1 << 31
"""Set in the stored mode of a directory that has a digest."""

MAX_LISTING: Final = 1 << 30
"""Bytes of a decoded listing; a larger one counts as damaged."""


class Listed(NamedTuple):
    """One selected path with the facts about it that count. A tree's root has no permission bits.

    The digest has 16 bytes: 8 of the content (or link target, or device), 8 of all facts,
    capabilities included. For a directory it is that of its attributes, empty if it has none.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    digest: bytes


@frozen
class FileChange:
    """A difference at one path between two listings; `path` is "." for the root.

    `what` is one of content, mode, owner, added, removed, renamed, link, type, xattr, order;
    `old` is the previous path of a renamed file.
    """

    path: str
    what: str
    old: str | None = None


class Lists(ABC):
    """A tree with a faster way to `listing`."""

    __slots__ = ()

    @abstractmethod
    def listing(self, files: Files) -> tuple[Listed, ...]: ...


class Selects(ABC):
    """Optional: a tree that fingerprints a selection faster than entry by entry."""

    __slots__ = ()

    @abstractmethod
    def fingerprint(self, files: Files) -> Fingerprint: ...


def listed_digest(node: Node) -> bytes:
    """The digest that a listing keeps of all facts about a node except mode and owner."""
    if node.is_dir:
        return described_digest(node, b"")[:_DIGEST]
    whole = node_digest(node)
    if node.is_file and counted_attributes(node):
        return node.content[:8] + whole[:8]
    return whole[:8] + whole[:8]


def listing(tree: Tree, files: Files) -> tuple[Listed, ...]:
    """All paths that `files` selects, each once, in order. Raises the errors of `select`."""
    found = tree.listing(files) if isinstance(tree, Lists) else list_by_walking(tree, files)
    if files.fixed_mode:
        return tuple([entry._replace(mode=stat.S_IFMT(entry.mode)) for entry in found])
    return found


def list_by_walking(tree: Tree, files: Files) -> tuple[Listed, ...]:
    """`listing` entry by entry, for any tree."""
    found: dict[bytes, Listed] = {}
    for match in select(tree, files):
        root = match.path[: len(match.path) - len(match.relative)]
        for relative, node in leading(tree, match):
            path = root + relative
            found.setdefault(path, Listed(path, node.mode, node.uid, node.gid, b""))
        for _, path, node in walk(tree, match):
            if path not in found:
                mode = node.mode if path else stat.S_IFMT(node.mode)
                found[path] = Listed(path, mode, node.uid, node.gid, listed_digest(node))
    return tuple(found.values())


def encode_listing(entries: Sequence[Listed]) -> bytes:
    """The listing in a compact binary form."""
    count = len(entries)
    owned = any(entry.uid or entry.gid for entry in entries)
    parts = [struct.pack(f"<{count}I", *map(_stored_mode, entries))]
    if owned:
        numbers = [number for entry in entries for number in (entry.uid, entry.gid)]
        parts.append(struct.pack(f"<{2 * count}I", *numbers))
    parts.append(b"\0".join([entry.path for entry in entries]))
    digests = b"".join([entry.digest for entry in entries])
    # Digests don't compress; the rest does, well.
    packed = zlib.compress(b"".join(parts), 1)
    return _MAGIC + _HEAD.pack(count, len(digests), len(packed), owned) + digests + packed


def _stored_mode(entry: Listed) -> int:
    return entry.mode | _DESCRIBED if stat.S_ISDIR(entry.mode) and entry.digest else entry.mode


def decode_listing(data: bytes) -> tuple[Listed, ...]:
    """The inverse of `encode_listing`; raises `CorruptObject`."""
    try:
        return tuple(_decode(data))
    except (struct.error, zlib.error, ValueError) as error:
        raise CorruptObject(f"a listing can't be read: {error}") from error


def _decode(data: bytes) -> Iterator[Listed]:
    start = len(_MAGIC) + _HEAD.size
    if not data.startswith(_MAGIC):
        raise ValueError("another kind of object")
    count, digests, packed, owned = _HEAD.unpack_from(data, len(_MAGIC))
    if len(data) != start + digests + packed:
        raise ValueError("another length than it says")
    inflater = zlib.decompressobj()
    rest = inflater.decompress(data[start + digests :], MAX_LISTING)
    if not inflater.eof:
        raise ValueError("too large or cut short")
    modes = struct.unpack_from(f"<{count}I", rest)
    at = 4 * count
    owners: tuple[int, ...] = ()
    if owned:
        owners = struct.unpack_from(f"<{2 * count}I", rest, at)
        at += 8 * count
    paths = rest[at:].split(b"\0") if count else []
    if len(paths) != count:
        raise ValueError("the numbers of paths and rows differ")
    place = start
    for number, (path, mode) in enumerate(zip(paths, modes, strict=True)):
        digest = b""
        described = mode & _DESCRIBED
        mode &= ~_DESCRIBED
        if described or not stat.S_ISDIR(mode):
            digest = data[place : place + _DIGEST]
            place += _DIGEST
        uid, gid = owners[2 * number : 2 * number + 2] if owned else (0, 0)
        yield Listed(path, mode, uid, gid, digest)
    if place != start + digests:
        raise ValueError("the numbers of digests and rows differ")


def diff_listings(old: Sequence[Listed], new: Sequence[Listed]) -> tuple[FileChange, ...]:
    """The changes from `old` to `new`, sorted by path; one path may have several changes.

    A removed file whose content was added elsewhere is `renamed`, if the match is unambiguous
    and the file is not empty. Files below an added or removed directory are listed, the directory
    itself only if it is empty.
    """
    before = {entry.path: entry for entry in old}
    after = {entry.path: entry for entry in new}
    gone = [entry for entry in before.values() if entry.path not in after]
    come = [entry for entry in after.values() if entry.path not in before]
    sources, targets = _unique(gone), _unique(come)
    moved: set[bytes] = set()
    changes: list[FileChange] = []
    for key in sources.keys() & targets.keys():
        source, target = sources[key], targets[key]
        moved |= {source.path, target.path}
        changes.append(FileChange(shown_below(target.path), "renamed", shown_below(source.path)))
        changes += _compare(source, target)
    for entries, what in ((gone, "removed"), (come, "added")):
        full = {path for entry in entries if (path := entry.path.rpartition(b"/")[0])}
        for entry in entries:
            if entry.path not in moved and not (entry.path in full and stat.S_ISDIR(entry.mode)):
                changes.append(FileChange(shown_below(entry.path), what))
    for path, entry in after.items():
        former = before.get(path)
        if former is not None and former != entry:
            changes += _compare(former, entry)
    if not changes and list(before) != list(after):
        changes.append(FileChange(".", "order"))
    return tuple(sorted(changes, key=lambda change: (change.path, change.what)))


_EMPTY: Final = bytes.fromhex("af1349b9f5f9a1a6")
"""First 8 bytes of BLAKE3 of nothing."""


def _unique(entries: Sequence[Listed]) -> dict[tuple[int, bytes], Listed]:
    """Entries by type and content, without entries that have no content or share it."""
    found: dict[tuple[int, bytes], Listed] = {}
    several: set[tuple[int, bytes]] = set()
    for entry in entries:
        content = entry.digest[:8]
        if content and content != _EMPTY and not stat.S_ISDIR(entry.mode):
            key = (stat.S_IFMT(entry.mode), content)
            if key in found:
                several.add(key)
            found[key] = entry
    return {key: entry for key, entry in found.items() if key not in several}


def _compare(old: Listed, new: Listed) -> list[FileChange]:
    path = shown_below(new.path)
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return [FileChange(path, "type")]
    found: list[FileChange] = []
    if old.digest[:8] != new.digest[:8] and not stat.S_ISDIR(new.mode):
        found.append(FileChange(path, "link" if stat.S_ISLNK(new.mode) else "content"))
    elif old.digest != new.digest:
        found.append(FileChange(path, "xattr"))
    if old.mode != new.mode:
        found.append(FileChange(path, "mode"))
    if (old.uid, old.gid) != (new.uid, new.gid):
        found.append(FileChange(path, "owner"))
    return found
