"""Stored forms: they come back, equal values are equal bytes, and the format stays."""

from __future__ import annotations

import io
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import CorruptObject
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import (
    CacheKey,
    ChainID,
    DiffID,
    Digest,
    Fingerprint,
    TreeDigest,
    check_digest,
)
from layercache.model.instruction import Field
from layercache.model.keys import InputMaterial, KeyMaterial
from layercache.model.private import is_redacted, redact, redact_fields
from layercache.model.records import Record
from layercache.store.backend import check_name
from layercache.store.backends.memory import MemoryBackend
from layercache.store.blobs import blob_name
from layercache.store.codec import (
    check_record,
    decode_record,
    encode_record,
    pack,
    record_from,
    record_value,
    seal,
    unpack,
    unseal,
)
from layercache.store.store import Store
from layercache.store.trails import (
    Fact,
    Trail,
    TrailStep,
    beginnings_of,
    decode_trail,
    definition_of,
    encode_trail,
)
from tests.narrow import layer_of

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple))

RECORD = Record(
    key=CacheKey("ab" * 32),
    material=KeyMaterial(
        scheme="content/1",
        name="RUN",
        fields=(Field("command", ("a", "b")), Field("ARG X", "value", private=True)),
        traits=(Field("platform", "linux/amd64"),),
        inputs=(InputMaterial("parent", (Field("selector", "everything"),), Fingerprint("f")),),
        salt="secret salt",
    ),
    layer=Layer(
        Descriptor(LAYER_TAR, Digest("sha256:" + "1" * 64), 42), DiffID("sha256:" + "2" * 64)
    ),
    parent=ChainID("sha256:" + "3" * 64),
    seconds=1.5,
    created=1e9,
    generation=2,
    log=Digest("sha256:" + "4" * 64),
    manifests=((Fingerprint("f"), Digest("sha256:" + "5" * 64)),),
)


TREE = TreeDigest("blake3:" + "6" * 64)


@pytest.mark.parametrize(
    "layer",
    [None, Layer.opened(TREE, 42), attrs.evolve(layer_of(RECORD), tree=TREE), RECORD.layer],
    ids=["none", "open", "sealed", "by its archive"],
)
def test_layers_come_back(layer):
    """Open, with an archive, and identified by the archive alone."""
    record = attrs.evolve(RECORD, layer=layer)
    assert decode_record(record.key, encode_record(record)).layer == layer


@pytest.mark.parametrize(
    "row",
    [
        (LAYER_TAR, TREE, 42, None),  # open, of nothing
        (LAYER_TAR, "sha256:" + "1" * 64, 42, None, TREE),  # open, but named by an archive
        (LAYER_TAR, TREE, 42, "sha256:" + "1" * 64, TREE),  # an archive named by the tree
        ("text/plain", TREE, 42, None, TREE),
        (LAYER_TAR, TREE, 42, None, "blake3:" + "7" * 64),
        (LAYER_TAR, "sha256:" + "1" * 64, 42, "sha256:" + "2" * 64, "sha256:" + "2" * 64),
    ],
)
def test_a_layer_of_two_minds_is_damage(row):
    stored = record_value(RECORD)
    assert isinstance(stored, tuple)
    value = list(stored)
    value[2] = row
    with pytest.raises(CorruptObject):
        record_from(tuple(value))


@given(values)
def test_values_come_back(value):
    """`unpack` undoes `pack`, types included."""
    again = unpack(pack(value))

    assert repr(value) == repr(again)
    assert pack(again) == pack(value)


@given(values, values)
def test_different_values_are_different_bytes(one, other):
    """The form is injective."""
    assert (pack(one) == pack(other)) == (repr(one) == repr(other))


@given(st.binary(max_size=80))
def test_wild_bytes_are_refused(data):
    """Nothing but `CorruptObject` comes of bytes that nobody wrote."""
    try:
        value = unpack(data)
    except CorruptObject:
        return
    assert isinstance(pack(value), bytes)


@given(values, st.data())
def test_cut_values_are_refused(value, data):
    """No beginning of a stored value is a stored value."""
    stored = pack(value)
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(CorruptObject):
        unpack(stored[:cut])


def test_deep_values_need_no_stack():
    """A nesting of 100,000 packs and unpacks."""
    value: Any = ()
    for _ in range(100_000):
        value = (value,)
    stored = pack(value)

    assert pack(unpack(stored)) == stored


