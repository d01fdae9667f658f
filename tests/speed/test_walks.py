"""How often a walk asks, and how often it calls the key strategy: once for each step."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import attrs
import pytest

from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer
from layercache.model.digests import CacheKey, DiffID, Digest, Fingerprint
from layercache.model.graph import Base, Graph, Input, Step
from layercache.model.instruction import Field
from layercache.model.keys import KeyMaterial
from layercache.model.operations import PARENT, SOURCE, CopyFiles, CopySource, Exec
from layercache.model.records import Record
from layercache.model.selectors import Files, Selector
from layercache.model.sources import ContextSource
from layercache.solver.protocol import (
    AskExecute,
    AskFingerprint,
    AskLookup,
    AskSelectors,
    Executed,
    Fingerprinted,
    Found,
    Selectors,
    Walk,
)
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.solver.walker import GraphWalker


@attrs.define
class Counted:
    """A key strategy that counts what the walk asks of it."""

    inner: ContentKeys | ChainKeys
    materials: int = 0
    selectors: int = 0

    @property
    def scheme(self) -> str:
        return self.inner.scheme

    def selector(self, step: Step, source: Input) -> Selector:
        self.selectors += 1
        return self.inner.selector(step, source)

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        self.materials += 1
        return self.inner.material(step, inputs)


def chain(steps: int) -> Graph:
    """COPY of one file each, and RUN, in turns, over one context."""
    vertices: list[object] = [Base("scratch", SCRATCH), ContextSource()]
    previous = 0
    for number in range(steps):
        parent = Input(PARENT, previous)
        if number % 2:
            source = Input(SOURCE, 1, Files((f"f{number}",)))
            copy = CopyFiles(
                sources=(CopySource(role=SOURCE, pattern=f"f{number}"),), destination="/app/"
            )
            vertices.append(Step(copy, (parent, source)))
        else:
            command = Exec(args=("/bin/sh", "-c", f"echo {number}"), env=(("A", "b"),))
            vertices.append(Step(command, (parent,)))
        previous = len(vertices) - 1
    return Graph(tuple(vertices), (previous,))  # type: ignore[arg-type]


def drive(walk: Walk, records: dict[CacheKey, Record]) -> Counter[str]:
    """Answer from memory until nothing is asked; how much was asked of each kind."""
    counts: Counter[str] = Counter()
    numbers = itertools.count(len(records))
    while asks := walk.asks():
        for ask in asks:
            if isinstance(ask, AskLookup):
                counts["keys"] += len(ask.keys)
                walk.tell(Found({key: records.get(key) for key in ask.keys}))
            elif isinstance(ask, AskFingerprint):
                counts["fingerprints"] += 1
                walk.tell(Fingerprinted(ask, Fingerprint("ab" * 32)))
            elif isinstance(ask, AskSelectors):
                counts["selectors"] += len(ask.keys)
                walk.tell(Selectors(dict.fromkeys(ask.keys, ())))
            else:
                counts["executions"] += 1
                record = records[ask.key] = made(ask, next(numbers))
                walk.tell(Executed(ask.key, record))
    return counts


def made(ask: AskExecute, number: int) -> Record:
    digest = f"sha256:{number:064x}"
    parent = (ask.task.parent or SCRATCH).chain_id
    return Record(
        key=ask.key,
        material=ask.material,
        layer=Layer(Descriptor(LAYER_TAR, Digest(digest), 10), DiffID(digest)),
        parent=parent,
        seconds=1.0,
        created=0.0,
    )


@pytest.mark.parametrize("keys", [ContentKeys(), ChainKeys()], ids=lambda keys: keys.scheme)
@pytest.mark.parametrize("steps", [10, 1_000, 10_000])
def test_each_step_is_asked_for_once(steps: int, keys: ContentKeys | ChainKeys) -> None:
    """A walk in which everything is reused asks for each key, and for each selection of the
    context, once; it calls the strategy once for each step and edge, whatever the length."""
    graph = chain(steps)
    records: dict[CacheKey, Record] = {}
    drive(GraphWalker().start(graph, keys), records)
    counted = Counted(keys)
    walk = GraphWalker().start(graph, counted)
    counts = drive(walk, records)

    copies = steps // 2
    assert {"hit"} == {decision.outcome for decision in walk.decisions()}
    assert Counter(keys=steps, fingerprints=copies) == counts
    assert steps == counted.materials
    assert steps + 2 * copies >= counted.selectors == steps + copies


def test_a_first_build_asks_twice_at_most() -> None:
    """A walk in which nothing is known asks for each key once and for each execution once."""
    counts = drive(GraphWalker().start(chain(1_000), Counted(ContentKeys())), {})

    assert 1_000 == counts["keys"] == counts["executions"]
    assert 500 == counts["fingerprints"]


def test_a_hundred_thousand_steps_walk() -> None:
    """Nothing recurses, nothing grows faster than the graph: 100,000 steps are walked."""
    graph = chain(100_000)
    walk = GraphWalker().start(graph, ContentKeys())
    counts = drive(walk, {})

    assert 100_000 == counts["keys"] == counts["executions"]
    state = walk.state(graph.targets[0])
    assert state is not None
    assert 100_000 == state.depth


def test_equal_fields_are_shared() -> None:
    """Thousands of commands in one environment hold one set of the fields that describe it."""
    first, second = (Exec(args=("/bin/sh", "-c", text)).definition() for text in ("a", "b"))
    shared = {id(field) for field in first} & {id(field) for field in second}

    assert len(first) - 2 <= len(shared)


@pytest.mark.parametrize("value", [True, 1, "1", b"1", (1,), (True,)])
def test_shared_fields_keep_types_apart(value: object) -> None:
    """Sharing fields mixes no values that only compare equal."""
    plain = Exec(args=("x",), shm_size=1).definition()
    other = Exec(args=("x",), shm_size=value).definition()  # type: ignore[arg-type]

    def sizes(fields: Sequence[Field]) -> list[tuple[type, object]]:
        return [(type(f.value), f.value) for f in fields if f.label == "shm size"]

    assert [(type(value), value)] == sizes(other)
    assert [(int, 1)] == sizes(plain)
