"""The instruction model: the definition of one step as values; nothing here does I/O.

`Instruction` and `Source` are the plug points for an embedder's own types: a frozen value with
a `name` and a `definition`. All other facts about a step (its inputs, its place in a file) are in
the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from layercache._base.classes import field, frozen

__all__ = ["Field", "Instruction", "Source", "Value"]

Value: TypeAlias = "bool | int | str | bytes | tuple[Value, ...] | None"
"""The value of a field; framed injectively, so `1`, `True`, `"1"` and `b"1"` all differ."""


@frozen
class Field:
    """One labelled fact that may change a result.

    `private` marks values that must not reach a shared store in the clear (build arguments):
    they count in the key, but the store holds only a digest.
    """

    label: str
    value: Value
    private: bool = False
    framed: str | None = field(default=None, init=False, eq=False, repr=False)
    """The frame of the field, stored if many definitions share the field (`framing.share`)."""


@runtime_checkable
class Instruction(Protocol):
    """The definition of one step. Implement it with a frozen value.

    `name` is for people and is part of the key material. `definition` returns all labelled
    facts, other than the inputs, that may change the result, always in the same order. It must be
    a pure function of the value: it is called once per walk and its result is hashed.

    Optional attributes; leaving one out is always safe:

    - `commands`: False if executing the instruction runs no command; the executor's traits are
      then not part of its key.
    - `reads()`: its inputs other than the parent, as (role, subject, selector); the subject is a
      `Source`, the name of a stage or context, or None for the main context.
    - `reads_parent`: the selector of the part of the parent that it reads, `EVERYTHING` by
      default. Its layer must depend on no other part of the parent.
    - `text`: the form shown to people.
    """

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]: ...


@runtime_checkable
class Source(Protocol):
    """An external input, which has no inputs itself: a base image, a build context, a URL.

    `name` is for people; `definition` identifies the source within one build, so that each
    question about it is asked once. It is not part of any key: a source counts by its content.

    A type of an embedder's own needs one more method, `fetch()`, which returns the content as a
    `Tree` or a mapping of paths to contents. It is called at most once per build, when some of the
    content is needed; it raises `SourceError` or `OSError` on failure.
    """

    @property
    def name(self) -> str: ...

    def definition(self) -> Sequence[Field]: ...
