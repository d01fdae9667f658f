"""Requests side by side, in threads that hold nobody's exit.

The interpreter waits for the threads of an executor of `concurrent.futures` when it ends: a
server that never answers would keep the process alive after its build is over.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(calls: Sequence[Callable[[], T]], most: int) -> list[T]:
    """What each call gives, in order; at most `most` at once.

    Raises what one of the calls raised, once those under way have ended.
    """
    if len(calls) <= 1:
        return [call() for call in calls]
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    numbers = itertools.count()

    def work() -> None:
        while not errors:
            number = next(numbers)
            if number >= len(calls):
                return
            try:
                results[number] = calls[number]()
            except BaseException as error:  # noqa: BLE001  (carried to the caller)
                errors.append(error)

    threads = [
        threading.Thread(target=work, name="layercache-request", daemon=True)
        for _ in range(min(most, len(calls)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(calls))]
