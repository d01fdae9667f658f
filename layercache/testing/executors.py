"""An executor without a host, and wrappers that count, script, fail, wait or vary on purpose."""

from __future__ import annotations

import posixpath
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from layercache._base.classes import evolve, frozen
from layercache.errors import BuildError, Cancelled, StepFailed, UsageError
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import ChainID, DiffID, Fingerprint
from layercache.model.instruction import Field, Instruction, Value
from layercache.model.observations import Observations
from layercache.model.operations import PARENT, Exec, Mount
from layercache.model.task import (
    Blobs,
    ChecksInstructions,
    Executor,
    Masks,
    Result,
    StepTraits,
    Task,
    UsesBaseImages,
)
from layercache.model.tree import Node, Tree
from layercache.testing.commands import MemoryShell, owner_of
from layercache.testing.memory import MemoryFiles
from layercache.trees.in_memory import DictTree
from layercache.trees.selection import resolve

__all__ = [
    "Call",
    "CountingExecutor",
    "FailingExecutor",
    "MemoryExecutor",
    "ScriptedExecutor",
    "SlowExecutor",
    "UnstableExecutor",
    "command_text",
]

_PIPES: Final = "/dev/pipes/"


def command_text(instruction: Instruction) -> str:
    """A step's name for people: the script of a RUN, otherwise the instruction's name."""
    if isinstance(instruction, Exec):
        args = instruction.args
        return args[-1] if len(args) > 2 and args[-2] == "-c" else " ".join(args)
    return str(getattr(instruction, "text", instruction.name))


@frozen
class Call:
    """One execution: its task and its result (None: it failed).

    `inputs` are role and fingerprint of everything but the parent; `choice` is the number that an
    `UnstableExecutor` drew for it.
    """

    instruction: Instruction
    parent: ChainID
    inputs: tuple[tuple[str, Fingerprint], ...]
    diff_id: DiffID | None = None
    failed: bool = False
    choice: int | None = None

    @property
    def text(self) -> str:
        """The step's name for people."""
        return command_text(self.instruction)

    @classmethod
    def of(cls, task: Task, result: Result | None) -> Call:
        """The call that executed `task`; a `result` of None means that it failed."""
        return cls(
            instruction=task.instruction,
            parent=(task.parent or SCRATCH).chain_id,
            inputs=tuple((b.role, b.fingerprint) for b in task.inputs if b.role != PARENT),
            diff_id=None if result is None or result.layer is None else result.layer.diff_id,
            failed=result is None,
        )


