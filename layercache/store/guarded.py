"""A backend as a store sees it: any exception becomes a `CacheError`, which fails no build.

Backends are written by others, over libraries with errors of their own. An exception that they
forget to translate must cost hits, like any failure of the medium, and not the build.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Final, cast

from layercache.errors import CacheError, LayerCacheError
from layercache.store.backend import CAPABILITIES, Backend, ObjectInfo

__all__ = ["guarded"]

_LISTS: Final = ("list", "list_staged")


def guarded(backend: Backend) -> Backend:
    """Something with the capabilities of `backend` that raises `LayerCacheError` only."""
    capabilities = tuple(one for one in CAPABILITIES if isinstance(backend, one))
    names = {name for one in capabilities for name in vars(one) if not name.startswith("_")}
    special: dict[str, Callable[..., object]] = {"read": _read, "lock": _lock, "seize": _seize}
    methods: dict[str, Callable[..., object]] = {}
    for name in ("read", "write", "delete", "list", *names):
        if name in special:
            methods[name] = special[name]
        elif name in _LISTS:
            methods[name] = _listing(name)
        else:
            methods[name] = _calling(name)
    made: Any = type("Medium", (_Medium, *capabilities), methods)
    return cast(Backend, made(backend))


class _Medium:
    """Holds the backend; a class of its own for each set of capabilities has the methods."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __repr__(self) -> str:
        return repr(self.backend)


@contextmanager
def _translated(backend: object, doing: str) -> Iterator[None]:
    try:
        yield
    except LayerCacheError:
        raise
    except Exception as error:
        text = str(error) or type(error).__name__
        raise CacheError(f"can't {doing} the cache {backend!r}: {text}") from error


def _calling(name: str) -> Callable[..., object]:
    def call(self: _Medium, *arguments: object) -> object:
        with _translated(self.backend, f"{name.replace('_', ' ')} in"):
            return getattr(self.backend, name)(*arguments)

    return call


def _listing(name: str) -> Callable[..., Iterator[ObjectInfo]]:
    def call(self: _Medium, prefix: str) -> Iterator[ObjectInfo]:
        with _translated(self.backend, "list"):
            yield from getattr(self.backend, name)(prefix)

    return call


def _read(self: _Medium, name: str) -> BinaryIO:
    with _translated(self.backend, f"read {name} in"):
        content = self.backend.read(name)
    if isinstance(content, io.BytesIO):
        return content
    return cast(BinaryIO, _Content(content, self.backend, name))


@contextmanager
def _lock(self: _Medium, name: str, give_up: Callable[[], bool] | None = None) -> Iterator[bool]:
    """Take a lock if the backend can give it. Locks only save work, so a failure is no error."""
    with ExitStack() as stack:
        try:
            held = stack.enter_context(self.backend.lock(name, give_up))
        except Exception:  # noqa: BLE001  (whatever a backend raises)
            held = False
        yield held


@contextmanager
def _seize(self: _Medium, names: Sequence[str]) -> Iterator[Sequence[str]]:
    with ExitStack() as stack:
        with _translated(self.backend, "seize objects in"):
            free = stack.enter_context(self.backend.seize(names))
        yield free


class _Content(io.RawIOBase):
    """The bytes of an object, read as its backend gives them."""

    def __init__(self, content: BinaryIO, backend: object, name: str) -> None:
        super().__init__()
        self._content = content
        self._backend = backend
        self._name = name

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._content.fileno()

    def read(self, size: int | None = -1) -> bytes:
        with _translated(self._backend, f"read {self._name} in"):
            return self._content.read(-1 if size is None else size)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            with _translated(self._backend, f"read {self._name} in"):
                self._content.close()
        super().close()
