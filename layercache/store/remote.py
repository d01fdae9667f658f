"""A remote cache: every call has a deadline, and a failed call never fails a build.

After a failure the remote is not used for a while, longer each time, and this is reported once; the
first call that works again ends the pause.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final, TypeVar, cast

from layercache.errors import CacheError, CorruptObject, LayerCacheError, NotFound
from layercache.model.digests import CacheKey, Digest
from layercache.model.records import Record
from layercache.store.codec import decode_record
from layercache.store.store import Store
from layercache.store.trails import Trail, decode_trail

__all__ = ["Remote", "Transfer", "Unavailable"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
_EACH: Final = 16 * 1024
"""Bytes that a further object of a batch counts as: not all are fetched at once."""
_SLOWEST: Final = 256 * 1024
"""Bytes a second below which a transfer counts as hanging."""
_AT_ONCE: Final = 64 << 20
"""Bytes that a client may fetch or send without showing that any come."""


class Unavailable(CacheError):
    """The remote is paused, or did not answer in time."""


class Transfer:
    """Content on its way: how much has come, and whether anybody still waits for it."""

    def __init__(self) -> None:
        self.moved = 0
        self.abandoned = False

    def watch(self, content: BinaryIO, most: int | None = None) -> BinaryIO:
        """`content`, of at most that many bytes if that is known; reading it counts."""
        return cast(BinaryIO, _Watched(content, self, most))


class _Watched(io.RawIOBase):
    def __init__(self, content: BinaryIO, transfer: Transfer, most: int | None) -> None:
        super().__init__()
        self._content = content
        self._transfer = transfer
        self._most = most

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        transfer = self._transfer
        if transfer.abandoned:
            raise CacheError("nobody waits for this content any more")
        data = self._content.read(-1 if size is None else size)
        transfer.moved += len(data)
        if self._most is not None and transfer.moved > self._most:
            raise CacheError(f"content has more than {self._most} bytes")
        return data

    def readall(self) -> bytes:
        return self.read()


class _State:
    """Whether reading (or writing) works, and since when and for how long it is left alone."""

    def __init__(self) -> None:
        self.down = False
        self.until = 0.0
        self.pause = _FIRST_PAUSE


class Remote:
    """One remote store, used with a deadline of `deadline` seconds per call.

    Content gets more time, as long as it keeps arriving. `report` is called with (kind, name,
    message).
    A remote that can be read but not written is still read.
    """

    def __init__(
        self, store: Store, *, deadline: float, report: Callable[[str, str, str], None]
    ) -> None:
        self.store = store
        self.name = repr(store.backend)
        self._deadline = deadline
        self._report = report
        self._guard = threading.Lock()
        self._reading = _State()
        self._writing = _State()

    def __repr__(self) -> str:
        return f"Remote({self.name})"

    @property
    def available(self) -> bool:
        """Whether it would be asked now."""
        return _over(self._reading)

    @property
    def writable(self) -> bool:
        """Whether something would be sent now."""
        return self.available and _over(self._writing)

    def call(
        self,
        function: Callable[[], T],
        size: int = 0,
        *,
        write: bool = False,
        transfer: Transfer | None = None,
    ) -> T:
        """The result of `function`, within the deadline for `size` bytes and the progress of
        `transfer`.

        `NotFound`, `CorruptObject` and errors that do not come from the remote are raised
        unchanged, all others as `Unavailable`.
        """
        if not (self.writable if write else self.available):
            raise Unavailable(f"{self.name} failed before and is not asked again for a while")
        done = threading.Event()
        values: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                values.append(function())
            except BaseException as error:  # noqa: BLE001  (carried to the caller)
                errors.append(error)
            done.set()

        # A hanging client can't be interrupted, only left behind.
        threading.Thread(target=run, name="layercache-remote", daemon=True).start()
        began = time.monotonic()
        # A size may be a remote's own claim: what is more than this must be seen to come.
        limit = self._deadline + min(size, _AT_ONCE) / _SLOWEST
        while not done.wait(max(0.0, began + limit - time.monotonic())):
            moved = transfer.moved / _SLOWEST if transfer is not None else 0.0
            if time.monotonic() - began < limit + moved:
                done.wait(min(self._deadline, began + limit + moved - time.monotonic()))
                continue
            if transfer is not None:
                transfer.abandoned = True
            message = f"{self.name} did not answer within {limit + moved:.0f} s"
            raise self._failed(CacheError(message), write)
        if values:
            self._worked(write)
            return values[0]
        error = errors[0]
        if isinstance(error, NotFound | CorruptObject):
            self._worked(write)
        elif isinstance(error, CacheError):
            raise self._failed(error, write)
        elif isinstance(error, Exception) and not isinstance(error, LayerCacheError):
            failure = CacheError(f"{self.name}: {error!r}")
            failure.__cause__ = error
            raise self._failed(failure, write)
        raise error

    def _failed(self, error: CacheError, write: bool) -> Unavailable:
        state = self._writing if write else self._reading
        with self._guard:
            first = not state.down
            state.down = True
            state.until = time.monotonic() + state.pause
            state.pause = min(state.pause * 2, _LONGEST_PAUSE)
        if first:
            what = "nothing is sent to" if write else "the build goes on without"
            self._report("degraded", self.name, f"{what} {self.name}: {error}")
        failure = Unavailable(str(error))
        failure.__cause__ = error
        return failure

    def _worked(self, write: bool) -> None:
        for state in (self._reading, self._writing) if write else (self._reading,):
            if not state.down:
                continue
            with self._guard:
                was, state.down, state.pause = state.down, False, _FIRST_PAUSE
            if was:
                self._report("recovered", self.name, f"{self.name} answers again")

    # -- reading ------------------------------------------------------------------------------

    def small(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The small objects of these names that are there: one round trip."""
        return self.call(lambda: self.store.objects.read_many(names), (len(names) - 1) * _EACH)

    def open(self, digest: Digest) -> BinaryIO:
        """The bytes of a blob, not verified; to be called within `call`."""
        return self.store.objects.medium.read(self.store.blobs.name(digest))

    def records(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        """Verified records; damaged or untrusted ones are left out."""
        names = {self.store.records.name(key): key for key in keys}
        found = {}
        for name, data in self.small(list(names)).items():
            try:
                found[names[name]] = decode_record(names[name], data, self.store.objects.verifier)
            except CorruptObject as error:
                self._report("corrupt", name, f"{self.name}: {error}")
        return found

    def derived(self, kinds: Sequence[str], name: str) -> dict[str, bytes]:
        """The derived objects of one name that are there and verify, by kind."""
        return self.call(lambda: self.store.derived.get_kinds(kinds, name))

    def beginning(self, names: Sequence[str]) -> str | None:
        """The target recorded under the first of `names` that the remote has, in one round trip."""
        return self.call(lambda: self.store.derived.get_beginning(names))

    def trail(self, target: str) -> tuple[Trail | None, bytes]:
        """The trail of `target` and its bytes; (None, b"") if it is missing or does not verify."""
        return self.trails([target])[target]

    def trails(self, targets: Sequence[str]) -> dict[str, tuple[Trail | None, bytes]]:
        """As `trail`, for several in one round trip."""
        names = {target: self.store.trails.name(target) for target in targets}
        there = self.small(list(names.values())) if names else {}
        found: dict[str, tuple[Trail | None, bytes]] = dict.fromkeys(targets, (None, b""))
        for target, name in names.items():
            if name not in there:
                continue
            try:
                trail = decode_trail(target, there[name], self.store.objects.verifier)
            except CorruptObject as error:
                self._report("corrupt", name, f"{self.name}: {error}")
            else:
                found[target] = (trail, there[name])
        return found


def _over(state: _State) -> bool:
    return not state.down or time.monotonic() >= state.until
