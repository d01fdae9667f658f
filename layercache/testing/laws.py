"""The laws of caching, checked over edit histories.

- With deterministic commands, a cached build gives the same result as a clean build, to the byte.
- With any commands, a cached build equals *some* clean build: each layer is one that its step can
  produce on exactly the state below it, from exactly the inputs of this build. A layer that was
  reused by its whole parent was made there. A layer that was reused by a trace was made on another
  state, by an execution that produces it on this state, too, if its choices (data that no key
  covers: the clock, random numbers, the network) are held fixed.

Both hold whatever happens to the store meanwhile: records and blobs may be lost or damaged.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import attrs

from layercache._base.classes import define
from layercache.builds.builder import Builder
from layercache.builds.result import BuildResult
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import CacheError, LayerCacheError, StepFailed
from layercache.executors.copy import copy_layer
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import ChainID, DiffID, Fingerprint
from layercache.model.graph import Graph, Input, Step
from layercache.model.instruction import Instruction
from layercache.model.keys import KeyStrategy
from layercache.model.operations import PARENT, Exec
from layercache.model.selectors import Nothing
from layercache.model.task import BoundInput, Executor, Task
from layercache.solver.protocol import Decision, Walker
from layercache.store.backends.memory import MemoryBackend
from layercache.store.parts import Cache
from layercache.store.store import Store
from layercache.testing.base_images import MemoryImage, MemoryImages
from layercache.testing.executors import Call, MemoryExecutor, UnstableExecutor
from layercache.testing.generating import Choices, ContextVersion
from layercache.testing.observing import RecordingWalker
from layercache.testing.oracle import clean_build
from layercache.testing.workbench import Workbench
from layercache.trees.in_memory import link

__all__ = ["BASE_IMAGES", "LawBroken", "LawWorld", "Tally", "check_history"]

BASE_IMAGES = {
    "base:1": MemoryImage.of(
        {"app/a.txt": "base", "etc/passwd": "root:x:0:0:::\nuser:x:7:7:::\n", "old": "1"},
        env={"A": "from base"},
    ),
    "base:2": MemoryImage.of(
        {"app/src/main.c": "base", "real/f": "1", "d": link("/real"), "old": "2"},
        workdir="/app",
        onbuild=["RUN echo triggered > /triggered"],
    ),
}
"""The contents of the base images that generated recipes name."""


class LawBroken(AssertionError):
    """A law is violated; the message contains the whole history."""


@define
class Tally:
    """Counts of a run of histories, to show that it exercised the cache."""

    histories: int = 0
    builds: int = 0
    failed: int = 0
    hits: int = 0
    narrow: int = 0
    traced: int = 0
    misses: int = 0

    def count(self, decisions: Iterable[Decision]) -> None:
        """Add the decisions of one build."""
        for decision in decisions:
            self.hits += decision.outcome == "hit"
            self.narrow += decision.evidence in ("rebase", "trace")
            self.traced += decision.evidence == "trace"
            self.misses += decision.outcome == "miss"

    def add(self, other: Tally) -> None:
        """Add another tally."""
        for field in attrs.fields(Tally):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class LawWorld:
    """Everything that outlives a build: the store's objects, machines, all executions so far.

    Args:
        keys: the key strategy under test.
        walker: the walker under test.
        machines: how many build in turn; each has an executor of its own, all share the store.
        unstable: seed of commands that produce another layer each time; None: deterministic ones.
        trace: whether commands are reused by their observed reads: "off" or "auto".
        executor: wraps the executor of each machine.
        store: opens the store of a machine (its number) over the shared objects; by default each
            works on them directly.
    """

    def __init__(
        self,
        keys: KeyStrategy | None = None,
        walker: Walker | None = None,
        *,
        machines: int = 1,
        unstable: int | None = None,
        trace: str = "off",
        executor: Callable[[Executor], Executor] | None = None,
        store: Callable[[MemoryBackend, int], Cache] | None = None,
    ) -> None:
        self.backend = MemoryBackend()
        self._open = store or (lambda backend, _: Store(backend))
        self.images = MemoryImages(BASE_IMAGES)
        self.unstable = unstable is not None
        self.tally = Tally()
        self._keys = keys
        self._trace = trace
        self._walker = walker
        self._unstable: list[UnstableExecutor] = []
        self._machines: list[tuple[Executor, Cache]] = []
        for number in range(machines):
            one: Executor = _commands()
            if unstable is not None:
                one = UnstableExecutor(one, unstable * 100 + number, chance=0.7)
                self._unstable.append(one)
            if executor is not None:
                one = executor(one)
            self._machines.append((one, self._open(self.backend, number)))

    def build(
        self, version: ContextVersion, machine: int = 0, *, fresh: bool = False, text: bool = False
    ) -> None:
        """Build one version and check the laws; `fresh`: as a new process, `text`: as a file."""
        executor, store = self._machines[machine]
        if fresh:
            store.close()
            store = self._open(self.backend, machine)
            self._machines[machine] = (executor, store)
        walker = RecordingWalker(self._walker)
        builder = Builder(
            store,
            executor=executor,
            keys=self._keys,
            walker=walker,
            images=self.images,
            jobs=1,
        )
        recipe = Dockerfile.parse(version.text) if text else version.recipe
        cached, error = _outcome(
            lambda: builder.build(
                recipe,
                context=version.context,
                project="project",
                trace=self._trace,
                **version.options,
            )
        )
        self.tally.builds += 1
        self.tally.failed += error is not None
        if walker.walks:
            self.tally.count(walker.last[1].decisions())
        if self.unstable:
            if walker.walks:
                self._check_links(version, store, *walker.last)
            return
        clean, clean_error = _outcome(
            lambda: clean_build(
                recipe,
                version.context,
                executor=_commands(),
                images=self.images,
                **version.options,
            )
        )
        # The order in which two faults are met is not defined.
        if (error is None) != (clean_error is None):
            raise LawBroken(f"the cached build ended with {error!r}, a clean one {clean_error!r}")
        if cached is not None and clean is not None and cached.state != clean.state:
            raise LawBroken(_difference(cached, clean))

    def close(self) -> None:
        """Close the stores of all machines."""
        for _, store in self._machines:
            store.close()

    # -- no mixture -------------------------------------------------------------------------

    def _check_links(
        self, version: ContextVersion, store: Cache, graph: Graph, walk: _Bound
    ) -> None:
        """Each bound state is its parent's plus a layer that its step can produce on exactly
        that.
        """
        calls = [call for executor in self._unstable for call in executor.log]
        made: dict[tuple[Instruction, ChainID, _Inputs], set[DiffID | None]] = {}
        for call in calls:
            made.setdefault(_place_of(call), set()).add(call.diff_id)
        bench = Workbench({"": version.context}, store)
        for decision in walk.decisions():
            step = graph.vertices[decision.vertex]
            if decision.state is None or not isinstance(step, Step):
                continue
            try:
                task = _task(step, walk, bench)
            except CacheError:
                continue
            parent = next((walk.state(e.vertex) for e in step.inputs if e.role == PARENT), SCRATCH)
            layer = decision.record.layer if decision.record is not None else None
            if parent is None or parent.plus(layer) != decision.state:
                raise LawBroken(f"{step.origin.text!r} is not bound to its parent plus its layer")
            diff_id = None if layer is None else layer.diff_id
            if decision.evidence == "trace":
                try:
                    possible = self._is_possible(task, diff_id, calls, bench)
                except CacheError:
                    continue  # the state below it was damaged meanwhile
                if not possible:
                    raise LawBroken(
                        f"{step.origin.text!r}: no execution that gave its layer {diff_id} gives "
                        f"it on {parent.chain_id or 'scratch'}, the state it was put on"
                    )
                continue
            if isinstance(step.instruction, Exec):
                if diff_id not in made.get(_place_of(Call.of(task, None)), ()):
                    raise LawBroken(
                        f"{step.origin.text!r}: its layer {diff_id} was never made on "
                        f"{parent.chain_id or 'scratch'}, the state it was put on"
                    )
                continue
            try:
                copied = copy_layer(task, bench).layer
            except CacheError:
                continue  # the source of the copy was damaged meanwhile
            if (None if copied is None else copied.diff_id) != diff_id:
                raise LawBroken(f"{step.origin.text!r} copied something else than it would now")

    def _is_possible(
        self, task: Task, diff_id: DiffID | None, calls: Iterable[Call], bench: Workbench
    ) -> bool:
        """Whether an execution that once produced this layer produces it for `task` with equal
        choices.
        """
        wanted = Call.of(task, None)
        once = {
            call.choice
            for call in calls
            if (call.instruction, call.inputs) == (wanted.instruction, wanted.inputs)
            and call.diff_id == diff_id
        }
        again = UnstableExecutor(_commands(), 0)
        for choice in once:
            try:
                layer = again.again(task, bench, choice).layer
            except StepFailed:
                continue
            if (None if layer is None else layer.diff_id) == diff_id:
                return True
        return False

    # -- mishaps ----------------------------------------------------------------------------

    def mishap(self, choices: Choices) -> None:
        """A random mishap of the store: any object may be lost or damaged."""
        names = sorted(info.name for info in self.backend.list(""))
        victims = [name for name in names if not name.startswith("format")]
        if not victims:
            return
        for _ in range(choices.number(1, 3)):
            name = choices.pick(victims)
            try:
                with self.backend.read(name) as content:
                    data = content.read()
            except LayerCacheError:
                continue  # gone already
            if not data or choices.number(1, 2) == 1:
                self.backend.delete(name)
            else:
                at = choices.number(0, len(data) - 1)
                rotten = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
                self.backend.write(name, io.BytesIO(rotten))


def check_history(
    history: Sequence[ContextVersion], world: LawWorld, choices: Choices, *, mishaps: int = 0
) -> None:
    """Build all versions in order and check the laws after each; raises `LawBroken`.

    `mishaps`: percentage of builds that a mishap of the store precedes. The machine, an old or a
    new process, and values or text as the recipe are chosen at random.
    """
    world.tally.histories += 1
    for number, version in enumerate(history):
        if mishaps and choices.number(1, 100) <= mishaps:
            world.mishap(choices)
        try:
            world.build(
                version,
                choices.number(0, len(world._machines) - 1),
                fresh=choices.number(1, 2) == 1 or bool(mishaps),
                text=choices.number(1, 3) == 1,
            )
        except LawBroken as error:
            raise LawBroken(f"{error}\n\n{_story(history[: number + 1])}") from None


# -- helpers --------------------------------------------------------------------------------

_Inputs = tuple[tuple[str, Fingerprint], ...]


class _Bound(Protocol):
    """The needed facts of a finished walk."""

    def decisions(self) -> Sequence[Decision]: ...

    def state(self, vertex: int) -> State | None: ...


def _commands() -> MemoryExecutor:
    return MemoryExecutor(base_images=True, secrets={"token": b"t0ken"})


def _place_of(call: Call) -> tuple[Instruction, ChainID, _Inputs]:
    return call.instruction, call.parent, call.inputs


def _outcome(
    build: Callable[[], BuildResult],
) -> tuple[BuildResult | None, LayerCacheError | None]:
    try:
        return build(), None
    except LayerCacheError as error:
        return None, error


def _task(step: Step, walk: _Bound, bench: Workbench) -> Task:
    """The task that executing `step` now would get."""
    bound = tuple(_bound(edge, walk.state(edge.vertex), bench) for edge in step.inputs)
    return Task(step.instruction, bound, step.traits, step.bypass)


def _bound(edge: Input, state: State | None, bench: Workbench) -> BoundInput:
    subject = state if state is not None else bench.context()
    if isinstance(edge.selector, Nothing):
        return BoundInput(edge.role, SCRATCH, edge.selector, Fingerprint(""))
    found = bench.fingerprint(subject, edge.selector)
    return BoundInput(edge.role, subject, edge.selector, found)


def _difference(cached: BuildResult, clean: BuildResult) -> str:
    from layercache.testing.memory import snapshot

    try:
        one, two = snapshot(cached.tree()), snapshot(clean.tree())
    except LayerCacheError as error:
        return f"the cached build left other layers than a clean one, and can't be read: {error}"
    lines = ["a cached build left something else than a clean one:"]
    for path in sorted({*one, *two}):
        if one.get(path) != two.get(path):
            lines.append(f"  {path}: cached {one.get(path)}, clean {two.get(path)}")
    if len(lines) == 1:
        lines.append("  the trees agree, their layers do not")
    return "\n".join(lines)


def _story(history: Sequence[ContextVersion]) -> str:
    lines = []
    for number, version in enumerate(history):
        context: Mapping[str, object] = {
            path: value if isinstance(value, str) else (oct(value[0].mode), value[1])
            for path, value in version.context.items()
        }
        lines.append(f"-- build {number}: {context} {dict(version.options)}\n{version.text}")
    return "\n".join(lines)
