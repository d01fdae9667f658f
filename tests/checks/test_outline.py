"""Targets and outlines."""

from __future__ import annotations

import pytest

from layercache.checks import outline_of, targets_of
from layercache.errors import UsageError

TEXT = """\
# VERSION is the release to build.
ARG VERSION=1
# unrelated
ARG OTHER=2

# base holds what all need.
FROM debian:$VERSION AS base
ARG MODE=fast
RUN --mount=type=secret,id=token,required true

FROM scratch AS unrelated
ARG UNUSED
RUN --mount=type=secret,id=other true

FROM base
# COMMIT goes into the label.
ARG COMMIT
ARG VERSION
RUN --mount=type=ssh --mount=type=secret,id=token true
"""


def test_targets_have_names_and_descriptions() -> None:
    found = targets_of(TEXT)
    assert [("base", "holds what all need.", False), ("unrelated", "", False), ("", "", True)] == [
        (each.name, each.description, each.default) for each in found
    ]


def test_an_outline_has_what_the_target_needs_and_nothing_else() -> None:
    found = outline_of(TEXT, build_args={"COMMIT": "abc"})
    assert {
        "VERSION": ("1", "is the release to build."),
        "MODE": ("fast", ""),
        "COMMIT": ("abc", "goes into the label."),
    } == {each.name: (each.value, each.description) for each in found.arguments}
    assert [("token", True)] == [(each.name, each.required) for each in found.secrets]
    assert [("default", False)] == [(each.name, each.required) for each in found.ssh]


def test_an_outline_of_another_target() -> None:
    found = outline_of(TEXT, target="Unrelated")
    assert ["UNUSED"] == [each.name for each in found.arguments]
    assert ["other"] == [each.name for each in found.secrets]


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"no stage bsae \(did you mean base\?\)"):
        outline_of(TEXT, target="bsae")
