"""Workers of a pool: no result of a worker that differs gets under the client's key, what a step
reads reaches it through the store, and nothing is silent."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

import attrs
import pytest

from layercache.builds.builder import Builder
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import BuildError
from layercache.events import Note
from layercache.executors.workspace.executor import Workspace
from layercache.model.instruction import Field
from layercache.model.task import StepTraits
from layercache.store.backends.memory import MemoryBackend
from layercache.store.open import open_store
from layercache.store.store import Store
from layercache.store.tiered import TieredStore
from layercache.testing.executors import MemoryExecutor
from layercache.testing.memory import snapshot

REMOTE: dict[str, MemoryBackend] = {}


class Worker(Executor):
    """Another machine: what it gets and gives is pickled, and its environment is its own."""

    def __init__(self, environment=(), dies=0):
        self.environment = dict(environment)
        self.dies = dies
        self.tasks: list[bytes] = []
        self.answers: list[Any] = []

    def submit(self, fn, /, *args, **kwargs):
        future: Future[Any] = Future()
        sent = pickle.dumps((fn, args, kwargs))
        self.tasks.append(sent)
        if self.dies:
            self.dies -= 1
            future.set_exception(BrokenExecutor("a worker died"))
            return future
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            function, arguments, keywords = pickle.loads(sent)
            answer = pickle.loads(pickle.dumps(function(*arguments, **keywords)))
            self.answers.append(answer)
            future.set_result(answer)
        finally:
            os.environ.clear()
            os.environ.update(before)
        return future


def tool(directory, text):
    directory.mkdir()
    path = directory / "mytool"
    path.write_text(f"#!/bin/sh\necho {text}\n")
    path.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def notes(events):
    return [event.message for event in events if isinstance(event, Note)]


RECIPE = Dockerfile.parse("FROM scratch\nCOPY a a\nRUN mytool > out; cat a >> out\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", tool(tmp_path / "here", "here"))
    events: list[object] = []

    def build(pool, context=None, recipe=RECIPE, **options):
        store = options.pop("store", None) or open_store(str(tmp_path / "cache"))
        executor = options.pop("executor", None) or Workspace(tmp_path / "work")
        builder = Builder(store, executor=executor, observers=[events.append], pool=pool, jobs=1)
        events.clear()
        return builder.build(recipe, context=context or {"a": "1\n"}, **options), list(events)

    return build


def test_a_worker_as_this_machine_does_the_work(machine):
    worker = Worker()
    result, events = machine(worker)

    assert snapshot(result.tree())["out"].content == b"here\n1\n"
    assert [type(answer.result).__name__ for answer in worker.answers] == ["Result"]
    assert not [text for text in notes(events) if "pool" in text]


def test_another_program_on_the_worker_is_no_stale_hit(machine, tmp_path):
    """The trait is named, the step runs here, and later builds hit what this machine gives."""
    lying = Worker({"PATH": tool(tmp_path / "there", "there")})
    result, events = machine(lying)

    assert snapshot(result.tree())["out"].content == b"here\n1\n"
    assert all(answer.result is None for answer in lying.answers)
    assert any("ran here" in text and "PATH" in text for text in notes(events))
    assert any("0 of 1 steps ran on the pool, 1 here" in text for text in notes(events))
    again, _ = machine(None)
    assert again.steps[-1].decision == "hit"
    assert snapshot(again.tree())["out"].content == b"here\n1\n"


def test_a_program_that_differs_under_the_same_path(machine, tmp_path):
    """The content of what the command names is compared, not only where it is looked for."""
    path = tmp_path / "here" / "mytool"
    honest = path.read_text()

    class Elsewhere(Worker):
        def submit(self, fn, /, *args, **kwargs):
            path.write_text("#!/bin/sh\necho there\n")
            try:
                return super().submit(fn, *args, **kwargs)
            finally:
                path.write_text(honest)

    result, events = machine(Elsewhere())
    assert snapshot(result.tree())["out"].content == b"here\n1\n"
    assert any("program mytool" in text for text in notes(events))


@pytest.mark.parametrize("name", ["LANG", "TZ", "LC_ALL"])
def test_each_trait_counts(machine, name):
    result, events = machine(Worker({name: "another"}))
    assert any(name in text for text in notes(events))
    assert result.report.ok


def test_another_version_on_the_worker(machine, monkeypatch):
    class Newer(Worker):
        def submit(self, fn, /, *args, **kwargs):
            (job,) = args
            return super().submit(fn, attrs.evolve(job, version="0.0.0"))

    _, events = machine(Newer())
    assert any("version of layercache" in text for text in notes(events))


@pytest.mark.parametrize("dies", [1, 2])
def test_a_worker_that_dies(machine, dies):
    """It is tried once elsewhere, then here; the next build works."""
    worker = Worker(dies=dies)
    result, events = machine(worker)

    assert snapshot(result.tree())["out"].content == b"here\n1\n"
    assert len(worker.tasks) == 2
    assert any("worker was lost" in text for text in notes(events)) == (dies == 2)
    assert machine(worker)[0].steps[-1].decision == "hit"


def test_a_step_that_fails_there_fails_here_with_a_report(machine):
    with pytest.raises(BuildError, match="exit status 3") as raised:
        machine(Worker(), recipe=Dockerfile.parse("FROM scratch\nRUN exit 3\n"))
    assert raised.value.report is not None
    assert raised.value.line == 2


def test_a_directory_reaches_a_worker_that_does_not_have_it(machine, tmp_path):
    """A mounted context: only what is read, once, through the store and not in the task."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("1")
    (context / "big").write_bytes(os.urandom(1 << 20))
    recipe = Dockerfile.parse(
        "FROM scratch\nRUN --mount=type=bind,source=a,target=/m cat /m > /out\n"
        "RUN --mount=type=bind,source=a,target=/m cat /m > /two\n"
    )

    class Without(Worker):
        def submit(self, fn, /, *args, **kwargs):
            context.rename(tmp_path / "away")
            try:
                return super().submit(fn, *args, **kwargs)
            finally:
                (tmp_path / "away").rename(context)

    worker = Without()
    result, events = machine(
        worker, context=context, recipe=recipe, executor=MemoryExecutor(base_images=True)
    )
    assert snapshot(result.tree())["two"].content == b"1"
    assert not notes(events)
    assert all(len(task) < 64 * 1024 for task in worker.tasks)
    assert all(str(context).encode() not in task for task in worker.tasks)