def test_an_envelope_opens_under_its_kind_and_name_only():
    """Another kind, name or byte does not open it."""
    sealed = seal("fact", "name", b"payload")

    assert unseal("fact", "name", sealed) == b"payload"
    for kind, name in (("derived", "name"), ("fact", "nam"), ("fact", "namep")):
        with pytest.raises(CorruptObject):
            unseal(kind, name, sealed)


def test_a_record_comes_back_without_private_values():
    """All of it but what is private, which compares equal in its redacted form."""
    again = decode_record(RECORD.key, encode_record(RECORD))

    assert again == attrs.evolve(RECORD, material=redact(RECORD.key, RECORD.material))
    assert is_redacted(again.material.fields[1].value)
    assert redact(RECORD.key, again.material) == again.material
    assert b"secret salt" not in encode_record(RECORD)
    assert encode_record(again) == encode_record(RECORD)


def test_redacted_values_tell_nothing_across_records():
    """Equal private values differ under another key or label."""
    fields = (Field("a", "x", private=True), Field("b", "x", private=True))
    seen = {
        field.value
        for key in ("1" * 64, "2" * 64)
        for field in redact_fields(CacheKey(key), fields)
    }

    assert len(seen) == 4


def test_other_shapes_are_refused():
    """A sealed value that is no record, and a record that names another key."""
    key = RECORD.key
    for value in (None, 1, (), (key,) * 9, "text", (key, *(None,) * 8)):
        with pytest.raises(CorruptObject):
            decode_record(key, seal("record", key, pack(value)))
    other = CacheKey("cd" * 32)
    moved = unseal("record", key, encode_record(RECORD))
    with pytest.raises(CorruptObject):
        decode_record(other, seal("record", other, moved))


def test_material_of_another_shape_says_nothing():
    """It decides nothing: the record stands, and is found by whoever looks for damage."""
    parts = list(unpack(unseal("record", RECORD.key, encode_record(RECORD))))
    for wrong in (b"", b"wild", pack(None), pack((1, 2)), pack((1,) * 6), pack(("",) * 5 + (1,))):
        parts[1] = wrong
        record = decode_record(RECORD.key, seal("record", RECORD.key, pack(tuple(parts))))
        with pytest.raises(CorruptObject):
            check_record(record)
        assert record.layer == RECORD.layer
        assert record.material == KeyMaterial("", "", ())
    parts[1] = None
    with pytest.raises(CorruptObject):
        decode_record(RECORD.key, seal("record", RECORD.key, pack(tuple(parts))))


def test_a_stored_record_is_kept_as_it_is():
    """Stored again, unopened or opened, a record has the same bytes."""
    stored = encode_record(RECORD)
    again = decode_record(RECORD.key, stored)

    assert again.closed is not None
    assert encode_record(again) == stored
    assert "RUN" in repr(again)
    assert again.closed is None
    assert encode_record(again) == stored
    assert encode_record(attrs.evolve(again, generation=3)) != stored


def test_a_trail_survives_a_damaged_record_in_it():
    """The record is left out, the rest stays."""
    step = TrailStep(stage=0, index=1, op="RUN", text="RUN a", key=RECORD.key, record=RECORD)
    wrong = attrs.evolve(step, key=CacheKey("cd" * 32))
    trail = Trail("t", (step, wrong), (Fact("s", "d", Fingerprint("f")),))
    again = decode_trail("t", encode_trail(trail))

    assert [s.record is not None for s in again.steps] == [True, False]
    assert again.facts == trail.facts
    labelled = attrs.evolve(trail, labels=(("ci", "nightly"), ("team", "")))
    assert decode_trail("t", encode_trail(labelled)).labels == labelled.labels
    assert list(again.records()) == [RECORD.key]
    with pytest.raises(CorruptObject):
        decode_trail("u", encode_trail(trail))


def test_beginnings_are_shared_by_targets_that_begin_alike():
    """The longest first; what two targets share is named up to at least its half."""
    rows = [(0, number, "RUN", f"RUN {number}") for number in range(20)]
    other = [*rows[:9], *((0, n, "RUN", "other") for n in range(9, 40))]

    assert [len(beginnings_of(rows[:n])) for n in (0, 1, 2, 3, 4, 20)] == [0, 0, 1, 1, 2, 4]
    assert beginnings_of(rows)[0] == definition_of(rows[:16])
    shared = [name for name in beginnings_of(other) if name in beginnings_of(rows)]
    assert shared == [definition_of(rows[:n]) for n in (8, 4, 2)]


