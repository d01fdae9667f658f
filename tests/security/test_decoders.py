"""What is stored anywhere may be anything: decoders raise one error, and soon."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

import pytest
from blake3 import blake3

from layercache import Builder, Dockerfile
from layercache.errors import CorruptObject
from layercache.model.layer_index import LayerIndex
from layercache.store.backends.memory import MemoryBackend
from layercache.store.codec import (
    check_record,
    decode_record,
    encode_record,
    pack,
    seal,
    unpack,
    unseal,
)
from layercache.store.store import Store
from layercache.store.tags import decode_tag, encode_tag
from layercache.store.trails import decode_trail, encode_trail

ROUNDS = 1_500
KEY = "0" * 64

Decode = Callable[[bytes], bytes]
"""Decodes what is sealed, signed or summed around a payload; gives it encoded again."""


def samples() -> dict[str, tuple[bytes, Decode]]:
    """Real objects of each kind: payload without its checksum, and what reads it."""
    store = Store(MemoryBackend())
    text = "FROM scratch\nCOPY a /d/a\nCOPY b /b\nLABEL x=y\n"
    Builder(store).build(
        Dockerfile.parse(text), context={"a": "1", "b": "2"}, tags=["app"], labels={"k": "v"}
    )
    names = [info.name for info in store.backend.list("")]

    def payload(kind: str, prefix: str) -> tuple[bytes, str]:
        name = next(name for name in names if name.startswith(prefix))
        bound = name.rpartition("/")[2]
        with store.backend.read(name) as content:
            return unseal(kind, bound, content.read()), bound

    record, key = payload("record", "ac/")
    trail, target = payload("trail", "trails/")
    reference = next(iter(store.references.all()))
    tag = store.references.all()[reference]
    (index,) = [n for n in names if n.startswith("index/")][:1]
    stored = store.derived.get("index", index.rpartition("/")[2].replace("-", ":", 1))
    assert stored is not None

    def read_record(data: bytes) -> bytes:
        found = decode_record(key, seal("record", key, data))  # type: ignore[arg-type]
        check_record(found)
        return unseal("record", key, encode_record(found))

    def read_trail(data: bytes) -> bytes:
        found = decode_trail(target, seal("trail", target, data))
        found.records()
        encode_trail(found)
        return b""

    def read_tag(data: bytes) -> bytes:
        encode_tag(decode_tag(reference, data))
        return b""

    def read_index(data: bytes) -> bytes:
        found = LayerIndex.decode(data + blake3(data).digest())
        list(found)
        return found.encode()[:-32]

    def read_value(data: bytes) -> bytes:
        return pack(unpack(data))

    return {
        "record": (record, read_record),
        "trail": (trail, read_trail),
        "tag": (tag, read_tag),
        "index": (stored[:-32], read_index),
        "value": (pack((1, -2, 3.5, "é", b"x", None, True, (), ((("a",),), 2))), read_value),
    }


SAMPLES = samples()


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Flipped, cut, repeated, or with a number of any size in the place of one."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] = chance.randrange(256)
        elif kind == 1:
            del changed[at : at + chance.choice((1, 4, 8, 64))]
        elif kind == 2:
            changed[at:at] = changed[at : at + chance.choice((1, 4, 32))]
        elif kind == 3:
            size = chance.choice((4, 8))
            number = chance.choice((0, 1, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1))
            changed[at : at + size] = (number % 256**size).to_bytes(size, "little")
        else:
            changed[at : at + 1] = chance.randbytes(chance.randrange(4))
    return bytes(changed)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_decoder_raises_one_error_soon(kind: str) -> None:
    """And takes only what it would have written, where that is canonical."""
    data, decode = SAMPLES[kind]
    exact = kind in {"index", "value", "record"}
    if exact:
        assert decode(data) == data
    seed = 11
    chance = random.Random(seed)
    for number in range(ROUNDS):
        text = mutated(chance, data)
        began = time.process_time()
        try:
            again = decode(text)
        except CorruptObject:
            pass
        else:
            assert not exact or kind == "record" or again == text, (number, text)
        assert time.process_time() - began < 2, (number, text)
    print(f"{ROUNDS} run, seed {seed}")


@pytest.mark.parametrize("digits", [b"+1", b" 1", b"01", b"1_0", b"-0", b"1 ", b"", b"9" * 5000])
def test_an_integer_has_one_form(digits: bytes) -> None:
    """Equal values have equal bytes, also where somebody else wrote them."""
    data = struct.pack("<II", 1, 1) + b"i" + struct.pack("<I", len(digits)) + digits
    with pytest.raises(CorruptObject):
        unpack(data)


@pytest.mark.parametrize("count", [2**16, 2**31, 2**32 - 1])
def test_a_count_of_what_is_not_there_costs_nothing(count: int) -> None:
    """Nothing is reserved for a number that only somebody states."""
    for data in (
        struct.pack("<II", count, 1) + b"i",
        struct.pack("<II", 1, count) + b"i",
        struct.pack("<III", 1, 1, count) + b"(",
        struct.pack("<II", 1, 1) + b"(" + struct.pack("<I", count),
        struct.pack("<II", 1, 1) + b"b" + struct.pack("<I", count) + b"x",
    ):
        with pytest.raises(CorruptObject):
            unpack(data)
    body = b"layercache layer index 1\n" + struct.pack("<6Q", *[count << 31] * 6)
    with pytest.raises(CorruptObject):
        LayerIndex.decode(body + blake3(body).digest())
