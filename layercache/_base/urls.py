"""URLs as they may be shown."""

from __future__ import annotations

from typing import Final

__all__ = ["masked", "user_of"]

_LONGEST: Final = 8 << 10


def user_of(rest: str) -> str:
    """The user information of a URL, given what follows `://`; "" for none.

    A password with a slash in it was not escaped: what stands before the last '@' is taken for
    it where the rest would be no host and port.
    """
    host = rest
    for end in "/?#\\":
        host = host.partition(end)[0]
    if "@" in host:
        return host.rpartition("@")[0]
    port = host.rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""
    if port and not port.isdigit() and "@" in rest:
        return rest.rpartition("@")[0]
    return ""


def masked(url: str) -> str:
    """`url` without user information, query, fragment and control characters, at most 8 KiB.

    The first three may hold a password, a token or a signature.
    """
    text = url[:_LONGEST]
    scheme, separator, rest = text.partition("://")
    if separator:
        user = user_of(rest)
        rest = rest[len(user) + 1 :] if user or rest.startswith("@") else rest
        text = scheme + separator + rest
    text = text.partition("#")[0].partition("?")[0]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
