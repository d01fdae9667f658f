"""Checks of an embedder's own instructions, before anything runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from layercache.errors import UsageError
from layercache.model.framing import frame
from layercache.model.instruction import Field, Source
from layercache.model.selectors import EVERYTHING, Files, Selector

__all__ = ["Read", "check_definition", "reads_of"]

Read = tuple[str, "str | Source | None", Selector]
"""Role, subject (a source, the name of a stage or context, None for the context), selector."""


def check_definition(instruction: object) -> None:
    """Raise `UsageError` if `definition()` does not return valid key material."""
    kind = type(instruction).__name__
    definition = getattr(instruction, "definition", None)
    if isinstance(instruction, type) or not callable(definition):
        raise UsageError(
            f"{instruction!r} is no instruction: it has no definition(). A recipe is a list of "
            'values such as Run("make"), or a Dockerfile'
        )
    if not isinstance(getattr(instruction, "name", None), str):
        raise UsageError(f'the instruction {kind} has no name: give it `name = "..."`')
    try:
        fields = definition()
    except Exception as error:
        raise UsageError(
            f"{kind}.definition() raised {type(error).__name__}: {error}; it is to give the "
            "labelled facts of a frozen value, whatever that holds"
        ) from error
    wrong = f"{kind}.definition() gives {{}}; it is to give a tuple of Field(label, value)"
    if not isinstance(fields, Sequence) or isinstance(fields, str | bytes):
        raise UsageError(wrong.format(type(fields).__name__))
    for field in fields:
        if not isinstance(field, Field) or not isinstance(field.label, str):
            raise UsageError(wrong.format(f"{field!r} in it"))
        try:
            frame(field.value)
        except UsageError as error:
            raise UsageError(f"{kind}.definition(), field {field.label!r}: {error}") from error


def reads_of(instruction: object) -> tuple[Read, ...]:
    """The inputs that `reads()` names, if it exists. Raises `UsageError` for an invalid result."""
    reads = getattr(instruction, "reads", None)
    if reads is None:
        return ()
    kind = type(instruction).__name__
    found: list[Read] = []
    for item in reads():
        if not isinstance(item, tuple) or len(item) != 3:
            raise UsageError(
                f"{kind}.reads() gives {item!r}; it is to give (role, subject, selector), for "
                'instance ("sources", None, Files(("src",)))'
            )
        role, subject, selector = item
        selector = EVERYTHING if selector is None else selector
        if not isinstance(role, str) or not isinstance(selector, Selector):
            raise UsageError(
                f"{kind}.reads(): the role {role!r} is to be text, the selector {selector!r} "
                "Files((...,)), EVERYTHING or None"
            )
        if isinstance(selector, Files) and isinstance(selector.patterns, str):
            raise UsageError(f"{kind}.reads(): patterns are a tuple of texts")
        found.append((role, subject, selector))
    return tuple(found)
