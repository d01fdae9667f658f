"""Files that content is written to before its digest is known, or where a backend refuses it."""

from __future__ import annotations

import os
import threading
from typing import BinaryIO, Final

from layercache.errors import CacheError
from layercache.model.digests import Digest
from layercache.store.backend import Adopts, Backend
from layercache.store.store_events import StoreEvents

__all__ = ["Spool", "remove_file"]

_CHUNK: Final = 1 << 18


class Spool:
    """New files in the backend's own directory, from which it adopts them, or in a private one.

    The private directory is made when it is first needed and lives as long as this object.
    """

    def __init__(self, backend: Backend, events: StoreEvents) -> None:
        self._adopts = backend if isinstance(backend, Adopts) else None
        self._events = events
        self._guard = threading.Lock()
        self._scratch: str | None = None
        self._owner = 0

    def private(self) -> str:
        """The private directory; raises `CacheError` where none can be made."""
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

    def _shared(self) -> str:
        if self._adopts is not None:
            try:
                return self._adopts.spool()
            except CacheError as error:
                self._events.failed("tmp", error)
        return self.private()

    def new(self, *, private: bool = False) -> tuple[str, int]:
        """A new file, by path and descriptor; see `copy`. Raises `CacheError`."""
        return _new_file(self.private() if private else self._shared())

    def copy(self, content: BinaryIO, *, private: bool = False) -> tuple[str, Digest, int]:
        """Copy `content` to a new file; returns its path, digest and size.

        The file is `private` by request or where the backend can't have it, also from the moment
        on when its disk is full. Raises `CacheError`.
        """
        directory = self.private() if private else self._shared()
        import hashlib  # OpenSSL's, which a build of hits need not load

        hasher = hashlib.sha256()
        try:
            path, out = _new_file(directory)
        except CacheError as error:
            elsewhere = self.private()
            if directory == elsewhere:
                raise
            self._events.failed("tmp", error)
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
            remove_file(path)
            raise CacheError(f"content can't be stored: {error}") from error
        except BaseException:
            remove_file(path)
            raise
        finally:
            os.close(out)
        return path, Digest("sha256:" + hasher.hexdigest()), size

    def _move(self, path: str, out: int, size: int, error: OSError) -> tuple[str, int]:
        elsewhere = self.private()
        if os.path.dirname(path) == elsewhere:
            raise error
        self._events.degraded("tmp", f"writing goes on in {elsewhere!r}", error)
        new_path, new_out = _new_file(elsewhere)
        at = 0
        while at < size:
            chunk = os.pread(out, min(_CHUNK, size - at), at)
            if not chunk:
                raise error
            _write_all(new_out, chunk)
            at += len(chunk)
        os.close(out)
        remove_file(path)
        return new_path, new_out

    def close(self) -> None:
        """Remove the private directory with everything in it."""
        with self._guard:
            scratch, self._scratch = self._scratch, None
        if scratch is not None:
            _remove_directory(scratch, self._owner)


def _remove_directory(path: str, owner: int) -> None:
    """Remove it, unless this is a forked child: then its parent still needs it."""
    if os.getpid() == owner:
        import shutil

        shutil.rmtree(path, ignore_errors=True)


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


def remove_file(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except OSError:
        pass
