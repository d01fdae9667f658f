"""Content by digest over one backend: written once, verified whenever it is read.

A blob that the backend does not accept (a full disk, a broken network) is kept beside it for the
life of the store object, so that a build continues and only loses sharing.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.model.descriptors import Descriptor
from layercache.model.digests import Digest
from layercache.store.backend import Adopts, Holds, LocalFiles
from layercache.store.sealed_objects import SealedObjects

if TYPE_CHECKING:
    from layercache.store.spool import Spool
    from layercache.store.verified_reader import VerifyingReader

__all__ = ["GRACE", "BlobStore", "blob_name", "file_range", "is_old"]

GRACE: Final = 86_400.0
"""Seconds for which a collection never removes what was written or relied on."""

_CHUNK: Final = 1 << 18
_TRIES: Final = 2
"""So often a blob may turn out unreadable before its bytes are kept beside the backend too."""

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime of a file: unchanged means the same bytes."""


def blob_name(digest: Digest) -> str:
    """The object name of a blob."""
    algorithm, _, text = digest.partition(":")
    return f"blobs/{algorithm}/{text[:2]}/{text}"


def is_old(stamp: float) -> bool:
    """Whether a build that relies on an object with this stamp must renew it."""
    return stamp < time.time() - GRACE / 2


class BlobStore:
    """The CAS half of a store (`layercache.store.parts.ContentStore`). Safe for threads."""

    def __init__(self, objects: SealedObjects) -> None:
        self._objects = objects
        self._backend = backend = objects.medium
        self._report = objects.events.report
        self._failing = objects.events.failed
        self._holds = backend if isinstance(backend, Holds) else None
        self._guard = threading.Lock()
        self._damaged: set[Digest] = set()
        self._corrupt: set[Digest] = set()
        """Those of them that were there, and not what they should be."""
        self._distrusted: dict[Digest, int] = {}
        self._verified: dict[Digest, Identity] = {}
        self._aside: dict[Digest, str] = {}
        self._opened_spool: Spool | None = None
        self.written: set[Digest] = set()
        """What the backend took since this was last cleared."""

    def name(self, digest: Digest) -> str:
        """The object's name in the backend."""
        return self._objects.prefix + blob_name(digest)

    @property
    def _spool(self) -> Spool:
        """Made at the first write: a build of hits needs none."""
        with self._guard:
            if self._opened_spool is None:
                from layercache.store.spool import Spool

                self._opened_spool = Spool(self._backend, self._objects.events)
            return self._opened_spool

    # -- presence -----------------------------------------------------------------------------

    def kept_aside(self, digest: Digest) -> bool:
        """Whether the blob is only here, because the backend did not accept it."""
        return digest in self._aside

    def damaged(self, digest: Digest) -> bool:
        """Whether this store found the blob damaged and it has not been written again."""
        return digest in self._damaged

    def stamp(self, descriptor: Descriptor) -> float | None:
        """The time of the blob's last write or touch; None unless it exists with this size."""
        if descriptor.digest in self._damaged:
            return None
        name = self.name(descriptor.digest)
        try:
            if self._objects.stats is not None:
                info = self._objects.stats.stat(name)
            else:
                info = next((i for i in self._backend.list(name) if i.name == name), None)
        except CacheError as error:
            self._failing(name, error)
            return None
        return None if info is None or info.size != descriptor.size else info.stamp

    def hold(self, digest: Digest) -> None:
        """Protect the blob from collections until the backend is released."""
        if self._holds is not None:
            try:
                self._holds.hold((self.name(digest),))
            except CacheError as error:
                self._failing(self.name(digest), error)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob exists, by name and size; reads nothing."""
        return self.kept_aside(descriptor.digest) or self.stamp(descriptor) is not None

    def publish(self, descriptors: Sequence[Descriptor]) -> None:
        """Do nothing: whoever shares this store finds them here."""

    def obtain(self, descriptor: Descriptor) -> bool:
        """Whether the blob exists: there is nowhere to bring it from."""
        return self.has(descriptor)

    def keep(self, descriptor: Descriptor) -> None:
        """Make sure that the blob is in the backend itself, for a reference that outlives us.

        Raises `CacheError` where it is not: one that the backend did not take is with this
        object only, and gone with it.
        """
        digest = descriptor.digest
        self.hold(digest)
        if self.kept_aside(digest) or self.stamp(descriptor) is None:
            backend = self._objects.backend
            raise CacheError(f"the cache {backend!r} does not hold the layer {digest}")

    # -- reading ------------------------------------------------------------------------------

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's bytes; reading to the end raises `CorruptObject` when they are not right.

        Raises `NotFound`, or `CacheError` when the backend fails.
        """
        return cast(BinaryIO, self._verifying(digest))

    def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob, verified."""
        with self._verifying(digest) as content:
            return content.readall()

    def _verifying(self, digest: Digest, size: int | None = None) -> VerifyingReader:
        """A reader that verifies at the end.

        A blob that could not be read once counts as absent for this object until it is written
        again, even if the cause disappears: the build makes it again, which repairs the cache.
        """
        path = self._aside.get(digest)
        source: BinaryIO
        try:
            source = _open(path) if path else self._backend.read(self.name(digest))
        except OSError as error:
            self.distrust(digest)
            raise NotFound(f"the blob {digest} is gone from {path!r}") from error
        except CacheError:
            self.distrust(digest)
            raise
        from layercache.store.verified_reader import VerifyingReader

        return VerifyingReader(source, digest, size, lambda how: self._ended(digest, how))

    def _ended(self, digest: Digest, how: CacheError | None) -> None:
        if how is not None:
            known = digest in self._damaged
            self.distrust(digest)
            if isinstance(how, CorruptObject) and not known:
                self._corrupt.add(digest)
                self._report("corrupt", self.name(digest), str(how))

    def distrust(self, digest: Digest) -> None:
        """Treat the blob as absent until it is written again."""
        with self._guard:
            if digest not in self._damaged:
                self._distrusted[digest] = self._distrusted.get(digest, 0) + 1
            self._damaged.add(digest)
            self._verified.pop(digest, None)
            self._aside.pop(digest, None)

    def verified_path(self, descriptor: Descriptor) -> str:
        """A file with the verified bytes, for reading by offset while this store is open.

        It is read once; later calls only check that it is still the same file. A remote blob is
        fetched. Raises `NotFound`, `CorruptObject` or `CacheError`.
        """
        digest = descriptor.digest
        path = self._aside.get(digest)
        if path is None and isinstance(self._backend, LocalFiles):
            path = self._backend.path(self.name(digest))
        if path is None:
            return self._fetch(descriptor)
        identity = _identity(path)
        if identity is None:
            raise NotFound(f"the blob {digest} is missing")
        if self._verified.get(digest) != identity:
            self._check(descriptor)
            if _identity(path) != identity:
                return self.verified_path(descriptor)  # replaced meanwhile
            with self._guard:
                self._verified[digest] = identity
        return path

    def open_range(self, descriptor: Descriptor, offset: int, size: int) -> BinaryIO:
        """`size` bytes of the verified blob from `offset` on."""
        return file_range(self.verified_path(descriptor), descriptor, offset, size)

    def intact(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and verifies; reads all of it."""
        try:
            self._check(descriptor)
        except CacheError as error:
            if not isinstance(error, NotFound | CorruptObject):
                self._failing(self.name(descriptor.digest), error)
            return False
        return True

    def _check(self, descriptor: Descriptor) -> None:
        """Read and verify all of it; raises `NotFound`, `CorruptObject` or `CacheError`."""
        if descriptor.digest in self._damaged:
            raise NotFound(f"blob {descriptor.digest} could not be read before")
        with self._verifying(descriptor.digest, descriptor.size) as content:
            while content.read(_CHUNK):
                pass

    def _fetch(self, descriptor: Descriptor) -> str:
        """A verified copy of a remote blob on this machine."""
        with self._verifying(descriptor.digest, descriptor.size) as content:
            path, _, _ = self._spool.copy(cast(BinaryIO, content), private=True)
        return self._keep(path, descriptor.digest)

    # -- writing ------------------------------------------------------------------------------

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store all of `content`.

        Content that the backend does not accept is kept for the life of this object. Raises
        `CacheError` only if that fails, too.
        """
        self._objects.mark_format()
        path, digest, size = self._spool.copy(content)
        return self.add_file(path, media_type, digest, size)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Store the complete file at `path`, whose digest the caller computed while writing.

        It is moved into place where that is possible, else copied and removed.
        """
        from layercache.store.spool import remove_file

        self._objects.mark_format()
        descriptor = Descriptor(media_type, digest, size)
        name = self.name(digest)
        self.hold(digest)
        stamp = self.stamp(descriptor)
        if stamp is not None and self._stays(name, stamp):
            remove_file(path)
            return descriptor
        healed = digest in self._corrupt
        unreliable = self._distrusted.get(digest, 0) >= _TRIES
        if unreliable:
            path = self._keep(path, digest)
        try:
            adopted = (
                not unreliable
                and isinstance(self._backend, Adopts)
                and self._backend.adopt(path, name)
            )
            if not adopted:
                with open(path, "rb") as content:
                    self._backend.write(name, content)
                if not unreliable:
                    remove_file(path)
        except CacheError as error:
            self._keep(path, digest)
            self._objects.events.degraded(name, "a blob is kept for this build only", error)
            return descriptor
        with self._guard:
            self.written.add(digest)
            self._damaged.discard(digest)
            if not unreliable:
                self._aside.pop(digest, None)
            if not unreliable and isinstance(self._backend, LocalFiles):
                identity = _identity(self._backend.path(name))
                if identity is not None and identity[2] == size:
                    self._verified[digest] = identity
        if healed:
            self._corrupt.discard(digest)
            self._report("healed", name, f"blob {digest} was written again")
        return descriptor

    def _stays(self, name: str, stamp: float) -> bool:
        """Whether a collection will leave an existing blob, now that a build relies on it.

        A blob that may soon be old enough to be collected is renewed, if possible, or written
        again.
        """
        if not is_old(stamp):
            return True
        if self._objects.touches is None:
            return False
        try:
            self._objects.touches.touch((name,))
        except CacheError as error:
            self._failing(name, error)
        return True

    def _keep(self, path: str, digest: Digest) -> str:
        """Keep the file at `path` for the life of this store."""
        from layercache.store.spool import remove_file

        directory = self._spool.private()
        kept = os.path.join(directory, digest.replace(":", "-"))
        if path != kept:
            try:
                os.replace(path, kept)
            except OSError:
                import shutil

                try:
                    shutil.copyfile(path, kept)
                except OSError as error:
                    raise CacheError(f"blob {digest} can't be kept: {error}") from error
                remove_file(path)
        with self._guard:
            self._aside[digest] = kept
            self._damaged.discard(digest)
            identity = _identity(kept)
            if identity is not None:
                self._verified[digest] = identity
        return kept

    def rescue(self) -> None:
        """Keep aside a blob whose durability the backend can't promise, and remove it there."""
        from layercache.store.spool import remove_file

        with self._guard:
            written, self.written = list(self.written), set()
        for digest in written:
            try:
                with self._backend.read(self.name(digest)) as content:
                    path, found, _ = self._spool.copy(content, private=True)
                if found == digest:
                    self._keep(path, digest)
                else:
                    remove_file(path)
                self._backend.delete(self.name(digest))
            except CacheError as error:
                self._failing(self.name(digest), error)

    def close(self) -> None:
        """Remove blobs that were kept aside."""
        with self._guard:
            self._aside.clear()
            spool = self._opened_spool
        if spool is not None:
            spool.close()


def file_range(path: str, descriptor: Descriptor, offset: int, size: int) -> BinaryIO:
    """`size` bytes of the file of a blob from `offset` on; raises `CacheError`."""
    parts = []
    try:
        with open(path, "rb", buffering=0) as source:
            source.seek(offset)
            while size > 0 and (chunk := source.read(size)):
                parts.append(chunk)
                size -= len(chunk)
    except OSError as error:
        raise CacheError(f"blob {descriptor.digest} can't be read: {error}") from error
    return io.BytesIO(b"".join(parts))


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
