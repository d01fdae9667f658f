"""The values of secrets: bytes, or files that are read when the executor is created."""

from __future__ import annotations

import os

from layercache.errors import UsageError

__all__ = ["secret_value"]


def secret_value(name: str, value: bytes | str | os.PathLike[str]) -> bytes:
    """The bytes of a secret; raises `UsageError` for a file that can't be read."""
    if isinstance(value, bytes):
        return value
    try:
        with open(value, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(
            f"the secret {name!r} can't be read from {os.fspath(value)}: {error.strerror}"
        ) from error
