"""Masking of secrets in output, even if one is split between two reads."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MASK", "Redactor", "masks_of"]

MASK = b"***"

_SHORTEST = 4
"""Bytes below which a value is no secret that could be told from ordinary text."""


def masks_of(secrets: Iterable[bytes]) -> tuple[bytes, ...]:
    """The texts to mask for these secrets, longest first: each secret, and its lines if long."""
    found = set()
    for secret in secrets:
        found.add(secret.strip())
        found.update(line for line in map(bytes.strip, secret.split(b"\n")) if len(line) >= 12)
    return tuple(sorted((m for m in found if len(m) >= _SHORTEST), key=lambda m: (-len(m), m)))


class Redactor:
    """Replaces masks in a stream; holds back only text that may be the beginning of one.

    If several masks begin at one place, the longest counts, even if it arrives in pieces and a
    shorter one (a line of it) is complete first.
    """

    def __init__(self, masks: Iterable[bytes]) -> None:
        self._masks = tuple(sorted(masks, key=len, reverse=True))
        self._held = b""
        self._borders: dict[int, list[int]] = {}

    def feed(self, chunk: bytes) -> bytes:
        """The part of the stream that can be shown so far."""
        if not self._masks:
            return chunk
        return self._taken(self._held + chunk, last=False)

    def end(self) -> bytes:
        """The rest, at the end of the stream."""
        return self._taken(self._held, last=True)

    def _taken(self, data: bytes, *, last: bool) -> bytes:
        """The part of `data` that can be shown; the rest is held."""
        shown: list[bytes] = []
        position = 0
        limit = len(data) if last else self._suspicious(data, 0)
        # The next position of each mask; the longest come first.
        places = [data.find(mask) for mask in self._masks]
        while True:
            found = min((place for place in places if place >= 0), default=limit)
            if found >= limit:
                break
            mask = self._masks[places.index(found)]
            shown += (data[position:found], MASK)
            position = found + len(mask)
            if not last and position > limit:
                limit = self._suspicious(data, position)
            for number, place in enumerate(places):
                if 0 <= place < position:
                    places[number] = data.find(self._masks[number], position)
        shown.append(data[position:limit])
        self._held = data[limit:]
        return b"".join(shown)

    def _suspicious(self, data: bytes, start: int) -> int:
        """The first position from which all of `data` is the beginning of some mask.

        Linear in the part of `data` that a mask could begin in, however often a mask repeats
        itself (the search of Knuth, Morris and Pratt).
        """
        first = len(data)
        for number, mask in enumerate(self._masks):
            place = data.find(mask[:1], max(start, len(data) - len(mask) + 1), first)
            matched = 0
            while 0 <= place < len(data):
                byte = data[place]
                while matched and mask[matched] != byte:
                    matched = self._borders_of(number)[matched - 1]
                matched += mask[matched] == byte
                place = place + 1 if matched else data.find(mask[:1], place + 1)
            first = min(first, len(data) - matched)
        return first

    def _borders_of(self, number: int) -> list[int]:
        """For each beginning of a mask the length of its longest proper one that also ends it."""
        known = self._borders.get(number)
        if known is None:
            mask = self._masks[number]
            known = self._borders[number] = [0] * len(mask)
            matched = 0
            for place in range(1, len(mask)):
                while matched and mask[matched] != mask[place]:
                    matched = known[matched - 1]
                matched += mask[matched] == mask[place]
                known[place] = matched
        return known
