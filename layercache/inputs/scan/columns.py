"""A scanned tree as columns: the facts about every file and directory, without an object each.

Directories are in preorder, names sorted as bytes; files (everything but directories) are
grouped by directory in the same order, so that a subtree is one contiguous range of both.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import Any, Final

__all__ = ["DIGEST", "PACK", "ROW", "Columns", "Row", "preorder", "reported_mode", "row_of"]

Row = tuple[int, int, int, int, int, int]
"""Mode, size in bytes, mtime and ctime in nanoseconds, inode, device."""

PACK: Final = struct.Struct("<qqqqQQ")
ROW: Final = PACK.size
DIGEST: Final = 32

IGNORED: Final = 1
"""Flag of a directory that a pattern ignores, but below which something may be kept."""

UNREADABLE: Final = 2
"""Flag of a directory that can't be listed."""

row_of: Any = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
"""The `Row` of a `stat_result`."""

_SOCKET: Final = 0o140000
_REGULAR: Final = 0o100000
_FORMAT: Final = 0o170000


_SEARCH: Final = 50
"""Entries of a dictionary that can be made in the time of one search."""


def preorder(path: bytes) -> bytes:
    """Sort key of paths for preorder with sorted names (no name holds NUL)."""
    return path.replace(b"/", b"\0")


def reported_mode(mode: int) -> int:
    """The mode that a tree reports: a socket is copied as an empty file, as in BuildKit."""
    return mode & ~_FORMAT | _REGULAR if mode & _FORMAT == _SOCKET else mode


