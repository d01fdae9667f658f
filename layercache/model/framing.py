"""Framing: an injective encoding of values as bytes, used for everything that is hashed.

A frame is text, encoded once. Each value starts with its type and its length, so that no value
is a prefix of another and the boundary between two values is unambiguous:

    None n   True t   False f   integer i<hexadecimal>;   text s<characters>:<them>
    bytes b<count>:<each as the character of its number>   tuple (<items>:<frame of each>
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from layercache.errors import UsageError
from layercache.model.instruction import Field, Value

__all__ = ["frame", "framed_field", "share"]

_SHALLOW: Final = 8


def frame(value: Value) -> bytes:
    """The injective encoding of `value`; subclasses count as the plain type below them.

    Raises `UsageError` for another type.
    """
    return _framed(value).encode("utf-8", "surrogatepass")


def _framed(value: Value, depth: int = 0) -> str:
    """The text that `frame` encodes; the fast path for texts and flat tuples."""
    kind = type(value)
    if kind is str:
        return f"s{len(value)}:{value}"  # type: ignore[arg-type,str-bytes-safe]
    if value is None:
        return "n"
    if kind is bool:
        return "t" if value else "f"
    if kind is int:
        return f"i{value:x};"  # type: ignore[str-bytes-safe]
    if kind is tuple and depth < _SHALLOW:
        parts = [
            f"s{len(item)}:{item}" if type(item) is str else _framed(item, depth + 1)
            for item in value  # type: ignore[union-attr]
        ]
        return f"({len(parts)}:" + "".join(parts)
    return _nested(value)


def _nested(value: Value) -> str:
    """The same for any value, at any depth."""
    parts: list[str] = []
    # A stack of iterators, not recursion: values may nest as deep as an embedder likes.
    stack: list[Iterator[Value]] = [iter((value,))]
    while stack:
        for item in stack[-1]:
            kind = type(item)
            if kind is str:
                parts.append(f"s{len(item)}:{item}")  # type: ignore[arg-type,str-bytes-safe]
            elif item is None or kind is bool:
                parts.append("n" if item is None else "t" if item else "f")
            elif kind is tuple:
                parts.append(f"({len(item)}:")  # type: ignore[arg-type]
                stack.append(iter(item))  # type: ignore[arg-type]
                break
            elif kind is bytes:
                content = item.decode("latin-1")  # type: ignore[union-attr]
                parts.append(f"b{len(content)}:{content}")
            elif kind is int:
                parts.append(f"i{item:x};")  # type: ignore[str-bytes-safe]
            else:
                stack[-1] = iter((_plain(item), *stack[-1]))
                break
        else:
            stack.pop()
    return "".join(parts)


def framed_field(field: Field) -> str:
    """The text of (label, value); taken from `field.framed` if it is stored there."""
    label, value = field.label, field.value
    if type(label) is not str:
        return _framed((label, value))
    if type(value) is str:
        return f"(2:s{len(label)}:{label}s{len(value)}:{value}"
    return f"(2:s{len(label)}:{label}{_framed(value)}"


def share(*fields: Field) -> tuple[Field, ...]:
    """`fields` that many definitions share, each framed once for all keys."""
    for field in fields:
        object.__setattr__(field, "framed", framed_field(field))
    return fields


def _plain(item: object) -> Value:
    """The plain value of an instance of a subclass (enumeration, named tuple, digest type)."""
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
