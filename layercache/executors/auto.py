"""The strongest executor that works here; never one that runs commands on the host."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from layercache.errors import ExecutorUnavailable
from layercache.model.instruction import Field, Instruction
from layercache.model.task import (
    Blobs,
    ChecksInstructions,
    Executor,
    Masks,
    Result,
    Task,
    UnpacksStates,
)
from layercache.model.tree import Closes
from layercache.store.open import scratch_directory

if TYPE_CHECKING:
    from layercache.executors.rootfs import RootfsExecutor
    from layercache.store.parts import Cache

__all__ = ["Strongest", "strongest"]


class Strongest(ChecksInstructions, Masks, UnpacksStates, Closes):
    """A root file system executor whose mode is chosen when the first step must run.

    A build that reuses everything probes nothing. `note` is called once with the mode and the
    reason for it.
    """

    name = "auto"

    def __init__(
        self, executor: RootfsExecutor, directory: str, note: Callable[[str], None]
    ) -> None:
        self._executor = executor
        self._directory = directory
        self._note = note
        self._lock = threading.Lock()
        self._tried = False

    unpacks_states = True

    @property
    def traits(self) -> Sequence[Field]:
        return self._executor.traits

    @property
    def masks(self) -> tuple[bytes, ...]:
        return self._executor.masks

    def check(self, instruction: Instruction) -> None:
        """Refuse an instruction that can't be honoured; raises `UsageError`."""
        self._executor.check(instruction)

    def execute(self, task: Task, blobs: Blobs) -> Result:
        """Like `RootfsExecutor.execute`; raises `ExecutorUnavailable` if no mode works here."""
        with self._lock:
            if not self._tried:
                self._try()
                self._tried = True
        return self._executor.execute(task, blobs)

    def _try(self) -> None:
        from layercache.executors.rootfs import probe

        mode, reasons = probe(self._directory)
        if mode is None:
            raise ExecutorUnavailable(
                "can't make a root file system here: "
                + "; ".join(reasons)
                + ". What is left: root with CAP_SYS_ADMIN (in a container: --privileged); an "
                "ordinary user where user namespaces are allowed (in a container: --security-opt "
                "seccomp=unconfined,systempaths=unconfined); or --executor workspace, which runs "
                "the commands in a plain directory of this machine and isolates nothing"
            )
        because = f" ({'; '.join(reasons)})" if reasons else ""
        self._note(f"executor: rootfs, mode {mode}{because}")
        if not self._executor.names_host:
            self._note("commands see this machine's host name: a filter around us keeps it")
        if why := self._executor.network_reason:
            self._note(f"commands have this machine's network, without raw sockets: {why}")

    def close(self) -> None:
        """See `RootfsExecutor.close`."""
        self._executor.close()


def strongest(store: Cache, note: Callable[[str], None], **options: Any) -> Executor:
    """The strongest root file system executor; `options` are passed to `RootfsExecutor`.

    Raises `ExecutorUnavailable` with a remedy if none can work here.
    """
    if sys.platform != "linux":
        raise ExecutorUnavailable(
            "root file systems need Linux: use --executor workspace, which runs the commands in "
            "a plain directory of this machine, or build on a Linux machine"
        )
    from layercache.executors.rootfs import RootfsExecutor

    directory = scratch_directory(store)
    return Strongest(RootfsExecutor(directory, **options), directory, note)
