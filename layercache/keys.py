"""Key material, its framing, and the key strategy.

A strategy returns labelled material, not a hash: the core frames it injectively, hashes it and
keeps it, so that an explanation is a comparison of fields and can't disagree with the key.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import attrs
from blake3 import blake3

from layercache.digests import CacheKey, Fingerprint
from layercache.errors import UsageError
from layercache.instructions import Field, Value
from layercache.selections import Selector

if TYPE_CHECKING:
    from layercache.graph import Input, Step

__all__ = ["InputMaterial", "KeyMaterial", "KeyStrategy", "cache_key", "frame"]

_CONTEXT: Final = "layercache 2026-11 cache key: "


@attrs.frozen
class InputMaterial:
    """What a step reads of one input: its role, the selector, and the fingerprint found."""

    role: str
    selector: tuple[Field, ...]
    fingerprint: Fingerprint


@attrs.frozen
class KeyMaterial:
    """Everything a key is made of, labelled: scheme, instruction, fields, traits, inputs."""

    scheme: str
    name: str
    fields: tuple[Field, ...]
    traits: tuple[Field, ...] = ()
    inputs: tuple[InputMaterial, ...] = ()
    salt: str = ""


@runtime_checkable
class KeyStrategy(Protocol):
    """How narrow "what a step reads" is. Pure; strategies are never mixed in one walk.

    `scheme` names the strategy and its version ("content/1") and is part of every key.
    """

    @property
    def scheme(self) -> str: ...

    def selector(self, step: Step, source: Input) -> Selector:
        """What of this input the step reads."""

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        """The labelled facts; `inputs` come in the order of `step.inputs`."""


def frame(value: Value) -> bytes:
    """`value` as bytes that no other value has: a type tag, a length, the content.

    Integers are in decimal; tuples carry their count. Raises `UsageError` for another type.
    """
    parts: list[bytes] = []
    _frame(value, parts.append)
    return b"".join(parts)


_LENGTH = struct.Struct("<Q").pack


def _frame(value: Value, put: object) -> None:
    # Work list, not recursion: values may nest as deep as an embedder likes.
    emit = put
    assert callable(emit)
    stack: list[Value] = [value]
    while stack:
        item = stack.pop()
        if item is None:
            emit(b"n")
        elif item is True:
            emit(b"t")
        elif item is False:
            emit(b"f")
        elif isinstance(item, str):
            data = item.encode("utf-8", "surrogateescape")
            emit(b"s" + _LENGTH(len(data)) + data)
        elif isinstance(item, bytes):
            emit(b"b" + _LENGTH(len(item)) + item)
        elif isinstance(item, int):
            data = str(item).encode()
            emit(b"i" + _LENGTH(len(data)) + data)
        elif isinstance(item, tuple):
            emit(b"(" + _LENGTH(len(item)))
            stack.extend(reversed(item))
        else:
            raise UsageError(
                f"a field can't hold {type(item).__name__}: use None, bool, int, str, bytes or "
                "a tuple of these"
            )


def _fields(fields: Sequence[Field]) -> Value:
    return tuple((field.label, field.value) for field in fields)


def cache_key(material: KeyMaterial) -> CacheKey:
    """The key of `material`: BLAKE3 in `derive_key` mode, one context for each scheme."""
    value: Value = (
        material.name,
        _fields(material.fields),
        _fields(material.traits),
        tuple((i.role, _fields(i.selector), i.fingerprint) for i in material.inputs),
        material.salt,
    )
    hasher = blake3(frame(value), derive_key_context=_CONTEXT + material.scheme)
    return CacheKey(hasher.hexdigest())
