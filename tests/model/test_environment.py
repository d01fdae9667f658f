"""Environments and the mapping below them: laws, against a plain dictionary."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from layercache._base.persistent_map import PersistentMap
from layercache.model.environment import Environment, is_large
from layercache.model.operations import Exec


class Colliding(str):
    """A text whose hash says next to nothing."""

    def __hash__(self) -> int:
        return len(self) % 2


NAMES = st.sampled_from(["", "a", "b", "aa", "bb", "ccc"]) | st.text(max_size=3)
CHANGES = st.lists(st.tuples(NAMES, st.none() | st.text(max_size=3)), max_size=40)


@given(CHANGES, st.booleans())
def test_a_persistent_map_is_a_dictionary(
    changes: list[tuple[str, str | None]], colliding: bool
) -> None:
    known: dict[str, str] = {}
    found: PersistentMap[str] = PersistentMap()
    before: list[tuple[PersistentMap[str], dict[str, str]]] = []
    for name, value in changes:
        key = Colliding(name) if colliding else name
        before.append((found, dict(known)))
        if value is None:
            known.pop(key, None)
            found = found.without(key)
        else:
            known[key] = value
            found = found.with_item(key, value)
        assert found == known
        assert len(found) == len(known)
        assert sorted(found) == sorted(known)
    assert all(old == was for old, was in before)
    assert PersistentMap(known) == known


@given(CHANGES, st.integers(0, 40))
def test_an_environment_is_its_pairs(
    changes: list[tuple[str, str | None]], summed_from: int
) -> None:
    """However it came to be: in which order things were set, and when the sum was first asked."""
    known: dict[str, str] = {}
    found = Environment()
    for number, (name, value) in enumerate(changes):
        if number == summed_from:
            assert found.digest
        known.pop(name, None)
        known[name] = value or ""
        found = found.with_variable(name, value or "")
        if number >= summed_from:
            assert found.digest == Environment(known.items()).digest
    assert tuple(found) == tuple(known.items())
    assert found.size == sum(len(name) + len(value) for name, value in known.items())
    again = Environment(known.items())
    assert found == again
    assert hash(found) == hash(again)
    assert found.digest == again.digest
    assert pickle.loads(pickle.dumps(found)) == found


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "1"])), max_size=5))
def test_other_pairs_are_another_environment(pairs: list[tuple[str, str]]) -> None:
    one = dict(pairs)
    for other in (
        dict(reversed(one.items())),
        {**one, "e": ""},
        {name: value + "1" for name, value in one.items()},
    ):
        same = tuple(one.items()) == tuple(other.items())
        digests = {Environment(found.items()).digest for found in (one, other)}
        assert (len(digests) == 1) == same


def test_a_large_environment_counts_as_one_value() -> None:
    """Given as pairs or grown, it is in the key the same; any change of it is another key."""
    pairs = tuple((f"V{i}", "1") for i in range(257))
    grown = Environment()
    for name, value in pairs:
        grown = grown.with_variable(name, value)
    assert is_large(pairs)
    assert is_large(grown)
    assert not is_large(pairs[1:])
    assert is_large((("A", "x" * 40_000),))
    one, other = Exec(args=("x",), env=pairs), Exec(args=("x",), env=grown)
    assert one.definition() == other.definition()
    fields = {field.label: field for field in one.definition()}
    assert fields["environment"].private
    for changed in (pairs[::-1], (*pairs[:-1], ("V256", "2")), (*pairs, ("X", ""))):
        assert Exec(args=("x",), env=changed).definition() != one.definition()
