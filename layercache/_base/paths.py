"""Paths as text and as bytes: of Dockerfiles, of contexts, of images."""

from __future__ import annotations

__all__ = [
    "NOWHERE",
    "clean",
    "encoded",
    "shown_below",
    "shown_in_image",
    "stays_below",
]


def clean(path: str) -> str:
    """`path` in the form of Go's `filepath.Clean`: no `.`, `//`, inner `..` or trailing slash."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not rooted:
                kept.append(part)
        elif part not in ("", "."):
            kept.append(part)
    text = "/".join(kept)
    return "/" + text if rooted else text or "."


def encoded(text: str) -> bytes:
    """The bytes of a path or name that was read as text, whatever bytes it held."""
    return text.encode("utf-8", "surrogateescape")


def shown_below(path: bytes) -> str:
    """A path below a directory, such as a context, for a message."""
    return path.decode("utf-8", "backslashreplace") or "."


def shown_in_image(path: bytes) -> str:
    """A path of an image for a message: absolute and quoted."""
    return repr("/" + path.lstrip(b"/").decode("utf-8", "backslashreplace"))


NOWHERE = frozenset({b"", b".", b".."})
"""What is no name of an entry of a directory."""


def stays_below(path: bytes) -> bool:
    """Whether `path` is relative and each of its components is the name of an entry."""
    return b"\0" not in path and NOWHERE.isdisjoint(path.split(b"/"))
