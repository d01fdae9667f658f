"""Listings: the flat manifest behind a fingerprint of files, and how two of them differ. Pure.

Kept beside a record so that a later miss can be explained down to the file; never evidence.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence
from typing import Final

import attrs

from layercache.errors import CorruptObject
from layercache.selections import Files, select, walk
from layercache.trees import Tree, node_digest

__all__ = ["FileChange", "Row", "decode_listing", "diff_listings", "encode_listing", "listing"]

_MAGIC: Final = b"layercache listing 1\n"
_COUNT: Final = struct.Struct("<I")
_NO_DIGEST: Final = bytes(32)


@attrs.frozen
class Row:
    """One selected path: what of it counts. `digest` is zero for a directory."""

    path: bytes
    mode: int
    uid: int
    gid: int
    digest: bytes


@attrs.frozen
class FileChange:
    """How one path differs; `old` is where a renamed file was before."""

    path: str
    what: str
    old: str | None = None


def listing(tree: Tree, files: Files) -> tuple[Row, ...]:
    """Everything that `files` selects in `tree`, in order; raises what `select` raises."""
    rows: dict[bytes, Row] = {}
    for match in select(tree, files):
        for _, path, node in walk(tree, match):
            digest = _NO_DIGEST if node.is_dir else node_digest(node)
            mode = node.mode if path else stat.S_IFMT(node.mode)
            rows.setdefault(path, Row(path, mode, node.uid, node.gid, digest))
    return tuple(rows.values())


def encode_listing(rows: Sequence[Row]) -> bytes:
    """Columns: count, modes, owners, digests, paths joined by NUL."""
    count = len(rows)
    return b"".join(
        [
            _MAGIC,
            _COUNT.pack(count),
            struct.pack(f"<{count}I", *[row.mode for row in rows]),
            struct.pack(f"<{2 * count}I", *[n for row in rows for n in (row.uid, row.gid)]),
            *[row.digest for row in rows],
            b"\0".join([row.path for row in rows]),
        ]
    )


def decode_listing(data: bytes) -> tuple[Row, ...]:
    """The inverse of `encode_listing`; raises `CorruptObject`."""
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("another kind of object")
        at = len(_MAGIC)
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        modes = struct.unpack_from(f"<{count}I", data, at)
        at += 4 * count
        owners = struct.unpack_from(f"<{2 * count}I", data, at)
        at += 8 * count
        digests = [data[at + 32 * n : at + 32 * (n + 1)] for n in range(count)]
        at += 32 * count
        paths = data[at:].split(b"\0") if count else []
        if len(paths) != count:
            raise ValueError("the paths are not as many as the rows")
    except (struct.error, ValueError) as error:
        raise CorruptObject(f"a listing can't be read: {error}") from error
    return tuple(
        Row(path, mode, owners[2 * n], owners[2 * n + 1], digest)
        for n, (path, mode, digest) in enumerate(zip(paths, modes, digests, strict=True))
    )


def diff_listings(old: Sequence[Row], new: Sequence[Row]) -> tuple[FileChange, ...]:
    """What changed from `old` to `new`, by path; a rename is found by equal content.

    What lies below an added or removed directory is listed too, the directory itself only when
    it is empty.
    """
    before = {row.path: row for row in old}
    after = {row.path: row for row in new}
    removed = [row for row in old if row.path not in after]
    added = [row for row in new if row.path not in before]
    gone = {_identity(row): row for row in removed if not stat.S_ISDIR(row.mode)}
    found: list[FileChange] = []
    renamed: set[bytes] = set()
    for row in added:
        source = gone.pop(_identity(row), None) if not stat.S_ISDIR(row.mode) else None
        if source is not None:
            renamed.add(source.path)
            found.append(FileChange(_text(row.path), "renamed", _text(source.path)))
        elif not _has_below(row, added):
            found.append(FileChange(_text(row.path), "added"))
    for row in removed:
        if row.path not in renamed and not _has_below(row, removed):
            found.append(FileChange(_text(row.path), "removed"))
    for path, row in after.items():
        earlier = before.get(path)
        if earlier is not None and earlier != row:
            found += [FileChange(_text(path), what) for what in _differences(earlier, row)]
    if not found and [r.path for r in old] != [r.path for r in new]:
        found.append(FileChange("", "order"))
    return tuple(sorted(found, key=lambda change: change.path))


def _identity(row: Row) -> tuple[int, bytes]:
    return stat.S_IFMT(row.mode), row.digest


def _has_below(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a directory is in the list with something below it (rows come parents first)."""
    if not stat.S_ISDIR(row.mode):
        return False
    prefix = row.path + b"/" if row.path else b""
    return any(other.path.startswith(prefix) and other is not row for other in rows)


def _differences(old: Row, new: Row) -> list[str]:
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return ["type"]
    found = []
    if old.digest != new.digest:
        found.append("link" if stat.S_ISLNK(new.mode) else "content")
    if old.mode != new.mode:
        found.append("mode")
    if (old.uid, old.gid) != (new.uid, new.gid):
        found.append("owner")
    return found


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "."
