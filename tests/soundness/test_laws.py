"""The laws of caching over random edit histories: cached builds equal clean ones, and two
histories never mix, whatever happens to the store."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.model.keys import KeyStrategy
from layercache.model.observations import ABSENT, CONTENT, FOUND, LINK, LISTING
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.testing.executors import MemoryExecutor
from layercache.testing.generating import SeededChoices, any_history
from layercache.testing.laws import LawBroken, LawWorld, Tally, check_history
from layercache.testing.layers import Layers
from layercache.testing.memory import MemoryFiles
from layercache.testing.strategies import edit_histories
from layercache.testing.watching import any_watched_history
from layercache.testing.wrong import ForgetfulKeys
from tests.tally import SEED, law, tell

SUITES: dict[str, tuple[int, Callable[[], KeyStrategy], int, bool, str]] = {
    # name: (histories, keys, mishaps in per cent, unstable, trace)
    "content": (320, ContentKeys, 0, False, "off"),
    "content, decaying store": (160, ContentKeys, 45, False, "off"),
    "content, unstable commands": (120, ContentKeys, 0, True, "off"),
    "content, unstable, decaying": (130, ContentKeys, 45, True, "off"),
    "content, traced": (120, ContentKeys, 0, False, "auto"),
    "content, traced, decaying": (100, ContentKeys, 45, False, "auto"),
    "content, unstable, traced": (150, ContentKeys, 0, True, "auto"),
    "content, unstable, traced, decaying": (100, ContentKeys, 45, True, "auto"),
    "chain": (50, ChainKeys, 0, False, "off"),
    "chain, unstable, decaying": (120, ChainKeys, 45, True, "off"),
}


WATCHED = {
    # name: (histories, mishaps in per cent, unstable)
    "watched": (150, 0, False),
    "watched, unstable commands": (200, 0, True),
    "watched, unstable, decaying": (100, 45, True),
}
"""Histories in which nearly every command is reused, or not, by what it looked at."""

FORGOTTEN = {
    "absent": ABSENT,
    "found": FOUND,
    "link": LINK,
    "content": CONTENT,
    "listing": LISTING,
}
"""What a tracer may fail to say, as far as the commands of `layercache.testing` can show it: none
of them tells a time, which the tests of the tracer itself cover."""


def test_there_are_enough_histories():
    """The suites below go through more than a thousand histories."""
    assert sum(histories for histories, *_ in SUITES.values()) >= 1000


@pytest.mark.parametrize("name", SUITES)
def test_histories(name):
    """Two machines build the versions of a project in turn over one store, in old and new
    processes, from values and from text: each build is what a clean build would be, or, where
    commands give another result each time, each layer lies on what it was made on."""
    histories, make_keys, mishaps, unstable, trace = SUITES[name]
    started, total = time.perf_counter(), Tally()
    for seed in range(SEED, SEED + histories):
        choices = SeededChoices(seed)
        history = any_history(choices, 3)
        world = LawWorld(make_keys(), machines=2, unstable=seed if unstable else None, trace=trace)
        check_history(history, world, choices, mishaps=mishaps)
        total.add(world.tally)
    more = f"; {total.builds} builds, {total.hits} hits ({total.narrow} on another parent)"
    tell(f"histories, {name}", total.histories, time.perf_counter() - started, more=more)

    assert total.histories == histories
    assert total.hits > total.histories
    assert total.misses > total.histories
    assert total.failed < total.builds / 4
    assert (total.traced > 0) == (trace == "auto")


@pytest.mark.parametrize("name", WATCHED)
def test_watched_histories(name):
    """The same laws where steps are reused by traces: a layer that was made on another state is
    one that its command gives on this one, too, with the same choices."""
    histories, mishaps, unstable = WATCHED[name]
    started, total = time.perf_counter(), Tally()
    for seed in range(SEED, SEED + histories):
        total.add(_watched(seed, unstable=unstable, mishaps=mishaps))
    more = f"; {total.builds} builds, {total.hits} hits ({total.traced} by a trace)"
    tell(f"histories, {name}", total.histories, time.perf_counter() - started, more=more)

    assert total.histories == histories
    assert total.traced > total.histories
    assert total.misses > total.histories
    assert not total.failed


def _watched(seed: int, *, unstable: bool, mishaps: int = 0) -> Tally:
    choices = SeededChoices(seed)
    world = LawWorld(machines=2, unstable=seed if unstable else None, trace="auto")
    check_history(any_watched_history(choices, 3), world, choices, mishaps=mishaps)
    return world.tally


@pytest.mark.parametrize("unstable", [False, True], ids=["faithful", "unstable"])
@pytest.mark.parametrize("what", FORGOTTEN)
def test_the_law_bites_where_a_trace_says_too_little(monkeypatch, what, unstable):
    """A tracer that forgets one kind of observation is found, whatever else it says, also where
    each command gives something else every time."""

    def forgetful(self, path, bits):
        note(self, path, bits)
        if path in self._seen:
            self._seen[path] &= ~FORGOTTEN[what]
            if not self._seen[path]:
                del self._seen[path]

    note = MemoryFiles._note
    monkeypatch.setattr(MemoryFiles, "_note", forgetful)

    def run():
        for seed in range(SEED, SEED + 1_000):
            _watched(seed, unstable=unstable)

    with pytest.raises(LawBroken):
        run()


@law(60)
@given(edit_histories(3), st.randoms(use_true_random=False))
def test_histories_that_shrink(history, random):
    """The same law, drawn by Hypothesis."""
    check_history(history, LawWorld(machines=2), SeededChoices(random.randint(0, 1 << 30)))


def test_the_law_bites():
    """A strategy that forgets what a command is, is found by the same law."""

    def run():
        for seed in range(SEED, SEED + 200):
            choices = SeededChoices(seed)
            world = LawWorld(ForgetfulKeys("field command"))
            check_history(any_history(choices, 3), world, choices)

    with pytest.raises(LawBroken, match="build 1"):
        run()


# -- cutoff, machines, sharing --------------------------------------------------------------


def test_a_step_that_comes_out_as_before_leaves_the_rest(layers):
    """A comment in a source changes what is compiled from, and nothing of what is used later."""
    text = """\
    FROM scratch AS build
    COPY src /src
    RUN upper /src > /object
    FROM scratch
    COPY --from=build /object /
    RUN link
    RUN check
    """
    layers.build(text, {"src": "code"})
    layers.edit("src", "CODE")
    again = layers.build()

    again.assert_rebuilt("COPY src /src", because="src").assert_rebuilt("RUN upper /src > /object")
    again.assert_reused("COPY --from=build /object /", "RUN link", "RUN check")
    assert again.executions == ["upper /src > /object"]


def test_a_command_that_changes_nothing_leaves_the_rest(layers):
    """Another command that leaves the same files: what follows is reused."""
    text = "FROM scratch\nRUN write /f 1\nRUN build\n"
    layers.build(text, {})
    layers.build(text.replace("write /f 1", "echo 0 > /f && write /f 1"))
    again = layers.build(text.replace("write /f 1", "write /f 1 && true"))

    assert again.decision("RUN build") == "hit"


def test_two_machines_share_their_work():
    """What one has built, the other reuses: the same keys, layers and image."""
    one = Layers()
    text = "FROM scratch\nCOPY . .\nRUN build\nRUN check\n"
    files = {"a": "1", "b/c": "2"}
    built = one.build(text, files)
    two = Layers(store=one.store)
    reused = two.build(text, files)

    reused.assert_nothing_executed()
    assert two.executions == []
    assert reused.result.image == built.result.image


def test_a_change_undone_is_a_hit(layers):
    """An older version of a file finds the records of its time."""
    text = "FROM scratch\nCOPY a /a\nRUN build\n"
    for content in ("1", "2"):
        layers.build(text, {"a": content})
    layers.edit("a", "1")

    layers.build().assert_nothing_executed()


def test_what_the_world_outside_says_is_no_part_of_a_key():
    """The assumption, named: a command that asks the network is reused though the answer changed,
    until the cache is bypassed, and the next plain build then takes the newer result."""
    executor = MemoryExecutor(world={"index": b"1"})
    layers = Layers(executor=executor)
    text = "FROM scratch\nRUN fetch index > /index\n"
    layers.build(text, {})
    executor.world["index"] = b"2"
    assert layers.build().files["index"].content == b"1"

    layers.build(no_cache=True).assert_rebuilt("RUN fetch index > /index", because="no-cache")
    again = layers.build().assert_nothing_executed()
    assert again.files["index"].content == b"2"


def test_a_same_size_edit_shows_in_the_time():
    """A file of the same size and another content has another time in the image, so that checks
    by time and size notice; whatever a command makes is not older."""
    layers = Layers()
    text = "FROM scratch\nCOPY m.py /m.py\nRUN write /m.pyc x\n"
    one = layers.build(text, {"m.py": "a = 1"}).files
    two = layers.build(text, {"m.py": "a = 2"}).files

    assert one["m.py"].mtime != two["m.py"].mtime
    assert one["m.pyc"].mtime >= one["m.py"].mtime
    assert two["m.pyc"].mtime >= two["m.py"].mtime
