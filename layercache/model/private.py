"""Private values in records: digests keyed by the record's own key."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from layercache._base.classes import evolve
from layercache.model.digests import CacheKey
from layercache.model.framing import frame
from layercache.model.instruction import Field, Value
from layercache.model.keys import KeyMaterial

__all__ = ["is_redacted", "redact", "redact_fields"]

_PRIVATE: Final = "layercache 2026-11 private value 1"
_TAG: Final = b"\x00blake3 keyed"


def is_redacted(value: Value) -> bool:
    """Whether `value` stands for a private value, as its keyed digest."""
    return isinstance(value, tuple) and len(value) == 2 and value[0] == _TAG


def redact_fields(key: CacheKey, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """`fields` with each private value replaced by its digest, keyed by the record's own key.

    Two records therefore don't reveal that they share a value, but anyone who knows a value can
    compare it with the one in a record, on any machine. Redacted values stay as they are.
    """
    if not any(field.private for field in fields):
        return fields
    secret = blake3(key.encode(), derive_key_context=_PRIVATE).digest()
    return tuple(
        evolve(field, value=_keyed(secret, field.label, field.value))
        if field.private and not is_redacted(field.value)
        else field
        for field in fields
    )


def _keyed(secret: bytes, label: str, value: Value) -> Value:
    return (_TAG, blake3(frame((label, value)), key=secret).digest())


def redact(key: CacheKey, material: KeyMaterial) -> KeyMaterial:
    """`material` in the form that a record of `key` holds; compare new and old material in this
    form.

    The salt is private too: it is shown as a digest in hexadecimal.
    """
    salt = material.salt
    if salt and not salt.startswith("blake3:"):
        secret = blake3(key.encode(), derive_key_context=_PRIVATE).digest()
        salt = "blake3:" + blake3(frame(salt), key=secret).hexdigest()
    return evolve(
        material,
        fields=redact_fields(key, material.fields),
        traits=redact_fields(key, material.traits),
        inputs=tuple(
            [
                evolve(read, selector=redact_fields(key, read.selector))
                if any(field.private for field in read.selector)
                else read
                for read in material.inputs
            ]
        ),
        salt=salt,
    )
