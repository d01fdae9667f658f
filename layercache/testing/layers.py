"""Cache behaviour as short assertions: `Layers` builds a project that lives in memory.

    layers = Layers()
    layers.build(DOCKERFILE, {"package.json": "{}", "server.js": "1"})
    layers.edit("server.js", "2")
    layers.build().assert_reused("RUN npm install").assert_rebuilt("COPY . .", because="server.js")

Nothing real runs: commands are those of `MemoryExecutor`, and FROM may name anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from layercache._base.classes import evolve
from layercache.builds.builder import Builder
from layercache.builds.result import BuildResult
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import UsageError
from layercache.model.graph import Origin
from layercache.model.keys import KeyStrategy
from layercache.model.task import Executor
from layercache.model.tree import Node
from layercache.reports.reasons import CAUSES
from layercache.reports.report import StepReport
from layercache.solver.step_filter import step_selector
from layercache.store.parts import Cache
from layercache.testing.base_images import MemoryImage, MemoryImages
from layercache.testing.executors import MemoryExecutor
from layercache.testing.memory import MemoryEntry, snapshot
from layercache.trees.in_memory import file

__all__ = ["Build", "Layers"]


class Build:
    """One build, or plan, of a `Layers`, with assertions that can be chained.

    A step is named by its text in the Dockerfile (white space counts as one blank), otherwise as in
    `--no-cache-step`: `RUN`, `build:3`, `RUN npm *`, which select all matching steps.
    """

    def __init__(self, result: BuildResult, executions: list[str]) -> None:
        self.result = result
        self.executions = executions
        """The commands that this build executed, in order."""

    @property
    def steps(self) -> tuple[StepReport, ...]:
        """One for each instruction."""
        return self.result.steps

    @property
    def files(self) -> dict[str, MemoryEntry]:
        """Every path of the result, with its entry."""
        return snapshot(self.result.tree())

    def decision(self, step: str) -> str | None:
        """The decision for the one step of this name."""
        return self.find(step)[0].decision

    def find(self, name: str) -> list[StepReport]:
        """The steps of this name; raises `AssertionError` if there is none."""
        wanted = " ".join(name.split())
        found = [step for step in self.steps if " ".join(step.text.split()) == wanted]
        if not found:
            matches = step_selector(name)
            found = [
                step
                for step in self.steps
                if step.decision is not None
                and matches(Origin(step.stage, step.index, None, 0, step.op, step.text))
            ]
        if not found:
            raise AssertionError(f"there is no step {name!r}; there are:\n{self._table()}")
        return found

    def assert_reused(self, *steps: str) -> Self:
        """Each of these was a hit; without arguments: every step with a decision was."""
        __tracebackhide__ = True
        return self._assert("hit", "reused", steps)

    def assert_rebuilt(self, *steps: str, because: str | None = None) -> Self:
        """Each of these was executed (or, in a plan, would be).

        `because` is a path or name that changed, the text of the earlier step that caused it, or a
        cause such as "no-cache".
        """
        __tracebackhide__ = True
        self._assert(("miss", "would-run"), "rebuilt", steps)
        for name in steps if because is not None else ():
            for step in self.find(name):
                if because not in self._reasons(step):
                    raise AssertionError(
                        f"{step.text!r} was rebuilt, but not because of {because!r}:\n"
                        + self.result.explain(step)
                    )
        return self

    def assert_skipped(self, *steps: str) -> Self:
        """Each of these was not evaluated."""
        __tracebackhide__ = True
        return self._assert("skip", "skipped", steps)

    def assert_nothing_executed(self) -> Self:
        """Every step that the target needs was reused."""
        __tracebackhide__ = True
        ran = [step for step in self.steps if step.decision in ("miss", "would-run")]
        if ran or self.executions:
            raise AssertionError("something was executed:\n" + self._table())
        return self

    # -- helpers ----------------------------------------------------------------------------

    def _assert(self, wanted: str | tuple[str, ...], verb: str, names: tuple[str, ...]) -> Self:
        __tracebackhide__ = True
        found = [step for name in names for step in self.find(name)]
        if not names:
            found = [step for step in self.steps if step.decision is not None]
        outcomes = (wanted,) if isinstance(wanted, str) else wanted
        wrong = [step for step in found if step.decision not in outcomes]
        if wrong:
            lines = [f"not {verb}: {step.text}" for step in wrong]
            lines += [self.result.explain(step) for step in wrong]
            raise AssertionError("\n".join([*lines, "the whole build:", self._table()]))
        return self

    def _reasons(self, step: StepReport) -> set[str]:
        reason = step.reason
        if reason is None:
            return set()
        found = {reason.cause, CAUSES.get(reason.cause, "")}
        for change in reason.changes:
            found |= {change.path, change.kind, f"{change.kind} {change.path}"}
        if reason.step is not None:
            found |= {other.text for other in self.steps if other.place == reason.step}
        return found

    def _table(self) -> str:
        return "\n".join(f"  {step.decision or '-':<13}{step.text}" for step in self.steps)


class Layers:
    """A project in memory, built repeatedly over one cache.

    Args:
        executor: runs commands; a `MemoryExecutor` by default.
        keys: the key strategy under test.
        store: the cache; another `Layers` over the same one acts as another machine.
        images: base images by name; without it, FROM takes any name as an empty image.
    """

    def __init__(
        self,
        *,
        executor: Executor | None = None,
        keys: KeyStrategy | None = None,
        store: Cache | None = None,
        images: Mapping[str, MemoryImage] | None = None,
    ) -> None:
        self._memory = MemoryExecutor(base_images=images is not None)
        self._executor = executor or self._memory
        self._builder = Builder(
            store,
            executor=self._executor,
            keys=keys,
            images=MemoryImages(images) if images is not None else None,
            jobs=1,
        )
        self._recipe = ""
        self.files: dict[str, str | bytes | tuple[Node, bytes]] = {}

    @property
    def store(self) -> Cache:
        """The cache."""
        return self._builder.store

    @property
    def executions(self) -> list[str]:
        """The commands that were executed so far, in order."""
        texts: list[str] = getattr(self._executor, "texts", [])
        return list(texts)

    # -- the project ------------------------------------------------------------------------

    def dockerfile(self, text: str) -> Self:
        """Replace the Dockerfile."""
        self._recipe = text
        return self

    def edit(self, path: str, content: str | bytes | tuple[Node, bytes]) -> Self:
        """Write a file of the context; an existing one keeps its mode."""
        before = self.files.get(path)
        if isinstance(before, tuple) and before[0].is_file and not isinstance(content, tuple):
            content = file(content, before[0].mode & 0o7777)
        self.files[path] = content
        return self

    def remove(self, path: str) -> Self:
        """Remove a file of the context, or everything below a directory."""
        gone = [name for name in self.files if name == path or name.startswith(path + "/")]
        if not gone:
            raise UsageError(f"{path!r} is not in the context")
        for name in gone:
            del self.files[name]
        return self

    def rename(self, old: str, new: str) -> Self:
        """Give a file of the context another name."""
        if old not in self.files:
            raise UsageError(f"{old!r} is not in the context")
        self.files[new] = self.files.pop(old)
        return self

    def chmod(self, path: str, mode: int) -> Self:
        """Set the permission bits of a file of the context."""
        if path not in self.files:
            raise UsageError(f"{path!r} is not in the context")
        value = self.files[path]
        node, data = value if isinstance(value, tuple) else file(value)
        kind = node.mode & ~0o7777
        self.files[path] = (evolve(node, mode=kind | mode), data)
        return self

    # -- building ---------------------------------------------------------------------------

    def build(
        self,
        dockerfile: str | None = None,
        files: Mapping[str, str | bytes | tuple[Node, bytes]] | None = None,
        **options: Any,
    ) -> Build:
        """Build the project; `dockerfile` and `files` replace the present ones.

        `options` are those of `Builder.build` (no_cache, args, target, …). Raises the errors of a
        build.
        """
        return self._run(dockerfile, files, options, plan=False)

    def plan(
        self,
        dockerfile: str | None = None,
        files: Mapping[str, str | bytes | tuple[Node, bytes]] | None = None,
        **options: Any,
    ) -> Build:
        """The plan for `build`; nothing is executed and nothing written."""
        return self._run(dockerfile, files, options, plan=True)

    def _run(
        self,
        dockerfile: str | None,
        files: Mapping[str, str | bytes | tuple[Node, bytes]] | None,
        options: Mapping[str, Any],
        *,
        plan: bool,
    ) -> Build:
        if dockerfile is not None:
            self._recipe = dockerfile
        if files is not None:
            self.files = dict(files)
        before = len(self.executions)
        options = {"project": "layers", "args": None, **options}
        options["args"] = options["args"] or {}
        recipe = Dockerfile.parse(self._recipe)
        run = self._builder.plan if plan else self._builder.build
        result = run(recipe, context=dict(self.files), **options)
        return Build(result, self.executions[before:])
