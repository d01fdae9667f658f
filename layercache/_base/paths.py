"""Paths as text."""

from __future__ import annotations

__all__ = ["clean"]


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
