"""Digests over columns: of files on demand, of directories from their entries, remembered.

The Merkle digests are those of `model.tree.directory_digest`, made from slices of the columns.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layercache._base.paths import shown_below
from layercache.errors import SourceError
from layercache.inputs.scan.columns import DIGEST, IGNORED, UNREADABLE, Columns
from layercache.inputs.scan.read_beneath import ReadBeneath
from layercache.inputs.scan.scanning import Counts
from layercache.model.tree import pack_directory

if TYPE_CHECKING:
    from layercache.trees._automaton import PatternState

__all__ = ["Merkle"]


class Merkle:
    """The known digests of a scanned tree. `learnt` is set when a digest becomes known.

    Not safe for threads. Methods that read raise the errors of `hash_range`.
    """

    def __init__(self, columns: Columns, beneath: ReadBeneath, counts: Counts) -> None:
        self._columns = columns
        self._beneath = beneath
        self._counts = counts
        self._flags = any(columns.dir_flags)
        self._hidden: bytearray | None = None
        self.learnt = False

    def file(self, directory: int, file: int) -> bytes:
        """The node digest of one file."""
        if not self._columns.known[file]:
            self._learn(directory, file, file + 1)
        return self._columns.digest(file)

    def directory(self, directory: int) -> bytes:
        """The digest of a directory with everything below it."""
        if not self._columns.dir_known[directory]:
            self.learnt = True
            self._learn_below(directory)
            self._combine(directory)
        return self._kept(directory)

    def without(self, top: int, exclude: PatternState) -> bytes | None:
        """`directory` without the entries that `exclude` excludes, None if nothing is left."""
        columns = self._columns
        parents, starts, paths = columns.parents, columns.starts, columns.dir_paths
        end = columns.ends[top]
        states: list[PatternState | None] = [exclude]
        for number in range(top + 1, end):
            above = states[parents[number] - top]
            below = None if above is None else above[_name(paths[number])]
            states.append(None if below is None or below.prunable else below)
        made: dict[int, bytes] = {}
        for number in range(end - 1, top - 1, -1):
            state = states[number - top]
            if state is None or self.is_hidden(number):
                continue
            above = None if number == top else states[parents[number] - top]
            if state.settled:
                if above is None or not above.settled:
                    made[number] = self.directory(number)
                continue
            self.check_readable(number)
            names = columns.names(number)
            kept = [n for n, name in enumerate(names) if not state[name].ignored]
            below_kept = [child for child in self.child_directories(number) if child in made]
            if state.ignored and not kept and not below_kept:
                continue
            made[number] = self._packed(number, starts[number], names, kept, below_kept, made)
        return made.get(top)

    # -- shape ----------------------------------------------------------------------------------

    def is_hidden(self, directory: int) -> bool:
        """Whether a directory is ignored and nothing below it is included."""
        if not self._flags:
            return False
        if self._hidden is None:
            columns = self._columns
            count = len(columns.dir_paths)
            hidden, kept = bytearray(count), bytearray(count)
            parents, starts, flags = columns.parents, columns.starts, columns.dir_flags
            for number in range(count - 1, -1, -1):
                empty = starts[number] == starts[number + 1]
                if empty and flags[number] & IGNORED and not kept[number]:
                    hidden[number] = 1
                elif number:
                    kept[parents[number]] = 1
            self._hidden = hidden
        return bool(self._hidden[directory])

    def child_directories(self, directory: int) -> list[int]:
        """The numbers of the directories in a directory, sorted by name."""
        below = self._columns.child_directories(directory)
        return [child for child in below if not self.is_hidden(child)] if self._flags else below

    def check_readable(self, directory: int) -> None:
        """Raise `SourceError` for a directory that could not be listed."""
        if self._columns.dir_flags[directory] & UNREADABLE:
            path = shown_below(self._columns.dir_paths[directory])
            raise SourceError(f"{path}/ can't be listed: permission denied")

    # -- inside ---------------------------------------------------------------------------------

    def _learn(self, directory: int, first: int, last: int) -> None:
        from layercache.inputs.scan.hashing import hash_range  # not needed where all is known

        self.learnt = True
        hash_range(self._columns, self._beneath, directory, first, last, self._counts)

    def _learn_below(self, directory: int) -> None:
        """Compute the digests of all files below, directory by directory."""
        columns = self._columns
        end = columns.ends[directory]
        starts, known = columns.starts, columns.known
        if self._flags:
            for number in range(directory, end):
                self.check_readable(number)
        file = known.find(0, starts[directory], starts[end])
        number = directory
        while file >= 0:
            number = bisect_right(starts, file, number) - 1
            self._learn(number, file, starts[number + 1])
            file = known.find(0, starts[number + 1], starts[end])

    def _combine(self, directory: int) -> None:
        """Compute the digests of directories, the deepest first."""
        columns = self._columns
        known, digests, starts = columns.dir_known, columns.dir_digests, columns.starts
        number = columns.ends[directory]
        while (number := known.rfind(0, directory, number)) >= 0:
            start, end = starts[number], starts[number + 1]
            below = self.child_directories(number)
            digest = pack_directory(
                end - start,
                columns.file_modes(start, end),
                bytes(columns.digests[start * DIGEST : end * DIGEST]),
                columns.dir_names[number],
                len(below),
                *self._directories(below, [self._kept(child) for child in below]),
            )
            digests[number * DIGEST : number * DIGEST + DIGEST] = digest
            known[number] = 1

    def _packed(
        self,
        directory: int,
        start: int,
        names: list[bytes],
        kept: list[int],
        below: list[int],
        made: dict[int, bytes],
    ) -> bytes:
        """The digest of a directory with some of its files (by place) and directories."""
        columns = self._columns
        # Runs of kept files, so that whole slices are taken and unknown files read in order.
        modes: list[bytes] = []
        digests: list[bytes] = []
        at = 0
        while at < len(kept):
            last = at + 1
            while last < len(kept) and kept[last] == kept[last - 1] + 1:
                last += 1
            first, end = start + kept[at], start + kept[last - 1] + 1
            if columns.known.find(0, first, end) >= 0:
                self._learn(directory, first, end)
            modes.append(columns.file_modes(first, end))
            digests.append(bytes(columns.digests[first * DIGEST : end * DIGEST]))
            at = last
        return pack_directory(
            len(kept),
            b"".join(modes),
            b"".join(digests),
            b"\0".join([names[n] for n in kept]),
            len(below),
            *self._directories(below, [made[child] for child in below]),
        )

    def _directories(
        self, below: list[int], digests: Sequence[bytes]
    ) -> tuple[bytes, bytes, bytes]:
        """The columns of modes, digests and names of directories."""
        columns = self._columns
        modes = struct.pack(f"<{len(below)}I", *[columns.dir_row(child)[0] for child in below])
        names = b"\0".join([_name(columns.dir_paths[child]) for child in below])
        return modes, b"".join(digests), names

    def _kept(self, directory: int) -> bytes:
        at = directory * DIGEST
        return bytes(self._columns.dir_digests[at : at + DIGEST])


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]
