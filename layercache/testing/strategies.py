"""Hypothesis strategies for recipes, contexts and edit histories.

They draw from `layercache.testing.generating`, so that failures of seeded runs shrink here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from layercache.dockerfile.instructions import DockerfileInstruction
from layercache.errors import MissingExtra
from layercache.model.instruction import Value
from layercache.testing.generating import (
    Choices,
    ContextVersion,
    Files,
    any_context,
    any_history,
    any_instruction,
    any_version,
)

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as error:
    raise MissingExtra("layercache.testing.strategies", "test") from error

__all__ = [
    "contexts",
    "drawn",
    "edit_histories",
    "instructions",
    "paths",
    "recipes",
    "values",
    "versions",
]

T = TypeVar("T")


class _Drawn:
    """`Choices` that Hypothesis makes."""

    def __init__(self, draw: DrawFn) -> None:
        self._draw = draw

    def pick(self, options: Sequence[T]) -> T:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))


def drawn(make: Callable[[Choices], T]) -> SearchStrategy[T]:
    """The result of `make` with choices that Hypothesis makes."""

    @st.composite
    def strategy(draw: DrawFn) -> T:
        return make(_Drawn(draw))

    return strategy()


def contexts() -> SearchStrategy[Files]:
    """Contexts as mappings of paths to contents, links and directories among them."""
    return drawn(any_context)


def instructions(stages: Sequence[str] = ()) -> SearchStrategy[DockerfileInstruction]:
    """Instructions for the body of a stage; `stages` are names they may copy from."""
    return drawn(lambda choices: any_instruction(choices, stages))


def versions() -> SearchStrategy[ContextVersion]:
    """A recipe with its context and build options."""
    return drawn(any_version)


def recipes() -> SearchStrategy[tuple[DockerfileInstruction, ...]]:
    """Whole recipes of one to three stages, as instructions."""
    return versions().map(lambda version: version.recipe)


def edit_histories(builds: int = 4) -> SearchStrategy[tuple[ContextVersion, ...]]:
    """`builds` versions of one project, each a few edits from an earlier one."""
    return drawn(lambda choices: any_history(choices, builds))


def paths() -> SearchStrategy[bytes]:
    """Paths as bytes: any names that a file system allows, UTF-8 or not."""
    name = st.binary(min_size=1, max_size=12).filter(
        lambda text: not set(text) & {0, 0x2F} and text not in (b".", b"..")
    )
    return st.lists(name, min_size=1, max_size=4).map(b"/".join)


def values() -> SearchStrategy[Value]:
    """Any value that a field may hold."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=20)
        | st.binary(max_size=20)
        | st.binary(max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape"))
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)
