"""The values of observations in a tree: their fingerprint, and the first that differs."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from layercache._base.classes import frozen
from layercache.model.digests import Fingerprint
from layercache.model.framing import frame
from layercache.model.observations import (
    ABSENT,
    ATTRIBUTES,
    BITS,
    CONTENT,
    CONTRACT,
    FOUND,
    LINK,
    LISTING,
    METADATA,
    SINCE,
    SIZE,
    Observations,
)
from layercache.model.tree import Linked, Node, Timed, Tree

if TYPE_CHECKING:
    from layercache.model.instruction import Value

__all__ = ["Derive", "ObservedDifference", "Values", "values_of"]

_CONTEXT: Final = f"layercache 2026-11 fingerprint of observations, contract {CONTRACT}"
_SHORT: Final = "layercache 2026-11 short values of observations 1"
_WIDTH: Final = 6
"""Bytes kept of each value: enough to detect a difference; no key rests on them."""

_NOTHING: Final = b"-"
_NODE: Final = struct.Struct("<IIIQQ").pack
_TYPES: Final = {
    stat.S_IFREG: b"f",
    stat.S_IFDIR: b"d",
    stat.S_IFLNK: b"l",
    stat.S_IFCHR: b"c",
    stat.S_IFBLK: b"b",
    stat.S_IFIFO: b"p",
    stat.S_IFSOCK: b"s",
}

Derive = Callable[[str, str, Tree], "Value"]
"""Resolves ("user", USER) or ("owner", CHOWN) in the accounts of a tree."""


@frozen
class ObservedDifference:
    """An observation whose value differs: the path, and the kind of difference (a value of
    `reports.reasons.WHATS`).
    """

    path: str
    what: str


@frozen
class Values:
    """The values of observations in one tree, in the order of the rows and of `BITS`."""

    observations: Observations
    parts: tuple[bytes, ...]

    @property
    def fingerprint(self) -> Fingerprint:
        """The digest of all values."""
        hasher = blake3(derive_key_context=_CONTEXT)
        hasher.update(frame(self.parts))
        return Fingerprint(hasher.hexdigest())

    def shorten(self) -> bytes:
        """A few bytes of each value, for explanations; absence is kept distinct."""
        found = bytearray()
        for part in self.parts:
            if part == _NOTHING:
                found += bytes(_WIDTH)
            else:
                found += b"\1" + blake3(part, derive_key_context=_SHORT).digest(_WIDTH - 1)
        return bytes(found)

    def first_difference(self, earlier: bytes) -> ObservedDifference | None:
        """The first value that changed; `earlier` is the earlier result of `shorten`."""
        now = self.shorten()
        if now == earlier or len(now) != len(earlier):
            return None
        places = range(0, len(now), _WIDTH)
        at = next(n for n in places if now[n : n + _WIDTH] != earlier[n : n + _WIDTH])
        place = at // _WIDTH
        was, is_now = any(earlier[at : at + _WIDTH]), any(now[at : at + _WIDTH])
        derived = self.observations.derived
        if place < len(derived):
            kind, text = derived[place]
            return ObservedDifference(f"{kind} {text or 'root'}", "value")
        place -= len(derived)
        for path, bits in self.observations.rows:
            for bit in BITS:
                if not bits & bit:
                    continue
                if place == 0:
                    what = _WHAT[bit]
                    if bit in (ABSENT, FOUND) and was != is_now:
                        what = "added" if is_now else "removed"
                    return ObservedDifference(os.fsdecode(b"/" + path), what)
                place -= 1
        return None


_WHAT: Final = {
    ABSENT: "metadata",
    FOUND: "metadata",
    METADATA: "time",
    SIZE: "size",
    LINK: "link",
    CONTENT: "content",
    LISTING: "listing",
    ATTRIBUTES: "xattr",
}


def values_of(observations: Observations, tree: Tree, derive: Derive) -> Values:
    """The values of `observations` in `tree`.

    No bytes of files are read, except those of accounts by `derive`; costs a lookup for each
    row, and one for each entry of a listed directory.
    """
    parts = [
        frame(_age(text, tree) if kind == SINCE else derive(kind, text, tree))
        for kind, text in observations.derived
    ]
    ranks = _ranks(observations, tree)
    names = tree.names if isinstance(tree, Linked) else _no_names
    lookup = tree.lookup
    for path, bits in observations.rows:
        node = lookup(path)
        if node is None:
            parts += [_NOTHING] * bits.bit_count()
            continue
        if bits & (ABSENT | FOUND):
            parts.append(_identity(node))
        if bits & CONTENT:
            parts.append(b"is " + node.content)
        if bits & LINK:
            parts.append(b"to " + node.link)
        if bits & LISTING:
            parts.append(_listing(tree, path, node))
        if bits & ATTRIBUTES:
            parts.append(frame(node.xattrs))
        if bits & SIZE:
            parts.append(_size(node))
        if bits & METADATA:
            others = names(path) if node.is_file else ()
            rank = ranks.get(path)
            time = b"%d" % node.mtime if rank is None else b"#%d" % rank
            parts.append(frame((time, *others)) if others else time)
    return Values(observations, tuple(parts))


def _age(path: str, tree: Tree) -> int | None:
    return tree.age(os.fsencode(path)) if isinstance(tree, Timed) else None


def _ranks(observations: Observations, tree: Tree) -> Mapping[bytes, int]:
    """The order of the observed times that were not set on purpose.

    Only the order counts, not the times, so that an additional earlier instruction changes nothing
    for a step that reads none of its files.
    """
    if not isinstance(tree, Timed):
        return {}
    moments = {
        path: tree.moment(path)
        for path, bits in observations.rows
        if bits & METADATA and tree.code(path) is not None
    }
    order = {moment: n for n, moment in enumerate(sorted(set(moments.values())))}
    return {path: order[moment] for path, moment in moments.items()}


def _no_names(path: bytes) -> Sequence[bytes]:
    return ()


def _identity(node: Node) -> bytes:
    found = _NODE(node.mode, node.uid, node.gid, *node.device)
    return found + frame(node.xattrs) if node.xattrs else found


def _size(node: Node) -> bytes:
    if node.is_link:
        return b"%d" % len(node.link)
    return b"%d" % node.size if node.is_file else b"none"


def _listing(tree: Tree, path: bytes, node: Node) -> bytes:
    if not node.is_dir:
        return b"no directory"
    prefix = path + b"/" if path else b""
    found = []
    for name in tree.children(path):
        child = tree.lookup(prefix + name)
        kind = b"?" if child is None else _TYPES.get(stat.S_IFMT(child.mode), b"?")
        found.append(kind + name)
    return b"\0".join(found)
