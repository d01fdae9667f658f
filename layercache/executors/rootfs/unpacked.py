"""Unpacked layers: disposable copies as directories, made when a step must run on them.

    unpacked/<layer>[-<variant>]/fs      the content of the layer, in overlayfs form
    unpacked/<layer>[-<variant>]/state   when it can be trusted
    unpacked/<layer>[-<variant>]/seal    a digest of its `lstat` data when it was made

A directory gets its name by rename, when it is complete and has its `state`. That names the boot in
which it was made; the directory is valid during that boot, or permanently if it was synced before
`state` recorded so. Any other directory may have been cut short by a power cut, and is deleted and
unpacked again from the verified blob.

The directory of an *open* layer (`store.open_layers`) is no copy: nobody made an archive of it yet.
It is never discarded for being old, and before it is given up, what can be saved of it is archived.

Before a command sees a copy, it is checked: any deletion, addition or write since it was made (by a
clean-up of old files, say, because files of an image look old) breaks the seal. Such a copy is
deleted, too. A copy is checked again if a step begins some seconds later.

A layer has no metadata for directories in which it only changes entries, but overlayfs takes a
directory's mode and owner from the topmost layer that has it. So they get the metadata of the
layers below, and if that is not the default, the name has a digest of it (`variant`). The same
applies to deletions of missing entries, which overlayfs would show, and to the times at which a
step sees files that the layer marks as written "now" (`model.logical_clock`): a layer has a
directory for each position in a state at which it was used.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from blake3 import blake3

from layercache.errors import BuildError, CorruptObject
from layercache.executors.rootfs.file_work import state_tree
from layercache.executors.rootfs.scratch import Scratch
from layercache.executors.rootfs.seal import is_sealed, write_seal
from layercache.model.descriptors import SCRATCH, Layer, State
from layercache.model.framing import frame
from layercache.model.instruction import Value
from layercache.model.layer_index import IMPLIED, OPAQUE, WHITEOUT
from layercache.model.layer_times import LAYER_TIME
from layercache.store.copy_state import CopyStates
from layercache.store.open_layers import open_directories

if TYPE_CHECKING:
    from layercache.executors.rootfs.file_work import FileWork
    from layercache.layers.state_tree import StateTree
    from layercache.model.layer_index import LayerIndex
    from layercache.model.logical_clock import Clock
    from layercache.model.task import Blobs
    from layercache.model.tree import Node, Tree

__all__ = ["MAX_LAYERS", "Unpacked"]

MAX_LAYERS = 100
"""Layers of one overlay; the lowest of more are put into one directory. The kernel allows 500,
and less where they must be named in an option string of one page."""

_FLAT = 64
"""Layers are put together by multiples of this many, so that a longer chain shares them."""

_FRESH = 2.0
"""Seconds for which a copy that was looked through need not be looked through again."""


class Unpacked:
    """The unpacked layers of a scratch directory. Safe for threads and beside other builds.

    `form` describes how owners and overlayfs's attributes are stored on disk, which differs between
    kinds of user namespace: directories of another form are unusable.
    """

    def __init__(self, scratch: Scratch, work: FileWork, form: str) -> None:
        self._scratch = scratch
        self._work = work
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._names: dict[tuple[str, int], str] = {}
        """Chain ID, start of the clock → name of the directory of its topmost layer."""
        self._good: dict[str, float] = {}
        """Name → when it was last found good (monotonic seconds)."""
        self._made: list[str] = []
        self._states = CopyStates(form)

    # -- for steps --------------------------------------------------------------------------

    def lower(self, state: State, blobs: Blobs, start: int = LAYER_TIME) -> list[str]:
        """The directories that make up `state`, topmost first; unpacks missing ones.

        Times are those of a logical clock that begins at `start`.
        """
        states = []
        while state.layer is not None:
            states.append(state)
            state = state.parent or SCRATCH
        found = []
        if len(states) > MAX_LAYERS:
            count = (len(states) - MAX_LAYERS + _FLAT) // _FLAT * _FLAT
            flat = states[-count:]
            states = states[:-count]
            found.append(self._flat(flat[::-1], blobs, start))
        for one in reversed(states):
            found.append(self._layer(one, blobs, start))
        # The kernel refuses a directory twice; where a layer recurs, only its topmost
        # occurrence shows.
        return list(dict.fromkeys(found[::-1]))

    def adopt(self, parent: State, layer: Layer, path: str, blobs: Blobs) -> str:
        """Keep `path`/fs, the upper directory from which `layer` was captured, as its directory.

        Has no effect if there is one already. Returns its name.
        """
        name = self._name(parent.plus(layer), blobs, LAYER_TIME)
        with self._lock_of(name):
            if layer.is_open:
                self._good.pop(name, None)  # it may be all there is of the layer: look again
            if not self._usable(name):
                self._place(path, name)
        return name

    def files(self, name: str) -> str:
        """The directory with the content of the copy `name`."""
        return os.path.join(self._path(name), "fs")

    def close(self, *, durable: bool) -> None:
        """End this build's use; with `durable` its directories are synced and kept over a
        reboot.
        """
        if durable and self._made:
            from layercache.executors.rootfs.inside.syscalls import sync_filesystem

            sync_filesystem(self._scratch.directory)
            for name in self._made:
                self._states.write(self._path(name), durable=True)

    def prune(self, before: float) -> int:
        """Discard copies last used before `before` (seconds since 1970); returns their number.

        Only while no step runs and no other build uses the directory.
        """
        count = 0
        spared = open_directories(self._scratch.directory)
        for name in os.listdir(self._scratch.path("unpacked")):
            if name in spared:
                continue  # no copy: its files are nowhere else
            try:
                used = os.stat(os.path.join(self._path(name), "state")).st_mtime
            except (FileNotFoundError, NotADirectoryError):
                used = 0.0
            if used < before:
                self._good.pop(name, None)
                self._scratch.discard(self._path(name))
                count += 1
        return count

    # -- directories ------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return self._scratch.path("unpacked", name)

    def _name(self, state: State, blobs: Blobs, start: int) -> str:
        """The name of the directory of the topmost layer of `state`."""
        layer = state.layer
        assert layer is not None
        name = self._names.get((state.chain_id, start))
        if name is None:
            tree = state_tree(state, blobs)
            clock = tree.clock_from(start)
            shown = tree.shown(clock)
            rows = dependence(shown.indexes[-1], shown.below)
            moments = shown_moments(tree, clock)
            name = _name(layer, (*rows, ("times", *moments)) if moments else rows)
            self._names[state.chain_id, start] = name
        return name

    def _layer(self, state: State, blobs: Blobs, start: int) -> str:
        name = self._name(state, blobs, start)
        with self._lock_of(name):
            if self._is_gone(name, state.layer, blobs) or not self._usable(name):
                self._make(name, lambda target: self._work.unpack(state, target, blobs, start))
        return os.path.join(self._path(name), "fs")

    def _is_gone(self, name: str, layer: Layer | None, blobs: Blobs) -> bool:
        """Whether a directory was given up that was all there was of a layer.

        What can be saved of it is: its archive is made, if all bytes are still right. Raises
        `CorruptObject` if they are not.
        """
        if layer is None or not layer.is_open or self._is_fresh(name) or self._trusted(name):
            return False
        with blobs.open(layer.descriptor.digest):
            pass
        self._scratch.discard(self._path(name), unless=lambda: self._trusted(name))
        return not self._trusted(name)

    def _is_fresh(self, name: str) -> bool:
        return time.monotonic() - self._good.get(name, -_FRESH) < _FRESH

    def _flat(self, states: list[State], blobs: Blobs, start: int) -> str:
        """The layers of `states`, lowest first, in one directory."""
        name = f"merged-{start}-" + states[-1].chain_id.rpartition(":")[2]
        with self._lock_of(name):
            if not self._usable(name):
                self._make(name, lambda target: self._work.flatten(states, target, blobs, start))
        return os.path.join(self._path(name), "fs")

    def _make(self, name: str, fill: Callable[[str], None]) -> None:
        work = self._scratch.new()
        target = os.path.join(work, "fs")
        try:
            os.mkdir(target)
            os.chmod(target, 0o755)
            fill(target)
            self._place(work, name)
        except OSError as error:
            raise BuildError(
                f"a layer can't be unpacked into {self._scratch.directory}: {error.strerror}"
            ) from error
        finally:
            self._scratch.discard(work)

    def _place(self, path: str, name: str) -> None:
        """Give the complete directory at `path` its name."""
        write_seal(path)
        self._states.write(path, durable=False)
        try:
            os.rename(path, self._path(name))
        except OSError:
            if not self._usable(name):  # else another build was first
                raise
        self._good[name] = time.monotonic()
        self._made.append(name)

    def _usable(self, name: str) -> bool:
        """Whether there is a trustworthy directory of this name; an untrustworthy one is
        deleted.
        """
        if self._is_fresh(name):
            return True
        path = self._path(name)
        if self._trusted(name):
            self._good[name] = time.monotonic()
            try:
                os.utime(os.path.join(path, "state"))
            except FileNotFoundError:
                return False  # deleted just now
            return True
        self._scratch.discard(path, unless=lambda: self._trusted(name))
        return False

    def _trusted(self, name: str) -> bool:
        path = self._path(name)
        return self._states.read(path) is not None and is_sealed(path)

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())


def _name(layer: Layer, rows: tuple[Value, ...]) -> str:
    digits = layer.id.rpartition(":")[2]
    if not digits.isalnum():
        raise CorruptObject(f"not a layer's identity: {layer.id!r}")
    return f"{digits}-{blake3(frame(rows)).hexdigest()[:24]}" if rows else digits


def shown_moments(tree: StateTree, clock: Clock) -> tuple[int, ...]:
    """The times at which a step sees files that the topmost layer of a state marks as written
    now, code by code.
    """
    top = len(clock.layers) - 1
    return tuple([clock.shown(top, code) for code in tree.indexes[top].times.codes])


def dependence(index: LayerIndex, parent: Tree) -> tuple[Value, ...]:
    """The facts of lower layers that affect the unpacked form of a layer for overlayfs.

    Metadata of directories for which it has no entry, if it isn't the default; deletions of missing
    entries; entries hidden by an emptied root directory; files that it has further names for.
    """
    from layercache.layers.state_tree import IMPLIED_DIRECTORY

    rows: list[Value] = []
    for row, path in enumerate(index.paths):
        flags = index.flags(row)
        if flags & IMPLIED:
            node = parent.lookup(path)
            if node is not None and node.is_dir and node != IMPLIED_DIRECTORY:
                rows.append((path, node.mode, node.uid, node.gid, node.mtime, node.xattrs))
        elif flags & WHITEOUT and parent.lookup(path) is None:
            rows.append(path)
        if flags & OPAQUE and not path:
            rows.append(tuple(parent.children(b"")))
        if row in index.lenders:
            rows.append(("lent", path, *_facts(index.node(row))))
    return tuple(rows)


def _facts(node: Node) -> tuple[Value, ...]:
    return (
        node.mode,
        node.uid,
        node.gid,
        node.size,
        node.mtime,
        node.content,
        node.link,
        node.device,
        node.xattrs,
    )
