"""A build context: a directory on disk as a `Tree`, scanned fast and read only where selected."""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO, Final

from blake3 import blake3

from layercache._base.paths import shown_below
from layercache.errors import SourceError
from layercache.inputs.scan import statcache
from layercache.inputs.scan.columns import DIGEST, preorder, reported_mode
from layercache.inputs.scan.filesystems import MountTable
from layercache.inputs.scan.merkle import Merkle
from layercache.inputs.scan.read_beneath import ReadBeneath, changed, unreadable, verified
from layercache.inputs.scan.scanning import Counts, refresh
from layercache.model.digests import Fingerprint
from layercache.model.selectors import Files
from layercache.model.tree import CAPABILITY, Closes, HardLinks, Node, node_digest
from layercache.trees.listing import Listed, Lists, Selects, list_by_walking, listed_digest
from layercache.trees.patterns import Ignore
from layercache.trees.selection import (
    Excludes,
    Filtered,
    Selected,
    fingerprint,
    refuse_whiteout,
    select,
)

if TYPE_CHECKING:
    from layercache.trees._automaton import PatternState

__all__ = ["Context", "ContextTree"]

_IDENTITY: Final = "layercache 2026-11 stat cache identity 1"


class Context:
    """A directory to build from.

    `ignore` keeps matching entries out of the tree. `cache` is the file of the stat cache, None
    for none; one file serves one root, `cache_name` names it. `paranoid` reads every selected
    file again at each scan; it is always on where the stamps of the file system can't be trusted
    (network, FUSE, FAT). One gap is known, as in git: a write through a shared memory mapping
    changes no stamp until it is written back. Raises `SourceError` if `root` is not a directory.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        ignore: Ignore | None = None,
        *,
        cache: str | None = None,
        paranoid: bool = False,
    ) -> None:
        self.root = os.path.realpath(root)
        self.ignore = ignore or Ignore()
        self.cache = cache
        self.paranoid = paranoid
        if not os.path.isdir(self.root):
            raise SourceError(f"the build context {os.fspath(root)} is not a directory")

    @staticmethod
    def cache_name(root: str | os.PathLike[str], ignore: Ignore | None = None) -> str:
        """A file name for the stat cache of this root with these rules: 32 hex digits.

        The rules need not be part of it: a cache made under other rules also saves the reading, but
        not the listing, and is then replaced.
        """
        hasher = blake3(os.fsencode(os.path.realpath(root)), derive_key_context=_IDENTITY)
        hasher.update(b"\0" + _rules(ignore or Ignore()))
        return hasher.hexdigest(16)

    def scan(self, *, write_cache: bool = True) -> ContextTree:
        """The tree in its present state. Close it, or use it as a context manager.

        With `write_cache` False nothing is written, now or by the tree later (planning).
        """
        return ContextTree(self, write_cache)


def _rules(ignore: Ignore) -> bytes:
    return "\n".join(map(str, ignore.rules)).encode("utf-8", "surrogateescape")


class ContextTree(Closes, HardLinks, Excludes, Filtered, Selects, Lists):
    """A scanned context as a `Tree`: owner 0:0, only `security.capability` of the attributes.

    Stamps are those of the scan; content is read on first use, and remembered for the next scan
    by `save`, which `close` calls. `counts` counts the file system operations. Safe for threads.
    """

    def __init__(self, context: Context, write_cache: bool) -> None:
        self.counts = Counts()
        self.root = os.fsencode(context.root)
        self.ignore = context.ignore
        self._cache = context.cache
        self._write = write_cache and self._cache is not None
        self._lock = RLock()
        self._memo: dict[Files, Fingerprint] = {}
        self._links: dict[int, bytes] = {}
        self._names: dict[int, dict[bytes, int]] = {}
        self._shared: tuple[tuple[bytes, object], ...] = ()
        self._tokens: dict[bytes, object] | None = None
        self._beneath = ReadBeneath(context.root)
        try:
            self._scan(context.paranoid)
        except BaseException:
            self._beneath.close()
            raise

    def _scan(self, paranoid: bool) -> None:
        self._began = time.time_ns()
        device = os.fstat(self._beneath.root).st_dev
        trusted = not paranoid and MountTable().trusted(device, self.root)
        self._write = self._write and trusted
        self._identity = blake3(_rules(self.ignore), derive_key_context=_IDENTITY).digest()
        found = None
        if trusted and self._cache is not None:
            found = statcache.load(self._cache, self._identity)
        old, same = found or (None, True)
        # Under other rules, names come and go, but the facts about files stay true.
        self._columns, changed = refresh(
            self.root, self._beneath, old, self.ignore.start, self.counts, relist=not same
        )
        self._merkle = Merkle(self._columns, self._beneath, self.counts)
        self._merkle.learnt = changed
        self._saved = 0

    # -- Tree -----------------------------------------------------------------------------

    def lookup(self, path: bytes) -> Node | None:
        """See `Tree.lookup`. Reads a regular file that is not known yet."""
        with self._lock:
            directory = self._columns.number(path)
            if directory is not None:
                if self._merkle.is_hidden(directory):
                    return None
                mode, _, mtime, *_ = self._columns.dir_row(directory)
                return Node(mode=mode, mtime=mtime // 1_000_000_000)
            found = self._file(path)
            return None if found is None else self._node(path, *found)

    def children(self, path: bytes) -> Sequence[bytes]:
        """See `Tree.children`; raises `SourceError` for a directory that can't be listed."""
        with self._lock:
            columns = self._columns
            directory = columns.number(path)
            if directory is None:
                return ()
            self._merkle.check_readable(directory)
            names = columns.names(directory)
            below = self._merkle.child_directories(directory)
            if below:
                names += [columns.dir_paths[child].rpartition(b"/")[2] for child in below]
                names.sort()
            return names

    def digest(self, path: bytes) -> bytes:
        """See `Tree.digest`; reads the files that are not known yet."""
        with self._lock:
            directory = self._columns.number(path)
            if directory is None or self._merkle.is_hidden(directory):
                found = self._file(path)
                if found is None:
                    raise SourceError(f"{shown_below(path)} is not in the build context")
                return self._merkle.file(*found)
            return self._merkle.directory(directory)

    def open(self, path: bytes) -> BinaryIO:
        """See `Tree.open`. Raises `SourceError` unless it is a regular file."""
        with self._lock:
            node = self.lookup(path)
            if node is None or not node.is_file:
                raise SourceError(f"{shown_below(path)} is not a regular file in the build context")
            try:
                descriptor = self._beneath.open(path) if node.size else -1
            except OSError as error:
                raise unreadable(path, error) from error
            self.counts.files_opened += node.size > 0
        return verified(descriptor, path, node.size, node.content)

    # -- capabilities beyond Tree -----------------------------------------------------------

    def inode(self, path: bytes) -> object | None:
        """See `HardLinks.inode`; names outside the context, or ignored ones, do not count."""
        with self._lock:
            self.shared()
            assert self._tokens is not None
            return self._tokens.get(path)

    def shared(self) -> Sequence[tuple[bytes, object]]:
        """See `HardLinks.shared`."""
        with self._lock:
            if self._tokens is None:
                columns = self._columns
                tokens = {
                    number: inode
                    for inode, numbers in columns.several_names().items()
                    for number in numbers
                }
                pairs: list[tuple[bytes, object]] = []
                directory, names = -1, []
                for number in sorted(tokens):
                    if bisect_right(columns.starts, number) - 1 != directory:
                        directory = bisect_right(columns.starts, number) - 1
                        names = columns.names(directory)
                    name = names[number - columns.starts[directory]]
                    parent = columns.dir_paths[directory]
                    pairs.append((parent + b"/" + name if parent else name, tokens[number]))
                self._shared = tuple(sorted(pairs, key=lambda pair: preorder(pair[0])))
                self._tokens = dict(pairs)
            return self._shared

    def fingerprint(self, files: Files) -> Fingerprint:
        """`selection.fingerprint`, remembered for each selector."""
        with self._lock:
            found = self._memo.get(files)
            if found is None:
                found = self._memo[files] = fingerprint(self, files)
                if self._merkle.learnt and self._worth_saving():
                    self.save()
            return found

    def listing(self, files: Files) -> tuple[Listed, ...]:
        """`listing.listing`, from the columns if nothing is excluded."""
        with self._lock:
            if files.exclude or files.parents:
                return list_by_walking(self, files)
            found: dict[bytes, Listed] = {}
            for match in select(self, files):
                self.digest(match.path)
                for entry in self._listed(match):
                    found.setdefault(entry.path, entry)
            return tuple(found.values())

    def excluded(self, path: bytes) -> str | None:
        """See `selection.Excludes`: the line of the ignore file that excludes `path`."""
        rule = self.ignore.reason(path) if self.ignore else None
        if rule is None or not os.path.lexists(os.path.join(self.root, path)):
            return None
        place = f" line {rule.line}" if rule.line else ""
        return f"{self.ignore.name}{place} ({rule})"

    def digest_without(self, path: bytes, exclude: PatternState) -> bytes | None:
        """See `selection.Filtered`: only the remaining entries are read."""
        with self._lock:
            directory = self._columns.number(path)
            if directory is None or self._merkle.is_hidden(directory):
                return None if exclude.ignored else self.digest(path)
            return self._merkle.without(directory, exclude)

    def _worth_saving(self) -> bool:
        # Saving costs some 1/100 of learning the same number of files anew.
        counts = self.counts
        learnt = counts.files_opened + counts.directories_listed - self._saved
        return learnt * 100 >= len(self._columns.known)

    def save(self) -> None:
        """Write the stat cache if anything became known since the last time.

        Failure to write the cache is not an error: the next scan only takes longer.
        """
        with self._lock:
            if not (self._write and self._merkle.learnt and self._cache is not None):
                return
            try:
                statcache.save(self._cache, self._identity, self._columns, self.root, self._began)
            except OSError:
                self._write = False
            self._merkle.learnt = False
            self._saved = self.counts.files_opened + self.counts.directories_listed

    def close(self) -> None:
        """Save, and close the directory; may be called twice."""
        with self._lock:
            if self._beneath.root >= 0:
                self.save()
                self._beneath.close()

    def __enter__(self) -> ContextTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------

    def _file(self, path: bytes) -> tuple[int, int] | None:
        """Directory and number of the file at `path`."""
        parent, _, name = path.rpartition(b"/")
        directory = self._columns.number(parent)
        if directory is None:
            return None
        names = self._names.get(directory)
        if names is None:
            if len(self._names) >= 1024:
                self._names.clear()
            start = self._columns.starts[directory]
            found = enumerate(self._columns.names(directory), start)
            names = self._names[directory] = {name: number for number, name in found}
        number = names.get(name)
        return None if number is None else (directory, number)

    def _node(self, path: bytes, directory: int, file: int) -> Node:
        columns = self._columns
        digest = self._merkle.file(directory, file)
        mode, size, mtime, *_ = columns.row(file)
        node = partial(Node, mode=reported_mode(mode), mtime=mtime // 1_000_000_000)
        if stat.S_ISREG(mode):
            capability = columns.capabilities.get(file)
            if capability is None:
                return node(size=size, content=digest)
            content, value = capability
            return node(size=size, content=content, xattrs=((CAPABILITY, value),))
        if stat.S_ISSOCK(mode):
            from layercache.inputs.scan.hashing import EMPTY

            return node(content=EMPTY)
        try:
            if stat.S_ISLNK(mode):
                link = self._links.get(file)
                if link is None:
                    link = self._beneath.readlink(path)
                    self._links[file] = link
                result = node(size=size, link=link)
            else:
                from layercache.inputs.scan.hashing import device_of

                parent = self._beneath.directory(columns.dir_paths[directory])
                name = path.rpartition(b"/")[2]
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                result = node(device=device_of(status))
        except OSError as error:
            raise unreadable(path, error) from error
        if node_digest(result) != digest:
            raise changed(path, "it was replaced")
        return result

    def _listed(self, match: Selected) -> list[Listed]:
        columns = self._columns
        top = columns.number(match.path)
        if top is None:
            node = match.node
            return [Listed(match.path, node.mode, 0, 0, listed_digest(node))]
        entries: list[Listed] = []
        for number in range(top, columns.ends[top]):
            if self._merkle.is_hidden(number):
                continue
            path = columns.dir_paths[number]
            mode = columns.dir_row(number)[0]
            entries.append(Listed(path, mode if path else stat.S_IFMT(mode), 0, 0, b""))
            prefix = path + b"/" if path else b""
            for file, name in enumerate(columns.names(number), columns.starts[number]):
                digest = bytes(columns.digests[file * DIGEST : file * DIGEST + 8])
                content, _ = columns.capabilities.get(file, (digest, b""))
                mode = reported_mode(columns.row(file)[0])
                entries.append(Listed(prefix + name, mode, 0, 0, content[:8] + digest))
        entries.sort(key=lambda entry: preorder(entry.path))
        for entry in entries[1:]:
            refuse_whiteout(entry.path)
        return entries
