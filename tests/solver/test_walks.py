"""The walk: the suite for walkers, its size, and what is decided in the corners."""

from __future__ import annotations

import itertools
import sys
import time

import attrs
import pytest

from layercache.errors import UsageError
from layercache.model.descriptors import SCRATCH
from layercache.model.graph import Base, Graph, GraphBuilder, Input, Step
from layercache.model.keys import cache_key
from layercache.model.operations import PARENT, SOURCE, CopyFiles, CopySource
from layercache.model.selectors import Files
from layercache.model.sources import ContextSource
from layercache.solver.protocol import Ask, AskExecute, Executed, Lost
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.solver.walker import GraphWalker
from layercache.testing.driving import Driver, Say, World, any_graph, chain_graph, reference
from layercache.testing.generating import SeededChoices
from layercache.testing.walks import WalkerSuite
from layercache.testing.wrong import MixingWalker, RepeatingWalker, caught
from tests.tally import SEED, tell


class TestGraphWalker(WalkerSuite):
    graphs = 150
    seed = SEED
    started = 0.0

    @classmethod
    def setup_class(cls):
        cls.started = time.perf_counter()

    @classmethod
    def teardown_class(cls):
        wall = time.perf_counter() - cls.started
        tell("walker suite, random graphs for each law", cls.graphs, wall)

    def make(self):
        return GraphWalker()


def test_a_walker_that_asks_twice_is_caught():
    """Asking again what was asked before fails the suite."""

    class Suite(WalkerSuite):
        graphs = 3

        def make(self):
            return RepeatingWalker()

    assert "test_nothing_is_asked_twice" in caught(Suite)


def test_a_walker_that_mixes_histories_is_caught():
    """Taking a record for a state that it was not made on fails the suite."""

    class Suite(WalkerSuite):
        def make(self):
            return MixingWalker()

    assert "test_histories_never_mix" in caught(Suite)


def _run(graph, world=None, keys=None, **options):
    walk = GraphWalker().start(graph, keys or ContentKeys())
    driver = Driver(walk, world or World(), **options)
    return driver, driver.run()


# -- size -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "length"), [(ContentKeys(), 100_000), (ChainKeys(), 20_000)], ids=["content", "chain"]
)
def test_a_chain_of_a_hundred_thousand_steps(keys, length):
    """It walks without recursion: cold, then warm, in asks that are its length."""
    started = time.perf_counter()
    graph, world = chain_graph(length), World()
    driver, decisions = _run(graph, world, keys)
    assert len(driver.executions) == length
    assert driver.asks <= 3 * length
    assert {d.outcome for d in decisions} == {"miss"}
    assert driver.walk.state(len(graph.vertices) - 1).depth == length

    driver, decisions = _run(graph, world, keys)
    assert not driver.executions
    assert driver.asks <= 2 * length
    assert {d.outcome for d in decisions} == {"hit"}
    tell(f"chain of {length} steps, {keys.scheme}", 2, time.perf_counter() - started)


def test_a_plan_of_a_long_chain():
    """Declining the first of many thousand steps leaves all others undetermined, at once."""
    driver, decisions = _run(chain_graph(20_000), declines=True)
    assert [d.outcome for d in decisions[:2]] == ["would-run", "undetermined"]
    assert {d.until for d in decisions[1:]} == {(decisions[0].vertex,)}
    assert driver.asks <= 4


