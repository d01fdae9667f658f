"""Content by digest over one backend: written once, verified whenever it is read.

A blob that the backend does not accept (a full disk, a broken network) is kept beside it for the
life of the store object, so that a build continues and only loses sharing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.model.descriptors import Descriptor
from layercache.model.digests import Digest
from layercache.store.backend import Adopts, Backend, Holds, LocalFiles, Stats, Touches

if TYPE_CHECKING:
    from layercache.store.verified_reader import VerifyingReader

__all__ = ["GRACE", "BlobStore", "blob_name", "is_old"]

GRACE: Final = 86_400.0
"""Seconds for which a collection never removes what was written or relied on."""

_CHUNK: Final = 1 << 18
_TRIES: Final = 2
"""So often a blob may turn out unreadable before its bytes are kept beside the backend too."""

Report = Callable[[str, str, str], None]
"""Called with the kind of an event, the object's name and a sentence."""

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
    """The CAS half of a store. Safe for threads."""

    def __init__(
        self,
        backend: Backend,
        prefix: str,
        report: Report,
        trouble: Callable[[str, CacheError], None],
    ) -> None:
        self._trouble = trouble
        self._backend = backend
        # Looking for a capability costs more than using it: once is enough.
        self._stats = backend if isinstance(backend, Stats) else None
        self._holds = backend if isinstance(backend, Holds) else None
        self._touches = backend if isinstance(backend, Touches) else None
        self._prefix = prefix
        self._report = report
        self._guard = threading.Lock()
        self._damaged: set[Digest] = set()
        self._corrupt: set[Digest] = set()
        """Those of them that were there, and not what they should be."""
        self._distrusted: dict[Digest, int] = {}
        self._verified: dict[Digest, Identity] = {}
        self._aside: dict[Digest, str] = {}
        self._scratch: str | None = None
        self._owner = 0
        self._told: set[str] = set()
        self.written: set[Digest] = set()
        """What the backend took since this was last cleared."""

    def name(self, digest: Digest) -> str:
        """The object's name in the backend."""
        return self._prefix + blob_name(digest)

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
            if self._stats is not None:
                info = self._stats.stat(name)
            else:
                info = next((i for i in self._backend.list(name) if i.name == name), None)
        except CacheError as error:
            self._trouble(name, error)
            return None
        return None if info is None or info.size != descriptor.size else info.stamp

    def hold(self, digest: Digest) -> None:
        """Protect the blob from collections until the backend is released."""
        if self._holds is not None:
            try:
                self._holds.hold((self.name(digest),))
            except CacheError as error:
                self._trouble(self.name(digest), error)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob exists, by name and size."""
        return self.kept_aside(descriptor.digest) or self.stamp(descriptor) is not None

    # -- reading ------------------------------------------------------------------------------

    def open(self, digest: Digest, size: int | None = None) -> VerifyingReader:
        """A reader that verifies at the end; raises `NotFound` or `CacheError`.

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

        It is read once; later calls only check that it is still the same file. Raises `NotFound` or
        `CorruptObject`.
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
            self.check(descriptor)
            if _identity(path) != identity:
                return self.verified_path(descriptor)  # replaced meanwhile
            with self._guard:
                self._verified[digest] = identity
        return path

    def check(self, descriptor: Descriptor) -> None:
        """Read and verify all of it; raises `NotFound`, `CorruptObject` or `CacheError`."""
        if descriptor.digest in self._damaged:
            raise NotFound(f"blob {descriptor.digest} could not be read before")
        with self.open(descriptor.digest, descriptor.size) as content:
            while content.read(_CHUNK):
                pass

    def _fetch(self, descriptor: Descriptor) -> str:
        """A verified copy of a remote blob on this machine."""
        with self.open(descriptor.digest, descriptor.size) as content:
            path, _, _ = self._spool(cast(BinaryIO, content), self._own_directory())
        return self._keep(path, descriptor.digest)

    # -- writing ------------------------------------------------------------------------------

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store all of `content`; if the backend refuses it, it is kept aside."""
        path, digest, size = self._spool(content, self._spool_directory())
        return self.add_file(path, media_type, digest, size)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Store the file at `path`, whose digest the caller computed; it may be moved away."""
        descriptor = Descriptor(media_type, digest, size)
        name = self.name(digest)
        self.hold(digest)
        stamp = self.stamp(descriptor)
        if stamp is not None and self._stays(name, stamp):
            _remove(path)
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
                    _remove(path)
        except CacheError as error:
            self._keep(path, digest)
            self._degraded(name, "a blob is kept for this build only", error)
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
        if self._touches is None:
            return False
        try:
            self._touches.touch((name,))
        except CacheError as error:
            self._trouble(name, error)
        return True

    def _degraded(self, name: str, what: str, error: Exception) -> None:
        """Report the consequence of a failure: once, not for each blob."""
        with self._guard:
            known = what in self._told
            self._told.add(what)
        if not known:
            self._report("degraded", name, f"{what}: {error}")

    def _spool_directory(self) -> str:
        if isinstance(self._backend, Adopts):
            try:
                return self._backend.spool()
            except CacheError as error:
                self._trouble("tmp", error)
        return self._own_directory()

    def _own_directory(self) -> str:
        """A private directory of this store object, removed by `close`."""
        with self._guard:
            if self._scratch is None:
                import tempfile
                import weakref

                try:
                    self._scratch = tempfile.mkdtemp(prefix="layercache-")
                except OSError as error:
                    raise CacheError(f"no temporary directory: {error}") from error
                # Also where nobody closes the store.
                weakref.finalize(self, _remove_directory, self._scratch, os.getpid())
                self._owner = os.getpid()
            return self._scratch

    def _spool(self, content: BinaryIO, directory: str) -> tuple[str, Digest, int]:
        """Copy `content` to a new file; when the disk fills up, to one elsewhere."""
        import hashlib  # OpenSSL's, which a build of hits need not load

        hasher = hashlib.sha256()
        try:
            path, out = _new_file(directory)
        except CacheError as error:
            elsewhere = self._own_directory()
            if directory == elsewhere:
                raise
            self._trouble("tmp", error)
            path, out = _new_file(elsewhere)
        size = 0
        try:
            while chunk := content.read(_CHUNK):
                hasher.update(chunk)
                try:
                    _write_all(out, chunk)
                except OSError as error:
                    path, out = self._move(path, out, size, error)
                    _write_all(out, chunk)
                size += len(chunk)
        except OSError as error:
            _remove(path)
            raise CacheError(f"content can't be stored: {error}") from error
        except BaseException:
            _remove(path)
            raise
        finally:
            os.close(out)
        return path, Digest("sha256:" + hasher.hexdigest()), size

    def _move(self, path: str, out: int, size: int, error: OSError) -> tuple[str, int]:
        elsewhere = self._own_directory()
        if os.path.dirname(path) == elsewhere:
            raise error
        self._degraded("tmp", f"writing goes on in {elsewhere!r}", error)
        new_path, new_out = _new_file(elsewhere)
        at = 0
        while at < size:
            chunk = os.pread(out, min(_CHUNK, size - at), at)
            if not chunk:
                raise error
            _write_all(new_out, chunk)
            at += len(chunk)
        os.close(out)
        _remove(path)
        return new_path, new_out

    def _keep(self, path: str, digest: Digest) -> str:
        """Keep the file at `path` for the life of this store."""
        directory = self._own_directory()
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
                _remove(path)
        with self._guard:
            self._aside[digest] = kept
            self._damaged.discard(digest)
            identity = _identity(kept)
            if identity is not None:
                self._verified[digest] = identity
        return kept

    def rescue(self) -> None:
        """Keep aside a blob whose durability the backend can't promise, and remove it there."""
        with self._guard:
            written, self.written = list(self.written), set()
        for digest in written:
            try:
                with self._backend.read(self.name(digest)) as content:
                    path, found, _ = self._spool(content, self._own_directory())
                if found == digest:
                    self._keep(path, digest)
                else:
                    _remove(path)
                self._backend.delete(self.name(digest))
            except CacheError as error:
                self._trouble(self.name(digest), error)

    def close(self) -> None:
        """Remove blobs that were kept aside."""
        with self._guard:
            scratch, self._scratch = self._scratch, None
            self._aside.clear()
        if scratch is not None:
            _remove_directory(scratch, self._owner)


def _remove_directory(path: str, owner: int) -> None:
    """Remove it, unless this is a forked child: then its parent still needs it."""
    if os.getpid() == owner:
        import shutil

        shutil.rmtree(path, ignore_errors=True)


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


def _new_file(directory: str) -> tuple[str, int]:
    path = os.path.join(directory, f"{os.getpid():x}-{os.urandom(8).hex()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return path, os.open(path, flags, 0o600)
    except OSError as error:
        raise CacheError(f"can't write to {directory!r}: {error.strerror}") from error


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
