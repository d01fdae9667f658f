"""Reading untrusted tars: within bounds, and rejecting misleading entries.

Understands ustar, pax, GNU long names and base-256 numbers. There are two sets of rules:
`read_layer` for layers (with deletions: OCI image specification, layer.md) and `read_archive` for
archives that ADD unpacks (names of deletions are refused, entries below a link of the archive
follow it, within the destination). In both, a later entry replaces an earlier one with its name, as
in containerd, Docker and tar. The first violation rejects the whole archive, with one
`HostileArchive` that names the entry.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from blake3 import blake3

from layercache._base.classes import evolve
from layercache.errors import HostileArchive
from layercache.layers.compression import decompressed
from layercache.layers.limits import DEFAULT_LIMITS, Limits
from layercache.layers.tar_headers import Header, Headers, shown
from layercache.layers.writer import OPAQUE_MARKER, WHITEOUT_PREFIX
from layercache.model.layer_index import Entry, IndexBuilder, LayerIndex
from layercache.model.tree import Node
from layercache.trees.selection import MAX_LINKS

__all__ = ["index_layer", "read_archive", "read_layer"]

CHUNK: Final = 256 * 1024
_KINDS: Final = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_REPLACED: Final = 1000
"""Number of directories that an archive may replace by other entries: each costs a walk."""
_OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")


def read_layer(
    stream: BinaryIO, *, limits: Limits = DEFAULT_LIMITS, what: str = "layer"
) -> Iterator[Entry]:
    """The entries of a layer in the order of its tar, with digested contents. If two entries have
    one name, the later one counts, without the content of the earlier one: `index_layer` applies
    this.

    `stream` may be compressed; offsets count in the uncompressed tar. It is read to its end
    once the iterator is exhausted. Raises `HostileArchive`; entries yielded before must then be
    discarded.
    """
    yield from _Reader(stream, limits, what, layer=True).entries()


def read_archive(
    stream: BinaryIO, *, limits: Limits = DEFAULT_LIMITS, what: str = "archive"
) -> Iterator[Entry]:
    """The entries of an archive for ADD, in its order; later entries replace earlier ones."""
    yield from _Reader(stream, limits, what, layer=False).entries()


def index_layer(
    stream: BinaryIO, *, limits: Limits = DEFAULT_LIMITS, what: str = "layer"
) -> LayerIndex:
    """The index of a layer read from its tar; raises `HostileArchive`."""
    builder = IndexBuilder()
    reader = _Reader(stream, limits, what, layer=True)
    for entry in reader.entries():
        for path in reader.replaced:
            builder.forget(path)
        reader.replaced.clear()
        builder.put(entry)
    return builder.build()


class _Reader:
    def __init__(self, stream: BinaryIO, limits: Limits, what: str, *, layer: bool) -> None:
        self._limits = limits
        self._what = what
        self._layer = layer
        self._input = decompressed(stream, limits=limits, what=what)
        self._headers = Headers(self._input, limits, what)
        self._files: dict[bytes, Entry] = {}
        """Entries other than directories, by path."""
        self._directories: set[bytes] = {b""}
        """Directories with an entry of their own, or with something beneath them."""
        self._hidden: set[bytes] = set()
        """Paths of lower layers that are hidden, with everything below, by the entries so far."""
        self._replaced = 0
        self.replaced: list[bytes] = []
        """Paths that the next entry replaces, with everything below."""
        self._buffer = memoryview(bytearray(CHUNK))

    def entries(self) -> Iterator[Entry]:
        for header in self._headers:
            path = self._path(header.name, header.name)
            marker = path.rpartition(b"/")[2] if WHITEOUT_PREFIX in path else b""
            if WHITEOUT_PREFIX in path:
                self._check_marker(header, path)
            if not self._layer and path:
                path = self._inside(header, path)
            if not path and not self._layer and header.kind not in (b"5", b"1"):
                continue  # no name, or the destination itself: skipped, as in Docker
            if marker.startswith(WHITEOUT_PREFIX):
                yield self._deletion(header, path)
            elif header.kind == b"1":
                yield self._hardlink(header, path)
            else:
                yield self._entry(header, path)

    def _refuse(self, name: bytes, why: str) -> HostileArchive:
        return HostileArchive(f"{self._what}: entry {shown(name)} {why}; nothing was unpacked")

    # -- names ------------------------------------------------------------------------------

    def _path(self, name: bytes, shown: bytes) -> bytes:
        """A name as a clean relative path; b"" for the root."""
        if not name and self._layer:
            raise self._refuse(shown, "has no name")
        # A leading slash is dropped, as by tar and containerd.
        if len(name) > self._limits.path:
            raise self._refuse(shown, f"has a path of more than {self._limits.path} bytes")
        parts = name.split(b"/")
        if b".." in parts:
            raise self._refuse(shown, "leads outside through '..'")
        if b"" in parts or b"." in parts:
            parts = [part for part in parts if part and part != b"."]
        if len(parts) > self._limits.depth:
            raise self._refuse(shown, f"is nested more than {self._limits.depth} deep")
        if len(name) > self._limits.name and max(map(len, parts)) > self._limits.name:
            raise self._refuse(shown, f"has a name of more than {self._limits.name} bytes")
        return b"/".join(parts)

    def _inside(self, header: Header, path: bytes) -> bytes:
        """The destination of an archive's entry for ADD: links of the archive on its path are
        followed, with the destination as their root.
        """
        todo = path.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del done[-1:]
                continue
            done.append(part)
            entry = self._files.get(b"/".join(done)) if todo else None
            if entry is None or entry.node is None or not entry.node.is_link:
                continue
            links += 1
            if links > MAX_LINKS:
                raise self._refuse(header.name, "goes through too many symbolic links (a loop?)")
            done.pop()
            if entry.node.link.startswith(b"/"):
                done.clear()
            todo += entry.node.link.split(b"/")[::-1]
        found = b"/".join(done)
        if links:
            if len(done) > self._limits.depth or len(found) > self._limits.path:
                raise self._refuse(header.name, "is too long once its links are followed")
            if WHITEOUT_PREFIX in found:
                self._check_marker(header, found)
        return found

    def _enter(self, header: Header, path: bytes) -> None:
        """Record the directories above `path`; none may be anything else in this archive."""
        parent = path.rpartition(b"/")[0]
        while parent not in self._directories:
            if parent in self._files:
                kind = "a symbolic link" if self._is_link(parent) else "no directory"
                raise self._refuse(
                    header.name, f"goes through {shown(parent)}, which is {kind} in this archive"
                )
            self._directories.add(parent)
            parent = parent.rpartition(b"/")[0]

    def _is_link(self, path: bytes) -> bool:
        node = self._files[path].node
        return node is not None and node.is_link

    def _forget(self, path: bytes) -> None:
        """Remove the earlier entry at `path`, with everything below, in favour of a later one."""
        self._files.pop(path, None)
        self.replaced.append(path)
        if path in self._directories:
            self._replaced += 1
            if self._replaced > _REPLACED:
                raise HostileArchive(
                    f"{self._what}: replaces more than {_REPLACED} of its own directories; "
                    "nothing was unpacked"
                )
            inside = path + b"/"
            self._directories = {
                d for d in self._directories if d != path and not d.startswith(inside)
            }
            for file in [f for f in self._files if f.startswith(inside)]:
                del self._files[file]

    # -- deletions --------------------------------------------------------------------------

    def _check_marker(self, header: Header, path: bytes) -> None:
        parts = path.split(b"/")
        if not self._layer and any(part.startswith(WHITEOUT_PREFIX) for part in parts):
            raise self._refuse(
                header.name, "has a name that begins with .wh., which means a deletion in a layer"
            )
        if any(part.startswith(WHITEOUT_PREFIX) for part in parts[:-1]):
            raise self._refuse(header.name, "lies beneath a deletion marker")

    def _deletion(self, header: Header, path: bytes) -> Entry:
        directory, _, marker = path.rpartition(b"/")
        if header.kind not in (b"0", b"\0") or header.size:
            raise self._refuse(header.name, "is a deletion marker but not an empty regular file")
        self._enter(header, path)
        if marker == OPAQUE_MARKER:
            self._hidden.add(directory)
            return Entry(directory, None, opaque=True, implied=True)
        name = marker[len(WHITEOUT_PREFIX) :]
        if not name or name in (b".", b".."):
            raise self._refuse(header.name, "deletes a directory through itself")
        if name.startswith(WHITEOUT_PREFIX):
            raise self._refuse(header.name, "is a marker with a reserved name")
        target = directory + b"/" + name if directory else name
        if target in self._files or target in self._directories:
            self._forget(target)  # in the order of the archive, as containerd
        self._hidden.add(target)
        return Entry(target, None)

    # -- entries ----------------------------------------------------------------------------

    def _hardlink(self, header: Header, path: bytes) -> Entry:
        if header.size:
            raise self._refuse(header.name, "is a hard link with content")
        target = self._path(header.link, header.name)
        if not self._layer:
            target = self._inside(header, target)
        if not path:
            raise self._refuse(header.name, "is the root but not a directory")
        self._enter(header, path)
        known = self._files.get(target)
        if known is None and self._layer and target not in self._directories:
            return self._lower_link(header, path, target)
        if known is None or target == path:
            raise self._refuse(
                header.name,
                f"is a hard link to {shown(header.link)}, which is not an earlier file of "
                "the archive",
            )
        self._claim(header, path)
        entry = evolve(known, path=path, hardlink=known.hardlink or target)
        self._files[path] = entry
        return entry

    def _lower_link(self, header: Header, path: bytes, target: bytes) -> Entry:
        """A hard link to a file of a lower layer, which is found once the layers below are known
        (`layers.lower_links`), as containerd finds it in what is unpacked so far.
        """
        above = target
        while above not in self._hidden:
            above = above.rpartition(b"/")[0]
            if above in self._files:
                kind = "a symbolic link" if self._is_link(above) else "no directory"
                raise self._refuse(
                    header.name,
                    f"is a hard link to {shown(header.link)}; {shown(above)} is {kind} in this "
                    "archive",
                )
            if not above:
                break
        if above in self._hidden:
            raise self._refuse(
                header.name,
                f"is a hard link to {shown(header.link)}, which the same layer deletes before",
            )
        self._claim(header, path)
        node = self._node(header, stat.S_IFREG)
        entry = self._files[path] = Entry(path, node, hardlink=target, lower=True)
        return entry

    def _claim(self, header: Header, path: bytes) -> None:
        """Make `path` something other than a directory."""
        if not path:
            raise self._refuse(header.name, "is the root but not a directory")
        if path in self._files or path in self._directories:
            self._forget(path)

    def _entry(self, header: Header, path: bytes) -> Entry:
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise self._refuse(header.name, f"has the unknown type {header.kind!r}")
        if kind == stat.S_IFREG and header.name.endswith(b"/") and not header.size:
            kind = stat.S_IFDIR  # the notation of tars older than POSIX
        if header.size and kind != stat.S_IFREG:
            raise self._refuse(header.name, "has content although it is not a regular file")
        if kind != stat.S_IFDIR and header.name.endswith(b"/"):
            raise self._refuse(header.name, "ends with a slash although it is not a directory")
        self._enter(header, path)
        node = self._node(header, kind)
        if kind == stat.S_IFDIR:
            replaces = path in self._files
            if replaces:
                # What was there has replaced a directory of lower layers, too.
                self._forget(path)
                self._hidden.add(path)
            self._directories.add(path)
            return Entry(path, node, opaque=replaces and self._layer)
        self._claim(header, path)
        offset = 0
        if kind == stat.S_IFREG:
            offset = self._headers.offset
            node = evolve(node, content=self._digest(header))
        entry = self._files[path] = Entry(path, node, offset=offset)
        return entry

    def _node(self, header: Header, kind: int) -> Node:
        link = b""
        device = (0, 0)
        if kind == stat.S_IFLNK:
            link = header.link
            if not link or len(link) > self._limits.path:
                raise self._refuse(header.name, "is a symbolic link with no usable target")
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            device = header.device
            if device == (0, 0) and kind == stat.S_IFCHR:
                raise self._refuse(
                    header.name, "is the device 0:0, which overlay file systems take for a deletion"
                )
        for name, _ in header.xattrs:
            if name.startswith(_OVERLAY):
                raise self._refuse(header.name, f"sets {shown(name)}, which steers overlayfs")
        permissions = 0o777 if kind == stat.S_IFLNK else header.mode & 0o7777
        return Node(
            mode=kind | permissions,
            uid=header.uid,
            gid=header.gid,
            size=header.size,
            mtime=header.mtime,
            link=link,
            device=device,
            xattrs=header.xattrs,
        )

    def _digest(self, header: Header) -> bytes:
        hasher = blake3()
        left = header.size
        view = self._buffer
        readinto = self._input.readinto  # type: ignore[attr-defined]
        while left:
            got = readinto(view[: min(left, CHUNK)])
            if not got:
                raise self._refuse(header.name, "is cut off: the archive ends within it")
            hasher.update(view[:got])
            left -= got
        self._headers.consumed(header.size)
        return hasher.digest()
