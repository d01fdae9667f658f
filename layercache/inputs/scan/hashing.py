"""Content digests of selected files: each is read once, one directory at a time."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from blake3 import blake3

from layercache._os.xattrs import get_xattr, list_xattrs
from layercache.errors import ContextChanged
from layercache.inputs.scan.columns import DIGEST, PACK, ROW, Columns, row_of
from layercache.inputs.scan.read_beneath import ReadBeneath, changed, unreadable
from layercache.inputs.scan.scanning import Counts
from layercache.model.tree import CAPABILITY, Node, node_digest

__all__ = ["hash_range"]

_WHOLE: Final = 1 << 20
"""Bytes: files below are read with one call, larger ones through a buffer of this size."""

_ATTEMPTS: Final = 5

EMPTY: Final = blake3().digest()

_CAPABILITY: Final = CAPABILITY.decode()

_WITHOUT_ATTRIBUTES: Final = (errno.ENOTSUP, errno.ENOSYS)
"""Error numbers of file systems without extended attributes."""


def hash_range(
    columns: Columns, beneath: ReadBeneath, directory: int, first: int, last: int, counts: Counts
) -> None:
    """Compute the digests of files `first` up to `last` of `directory`.

    A file whose stamps changed since the scan is taken in its present state if that is stable.
    Raises `ContextChanged` if it is not stable or is gone, `SourceError` if it can't be read.
    """
    known = columns.known
    number = known.find(0, first, last)
    if number < 0:
        return
    path = columns.dir_paths[directory]
    prefix = path + b"/" if path else b""
    names = columns.names(directory)
    start = columns.starts[directory]
    try:
        parent = beneath.directory(path)
    except OSError as error:
        raise unreadable(path, error) from error
    opener, reader, closer, fstat, xattrs = os.open, os.read, os.close, os.fstat, list_xattrs
    flags = beneath.flags
    while number >= 0:
        end = known.find(1, number, last)
        if end < 0:
            end = last
        at, name = number, b""
        opened = total = 0
        made: list[bytes] = []
        rows = memoryview(bytes(columns.rows[number * ROW : end * ROW]))
        try:
            for name, row in zip(
                names[number - start : end - start], PACK.iter_unpack(rows), strict=True
            ):
                mode, size, mtime, ctime, inode, _ = row
                if mode & 0o170000 != 0o100000:
                    made.append(_special(parent, name, mode))
                    at += 1
                    continue
                try:
                    descriptor = opener(name, flags, dir_fd=parent)
                except PermissionError:
                    descriptor = beneath.open_at(parent, name)
                    flags = beneath.flags
                try:
                    opened += 1
                    data = reader(descriptor, size + 1) if size < _WHOLE else b""
                    # One look at the stamps, after reading: they are still the scan's.
                    status = fstat(descriptor)
                    if (
                        status.st_ctime_ns == ctime
                        and status.st_size == size == len(data)
                        and status.st_mtime_ns == mtime
                        and status.st_ino == inode
                    ):
                        digest = blake3(data).digest()
                        total += size
                    else:
                        digest = _settle(columns, descriptor, at, prefix + name, counts)
                    try:
                        attributes = xattrs(descriptor)
                    except OSError as error:
                        if error.errno not in _WITHOUT_ATTRIBUTES:
                            raise
                        attributes = []
                    if _CAPABILITY in attributes:
                        digest = _with_capability(columns, descriptor, at, digest)
                finally:
                    closer(descriptor)
                made.append(digest)
                at += 1
        except OSError as error:
            raise unreadable(prefix + name, error) from error
        finally:
            # Digests are kept even if the next file can't be read.
            columns.digests[number * DIGEST : at * DIGEST] = b"".join(made)
            known[number:at] = b"\1" * len(made)
            counts.files_opened += opened
            counts.bytes_hashed += total
        number = known.find(0, end, last)


def _settle(columns: Columns, descriptor: int, number: int, path: bytes, counts: Counts) -> bytes:
    """The digest of a file that is large or changed since the scan; updates its row."""
    for _ in range(_ATTEMPTS):
        before = row_of(os.fstat(descriptor))
        if not stat.S_ISREG(before[0]):
            break
        os.lseek(descriptor, 0, os.SEEK_SET)
        hasher = blake3()
        buffer = bytearray(_WHOLE)
        view = memoryview(buffer)
        seen = 0
        while count := os.readv(descriptor, [buffer]):
            hasher.update(view[:count])
            seen += count
        counts.bytes_hashed += seen
        if seen == before[1] and row_of(os.fstat(descriptor)) == before:
            PACK.pack_into(columns.rows, number * ROW, *before)
            return hasher.digest()
    raise changed(path, "it kept changing")


def _with_capability(columns: Columns, descriptor: int, number: int, content: bytes) -> bytes:
    value = get_xattr(descriptor, _CAPABILITY)
    columns.capabilities[number] = (content, value)
    return node_digest(Node(mode=stat.S_IFREG, content=content, xattrs=((CAPABILITY, value),)))


def _special(parent: int, name: bytes, mode: int) -> bytes:
    if stat.S_ISSOCK(mode):
        return EMPTY
    if stat.S_ISLNK(mode):
        return node_digest(Node(mode=mode, link=os.readlink(name, dir_fd=parent)))
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode):
        raise ContextChanged(f"{os.fsdecode(name)} was replaced while it was being read")
    return node_digest(Node(mode=mode, device=device_of(status)))


def device_of(status: os.stat_result) -> tuple[int, int]:
    """Major and minor number of a device; 0 and 0 for anything else."""
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return os.major(status.st_rdev), os.minor(status.st_rdev)
    return 0, 0
