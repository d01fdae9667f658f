"""URLs in a form that is safe to show."""

from __future__ import annotations

from typing import Final

__all__ = ["masked", "user_of"]

_LONGEST: Final = 8 << 10


def user_of(rest: str) -> str:
    """The user information of a URL, given the part after `://`; "" if there is none.

    An unescaped slash in a password is tolerated: if the rest would not be a host and port,
    everything before the last '@' counts as user information.
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

    User information, query and fragment may hold a password, a token or a signature.
    """
    text = url[:_LONGEST]
    scheme, separator, rest = text.partition("://")
    if separator:
        user = user_of(rest)
        rest = rest[len(user) + 1 :] if user or rest.startswith("@") else rest
        text = scheme + separator + rest
    text = text.partition("#")[0].partition("?")[0]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
