"""The digest of a layer's list of entries: what identifies a layer that this library made.

A Merkle digest, directory by directory, over everything that the layer's archive says: names,
types, modes, owners, times, attributes, link targets, names of one file, contents, deletions and
opaque directories. Offsets don't count, as they follow from the rest. So the archive is a function
of the tree, and equal layers have equal digests whether or not anybody made an archive of them.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from blake3 import blake3

from layercache.model.digests import TreeDigest

__all__ = ["Row", "tree_digest"]

Row: TypeAlias = tuple[int, int, int, int, int, int, int, bytes]
"""Mode, uid, gid, size, mtime, offset, flags, content digest (32 bytes, zero for no file)."""

_Special: TypeAlias = "dict[int, list[tuple[int, bytes]]]"
"""Row → what only some rows have."""

_LIST: Final = "layercache 2026-11 entries of a layer's directory 1"
_NOTHING_BELOW: Final = bytes(32)

_LINK, _HARDLINK, _DEVICE, _ATTRIBUTES, _LOWER_LINK = range(5)
_SPARSE: Final = struct.Struct("<IBI")


def tree_digest(
    paths: Sequence[bytes],
    rows: Sequence[Row],
    links: Mapping[int, bytes],
    hardlinks: Mapping[int, bytes],
    devices: Mapping[int, tuple[int, int]],
    xattrs: Mapping[int, tuple[tuple[bytes, bytes], ...]],
    lower_links: Mapping[int, bytes],
) -> TreeDigest:
    """The digest of the entries of a canonical index (`LayerIndex`), as `blake3:` and 64 hex
    digits."""
    below: dict[bytes | None, list[int]] = {}
    for row, path in enumerate(paths):
        parent = path.rpartition(b"/")[0] if path else None
        group = below.get(parent)
        if group is None:
            below[parent] = [row]
        else:
            group.append(row)
    special = _special(links, hardlinks, devices, xattrs)
    for row, target in lower_links.items():
        special.setdefault(row, []).append((_LOWER_LINK, target))
    made: dict[bytes | None, bytes] = {}
    # A directory's rows begin after its own: from the end on, children come before parents.
    for directory in reversed(below):
        made[directory] = _digest(paths, rows, below[directory], made, special)
    return TreeDigest("blake3:" + made.get(None, _NOTHING_BELOW).hex())


def _digest(
    paths: Sequence[bytes],
    table: Sequence[Row],
    rows: Sequence[int],
    made: dict[bytes | None, bytes],
    special: _Special,
) -> bytes:
    """The digest of one directory's entries.

    Injective: the counts come first, the length of every column but the names' follows from them,
    and names hold no NUL.
    """
    columns = zip(*[table[row] for row in rows], strict=True)
    modes, uids, gids, sizes, times, _, flags, contents = columns
    count = len(rows)
    digests = list(contents)
    for at, mode in enumerate(modes):
        if stat.S_ISDIR(mode):
            digests[at] = made.get(paths[rows[at]], _NOTHING_BELOW)
    names = b"\0".join([paths[row].rpartition(b"/")[2] for row in rows])
    sparse = []
    if special:
        for at, row in enumerate(rows):
            for kind, value in special.get(row, ()):
                sparse.append(_SPARSE.pack(at, kind, len(value)) + value)
    parts = (
        struct.pack("<III", count, len(names), len(sparse)),
        struct.pack(f"<{count}I", *modes),
        struct.pack(f"<{count}I", *uids),
        struct.pack(f"<{count}I", *gids),
        struct.pack(f"<{count}Q", *sizes),
        struct.pack(f"<{count}q", *times),
        bytes(flags),
        *digests,
        names,
        *sparse,
    )
    return blake3(b"".join(parts), derive_key_context=_LIST).digest()


def _special(
    links: Mapping[int, bytes],
    hardlinks: Mapping[int, bytes],
    devices: Mapping[int, tuple[int, int]],
    xattrs: Mapping[int, tuple[tuple[bytes, bytes], ...]],
) -> _Special:
    """What only some rows have: link targets, names of one file, devices, attributes."""
    found: _Special = {}
    for row, target in links.items():
        found.setdefault(row, []).append((_LINK, target))
    for row, target in hardlinks.items():
        found.setdefault(row, []).append((_HARDLINK, target))
    for row, device in devices.items():
        found.setdefault(row, []).append((_DEVICE, struct.pack("<QQ", *device)))
    for row, pairs in xattrs.items():
        packed = [
            struct.pack("<II", len(name), len(value)) + name + value
            for name, value in sorted(pairs)
        ]
        found.setdefault(row, []).append((_ATTRIBUTES, b"".join(packed)))
    return found
