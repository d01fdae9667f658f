"""What travels to the helper process arrives as it was."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.executors.rootfs.inside import wire as _wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_values_come_back(value: object) -> None:
    """Decoding undoes encoding, for every value."""
    assert value == _wire.decode(_wire.encode(value))  # type: ignore[arg-type]


def test_undecodable_names_come_back() -> None:
    """Names of files that are no UTF-8 survive."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    assert name == _wire.decode(_wire.encode(name))


@given(st.lists(VALUES, max_size=4))
def test_frames_keep_their_order(values: list[object]) -> None:
    """Frames arrive one by one; the end of the stream is None."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for value in values:
            _wire.send(ours, {"value": value})  # type: ignore[dict-item]
        ours.shutdown(socket.SHUT_WR)
        assert [{"value": v} for v in values] == [_wire.receive(theirs) for _ in values]
        assert _wire.receive(theirs) is None


def test_what_is_no_plain_value_is_refused() -> None:
    """Objects don't travel."""
    with pytest.raises(TypeError, match="can't send"):
        _wire.encode(object())  # type: ignore[arg-type]