def test_secrets_go_only_to_the_step_that_mounts_them(machine, tmp_path):
    recipe = Dockerfile.parse(
        "FROM scratch\nRUN true > a\nRUN --mount=type=secret,id=one,env=ONE echo ${#ONE} > b\n"
    )
    worker = Worker()
    executor = Workspace(tmp_path / "work", secrets={"one": b"hunter-one", "two": b"hunter-two"})
    result, _ = machine(worker, recipe=recipe, executor=executor)

    assert snapshot(result.tree())["b"].content == b"10\n"
    assert [b"hunter-one" in task for task in worker.tasks] == [False, True]
    assert not any(b"hunter-two" in task for task in worker.tasks)
    for path in (tmp_path / "cache").rglob("*"):
        assert not path.is_file() or b"hunter" not in path.read_bytes()


class Machines(TieredStore):
    """A tiered store whose local part is each machine's own, and the far one common."""

    def __init__(self, name):
        REMOTE.setdefault(name, MemoryBackend())
        self.name = name
        remote = Store(REMOTE[name])
        super().__init__(Store(MemoryBackend()), cache_from=[remote], cache_to=[remote])

    def __reduce__(self):
        return Machines, (self.name,)


def test_over_a_tiered_store_each_step_runs_once(machine, tmp_path):
    """A worker's result is in the common tier before the step counts as done."""
    log = tmp_path / "log"
    recipe = Dockerfile.parse(f"FROM scratch\nRUN echo x >> {log}; echo 1 > a\nRUN cat a > b\n")
    with Machines(str(tmp_path)) as store:
        result, events = machine(Worker(), recipe=recipe, store=store)
        assert snapshot(result.tree())["b"].content == b"1\n"

    assert log.read_text() == "x\n"
    assert not [text for text in notes(events) if "pool" in text]


def test_a_store_that_is_not_shared_is_said(machine):
    """Each step runs here then, with the reason."""
    result, events = machine(Worker(), store=Store(MemoryBackend()))
    assert snapshot(result.tree())["out"].content == b"here\n1\n"
    assert any("not shared" in text or "could not use the store" in text for text in notes(events))


def test_traits_of_a_step_are_compared_too(machine):
    """An executor of one's own whose traits differ from process to process."""
    _, events = machine(
        Worker({"FLAVOUR": "there"}),
        executor=Flavoured(base_images=True),
        recipe=Dockerfile.parse("FROM scratch\nRUN write /f 1\n"),
    )
    assert any("flavour" in text for text in notes(events))


class Flavoured(MemoryExecutor, StepTraits):
    def traits_of_steps(self, steps):
        return [(Field("flavour", os.environ.get("FLAVOUR", "here")),) for _ in steps]
