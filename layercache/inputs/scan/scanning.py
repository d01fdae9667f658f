"""Updating columns from a directory: for known entries, only the stamps are compared.

A directory with unchanged stamps has the same names (creating, removing and renaming change them),
so it is not listed again. That proves nothing about its files, so each is checked. The loop over
files runs in C (`map` over `lstat`, comparison of lists of tuples).
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Iterator
from itertools import starmap
from operator import ne
from typing import TYPE_CHECKING, Final, cast

from layercache._base.paths import shown_below
from layercache.errors import SourceError
from layercache.inputs.scan.columns import (
    DIGEST,
    IGNORED,
    PACK,
    ROW,
    UNREADABLE,
    Columns,
    Row,
    row_of,
)
from layercache.inputs.scan.read_beneath import ReadBeneath

if TYPE_CHECKING:
    from layercache.trees._automaton import PatternState

__all__ = ["Counts", "refresh"]

_BLOCK: Final = 1024

MAX_PATH: Final = 4000
"""Bytes of a path below the root; the kernel takes 4096 with the root in front."""


class Counts:
    """The number of file system operations, files and bytes."""

    __slots__ = ("bytes_hashed", "directories_listed", "files_opened", "stats")

    def __init__(self) -> None:
        self.stats = 0
        self.directories_listed = 0
        self.files_opened = 0
        self.bytes_hashed = 0


def refresh(
    root: bytes,
    beneath: ReadBeneath,
    old: Columns | None,
    start: PatternState,
    counts: Counts,
    relist: bool,
) -> tuple[Columns, bool]:
    """The columns of the directory `root` (absolute) in its present state, and whether they
    changed.

    `old` is the earlier state, and may be modified. With `relist` every directory is listed, too.
    """
    if old is None or not old.dir_paths:
        return _rebuild(beneath, Columns(), {0}, start, counts), True
    stale = set(range(len(old.dir_paths))) if relist else _stale_directories(root, old, counts)
    changed = _update_files(root, old, stale, counts)
    if stale:
        return _rebuild(beneath, old, stale, start, counts), True
    return old, changed


def _statuses(paths: list[bytes], counts: Counts) -> list[Row | None]:
    counts.stats += len(paths)
    try:
        return list(map(row_of, map(os.lstat, paths)))
    except OSError:
        found: list[Row | None] = []
        for path in paths:
            try:
                found.append(row_of(os.lstat(path)))
            except OSError:
                found.append(None)
        return found


def _stale_directories(root: bytes, old: Columns, counts: Counts) -> set[int]:
    """The directories to list again; for one that is gone, its parent."""
    prefix = root + b"/" if root != b"/" else b"/"
    stale: set[int] = set()
    count = len(old.dir_paths)
    for first in range(0, count, _BLOCK):
        last = min(first + _BLOCK, count)
        paths = [prefix + path for path in old.dir_paths[first:last]]
        fresh = _statuses(paths, counts)
        known = list(PACK.iter_unpack(memoryview(old.dir_rows)[first * ROW : last * ROW]))
        if fresh == known:
            continue
        for number, (new, before) in enumerate(zip(fresh, known, strict=True), first):
            if new is None or not stat.S_ISDIR(new[0]):
                if number:
                    stale.add(old.parents[number])
                stale.add(number)
            elif new != before:
                stale.add(number)
    return stale


def _blocks(root: bytes, old: Columns, stale: set[int]) -> Iterator[tuple[int, list[bytes]]]:
    """Runs of consecutive files outside stale directories: number of the first, all paths."""
    prefix = root + b"/" if root != b"/" else b"/"
    paths: list[bytes] = []
    first = 0
    starts = old.starts
    for directory, (path, names) in enumerate(zip(old.dir_paths, old.dir_names, strict=True)):
        if directory in stale:
            if paths:
                yield first, paths
            paths = []
            first = starts[directory + 1]
        elif names:
            if not paths:
                first = starts[directory]
            here = prefix + path + b"/" if path else prefix
            paths += (here + names.replace(b"\0", b"\0" + here)).split(b"\0")
            if len(paths) >= _BLOCK:
                yield first, paths
                paths = []
    if paths:
        yield first, paths


def _update_files(root: bytes, old: Columns, stale: set[int], counts: Counts) -> bool:
    """Check every known file outside `stale`; forget changed files or mark their directories
    stale.
    """
    changed = False
    rows = old.rows
    with memoryview(rows) as view:
        for first, paths in _blocks(root, old, stale):
            fresh = _statuses(paths, counts)
            known = list(PACK.iter_unpack(view[first * ROW : (first + len(paths)) * ROW]))
            if fresh == known:
                continue
            changed = True
            if None not in fresh and sum(map(ne, fresh, known)) * 2 > len(fresh):
                # Most of the block: all of it is forgotten at once.
                view[first * ROW : (first + len(fresh)) * ROW] = b"".join(
                    starmap(PACK.pack, cast(list[Row], fresh))
                )
                old.forget_files(first, first + len(fresh))
                for file, new in enumerate(fresh, first):
                    if new is not None and stat.S_ISDIR(new[0]):
                        stale.add(bisect_right(old.starts, file) - 1)
                continue
            for file, (new, before) in enumerate(zip(fresh, known, strict=True), first):
                if new == before:
                    continue
                if new is None or stat.S_ISDIR(new[0]):
                    stale.add(bisect_right(old.starts, file) - 1)
                else:
                    PACK.pack_into(view, file * ROW, *new)
                    old.forget_files(file, file + 1)
    return changed


def _rebuild(
    beneath: ReadBeneath, old: Columns, stale: set[int], start: PatternState, counts: Counts
) -> Columns:
    """New columns: subtrees without a stale directory are copied whole."""
    new = Columns()
    order = sorted(stale)
    todo: list[tuple[bytes, int, PatternState]] = [(b"", 0 if old.dir_paths else -1, start)]
    while todo:
        path, known, state = todo.pop()
        if known >= 0:
            end = old.ends[known]
            at = bisect_right(order, known - 1)
            if at == len(order) or order[at] >= end:
                new.copy_subtree(old, known)
                continue
            if known not in stale:
                new.add_directory(path, old.dir_row(known), old.dir_flags[known])
                new.copy_files(old, known)
                for child in reversed(old.child_directories(known)):
                    child_path = old.dir_paths[child]
                    below = state[child_path.rpartition(b"/")[2]]
                    todo.append((child_path, child, below))
                continue
        for name, below in reversed(_list(beneath, new, path, old, known, state, counts)):
            child_path = path + b"/" + name if path else name
            if len(child_path) > MAX_PATH:
                raise SourceError(f"{shown_below(child_path[:200])}…: the path is too long")
            number = old.number(child_path) if old.dir_paths else None
            todo.append((child_path, -1 if number is None else number, below))
    return new


def _list(
    beneath: ReadBeneath,
    new: Columns,
    path: bytes,
    old: Columns,
    known: int,
    state: PatternState,
    counts: Counts,
) -> list[tuple[bytes, PatternState]]:
    """List one directory into `new`; returns its subdirectories, sorted."""
    counts.directories_listed += 1
    flags = IGNORED if state.ignored else 0
    entries: list[tuple[bytes, os.stat_result]] = []
    encode = os.fsencode
    try:
        descriptor = beneath.directory(path)
        # Its stamps are taken before its names, so a change in between shows next time.
        row: Row = row_of(os.fstat(descriptor))
        with os.scandir(descriptor) as found:
            for entry in found:
                try:
                    entries.append((encode(entry.name), entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue  # gone since it was listed
    except OSError as error:
        if not path:
            raise SourceError(f"the build context can't be read: {error.strerror}") from error
        new.add_directory(path, (stat.S_IFDIR, 0, 0, 0, 0, 0), flags | UNREADABLE)
        new.end_directory(b"")
        return []
    counts.stats += len(entries) + 1
    entries.sort()
    directories: list[tuple[bytes, PatternState]] = []
    files: list[tuple[bytes, os.stat_result]] = []
    if state.settled:
        for item in entries:
            if stat.S_ISDIR(item[1].st_mode):
                directories.append((item[0], state))
            else:
                files.append(item)
    else:
        for item in entries:
            below = state[item[0]]
            if stat.S_ISDIR(item[1].st_mode):
                if not below.prunable:
                    directories.append((item[0], below))
            elif not below.ignored:
                files.append(item)
    new.add_directory(path, row, flags)
    _add_files(new, files, old, known)
    return directories


def _add_files(
    new: Columns, files: list[tuple[bytes, os.stat_result]], old: Columns, known: int
) -> None:
    count = len(files)
    first = len(new.known)
    rows = b"".join([PACK.pack(*row_of(status)) for _, status in files])
    names = [name for name, _ in files]
    new.rows += rows
    new.digests += bytes(count * DIGEST)
    new.known += bytes(count)
    if known >= 0:
        before = {name: n for n, name in enumerate(old.names(known), old.starts[known])}
        for number, name in enumerate(names):
            file = before.get(name)
            if (
                file is not None
                and old.known[file]
                and rows[number * ROW : (number + 1) * ROW]
                == old.rows[file * ROW : (file + 1) * ROW]
            ):
                at = first + number
                new.digests[at * DIGEST : (at + 1) * DIGEST] = old.digest(file)
                new.known[at] = 1
                if file in old.capabilities:
                    new.capabilities[at] = old.capabilities[file]
    new.end_directory(b"\0".join(names))
