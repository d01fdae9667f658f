"""The instruction model: what one step says, as values; nothing here reads anything.

`Instruction` and `Source` are the plug points for an embedder's own types: a frozen value with
a `name` and a `definition`. Everything else about a step (its inputs, its place in a file) is in
the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from layercache._base.classes import field, frozen

__all__ = ["Field", "Instruction", "Source", "Value"]

Value: TypeAlias = "bool | int | str | bytes | tuple[Value, ...] | None"
"""What a field may hold; framed injectively, so `1`, `True`, `"1"` and `b"1"` all differ."""


@frozen
class Field:
    """One labelled fact that may change a result.

    `private` marks values that must not reach a shared store in the clear (build arguments):
    they count in the key, and are kept there as a digest only.
    """

    label: str
    value: Value
    private: bool = False
    framed: str | None = field(default=None, init=False, eq=False, repr=False)
    """Its frame, where that is kept because many definitions hold it (`framing.share`)."""


@runtime_checkable
class Instruction(Protocol):
    """What one step says. Implement it with a frozen value.

    `name` is for people and is part of the key material. `definition` gives every labelled
    fact, inputs apart, that may change the result, always in the same order. It must be a pure
    function of the value: it is called once for each walk and its result is hashed.

    Optional attributes, each absent for the careful answer:

    - `commands`: False when executing it runs no command; the executor's traits are then no
      part of its key.
    - `reads()`: what it reads beside its parent, as (role, subject, selector); the subject is a
      `Source`, the name of a stage or context, or None for the main context.
    - `reads_parent`: the selector of what it reads of its parent, `EVERYTHING` by default. A
      promise: its layer may depend on nothing else of the parent.
    - `text`: how it is shown to people.
    """

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]: ...


@runtime_checkable
class Source(Protocol):
    """Something named from outside, with no inputs: a base image, a build context, a URL.

    `name` is what people call it; `definition` identifies it within one build, so that the same
    question is asked once. It is no part of any key: a source counts by its content.

    Of an embedder's own type it needs one more method, `fetch()`: what it holds, as a `Tree` or
    a mapping of paths to contents. That is called once for a build, when something of it has to
    be known; it raises `SourceError` or `OSError` when it can't.
    """

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]: ...
