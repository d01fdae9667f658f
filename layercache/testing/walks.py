"""Conformance suite for walkers.

class TestMine(WalkerSuite):
    def make(self):
        return MyWalker()
"""

from __future__ import annotations

from collections.abc import Sequence

from layercache._base.classes import evolve
from layercache.errors import UsageError
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.graph import Base, Graph, Input, Step
from layercache.model.keys import KeyStrategy
from layercache.model.operations import PARENT
from layercache.model.selectors import EVERYTHING, Everything
from layercache.model.sources import ContextSource
from layercache.model.task import BoundInput, Task
from layercache.solver.protocol import (
    Answer,
    AskFingerprint,
    Decision,
    Executed,
    Fingerprinted,
    Found,
    Walk,
    Walker,
)
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.testing.driving import Driver, Say, World, any_graph, chain_graph, reference
from layercache.testing.generating import SeededChoices

__all__ = ["WalkerSuite", "check_links"]


class WalkerSuite:
    """The contract of every walker: decide alike in any order, ask once, never mix histories.

    Override `make`. `graphs` is the number of random graphs that each law is checked on.
    """

    graphs = 60
    seed = 1

    def make(self) -> Walker:
        """The walker under test."""
        raise TypeError("a suite says how to make its walker: override make(self)")

    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.graphs)

    def _drive(
        self,
        graph: Graph,
        world: World,
        seed: int | None = None,
        keys: KeyStrategy | None = None,
        **options: int,
    ) -> tuple[Driver, Sequence[Decision]]:
        walk = self.make().start(graph, keys or ContentKeys())
        choices = None if seed is None else SeededChoices(seed)
        driver = Driver(
            walk,
            world,
            choices,
            declines=bool(options.get("declines")),
            losses=options.get("losses", 0),
        )
        return driver, driver.run()

    def _half_known(self, seed: int, graph: Graph, *, unstable: bool = False) -> World:
        """A world whose store knows some of the steps of `graph`."""
        world = World(unstable=unstable)
        self._drive(graph, world)
        choices = SeededChoices(seed)
        for records in (world.records, world.narrow):
            for key in sorted(records):
                if choices.number(1, 2) == 1:
                    del records[key]
        return world

    # -- what is decided --------------------------------------------------------------------

    def test_states_are_those_of_the_graph(self) -> None:
        """Every needed step is bound to its parent plus its layer, whatever was reused."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed))
            world = self._half_known(seed, graph)
            driver, _ = self._drive(graph, world, seed)
            for vertex, state in reference(graph, ContentKeys(), world).items():
                if vertex in graph.needed():
                    assert driver.walk.state(vertex) == state

    def test_the_order_of_answers_changes_nothing(self) -> None:
        """Answers shuffled, delayed or in parts: the decisions are the same."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed), bypass=True)
            outcomes = set()
            for order in (None, 1, 2, 3):
                world = self._half_known(seed, graph)
                outcomes.add(_shape(self._drive(graph, world, order)[1]))
            assert len(outcomes) == 1

    def test_nothing_is_asked_twice(self) -> None:
        """No key, fingerprint or execution is asked for twice (the driver would raise)."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed), bypass=True)
            self._drive(graph, self._half_known(seed, graph), seed)

    def test_a_second_build_reuses_everything(self) -> None:
        """With all records present, nothing is executed, and every needed step is a hit."""
        for seed in self._seeds():
            graph, world = any_graph(SeededChoices(seed)), World()
            self._drive(graph, world)
            driver, decisions = self._drive(graph, world, seed)

            assert not driver.executions
            needed = graph.needed()
            assert all(d.outcome == ("hit" if d.vertex in needed else "skip") for d in decisions)

    def test_identical_steps_run_once(self) -> None:
        """Steps with one key share one execution and one outcome."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed))
            driver, decisions = self._drive(graph, World(unstable=True), seed)

            assert len({ask.key for ask in driver.executions}) == len(driver.executions)
            assert len({ask.key for ask in driver.executions}) == len(
                {d.key for d in decisions if d.key}
            )

    def test_early_cutoff(self) -> None:
        """A step that ran again with the same result leaves the steps after it hits."""
        world = World()
        graph = _graph(Say("first", still=True), Say("second"), Say("third"))
        self._drive(graph, world)
        changed = _graph(Say("other", still=True), Say("second"), Say("third"))
        _, decisions = self._drive(changed, world, 1)

        assert [d.outcome for d in decisions] == ["miss", "hit", "hit"]

    def test_bypassing(self) -> None:
        """A step that bypasses the cache is executed though there is a record."""
        graph, world = _graph(Say("a"), Say("b"), Say("c")), World()
        self._drive(graph, world)
        steps = [
            evolve(v, bypass=n == 2) if isinstance(v, Step) else v
            for n, v in enumerate(graph.vertices)
        ]
        driver, decisions = self._drive(Graph(tuple(steps), graph.targets), world, 1)

        assert [d.outcome for d in decisions] == ["hit", "miss", "hit"]
        assert [ask.task.bypass for ask in driver.executions] == [True]

    # -- when things go wrong ---------------------------------------------------------------

    def test_a_failure_leaves_others_decided(self) -> None:
        """Steps that do not depend on a failed step are decided as usual."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed))
            failing = _with_failures(graph, seed)
            world = self._half_known(seed, graph)
            copy = World()
            copy.records, copy.narrow = dict(world.records), dict(world.narrow)
            copy.selectors = {key: list(found) for key, found in world.selectors.items()}
            whole = {d.vertex: d for d in self._drive(graph, copy, seed)[1]}
            spoilt: set[int] = set()
            for decision in self._drive(failing, world, seed)[1]:
                step = failing.vertices[decision.vertex]
                assert isinstance(step, Step)
                if decision.error is not None:
                    assert decision.outcome == "miss"
                    spoilt.add(decision.vertex)
                elif any(edge.vertex in spoilt for edge in step.inputs):
                    spoilt.add(decision.vertex)
                    assert decision.outcome == "skip"
                else:
                    assert _shape([decision]) == _shape([whole[decision.vertex]])

    def test_a_source_that_is_missing(self) -> None:
        """Steps that read it fail with its error, others are decided."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed))
            world = World(missing={ContextSource("").name})
            failed: set[int] = set()
            for decision in self._drive(graph, world, seed)[1]:
                step = graph.vertices[decision.vertex]
                assert isinstance(step, Step)
                if decision.vertex not in graph.needed():
                    continue
                sources = [graph.vertices[e.vertex] for e in step.inputs]
                if ContextSource("") in sources and not any(
                    e.vertex in failed for e in step.inputs
                ):
                    assert decision.outcome == "miss"
                    assert decision.error is not None
                if decision.state is None:
                    failed.add(decision.vertex)

    def test_hits_taken_back(self) -> None:
        """Blobs turn out to be missing at any moment: the result is the same in the end."""
        lost = 0
        for seed in self._seeds():
            graph, world = any_graph(SeededChoices(seed)), World()
            self._drive(graph, world)
            expected = reference(graph, ContentKeys(), world)
            driver, decisions = self._drive(graph, world, seed, losses=15)
            lost += driver.lost
            for decision in decisions:
                if decision.vertex in graph.needed():
                    assert decision.state == expected[decision.vertex]
        assert lost > self.graphs

    def test_histories_never_mix(self) -> None:
        """Steps that give another layer each time, hits taken back, some steps bypassed: each
        layer lies on exactly the state that it was made on, by either strategy."""
        for keys in (ContentKeys(), ChainKeys()):
            for seed in self._seeds():
                graph = any_graph(SeededChoices(seed), bypass=True)
                world = self._half_known(seed, graph, unstable=True)
                for again in range(3):
                    driver, decisions = self._drive(graph, world, seed + again, keys, losses=10)
                    check_links(graph, driver.walk, decisions, world)

    def test_wrong_answers_are_refused(self) -> None:
        """An answer to a question that was not asked is a `UsageError`."""
        graph = _graph(Say("a"))
        world = World()
        driver, _ = self._drive(graph, world)
        walk = driver.walk
        ask = driver.executions[0]
        other = CacheKey("another")
        wrong: list[Answer] = [
            Fingerprinted(AskFingerprint(ContextSource("x"), EVERYTHING), Fingerprint("1")),
            Found({other: None}),
            Executed(other, world.records[ask.key]),
        ]
        for answer in wrong:
            try:
                walk.tell(answer)
            except UsageError:
                continue
            raise AssertionError(f"{answer} was taken")

    # -- planning and size ------------------------------------------------------------------

    def test_declining_is_planning(self) -> None:
        """Where executing is declined, what is known is a hit, and the rest says so."""
        for seed in self._seeds():
            graph = any_graph(SeededChoices(seed))
            world = self._half_known(seed, graph)
            copy = World()
            copy.records, copy.narrow = dict(world.records), dict(world.narrow)
            copy.selectors = {key: list(found) for key, found in world.selectors.items()}
            built = {d.vertex: d for d in self._drive(graph, copy, seed)[1]}
            before = world.executed
            _, decisions = self._drive(graph, world, seed, declines=True)
            assert world.executed == before
            for decision in decisions:
                real = built[decision.vertex].outcome
                if decision.outcome in ("hit", "skip"):
                    assert real == decision.outcome
                elif decision.outcome == "would-run":
                    assert real == "miss"
                else:
                    assert decision.outcome == "undetermined"
                    assert decision.until

    def test_a_long_chain_is_linear(self) -> None:
        """Thousands of steps in a row walk without recursion, in asks that grow with them."""
        for length in (1000, 3000):
            driver, decisions = self._drive(chain_graph(length, 2), World())

            assert {d.outcome for d in decisions} == {"miss"}
            assert driver.asks <= 4 * length
            assert driver.rounds <= 4 * length + 4


