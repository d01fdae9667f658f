"""File trees: what patterns and selectors pick from them, and their digests.

Imports `model` and the packages before it, and does no I/O: trees are passed in. Start at
`patterns` (globs and ignore files) and `selection` (which part of a tree a step reads).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.trees.compare import Difference, differences
    from layercache.trees.in_memory import DictTree, directory, file, link
    from layercache.trees.listing import FileChange, Listed, Lists, Selects, diff_listings
    from layercache.trees.order import Ordered
    from layercache.trees.patterns import Ignore, Rule, has_wildcards
    from layercache.trees.selection import (
        Excludes,
        Filtered,
        Selected,
        fingerprint,
        select,
        tree_digest,
        walk,
    )

__all__ = [
    "DictTree",
    "Difference",
    "Excludes",
    "FileChange",
    "Filtered",
    "Ignore",
    "Listed",
    "Lists",
    "Ordered",
    "Rule",
    "Selected",
    "Selects",
    "diff_listings",
    "differences",
    "directory",
    "file",
    "fingerprint",
    "has_wildcards",
    "link",
    "select",
    "tree_digest",
    "walk",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "compare": "Difference differences",
            "in_memory": "DictTree directory file link",
            "listing": "FileChange Listed Lists Selects diff_listings",
            "order": "Ordered",
            "patterns": "Ignore Rule has_wildcards",
            "selection": "Excludes Filtered Selected fingerprint select tree_digest walk",
        },
    )
