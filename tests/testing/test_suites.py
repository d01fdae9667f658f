"""Our own plug-ins pass the conformance suites, and each suite catches what is wrong on purpose."""

from __future__ import annotations

import attrs
import pytest

from layercache.dockerfile.instructions import Run
from layercache.executors.workspace.executor import Workspace
from layercache.model.instruction import Field
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.testing.cases import OPERATIONS
from layercache.testing.execution import ExecutorSuite
from layercache.testing.executors import CountingExecutor, MemoryExecutor, SlowExecutor
from layercache.testing.instructions import InstructionSuite
from layercache.testing.keys import KeyStrategySuite
from layercache.testing.wrong import (
    ClockedInstruction,
    ForgetfulInstruction,
    ForgetfulKeys,
    LeakyExecutor,
    PeekingExecutor,
    ShyKeys,
    UnorderedInstruction,
    caught,
)

# -- key strategies -------------------------------------------------------------------------


class TestContentKeys(KeyStrategySuite):
    def make(self):
        return ContentKeys()


class TestSaltedKeys(KeyStrategySuite):
    histories = 3

    def make(self):
        return ContentKeys(salt="pepper")


class TestChainKeys(KeyStrategySuite):
    def make(self):
        return ChainKeys()


@pytest.mark.parametrize(
    ("forgets", "test"),
    [
        ("field env A", "test_every_field_that_counts_is_in_the_key"),
        ("field workdir", "test_every_field_that_counts_is_in_the_key"),
        ("field destination", "test_every_field_that_counts_is_in_the_key"),
        ("field user", "test_every_field_that_counts_is_in_the_key"),
        ("input parent", "test_every_input_that_is_read_is_in_the_key"),
        ("input source", "test_every_input_that_is_read_is_in_the_key"),
        ("selectors", "test_role_and_selector_are_in_the_key"),
        ("traits", "test_traits_count_for_commands_only"),
    ],
)
def test_a_forgetful_strategy_is_caught(forgets, test):
    """A strategy that forgets a field or an input fails the test that is about it."""

    class Suite(KeyStrategySuite):
        histories = 1

        def make(self):
            return ForgetfulKeys(forgets)

    assert test in caught(Suite)


@pytest.mark.parametrize(
    "forgets", ["field command", "input parent", "input source", "field destination"]
)
def test_a_forgetful_strategy_breaks_the_law(forgets):
    """What a strategy forgets shows in trees, too: cached builds differ from clean ones."""

    class Suite(KeyStrategySuite):
        histories = 150

        def make(self):
            return ForgetfulKeys(forgets)

    with pytest.raises(AssertionError, match=r"cached build (left|ended)"):
        Suite().test_cached_builds_equal_clean_builds()


def test_a_shy_strategy_is_caught():
    """A strategy that counts what changes nothing fails."""

    class Suite(KeyStrategySuite):
        histories = 1

        def make(self):
            return ShyKeys()

    assert "test_nothing_else_is_in_the_key" in caught(Suite)


# -- executors ------------------------------------------------------------------------------


class TestMemoryExecutor(ExecutorSuite):
    def make(self, tmp_path):
        return MemoryExecutor()


class TestWrappers(ExecutorSuite):
    def make(self, tmp_path):
        return CountingExecutor(SlowExecutor(MemoryExecutor(), 0.001))


class TestWorkspace(ExecutorSuite):
    mounts = False

    def make(self, tmp_path):
        return Workspace(tmp_path / "workspace")


@pytest.fixture
def argument(tmp_path_factory):
    """Makes what the tests of a suite take."""
    return lambda name: tmp_path_factory.mktemp(name)


def test_a_leaky_executor_is_caught(argument):
    """Files of earlier steps that show up in later ones are found."""

    class Suite(ExecutorSuite):
        def make(self, tmp_path):
            return LeakyExecutor()

    assert "test_nothing_is_left_of_other_steps" in caught(Suite, argument)


def test_a_peeking_executor_is_caught(argument):
    """An executor that looks at what no key sees is found; of a context it can't see more than
    was selected, however it looks."""

    class Suite(ExecutorSuite):
        def make(self, tmp_path):
            return PeekingExecutor()

    found = caught(Suite, argument)
    assert "test_what_no_key_sees_changes_nothing" in found
    assert "test_only_what_was_selected_is_read" not in found


# -- instructions ---------------------------------------------------------------------------


@attrs.frozen
class Bundle:
    """An embedder's own instruction."""

    entry: str
    minify: bool = False
    note: str = ""
    name = "BUNDLE"

    def definition(self):
        return (Field("entry", self.entry), Field("minify", self.minify))


class TestBundle(InstructionSuite):
    cosmetic = frozenset({"note"})

    def instructions(self):
        return [Bundle("main.js"), Bundle("main.js", minify=True)]


class TestOperations(InstructionSuite):
    """The library's own, as far as their fields are independent of each other."""

    cosmetic = frozenset({"arguments", "private", "proxies"})

    def instructions(self):
        return [case.base for case in OPERATIONS if not case.name.startswith("mount")]

    def changed(self, instruction):
        case = next(case for case in OPERATIONS if case.base == instruction)
        changes = {**case.counts, **case.cosmetic}
        return {name: getattr(values[0], name) for name, values in changes.items()}


@pytest.mark.parametrize(
    ("values", "test"),
    [
        ([ClockedInstruction("a")], "test_its_definition_stays_the_same"),
        ([ForgetfulInstruction("a")], "test_every_field_counts"),
        (
            [UnorderedInstruction(frozenset(map(str, range(20))))],
            "test_its_key_is_the_same_in_every_process",
        ),
        ([Run("make")], "test_it_is_an_instruction"),
    ],
)
def test_a_wrong_instruction_is_caught(values, test):
    """A definition that wavers, forgets or depends on the process is found."""

    class Suite(InstructionSuite):
        def instructions(self):
            return values

    assert test in caught(Suite)


# -- all ------------------------------------------------------------------------------------


def test_a_suite_needs_a_maker(tmp_path):
    """Forgetting to say what a suite is about is an error, not a pass."""
    for suite, arguments in (
        (KeyStrategySuite, ("test_it_has_a_scheme",)),
        (ExecutorSuite, ("test_traits_are_facts", tmp_path)),
        (InstructionSuite, ("test_it_is_an_instruction",)),
    ):
        name, *rest = arguments
        with pytest.raises(TypeError, match="override"):
            getattr(suite(), name)(*rest)
