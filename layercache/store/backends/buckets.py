"""Missing buckets and containers: reported by name, and never created.

A mistyped name must not become a new bucket, in which nothing would ever be found.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["bucket_of", "lacks_bucket"]

_WORDS: Final = re.compile(
    r"NoSuchBucket|ContainerNotFound|(?:bucket|container) does not exist", re.IGNORECASE
)
_DEPTH: Final = 8
_LOOKED_AT: Final = 4096


def lacks_bucket(error: BaseException) -> bool:
    """Whether a client's error means that the bucket, not the object, is missing."""
    at: BaseException | None = error
    for _ in range(_DEPTH):
        if at is None:
            return False
        if _WORDS.search(str(at)[:_LOOKED_AT]):
            return True
        at = at.__cause__ or at.__context__
    return False


def bucket_of(url: str) -> str:
    """The name of the bucket or container in a URL of object storage."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]
