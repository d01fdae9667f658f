"""Layers that nobody archived yet: their files lie where the step left them.

    rootfs/open/<scope>/<digest>    which unpacked directory has the files, and the archive's size
    rootfs/unpacked/<name>/fs       the files, as a step on top of the layer sees them
    rootfs/unpacked/<name>/state    when the directory can be trusted (`copy_state`)

The directory is the one that the executor keeps as the layer's unpacked copy. Here it is more than
a copy: as long as the layer is open, its files are nowhere else. Names, types, modes and times are
in the layer's index; from the directory only bytes of files are taken, and each file is compared
with its digest. A directory whose state can't be trusted (it was not synced before the machine
stopped) counts as absent.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from layercache.errors import CacheError
from layercache.model.digests import TreeDigest, is_tree_digest
from layercache.store.backend import InDirectory, ObjectInfo
from layercache.store.copy_state import CopyStates

if TYPE_CHECKING:
    from layercache.store.backend import Backend

__all__ = ["FORM", "OpenLayers", "open_directories", "place_of", "tree_named"]

FORM: Final = "root"
"""How owners and attributes lie on disk: as overlayfs stores them for root."""

_SCRATCH: Final = "rootfs"
_MOST: Final = 4096


def place_of(backend: Backend) -> str | None:
    """The directory beside `backend` in which open layers are; None for a cache that can't have
    any.

    Only a directory of this machine that nobody else may use: others could not read the files of
    a layer, which belong to the users of an image.
    """
    if not isinstance(backend, InDirectory):
        return None
    try:
        found = os.stat(backend.directory)
    except OSError:
        return os.path.join(backend.directory, _SCRATCH)  # it will be made for us alone
    shared = stat.S_IWGRP | stat.S_ISGID | stat.S_IWOTH
    if found.st_mode & shared or not hasattr(os, "geteuid") or found.st_uid != os.geteuid():
        return None
    return os.path.join(backend.directory, _SCRATCH)


class OpenLayers:
    """The open layers below `directory`, an executor's scratch directory. Safe for threads.

    `prefix` is what the names of a store's objects begin with: each store marks its own.
    `durability` says when what is kept survives a stop of the machine: at once (`full`), once
    `settle` returned (`batch`), never (`none`).
    """

    @classmethod
    def beside(cls, backend: Backend, prefix: str) -> OpenLayers | None:
        """Those of a store over `backend`; None if it can't have any (see `place_of`)."""
        place = place_of(backend)
        if place is None or not isinstance(backend, InDirectory):
            return None
        return cls(place, prefix, durability=backend.durability)

    def __init__(self, directory: str, prefix: str = "", *, durability: str = "batch") -> None:
        self.directory = directory
        self._scope = blake3(prefix.encode()).hexdigest()[:16]
        self._durability = durability
        self._guard = threading.Lock()
        self._kept: dict[TreeDigest, str] = {}
        self._states = CopyStates(FORM)

    # -- looking ------------------------------------------------------------------------------

    def stat(self, tree: TreeDigest) -> ObjectInfo | None:
        """Name, size of the archive and time of the last use; None unless the layer is open."""
        found = self._read(tree)
        if found is None:
            return None
        name, size = found
        state = self._states.read(self._unpacked(name))
        if state is None:
            return None
        if not state.durable:
            with self._guard:
                self._kept[tree] = name  # whoever relies on it makes it durable, too
        return ObjectInfo(name, size, state.stamp)

    def files(self, tree: TreeDigest) -> str | None:
        """The directory with the layer's files; None unless it is open."""
        found = self.stat(tree)
        return None if found is None else os.path.join(self._unpacked(found.name), "fs")

    def __iter__(self) -> Iterator[TreeDigest]:
        """Every layer that this store marked as open."""
        for name in _listed(self._marks):
            tree = TreeDigest(f"blake3:{name}")
            if is_tree_digest(tree):
                yield tree

    # -- keeping ------------------------------------------------------------------------------

    def keep(self, tree: TreeDigest, size: int, name: str) -> None:
        """Mark the unpacked directory `name`, which is complete, as the files of `tree`.

        `size` is that of the archive in bytes. Raises `CacheError`.
        """
        if not name.startswith(_digits(tree)):
            raise CacheError(f"the directory {name!r} is not one of the layer {tree}")
        try:
            os.makedirs(self._marks, mode=0o700, exist_ok=True)
            temporary = f"{self._mark(tree)}.{os.getpid()}-{threading.get_ident()}"
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(f"{name}\n{size}\n")
            os.replace(temporary, self._mark(tree))
        except OSError as error:
            raise CacheError(
                f"a layer can't be kept in {self.directory!r}: {error.strerror}"
            ) from error
        with self._guard:
            self._kept[tree] = name
        if self._durability == "full":
            self.settle()

    def settle(self) -> None:
        """Make what was kept survive a stop of the machine; raises `CacheError`."""
        with self._guard:
            kept, self._kept = self._kept, {}
        if not kept or self._durability == "none":
            return
        from layercache._os.durability import sync_filesystem

        try:
            descriptor = os.open(self._marks, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync_filesystem(descriptor, [])
            finally:
                os.close(descriptor)
            for name in kept.values():
                self._states.write(self._unpacked(name), durable=True)
        except OSError as error:
            raise CacheError(
                f"layers can't be made durable in {self.directory!r}: {error.strerror}"
            ) from error

    def touch(self, tree: TreeDigest) -> None:
        """Note that the layer is in use."""
        found = self._read(tree)
        if found is not None:
            try:
                os.utime(os.path.join(self._unpacked(found[0]), "state"))
            except OSError:
                pass  # a cache that can't be written is read as it is

    # -- giving up ----------------------------------------------------------------------------

    def release(self, tree: TreeDigest) -> None:
        """The layer is no longer open: its directory is an ordinary copy."""
        try:
            os.unlink(self._mark(tree))
        except OSError:
            pass

    def discard(self, tree: TreeDigest) -> None:
        """The layer is damaged or no longer wanted: nobody may use its directory any more."""
        found = self._read(tree)
        self.release(tree)
        if found is not None:
            try:
                os.unlink(os.path.join(self._unpacked(found[0]), "state"))
            except OSError:
                pass

    # -- places -------------------------------------------------------------------------------

    @property
    def _marks(self) -> str:
        return os.path.join(self.directory, "open", self._scope)

    def _mark(self, tree: TreeDigest) -> str:
        return os.path.join(self._marks, _digits(tree))

    def _unpacked(self, name: str) -> str:
        return os.path.join(self.directory, "unpacked", name)

    def _read(self, tree: TreeDigest) -> tuple[str, int] | None:
        return _read_mark(self._mark(tree), _digits(tree))


def tree_named(name: str) -> TreeDigest | None:
    """The layer that the object name of an open layer stands for; None for another name."""
    tree = TreeDigest("blake3:" + name.rpartition("/")[2])
    return tree if is_tree_digest(tree) else None


def open_directories(directory: str) -> frozenset[str]:
    """The names of the unpacked directories below `directory` that hold open layers of any
    store."""
    found = set()
    top = os.path.join(directory, "open")
    for scope in _listed(top):
        for digits in _listed(os.path.join(top, scope)):
            mark = _read_mark(os.path.join(top, scope, digits), digits)
            if mark is not None:
                found.add(mark[0])
    return frozenset(found)


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _read_mark(path: str, digits: str) -> tuple[str, int] | None:
    """The name and size that a mark says."""
    try:
        with open(path, encoding="utf-8") as file:
            name, size, end = file.read(_MOST).split("\n")
    except (OSError, ValueError):
        return None
    good = name.replace("-", "").isalnum() and name.startswith(digits)
    if end or not good or not size.isascii() or not size.isdigit():
        return None
    return name, int(size)


def _digits(tree: TreeDigest) -> str:
    if not is_tree_digest(tree):
        raise CacheError(f"not the digest of a layer's tree: {tree!r}")
    return tree.partition(":")[2]
