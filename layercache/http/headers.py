"""Values of HTTP headers, read in one pass each and within bounds, whatever a server sends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from layercache._base.classes import field, frozen
from layercache._base.regex import expression

__all__ = ["Challenge", "challenges", "content_range", "media_type", "next_link", "retry_after"]

_LONGEST: Final = 16 << 10
"""Characters of a header that are looked at; no true one is near it."""
_CHALLENGES: Final = 16
_PARAMETERS: Final = 32
_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_BARE: Final = _TOKEN | frozenset("/:?=@()<>[]{};\\")
"""What an unquoted value may hold: a URL without quotes is seen in the wild."""
_RANGE: Final = expression(r"bytes (\d{1,19})-\d{1,19}/", re.ASCII)


@frozen
class Challenge:
    """One challenge of a `WWW-Authenticate`: its scheme in small letters, its parameters."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)


def challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges in the values of all headers `WWW-Authenticate`, in their order.

    Several may stand in one value; values may be quoted or not. What can't be read ends the
    value that it stands in. Takes time linear in what was sent.
    """
    found: list[Challenge] = []
    for value in values:
        _read_challenges(value[:_LONGEST], found)
    return tuple(found[:_CHALLENGES])


def _read_challenges(text: str, found: list[Challenge]) -> None:
    at, end = 0, len(text)
    parameters: dict[str, str] | None = None
    while len(found) <= _CHALLENGES:
        while at < end and text[at] in " \t,":
            at += 1
        start = at
        while at < end and text[at] in _TOKEN:
            at += 1
        name = text[start:at].lower()
        if not name:
            return
        spaces = at
        while spaces < end and text[spaces] in " \t":
            spaces += 1
        if parameters is not None and spaces < end and text[spaces] == "=":
            at, value = _value(text, spaces + 1)
            if len(parameters) < _PARAMETERS:
                parameters.setdefault(name, value)
            continue
        parameters = {}
        found.append(Challenge(name, parameters))
        at = spaces


def _value(text: str, at: int) -> tuple[int, str]:
    """Where the value that begins at `at` ends, and what it is without quotes."""
    end = len(text)
    while at < end and text[at] in " \t":
        at += 1
    if at < end and text[at] == '"':
        parts: list[str] = []
        at += 1
        while at < end and text[at] != '"':
            if text[at] == "\\" and at + 1 < end:
                at += 1
            parts.append(text[at])
            at += 1
        return min(at + 1, end), "".join(parts)
    start = at
    while at < end and text[at] in _BARE:
        at += 1
    return at, text[start:at]


def next_link(value: str | None) -> str | None:
    """The target of the first link with `rel=next` (or with no relation) in a header `Link`."""
    text = (value or "")[:_LONGEST]
    at = 0
    while (start := text.find("<", at)) >= 0:
        end = text.find(">", start)
        if end < 0:
            return None
        following = text.find("<", end)
        rest = text[end + 1 : following if following >= 0 else len(text)].lower()
        if "rel=" not in rest or "next" in rest.partition("rel=")[2].split(";")[0]:
            return text[start + 1 : end]
        at = end + 1
    return None


def content_range(value: str | None) -> int | None:
    """The offset of the first byte that a header `Content-Range` tells; None for none."""
    found = _RANGE.match((value or "")[:100])
    return int(found[1]) if found else None


def retry_after(value: str | None) -> float | None:
    """The seconds of a header `Retry-After`; None for a date or for what is no number."""
    text = (value or "")[:20].strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def media_type(value: str | None) -> str:
    """The media type of a header `Content-Type`, without parameters; "" for none."""
    return (value or "")[:300].partition(";")[0].strip()
