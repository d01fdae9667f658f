"""Stored forms: values as bytes, the sealed envelope of small objects, records.

Deterministic, versioned and strict: any bytes that were not written by `seal` under the same kind
and name are `CorruptObject`. Stored data is never executed. `docs/reference/store-format.md` is the
published description; a change here is a change of the format's version there.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from blake3 import blake3

from layercache.errors import CorruptObject
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import (
    CacheKey,
    ChainID,
    DiffID,
    Digest,
    Fingerprint,
    TreeDigest,
    is_digest,
    is_tree_digest,
)
from layercache.model.instruction import Field, Value
from layercache.model.keys import InputMaterial, KeyMaterial
from layercache.model.private import redact
from layercache.model.records import Record

__all__ = [
    "FORMAT",
    "MARKER",
    "Packed",
    "Verifier",
    "check_record",
    "decode_record",
    "encode_record",
    "fields_from",
    "pack",
    "record_from",
    "record_value",
    "seal",
    "unpack",
    "unseal",
]

FORMAT: Final = 1
"""The version of the store format that this code writes and reads."""

MARKER: Final = b"layercache store, format "
"""What the object `format` of a cache begins with; the version of the format follows."""

Packed: TypeAlias = "bool | int | float | str | bytes | tuple[Packed, ...] | None"
"""What `pack` takes: the values of fields, and floating point numbers."""

_Rows: TypeAlias = "tuple[tuple[str, Value] | tuple[str, Value, bool], ...]"

_MAGIC: Final = b"lco"
_SEAL: Final = "layercache 2026-11 sealed object 1: "
_MESSAGE: Final = "layercache 2026-11 signed message 1: "

_INFINITE: Final = float("inf")
_LARGEST: Final = 1 << 62
"""Upper bound of counts and sizes; layercache writes no larger number."""

_NONE, _TRUE, _FALSE, _INT, _FLOAT, _STR, _BYTES, _TUPLE = b"ntfidsb("
_COUNTS: Final = struct.Struct("<II")
_DOUBLE: Final = struct.Struct("<d")
_HEAD: Final = struct.Struct("<3sBH32s")


@runtime_checkable
class Verifier(Protocol):
    """Signs the objects that this store writes, and decides whose objects it trusts.

    `message` is a digest over kind, name and content. Symmetric and asymmetric schemes fit.
    """

    def sign(self, message: bytes) -> bytes:
        """The signature, at most 65,535 bytes."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether a trusted writer signed `message`. Must not raise for a malformed signature."""


# -- values as bytes ------------------------------------------------------------------------


def pack(value: Packed) -> bytes:
    """`value` as bytes; equal values of equal types give equal bytes.

    Layout: counts of nodes and of lengths (u32 each), a tag for each node in preorder, the
    lengths (u32, of content or of a tuple), the contents joined. Raises `TypeError` for another
    type of value.
    """
    tags = bytearray()
    lengths: list[int] = []
    parts: list[bytes] = []
    stack: list[Packed] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            tags.append(_STR)
            data = item.encode("utf-8", "surrogateescape")
        elif item is None:
            tags.append(_NONE)
            continue
        elif item is True or item is False:
            tags.append(_TRUE if item else _FALSE)
            continue
        elif isinstance(item, tuple):
            tags.append(_TUPLE)
            lengths.append(len(item))
            stack.extend(reversed(item))
            continue
        elif isinstance(item, int):
            tags.append(_INT)
            data = str(item).encode()
        elif isinstance(item, float):
            tags.append(_FLOAT)
            parts.append(_DOUBLE.pack(item))
            continue
        elif isinstance(item, bytes):
            tags.append(_BYTES)
            data = item
        else:
            raise TypeError(f"can't be stored: {type(item).__name__}")
        lengths.append(len(data))
        parts.append(data)
    head = _COUNTS.pack(len(tags), len(lengths))
    return b"".join((head, tags, struct.pack(f"<{len(lengths)}I", *lengths), *parts))


def unpack(data: bytes) -> Any:
    """The inverse of `pack`; raises `CorruptObject` for any other bytes.

    Linear in the size of `data`, without recursion.
    """
    try:
        value, end = _unpack(data)
    except (struct.error, ValueError, IndexError, StopIteration) as error:
        raise CorruptObject(f"a stored value is malformed: {error}") from error
    if end != len(data):
        raise CorruptObject("a stored value is malformed: its length is wrong")
    return value