def _calls(graph):
    """How many Python functions a walk calls."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        _run(graph)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [chain_graph, lambda n: chain_graph(n, 2), lambda n: _fan(n)])
def test_work_grows_with_the_graph_only(make):
    """Twice the steps are twice the work, counted in calls; a long chain, or many leaves."""
    small, large = _calls(make(400)), _calls(make(1600))
    assert large <= 4.4 * small


def _fan(width):
    """Many steps on one base, and one that reads them all."""
    graph = GraphBuilder()
    base = graph.source(Base("scratch", SCRATCH))
    leaves = [graph.step(Step(Say(str(n)), (Input(PARENT, base),))) for n in range(width)]
    inputs = (Input(PARENT, base), *(Input(f"mount {n}", n) for n in leaves))
    return graph.build([graph.step(Step(Say("all"), inputs))])


def test_identical_steps_in_great_number():
    """A thousand equal steps are one lookup and one execution."""
    graph = GraphBuilder()
    base = graph.source(Base("scratch", SCRATCH))
    steps = [graph.step(Step(Say("same"), (Input(PARENT, base),))) for _ in range(1000)]
    driver, decisions = _run(graph.build(steps))
    assert driver.asks == 2
    assert len({d.key for d in decisions}) == 1
    assert {d.outcome for d in decisions} == {"miss"}


# -- corners --------------------------------------------------------------------------------


def _chain(*steps):
    vertices: list[Base | ContextSource | Step] = [Base("scratch", SCRATCH)]
    for step in steps:
        instruction = step if not isinstance(step, Step) else step.instruction
        bypass = isinstance(step, Step) and step.bypass
        edge = (Input(PARENT, len(vertices) - 1),)
        vertices.append(Step(instruction, edge, bypass=bypass))
    return Graph(tuple(vertices), (len(vertices) - 1,))


def test_an_equal_step_that_bypasses_shares_an_execution():
    """Of two equal steps one bypasses the cache; without a record both take one execution."""
    graph = GraphBuilder()
    base = graph.source(Base("scratch", SCRATCH))
    edge = (Input(PARENT, base),)
    targets = [graph.step(Step(Say("a"), edge)), graph.step(Step(Say("a"), edge, bypass=True))]
    driver, decisions = _run(graph.build(targets), World(unstable=True))
    assert len(driver.executions) == 1
    assert decisions[0].state == decisions[1].state


def test_what_changes_nothing_has_no_layer():
    """A step without a layer leaves the state below it, and is a hit the next time."""
    world = World()
    graph = _chain(Say("a"), Say("b", still=True))
    _, decisions = _run(graph, world)
    assert decisions[0].state == decisions[1].state
    _, decisions = _run(graph, world)
    assert [d.outcome for d in decisions] == ["hit", "hit"]


def test_keys_are_those_of_the_material():
    """Each decision names the material that its key was made of."""
    for seed in range(20):
        _, decisions = _run(any_graph(SeededChoices(seed)))
        for decision in decisions:
            if decision.key is not None:
                assert cache_key(decision.material) == decision.key


def test_a_linked_copy_hits_on_any_parent():
    """COPY --link reads nothing of its parent: whatever is below, it is reused."""
    world = World()
    graphs = []
    for text in ("one", "two"):
        graph = GraphBuilder()
        base = graph.source(Base("scratch", SCRATCH))
        context = graph.source(ContextSource())
        below = graph.step(Step(Say(text), (Input(PARENT, base),)))
        copy = CopyFiles(
            sources=(CopySource(role=SOURCE, pattern="a"),), destination="/", link=True
        )
        edges = (Input(PARENT, below), Input(SOURCE, context, Files(("a",))))
        graphs.append(graph.build([graph.step(Step(copy, edges))]))
    _run(graphs[0], world)
    _, decisions = _run(graphs[1], world)
    assert [(d.outcome, d.evidence) for d in decisions] == [("miss", None), ("hit", "link")]


def _copy_on(text):
    graph = GraphBuilder()
    base = graph.source(Base("scratch", SCRATCH))
    context = graph.source(ContextSource())
    below = graph.step(Step(Say(text), (Input(PARENT, base),)))
    copy = CopyFiles(sources=(CopySource(role=SOURCE, pattern="a"),), destination="/d")
    edges = (Input(PARENT, below), Input(SOURCE, context, Files(("a",))))
    return graph.build([graph.step(Step(copy, edges))])


def test_a_copy_is_reused_where_what_it_looked_at_is_the_same():
    """On other parents a COPY hits exactly if what it looks at of them is as it was; by chain
    keys it never does."""
    for keys in (ContentKeys(), ChainKeys()):
        world = World()
        _run(_copy_on("first"), world, keys)
        evidence = set()
        for number in range(12):
            graph = _copy_on(str(number))
            driver, decisions = _run(graph, world, keys)
            if keys == ContentKeys():
                expected = reference(graph, keys, world)
                assert decisions[-1].state == expected[decisions[-1].vertex]
            evidence.add((decisions[-1].outcome, decisions[-1].evidence))
            assert len(driver.executions) == 1 + (decisions[-1].outcome == "miss")
        if keys == ContentKeys():
            assert evidence == {("hit", "rebase"), ("miss", None)}
        else:
            assert evidence == {("miss", None)}


def test_chain_keys_have_no_early_cutoff():
    """By the keys of parents, a step that ran again makes all after it run again."""
    world = World()
    _run(_chain(Say("a", still=True), Say("b")), world, ChainKeys())
    _, decisions = _run(_chain(Say("x", still=True), Say("b")), world, ChainKeys())
    assert [d.outcome for d in decisions] == ["miss", "miss"]


def test_chain_keys_know_every_key_before_anything_runs():
    """While planning, no step is undetermined: each would run or would not."""
    _, decisions = _run(_chain(*map(Say, "abcd")), keys=ChainKeys(), declines=True)
    assert all(d.key is not None for d in decisions)


def test_a_bypassed_step_and_what_lies_on_it_by_chain_keys():
    """A bypassed step gives another layer: what lies on it runs again though its key is known."""
    world = World(unstable=True)
    _run(_chain(Say("a"), Say("b"), Say("c")), world, ChainKeys())
    graph = _chain(Step(Say("a"), bypass=True), Say("b"), Say("c"))
    _, decisions = _run(graph, world, ChainKeys())
    assert [d.outcome for d in decisions] == ["miss", "miss", "miss"]
    for below, above in itertools.pairwise(decisions):
        assert above.record.parent == below.state.chain_id


def _parent(decision):
    return decision.record.parent


def _chain_id(decision):
    return decision.state.chain_id


def test_a_parent_that_came_out_otherwise_by_chain_keys():
    """A hit is taken back and made anew with another layer: what lies on it is, too."""
    world = World(unstable=True)
    graph = _chain(Say("a"), Say("b"))
    _run(graph, world, ChainKeys())
    walk = GraphWalker().start(graph, ChainKeys())
    driver = Driver(walk, world)
    first, second = driver.run()
    assert first.record is not None
    walk.tell(Lost(first.record))
    del world.records[first.record.key]
    first, second = driver.run()
    assert _parent(second) == _chain_id(first)
    assert [d.outcome for d in (first, second)] == ["miss", "miss"]


def test_an_answer_that_comes_after_its_parent_changed():
    """By chain keys, an execution on a state that was taken back meanwhile is not used."""
    world = World(unstable=True)
    graph = _chain(Say("a"), Say("b"))
    _run(_chain(Say("a")), world, ChainKeys())
    walk = GraphWalker().start(graph, ChainKeys())
    driver = Driver(walk, world)
    asks: list[Ask] = []
    while not any(isinstance(ask, AskExecute) for ask in asks):
        asks = list(walk.asks())
        for ask in asks:
            if not isinstance(ask, AskExecute):
                driver.answer(ask)
    (late,) = asks
    assert isinstance(late, AskExecute)
    old = next(d for d in walk.decisions() if d.outcome == "hit").record
    assert old is not None
    walk.tell(Lost(old))
    del world.records[old.key]
    stale = world.execute(late)
    del world.records[late.key]
    walk.tell(Executed(late.key, stale))
    first, second = driver.run()
    assert second.record != stale
    assert _parent(second) == _chain_id(first)


def test_a_failure_survives_a_hit_taken_back():
    """A step whose source can't be read stays failed when another input is made anew."""
    graph = GraphBuilder()
    base = graph.source(Base("scratch", SCRATCH))
    missing = graph.source(ContextSource("gone"))
    below = graph.step(Step(Say("a"), (Input(PARENT, base),)))
    edges = (Input(PARENT, below), Input(SOURCE, missing, Files(("x",))))
    copy = graph.step(Step(Say("b"), edges))
    target = graph.build([copy])
    world = World(missing={ContextSource("gone").name})
    _run(target, world)
    walk = GraphWalker().start(target, ContentKeys())
    driver = Driver(walk, world)
    first, second = driver.run()
    assert second.error is not None
    assert first.record is not None
    walk.tell(Lost(first.record))
    first, second = driver.run()
    assert first.state is not None
    assert second.outcome == "miss"
    assert second.error is not None


def test_a_graph_in_disorder_is_refused():
    """An input that comes after its reader, or a target that is not there, is a `UsageError`."""
    step = Step(Say("a"), (Input(PARENT, 1),))
    with pytest.raises(UsageError, match="an input must come before its reader"):
        Graph((step, Base("scratch", SCRATCH)), (0,))
    with pytest.raises(UsageError, match="not a vertex"):
        Graph((), (0,))


def test_steps_that_the_target_does_not_need_are_skipped():
    """They are not looked at: no key, no ask."""
    graph = _chain(Say("a"), Say("b"))
    graph = attrs.evolve(graph, targets=(1,))
    driver, decisions = _run(graph)
    assert [d.outcome for d in decisions] == ["miss", "skip"]
    assert decisions[1].key is None
    assert len(driver.executions) == 1
