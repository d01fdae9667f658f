"""Reading directories beneath a descriptor, depth first, with attributes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from blake3 import blake3

from layercache._base.classes import field, frozen
from layercache._os.xattrs import get_xattr, list_xattrs, remove_xattr

__all__ = ["OPEN", "Attributes", "Item", "Scan", "attributes_of", "digest_of", "remove_attributes"]

CHUNK: Final = 256 * 1024
OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = OPEN | os.O_DIRECTORY
_KEPT: Final = ("security.capability", "user.", "system.posix_acl_")
"""Extended attributes that belong to the content of an image; labels of the host do not."""
_OVERLAY: Final = ("trusted.overlay.", "user.overlay.")
"""Attributes of overlayfs: as root, and in a user namespace."""
_FLEETING: Final = ("trusted.", "security.selinux", "user.overlay.")
"""Attributes that a command may set and no layer holds."""


@frozen
class Item:
    """An entry of a directory: its path, its name, its directory's descriptor, its stat.

    `opened` is a descriptor of the entry itself, where it is a file that is open.
    """

    path: bytes
    name: bytes
    directory: int
    stat: os.stat_result
    opened: int | None = None


class Scan:
    """Walks a directory beneath its descriptor, depth first, siblings by their bytes."""

    def __init__(self, root: str | bytes | int) -> None:
        if isinstance(root, int):
            self._root = os.open(b".", _DIRECTORY, dir_fd=root)
        else:
            self._root = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
        self._stack: list[tuple[bytes, int, Iterator[tuple[bytes, os.stat_result]]]] = []

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for _, descriptor, _ in self._stack:
            os.close(descriptor)
        os.close(self._root)

    @property
    def root(self) -> Item:
        """The root directory itself."""
        return Item(b"", b".", self._root, os.fstat(self._root))

    def enter(self, item: Item) -> list[tuple[bytes, os.stat_result]]:
        """Open a directory and list it; `next` then returns its entries."""
        descriptor = os.open(item.name, _DIRECTORY, dir_fd=item.directory)
        with os.scandir(descriptor) as entries:
            names = [(os.fsencode(e.name), e.stat(follow_symlinks=False)) for e in entries]
        names.sort(key=lambda pair: pair[0])
        self._stack.append((item.path, descriptor, iter(names)))
        return names

    def next(self) -> Item | None:
        """The next entry of the innermost open directory; None if that directory was closed."""
        path, descriptor, names = self._stack[-1]
        for name, found in names:
            return Item(path + b"/" + name if path else name, name, descriptor, found)
        self._stack.pop()
        os.close(descriptor)
        return None

    @property
    def descriptor(self) -> int:
        """The innermost open directory."""
        return self._stack[-1][1]

    @property
    def open(self) -> bool:
        """Whether a directory is open."""
        return bool(self._stack)

    def walk(self) -> Iterator[Item]:
        """All entries, the root first."""
        yield self.root
        self.enter(self.root)
        while self.open:
            item = self.next()
            if item is not None:
                yield item
                if stat.S_ISDIR(item.stat.st_mode):
                    self.enter(item)


@frozen
class Attributes:
    """The extended attributes of an item.

    `kept` are content; `overlay` are the marks of overlayfs by the end of their name; `fleeting`
    are the names of attributes that no layer holds.
    """

    kept: tuple[tuple[bytes, bytes], ...] = ()
    overlay: Mapping[str, bytes] = field(factory=dict)
    fleeting: tuple[str, ...] = ()


def attributes_of(item: Item, *, rootless: bool = False) -> Attributes:
    """The attributes of an item of a directory that overlayfs wrote to.

    A command may set attributes that look like marks of overlayfs: those of the other kind, and,
    in the form in which the kernel stores them, with the prefix twice. They do not count as marks.
    """
    place = item.opened if item.opened is not None else _place(item)
    follow = item.opened is not None  # a descriptor is of the entry itself
    try:
        names = list_xattrs(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return Attributes()
    if not names:
        return Attributes()
    marks = _OVERLAY[rootless]
    kept: list[tuple[bytes, bytes]] = []
    overlay: dict[str, bytes] = {}
    fleeting: list[str] = []
    for name in names:
        if name.startswith(marks) and "." not in name[len(marks) :]:
            overlay[name[len(marks) :]] = get_xattr(place, name, follow_symlinks=follow)
        elif name.startswith(_FLEETING):
            fleeting.append(name)
        elif name.startswith(_KEPT):
            value = get_xattr(place, name, follow_symlinks=follow)
            kept.append((os.fsencode(name), value))
    return Attributes(tuple(sorted(kept)), overlay, tuple(fleeting))


def remove_attributes(item: Item, names: Iterable[str]) -> None:
    """Remove attributes; those that the system does not release stay."""
    for name in names:
        try:
            remove_xattr(_place(item), name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENODATA, errno.ENOTSUP):
                raise


def _place(item: Item) -> bytes:
    # No call takes a descriptor of the directory: /proc names exactly this one.
    return b"/proc/self/fd/%d/%s" % (item.directory, item.name)


def digest_of(item: Item) -> bytes:
    descriptor = os.open(item.name, OPEN, dir_fd=item.directory)
    try:
        hasher = blake3()
        while chunk := os.read(descriptor, CHUNK):
            hasher.update(chunk)
        return hasher.digest()
    finally:
        os.close(descriptor)
