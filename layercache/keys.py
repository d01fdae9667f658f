"""Key material, its framing, and the key strategy.

A strategy returns labelled material, not a hash: the core frames it injectively, hashes it and
keeps it, so that an explanation is a comparison of fields and can't disagree with the key.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from blake3 import blake3

from layercache.digests import CacheKey, Fingerprint
from layercache.errors import UsageError
from layercache.instructions import Field, Value
from layercache.selections import Selector
from layercache.values import frozen

if TYPE_CHECKING:
    from layercache.graph import Input, Step

__all__ = ["InputMaterial", "KeyMaterial", "KeyStrategy", "Narrows", "cache_key", "frame"]

_TEXTS: Final = frozenset({str})
_CONTEXT: Final = "layercache 2026-11 cache key: "


@frozen
class InputMaterial:
    """What a step reads of one input: its role, the selector, and the fingerprint found."""

    role: str
    selector: tuple[Field, ...]
    fingerprint: Fingerprint


@frozen
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


@runtime_checkable
class Narrows(Protocol):
    """Optional for a strategy: steps that may be reused on another parent, too."""

    def narrows(self, step: Step) -> str | None:
        """The evidence by which `step` may be reused where not all of the parent is as it was:
        "rebase" or "trace"; None where only the whole parent counts."""


def frame(value: Value) -> bytes:
    """`value` as bytes that no other value has.

    Layout: how many nodes and lengths (u32 each), a type tag for each node in preorder, the
    lengths (u32: characters of a text or integer, bytes, items of a tuple), all texts joined and
    encoded once, all byte strings joined. Integers are in decimal. Raises `UsageError` for
    another type or a text that is none.
    """
    parts = _Parts()
    parts.add(value)
    return parts.joined()


class _Parts:
    """What a frame is joined from. The parts of a tuple are those of its items, in order."""

    __slots__ = ("binary", "lengths", "tags", "texts")

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.lengths: list[int] = []
        self.texts: list[str] = []
        self.binary: list[bytes] = []

    def add(self, value: Value) -> None:
        tags, lengths, texts, binary = self.tags, self.lengths, self.texts, self.binary
        # A stack of iterators, not recursion: values may nest as deep as an embedder likes.
        stack: list[Iterator[Value]] = [iter((value,))]
        while stack:
            for item in stack[-1]:
                kind = type(item)
                if kind is str:
                    tags.append("s")
                    texts.append(item)  # type: ignore[arg-type]
                    lengths.append(len(item))  # type: ignore[arg-type]
                elif kind is tuple:
                    tags.append("(")
                    lengths.append(len(item))  # type: ignore[arg-type]
                    stack.append(iter(item))  # type: ignore[arg-type]
                    break
                elif item is None or kind is bool:
                    tags.append("n" if item is None else "t" if item else "f")
                elif kind is int:
                    digits = str(item)
                    tags.append("i")
                    texts.append(digits)
                    lengths.append(len(digits))
                elif kind is bytes:
                    tags.append("b")
                    binary.append(item)  # type: ignore[arg-type]
                    lengths.append(len(item))  # type: ignore[arg-type]
                else:
                    stack[-1] = iter((_plain(item), *stack[-1]))
                    break
            else:
                stack.pop()

    def open(self, count: int, text: str | None = None) -> None:
        """Begin a tuple of `count` items, `text` the first of them."""
        if type(text) is str:
            self.tags.append("(s")
            self.lengths += (count, len(text))
            self.texts.append(text)
        else:
            self.tags.append("(")
            self.lengths.append(count)
            if text is not None:
                self.add(text)

    def add_text(self, text: str) -> None:
        """As `add`."""
        if type(text) is str:
            self.tags.append("s")
            self.lengths.append(len(text))
            self.texts.append(text)
        else:
            self.add(text)

    def add_fields(self, fields: Sequence[Field]) -> None:
        """As `add` of the tuple of all (label, value), in a third of the time: a key has dozens."""
        tags, lengths, texts = self.tags.append, self.lengths, self.texts
        tags("(")
        lengths.append(len(fields))
        for field in fields:
            label, value = field.label, field.value
            kind = type(value)
            if type(label) is not str:
                self.add((label, value))
            elif kind is str:
                tags("(ss")
                lengths += (2, len(label), len(value))  # type: ignore[arg-type]
                texts += (label, value)  # type: ignore[arg-type]
            elif value is None or kind is bool:
                tags("(sn" if value is None else "(st" if value else "(sf")
                lengths += (2, len(label))
                texts.append(label)
            elif kind is tuple and not value:
                tags("(s(")
                lengths += (2, len(label), 0)
                texts.append(label)
            elif kind is tuple and _TEXTS.issuperset(map(type, value)):  # type: ignore[arg-type]
                count = len(value)  # type: ignore[arg-type]
                tags("(s(" + "s" * count)
                lengths += (2, len(label), count, *map(len, value))  # type: ignore[arg-type]
                texts += (label, *value)  # type: ignore[misc]
            else:
                tags("(s")
                lengths += (2, len(label))
                texts.append(label)
                self.add(value)

    def joined(self) -> bytes:
        tags, lengths = "".join(self.tags), self.lengths
        try:
            text = "".join(self.texts).encode("utf-8", "surrogatepass")
            head = _numbers(len(lengths) + 2)(len(tags), len(lengths), *lengths)
        except (UnicodeEncodeError, struct.error) as error:
            raise UsageError(f"a field can't be framed: {error}") from error
        return b"".join((head, tags.encode("ascii"), text, *self.binary))


@functools.lru_cache(maxsize=256)
def _numbers(count: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}I").pack


def _plain(item: object) -> Value:
    """The plain value behind a subclass (an enumeration, a named tuple, a digest type)."""
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, bytes):
        return bytes(item)
    if isinstance(item, int):
        return int(item)
    if isinstance(item, tuple):
        return tuple(item)
    raise UsageError(
        f"a field can't hold {type(item).__name__}: use None, bool, int, str, bytes or a tuple "
        "of these"
    )


def cache_key(material: KeyMaterial) -> CacheKey:
    """The key of `material`: BLAKE3 in `derive_key` mode, one context for each scheme."""
    parts = _Parts()
    # The parts of (name, fields, traits, ((role, selector, fingerprint), …), salt).
    parts.open(5, material.name)
    parts.add_fields(material.fields)
    parts.add_fields(material.traits)
    parts.open(len(material.inputs))
    for read in material.inputs:
        parts.open(3, read.role)
        parts.add_fields(read.selector)
        parts.add_text(read.fingerprint)
    parts.add_text(material.salt)
    hasher = blake3(parts.joined(), derive_key_context=_CONTEXT + material.scheme)
    return CacheKey(hasher.hexdigest())
