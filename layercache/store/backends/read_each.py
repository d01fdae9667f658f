"""Many small objects from a medium that gives them one by one: requests side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import BinaryIO

from layercache._os.side_by_side import side_by_side
from layercache.errors import CacheError, NotFound
from layercache.store.backend import Allowance, read_bounded

__all__ = ["read_each"]


def read_each(
    read: Callable[[str], BinaryIO], names: Sequence[str], *, most: int, cache: str
) -> Mapping[str, bytes]:
    """What `read` gives for each of `names`, without those that are not there.

    At most `most` are read at once, and the bytes of all together are bounded. `cache` names the
    medium in messages. Raises `CacheError` if one failed and none came.
    """
    allowance = Allowance()

    def one(name: str) -> bytes | CacheError:
        try:
            with read(name) as content:
                return read_bounded(content, name, allowance)
        except CacheError as error:
            return error
        except Exception as error:  # noqa: BLE001  (a connection that broke in the middle)
            return CacheError(f"can't read {name} in the cache {cache}: {error}")

    found = {}
    failure: CacheError | None = None
    results = side_by_side([partial(one, name) for name in names], most)
    for name, result in zip(names, results, strict=True):
        if isinstance(result, bytes):
            found[name] = result
        elif not isinstance(result, NotFound):
            failure = result
    if failure is not None and not found:
        raise failure
    return found
