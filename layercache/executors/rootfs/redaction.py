"""Keeps secrets out of output, also where one is cut in two by the size of a read."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MASK", "Redactor", "masks_of"]

MASK = b"***"

_SHORTEST = 4
"""Bytes below which a value is no secret that could be told from ordinary text."""


def masks_of(secrets: Iterable[bytes]) -> tuple[bytes, ...]:
    """What must not be shown of these secrets, longest first: each, and its lines if long."""
    found = set()
    for secret in secrets:
        found.add(secret.strip())
        found.update(line for line in map(bytes.strip, secret.split(b"\n")) if len(line) >= 12)
    return tuple(sorted((m for m in found if len(m) >= _SHORTEST), key=lambda m: (-len(m), m)))


class Redactor:
    """Replaces masks in a stream; holds back only what may be the beginning of one."""

    def __init__(self, masks: Iterable[bytes]) -> None:
        self._masks = tuple(masks)
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What of the stream so far can be shown."""
        if not self._masks:
            return chunk
        data = self._replaced(self._held + chunk)
        keep = self._suspicious(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def end(self) -> bytes:
        """The rest, at the end of the stream."""
        rest, self._held = self._held, b""
        return rest

    def _replaced(self, data: bytes) -> bytes:
        for mask in self._masks:
            data = data.replace(mask, MASK)
        return data

    def _suspicious(self, data: bytes) -> int:
        """The length of the longest end of `data` that some mask begins with."""
        longest = 0
        for mask in self._masks:
            for size in range(min(len(mask) - 1, len(data)), longest, -1):
                if data.endswith(mask[:size]):
                    longest = size
                    break
        return longest
