"""Probing: reused steps are run again on the state that they were recorded on, and compared.

Nothing is replaced: the layers of a probe are discarded, the records stay. Results that differ from
run to run prevent early cutoff after the step, and would show in images; they are reported with the
usual remedy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from layercache._base.classes import frozen
from layercache.engine.window import Window, masks_of, perform
from layercache.errors import Cancelled, LayerCacheError
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import Layer, State
from layercache.model.graph import Base, Graph, Step
from layercache.model.instruction import Source
from layercache.model.operations import Exec
from layercache.model.task import BoundInput, Executor, Task
from layercache.solver.protocol import Decision
from layercache.store.seen_results import note_results, results_of

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["Probed", "advice_for", "probe_steps"]


@frozen(kw_only=True)
class Probed:
    """How a step came out when it was run again: the paths that differ, and what that may mend.

    `results` counts the different layers seen, the recorded one included, `known_results` all
    that the key has ever been seen to give; `error` says why the step could not be run again.
    """

    vertex: int
    text: str
    runs: int
    results: int = 1
    known_results: int = 1
    paths: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    error: str | None = None

    @property
    def steady(self) -> bool:
        """Whether every run gave the recorded layer."""
        return self.error is None and self.results == 1


_FIXES = (
    (".pyc", "set PYTHONDONTWRITEBYTECODE=1, or SOURCE_DATE_EPOCH for hash-based .pyc files"),
    ("/var/log/", "remove the logs in the same RUN: rm -rf /var/log/*"),
    (".log", "remove the log in the same RUN, or write it to a tmpfs or cache mount"),
    ("ldconfig/aux-cache", "remove /var/cache/ldconfig/aux-cache in the same RUN"),
    ("/var/lib/apt/", "end with rm -rf /var/lib/apt/lists/*"),
    ("/var/cache/", "remove the cache in the same RUN, or keep it in a cache mount"),
    ("/tmp/", "write temporary files to a tmpfs mount, or remove them in the same RUN"),
    (".cache/", "keep the cache in a cache mount: RUN --mount=type=cache,target=…"),
    ("machine-id", "empty /etc/machine-id at the end of the RUN"),
    ("shadow", "fix the day of the last password change: chage -d 0 NAME"),
)  # fmt: skip

_GENERAL = (
    "pass a fixed time (SOURCE_DATE_EPOCH), sort what is listed, fix seeds, and pin versions; "
    "then the step gives the same bytes each time"
)


def advice_for(paths: Sequence[str]) -> tuple[str, ...]:
    """Advice that usually makes files of these names the same in each run."""
    found = [fix for mark, fix in _FIXES if any(mark in "/" + path for path in paths)]
    known = [any(mark in "/" + path for mark, _ in _FIXES) for path in paths]
    if not all(known):
        found.append(_GENERAL)
    return tuple(dict.fromkeys(found))


def probe_steps(
    graph: Graph,
    decisions: Sequence[Decision],
    inputs: Inputs,
    store: Cache,
    executor: Executor,
    *,
    runs: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Probed]:
    """Run each reused command again `runs` times, and report how the results differ.

    Raises `Cancelled` once `cancelled` says so; a step that runs is asked to end.
    """
    window = Window(store, inputs, masks=masks_of(executor), stopping=cancelled)
    by_vertex = {decision.vertex: decision for decision in decisions}
    for decision in decisions:
        step = graph.vertices[decision.vertex]
        if decision.outcome != "hit" or not isinstance(step, Step):
            continue
        if isinstance(step.instruction, Exec) and decision.record is not None:
            yield _probe(graph, by_vertex, decision, step, inputs, store, executor, runs, window)


def _probe(
    graph: Graph,
    decisions: dict[int, Decision],
    decision: Decision,
    step: Step,
    inputs: Inputs,
    store: Cache,
    executor: Executor,
    runs: int,
    window: Window,
) -> Probed:
    assert decision.record is not None
    assert decision.material is not None
    bound = tuple(
        BoundInput(
            edge.role,
            _subject(graph, decisions, edge.vertex),
            edge.selector,
            entry.fingerprint,
        )
        for edge, entry in zip(step.inputs, decision.material.inputs, strict=True)
    )
    task = Task(step.instruction, bound, decision.material.traits)
    recorded = decision.record.layer
    seen = {recorded.id if recorded is not None else ""}
    paths: dict[str, None] = {}
    layers: list[Layer | None] = []
    try:
        for _ in range(runs):
            if window.cancelled():
                raise Cancelled("the probe was cancelled")
            layer = perform(executor, task, window).layer
            layers.append(layer)
            name = layer.id if layer is not None else ""
            if name not in seen:
                seen.add(name)
                paths.update(dict.fromkeys(_differing(recorded, layer, inputs)))
    except LayerCacheError as error:
        if window.cancelled():
            raise Cancelled("the probe was cancelled") from error
        # The last lines of the output are in the message, and secrets may be in them.
        said = str(window.masked_text(str(error)))
        return Probed(vertex=decision.vertex, text=step.origin.text, runs=runs, error=said)
    shown = tuple(sorted(paths))
    key = decision.record.key
    if len(seen) > 1:
        note_results(store.derived, key, (recorded, *layers))
    return Probed(
        vertex=decision.vertex,
        text=step.origin.text,
        runs=runs,
        results=len(seen),
        known_results=max(1, len(results_of(store.derived, key))),
        paths=shown,
        advice=advice_for(shown) if shown else (),
    )


def _subject(graph: Graph, decisions: dict[int, Decision], number: int) -> State | Source:
    vertex = graph.vertices[number]
    if isinstance(vertex, Base):
        return vertex.state
    if isinstance(vertex, Step):
        state = decisions[number].state
        assert state is not None
        return state
    return vertex


def _differing(old: Layer | None, new: Layer | None, inputs: Inputs) -> list[str]:
    """The paths whose entries differ between two layers."""
    before, after = _entries(old, inputs), _entries(new, inputs)
    return [
        os.fsdecode(path) for path in {**before, **after} if before.get(path) != after.get(path)
    ]


def _entries(layer: Layer | None, inputs: Inputs) -> dict[bytes, tuple[Any, ...]]:
    if layer is None:
        return {}
    found: dict[bytes, tuple[Any, ...]] = {}
    for entry in inputs.index(layer):
        node = entry.node
        if node is None:
            found[entry.path] = ("deleted",)
        elif not entry.implied:
            size = 0 if stat.S_ISDIR(node.mode) else node.size
            found[entry.path] = (
                node.mode, node.uid, node.gid, size, node.mtime, node.content, node.link,
            )  # fmt: skip
    return found
