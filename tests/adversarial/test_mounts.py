"""What a command sees through a mount, its key must see."""

from __future__ import annotations

import pytest

from tests.adversarial.conftest import Build

STAGE = (
    "FROM base AS made\nRUN mkdir /d && echo x > /d/f && {make}\n"
    "FROM base\nRUN --mount=type=bind,from=made,source={source},target=/m {look} > /seen\n"
)

SEEN = {
    "times": ("/d", "touch -d '2001-01-01 00:00' {}", "/d/f", "/d", "stat -c %Y /m /m/f"),
    "the mode of the root": ("/", "chmod 711 {}", "/", "/tmp", "stat -c %a /m"),
    "names of one file": (
        "/d", "ln /d/f {}", "/d/g", "/g", "stat -c %h /m/f"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SEEN)
def test_all_that_a_mounted_stage_shows_counts(build: Build, what: str) -> None:
    """Beyond content: a stage that differs in it only has the command run again."""
    source, make, one, other, look = SEEN[what]
    build(STAGE.format(make=make.format(one), source=source, look=look))
    text = STAGE.format(make=make.format(other), source=source, look=look)
    again = build(text)

    assert again.steps[-1].decision == "miss"
    assert again.image == build(text, cache="clean").image


def test_a_mounted_stage_that_comes_out_as_before_is_no_change(build: Build) -> None:
    """A stage that ran again and gave the same leaves the command reused: times don't tell runs
    apart."""
    build(STAGE.format(make="true", source="/d", look="ls -l /m"))
    again = build(STAGE.format(make="sleep 0", source="/d", look="ls -l /m"))

    assert [step.decision for step in again.steps] == [None, "miss", None, "hit"]