# -- helpers --------------------------------------------------------------------------------


def _graph(*instructions: Say) -> Graph:
    vertices: list[Step | Base] = [Base("scratch", SCRATCH)]
    for instruction in instructions:
        vertices.append(Step(instruction, (Input(PARENT, len(vertices) - 1),)))
    return Graph(tuple(vertices), (len(vertices) - 1,))


def _shape(decisions: Sequence[Decision]) -> tuple[object, ...]:
    return tuple((d.vertex, d.outcome, d.key, d.state, type(d.error)) for d in decisions)


def _with_failures(graph: Graph, seed: int) -> Graph:
    choices = SeededChoices(seed)
    vertices = []
    for vertex in graph.vertices:
        fails = choices.number(1, 6) == 1
        if fails and isinstance(vertex, Step) and isinstance(vertex.instruction, Say):
            instruction = evolve(vertex.instruction, fails=True)
            vertex = evolve(vertex, instruction=instruction)
        vertices.append(vertex)
    return Graph(tuple(vertices), graph.targets)


def check_links(graph: Graph, walk: Walk, decisions: Sequence[Decision], world: World) -> None:
    """Each layer lies on exactly what it was made on, and was made of what its step reads now.

    Raises `AssertionError` for a layer that its step never produced there.
    """
    for decision in decisions:
        step = graph.vertices[decision.vertex]
        if decision.state is None or not isinstance(step, Step):
            continue
        bound = []
        for edge in step.inputs:
            vertex = graph.vertices[edge.vertex]
            subject = walk.state(edge.vertex)
            source = subject if subject is not None else vertex
            assert not isinstance(source, Step)
            if isinstance(edge.selector, Everything) and isinstance(source, State):
                found = source.chain_id
            else:
                found = world.fingerprint(source, edge.selector) or ""  # type: ignore[assignment]
            bound.append(BoundInput(edge.role, source, edge.selector, found))  # type: ignore[arg-type]
        task = Task(step.instruction, tuple(bound))
        layer = decision.record.layer if decision.record is not None else None
        parent = task.parent or SCRATCH
        assert parent.plus(layer) == decision.state
        assert (None if layer is None else layer.diff_id) in world.log.get(world.place(task), ()), (
            f"step {decision.vertex} lies on a state on which it was never executed"
        )
