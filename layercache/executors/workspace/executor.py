"""The workspace executor: a recipe against a plain directory on the host.

No image, no root privileges, no isolation: commands run as the calling user, with the host's tools,
in a directory that holds exactly the step's state. Files written outside it are not captured, and
reads of other parts of the host are not observed. It runs only when selected by name.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import stat
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache._base.classes import evolve
from layercache.errors import BuildError, NotFound, UsageError
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Layer, State
from layercache.model.digests import Digest
from layercache.model.framing import share
from layercache.model.instruction import Field, Instruction
from layercache.model.operations import CopyFiles, Exec
from layercache.model.task import (
    Blobs,
    ChecksInstructions,
    Masks,
    Result,
    StepTraits,
    Task,
    UsesBaseImages,
    WithSecrets,
)
from layercache.model.tree import Tree

if TYPE_CHECKING:
    from layercache.executors.workspace.programs import Programs
    from layercache.inputs.scan.context_tree import ContextTree
    from layercache.layers.recorded_times import Times
    from layercache.trees.compare import Difference

__all__ = ["ALLOWED_ENVIRONMENT", "Workspace"]

ALLOWED_ENVIRONMENT: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM",
    "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT",
    "APPDATA", "LOCALAPPDATA", "USERPROFILE", "PROGRAMFILES", "PROGRAMDATA",
)  # fmt: skip
"""The host's variables that commands see; of these `_COUNTED` count in keys."""

