"""Conformance suite for key strategies.

class TestMine(KeyStrategySuite):
    def make(self):
        return MyKeys()
"""

from __future__ import annotations

from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.graph import Input, Step
from layercache.model.instruction import Field, Instruction
from layercache.model.keys import KeyStrategy, cache_key
from layercache.model.operations import PARENT, SOURCE
from layercache.model.selectors import EVERYTHING, Files, Nothing, Selector
from layercache.testing.cases import OPERATIONS, variants
from layercache.testing.generating import SeededChoices, any_history
from layercache.testing.laws import LawWorld, Tally, check_history

__all__ = ["KeyStrategySuite"]

_COPY = next(case.base for case in OPERATIONS if case.name == "CopyFiles")
_EXEC = next(case.base for case in OPERATIONS if case.name == "Exec")


class KeyStrategySuite:
    """The contract of every strategy: count everything that can change a result, and nothing else.

    Override `make`. `histories` is the number of random edit histories that are built with the
    strategy and compared with clean builds; `seed` is the first seed.
    """

    histories = 30
    seed = 1

    def make(self) -> KeyStrategy:
        """The strategy under test."""
        raise TypeError("a suite says how to make its strategy: override make(self)")

    def key(self, step: Step, *inputs: str) -> CacheKey:
        """The key of a step with these fingerprints."""
        found = [Fingerprint(text) for text in inputs]
        return cache_key(self.make().material(step, found))

    # -- values -----------------------------------------------------------------------------

    def test_it_has_a_scheme(self) -> None:
        """The scheme has a name and a version, and is in the material."""
        strategy = self.make()
        material = strategy.material(Step(_EXEC), ())

        assert isinstance(strategy, KeyStrategy)
        assert strategy.scheme == material.scheme
        assert strategy.scheme.strip()

    def test_it_is_pure(self) -> None:
        """The same step and inputs give the same selectors and material, whoever asks."""
        step = _step(_COPY)
        one, two = self.make(), self.make()
        inputs = [Fingerprint("1"), Fingerprint("2")]

        assert (
            one.material(step, inputs) == one.material(step, inputs) == two.material(step, inputs)
        )
        for edge in step.inputs:
            selector = one.selector(step, edge)
            assert isinstance(selector, Selector)
            assert selector == two.selector(step, edge)

    def test_every_field_that_counts_is_in_the_key(self) -> None:
        """For each change in the catalogue that may change a result, the key is another one."""
        for variant in variants():
            if variant.counts:
                before, after = (
                    self.key(Step(instruction)) for instruction in (variant.before, variant.after)
                )
                assert before != after, f"{variant.label} is not in the key"

    def test_nothing_else_is_in_the_key(self) -> None:
        """What can't change a result, the place of a step included, leaves the key alone."""
        for variant in variants():
            if not variant.counts:
                before, after = (
                    self.key(Step(instruction)) for instruction in (variant.before, variant.after)
                )
                assert before == after, f"{variant.label} is in the key"
        step = Step(_EXEC)
        assert self.key(step) == self.key(Step(_EXEC, bypass=True))

    def test_every_input_that_is_read_is_in_the_key(self) -> None:
        """Another fingerprint of an input gives another key, unless the selector is nothing."""
        for instruction in (_COPY, _EXEC):
            step = _step(instruction)
            fingerprints = ["1", "2"]
            for place, edge in enumerate(step.inputs):
                if isinstance(self.make().selector(step, edge), Nothing):
                    continue
                changed = [*fingerprints]
                changed[place] = "3"
                assert self.key(step, *fingerprints) != self.key(step, *changed), (
                    f"the content of the input {edge.role!r} is not in the key of "
                    f"{instruction.name}"
                )
            assert self.key(step, "1", "2") != self.key(step, "2", "1")

    def test_role_and_selector_are_in_the_key(self) -> None:
        """The same content read in another role, or by another selector, is another key."""
        base = _step(_COPY)
        parent, source = base.inputs
        for edge in (
            Input("other", source.vertex, source.selector),
            Input(source.role, source.vertex, Files(("b",))),
            Input(source.role, source.vertex, EVERYTHING),
        ):
            step = Step(_COPY, (parent, edge))
            assert self.key(base, "1", "2") != self.key(step, "1", "2")

    def test_traits_count_for_commands_only(self) -> None:
        """Traits of the executor are in the keys of steps that execute commands."""
        traits = ((), (Field("os", "a"),), (Field("os", "b"),), (Field("abi", "a"),))
        runs = {self.key(Step(_EXEC, traits=given)) for given in traits}
        copies = {self.key(Step(_COPY, traits=given)) for given in traits}

        assert len(runs) == len(traits)
        assert len(copies) == 1

    # -- laws -------------------------------------------------------------------------------

    def test_cached_builds_equal_clean_builds(self) -> None:
        """Over random edit histories, on two machines that share a store."""
        tally = self._check(mishaps=0, unstable=False)

        assert tally.hits > tally.histories

    def test_cached_builds_equal_clean_builds_though_the_store_decays(self) -> None:
        """Records and blobs are lost or damaged between the builds; no result is wrong."""
        self._check(mishaps=50, unstable=False)

    def test_two_histories_never_mix(self) -> None:
        """Commands give another result each time: layers still lie on what they were made on."""
        self._check(mishaps=50, unstable=True)

    def _check(self, *, mishaps: int, unstable: bool) -> Tally:
        total = Tally()
        for seed in range(self.seed, self.seed + self.histories):
            choices = SeededChoices(seed)
            history = any_history(choices, 4)
            world = LawWorld(self.make(), machines=2, unstable=seed if unstable else None)
            check_history(history, world, choices, mishaps=mishaps)
            total.add(world.tally)
        return total


def _step(instruction: Instruction) -> Step:
    return Step(instruction, (Input(PARENT, 0), Input(SOURCE, 1, Files(("a",)))))
