"""The instruction model: what one step says, as values; nothing here reads anything.

`Instruction` and `Source` are the plug points for an embedder's own types: a frozen value with
a `name` and a `definition`. Everything else about a step (its inputs, its place in a file) is in
the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import attrs

__all__ = ["Field", "Instruction", "Source", "Value"]

Value: TypeAlias = "bool | int | str | bytes | tuple[Value, ...] | None"
"""What a field may hold; framed injectively, so `1`, `True`, `"1"` and `b"1"` all differ."""


@attrs.frozen
class Field:
    """One labelled fact that may change a result.

    `private` marks values that must not reach a shared store in the clear (build arguments):
    they count in the key, and are kept there as a digest only.
    """

    label: str
    value: Value
    private: bool = False


@runtime_checkable
class Instruction(Protocol):
    """What one step says. Implement it with a frozen value.

    `name` is for people and is part of the key material. `definition` gives every labelled
    fact, inputs apart, that may change the result, always in the same order. It must be a pure
    function of the value: it is called once for each walk and its result is hashed.

    Optional: `commands: bool = True` when executing it runs commands (then the executor's
    traits are part of its key); absent counts as True, the careful answer.
    """

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]: ...


@runtime_checkable
class Source(Protocol):
    """Something named from outside, with no inputs: a base image, a build context, a URL.

    `name` is what people call it; `definition` identifies it within one build, so that the same
    question is asked once. It is no part of any key: a source counts by its content.
    """

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]: ...