_COUNTED: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""What changes the output of everyday commands (`sort`, `ls`, `date`), where it is set."""

ROOT_VARIABLE: Final = "LAYERCACHE_ROOT"
_SCHEME: Final = "workspace/2"


class Workspace(ChecksInstructions, Masks, StepTraits, UsesBaseImages, WithSecrets):
    """Runs steps in `directory`/<stage>/root; see the module for what that means.

    Args:
        directory: a directory for one project; created if necessary.
        secrets: secret id → bytes, given to the steps that mount them.
        tools: host programs whose content counts for every command (the recipe's own tools).
        step_timeout: the maximum duration of one command in seconds; None is no limit.

    Raises `UsageError` for instructions that a plain directory can't honour: USER, `--chown`,
    devices, mounts other than secrets, `--network=none`, `--security`.
    """

    name = "workspace"
    base_images = False

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        secrets: Mapping[str, bytes] | None = None,
        tools: Sequence[str] = (),
        step_timeout: float | None = None,
    ) -> None:
        self.directory = os.path.realpath(os.fspath(directory))
        self._secrets = dict(secrets or {})
        self._tools = tuple(tools)
        self._timeout = step_timeout
        self._programs: Programs | None = None

    def __getstate__(self) -> dict[str, object]:
        return {
            "directory": self.directory,
            "secrets": self._secrets,
            "tools": self._tools,
            "step_timeout": self._timeout,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def with_secrets(self, names: Collection[str]) -> Workspace:
        """The same executor with only the named secrets (`WithSecrets`)."""
        secrets = {name: value for name, value in self._secrets.items() if name in names}
        return Workspace(
            self.directory, secrets=secrets, tools=self._tools, step_timeout=self._timeout
        )

    @property
    def masks(self) -> tuple[bytes, ...]:
        """The texts that must not be shown in output."""
        from layercache.executors.redaction import masks_of

        return masks_of(self._secrets.values())

    @property
    def traits(self) -> Sequence[Field]:
        """Operating system, ABI, PATH, locale and time zone: facts that change the results of
        commands.
        """
        return (
            Field("executor", _SCHEME),
            Field("operating system", sys.platform),
            Field("abi", f"{platform.machine()} {' '.join(platform.libc_ver())}".strip()),
            *(Field(name, os.environ[name]) for name in _COUNTED if name in os.environ),
        )

    def traits_of_steps(
        self, steps: Sequence[tuple[Instruction, str]]
    ) -> Sequence[Sequence[Field]]:
        """The root's path, and the content of the programs that the command names."""
        # Looked up once for all steps of a build, and anew for the next build.
        programs = functools.cache(self._program)
        roots = {stage: share(Field("root", self.root(stage))) for _, stage in steps}
        inherited = os.environ.get("PATH", "")
        found = []
        for instruction, stage in steps:
            fields = roots[stage]
            if isinstance(instruction, Exec):
                from layercache.executors.workspace.programs import program_names

                path = dict(instruction.env).get("PATH", inherited)
                names = [*program_names(instruction.args), *self._tools, *instruction.tools]
                fields += tuple(
                    [
                        program
                        for name in dict.fromkeys(names)
                        if (program := programs(name, path)) is not None
                    ]
                )
            found.append(fields)
        return found

    def _program(self, name: str, path: str) -> Field | None:
        if self._programs is None:
            from layercache.executors.workspace.programs import Programs

            self._programs = Programs()
        digest = self._programs.digest(name, path)
        return None if digest is None else share(Field(f"program {name}", digest))[0]

    def root(self, stage: str) -> str:
        """The root directory of a stage (given by name or number), at a stable path."""
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in stage) or "0"
        if not safe.strip("."):
            safe = "_" * len(safe)  # never the directory itself, nor the one above
        return os.path.join(self.directory, safe, "root")

    def prune(self) -> int:
        """Empty the roots of all stages that no build is using; returns their number.

        The next command of a stage restores its state as usual. Raises `OSError`.
        """
        from layercache.executors.workspace.materialize import remove

        count = 0
        for stage in os.listdir(self.directory):
            path = os.path.join(self.directory, stage)
            if os.path.islink(path) or not os.path.isdir(path):
                continue  # not ours
            from layercache._os.filelock import locked

            with locked(os.path.join(path, "lock"), wait=False) as alone:
                if not alone:
                    continue
                for name in ("root", "stat-cache"):
                    if os.path.lexists(os.path.join(path, name)):
                        remove(os.path.join(path, name))
                        count += name == "root"
        return count

    def check(self, instruction: Instruction) -> None:
        """Refuse an instruction that a plain directory can't honour; raises `UsageError`."""
        refused = _refusal(instruction)
        if refused:
            raise UsageError(
                f"the workspace executor does not support {refused}: it runs commands as the "
                "calling "
                "user in a plain directory. Use --executor rootfs, or leave it out"
            )

    def execute(self, task: Task, blobs: Blobs) -> Result:
        """Run one command on the task's state; raises `StepFailed`."""
        instruction = task.instruction
        if not isinstance(instruction, Exec):
            raise UsageError(
                f"the workspace executor does not know {instruction.name}: give the Builder an "
                "executor for your own instruction types"
            )
        self.check(instruction)
        root = next((str(f.value) for f in task.traits if f.label == "root"), self.root("0"))
        stage = os.path.dirname(root)
        os.makedirs(stage, exist_ok=True)
        from layercache._os.filelock import locked

        with locked(os.path.join(stage, "lock")):
            return self._run_in(root, stage, instruction, task, blobs)

    def _run_in(self, root: str, stage: str, instruction: Exec, task: Task, blobs: Blobs) -> Result:
        from layercache.executors.workspace.materialize import materialize
        from layercache.executors.workspace.processes import run_command

        parent = blobs.tree(task.parent or SCRATCH)
        times = _times_of(task.parent or SCRATCH, blobs)
        from layercache.executors.workspace.leftovers import end_leftovers

        running = os.path.join(stage, "running")
        if os.path.exists(running):  # the build that made it was killed
            end_leftovers(ROOT_VARIABLE, root)
        if os.path.lexists(root) and not _is_directory(root):
            os.unlink(root)  # an earlier command put it there: nothing outside is touched
        os.makedirs(root, exist_ok=True)
        with self._scan(root, stage) as current:
            materialize(parent, root, current, times.before)
        workdir = os.path.join(root, instruction.workdir.lstrip("/"))
        _require_inside(root, workdir, instruction.workdir)
        if not os.path.isdir(workdir):
            raise BuildError(
                f"the working directory {instruction.workdir!r} does not exist in the workspace"
            )
        with self._mounted_secrets(root, instruction) as secret_variables:
            with open(running, "wb"):
                pass
            try:
                output = run_command(
                    instruction.args,
                    cwd=workdir,
                    environment=self._environment(root, instruction) | secret_variables,
                    log=blobs.log,
                    cancelled=blobs.cancelled,
                    timeout=self._timeout,
                    masks=self.masks,
                    end=lambda: end_leftovers(ROOT_VARIABLE, root),
                )
            finally:
                os.unlink(running)
        return Result(layer=self._capture(root, stage, parent, times, blobs), output=output)

    def _scan(self, root: str, stage: str) -> ContextTree:
        """The present content of the root; the stat cache beside it avoids reading unchanged
        files.
        """
        from layercache.inputs.scan.context_tree import Context

        return Context(root, None, cache=os.path.join(stage, "stat-cache")).scan()

    def _environment(self, root: str, instruction: Exec) -> dict[str, str]:
        allowed = {name: os.environ[name] for name in ALLOWED_ENVIRONMENT if name in os.environ}
        return allowed | dict(instruction.proxies) | dict(instruction.env) | {ROOT_VARIABLE: root}

    @contextlib.contextmanager
    def _mounted_secrets(self, root: str, instruction: Exec) -> Iterator[dict[str, str]]:
        """The secrets of one command, as files (removed again) or variables."""
        variables: dict[str, str] = {}
        written: list[str] = []
        made: list[str] = []
        try:
            for mount in instruction.ordered_mounts:
                value = self._secrets.get(mount.id)
                if value is None:
                    if mount.required:
                        raise BuildError(
                            f"RUN needs the secret {mount.id!r}, but it was not given: pass "
                            f"--secret id={mount.id},src=FILE"
                        )
                    continue
                if mount.env:
                    variables[mount.env] = os.fsdecode(value)
                if mount.target:
                    target = os.path.join(root, mount.target.lstrip("/"))
                    try:
                        made += _make_parents(root, os.path.dirname(target))
                        _require_inside(root, os.path.dirname(target), mount.target)
                        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                        mode = 0o400 if mount.mode is None else mount.mode
                        with os.fdopen(os.open(target, flags, mode), "wb") as out:
                            written.append(target)
                            out.write(value)
                    except OSError as error:
                        raise BuildError(
                            f"the secret {mount.id!r} can't be put at {mount.target}: "
                            f"{error.strerror}"
                        ) from error
            yield variables
        finally:
            for path in written:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            for path in reversed(made):
                with contextlib.suppress(OSError):  # a command put something there: it stays
                    os.rmdir(path)

    def _capture(
        self, root: str, stage: str, parent: Tree, times: Times, blobs: Blobs
    ) -> Layer | None:
        """The root's changes against `parent` as a layer; None if there are none."""
        if not _is_directory(root):
            raise BuildError("the command removed or replaced the root directory of its workspace")
        with self._scan(root, stage) as after:
            return self._write_layer(root, stage, parent, after, times, blobs)

    def _write_layer(
        self, root: str, stage: str, parent: Tree, after: Tree, times: Times, blobs: Blobs
    ) -> Layer | None:
        import tempfile

        from layercache.executors.workspace.materialize import set_times
        from layercache.layers.writer import LayerWriter
        from layercache.trees.compare import differences

        changes = sorted(differences(parent, after), key=_layer_order)
        if not changes:
            return None
        base = os.fsencode(root)
        with tempfile.NamedTemporaryFile(dir=stage, prefix="layer-", delete=False) as out:
            try:
                writer = LayerWriter(cast(BinaryIO, out))
                for path, node in ((change.path, change.new) for change in changes):
                    if node is None:
                        writer.whiteout(path)
                        continue
                    if stat.S_ISSOCK(node.mode):
                        continue
                    if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
                        raise BuildError(
                            f"{os.fsdecode(path)!r} is a device: a plain directory can't hold it"
                        )
                    found = node.mtime * 10**9
                    code = times.code(path, times.before.lookup(path), found)
                    content = node.content if node.is_file else None
                    shown = times.shown(code, found)
                    node = evolve(node, mtime=times.recorded(code, found, content))
                    if node.is_file:
                        with after.open(path) as file:
                            writer.add(path, node, file)
                    else:
                        writer.add(path, node)
                    if shown is not None:
                        on_disk = evolve(node, mtime=shown // 10**9)
                        set_times(os.path.join(base, path), on_disk)
                diff_id, size, index = writer.finish()
                out.flush()
                descriptor = blobs.add_file(out.name, LAYER_TAR, Digest(diff_id), size)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(out.name)
        return Layer(descriptor, diff_id, index.tree)


def _times_of(state: State, blobs: Blobs) -> Times:
    """The times at which a command sees `state`, and their meaning after it."""
    from layercache.layers.recorded_times import RecordedTimes
    from layercache.layers.state_tree import StateTree

    def nothing(_layer: int, _offset: int, _size: int) -> BinaryIO:
        raise NotFound("only the times of this tree are read")

    return RecordedTimes(StateTree([blobs.index(layer) for layer in state.layers], nothing))


def _layer_order(change: Difference) -> list[tuple[bool, bytes]]:
    """Depth first by bytes; the deletions in a directory come before its entries."""
    parts = [(True, part) for part in change.path.split(b"/")]
    if change.new is None:
        parts[-1] = (False, parts[-1][1])
    return parts


def _refusal(instruction: Instruction) -> str:
    """The part of an instruction that a plain directory can't honour; empty if there is none."""
    if isinstance(instruction, CopyFiles):
        return "--chown" if instruction.chown else ""
    if not isinstance(instruction, Exec):
        return ""
    if instruction.user:
        return f"USER {instruction.user}"
    other = next((m.type for m in instruction.mounts if m.type != "secret"), None)
    if other:
        return f"RUN --mount=type={other}"
    if instruction.network == "none":
        return "--network=none"
    if instruction.security != "sandbox":
        return f"RUN --security={instruction.security}"
    checks = {
        "RUN --device": instruction.devices,
        "--add-host": instruction.hosts,
        "--shm-size": instruction.shm_size,
        "--ulimit": instruction.ulimits,
        "a here-document with its own interpreter": instruction.files,
    }
    return next((what for what, value in checks.items() if value), "")


def _is_directory(path: str) -> bool:
    """Whether it is an existing directory rather than a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def _require_inside(root: str, path: str, shown: str) -> None:
    """Check that `path` is below `root` with every link resolved."""
    real = os.path.realpath(path)
    if real != root and not real.startswith(root + os.sep):
        raise BuildError(f"{shown!r} leaves the workspace through a symbolic link")


def _make_parents(root: str, directory: str) -> list[str]:
    """Create `directory` and missing parents; returns the created ones, the topmost first."""
    missing: list[str] = []
    while directory != root and not os.path.lexists(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        os.mkdir(path)
    return missing[::-1]
