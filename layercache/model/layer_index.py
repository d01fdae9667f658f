"""The index of a layer: its entries, and the offsets of the files' bytes.

Derived from the uncompressed tar, so damage costs only a second pass over the layer. A
`LayerIndex` is canonical: one row for each path, sorted depth first, with a row for every
directory above an entry (an *implied* row if the layer itself has no entry for that directory).
One module, because the builder, the index and the stored form share its columns.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, runtime_checkable

from blake3 import blake3

from layercache._base.classes import frozen
from layercache.errors import CorruptObject
from layercache.model.digests import TreeDigest
from layercache.model.index_paths import check_name, check_paths
from layercache.model.layer_times import LAYER_TIME, code_of
from layercache.model.logical_clock import LayerTimes
from layercache.model.tree import Node

if TYPE_CHECKING:
    from layercache.model.descriptors import Layer
    from layercache.model.tree_digest import Row

__all__ = ["Entry", "IndexBuilder", "KeepsIndex", "LayerIndex", "sort_key"]

LOWER_LINK: Final = 16
HARDLINK: Final = 8
IMPLIED: Final = 4
OPAQUE: Final = 2
WHITEOUT: Final = 1

_MAGIC: Final = b"layercache layer index 2\n"
_MAGIC_WITH_LOWER_LINKS: Final = b"layercache layer index 3\n"
_HEAD: Final = struct.Struct("<6Q")
_COUNT: Final = struct.Struct("<Q")
_CHECK: Final = 32
_TREE: Final = 32
NO_CONTENT: Final = bytes(32)
_DIRECTORY: Final = 0o40755

T = TypeVar("T")


def sort_key(path: bytes) -> bytes:
    """Sort key for paths: depth first, siblings by their bytes; names hold no NUL."""
    return path.replace(b"/", b"\0")


@frozen
class Entry:
    """One path of a layer.

    `node` is None if the layer deletes the path. `offset` is the position of a file's bytes in
    the uncompressed tar. `hardlink` is the path of which the entry is another name; its node and
    offset are then those of that path. `opaque`: entries of the directory in lower layers are
    hidden. `implied`: the layer holds something beneath this directory but no entry for it.
    `lower`: `hardlink` is a file of a lower layer, and `node` only what the link's own header says
    (`layers.lower_links` finds the file).
    """

    path: bytes
    node: Node | None
    offset: int = 0
    hardlink: bytes | None = None
    opaque: bool = False
    implied: bool = False
    lower: bool = False


class LayerIndex:
    """All entries of a layer, looked up by path. Immutable; safe for threads.

    Made with `of` or `decode`; iterates over its entries, sorted depth first.
    """

    __slots__ = (
        "_bound",
        "_children",
        "_rows",
        "_shown",
        "_table",
        "_times",
        "_tree",
        "devices",
        "digests",
        "hardlinks",
        "lenders",
        "link_targets",
        "links",
        "lower_links",
        "paths",
        "xattrs",
    )

    def __init__(
        self,
        paths: Sequence[bytes],
        table: Sequence[Row],
        links: dict[int, bytes],
        hardlinks: dict[int, bytes],
        devices: dict[int, tuple[int, int]],
        xattrs: dict[int, tuple[tuple[bytes, bytes], ...]],
        lower_links: dict[int, bytes] | None = None,
        lenders: dict[int, int] | None = None,
    ) -> None:
        self.paths = paths
        self._table = table
        self.links = links
        self.hardlinks = hardlinks
        self.devices = devices
        self.xattrs = xattrs
        self.lower_links = lower_links or {}
        """Row → the file of a lower layer that the row is another name of, not yet found there."""
        self.lenders = lenders or {}
        """Row → number of the lower layer in whose tar the content of the row is."""
        self.digests: dict[bytes, bytes] = {}
        """Directory digests of whole subtrees, filled in by `StateTree`."""
        self.link_targets = frozenset(hardlinks.values())
        """Paths to which hard links of this layer add further names."""
        self._rows: dict[bytes, int] | None = None
        self._children: dict[bytes, list[bytes]] | None = None
        self._times: LayerTimes | None = None
        self._shown: tuple[tuple[int, ...], LayerIndex] | None = None
        self._tree: TreeDigest | None = None
        self._bound: tuple[tuple[LayerIndex, ...], LayerIndex] | None = None

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> LayerIndex:
        """An index of `entries` in any order; see `IndexBuilder` for the rules."""
        builder = IndexBuilder()
        for entry in entries:
            builder.put(entry)
        return builder.build()

    # -- reading ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Entry]:
        xattrs = self.xattrs
        for row, values in enumerate(self._table):
            mode, uid, gid, size, mtime, offset, flags, content = values
            if flags or mode & 0o170000 != 0o100000:
                yield self.entry(row)
                continue
            # As `entry` gives it, in half the time: nearly all entries are plain files.
            attributes = xattrs.get(row, ())
            node = Node(mode, uid, gid, size, mtime, content, b"", (0, 0), attributes)
            yield Entry(self.paths[row], node, offset)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerIndex) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]

    def row(self, path: bytes) -> int | None:
        """The number of the row of `path`, None if the layer has no entry for it."""
        rows = self._rows
        if rows is None:
            rows = self._rows = dict(zip(self.paths, range(len(self.paths)), strict=True))
        return rows.get(path)

    def mode(self, row: int) -> int:
        """The mode with type bits of a row; 0 for a deletion."""
        return self._table[row][0]

    def flags(self, row: int) -> int:
        """WHITEOUT, OPAQUE, IMPLIED and HARDLINK of a row."""
        return self._table[row][6]

    def content(self, row: int) -> tuple[int, int]:
        """Offset and size in bytes of a file's content in the uncompressed tar."""
        values = self._table[row]
        return values[5], values[3]

    def code(self, row: int) -> int | None:
        """The code of a row's time (`layer_times`); None for one that was set on purpose, and
        for what has no time of its own."""
        values = self._table[row]
        if values[6] & (WHITEOUT | IMPLIED):
            return None
        return code_of(values[4], values[7] if values[0] & 0o170000 == 0o100000 else None)

    @property
    def tree(self) -> TreeDigest:
        """The digest of all entries, which identifies the layer."""
        if self._tree is None:
            from layercache.model.tree_digest import tree_digest

            self._tree = tree_digest(
                self.paths,
                self._table,
                self.links,
                self.hardlinks,
                self.devices,
                self.xattrs,
                self.lower_links,
            )
        return self._tree

    @property
    def times(self) -> LayerTimes:
        """What the logical clock needs of this layer."""
        if self._times is None:
            newest = LAYER_TIME
            codes = set()
            purpose = False
            for mode, _, _, _, mtime, _, flags, content in self._table:
                if mtime > LAYER_TIME:
                    newest, purpose = max(newest, mtime), True
                elif mtime == LAYER_TIME:
                    codes.add(0)
                elif not flags & (WHITEOUT | IMPLIED):
                    code = code_of(mtime, content if mode & 0o170000 == 0o100000 else None)
                    if code is None:
                        purpose = True
                    else:
                        codes.add(code)
            self._times = LayerTimes(newest, tuple(sorted(codes)), purpose)
        return self._times

    def shown(self, moments: Sequence[int]) -> LayerIndex:
        """This index with the times at which a step sees it: `moments` are those of its codes,
        in the order of `times.codes`."""
        key = tuple(moments)
        if not key:
            return self
        kept = self._shown
        if kept is not None and kept[0] == key:
            return kept[1]
        at = dict(zip(self.times.codes, key, strict=True))
        table = []
        for row, values in enumerate(self._table):
            code = self.code(row) if values[4] <= LAYER_TIME else None
            if code is not None:
                values = (*values[:4], at[code], *values[5:])
            table.append(values)
        found = self._with(table)
        self._shown = key, found
        return found

    def files(self) -> Iterator[tuple[int, Row]]:
        """The rows of regular files, hard links included, each with its number."""
        for row, values in enumerate(self._table):
            if values[0] & 0o170000 == 0o100000:
                yield row, values

    def moved(self, offsets: Mapping[int, int]) -> LayerIndex:
        """This index with the contents of some rows at other offsets of its own tar."""
        table = list(self._table)
        for row, offset in offsets.items():
            values = table[row]
            table[row] = (*values[:5], offset, *values[6:])
        found = self._with(table)
        found.lenders = {row: of for row, of in self.lenders.items() if row not in offsets}
        return found

    def _with(self, table: Sequence[Row]) -> LayerIndex:
        found = LayerIndex(
            self.paths,
            table,
            self.links,
            self.hardlinks,
            self.devices,
            self.xattrs,
            self.lower_links,
            self.lenders,
        )
        found._rows, found._children = self._rows, self._children
        return found

    def bound(
        self, below: tuple[LayerIndex, ...], bind: Callable[[LayerIndex], LayerIndex]
    ) -> LayerIndex:
        """What `bind` makes of this index above the layers `below`; kept for the next call."""
        kept = self._bound
        if (
            kept is not None
            and len(kept[0]) == len(below)
            and all(map(operator.is_, kept[0], below))
        ):
            return kept[1]
        found = bind(self)
        self._bound = below, found
        return found

    def names(self, path: bytes) -> Sequence[bytes]:
        """All names of the file at `path`, sorted, if the layer gives it several; else empty."""
        row = self.row(path)
        target = path if row is None else self.hardlinks.get(row, path)
        if target not in self.link_targets:
            return ()
        others = [self.paths[at] for at, to in self.hardlinks.items() if to == target]
        return sorted([target, *others])

    def get(self, path: bytes) -> Entry | None:
        """The entry at `path`, None if the layer has no entry for it."""
        row = self.row(path)
        return None if row is None else self.entry(row)

    def node(self, row: int) -> Node:
        """The node of a row that is not a deletion."""
        mode, uid, gid, size, mtime, _, _, content = self._table[row]
        return Node(
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime,
            content=content if mode & 0o170000 == 0o100000 else b"",
            link=self.links.get(row, b""),
            device=self.devices.get(row, (0, 0)),
            xattrs=self.xattrs.get(row, ()),
        )

    def entry(self, row: int) -> Entry:
        """The entry of a row."""
        flags = self._table[row][6]
        return Entry(
            path=self.paths[row],
            node=None if flags & (WHITEOUT | IMPLIED) else self.node(row),
            offset=self._table[row][5],
            hardlink=self.lower_links.get(row) if flags & LOWER_LINK else self.hardlinks.get(row),
            opaque=bool(flags & OPAQUE),
            implied=bool(flags & IMPLIED),
            lower=bool(flags & LOWER_LINK),
        )

    def children(self, path: bytes) -> Sequence[bytes]:
        """The names directly below `path`, deletions included, sorted."""
        children = self._children
        if children is None:
            children = {}
            for child in self.paths:
                if child:
                    parent, _, name = child.rpartition(b"/")
                    children.setdefault(parent, []).append(name)
            self._children = children
        return children.get(path, ())

    # -- bytes ------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The index as bytes: its digest, columns, sparse columns, names; a BLAKE3 checksum at the
        end."""
        count = len(self.paths)
        columns = list(zip(*self._table, strict=True)) if count else [()] * 8
        names = b"\0".join(self.paths)
        xattrs = [(row, *pair) for row, pairs in self.xattrs.items() for pair in pairs]
        sizes = (len(self.links), len(self.hardlinks), len(self.devices), len(xattrs))
        lower = self.lower_links
        parts = [
            _MAGIC_WITH_LOWER_LINKS if lower else _MAGIC,
            bytes.fromhex(self.tree.partition(":")[2]),
            _HEAD.pack(count, len(names), *sizes),
            *(struct.pack(f"<{count}I", *columns[n]) for n in range(3)),
            *(struct.pack(f"<{count}Q", *columns[n]) for n in (3, 5)),
            struct.pack(f"<{count}q", *columns[4]),
            bytes(columns[6]),
            b"".join(columns[7]),
            names,
        ]
        for sparse in (self.links, self.hardlinks):
            parts += [_pair(row, b"", value) for row, value in sparse.items()]
        parts += [struct.pack("<3Q", row, *numbers) for row, numbers in self.devices.items()]
        parts += [_pair(row, name, value) for row, name, value in xattrs]
        if lower:
            parts += [_COUNT.pack(len(lower)), *(_pair(row, b"", to) for row, to in lower.items())]
        body = b"".join(parts)
        return body + blake3(body).digest()

    @classmethod
    def decode(cls, data: bytes) -> LayerIndex:
        """The inverse of `encode`; raises `CorruptObject` for any other bytes.

        A checksum detects only accidents, so the canonical form is checked too: no name leads out
        of the layer, each name occurs once and in order, and every parent is a directory.
        """
        try:
            return cls._decode(data)
        except (struct.error, OverflowError, MemoryError, ValueError) as error:
            raise CorruptObject(
                f"a layer index is malformed ({error}); it will be made again"
            ) from error

    @classmethod
    def _decode(cls, data: bytes) -> LayerIndex:
        end = len(data) - _CHECK
        with_lower_links = data.startswith(_MAGIC_WITH_LOWER_LINKS)
        known = with_lower_links or data.startswith(_MAGIC)
        if not known or end < len(_MAGIC) + _TREE + _HEAD.size:
            raise CorruptObject("not a layer index of this version; it will be made again")
        if blake3(memoryview(data)[:end]).digest() != data[end:]:
            raise CorruptObject("a layer index does not match its checksum; it will be made again")
        at = len(_MAGIC) + _TREE
        tree = data[len(_MAGIC) : at].hex()
        count, size, *sizes = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if count * _ROW + size + sum(sizes) * _PAIR.size > end - at:
            raise CorruptObject("a layer index counts more than it holds; it will be made again")
        columns: list[Sequence[int]] = []
        for kind, width in (("I", 4), ("I", 4), ("I", 4), ("Q", 8), ("Q", 8), ("q", 8)):
            columns.append(struct.unpack_from(f"<{count}{kind}", data, at))
            at += count * width
        mode, uid, gid, length, offset, mtime = columns
        flags = data[at : at + count]
        at += count
        step = range(at, at + 32 * count, 32)
        digests = [data[n : n + 32] for n in step]
        at += 32 * count
        paths = data[at : at + size].split(b"\0") if count else []
        at += size
        table = list(zip(mode, uid, gid, length, mtime, offset, flags, digests, strict=True))
        links: dict[int, bytes] = {}
        hardlinks: dict[int, bytes] = {}
        for sparse, number in ((links, sizes[0]), (hardlinks, sizes[1])):
            for _ in range(number):
                row, _, value, at = _read_pair(data, at)
                sparse[row] = value
        nodes: dict[int, tuple[int, int]] = {}
        for _ in range(sizes[2]):
            row, major, minor = _PAIR.unpack_from(data, at)
            nodes[row] = (major, minor)
            at += _PAIR.size
        xattrs: dict[int, tuple[tuple[bytes, bytes], ...]] = {}
        for _ in range(sizes[3]):
            row, name, value, at = _read_pair(data, at)
            xattrs[row] = (*xattrs.get(row, ()), (name, value))
        lower_links: dict[int, bytes] = {}
        if with_lower_links:
            lower_links, at = _read_lower_links(data, at, end)
        if at != end or len(paths) != count:
            raise CorruptObject("a layer index has a wrong length; it will be made again")
        types = [0 if flags[n] & WHITEOUT else mode[n] & 0o170000 for n in range(count)]
        check_paths(paths, [one == 0o40000 for one in types])
        if lower_links.keys() != {n for n in range(count) if flags[n] & LOWER_LINK}:
            raise CorruptObject("a layer index has other links than it says; it will be made again")
        for sparse_rows in (links, hardlinks, nodes, xattrs):
            if any(row >= count for row in sparse_rows):
                raise CorruptObject("a layer index describes no row of its; it will be made again")
        for target in (*hardlinks.values(), *lower_links.values()):
            check_name(target)
        found = cls(paths, table, links, hardlinks, nodes, xattrs, lower_links)
        found._tree = TreeDigest(f"blake3:{tree}")
        return found


_PAIR: Final = struct.Struct("<3Q")
_ROW: Final = 3 * 4 + 3 * 8 + 1 + 32
"""Bytes of a row in all columns, without its name."""


def _pair(row: int, name: bytes, value: bytes) -> bytes:
    return _PAIR.pack(row, len(name), len(value)) + name + value


def _read_pair(data: bytes, at: int) -> tuple[int, bytes, bytes, int]:
    row, name, value = _PAIR.unpack_from(data, at)
    at += _PAIR.size
    middle = at + name
    return row, data[at:middle], data[middle : middle + value], middle + value


def _read_lower_links(data: bytes, at: int, end: int) -> tuple[dict[int, bytes], int]:
    (number,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    if number * _PAIR.size > end - at:
        raise CorruptObject("a layer index counts more than it holds; it will be made again")
    found = {}
    for _ in range(number):
        row, _, target, at = _read_pair(data, at)
        found[row] = target
    return found, at


@runtime_checkable
class KeepsIndex(Protocol):
    """Optional for a `Blobs`: accepts the index that was made while the layer was written, which
    saves reading the layer again.
    """

    def keep_index(self, layer: Layer, index: LayerIndex) -> None: ...


class IndexBuilder:
    """Collects rows in any order and makes the canonical index of them.

    Every directory above an entry gets a row. A path that is deleted and present again becomes
    one row: an opaque directory, or just the new node. The hot path of a writer may set `rows`
    itself.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, Row] = {}
        self.links: dict[bytes, bytes] = {}
        self.hardlinks: dict[bytes, bytes] = {}
        self.devices: dict[bytes, tuple[int, int]] = {}
        self.xattrs: dict[bytes, tuple[tuple[bytes, bytes], ...]] = {}
        self.lower_links: dict[bytes, bytes] = {}

    def put(self, entry: Entry) -> None:
        """Add an entry; the later of two nodes at one path wins."""
        path, node = entry.path, entry.node
        flags = OPAQUE if entry.opaque else 0
        if node is None:
            flags |= IMPLIED if entry.implied else WHITEOUT
            self._put_flags(path, flags)
            return
        earlier = self.rows.get(path)
        if earlier is not None and earlier[6] & (OPAQUE | WHITEOUT) and node.is_dir:
            flags |= OPAQUE
        for sparse in self._sparse:
            sparse.pop(path, None)
        if entry.hardlink is not None and entry.lower:
            flags |= LOWER_LINK
            self.lower_links[path] = entry.hardlink
        elif entry.hardlink is not None:
            flags |= HARDLINK
            self.hardlinks[path] = entry.hardlink
        if node.link:
            self.links[path] = node.link
        if node.device != (0, 0):
            self.devices[path] = node.device
        if node.xattrs:
            self.xattrs[path] = node.xattrs
        self.rows[path] = (
            node.mode,
            node.uid,
            node.gid,
            node.size,
            node.mtime,
            entry.offset,
            flags,
            node.content or NO_CONTENT,
        )

    def forget(self, path: bytes) -> None:
        """Remove the entry at `path` and all entries below, as if they had never been put.

        The remaining names of a removed file stay names of one file.
        """
        inside = path + b"/"
        gone = {other for other in self.rows if other == path or other.startswith(inside)}
        heirs: dict[bytes, bytes] = {}
        for other in gone:
            del self.rows[other]
            for sparse in self._sparse:
                sparse.pop(other, None)
        for name, target in list(self.hardlinks.items()):
            if target in gone:
                first = heirs.setdefault(target, name)
                if first is name:
                    del self.hardlinks[name]
                    row = self.rows[name]
                    self.rows[name] = (*row[:6], row[6] & ~HARDLINK, row[7])
                else:
                    self.hardlinks[name] = first

    @property
    def _sparse(self) -> tuple[dict[bytes, Any], ...]:
        return self.links, self.hardlinks, self.devices, self.xattrs, self.lower_links

    def _put_flags(self, path: bytes, flags: int) -> None:
        earlier = self.rows.get(path)
        if earlier is None:
            self.rows[path] = _bare(flags)
        elif not earlier[6] & (WHITEOUT | IMPLIED):
            if flags & (WHITEOUT | OPAQUE) and earlier[0] & 0o170000 == 0o40000:
                self.rows[path] = (*earlier[:6], earlier[6] | OPAQUE, earlier[7])
        else:
            self.rows[path] = _bare(flags | earlier[6])

    def build(self) -> LayerIndex:
        """The index of all rows so far."""
        rows = self.rows
        for path in list(rows):
            while path:
                path = path.rpartition(b"/")[0]
                above = rows.get(path)
                if above is None:
                    rows[path] = _bare(IMPLIED)
                    continue
                if above[6] & WHITEOUT:
                    rows[path] = _bare(IMPLIED | OPAQUE)
                break
        paths = sorted(rows, key=sort_key)
        numbers = {path: number for number, path in enumerate(paths)}
        return LayerIndex(
            paths,
            [rows[path] for path in paths],
            _by_row(self.links, numbers),
            _by_row(self.hardlinks, numbers),
            _by_row(self.devices, numbers),
            _by_row(self.xattrs, numbers),
            _by_row(self.lower_links, numbers),
        )


def _by_row(values: dict[bytes, T], numbers: dict[bytes, int]) -> dict[int, T]:
    return dict(sorted((numbers[path], value) for path, value in values.items()))


def _bare(flags: int) -> Row:
    """The row of a path without a node of its own."""
    if flags & IMPLIED:
        if flags & WHITEOUT:
            flags = (flags | OPAQUE) & ~WHITEOUT
        return (_DIRECTORY, 0, 0, 0, 0, 0, flags, NO_CONTENT)
    return (0, 0, 0, 0, 0, 0, WHITEOUT, NO_CONTENT)