def test_the_format_stays():
    """Frozen forms: a change of any is a change of the format's version."""
    assert FROZEN["value"] == pack((None, True, False, -12, 1.5, "ä", b"\0", ())).hex()
    assert FROZEN["record"] == encode_record(RECORD)[:38].hex()
    assert FROZEN["definition"] == definition_of([(0, 1, "RUN", "RUN a")])


FROZEN = {
    "value": (
        "0900000005000000286e7466696473622808000000030000000200000001000000000000002d3132"
        "000000000000f83fc3a400"
    ),
    "record": ("6c636f010000018666ecc9f8163bac62d8a928a7e993ce18777602c19303854677f0e8fa7476"),
    "definition": ("2aac20ca8e370cdbda9e0682fc0282c705229f1965a32745b6251086ed59a611"),
}


ODD = (
    None, True, -1, 1 << 63, 10**30, float("nan"), float("inf"), -1.0, "", "../../x", "\udcff",
    "sha256:" + "Z" * 64, "sha256:" + "0" * 63, b"", b"x", (), ("a",), (None, None), ((),),
)  # fmt: skip


def _mutations(value):
    """`value` with each of its parts, at any depth, replaced by each odd thing."""
    yield from ODD
    if isinstance(value, tuple):
        for number, part in enumerate(value):
            for changed in _mutations(part):
                yield (*value[:number], changed, *value[number + 1 :])


def test_a_record_of_any_shape_is_one_or_is_damaged():
    """Whoever can write can seal what he likes: nothing of it fails where it is used."""
    stored = unpack(unseal("record", RECORD.key, encode_record(RECORD)))
    good = 0
    for value in _mutations((*stored[:1], unpack(stored[1]), *stored[2:])):
        if isinstance(value, tuple) and len(value) > 1:
            value = (value[0], pack(value[1]), *value[2:])
        data = seal("record", RECORD.key, pack(value))
        try:
            record = decode_record(RECORD.key, data)
        except CorruptObject:
            continue
        good += 1
        json.dumps([record.seconds, record.created, record.generation], allow_nan=False)
        for digest in (record.log, *(digest for _, digest in record.manifests)):
            assert digest is None or check_name(blob_name(digest))
        if record.layer is not None:
            assert check_name(blob_name(record.layer.descriptor.digest))
            if record.layer.diff_id is not None:
                check_digest(record.layer.diff_id)
            assert 0 <= record.layer.descriptor.size < 1 << 62
        assert isinstance(record.material.salt, str)
        encode_record(record)
    assert good > 100  # material of another shape decides nothing


def test_a_trail_of_any_shape_is_one_or_is_damaged():
    """As a record; one in it that is no record is left out."""
    step = TrailStep(
        stage=0,
        index=1,
        op="RUN",
        text="RUN x",
        key=RECORD.key,
        chain_id=ChainID("c"),
        record=RECORD,
        fields=(Field("a", 1),),
    )
    trail = Trail("t", (step,), (Fact("c", "s", Fingerprint("f")),), (("label", "x"),))
    for value in _mutations(unpack(unseal("trail", "t", encode_trail(trail)))):
        try:
            found = decode_trail("t", seal("trail", "t", pack(value)))
        except CorruptObject:
            continue
        assert set(found.records()) <= {RECORD.key}
        assert all(type(step.stage) is int and type(step.text) is str for step in found.steps)
        assert sorted(found.facts, key=lambda fact: (fact.subject, fact.selector)) is not None
        encode_trail(found)


@pytest.mark.parametrize("value", [10**30, 1 << 40, "text", (("a", b""), b"")])
def test_a_reference_of_another_shape_is_none(value):
    """A number in the place of its bytes is not so many bytes."""
    store = Store(MemoryBackend())
    store.references.put("x", b"fine")
    (name,) = [info.name for info in store.objects.medium.list("refs/")]
    store.objects.medium.write(name, io.BytesIO(seal("reference", name, pack(("x", value)))))
    fresh = Store(store.backend)
    assert fresh.references.all() == {}
    assert fresh.references.get("x") is None
