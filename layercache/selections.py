"""Selectors: which part of an input a step reads, and what that part is.

`Everything`, `Nothing`, `Observed` and `Files` are values. `select` answers `Files` over any
`Tree` with COPY's rules, `walk` lists what a match brings along, `fingerprint` digests it all,
`listing` keeps it for explanations. All pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from blake3 import blake3

from layercache.digests import Fingerprint
from layercache.instructions import Field
from layercache.listings import (
    FileChange,
    Listed,
    decode_listing,
    diff_listings,
    encode_listing,
    listing,
)
from layercache.matching import (
    Excludes,
    Filtered,
    Selected,
    resolve,
    select,
    tree_digest,
    walk,
)
from layercache.observations import CONTRACT
from layercache.patterns import clean
from layercache.trees import Tree, directory_digest
from layercache.values import frozen

__all__ = [
    "BY_KEY",
    "EVERYTHING",
    "NOTHING",
    "ByKey",
    "Everything",
    "Excludes",
    "FileChange",
    "Files",
    "Filtered",
    "Listed",
    "Nothing",
    "Observed",
    "Selected",
    "Selector",
    "decode_listing",
    "diff_listings",
    "encode_listing",
    "fingerprint",
    "listing",
    "resolve",
    "select",
    "tree_digest",
    "walk",
]

_DOTS: Final = ("", ".", "..")
_SELECTION: Final = "layercache 2026-11 selection digest 1"


@runtime_checkable
class Selector(Protocol):
    """Which part of an input a step reads: a frozen value; `name` is the evidence it gives."""

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]:
        """The labelled facts that make this selector; part of the key material."""


@frozen
class Everything:
    """All of it: for a state its chain ID, for a tree the digest of its root."""

    name = "content"

    def definition(self) -> tuple[Field, ...]:
        return _EVERYTHING


@frozen
class Nothing:
    """Nothing of it: the input does not count (COPY --link on its parent)."""

    name = "link"

    def definition(self) -> tuple[Field, ...]:
        return _NOTHING


@frozen
class ByKey:
    """The key of the step that makes the input, instead of its content (`ChainKeys`)."""

    name = "chain"

    def definition(self) -> tuple[Field, ...]:
        return _KEY


@frozen
class Observed:
    """What an execution was seen to look at, and nothing else of it.

    `observations` is the digest of the set (`Observations.digest`); `evidence` is "trace" where
    a command was watched, "rebase" where the engine itself did the looking (COPY, ADD, WORKDIR).
    """

    observations: str
    evidence: str = "trace"

    @property
    def name(self) -> str:
        return self.evidence

    def definition(self) -> tuple[Field, ...]:
        return (
            Field("selector", "observed"),
            Field("contract", CONTRACT),
            Field("observations", self.observations),
        )


@frozen
class Files:
    """The files that COPY, ADD or a mount names.

    `patterns` are relative to the root of the input ("." for the root), and may hold wildcards
    (`*`, `?`, `[a-z]`, `\\`-escapes as Go's `filepath.Match`) when `wildcards`. `exclude` are
    patterns of `--exclude`, with the rules of `.dockerignore`; they apply below what is
    selected, relative to it (with `parents`: to the pivot), and never to a selected file itself.
    With `parents` the path below the pivot `/./` is kept at the destination, `**` crosses
    directories, and links are kept as links; without, links that are named are followed.
    `named` is False where the names of the matches change nothing (a bind mount).
    """

    patterns: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    parents: bool = False
    wildcards: bool = True
    named: bool = True

    name = "content"

    def definition(self) -> tuple[Field, ...]:
        """Of a pattern its last component only, except with `parents`: the content counts."""
        patterns: tuple[str, ...] = ()
        if self.parents:
            patterns = self.patterns
        elif self.named:
            patterns = tuple(map(_base, self.patterns))
        return (
            _FILES,
            Field("patterns", patterns),
            Field("exclude", self.exclude) if self.exclude else _NO_EXCLUDE,
            *_MANNERS[self.parents, self.wildcards],
        )


# Fields that many definitions share; thousands of steps then hold one of each.
_EVERYTHING: Final = (Field("selector", "everything"),)
_NOTHING: Final = (Field("selector", "nothing"),)
_KEY: Final = (Field("selector", "key"),)
_FILES: Final = Field("selector", "files")
_NO_EXCLUDE: Final = Field("exclude", ())
_MANNERS: Final = {
    (parents, wildcards): (Field("parents", parents), Field("wildcards", wildcards))
    for parents in (False, True)
    for wildcards in (False, True)
}

EVERYTHING = Everything()
NOTHING = Nothing()
BY_KEY = ByKey()


def _base(pattern: str) -> str:
    if "/" not in pattern and pattern not in _DOTS:
        return pattern
    return clean("/" + pattern).rpartition("/")[2] or "."


def fingerprint(tree: Tree, files: Files) -> Fingerprint:
    """The digest of what `files` selects: everything of it that can change the copied tree.

    Names, types, permission bits, owners as the tree reports them, link targets, capabilities,
    bytes. Not: times, the mode of the tree's root, the modes of the parents that `--parents`
    makes. Raises what `select` raises.
    """
    parts: list[bytes] = []
    for match in select(tree, files):
        if match.exclude is not None and not match.relative:
            digest = tree_digest(tree, match.path, match.exclude if match.node.is_dir else None)
        else:
            digest = tree_digest(tree, match.path, match.exclude)
        if digest is None:
            if match.relative:
                continue  # excluded with all that is below it
            digest = directory_digest(())
        node = match.node
        name = (match.relative or match.name) if files.named else b""
        mode, uid, gid = (node.mode, node.uid, node.gid) if match.path else (0, 0, 0)
        parts.append(
            struct.pack("<IIIII", match.pattern_index, len(name), mode, uid, gid) + name + digest
        )
    hasher = blake3(b"".join(parts), derive_key_context=_SELECTION)
    return Fingerprint(hasher.hexdigest())
