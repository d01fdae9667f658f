"""ADD of an archive: detected by content, spooled, and added to pending changes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import BinaryIO, cast

from layercache._base.classes import evolve
from layercache._base.paths import shown_in_image
from layercache._os.allowance import UnpackAllowance
from layercache.errors import BuildError, HostileArchive
from layercache.layers.changes import Changes, LayerChange
from layercache.layers.compression import decompressed
from layercache.layers.follow_links import resolve
from layercache.layers.limits import DEFAULT_LIMITS, Limits
from layercache.layers.reader import read_archive
from layercache.layers.tar_headers import looks_like_tar
from layercache.layers.verified_file import Verified
from layercache.model.layer_index import Entry
from layercache.model.layer_times import clamped_time
from layercache.model.tree import Node, Tree

__all__ = ["Unpacker"]

CHUNK = 256 * 1024


class Unpacker:
    """One archive: its checked entries, and its uncompressed bytes in an unnamed file."""

    def __init__(self, spool: BinaryIO, entries: list[Entry]) -> None:
        self._spool = spool
        self._entries = entries

    @classmethod
    def of(
        cls,
        open_file: Callable[[], BinaryIO],
        *,
        what: str,
        limits: Limits = DEFAULT_LIMITS,
        allowance: UnpackAllowance | None = None,
    ) -> Unpacker | None:
        """The archive in a file, compressed or not; None if the file is not an archive.

        `allowance` counts the bytes it unpacks to.

        Raises `HostileArchive` for an archive that violates a rule, `MissingExtra` for one
        compressed with zstd without the extra.
        """
        import tempfile

        with open_file() as stream:
            try:
                head = decompressed(stream, limits=limits, what=what).read(512)
            except HostileArchive:
                return None  # damaged from the start, or it only looks compressed: an ordinary file
        if not looks_like_tar(head):
            return None
        spool = cast(BinaryIO, tempfile.TemporaryFile(prefix="layercache-"))  # noqa: SIM115
        try:
            with open_file() as stream:
                plain = decompressed(stream, limits=limits, what=what)
                while chunk := plain.read(CHUNK):
                    if allowance is not None:
                        allowance.take(len(chunk), what)
                    spool.write(chunk)
            spool.seek(0)
            entries = list(read_archive(spool, limits=limits, what=what))
        except OSError as error:
            spool.close()
            raise BuildError(f"can't unpack {what}: {error.strerror}") from error
        except BaseException:
            spool.close()
            raise
        return cls(spool, entries)

    @property
    def devices(self) -> list[bytes]:
        """The paths of devices in it, which a build without root can't create."""
        kinds = (stat.S_IFCHR, stat.S_IFBLK)
        return [e.path for e in self._entries if e.node and stat.S_IFMT(e.node.mode) in kinds]

    def close(self) -> None:
        """Release the bytes."""
        self._spool.close()

    def apply(self, changes: Changes, target: bytes, owner: tuple[int, int] | None) -> None:
        """Add every entry below the directory `target`, which is the root for links.

        Existing entries are replaced, except that directories merge. Owners are the archive's
        unless
        `owner` is given; implied directories are 0755 and 0:0. Raises `BuildError` if a file of the
        image, or a link that leads outside, is in the way.
        """
        below = cast(Tree, _Below(changes, target))
        for entry in self._entries:
            if not entry.path or entry.node is None:
                continue
            found = resolve(below, entry.path, follow_last=False, confined=True)
            if not found.path:
                raise BuildError(
                    f"an archive entry {shown_in_image(entry.path)} leads to its own root"
                )
            path = target + b"/" + found.path if target else found.path
            changes.make_directories(path.rpartition(b"/")[0], 0, 0)
            node = entry.node
            uid, gid = owner or (node.uid, node.gid)
            node = evolve(node, uid=uid, gid=gid, mtime=clamped_time(node.mtime))
            there = changes.lookup(path)
            if there is not None and not (there.is_dir and node.is_dir):
                changes.clear(path)
            if node.is_file:
                changes.put(path, LayerChange(node, self._content(entry), (id(self), entry.offset)))
            else:
                changes.put(path, LayerChange(node))

    def _content(self, entry: Entry) -> Callable[[], BinaryIO]:
        def open_content() -> BinaryIO:
            node = cast(Node, entry.node)
            self._spool.seek(entry.offset)
            stream = Verified(self._spool, node.content, node.size, entry.path, owned=False)
            return cast(BinaryIO, stream)

        return open_content


class _Below:
    """Pending changes relative to a directory; `resolve` needs only `lookup`."""

    def __init__(self, changes: Changes, root: bytes) -> None:
        self._changes = changes
        self._prefix = root + b"/" if root else b""
        self._root = root

    def lookup(self, path: bytes) -> Node | None:
        return self._changes.lookup(self._prefix + path if path else self._root)
