"""Plans: the walk of a build with nothing executed and nothing written."""

from __future__ import annotations

import os
import time

import pytest

from layercache.builds.builder import Builder
from layercache.errors import LayerCacheError
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.base_images import MemoryImages
from layercache.testing.executors import MemoryExecutor
from layercache.testing.generating import SeededChoices, any_history
from layercache.testing.laws import BASE_IMAGES
from layercache.testing.layers import Layers
from tests.tally import SEED, tell


def _contents(backend):
    found = {}
    for info in backend.list(""):
        with backend.read(info.name) as content:
            found[info.name] = content.read()
    return found


def _files(directory):
    """Every path below a directory with its bytes and times."""
    found = {}
    for path, directories, names in os.walk(directory):
        for name in directories + names:
            full = os.path.join(path, name)
            stat = os.lstat(full)
            data = b""
            if name in names:
                with open(full, "rb") as content:
                    data = content.read()
            found[os.path.relpath(full, directory)] = (data, stat.st_mtime_ns, stat.st_mode)
    return found


@pytest.mark.parametrize("keys", [ContentKeys(), ChainKeys()], ids=lambda keys: keys.scheme)
def test_plans_foretell_builds(keys):
    """Over random edit histories: what a plan calls a hit or skipped is so in the build that
    follows, what would run runs; nothing is executed, and the store stays as it is."""
    started, plans, known, open_ = time.perf_counter(), 0, 0, 0
    for seed in range(SEED, SEED + 60):
        history = any_history(SeededChoices(seed), 4)
        backend = MemoryBackend()
        executor = MemoryExecutor(base_images=True, secrets={"token": b"t"})
        builder = Builder(
            Store(backend),
            executor=executor,
            keys=keys,
            images=MemoryImages(BASE_IMAGES),
            jobs=1,
        )
        for version in history:
            options = {"context": version.context, "project": "p", **version.options}
            before, executed = _contents(backend), len(executor.calls)
            try:
                plan = builder.plan(list(version.recipe), **options)
            except LayerCacheError:
                plan = None
            assert len(executor.calls) == executed
            assert _contents(backend) == before
            try:
                build = builder.build(list(version.recipe), **options)
            except LayerCacheError:
                continue
            assert plan is not None, "the build went well, and the plan did not"
            plans += 1
            for foretold, real in zip(plan.steps, build.steps, strict=True):
                if foretold.decision in ("hit", "skip", None):
                    assert real.decision == foretold.decision
                elif foretold.decision == "would-run":
                    assert real.decision == "miss"
                else:
                    assert foretold.decision == "undetermined"
                    open_ += 1
                if foretold.decision in ("hit", "would-run") and foretold.key is not None:
                    assert foretold.key == real.key or real.evidence in ("rebase", "trace")
                known += foretold.decision in ("hit", "would-run")
    more = f"; {known} steps foretold, {open_} left open"
    tell(f"plans, {keys.scheme}", plans, time.perf_counter() - started, more=more)
    assert known > 3 * open_


TEXT = """\
FROM scratch AS build
COPY package.json /app/
RUN install
COPY . /app/
RUN compile
FROM scratch
COPY --from=build /made /made
RUN check
LABEL a=b
"""

FILES = {"package.json": "{}", "a": "1"}


def test_the_plan_of_what_is_unchanged_is_all_hits(layers):
    """Right after a build, its plan reuses every step, and knows the image."""
    built = layers.build(TEXT, FILES)
    plan = layers.plan()
    plan.assert_reused().assert_nothing_executed()
    assert plan.result.image == built.result.image
    assert [s.layer for s in plan.steps] == [s.layer for s in built.steps]


def test_the_first_plan(layers):
    """Nothing is known: what reads the context only would run; of the rest the same is true,
    since no record could match whatever they wait for."""
    plan = layers.plan(TEXT, FILES)
    assert {s.decision for s in plan.steps if s.decision} == {"would-run"}
    assert plan.result.image is None
    assert not list(layers.store.backend.list(""))


def test_what_would_run_and_what_is_open(layers):
    """A changed file: its COPY would run; what follows waits for it, and the plan says for what
    and what the last build suggests."""
    layers.build(TEXT, FILES)
    layers.edit("a", "2")
    plan = layers.plan()

    assert [s.decision for s in plan.steps] == [
        None, "hit", "hit", "would-run", "undetermined", None, "undetermined", "undetermined", None,
    ]  # fmt: skip
    compile_, copy, check = (plan.steps[n] for n in (4, 6, 7))
    assert compile_.until == ((0, 3),)
    assert copy.until == ((0, 3),)
    assert check.until == ((0, 3),)
    assert "can't be known before 'COPY . /app/' has run" in plan.result.explain(compile_)
    assert {compile_.likely, copy.likely, check.likely} <= {"hit", "would-run"}
    plan.assert_rebuilt("COPY . /app/", because="a")


def test_a_command_of_which_there_is_no_record_would_run(layers):
    """Whatever an earlier step yields, a new command can't be reused."""
    layers.build(TEXT, FILES)
    layers.edit("a", "2")
    plan = layers.plan(TEXT.replace("RUN compile", "RUN compile faster"))
    assert plan.decision("RUN compile faster") == "would-run"


def test_early_cutoff_is_left_open(layers):
    """A step that may come out as before leaves what follows open, and the build then hits."""
    text = "FROM scratch\nCOPY a /a\nRUN write /b 1 && rm /a\nRUN check\n"
    layers.build(text, {"a": "1"})
    layers.edit("a", "2")
    assert layers.plan().decision("RUN check") == "undetermined"


def test_bypassing_in_a_plan(layers):
    """What bypasses the cache would run, and is said to for that reason."""
    layers.build(TEXT, FILES)
    plan = layers.plan(no_cache=True)
    plan.assert_rebuilt("COPY package.json /app/", because="no-cache")
    plan = layers.plan(no_cache_filter=["build"])
    assert plan.steps[1].decision == "would-run"


def test_a_missing_source_in_a_plan(layers):
    """A file that is not there is an error, as in a build."""
    with pytest.raises(LayerCacheError, match=r"nothing\.txt"):
        layers.plan("FROM scratch\nCOPY nothing.txt /\n", FILES)


def test_a_plan_over_directories_writes_nothing(tmp_path):
    """Neither the cache, nor the stat cache, nor the context is touched: not a byte, not a time."""
    context, cache = tmp_path / "context", tmp_path / "cache"
    for name, content in FILES.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with Builder(str(cache), executor=MemoryExecutor(), jobs=1) as builder:
        from layercache.dockerfile.recipe import Dockerfile

        recipe = Dockerfile.parse(TEXT)
        builder.build(recipe, context=str(context))
        (context / "a").write_text("22")
        (context / "new").write_text("3")
        before = _files(tmp_path)
        plan = builder.plan(recipe, context=str(context))
        other = Dockerfile.parse(TEXT.replace("/made /made", "/app /app"))
        builder.plan(other, context=str(context))
        after = _files(tmp_path)

    assert {s.decision for s in plan.steps} >= {"hit", "would-run"}
    assert after == before


def test_a_plan_in_an_empty_place_makes_nothing(tmp_path):
    """A plan over a cache that is not there yet leaves no cache behind."""
    layers = Layers(store=Store(LocalBackend(tmp_path / "cache")))
    layers.plan(TEXT, FILES)
    left = [name for name, (data, *_) in _files(tmp_path).items() if data]
    assert left == []
