"""The quick way to frame key material gives the bytes of the plain one."""

from __future__ import annotations

import enum

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from layercache.model.digests import Fingerprint
from layercache.model.framing import frame, share
from layercache.model.instruction import Field
from layercache.model.keys import InputMaterial, KeyMaterial, cache_key


class Word(enum.StrEnum):
    """A text that is not exactly a `str`."""

    YES = "yes"


TEXTS = st.text(max_size=8) | st.just(Word.YES)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=12,
)
FIELDS = st.lists(
    st.builds(Field, TEXTS, VALUES) | st.builds(Field, TEXTS, VALUES).map(lambda f: share(f)[0]),
    max_size=5,
).map(tuple)
MATERIALS = st.builds(
    KeyMaterial,
    scheme=st.just("test/1"),
    name=TEXTS,
    fields=FIELDS,
    traits=FIELDS,
    inputs=st.lists(
        st.builds(InputMaterial, TEXTS, FIELDS, TEXTS.map(Fingerprint)), max_size=3
    ).map(tuple),
    salt=TEXTS,
)


def plain(fields: tuple[Field, ...]) -> tuple[object, ...]:
    return tuple((field.label, field.value) for field in fields)


@settings(max_examples=500, deadline=None)
@given(MATERIALS)
def test_keys_are_digests_of_the_frame(material: KeyMaterial) -> None:
    """A key is the BLAKE3 digest, in the context of its scheme, of the framed tuple of name,
    fields, traits, inputs and salt."""
    value = (
        material.name,
        plain(material.fields),
        plain(material.traits),
        tuple((i.role, plain(i.selector), i.fingerprint) for i in material.inputs),
        material.salt,
    )
    context = "layercache 2026-11 cache key 2: test/1"
    expected = blake3(frame(value), derive_key_context=context)  # type: ignore[arg-type]
    assert expected.hexdigest() == cache_key(material)


def test_a_frame_is_what_the_documentation_says() -> None:
    """Type, length, content; texts in UTF-8, bytes as the characters of their numbers."""
    assert frame(("user", "root")) == b"(2:s4:users4:root"
    assert frame((None, True, False, -26, b"\xff", "\xe4", ())) == (
        b"(7:ntfi-1a;b1:\xc3\xbfs1:\xc3\xa4(0:"
    )