class MemoryExecutor(Masks, UsesBaseImages):
    """Runs `Exec` over trees in memory with the commands of `layercache.testing.commands`.

    Nothing of the host is used. All mounts work: bind and tmpfs as usual, cache mounts in this
    object, secrets from `secrets`. It observes what a command reads, so steps can be traced.

    Args:
        traits: further facts that count in the keys of commands.
        secrets: secret id → bytes.
        world: the results of `fetch NAME`, which no key covers.
        seed: the seed of `random`; None uses a new one each time.
        base_images: False makes FROM an identity only, so that any name will do.

    `calls` lists every execution; it is safe for threads, and left out of pickles.
    """

    def __init__(
        self,
        *,
        traits: Iterable[Field] = (),
        secrets: Mapping[str, bytes] | None = None,
        world: Mapping[str, bytes] | None = None,
        seed: int | None = None,
        base_images: bool = False,
    ) -> None:
        self.traits: Sequence[Field] = (Field("executor", "memory/1"), *traits)
        self._base_images = base_images
        self.secrets = dict(secrets or {})
        self.world = dict(world or {})
        self.calls: list[Call] = []
        self._caches: dict[str, dict[bytes, tuple[Node, bytes]]] = {}
        self._random = random.Random(seed)
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_guard"]
        return {**state, "calls": [], "_caches": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._guard = threading.Lock()

    @property
    def base_images(self) -> bool:
        """Whether the executor needs the files of base images."""
        return self._base_images

    @property
    def masks(self) -> tuple[bytes, ...]:
        """The texts that must not be shown in output."""
        return tuple(self.secrets.values())

    @property
    def texts(self) -> list[str]:
        """The commands executed so far, in order."""
        return [call.text for call in self.calls]

    def execute(self, task: Task, blobs: Blobs) -> Result:
        """Run one command; raises `StepFailed`."""
        instruction = task.instruction
        if not isinstance(instruction, Exec):
            raise UsageError(
                f"the memory executor does not know {instruction.name}: give the Builder an "
                "executor for your own instruction types"
            )
        if blobs.cancelled():
            raise Cancelled("cancelled before the command ran")
        try:
            result = self._run(instruction, task, blobs)
        except BuildError:
            self._note(Call.of(task, None))
            raise
        self._note(Call.of(task, result))
        return result

    def _note(self, call: Call) -> None:
        with self._guard:
            self.calls.append(call)

    def _run(self, instruction: Exec, task: Task, blobs: Blobs) -> Result:
        files = MemoryFiles(blobs.tree(task.parent or SCRATCH))
        if instruction.user:
            files.owner = owner_of(instruction.user, files)
        if files.resolve(instruction.workdir).node is None:
            files.make_directory(instruction.workdir, parents=True)
        variables = dict(instruction.env)
        seen: list[Value] = [(f.label, f.value) for f in (*instruction.definition(), *task.traits)]
        for mount in instruction.mounts:
            seen.append(self._mount(mount, files, variables, task, blobs))
        shell = MemoryShell(
            files,
            environment=variables,
            directory=instruction.workdir,
            sees=tuple(seen),
            random=self._draw,
            fetch=lambda name: self.world.get(name, b""),
            scripts={_PIPES + name: body for name, body in instruction.files},
        )
        try:
            shell.run(instruction.args)
        finally:
            if shell.output:
                blobs.log(bytes(shell.output))
            self._keep_caches(instruction, files)
        files.unmount()
        layer, output = files.layer(blobs), bytes(shell.output)
        if not task.observe:
            return Result(layer=layer, output=output)
        observed = files.observed
        refusal = "" if observed is not None else "an unknown command may read anything"
        return Result(layer=layer, output=output, observed=observed, refusal=refusal)

    def _draw(self) -> bytes:
        with self._guard:
            return b"%016x\n" % self._random.getrandbits(64)

    # -- mounts -----------------------------------------------------------------------------

    def _mount(
        self,
        mount: Mount,
        files: MemoryFiles,
        variables: dict[str, str],
        task: Task,
        blobs: Blobs,
    ) -> Value:
        """Mount it; returns the part that a command may read and a key covers."""
        bound = next((b for b in task.inputs if mount.role and b.role == mount.role), None)
        seen: Value = (mount.target, bound.fingerprint if bound else None)
        if mount.type == "secret":
            self._mount_secret(mount, files, variables)
        elif mount.type == "cache" and mount.id in self._caches and not task.bypass:
            with self._guard:
                kept = dict(self._caches[mount.id])
            tree = DictTree({p.decode("utf-8", "surrogateescape"): v for p, v in kept.items()})
            files.mount(mount.target, tree, writable=not mount.readonly, counts=False)
        elif bound is not None:
            at = (
                posixpath.normpath("/" + mount.source)
                .lstrip("/")
                .encode("utf-8", "surrogateescape")
            )
            # The key knows the content, not whether a link led there: take what the link means.
            found = resolve(blobs.tree(bound.subject), at)
            files.mount(
                mount.target,
                blobs.tree(bound.subject),
                at if found is None else found[0],
                writable=not mount.readonly,
                counts=mount.type == "bind",
            )
        elif mount.type in ("cache", "tmpfs"):
            files.mount(mount.target, None, writable=True, counts=mount.type == "tmpfs")
        return seen

    def _mount_secret(self, mount: Mount, files: MemoryFiles, variables: dict[str, str]) -> None:
        value = self.secrets.get(mount.id)
        if value is None:
            if mount.required:
                raise BuildError(f"RUN needs the secret {mount.id!r}, but it was not given")
            return
        if mount.env:
            variables[mount.env] = value.decode("utf-8", "surrogateescape")
        if mount.target:
            tree = DictTree({"secret": value})
            files.mount(mount.target, tree, b"secret", writable=False, counts=False)

    def _keep_caches(self, instruction: Exec, files: MemoryFiles) -> None:
        for mount in instruction.mounts:
            if mount.type == "cache" and not mount.readonly:
                with self._guard:
                    self._caches[mount.id] = files.mounted(mount.target)


# -- wrappers -------------------------------------------------------------------------------


class _Wrapper(ChecksInstructions, Masks, StepTraits, UsesBaseImages):
    """Delegates everything to `inner`."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner

    @property
    def traits(self) -> Sequence[Field]:
        return self.inner.traits

    @property
    def base_images(self) -> bool:
        return not isinstance(self.inner, UsesBaseImages) or self.inner.base_images

    @property
    def masks(self) -> tuple[bytes, ...]:
        return tuple(self.inner.masks) if isinstance(self.inner, Masks) else ()

    def traits_of_steps(
        self, steps: Sequence[tuple[Instruction, str]]
    ) -> Sequence[Sequence[Field]]:
        if isinstance(self.inner, StepTraits):
            return self.inner.traits_of_steps(steps)
        return [()] * len(steps)

    def check(self, instruction: Instruction) -> None:
        if isinstance(self.inner, ChecksInstructions):
            self.inner.check(instruction)

    def execute(self, task: Task, blobs: Blobs) -> Result:
        return self.inner.execute(task, blobs)


class CountingExecutor(_Wrapper):
    """Counts what `inner` executes: `count`, and `texts` of the steps in order of their start."""

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self.texts: list[str] = []

    @property
    def count(self) -> int:
        """Executions so far."""
        return len(self.texts)

    def execute(self, task: Task, blobs: Blobs) -> Result:
        self.texts.append(command_text(task.instruction))
        return super().execute(task, blobs)


class FailingExecutor(_Wrapper):
    """Fails on request; `inner` runs the rest.

    `when` is a predicate of the task, the texts of commands, or the numbers of calls (from 1).
    `error` makes the exception: a `StepFailed` with status 1 by default.
    """

    def __init__(
        self,
        inner: Executor,
        when: Callable[[Task], bool] | Collection[str] | Collection[int],
        error: Callable[[Task], BaseException] | None = None,
    ) -> None:
        super().__init__(inner)
        self._when = when
        self._error = error or (
            lambda task: StepFailed(f"{command_text(task.instruction)!r} failed on purpose")
        )
        self._guard = threading.Lock()
        self.calls = 0

    def execute(self, task: Task, blobs: Blobs) -> Result:
        with self._guard:
            self.calls += 1
            number = self.calls
        if callable(self._when):
            fails = self._when(task)
        else:
            wanted: Collection[object] = self._when
            fails = number in wanted or command_text(task.instruction) in wanted
        if fails:
            raise self._error(task)
        return super().execute(task, blobs)


class SlowExecutor(_Wrapper):
    """Takes `seconds` for each step before `inner` runs it; `sleep` may be a `VirtualClock`'s.

    Ends with `Cancelled` if the build is cancelled meanwhile.
    """

    def __init__(
        self,
        inner: Executor,
        seconds: float | Callable[[Task], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._seconds = seconds
        self._sleep = sleep

    def execute(self, task: Task, blobs: Blobs) -> Result:
        left = self._seconds(task) if callable(self._seconds) else self._seconds
        while left > 0:
            step = min(left, 0.01) if self._sleep is time.sleep else left
            self._sleep(step)
            left -= step
            if blobs.cancelled():
                raise Cancelled("cancelled while the command ran")
        return super().execute(task, blobs)


class ScriptedExecutor(_Wrapper):
    """Returns the result in a script for a command; `inner` (a `MemoryExecutor`) runs the others.

    `script` maps the text of a command (or the name of an instruction) to files to write (path →
    content, None removes), an exception to raise, or a function from task and blobs to a `Result`.
    """

    def __init__(
        self,
        script: Mapping[
            str,
            Mapping[str, str | bytes | None] | BaseException | Callable[[Task, Blobs], Result],
        ],
        inner: Executor | None = None,
    ) -> None:
        super().__init__(inner or MemoryExecutor())
        self.script = dict(script)
        self.texts: list[str] = []

    def execute(self, task: Task, blobs: Blobs) -> Result:
        text = command_text(task.instruction)
        self.texts.append(text)
        outcome = self.script.get(text, self.script.get(task.instruction.name))
        if outcome is None:
            return super().execute(task, blobs)
        if isinstance(outcome, BaseException):
            raise outcome
        if callable(outcome):
            return outcome(task, blobs)
        files = MemoryFiles(blobs.tree(task.parent or SCRATCH))
        for path, content in outcome.items():
            if content is None:
                files.remove(path, recursive=True)
                continue
            parent = posixpath.dirname(posixpath.join("/", path))
            files.make_directory(parent, parents=True)
            files.write(path, content.encode() if isinstance(content, str) else content)
        return Result(layer=files.layer(blobs))


class UnstableExecutor(_Wrapper):
    """Non-deterministic: each execution writes a file of its own with a number in it.

    `chance` is the probability (0 to 1). The number is the choice that the execution made; an odd
    one also makes it read /app/a.txt, so that its reads vary, too. `log` lists every execution with
    its resulting layer and its choice, so that a test can tell which layer was made on which state,
    and which layer the same choice produces on another (`again`).
    """

    def __init__(self, inner: Executor, seed: int, chance: float = 1.0) -> None:
        super().__init__(inner)
        self._random = random.Random(seed)
        self._chance = chance
        self._guard = threading.Lock()
        self.log: list[Call] = []

    def execute(self, task: Task, blobs: Blobs) -> Result:
        with self._guard:
            varies = self._random.random() < self._chance
            number = self._random.getrandbits(64)
        choice = number if varies else None
        result = self.again(task, blobs, choice)
        with self._guard:
            self.log.append(evolve(Call.of(task, result), choice=choice))
        return result

    def again(self, task: Task, blobs: Blobs, choice: int | None) -> Result:
        """The result of executing `task` with an earlier choice; not logged."""
        result = super().execute(task, blobs)
        if choice is None:
            return result
        parent: State = task.parent or SCRATCH
        before, after = blobs.tree(parent), blobs.tree(parent.plus(result.layer))
        reading = MemoryFiles(after)
        content = b"%016x" % choice
        found = reading.resolve("/app/a.txt") if choice % 2 else None
        if found is not None and found.node is not None and found.node.is_file:
            content += reading.read("/app/a.txt")
        reading.write("/.unstable", content)
        files = MemoryFiles(before)
        files.become(cast(Tree, reading))
        result = evolve(result, layer=files.layer(blobs))
        if result.observed is None or reading.observed is None:
            return result
        seen = dict(result.observed.rows)
        for path, bits in reading.observed.rows:
            # The command has claimed its own changes.
            if before.lookup(path) == after.lookup(path):
                seen[path] = seen.get(path, 0) | bits
        return evolve(result, observed=Observations.of(seen, result.observed.derived))
