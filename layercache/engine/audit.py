"""Audits: a share of the hits by a trace is run again, unwatched, and compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from layercache.errors import CacheError, LayerCacheError, NotFound
from layercache.model.descriptors import SCRATCH
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.graph import Base, Graph, Step
from layercache.model.keys import KeyMaterial, cache_key
from layercache.model.records import Record
from layercache.model.selectors import EVERYTHING
from layercache.model.task import BoundInput, Task
from layercache.solver.narrowing import narrowed, weak_key
from layercache.solver.protocol import AskExecute, Decision, Lost, Selectors, Walk
from layercache.solver.trace_mode import audit_share

if TYPE_CHECKING:
    from layercache.inputs.inputs import Inputs
    from layercache.model.descriptors import Layer, State
    from layercache.model.layer_index import LayerIndex
    from layercache.model.tree import Tree
    from layercache.store.parts import Cache

__all__ = ["Auditor", "changed_paths"]


class Auditor:
    """Audits the hits of one walk, each once.

    What comes out otherwise than recorded is not used any more: its trace is barred, in the
    store too, the walk takes it back, and its step counts as executed. `made` has those records
    by the key of the whole parent, `paths` where they differ. A trace that is barred takes
    nothing else with it: what rests on the whole parent stays.

    `execute` runs a task unwatched and gives its record, or raises; `trouble` and `note` tell
    people; `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        graph: Graph,
        walk: Walk,
        inputs: Inputs,
        store: Cache,
        *,
        execute: Callable[[AskExecute], Record],
        trouble: Callable[[LayerCacheError], None],
        note: Callable[[str], None],
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._graph = graph
        self._walk = walk
        self._inputs = inputs
        self._store = store
        self._execute = execute
        self._trouble = trouble
        self._note = note
        self._chance = chance
        modes = {v.trace for v in graph.vertices if isinstance(v, Step)}
        self._audits = any(audit_share(mode) for mode in modes)
        self._done: set[CacheKey] = set()
        self.made: dict[CacheKey, Record] = {}
        self.paths: dict[CacheKey, tuple[str, ...]] = {}

    def _random(self) -> float:
        if self._chance is None:
            import random

            self._chance = random.random
        return self._chance()

    def audit(self) -> bool:
        """Run a share of the hits again; return whether one was withdrawn, so that the walk goes
        on.
        """
        taken_back = False
        for decision in self._walk.decisions() if self._audits else ():
            step = self._graph.vertices[decision.vertex]
            key = decision.key
            if decision.evidence != "trace" or not isinstance(step, Step) or key is None:
                continue
            if key not in self._done:
                self._done.add(key)
                if self._random() < audit_share(step.trace):
                    taken_back |= self._one(decision, step)
        return taken_back

    def _one(self, decision: Decision, step: Step) -> bool:
        record, material = decision.record, decision.material
        task = self._task(step, material)
        if record is None or material is None or task is None:
            return False
        parent = task.parent or SCRATCH
        whole = narrowed(material, EVERYTHING, Fingerprint(parent.chain_id))
        ask = AskExecute(cache_key(whole), task, whole, decision.vertex)
        text = step.origin.text or step.instruction.name
        try:
            made = self._execute(ask)
            paths = changed_paths(parent, record.layer, made.layer, self._inputs)
        except LayerCacheError as error:
            self._trouble(LayerCacheError(f"{text}: the step can't be run again: {error}"))
            return False
        if not paths:
            self._note(f"audit: {text}: a new run gave the same tree")
            return False
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        reason = (
            "a new run gave a tree that differs from the recorded one: "
            f"{', '.join(paths[:3])}{more}"
        )
        self._trouble(LayerCacheError(f"{text}: {reason}; it is no longer traced"))
        self.made[ask.key] = made
        self.paths[ask.key] = paths
        self._bar(weak_key(material), reason, made)
        return True

    def _task(self, step: Step, material: KeyMaterial | None) -> Task | None:
        """The task of a step as it would be executed without tracing."""
        bound = []
        for edge, entry in zip(step.inputs, material.inputs if material else (), strict=True):
            vertex = self._graph.vertices[edge.vertex]
            subject = self._walk.state(edge.vertex)
            if subject is None and isinstance(vertex, Step | Base):
                return None
            found = subject if subject is not None else vertex
            assert not isinstance(found, Step)
            bound.append(BoundInput(edge.role, found, edge.selector, entry.fingerprint))
        return Task(step.instruction, tuple(bound), material.traits if material else ())

    def _bar(self, weak: CacheKey, reason: str, made: Record) -> None:
        try:
            self._inputs.known.bar(weak, reason)
            self._store.records.put(made)
        except CacheError as error:
            self._trouble(error)
        self._walk.tell(Selectors({weak: ()}))
        for decision in self._walk.decisions():
            record, material = decision.record, decision.material
            if decision.evidence != "trace" or record is None or material is None:
                continue
            if weak_key(material) == weak:
                self._walk.tell(Lost(record))


def changed_paths(
    parent: State, one: Layer | None, other: Layer | None, inputs: Inputs
) -> tuple[str, ...]:
    """The paths at which `parent` with the one layer on top differs from it with the other.

    Times count. Equal trees may have different layers: what a command wrote anew but as it was
    is in one and not in the other.
    """
    if (one and one.id) == (other and other.id):
        return ()
    trees = inputs.tree(parent.plus(one)), inputs.tree(parent.plus(other))
    indexes = [inputs.index(layer) for layer in (one, other) if layer is not None]
    found: dict[bytes, None] = {}
    for path in dict.fromkeys(path for index in indexes for path in index.paths):
        if trees[0].lookup(path) != trees[1].lookup(path):
            found[path] = None
    for path in dict.fromkeys(path for index in indexes for path in _opaque(index)):
        for name in _children(trees[0], path) ^ _children(trees[1], path):
            found[path + b"/" + name if path else name] = None
    return tuple(os.fsdecode(b"/" + path) for path in found)


def _opaque(index: LayerIndex) -> list[bytes]:
    return [entry.path for entry in index if entry.opaque]


def _children(tree: Tree, path: bytes) -> set[bytes]:
    try:
        return set(tree.children(path))
    except NotFound:
        return set()
