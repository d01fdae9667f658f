"""File work in the user namespace of a build: started by the helper process, used by the build.

Unlike the helper, it may start slowly and import anything.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from typing import Any, BinaryIO

from layercache._base.classes import evolve
from layercache._os.names import checked_path
from layercache.errors import LayerCacheError
from layercache.executors.rootfs.file_work import (
    DirectFileWork,
    capture_directory,
    change_owner,
    links_beside,
    tidy,
)
from layercache.executors.rootfs.inside import wire as _wire
from layercache.executors.rootfs.mount_stubs import Stub, remove_stubs
from layercache.layers import apply
from layercache.layers.lower_links import appended
from layercache.layers.recorded_times import RecordedTimes
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.digests import DiffID
from layercache.model.layer_index import LayerIndex
from layercache.model.tree import Node, Tree

__all__ = ["main"]


def main(channel: int, single: bool) -> None:
    """Answer requests on the socket `channel` until it is closed.

    `single`: root is the only user here, so all files are root's.
    """
    os.umask(0o022)
    with socket.socket(fileno=channel) as stream:
        agent = Agent(single)
        while (request := _wire.receive(stream)) is not None:
            try:
                answer = {"value": getattr(agent, f"do_{request['do']}")(**request["with"])}
            except LayerCacheError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            except OSError as error:
                answer = {"error": "BuildError", "message": f"{error.strerror} ({error.filename})"}
            except Exception as error:  # noqa: BLE001  (told to who asked, who raises it)
                answer = {"error": "BuildError", "message": f"{type(error).__name__}: {error}"}
            _wire.send(stream, answer)


class Agent:
    """Keeps the indexes that it receives, so that each is sent once."""

    def __init__(self, single: bool) -> None:
        self._single = single
        self._files = DirectFileWork()
        self._indexes: dict[str, LayerIndex] = {}

    def do_learn(self, layer: str, index: bytes) -> None:
        """Store the index of a layer."""
        self._indexes[layer] = LayerIndex.decode(index)

    def _tree(self, layers: Sequence[str]) -> StateTree:
        return StateTree([self._indexes[layer] for layer in layers], _no_content)

    def do_unpack(
        self, layers: Sequence[str], tar: str, end: int, target: str, plain: bool, start: int
    ) -> None:
        """Unpack the last of `layers` from the file `tar`; `plain` applies it instead.

        Behind the layer's own tar, from `end` on, is what it has from lower layers.
        """
        tree = self._tree(layers)
        tree = tree.shown(tree.clock_from(start))
        index = _without_devices(appended(tree.indexes[-1], end))
        with open(tar, "rb", buffering=0) as blob:
            if plain:
                aside = links_beside(target)
                apply.apply(index, _binary(blob), target, rootless=True, aside=aside)
            else:
                apply.unpack(index, _binary(blob), target, state=tree, rootless=True)
        if not self._single:
            _give_owners(index, tree, target)

    def do_capture(
        self,
        layers: Sequence[str],
        upper: str,
        made: Sequence[Stub],
        tar: str,
        kept: Sequence[Sequence[Any]],
        mounted: Sequence[int],
        keep_bytecode: bool,
    ) -> tuple[str, int, bytes, bool] | None:
        """Capture `upper` on the state of `layers` to the file `tar`."""
        shown = {path: moment for path, moment in kept}  # noqa: C416  (mypy: no pairs)
        times = RecordedTimes(self._tree(layers), shown, mounted, keep_bytecode=keep_bytecode)
        if self._single:
            found = _capture_as_root(upper, made, times, tar)
        else:
            found = capture_directory(upper, made, times, tar, rootless=True)
        return None if found is None else (found[0], found[1], found[2].encode(), found[3])

    def do_give(self, root: str, owners: Sequence[Sequence[Any]]) -> None:
        """Change owners below `root`, if there is more than one."""
        if not self._single:
            self._files.give(root, [(path, uid, gid) for path, uid, gid in owners])

    def do_delete(self, path: str) -> None:
        """Schedule the deletion of `path`."""
        self._files.delete(path)

    def do_settle(self) -> None:
        """Return when everything is deleted."""
        self._files.settle()


def _binary(file: Any) -> BinaryIO:
    stream: BinaryIO = file
    return stream


def _no_content(layer: int, offset: int, size: int) -> BinaryIO:
    raise LayerCacheError("layers can't be read in this process")


def _without_devices(index: LayerIndex) -> LayerIndex:
    """The layer without devices: a user namespace can't make them, and its commands can't use
    them.
    """
    if not index.devices:
        return index
    return LayerIndex.of(
        entry
        for entry in index
        if entry.node is None
        or not (stat.S_ISCHR(entry.node.mode) or stat.S_ISBLK(entry.node.mode))
    )


def _give_owners(index: LayerIndex, tree: Tree, target: str) -> None:
    """Set the owners of files unpacked from a layer, which were created as root's."""
    root = os.fsencode(target)
    for entry in index:
        node = tree.lookup(entry.path) if entry.implied else entry.node
        if node is not None and (node.uid or node.gid):
            path = os.path.join(root, checked_path(entry.path)) if entry.path else root
            change_owner(path, node.uid, node.gid)


class _Ownerless:
    """A tree in which every file appears to be root's."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.children = tree.children
        self.digest = tree.digest
        self.open = tree.open

    def lookup(self, path: bytes) -> Node | None:
        node = self._tree.lookup(path)
        return None if node is None else evolve(node, uid=0, gid=0)


class _Restoring(LayerWriter):
    """Keeps the present owner of existing entries, which can't have changed."""

    def __init__(self, sink: BinaryIO, tree: Tree) -> None:
        super().__init__(sink)
        self._tree = tree

    def add(
        self,
        path: bytes,
        node: Node,
        content: BinaryIO | bytes | int | None = None,
        hardlink: bytes | None = None,
    ) -> None:
        base = self._tree.lookup(path)
        if base is not None:
            node = evolve(node, uid=base.uid, gid=base.gid)
        super().add(path, node, content, hardlink)


def _capture_as_root(
    upper: str, made: Sequence[Stub], times: RecordedTimes, tar: str
) -> tuple[DiffID, int, LayerIndex, bool] | None:
    """Capture where every file is root's: owners are unchanged."""
    from layercache.layers.capture import capture_upper

    remove_stubs(upper, made)
    with open(tar, "wb") as out:
        writer = _Restoring(out, times.before)
        ownerless = _Ownerless(times.before)
        faithful = capture_upper(upper, ownerless, writer, rootless=True, times=times)
        if writer.empty:
            return None
        found = writer.finish()
    tidy(upper, found[2])
    return *found, faithful
