"""Random histories over time, by kind, and the one law for all: each hit equals a clean rebuild.

A history is one project built several times: edits and reverts between the builds, steps without
the cache, a store that loses, rots and is pruned. Each is a function of its kind and its seed.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from layercache import Builder, CacheError, Dockerfile, LayerCacheError
from layercache.builds.result import BuildResult
from layercache.executors.workspace.executor import Workspace
from layercache.model.graph import Graph, Step
from layercache.model.instruction import Instruction
from layercache.model.keys import KeyStrategy
from layercache.model.operations import CopyFiles
from layercache.model.sources import ContextSource
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.solver.walker import GraphWalker
from layercache.store.backends.memory import MemoryBackend
from layercache.store.collection import collect
from layercache.store.parts import Cache
from layercache.store.store import Store
from layercache.store.tiered import TieredStore
from layercache.testing import driving
from layercache.testing.driving import Driver, Say, any_graph, reference
from layercache.testing.generating import Choices, SeededChoices, any_history
from layercache.testing.laws import LawBroken, LawWorld, Tally, check_history
from layercache.testing.memory import snapshot
from layercache.testing.walks import check_links
from layercache.testing.watching import any_watched_history

__all__ = ["KINDS", "Tally"]


# -- walks over values alone ------------------------------------------------------------------


def walk(seed: int, keys: Callable[[], KeyStrategy] = ContentKeys) -> Tally:
    """Graphs of plain values, walked again and again as they change.

    Answers come in any order, hits are taken back, records go, steps bypass the cache, machines
    know only a part. Faithful commands must leave what the graph means; those that give
    something else each time must never be mixed.
    """
    choices = SeededChoices(seed)
    tally = Tally(histories=1)
    unstable = choices.number(1, 3) == 1
    strategy = ChainKeys() if unstable and choices.number(1, 3) == 1 else keys()
    world = driving.World(unstable=unstable)
    graphs = [any_graph(choices, choices.number(1, 6), bypass=True)]
    for number in range(choices.number(2, 4)):
        if number:
            graphs.append(_edited(choices, graphs, world))
            _forget(choices, world)
        graph = graphs[-1]
        over = GraphWalker().start(graph, strategy)
        driver = Driver(over, world, choices, losses=choices.pick((0, 0, 0, 15)))
        decisions = driver.run()
        tally.builds += 1
        tally.count(decisions)
        try:
            check_links(graph, over, decisions, world)
        except AssertionError as error:
            raise LawBroken(f"build {number}: {error}") from error
        if not unstable:
            expected = reference(graph, strategy, world)
            for decision in decisions:
                if decision.outcome != "skip" and decision.state != expected[decision.vertex]:
                    raise LawBroken(f"build {number}: step {decision.vertex} is another state")
    return tally


def _edited(choices: Choices, graphs: list[Graph], world: driving.World) -> Graph:
    """The last graph with a step or a context otherwise, or an earlier one again."""
    kind = choices.number(1, 5)
    if kind == 1:
        return choices.pick(graphs)
    if kind == 2:
        source = ContextSource(choices.pick(("", "second")))
        world.versions[source.name] = choices.pick(("1", "2", ""))
    graph = graphs[-1]
    steps = [n for n, v in enumerate(graph.vertices) if isinstance(v, Step)]
    number = choices.pick(steps)
    vertices = list(graph.vertices)
    step = vertices[number]
    assert isinstance(step, Step)
    if isinstance(step.instruction, CopyFiles):
        destination = choices.pick(("/", "/d", "/e"))
        change: Instruction = attrs.evolve(step.instruction, destination=destination)
    else:
        assert isinstance(step.instruction, Say)
        change = attrs.evolve(
            step.instruction, text=choices.pick(("a", "b", "c")), still=choices.number(1, 6) == 1
        )
    vertices[number] = attrs.evolve(step, instruction=change, bypass=choices.number(1, 8) == 1)
    return Graph(tuple(vertices), graph.targets)


def _forget(choices: Choices, world: driving.World) -> None:
    """Pruning, decay, or another machine that knows less."""
    share = choices.pick((0, 0, 30, 70))
    for records in (world.records, world.narrow):
        for key in sorted(records):
            if choices.number(1, 100) <= share:
                del records[key]


# -- whole builds in memory -------------------------------------------------------------------


def memory(seed: int) -> Tally:
    """Dockerfiles in memory: three builders on one store, faults, traces on and off."""
    choices = SeededChoices(seed)
    world = _world(seed, choices, store=None)
    history = any_history(choices, choices.number(2, 4))
    check_history(history, world, choices, mishaps=choices.pick((0, 0, 45)))
    return world.tally


def watched(seed: int) -> Tally:
    """Recipes in which nearly every command is reused, or not, by what it looked at."""
    choices = SeededChoices(seed)
    world = _world(seed, choices, store=None, trace="auto")
    history = any_watched_history(choices, choices.number(2, 4))
    check_history(history, world, choices, mishaps=choices.pick((0, 0, 45)))
    return world.tally


def shared(seed: int) -> Tally:
    """Two machines, each with a store of its own before one that they share; both are pruned."""
    choices = SeededChoices(seed)
    own = [MemoryBackend(), MemoryBackend(), MemoryBackend()]

    def store(common: MemoryBackend, machine: int) -> Cache:
        if choices.number(1, 8) == 1:
            collect(Store(choices.pick((common, own[machine]))), [], everything=True, grace=0.0)
        remote = Store(common)
        return TieredStore(Store(own[machine]), cache_from=[remote], cache_to=[remote])

    world = _world(seed, choices, store=store)
    try:
        history = any_history(choices, choices.number(2, 4))
        check_history(history, world, choices, mishaps=choices.pick((0, 0, 45)))
    finally:
        world.close()
    return world.tally


def _world(
    seed: int,
    choices: Choices,
    *,
    store: Callable[[MemoryBackend, int], Cache] | None,
    trace: str = "",
) -> LawWorld:
    return LawWorld(
        machines=choices.number(1, 3),
        unstable=seed if choices.number(1, 3) == 1 else None,
        trace=trace or choices.pick(("off", "auto")),
        store=store,
    )


# -- real commands in a plain directory -------------------------------------------------------

_WORDS = ("one", "two", "three")
_FILES = ("a.txt", "b.txt", "d/x", "d/e/y", "s.sh")
_RUNS = (
    "cat in/*.txt > sum 2>/dev/null || echo none > sum",
    "find in -type f | sort > list; wc -l < list > count",
    "mkdir -p out && cp -R in/d out/ 2>/dev/null || echo no > out/no",
    "rm -rf out/d sum",
    "mv list moved 2>/dev/null || true",
    "ls -l in | sed 's/ .*//' > modes",
    "echo $V > value; printenv A >> value || true",
    "ln -sf in/a.txt link; test -e link && echo there > seen || rm -f seen",
    "chmod 700 in/d 2>/dev/null || true",
    "umask > mask",
)


def workspace(seed: int) -> Tally:
    """Shell commands in plain directories: three builders on one store, its objects go and rot."""
    rng = random.Random(seed)
    tally = Tally(histories=1)
    with tempfile.TemporaryDirectory(prefix="layercache-history-") as directory:
        place = Path(directory)
        files = {name: _content(rng) for name in _FILES if rng.random() < 0.8}
        lines = [_line(rng) for _ in range(rng.randint(2, 4))]
        past = [(dict(files), list(lines))]
        for number in range(rng.randint(2, 3)):
            if number:
                files, lines = _moment(rng, files, lines, past)
                past.append((dict(files), list(lines)))
                _mishap(rng, place / "cache")
            recipe = Dockerfile.parse("FROM scratch\n" + "\n".join(lines) + "\n")
            context = place / "context"
            _write(context, files)
            machine = place / f"machine{rng.randrange(3)}"
            with _open(place / "cache") as store:
                builder = Builder(store, executor=Workspace(machine))
                ours = _outcome(builder, recipe, context, tally)
                if rng.random() < 0.2:
                    _outcome(builder, recipe, context, None, no_cache=True)
            with _open(place / f"clean{number}") as store:
                # The root's path is one that a command may see: the clean build has the same.
                theirs = _outcome(
                    Builder(store, executor=Workspace(machine)), recipe, context, None
                )
            if ours != theirs:
                raise LawBroken(f"build {number}: {lines}\n{files}\n{ours}\n{theirs}")
    return tally


def _open(directory: Path) -> Cache:
    from layercache.store.open import open_store

    return open_store(str(directory))


def _content(rng: random.Random) -> tuple[str, int]:
    return f"{rng.choice(_WORDS)} {rng.randrange(3)}\n", rng.choice((0o644, 0o644, 0o600, 0o755))


def _line(rng: random.Random) -> str:
    return rng.choice(
        (
            "COPY . in/",
            "COPY d in/d",
            "COPY *.txt in/",
            "COPY --chmod=640 a.txt in/",
            f"ENV A={rng.randrange(3)}",
            f"ARG V={rng.randrange(3)}",
            "WORKDIR w",
            *(f"RUN {command}" for command in _RUNS),
        )
    )


def _moment(
    rng: random.Random,
    files: dict[str, tuple[str, int]],
    lines: list[str],
    past: list[tuple[dict[str, tuple[str, int]], list[str]]],
) -> tuple[dict[str, tuple[str, int]], list[str]]:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(past)
    files, lines = dict(files), list(lines)
    if kind == 1 and len(files) > 1:
        del files[rng.choice(sorted(files))]
    elif kind == 2:
        lines[rng.randrange(len(lines))] = _line(rng)
    elif kind == 3:
        rng.shuffle(lines)
    else:
        files[rng.choice(_FILES)] = _content(rng)
    return files, lines


def _write(context: Path, files: Mapping[str, tuple[str, int]]) -> None:
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    for name, (text, mode) in files.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


def _mishap(rng: random.Random, cache: Path) -> None:
    """Sometimes an object of the cache goes or rots, or the cache is pruned."""
    kind = rng.randrange(4)
    if kind == 3:
        with _open(cache) as store:
            collect(store, [], everything=rng.random() < 0.3, grace=0.0)
    if kind:
        return
    found = [p for p in sorted(cache.rglob("*")) if p.is_file() and p.name != "format"]
    for path in rng.sample(found, min(2, len(found))):
        data = bytearray(path.read_bytes())
        if data and rng.random() < 0.5:
            data[rng.randrange(len(data))] ^= 0x41
            path.chmod(0o600)
            path.write_bytes(bytes(data))
        else:
            path.unlink()


def _outcome(
    builder: Builder,
    recipe: Dockerfile,
    context: Path,
    tally: Tally | None,
    *,
    no_cache: bool = False,
) -> object:
    while True:
        try:
            result: BuildResult = builder.build(recipe, context=context, no_cache=no_cache)
        except LayerCacheError as error:
            if tally is not None:
                tally.builds += 1
                tally.failed += 1
            return type(error).__name__
        if tally is not None:
            tally.builds += 1
            tally.count(result.decisions)
        try:
            return snapshot(result.tree())
        except CacheError:
            continue  # a layer that no step read has rotted: noticed now, and made again


# -- real commands in root file systems -------------------------------------------------------


def rootfs(seed: int) -> Tally:
    """Dockerfiles with real commands on a base image; see `test_rootfs`."""
    from layercache.executors.rootfs import RootfsExecutor
    from layercache.testing.images import busybox_layer, make_layout
    from tests.soundness.test_rootfs import run_history

    layer = busybox_layer()
    assert layer is not None, "needs a static busybox"
    with tempfile.TemporaryDirectory(prefix="layercache-history-") as directory:
        place = Path(directory)
        make_layout(place / "layout", [layer], {"Env": ["PATH=/bin"]})
        here = place / "history"
        here.mkdir()
        with RootfsExecutor(place / "rootfs") as executor:
            builds = run_history(seed, here, f"oci-layout://{place / 'layout'}", executor)
    return Tally(histories=1, builds=builds)


KINDS: Mapping[str, Callable[[int], Tally]] = {
    "walk": walk,
    "memory": memory,
    "watched": watched,
    "shared": shared,
    "workspace": workspace,
    "rootfs": rootfs,
}
"""Kind → one history of it, from its seed; raises `LawBroken` where a hit lies."""