class Columns:
    """The columns; see the module. `known` has a byte for each file: 1 if its digest is valid.

    A directory's digest is known only as long as those of all entries below it are.
    """

    __slots__ = (
        "_asked", "_numbers", "_parents", "capabilities", "digests", "dir_digests", "dir_flags",
        "dir_known", "dir_names", "dir_paths", "dir_rows", "known", "known_ends", "rows",
        "starts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.dir_paths: list[bytes] = []
        self.dir_names: list[bytes] = []
        self.dir_rows = bytearray()
        self.dir_digests = bytearray()
        self.dir_known = bytearray()
        self.dir_flags = bytearray()
        self.starts = array("Q", [0])
        self.rows = bytearray()
        self.digests = bytearray()
        self.known = bytearray()
        self.capabilities: dict[int, tuple[bytes, bytes]] = {}
        self._asked = 0
        self.known_ends: array[int] | None = None
        self._parents: array[int] | None = None
        self._numbers: dict[bytes, int] | None = None

    def row(self, file: int) -> Row:
        return PACK.unpack_from(self.rows, file * ROW)

    def dir_row(self, directory: int) -> Row:
        return PACK.unpack_from(self.dir_rows, directory * ROW)

    def digest(self, file: int) -> bytes:
        return bytes(self.digests[file * DIGEST : file * DIGEST + DIGEST])

    def names(self, directory: int) -> list[bytes]:
        """The names of the files in a directory, sorted."""
        joined = self.dir_names[directory]
        return joined.split(b"\0") if joined else []

    def number(self, path: bytes) -> int | None:
        """The number of the directory at `path`."""
        if self._numbers is not None:
            return self._numbers.get(path)
        self._asked += 1
        if self._asked * _SEARCH > len(self.dir_paths):
            self._numbers = {path: number for number, path in enumerate(self.dir_paths)}
            return self._numbers.get(path)
        # For a few questions a search is cheaper than a dictionary of everything.
        found = bisect_left(self.dir_paths, preorder(path), key=preorder)
        if found < len(self.dir_paths) and self.dir_paths[found] == path:
            return found
        return None

    def _shape(self) -> None:
        # In preorder, a directory's parent is the last one begun that is a prefix of it.
        count = len(self.dir_paths)
        parents = array("q", [-1]) * count
        ends = array("q", [count]) * count
        above: list[int] = []
        prefixes: list[bytes] = []
        for number, path in enumerate(self.dir_paths):
            while prefixes and not path.startswith(prefixes[-1]):
                prefixes.pop()
                ends[above.pop()] = number
            if above:
                parents[number] = above[-1]
            above.append(number)
            prefixes.append(path + b"/" if path else b"")
        self._parents, self.known_ends = parents, ends

    @property
    def parents(self) -> array[int]:
        """The number of each directory's parent; -1 for the root."""
        if self._parents is None:
            self._shape()
        assert self._parents is not None
        return self._parents

    @property
    def ends(self) -> array[int]:
        """For each directory the number after the last directory below it."""
        if self.known_ends is None:
            self._shape()
        assert self.known_ends is not None
        return self.known_ends

    def child_directories(self, directory: int) -> list[int]:
        ends = self.ends
        found: list[int] = []
        number, end = directory + 1, ends[directory]
        while number < end:
            found.append(number)
            number = ends[number]
        return found

    def file_modes(self, start: int, end: int) -> bytes:
        """The modes of some files as little-endian u32."""
        column = array("q", bytes(self.rows[start * ROW : end * ROW]))
        if sys.byteorder == "big":
            column.byteswap()
        modes = array("I", column[0::6].tolist())
        if len(modes) and max(modes) >= _SOCKET:
            modes = array("I", map(reported_mode, modes))
        if sys.byteorder == "big":
            modes.byteswap()
        return modes.tobytes()

    def several_names(self) -> dict[tuple[int, int], list[int]]:
        """The files with more than one name in the tree: (inode, device) -> numbers."""
        column = array("Q", bytes(self.rows))
        if sys.byteorder == "big":
            column.byteswap()
        inodes = column[4::6]
        if len(set(inodes)) == len(inodes):
            return {}
        found: dict[tuple[int, int], list[int]] = {}
        for number, inode in enumerate(zip(inodes, column[5::6], strict=True)):
            found.setdefault(inode, []).append(number)
        return {inode: numbers for inode, numbers in found.items() if len(numbers) > 1}

    def forget_files(self, first: int, last: int) -> None:
        """Mark files as changed: they and all directories above become unknown."""
        self.known[first:last] = bytes(last - first)
        if self.capabilities:
            for file in [file for file in self.capabilities if first <= file < last]:
                del self.capabilities[file]
        directory = bisect_right(self.starts, first) - 1
        while directory < len(self.dir_paths) and self.starts[directory] < last:
            if self.starts[directory] != self.starts[directory + 1]:
                self.forget_directory(directory)
            directory += 1

    def forget_directory(self, directory: int) -> None:
        """Mark the content of a directory as changed."""
        while directory >= 0 and self.dir_known[directory]:
            self.dir_known[directory] = 0
            directory = self._parent(directory)

    def _parent(self, directory: int) -> int:
        if not directory:
            return -1
        # One edit needs the directories above one file: finding those of all would not pay.
        if self._parents is None and self._asked * _SEARCH <= len(self.dir_paths):
            found = self.number(self.dir_paths[directory].rpartition(b"/")[0])
            if found is not None:
                return found
        return self.parents[directory]

    def add_directory(self, path: bytes, row: Row, flags: int) -> None:
        """Begin a directory; its files are added next."""
        self.dir_paths.append(path)
        self.dir_rows += PACK.pack(*row)
        self.dir_digests += bytes(DIGEST)
        self.dir_known.append(0)
        self.dir_flags.append(flags)

    def end_directory(self, names: bytes) -> None:
        """End the last directory begun: its files are now in `rows`, `digests` and `known`."""
        self.dir_names.append(names)
        self.starts.append(len(self.known))

    def copy_files(self, old: Columns, directory: int) -> None:
        """Add the files of a directory of `old` to the last directory begun."""
        start, end = old.starts[directory], old.starts[directory + 1]
        self._copy_capabilities(old, start, end)
        self.rows += old.rows[start * ROW : end * ROW]
        self.digests += old.digests[start * DIGEST : end * DIGEST]
        self.known += old.known[start:end]
        self.end_directory(old.dir_names[directory])

    def copy_subtree(self, old: Columns, directory: int) -> None:
        """Add a directory of `old` with everything below it."""
        last = old.ends[directory]
        start, end = old.starts[directory], old.starts[last]
        self._copy_capabilities(old, start, end)
        shift = len(self.known) - start
        self.dir_paths += old.dir_paths[directory:last]
        self.dir_names += old.dir_names[directory:last]
        self.dir_rows += old.dir_rows[directory * ROW : last * ROW]
        self.dir_digests += old.dir_digests[directory * DIGEST : last * DIGEST]
        self.dir_known += old.dir_known[directory:last]
        self.dir_flags += old.dir_flags[directory:last]
        self.starts.extend([at + shift for at in old.starts[directory + 1 : last + 1]])
        self.rows += old.rows[start * ROW : end * ROW]
        self.digests += old.digests[start * DIGEST : end * DIGEST]
        self.known += old.known[start:end]

    def _copy_capabilities(self, old: Columns, start: int, end: int) -> None:
        for file, value in old.capabilities.items():
            if start <= file < end:
                self.capabilities[len(self.known) + file - start] = value
