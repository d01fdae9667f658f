"""Selectors: which part of an input a step reads.

`Everything`, `Nothing` and `Files` are values; `select` answers `Files` over any `Tree` and
`fingerprint` digests the answer. Both are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs

from layercache.instructions import Field

__all__ = ["BY_KEY", "EVERYTHING", "NOTHING", "ByKey", "Everything", "Files", "Nothing", "Selector"]


@runtime_checkable
class Selector(Protocol):
    """Which part of an input a step reads: a frozen value; `name` is the evidence it gives."""

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]:
        """The labelled facts that make this selector; part of the key material."""


@attrs.frozen
class Everything:
    """All of it: for a state its chain ID, for a tree the digest of its root."""

    name = "content"

    def definition(self) -> tuple[Field, ...]:
        return (Field("selector", "everything"),)


@attrs.frozen
class Nothing:
    """Nothing of it: the input does not count (COPY --link on its parent)."""

    name = "link"

    def definition(self) -> tuple[Field, ...]:
        return (Field("selector", "nothing"),)


@attrs.frozen
class ByKey:
    """The key of the step that makes the input, instead of its content (`ChainKeys`)."""

    name = "chain"

    def definition(self) -> tuple[Field, ...]:
        return (Field("selector", "key"),)


@attrs.frozen
class Files:
    """The files that COPY, ADD or a mount names.

    `patterns` are cleaned, relative to the root of the input ("." for the root), and may hold
    wildcards (`*`, `?`, `[a-z]`, `\\`-escapes as Go's `filepath.Match`) when `wildcards`;
    `exclude` are patterns of `--exclude`; with `parents` the path below the pivot is kept and
    `**` crosses directories. `required` names that must exist, else the build fails.
    """

    patterns: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    parents: bool = False
    wildcards: bool = True

    name = "content"

    def definition(self) -> tuple[Field, ...]:
        return (
            Field("selector", "files"),
            Field("patterns", self.patterns),
            Field("exclude", self.exclude),
            Field("parents", self.parents),
            Field("wildcards", self.wildcards),
        )


EVERYTHING = Everything()
NOTHING = Nothing()
BY_KEY = ByKey()
