"""A cache at a distance: every call has a deadline, and one that fails does not fail a build.

After a failure the remote is left alone for a while, longer each time, and said once to be so;
the first call that works again ends that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from layercache.codec import decode_record
from layercache.digests import CacheKey
from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.records import Record
from layercache.store import Store
from layercache.trails import Trail, decode_trail

__all__ = ["Remote", "Unavailable"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
_EACH: Final = 16 * 1024
"""Bytes that a further object of a batch counts as: not all are fetched at once."""
_SLOWEST: Final = 256 * 1024
"""Bytes a second below which a transfer counts as hanging."""


class Unavailable(CacheError):
    """The remote is not asked for now, or did not answer in time."""


class Remote:
    """One remote store, asked with a deadline of `deadline` seconds for a call.

    Transfers of content get more time, by size. `report` is told (kind, name, message).
    """

    def __init__(
        self, store: Store, *, deadline: float, report: Callable[[str, str, str], None]
    ) -> None:
        self.store = store
        self.name = repr(store.backend)
        self._deadline = deadline
        self._report = report
        self._guard = threading.Lock()
        self._down_until = 0.0
        self._pause = _FIRST_PAUSE
        self._down = False

    def __repr__(self) -> str:
        return f"Remote({self.name})"

    @property
    def available(self) -> bool:
        """Whether a call would be tried now."""
        return not self._down or time.monotonic() >= self._down_until

    def call(self, function: Callable[[], T], size: int = 0) -> T:
        """What `function` gives, within the deadline for `size` bytes of content.

        Raises `NotFound` and `CorruptObject` as they are; else `Unavailable`.
        """
        if not self.available:
            raise Unavailable(f"{self.name} failed and is not asked for now")
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
        limit = self._deadline + size / _SLOWEST
        if not done.wait(limit):
            raise self._failed(CacheError(f"{self.name} did not answer within {limit:.0f} s"))
        if values:
            self._worked()
            return values[0]
        error = errors[0]
        if isinstance(error, NotFound | CorruptObject):
            self._worked()
        elif isinstance(error, CacheError):
            raise self._failed(error)
        raise error

    def _failed(self, error: CacheError) -> Unavailable:
        with self._guard:
            first = not self._down
            self._down = True
            self._down_until = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if first:
            message = f"the build goes on without {self.name}: {error}"
            self._report("degraded", self.name, message)
        failure = Unavailable(str(error))
        failure.__cause__ = error
        return failure

    def _worked(self) -> None:
        if self._down:
            with self._guard:
                was, self._down, self._pause = self._down, False, _FIRST_PAUSE
            if was:
                self._report("recovered", self.name, f"{self.name} answers again")

    # -- reading ------------------------------------------------------------------------------

    def small(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The small objects of these names that are there: one round trip."""
        return self.call(lambda: self.store.read_small(names), (len(names) - 1) * _EACH)

    def records(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        """Verified records; what is damaged or not trusted is left out."""
        names = {self.store.record_name(key): key for key in keys}
        found = {}
        for name, data in self.small(list(names)).items():
            try:
                found[names[name]] = decode_record(names[name], data, self.store.verifier)
            except CorruptObject as error:
                self._report("corrupt", name, f"{self.name}: {error}")
        return found

    def derived(self, kinds: Sequence[str], name: str) -> dict[str, bytes]:
        """The derived objects of one name that are there and verify, by kind."""

        def read() -> dict[str, bytes]:
            found = {kind: self.store.get_derived(kind, name) for kind in kinds}
            return {kind: payload for kind, payload in found.items() if payload is not None}

        return self.call(read)

    def beginning(self, names: Sequence[str]) -> str | None:
        """A target that begins as the first of `names` says that one has: one round trip."""
        return self.call(lambda: self.store.get_beginning(names))

    def trail(self, target: str) -> tuple[Trail | None, bytes]:
        """The trail of `target` and its bytes; (None, b"") when there is none that verifies."""
        return self.trails([target])[target]

    def trails(self, targets: Sequence[str]) -> dict[str, tuple[Trail | None, bytes]]:
        """As `trail`, for several in one round trip."""
        names = {target: f"{self.store.prefix}trails/{target}" for target in targets}
        there = self.small(list(names.values())) if names else {}
        found: dict[str, tuple[Trail | None, bytes]] = dict.fromkeys(targets, (None, b""))
        for target, name in names.items():
            if name not in there:
                continue
            try:
                trail = decode_trail(target, there[name], self.store.verifier)
            except CorruptObject as error:
                self._report("corrupt", name, f"{self.name}: {error}")
            else:
                found[target] = (trail, there[name])
        return found
