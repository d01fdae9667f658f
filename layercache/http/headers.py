"""Values of HTTP headers, parsed in one pass each and within bounds, whatever a server sends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from layercache._base.classes import field, frozen
from layercache._base.regex import expression

__all__ = ["Challenge", "challenges", "content_range", "media_type", "next_link", "retry_after"]

_LONGEST: Final = 16 << 10
"""The maximum length of a header that is parsed; real ones are far shorter."""
_CHALLENGES: Final = 16
_PARAMETERS: Final = 32
_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_BARE: Final = _TOKEN | frozenset("/:?=@()<>[]{};\\")
"""Characters of an unquoted value; some servers send URLs without quotes."""
_RANGE: Final = expression(r"bytes (\d{1,19})-\d{1,19}/", re.ASCII)


@frozen
class Challenge:
    """One challenge of a `WWW-Authenticate` header: its lower-case scheme, its parameters."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)


def challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges in the values of all `WWW-Authenticate` headers, in order.

    One value may hold several; parameters may be quoted or not. A malformed part ends the value
    that contains it. Takes linear time.
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
    """The end of the value that begins at `at`, and the value without quotes."""
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
    """The target of the first link with `rel=next` (or without a relation) in a `Link` header."""
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
    """The offset of the first byte in a `Content-Range` header; None if there is none."""
    found = _RANGE.match((value or "")[:100])
    return int(found[1]) if found else None


def retry_after(value: str | None) -> float | None:
    """The seconds of a `Retry-After` header; None for a date or anything else."""
    text = (value or "")[:20].strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def media_type(value: str | None) -> str:
    """The media type of a `Content-Type` header, without parameters; "" for none."""
    return (value or "")[:300].partition(";")[0].strip()