def _unpack(data: bytes) -> tuple[Packed, int]:
    nodes, sized = _COUNTS.unpack_from(data)
    at = _COUNTS.size + nodes
    size_of = iter(struct.unpack_from(f"<{sized}I", data, at)).__next__
    at += 4 * sized
    items: list[Packed] = []
    left = 1
    stack: list[tuple[list[Packed], int]] = []
    value: Packed
    for tag in data[_COUNTS.size : _COUNTS.size + nodes]:
        if tag == _STR:
            size = size_of()
            value = data[at : at + size].decode("utf-8", "surrogateescape")
            at += size
        elif tag == _TUPLE:
            size = size_of()
            if size:
                stack.append((items, left))
                items, left = [], size
                continue
            value = ()
        elif tag == _BYTES:
            size = size_of()
            value = data[at : at + size]
            at += size
        elif tag == _INT:
            size = size_of()
            digits = data[at : at + size]
            value = int(digits)
            if b"%d" % value != digits:
                raise ValueError("an integer is not in its one form")
            at += size
        elif tag == _FLOAT:
            (value,) = _DOUBLE.unpack_from(data, at)
            at += 8
        elif tag == _NONE:
            value = None
        elif tag in (_TRUE, _FALSE):
            value = tag == _TRUE
        else:
            raise ValueError(f"unknown tag {tag}")
        items.append(value)
        left -= 1
        while left == 0 and stack:
            value = tuple(items)
            items, left = stack.pop()
            items.append(value)
            left -= 1
    if left or stack or len(items) != 1:
        raise ValueError("it does not hold exactly one value")
    return items[0], at


# -- the sealed envelope --------------------------------------------------------------------


def seal(kind: str, name: str, payload: bytes, verifier: Verifier | None = None) -> bytes:
    """`payload` in an envelope that only opens under the same kind and name.

    Layout: `lco`, format version (u8), length of the signature (u16), BLAKE3 checksum over kind,
    name and the rest (32 bytes), signature, payload.
    """
    signature = verifier.sign(_digest(_MESSAGE, kind, name, payload)) if verifier else b""
    checksum = _digest(_SEAL, kind, name, signature + payload)
    return _HEAD.pack(_MAGIC, FORMAT, len(signature), checksum) + signature + payload


def unseal(kind: str, name: str, data: bytes, verifier: Verifier | None = None) -> bytes:
    """The payload; raises `CorruptObject` if anything about the envelope is wrong."""
    if len(data) < _HEAD.size:
        raise CorruptObject(f"{kind} {name} is cut short")
    magic, version, size, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptObject(f"{kind} {name} is not of this format")
    if version != FORMAT:
        error = CorruptObject(
            f"{kind} {name} has format {version}; this version of layercache reads {FORMAT}"
        )
        error.finding = "newer"
        raise error
    body = data[_HEAD.size :]
    if size > len(body) or _digest(_SEAL, kind, name, body) != checksum:
        raise CorruptObject(f"{kind} {name} is damaged: its checksum does not match")
    payload = body[size:] if size else body
    if verifier and not verifier.verify(_digest(_MESSAGE, kind, name, payload), body[:size]):
        error = CorruptObject(f"{kind} {name} was not written by a trusted writer")
        error.finding = "untrusted"
        raise error
    return payload


def _digest(context: str, kind: str, name: str, data: bytes) -> bytes:
    # `kind` holds no NUL and is in the context; the name's length keeps it apart from the data.
    head = struct.pack("<I", len(name)) + name.encode("utf-8", "surrogateescape")
    return blake3(head + data, derive_key_context=context + kind).digest()


# -- records --------------------------------------------------------------------------------


