"""The build's side of the agent: file work of a rootless build, done in its user namespace."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layercache.errors import (
    BuildError,
    CorruptObject,
    HostileArchive,
    NotFound,
    SourceError,
    UsageError,
)
from layercache.executors.rootfs.file_work import (
    Captured,
    Owners,
    ShownTimes,
    append_lent,
    plain_tar,
    state_tree,
    stored,
)
from layercache.executors.rootfs.helper_client import HelperClient
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.mount_stubs import Stub
from layercache.executors.rootfs.scratch import Scratch
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import DiffID
from layercache.model.layer_times import LAYER_TIME

if TYPE_CHECKING:
    from layercache.model.task import Blobs

__all__ = ["AgentFiles"]

_CHUNK = 1 << 20
_ERRORS = {
    kind.__name__: kind
    for kind in (BuildError, CorruptObject, HostileArchive, NotFound, SourceError, UsageError)
}


class AgentFiles:
    """`FileWork` done by an agent, which is started on first use."""

    def __init__(self, runner: HelperClient, scratch: Scratch) -> None:
        self._runner = runner
        self._scratch = scratch
        self._lock = threading.RLock()
        self._stream: socket.socket | None = None
        self._known: set[str] = set()
        self._deleting = False

    # -- file work --------------------------------------------------------------------------

    def unpack(self, state: State, target: str, blobs: Blobs, start: int = LAYER_TIME) -> None:
        self._apply(state, target, blobs, start, plain=False)

    def flatten(
        self, states: Sequence[State], target: str, blobs: Blobs, start: int = LAYER_TIME
    ) -> None:
        for state in states:
            self._apply(state, target, blobs, start, plain=True)

    def _apply(self, state: State, target: str, blobs: Blobs, start: int, *, plain: bool) -> None:
        assert state.layer is not None
        work = self._scratch.new()
        tar = os.path.join(work, "tar")
        try:
            # Reading the indexes fetches the layers of a base image, too.
            index = state_tree(state, blobs).indexes[-1]
            with plain_tar(state.layer, tar, blobs) as source, open(tar, "xb") as out:
                shutil.copyfileobj(source, out, _CHUNK)
                end = out.tell()
                append_lent(state, index, out, blobs)
            with self._lock:
                layers = self._teach(state, blobs)
                self._ask(
                    "unpack",
                    layers=layers,
                    tar=tar,
                    end=end,
                    target=target,
                    plain=plain,
                    start=start,
                )
        finally:
            self._scratch.discard(work)

    def capture(
        self,
        upper: str,
        made: Sequence[Stub],
        parent: State,
        work: str,
        blobs: Blobs,
        shown: ShownTimes,
    ) -> Captured | None:
        from layercache.model.layer_index import LayerIndex

        tar = os.path.join(work, "layer.tar")
        with self._lock:
            layers = self._teach(parent, blobs)
            found = self._ask(
                "capture",
                layers=layers,
                upper=upper,
                made=list(made),
                tar=tar,
                kept=[list(pair) for pair in shown.kept.items()],
                mounted=list(shown.mounted),
                keep_bytecode=shown.keep_bytecode,
            )
        if found is None:
            return None
        diff_id, size, index, faithful = found
        return stored(DiffID(diff_id), size, LayerIndex.decode(index), faithful, tar, blobs)

    def give(self, root: str, owners: Owners) -> None:
        self._ask("give", root=root, owners=[list(owner) for owner in owners])

    def delete(self, path: str) -> None:
        self._ask("delete", path=path)
        self._deleting = True

    def settle(self) -> None:
        if self._deleting:
            self._ask("settle")
            self._deleting = False

    def close(self) -> None:
        """End the agent."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    # -- asking -----------------------------------------------------------------------------

    def _teach(self, state: State, blobs: Blobs) -> list[str]:
        """Send the agent the indexes of a state's layers; their identities, lowest first."""
        self._start()
        layers = []
        while state.layer is not None:
            layer = state.layer
            if layer.id not in self._known:
                self._ask("learn", layer=layer.id, index=blobs.index(layer).encode())
                self._known.add(layer.id)
            layers.append(str(layer.id))
            state = state.parent or SCRATCH
        return layers[::-1]

    def _start(self) -> socket.socket:
        with self._lock:
            if self._stream is None:
                self._known.clear()
                self._stream = self._runner.agent()
            return self._stream

    def _ask(self, what: str, **arguments: Any) -> Any:
        with self._lock:
            stream = self._start()
            try:
                _wire.send(stream, {"do": what, "with": arguments})
                answer = _wire.receive(stream)
            except OSError as error:
                answer = None
                reason = f": {error.strerror}"
            else:
                reason = self._runner.said()
            if answer is None:
                self.close()
                raise BuildError(f"the agent of the user namespace is gone{reason}")
        if "error" in answer:
            raise _ERRORS.get(answer["error"], BuildError)(answer["message"])
        return answer["value"]
