"""What a command sees through a mount, its key must see."""

from __future__ import annotations

import pytest

from tests.adversarial.conftest import Build

STAGE = (
    "FROM base AS made\nRUN mkdir /d && echo x > /d/f && {make}\n"
    "FROM base\nRUN --mount=type=bind,from=made,source={source},target=/m {look} > /seen\n"
)

SEEN = {
    "times": ("/d", "touch -d '2001-01-01 00:00:00' {}", "/d/f", "/d", "stat -c %Y /m /m/f"),
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


A = "--mount=type=bind,source=a,target=/m"
B = "--mount=type=bind,source=b,target=/m"
TMPFS = "--mount=type=tmpfs,target=/m"


@pytest.mark.parametrize(
    ("mounts", "seen"),
    [((A, TMPFS), b""), ((TMPFS, A), b"f\n"), ((A, B), b"g\n"), ((B, A), b"f\n")],
    ids=["empty over a", "a over empty", "b over a", "a over b"],
)
def test_the_last_of_two_mounts_at_one_place_shows(
    build: Build, mounts: tuple[str, str], seen: bytes
) -> None:
    """And their order counts: the other way round is another command."""
    context = {"a/f": "1", "b/g": "2"}
    text = "FROM base\nRUN {} {} ls /m > /seen\n"
    build(text.format(*reversed(mounts)), context)
    result = build(text.format(*mounts), context)

    assert result.steps[-1].decision == "miss"
    with result.tree().open(b"seen") as content:
        assert content.read() == seen


def test_the_order_of_mounts_at_different_places_does_not_count(build: Build) -> None:
    """Whatever kinds they are."""
    context = {"a/f": "1", "b/g": "2"}
    mounts = [A, B.replace("/m", "/l"), "--mount=type=cache,target=/c", TMPFS.replace("/m", "/k")]
    text = "FROM base\nRUN {} ls /m /l > /seen\n"
    build(text.format(" ".join(mounts)), context)
    again = build(text.format(" ".join(reversed(mounts))), context)

    assert again.steps[-1].decision == "hit"


def test_files_of_the_container_have_the_times_of_layers(build: Build) -> None:
    """What a command sees of /etc does not tell when it ran."""
    text = "FROM base\nRUN stat -c '%n %Y' /etc/hosts /etc/hostname /etc/resolv.conf > /seen\n"

    with build(text).tree().open(b"seen") as content:
        assert content.read().split()[1::2] == [b"1600000000"] * 3
