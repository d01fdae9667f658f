"""Selectors: the part of an input that a step reads.

`Everything`, `Nothing`, `ByKey`, `Observed` and `Files` are values; `trees.selection` evaluates
`Files` over a tree, `trees.listing` keeps the result for explanations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from layercache._base.classes import field, frozen
from layercache._base.paths import clean
from layercache.errors import UsageError
from layercache.model.framing import share
from layercache.model.instruction import Field
from layercache.model.observations import CONTRACT

__all__ = [
    "BY_KEY",
    "EVERYTHING",
    "NOTHING",
    "ByKey",
    "Everything",
    "Files",
    "Nothing",
    "Observed",
    "Selector",
]

_DOTS: Final = ("", ".", "..")


@runtime_checkable
class Selector(Protocol):
    """The part of an input that a step reads, as a frozen value; `name` is the kind of evidence."""

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]:
        """The labelled facts that define this selector; part of the key material."""


@frozen
class Everything:
    """The whole input: for a state its chain ID, for a tree the digest of its root."""

    name = "content"

    def definition(self) -> tuple[Field, ...]:
        return _EVERYTHING


@frozen
class Nothing:
    """No part of the input: it does not count (the parent of COPY --link)."""

    name = "link"

    def definition(self) -> tuple[Field, ...]:
        return _NOTHING


@frozen
class ByKey:
    """The key of the step that produces the input, instead of its content (`ChainKeys`)."""

    name = "chain"

    def definition(self) -> tuple[Field, ...]:
        return _KEY


@frozen
class Observed:
    """Exactly the facts that an execution was observed to read.

    `observations` is the digest of the set (`Observations.digest`); `evidence` is "trace" if a
    command was watched, "rebase" if the engine itself read the facts (COPY, ADD, WORKDIR).
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


def _texts(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str | bytes):
        raise UsageError(f"patterns are a tuple of texts: write Files(({given!r},))")
    return given if isinstance(given, tuple) else tuple(given)


@frozen
class Files:
    """The files that COPY, ADD or a mount names.

    `patterns` are relative to the root of the input ("." for the root), and may hold wildcards
    (`*`, `?`, `[a-z]`, `\\`-escapes as Go's `filepath.Match`) when `wildcards`. `exclude` are
    patterns of `--exclude`, with the rules of `.dockerignore`; they apply to the name of each
    selected entry, and below it to paths relative to it (with `parents`: to the path from the
    pivot on). With `parents` the path below the pivot `/./` is kept at the destination, `**`
    crosses directories, and links are kept as links; without it, named links are followed.
    `named` is False if the names of the matches do not count (a bind mount); `fixed_mode` is True
    if their permission bits do not count because all get the same (an octal `--chmod`).
    """

    patterns: tuple[str, ...] = field(converter=_texts)
    exclude: tuple[str, ...] = field(default=(), converter=_texts)
    parents: bool = False
    wildcards: bool = True
    named: bool = True
    fixed_mode: bool = False
    private: tuple[str, ...] = field(default=(), eq=False)
    """Which of "patterns" and "exclude" were expanded from build arguments; only their digests
    are stored."""

    name = "content"

    def definition(self) -> tuple[Field, ...]:
        """Of each pattern only the last component, except with `parents`, because the content
        counts.
        """
        patterns: tuple[str, ...] = ()
        if self.parents:
            patterns = self.patterns
        elif self.named:
            patterns = tuple(map(_base, self.patterns))
        return (
            _FILES,
            Field("patterns", patterns, private="patterns" in self.private),
            Field("exclude", self.exclude, private="exclude" in self.private)
            if self.exclude
            else _NO_EXCLUDE,
            *_MANNERS[self.parents, self.wildcards],
            *((_FIXED_MODE,) if self.fixed_mode else ()),
        )


# Fields that many definitions share; thousands of steps then hold one of each.
_EVERYTHING: Final = share(Field("selector", "everything"))
_NOTHING: Final = share(Field("selector", "nothing"))
_KEY: Final = share(Field("selector", "key"))
_FILES, _NO_EXCLUDE, _FIXED_MODE = share(
    Field("selector", "files"), Field("exclude", ()), Field("fixed mode", True)
)
_MANNERS: Final = {
    (parents, wildcards): share(Field("parents", parents), Field("wildcards", wildcards))
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
