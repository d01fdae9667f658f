"""The open resources of an executor in use: helper process, scratch directory, caches."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

from blake3 import blake3

from layercache.executors.rootfs.agent_client import AgentFiles
from layercache.executors.rootfs.cache_mounts import Caches
from layercache.executors.rootfs.file_work import DirectFileWork, FileWork
from layercache.executors.rootfs.helper_client import HelperClient
from layercache.executors.rootfs.mounts import SharedInputs
from layercache.executors.rootfs.scratch import Scratch
from layercache.executors.rootfs.surroundings import Surroundings
from layercache.executors.rootfs.tracer_client import Tracer
from layercache.executors.rootfs.unpacked import Unpacked
from layercache.executors.rootfs.user_namespace import UserNamespace
from layercache.store.open_layers import FORM

__all__ = ["Session"]

_CLOSE_SECONDS: Final = 60
"""How long closing waits for threads whose steps were ended."""


class Session:
    """Opened with the first step; `close`, or the end of the process, ends it."""

    def __init__(
        self, directory: str, *, namespace: UserNamespace | None, trust: str, durable: bool
    ) -> None:
        self.scratch = Scratch(directory)
        place = blake3(os.fsencode(self.scratch.directory)).hexdigest()[:12]
        prefix = f"layercache-{place}-{self.scratch.owner}-"
        self.runner = HelperClient(self.scratch.directory, [self.scratch.held], prefix, namespace)
        self.files: FileWork = DirectFileWork(self.scratch.directory)
        form = FORM
        agent = None
        if namespace is not None:
            self.files = agent = AgentFiles(self.runner, self.scratch)
            form = " ".join(namespace.arguments())
        else:
            self.scratch.discarded = self.files.delete
        self.unpacked = Unpacked(self.scratch, self.files, form)
        self.inputs = SharedInputs(self.scratch)
        self.caches = Caches(self.scratch, trust)
        self.tracer = Tracer(self.runner, userxattr=namespace is not None)
        _delete(self.scratch, self.files)
        self.surroundings = Surroundings(self.scratch)
        self.users = 0
        """Steps that run."""
        self._left = threading.Condition()
        self._finish = weakref.finalize(
            self,
            _finish,
            self.runner,
            self.scratch,
            self.unpacked,
            self.files,
            agent,
            self.tracer,
            durable,
        )

    def clean(self) -> None:
        """Delete the contents of the trash."""
        _delete(self.scratch, self.files, "trash")

    def enter(self) -> None:
        """Begin a step."""
        with self._left:
            self.users += 1

    def leave(self) -> None:
        """End a step."""
        with self._left:
            self.users -= 1
            self._left.notify_all()

    def close(self) -> None:
        """End the steps, wait for their threads, delete the remaining files."""
        self.runner.stop_steps()
        with self._left:
            self._left.wait_for(lambda: not self.users, _CLOSE_SECONDS)
        self._finish()


def _delete(scratch: Scratch, files: FileWork, *places: str) -> None:
    files.settle()  # what is being deleted already is not listed twice
    for path in scratch.leftovers(*places):
        files.delete(path)
    files.settle()


def _finish(
    runner: HelperClient,
    scratch: Scratch,
    unpacked: Unpacked,
    files: FileWork,
    agent: AgentFiles | None,
    tracer: Tracer,
    durable: bool,
) -> None:
    """End everything; only then is nothing in use of what is deleted."""
    runner.stop_steps()
    try:
        unpacked.close(durable=durable)
        _delete(scratch, files)
    finally:
        if agent is not None:
            agent.close()
        tracer.close()
        runner.close()
        scratch.close()