class _ClosedMaterial:
    """Material in its stored form."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def open(self) -> KeyMaterial:
        value = unpack(self.data)
        try:
            return _material(*value)
        except (TypeError, ValueError) as error:
            raise CorruptObject(f"a stored material has another shape: {error}") from error


def record_value(record: Record) -> Packed:
    """`record` as plain values, private ones redacted."""
    layer = record.layer
    return (
        record.key,
        _packed_material(record),
        None
        if layer is None
        else (
            layer.descriptor.media_type,
            layer.descriptor.digest,
            layer.descriptor.size,
            layer.diff_id,
            *((layer.tree,) if layer.tree else ()),
        ),
        record.parent,
        float(record.seconds),
        float(record.created),
        record.generation,
        record.log,
        tuple((fingerprint, digest) for fingerprint, digest in record.manifests),
    )


def _packed_material(record: Record) -> bytes:
    if isinstance(record.closed, _ClosedMaterial):
        return record.closed.data
    material = redact(record.key, record.material)
    return pack(
        (
            material.scheme,
            material.name,
            tuple(_field(field) for field in material.fields),
            tuple(_field(field) for field in material.traits),
            tuple(
                (i.role, i.fingerprint, tuple(_field(field) for field in i.selector))
                for i in material.inputs
            ),
            material.salt,
        )
    )


def _field(field: Field) -> Packed:
    return (field.label, field.value, True) if field.private else (field.label, field.value)


def record_from(value: Any) -> Record:
    """The inverse of `record_value`; raises `CorruptObject` for another shape."""
    try:
        return _record(value)
    except (TypeError, ValueError) as error:
        raise CorruptObject(f"a stored record has another shape: {error}") from error


def _record(value: Any) -> Record:
    # The shape is checked by unpacking, and the types of what decides anything by hand.
    key, material, layer, parent, seconds, created, generation, log, manifests = value
    if type(seconds) is not float or type(created) is not float or type(generation) is not int:
        raise TypeError("a number is something else")
    if not (0.0 <= seconds < _INFINITE and -_INFINITE < created < _INFINITE):
        raise ValueError("a time is malformed")
    if not 0 <= generation < _LARGEST:
        raise ValueError("a generation is out of bounds")
    if type(material) is not bytes:
        raise TypeError("the material is something else")
    return Record(
        key=CacheKey(_text(key)),
        material=_ClosedMaterial(material),
        layer=None if layer is None else _layer(*layer),
        parent=ChainID(_text(parent)),
        seconds=seconds,
        created=created,
        generation=generation,
        log=None if log is None else Digest(_checked(log)),
        manifests=tuple([(Fingerprint(_text(f)), Digest(_checked(d))) for f, d in manifests]),
    )


def _checked(digest: Any) -> str:
    """A digest that names an object."""
    text = _text(digest)
    if not is_digest(text):
        raise ValueError("a digest is malformed")
    return text


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("a text is something else")
    return value


def _material(
    scheme: str,
    name: str,
    fields: _Rows,
    traits: _Rows,
    inputs: tuple[tuple[str, str, _Rows], ...],
    salt: str,
) -> KeyMaterial:
    return KeyMaterial(
        scheme=_text(scheme),
        name=_text(name),
        fields=fields_from(fields),
        traits=fields_from(traits),
        inputs=tuple(
            [
                InputMaterial(_text(role), fields_from(selector), Fingerprint(_text(fingerprint)))
                for role, fingerprint, selector in inputs
            ]
        ),
        salt=_text(salt),
    )


def fields_from(rows: Any) -> tuple[Field, ...]:
    """Fields in their stored form; raises `TypeError` for another shape."""
    for label, value, *private in rows:
        if type(label) is not str or any(type(said) is not bool for said in private):
            raise TypeError("a field is something else")
        stack = [value]
        while stack:
            item = stack.pop()
            if type(item) is tuple:
                stack.extend(item)
            elif type(item) is float:
                raise TypeError("a field holds a floating point number")
    return tuple([Field(*row) for row in rows])


def _layer(media_type: str, digest: str, size: int, diff_id: str | None, tree: str = "") -> Layer:
    if type(media_type) is not str or type(size) is not int or not 0 <= size < _LARGEST:
        raise TypeError("a layer is something else")
    if tree and not is_tree_digest(_text(tree)):
        raise ValueError("a tree digest is malformed")
    if diff_id is None:
        if not tree or digest != tree or media_type != LAYER_TAR:
            raise ValueError("a layer without an archive is named by something else")
        return Layer.opened(TreeDigest(tree), size)
    descriptor = Descriptor(media_type, Digest(_checked(digest)), size)
    return Layer(descriptor, DiffID(_checked(diff_id)), TreeDigest(tree))


def encode_record(record: Record, verifier: Verifier | None = None) -> bytes:
    """The stored form of `record`, bound to its key."""
    return seal("record", record.key, pack(record_value(record)), verifier)


def decode_record(key: CacheKey, data: bytes, verifier: Verifier | None = None) -> Record:
    """The record stored under `key`; raises `CorruptObject` for any other bytes.

    Its material stays encoded until it is needed.
    """
    record = record_from(unpack(unseal("record", key, data, verifier)))
    if record.key != key:
        raise CorruptObject(f"record {key} is of another key")
    return record


def check_record(record: Record) -> None:
    """Raises `CorruptObject` where the material of `record` is stored in another shape."""
    if record.closed is not None:
        record.closed.open()
