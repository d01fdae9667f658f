"""Time that passes only when a test advances it."""

from __future__ import annotations

import threading

__all__ = ["VirtualClock"]


class VirtualClock:
    """A clock whose sleepers wake when it is advanced; safe for threads.

    Pass `clock.sleep` to a `SlowExecutor`, use `wait_for` to wait until as many steps sleep as
    should run in parallel, and let time pass with `advance`.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._changed = threading.Condition()
        self._sleepers = 0

    def now(self) -> float:
        """Seconds since the clock was made."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Return when the clock was advanced by `seconds`."""
        with self._changed:
            until = self._now + seconds
            self._sleepers += 1
            self._changed.notify_all()
            while self._now < until:
                self._changed.wait()
            self._sleepers -= 1

    @property
    def sleepers(self) -> int:
        """The number of present sleepers."""
        return self._sleepers

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._changed:
            self._now += seconds
            self._changed.notify_all()

    def wait_for(self, sleepers: int, timeout: float = 30.0) -> None:
        """Return when so many sleep; raises `TimeoutError` after `timeout` seconds of real time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._sleepers >= sleepers, timeout):
                raise TimeoutError(f"{self._sleepers} sleep after {timeout} s, not {sleepers}")
