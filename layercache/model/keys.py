"""Key material and the key strategy.

A strategy returns labelled material, not a hash: the core frames it injectively, hashes it and
keeps it, so that an explanation is a comparison of fields and can't disagree with the key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from blake3 import blake3

from layercache._base.classes import frozen
from layercache.errors import UsageError
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.framing import framed_field
from layercache.model.instruction import Field
from layercache.model.selectors import Selector

if TYPE_CHECKING:
    from layercache.model.graph import Input, Step

__all__ = ["InputMaterial", "KeyMaterial", "KeyStrategy", "Narrows", "cache_key"]

_CONTEXT: Final = "layercache 2026-11 cache key 2: "


@frozen
class InputMaterial:
    """The part of one input that a step reads: its role, the selector, and the fingerprint."""

    role: str
    selector: tuple[Field, ...]
    fingerprint: Fingerprint


@frozen
class KeyMaterial:
    """Everything that a key is made of, labelled: scheme, instruction, fields, traits, inputs."""

    scheme: str
    name: str
    fields: tuple[Field, ...]
    traits: tuple[Field, ...] = ()
    inputs: tuple[InputMaterial, ...] = ()
    salt: str = ""


@runtime_checkable
class KeyStrategy(Protocol):
    """Decides which part of each input counts. Pure; a walk never mixes strategies.

    `scheme` names the strategy and its version ("content/2") and is part of every key.
    """

    @property
    def scheme(self) -> str: ...

    def selector(self, step: Step, source: Input) -> Selector:
        """The part of this input that the step reads."""

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        """The labelled facts; `inputs` are in the order of `step.inputs`."""


class Narrows(ABC):
    """Optional for a strategy: some steps may also be reused on another parent.

    A strategy declares it by deriving from this.
    """

    __slots__ = ()

    @abstractmethod
    def narrows(self, step: Step) -> str | None:
        """The evidence by which `step` may be reused although some of its parent changed: "rebase"
        or
        "trace"; None if only the whole parent counts.
        """


def cache_key(material: KeyMaterial) -> CacheKey:
    """The key of `material`: BLAKE3 in `derive_key` mode, with one context for each scheme.

    Hashes the frame of (name, fields, traits, ((role, selector, fingerprint), …), salt), where
    fields are tuples of (label, value). Raises `UsageError` for values that can't be framed.
    """
    # One list, filled in place: a key is to cost little more than hashing it.
    name, fields, traits, salt = material.name, material.fields, material.traits, material.salt
    if type(name) is not str or type(salt) is not str:
        name, salt = _text(name), _text(salt)
    parts = [f"(5:s{len(name)}:{name}({len(fields)}:"]
    parts += [field.framed or framed_field(field) for field in fields]
    parts.append(f"({len(traits)}:")
    if traits:
        parts += [field.framed or framed_field(field) for field in traits]
    parts.append(f"({len(material.inputs)}:")
    for read in material.inputs:
        role, selector, found = read.role, read.selector, read.fingerprint
        if type(role) is not str or type(found) is not str:
            role, found = _text(role), Fingerprint(_text(found))
        parts.append(f"(3:s{len(role)}:{role}({len(selector)}:")
        for field in selector:
            parts.append(field.framed or framed_field(field))
        parts.append(f"s{len(found)}:{found}")
    parts.append(f"s{len(salt)}:{salt}")
    data = "".join(parts).encode("utf-8", "surrogatepass")
    return CacheKey(blake3(data, derive_key_context=_CONTEXT + material.scheme).hexdigest())


def _text(text: Any) -> str:
    """The plain text of an instance of a subclass, which may override its string form."""
    if not isinstance(text, str):
        raise UsageError(
            f"key material can't have {type(text).__name__} for its name, its salt, a role or a "
            "fingerprint: these are texts"
        )
    return str.__str__(text)
