"""Blobs, and beside them open layers, which have no archive as long as nobody asks for it.

An open layer is named by the digest of its tree wherever a blob is named by the digest of its
bytes. Whoever wants bytes gets those of its archive: it is made then, from the files where they
lie, compared with the tree, stored as a blob, and known from then on. A layer whose files were
damaged or lost before is gone like a blob, and its step makes it again.
"""

from __future__ import annotations

import functools
import io
import os
import threading
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject, NotFound, SourceError
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import DiffID, Digest, TreeDigest, is_digest, is_tree_digest
from layercache.store.backend import ObjectInfo
from layercache.store.blobs import BlobStore
from layercache.store.codec import pack, unpack

if TYPE_CHECKING:
    from layercache.layers.files_beneath import FilesBeneath
    from layercache.model.layer_index import LayerIndex
    from layercache.store.open_layers import OpenLayers
    from layercache.store.sealed_objects import SealedObjects
    from layercache.store.small_objects import Derived
    from layercache.store.verified_reader import VerifyingReader

__all__ = ["ARCHIVES", "LayerBlobs"]

ARCHIVES: Final = "archives"
"""The kind of the derived object that says which archive is that of a tree."""

_CHUNK: Final = 1 << 18


class LayerBlobs(BlobStore):
    """The CAS half of a store in which layers may be open. Safe for threads."""

    def __init__(self, objects: SealedObjects, derived: Derived) -> None:
        super().__init__(objects)
        self._derived = derived
        self._locks: dict[TreeDigest, threading.Lock] = {}
        self._archives: dict[TreeDigest, Descriptor] = {}
        self._readers: dict[TreeDigest, _Reader] = {}
        self._sealed: set[TreeDigest] = set()
        self._kept: set[TreeDigest] = set()

    @functools.cached_property
    def _open_layers(self) -> OpenLayers | None:
        """The open layers beside the backend; a build without any does not look for them."""
        from layercache.store.open_layers import OpenLayers

        return OpenLayers.beside(self._objects.backend, self._objects.prefix)

    # -- keeping ------------------------------------------------------------------------------

    @property
    def open_layers(self) -> str | None:
        """The scratch directory in which open layers are looked for; None where there are none."""
        return None if self._open_layers is None else self._open_layers.directory

    def keep_open(self, layer: Layer, index: LayerIndex, name: str) -> None:
        """Take an open layer, whose files are in the unpacked directory `name`.

        Raises `CacheError` where it can't be kept.
        """
        if self._open_layers is None:
            raise CacheError("this cache keeps no layers without their archives")
        tree = layer.tree
        self._objects.mark_format()
        self.hold(Digest(tree))
        payload = index.encode()
        if self._derived.get("index", tree) != payload:
            self._derived.put("index", tree, payload)
            if self._derived.get("index", tree) != payload:
                raise CacheError(f"the list of layer {tree} can't be stored")
        self._open_layers.keep(tree, layer.descriptor.size, name)
        with self._guard:
            healed = Digest(tree) in self._corrupt
            self._corrupt.discard(Digest(tree))
            self._damaged.discard(Digest(tree))
            self._kept.add(tree)
            self.written.add(Digest(tree))
        if healed:
            self._report("healed", self.name(Digest(tree)), f"layer {tree} was made again")

    def settle(self) -> None:
        """Make open layers durable that were kept since this was last called; raises
        `CacheError`."""
        opened = self.__dict__.get("_open_layers")  # not looked for where none was used
        if opened is not None:
            opened.settle()

    def settled(self) -> None:
        """All that was kept is durable: a layer whose archive was made is open no more."""
        with self._guard:
            self.written.clear()
            self._kept.clear()
            sealed, self._sealed = self._sealed, set()
        for tree in sealed:
            self._release(tree)

    def rescue(self) -> None:
        """Keep archives aside of layers whose durability the backend can't promise."""
        with self._guard:
            kept, self._kept = self._kept, set()
            self.written -= {Digest(tree) for tree in kept}
            self._sealed.clear()
        for tree in kept:
            try:
                self.seal(tree, aside=True)
            except CacheError as error:
                self._failing(self.name(Digest(tree)), error)
            self._discard(tree)
        super().rescue()

    # -- presence -----------------------------------------------------------------------------

    def stamp(self, descriptor: Descriptor) -> float | None:
        """The time of the last write or touch; None unless it exists with this size."""
        digest = descriptor.digest
        if not is_tree_digest(digest):
            return super().stamp(descriptor)
        if self._open_layers is None or digest in self._damaged:
            return None
        found = self._open_layers.stat(TreeDigest(digest))
        return None if found is None or found.size != descriptor.size else found.stamp

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob exists, or the open layer; reads nothing."""
        digest = descriptor.digest
        if not is_tree_digest(digest):
            return super().has(descriptor)
        tree = TreeDigest(digest)
        return self.stamp(descriptor) is not None or self.archive_of(tree) is not None

    def archive_of(self, tree: TreeDigest) -> Descriptor | None:
        """The archive of a layer, where one was made and is still here."""
        known = self._known_archive(tree)
        if known is None:
            return None
        self.hold(known.digest)
        return known if super().has(known) else None

    def named_archive(self, tree: TreeDigest) -> Digest | None:
        """The digest of the archive of a layer, where one was ever made."""
        known = self._known_archive(tree)
        return None if known is None else known.digest

    def _known_archive(self, tree: TreeDigest) -> Descriptor | None:
        """The archive that was made of a layer, whether or not it is still here."""
        known = self._archives.get(tree)
        if known is None:
            kept = self._derived.get(ARCHIVES, tree)
            known = _archive_from(kept) if kept is not None else None
        return known

    def renew(self, digest: Digest) -> None:
        """Note that an open layer is in use."""
        if self._open_layers is not None and is_tree_digest(digest):
            self._open_layers.touch(TreeDigest(digest))

    # -- archives -----------------------------------------------------------------------------

    def sealed(self, layer: Layer) -> Layer:
        """`layer` with its archive, which is made if nobody made it before.

        Raises `NotFound` or `CorruptObject` where the layer is lost, `CacheError` where the
        archive can't be written.
        """
        return _with(layer, self.seal(layer.tree)) if layer.is_open else layer

    def seal(self, tree: TreeDigest, *, aside: bool = False) -> Descriptor:
        """The archive of a layer; raises the errors of `sealed`.

        `aside` keeps it for the life of this object only.
        """
        with self._guard:
            lock = self._locks.setdefault(tree, threading.Lock())
        with lock:
            known = None if aside else self.archive_of(tree)
            if known is not None:
                return known
            if Digest(tree) in self._damaged:
                raise NotFound(f"layer {tree} could not be read before")
            return self._archive(tree, aside)

    def _archive(self, tree: TreeDigest, aside: bool) -> Descriptor:
        from layercache.layers.lister import write_archive
        from layercache.store.spool import remove_file

        index = self._index(tree)
        self._objects.mark_format()
        path, out = self._spool.new(private=aside)
        try:
            with self._files(tree) as files, os.fdopen(out, "wb", buffering=0) as sink:
                diff_id, size, found = write_archive(index, cast(BinaryIO, sink), files.open)
            if found.tree != tree:
                raise CorruptObject(f"the list of layer {tree} is of another one")
        except (SourceError, CorruptObject) as error:
            raise self._spoilt(tree, str(error), path) from error
        except OSError as error:
            remove_file(path)
            raise CacheError(f"the archive of layer {tree} can't be written: {error}") from error
        digest = Digest(diff_id)
        if aside:
            self._keep(path, digest)
            descriptor = Descriptor(LAYER_TAR, digest, size)
        else:
            descriptor = self.add_file(path, LAYER_TAR, digest, size)
        with self._guard:
            self._archives[tree] = descriptor
        if not self.kept_aside(digest):
            self._derived.put("index", diff_id, found.encode())
            self._derived.put(ARCHIVES, tree, pack((digest, size)))
            with self._guard:
                self._sealed.add(tree)
        return descriptor

    def _spoilt(self, tree: TreeDigest, why: str, path: str = "") -> CorruptObject:
        """Give up an open layer that is not what its list says."""
        if path:
            from layercache.store.spool import remove_file

            remove_file(path)
        known = Digest(tree) in self._damaged
        self.distrust(Digest(tree))
        if not known:
            self._corrupt.add(Digest(tree))
            self._report("corrupt", self.name(Digest(tree)), f"layer {tree} is damaged: {why}")
        return CorruptObject(f"layer {tree} is damaged: {why}")

    def _index(self, tree: TreeDigest) -> LayerIndex:
        from layercache.model.layer_index import LayerIndex

        kept = self._derived.get("index", tree)
        if kept is None:
            raise NotFound(f"the list of layer {tree} is gone")
        return LayerIndex.decode(kept)

    def _files(self, tree: TreeDigest) -> FilesBeneath:
        from layercache.layers.files_beneath import FilesBeneath

        place = None if self._open_layers is None else self._open_layers.files(tree)
        if place is None:
            raise NotFound(f"layer {tree} is neither open nor archived here")
        return FilesBeneath(place)

    # -- reading ------------------------------------------------------------------------------

    def _verifying(self, digest: Digest, size: int | None = None) -> VerifyingReader:
        if is_tree_digest(digest):
            archive = self.seal(TreeDigest(digest))
            digest, size = archive.digest, archive.size
        return super()._verifying(digest, size)

    def verified_path(self, descriptor: Descriptor) -> str:
        """A file with the verified bytes; see `BlobStore.verified_path`."""
        if is_tree_digest(descriptor.digest):
            descriptor = self.seal(TreeDigest(descriptor.digest))
        return super().verified_path(descriptor)

    def open_range(self, descriptor: Descriptor, offset: int, size: int) -> BinaryIO:
        """`size` bytes of the verified blob from `offset` on; of an open layer those of the file
        that would be there in its archive, which the caller compares with its digest."""
        found = self._open_file(descriptor, offset, size)
        return super().open_range(descriptor, offset, size) if found is None else found

    def _open_file(self, descriptor: Descriptor, offset: int, size: int) -> BinaryIO | None:
        tree = TreeDigest(descriptor.digest)
        if not is_tree_digest(tree):
            return None
        with self._guard:
            reader = self._readers.get(tree)
        if reader is None:
            if self.stamp(descriptor) is None:
                return None
            reader = _Reader(self._files(tree), self._index(tree))
            with self._guard:
                reader = self._readers.setdefault(tree, reader)
        return reader.open(offset) if size else io.BytesIO()

    def _check(self, descriptor: Descriptor) -> None:
        tree = TreeDigest(descriptor.digest)
        if not is_tree_digest(tree):
            super()._check(descriptor)
            return
        if Digest(tree) in self._damaged:
            raise NotFound(f"layer {tree} could not be read before")
        archive = self.archive_of(tree)
        if archive is not None:
            super()._check(archive)
            return
        try:
            self.examine(tree)
        except CorruptObject as error:
            raise self._spoilt(tree, str(error)) from error

    def examine(self, tree: TreeDigest) -> None:
        """Read every file of an open layer, and change nothing.

        Raises `CorruptObject` for a wrong one or a wrong list, `NotFound` where it is not open.
        """
        from layercache.layers.verified_file import Verified

        index = self._index(tree)
        if index.tree != tree:
            raise CorruptObject(f"the list of layer {tree} is of another one")
        with self._files(tree) as files:
            for row, _ in index.files():
                if row in index.hardlinks:
                    continue
                path, node = index.paths[row], index.node(row)
                try:
                    with open(files.open(path), "rb", buffering=0) as source:
                        content = Verified(cast(BinaryIO, source), node.content, node.size, path)
                        while content.read(_CHUNK):
                            pass
                        longer = source.read(1)
                except OSError as error:
                    raise CorruptObject(f"{path!r} can't be read: {error.strerror}") from error
                if longer:
                    raise CorruptObject(f"{path!r} is longer than its layer says")

    # -- giving up ----------------------------------------------------------------------------

    def distrust(self, digest: Digest) -> None:
        """Treat the blob as absent until it is written again."""
        super().distrust(digest)
        if is_tree_digest(digest):
            self._discard(TreeDigest(digest))

    def _discard(self, tree: TreeDigest) -> None:
        with self._guard:
            self._readers.pop(tree, None)
        if self._open_layers is not None:
            self._open_layers.discard(tree)

    def _release(self, tree: TreeDigest) -> None:
        with self._guard:
            self._readers.pop(tree, None)
        if self._open_layers is not None:
            self._open_layers.release(tree)

    def close(self) -> None:
        """Remove blobs that were kept aside."""
        with self._guard:
            self._readers.clear()
        super().close()

    def delete_open(self, name: str) -> bool:
        """Give up the open layer with this object name; returns whether the name is one of an open
        layer."""
        from layercache.store.open_layers import tree_named

        tree = tree_named(name)
        if tree is None or self.name(Digest(tree)) != name:
            return False
        if Digest(tree) in self._damaged:
            self._discard(tree)
        self._release(tree)
        return True

    def open_places(self) -> tuple[str, ...]:
        """What the names of files of open layers begin with, below the directory of the cache."""
        if self._open_layers is None:
            return ()
        from layercache.store.open_layers import open_directories

        directory = self._open_layers.directory
        place = os.path.basename(directory)
        return tuple(f"{place}/unpacked/{name}/" for name in sorted(open_directories(directory)))

    def open_infos(self) -> list[ObjectInfo]:
        """The open layers that are here, by the names under which builds hold them, with the
        sizes of their archives."""
        layers = self._open_layers
        found = []
        for tree in () if layers is None else layers:
            info = None if layers is None else layers.stat(tree)
            if info is not None:
                found.append(ObjectInfo(self.name(Digest(tree)), info.size, info.stamp))
        return found


class _Reader:
    """Files of an open layer by the offset that they would have in its archive. Safe for
    threads."""

    def __init__(self, files: FilesBeneath, index: LayerIndex) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._paths = {
            index.content(row)[0]: path
            for row, path in enumerate(index.paths)
            if index.content(row)[1] and row not in index.hardlinks
        }

    def open(self, offset: int) -> BinaryIO:
        path = self._paths.get(offset)
        if path is None:
            raise CorruptObject(f"no file of an open layer is at {offset}")
        with self._lock:
            descriptor = self._files.open(path)
        return cast(BinaryIO, open(descriptor, "rb", buffering=0))


def _with(layer: Layer, archive: Descriptor) -> Layer:
    return evolve(layer, descriptor=archive, diff_id=DiffID(archive.digest))


def _archive_from(payload: bytes) -> Descriptor | None:
    """The descriptor in a derived object; None for anything else."""
    try:
        digest, size = unpack(payload)
    except (CorruptObject, TypeError, ValueError):
        return None
    if type(digest) is not str or not is_digest(digest) or type(size) is not int or size < 0:
        return None
    return Descriptor(LAYER_TAR, Digest(digest), size)
