"""States: stacks of layers identified by their chain ID, of any depth."""

from __future__ import annotations

import copy
import pickle

from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import ChainID, next_chain_id
from layercache.testing.driving import made_layer


def test_the_chain_id_is_that_of_the_specification():
    """One layer: its diff ID. More: the digest of both IDs with a blank between."""
    one, two = made_layer("1"), made_layer("2")
    state = SCRATCH.plus(one)
    assert str(state.chain_id) == str(one.archive)
    assert state.plus(two).chain_id == next_chain_id(ChainID(one.id), two.id)
    assert state.plus(two).layers == (one, two)


def test_nothing_on_top_is_the_same_state():
    """A step without a layer leaves the state itself."""
    state = SCRATCH.plus(made_layer("1"))
    assert state.plus(None) is state


def test_states_are_equal_by_content():
    """However they came about, and as members of sets."""
    one, two = (SCRATCH.plus(made_layer("1")) for _ in range(2))
    assert one == two
    assert len({one, two}) == 1
    assert one != SCRATCH.plus(made_layer("2"))


def test_a_very_deep_state_travels():
    """Ten thousand layers are pickled and copied without recursion, upon any bottom."""
    for bottom in (SCRATCH, State(chain_id=ChainID("sha256:named"))):
        state = bottom
        for number in range(10_000):
            state = state.plus(made_layer(str(number)))
        for twin in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
            assert twin == state
            assert twin.depth == state.depth
            assert twin.layers == state.layers
