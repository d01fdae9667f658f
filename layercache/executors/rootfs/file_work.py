"""Layers to and from directories: unpacking, capturing, deleting, with the required privileges.

`DirectFileWork` does this in this process, as root. `agent_client.AgentFiles` delegates it to a
process in the user namespace, for files that belong to the users there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from layercache._base.classes import field, frozen
from layercache._os.allowance import Allows
from layercache._os.names import checked_path
from layercache.errors import CorruptObject, NotFound
from layercache.executors.rootfs.deletion import Deleter, delete_tree
from layercache.executors.rootfs.mount_stubs import Stub, remove_stubs
from layercache.model.descriptors import LAYER_TAR, Layer, State
from layercache.model.digests import DiffID, Digest
from layercache.model.layer_index import OPAQUE, KeepsIndex
from layercache.model.layer_times import LAYER_TIME
from layercache.model.logical_clock import Clock
from layercache.model.open_layers import KeepsOpenLayers

if TYPE_CHECKING:
    from layercache.layers.recorded_times import Times
    from layercache.layers.state_tree import StateTree
    from layercache.model.layer_index import LayerIndex
    from layercache.model.task import Blobs
    from layercache.model.tree import Tree

__all__ = [
    "Captured",
    "DirectFileWork",
    "FileWork",
    "Notes",
    "Owners",
    "ShownTimes",
    "append_lent",
    "archived",
    "capture_directory",
    "change_owner",
    "clock_of",
    "plain_tar",
    "shown_state",
    "state_tree",
    "stored",
    "tidy",
]

_CHUNK = 1 << 18
_CAPABILITY = "security.capability"
_OPAQUE_MARKS = ("trusted.overlay.opaque", "user.overlay.opaque")

Owners = Sequence[tuple[bytes, int, int]]
"""Paths below a directory with the user and group that they are to have."""


@frozen
class ShownTimes:
    """The times that a step was shown besides those of the logical clock: see `RecordedTimes`."""

    kept: Mapping[bytes, int] = field(factory=dict)
    mounted: Sequence[int] = ()
    keep_bytecode: bool = False
    """Whether `.pyc` files stay as they were compiled."""


@frozen
class Captured:
    """A stored layer. `faithful`: the directory shows exactly what the next step must see."""

    layer: Layer
    index: LayerIndex
    faithful: bool


class Notes(ABC):
    """Optional for a `Blobs`: records look-ups in the tree that a step is compared with."""

    __slots__ = ()

    @abstractmethod
    def noted(self, tree: Tree) -> Tree:
        """`tree`, with look-ups recorded."""


class FileWork(Protocol):
    """Work on files of an image. Safe for threads."""

    def unpack(self, state: State, target: str, blobs: Blobs, start: int = LAYER_TIME) -> None:
        """Unpack the topmost layer of `state` into the empty directory `target`, for overlayfs.

        Times are those that a step sees with a clock that begins at `start`.
        """

    def flatten(
        self, states: Sequence[State], target: str, blobs: Blobs, start: int = LAYER_TIME
    ) -> None:
        """Apply the topmost layers of `states`, the lowest first, to the empty `target`."""

    def capture(
        self,
        upper: str,
        made: Sequence[Stub],
        parent: State,
        work: str,
        blobs: Blobs,
        shown: ShownTimes,
    ) -> Captured | None:
        """The layer in an upper directory, stored; None if it holds no change.

        `made` are mount points, which are removed first. The archive is first written to the
        directory `work`. Afterwards `upper` shows what a step on top of the layer must see.
        Where the cache takes open layers from here, and the directory is faithful, no archive is
        made: the directory is all there is of the layer then.
        """

    def give(self, root: str, owners: Owners) -> None:
        """Change owners below `root`."""

    def delete(self, path: str) -> None:
        """Schedule the deletion of `path` with everything in it; it may take until `settle`."""

    def settle(self) -> None:
        """Return when everything is deleted; raises `OSError` or `BuildError` on failure."""


class DirectFileWork:
    """`FileWork` in this process."""

    def __init__(self, place: str | None = None) -> None:
        """`place` is the scratch directory, where steps may leave layers open."""
        self._place = place
        self._deleter = Deleter()

    def unpack(self, state: State, target: str, blobs: Blobs, start: int = LAYER_TIME) -> None:
        from layercache.layers import apply

        shown = shown_state(state, blobs, start)
        with _whole_tar(state, shown, target, blobs) as (index, tar):
            apply.unpack(index, tar, target, state=shown)

    def flatten(
        self, states: Sequence[State], target: str, blobs: Blobs, start: int = LAYER_TIME
    ) -> None:
        from layercache.layers import apply

        aside = links_beside(target)
        for state in states:
            shown = shown_state(state, blobs, start)
            with _whole_tar(state, shown, target, blobs) as (index, tar):
                apply.apply(index, tar, target, aside=aside)

    def capture(
        self,
        upper: str,
        made: Sequence[Stub],
        parent: State,
        work: str,
        blobs: Blobs,
        shown: ShownTimes,
    ) -> Captured | None:
        from layercache.layers.recorded_times import RecordedTimes

        tar = os.path.join(work, "layer.tar")
        times = RecordedTimes(
            state_tree(parent, blobs),
            shown.kept,
            shown.mounted,
            keep_bytecode=shown.keep_bytecode,
        )
        if isinstance(blobs, Notes):
            times.before = blobs.noted(times.before)
        if self._place is not None and open_place(blobs) == self._place:
            return _listed(upper, made, times, tar, blobs)
        found = capture_directory(upper, made, times, tar)
        return None if found is None else stored(*found, tar, blobs)

    def give(self, root: str, owners: Owners) -> None:
        for path, uid, gid in owners:
            change_owner(
                os.path.join(os.fsencode(root), checked_path(path)) if path else root, uid, gid
            )

    def delete(self, path: str) -> None:
        self._deleter.delete(path)

    def settle(self) -> None:
        self._deleter.drain()


def links_beside(target: str) -> str:
    """The directory beside a merged one for names that only keep link counts as they were."""
    path = os.path.join(os.path.dirname(target), "links")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return path


def change_owner(path: str | bytes, uid: int, gid: int) -> None:
    """Change the owner of `path` (of a link itself), and preserve attributes that this would
    clear.
    """
    info = os.lstat(path)
    capability = None
    if stat.S_ISREG(info.st_mode):
        try:
            capability = os.getxattr(path, _CAPABILITY)
        except OSError:
            pass  # the usual case: there is none
    os.chown(path, uid, gid, follow_symlinks=False)
    if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(info.st_mode):
        os.chmod(path, stat.S_IMODE(info.st_mode))
    if capability is not None:
        os.setxattr(path, _CAPABILITY, capability)


def state_tree(state: State, blobs: Blobs) -> StateTree:
    """A state's tree whose files can't be read, for metadata only."""
    from layercache.layers.state_tree import StateTree

    return StateTree([blobs.index(layer) for layer in state.layers], _no_content)


def _no_content(_layer: int, _offset: int, _size: int) -> BinaryIO:
    raise NotFound("layers can't be read in this process")


def clock_of(state: State, blobs: Blobs, start: int = LAYER_TIME) -> Clock:
    """The logical clock of a state that begins at `start`."""
    return state_tree(state, blobs).clock_from(start)


def shown_state(state: State, blobs: Blobs, start: int = LAYER_TIME) -> StateTree:
    """A state with the times at which a step sees it, with a clock that begins at `start`."""
    tree = state_tree(state, blobs)
    return tree.shown(tree.clock_from(start))


def capture_directory(
    upper: str, made: Sequence[Stub], times: Times, tar: str, *, rootless: bool = False
) -> tuple[DiffID, int, LayerIndex, bool] | None:
    """Write the changes in `upper`, compared with what a step was shown, to the file `tar`; None if
    there are none. The last value is the result of `capture_upper`.
    """
    from layercache.layers.capture import capture_upper
    from layercache.layers.writer import LayerWriter

    remove_stubs(upper, made)
    with open(tar, "wb") as out:
        writer = LayerWriter(out)
        faithful = capture_upper(upper, times.before, writer, rootless=rootless, times=times)
        if writer.empty:
            return None
        found = writer.finish()
    tidy(upper, found[2])
    return *found, faithful


def _listed(
    upper: str, made: Sequence[Stub], times: Times, tar: str, blobs: Blobs
) -> Captured | None:
    """The changes in `upper` as an open layer; archived where the directory shows other times."""
    from layercache.layers.capture import capture_upper
    from layercache.layers.lister import LayerLister

    remove_stubs(upper, made)
    lister = LayerLister()
    faithful = capture_upper(upper, times.before, lister, times=times)
    if lister.empty:
        return None
    size, index = lister.finish()
    tidy(upper, index)
    found = Captured(Layer.opened(index.tree, size), index, faithful)
    if not faithful:
        return archived(found, upper, tar, blobs)
    if isinstance(blobs, KeepsIndex):
        blobs.keep_index(found.layer, index)
    return found


def open_place(blobs: Blobs) -> str | None:
    """The scratch directory in which the cache of `blobs` takes open layers, if it does."""
    place = blobs.open_layers if isinstance(blobs, KeepsOpenLayers) else None
    return None if place is None else os.path.realpath(place)


def archived(captured: Captured, directory: str, tar: str, blobs: Blobs) -> Captured:
    """An open layer with its archive, made from the files in `directory` by way of the file
    `tar`."""
    from layercache.layers.files_beneath import FilesBeneath
    from layercache.layers.lister import write_archive

    with FilesBeneath(directory) as files, open(tar, "wb") as out:
        diff_id, size, index = write_archive(captured.index, out, files.open)
    return stored(diff_id, size, index, captured.faithful, tar, blobs)


def tidy(upper: str, index: LayerIndex) -> None:
    """Make a captured directory hold exactly the content of its layer.

    Overlayfs leaves entries that were copied up and then not changed (a directory whose link count
    changed, a file that lost its hard link), and marks new directories that were renamed as
    opaque, which would take effect on other layers below.
    """
    root = os.fsencode(upper)
    for row, path in enumerate(index.paths):
        if not stat.S_ISDIR(index.mode(row)):
            continue
        directory = os.path.join(root, checked_path(path)) if path else root
        names = set(index.children(path))
        with os.scandir(directory) as entries:
            needless = [entry.name for entry in entries if entry.name not in names]
        if needless:
            info = os.stat(directory)
            for name in needless:
                delete_tree(os.fsdecode(os.path.join(directory, name)))
            os.utime(directory, ns=(info.st_mtime_ns, info.st_mtime_ns))
        if path and not index.flags(row) & OPAQUE:
            for mark in _OPAQUE_MARKS:
                try:
                    os.removexattr(directory, mark, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.ENODATA, errno.EPERM, errno.ENOTSUP):
                        raise


def stored(
    diff_id: DiffID, size: int, index: LayerIndex, faithful: bool, tar: str, blobs: Blobs
) -> Captured:
    """The layer in the file `tar`, stored with its index."""
    descriptor = blobs.add_file(tar, LAYER_TAR, Digest(diff_id), size)
    layer = Layer(descriptor, diff_id, index.tree)
    if isinstance(blobs, KeepsIndex):
        blobs.keep_index(layer, index)
    return Captured(layer, index, faithful)


@contextlib.contextmanager
def plain_tar(layer: Layer, target: str, blobs: Blobs) -> Iterator[BinaryIO]:
    """The uncompressed tar of a layer; decompressed to an unnamed file beside `target` if
    necessary.

    An uncompressed blob is verified while it is read to the end.
    """
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(blobs.open(layer.descriptor.digest))
        if layer.is_open or str(layer.descriptor.digest) == layer.diff_id:
            yield stream
            return
        from layercache.layers.compression import decompressed

        spool = stack.enter_context(tempfile.TemporaryFile(dir=os.path.dirname(target)))
        hasher = hashlib.sha256()
        plain = decompressed(stream, what="layer")
        while chunk := plain.read(_CHUNK):
            hasher.update(chunk)
            spool.write(chunk)
        if "sha256:" + hasher.hexdigest() != layer.diff_id:
            raise CorruptObject(f"a layer does not inflate to its diff ID {layer.diff_id}")
        spool.seek(0)
        yield spool


def append_lent(state: State, index: LayerIndex, out: BinaryIO, blobs: Blobs) -> None:
    """Write to `out` the bytes that the topmost layer of `state`, with this bound index, has from
    lower layers: what `lower_links.appended` expects behind its tar.
    """
    from layercache.layers.lower_links import lent

    pieces = list(lent(index))
    if pieces and isinstance(blobs, Allows):
        blobs.allowance.take(sum(size for _, size in pieces), "files with further names in a layer")
    tree = blobs.tree(state) if pieces else None
    for path, size in pieces:
        if tree is not None and size:
            with tree.open(path) as content:
                shutil.copyfileobj(content, out, _CHUNK)


@contextlib.contextmanager
def _whole_tar(
    state: State, shown: StateTree, target: str, blobs: Blobs
) -> Iterator[tuple[LayerIndex, BinaryIO]]:
    """Index and tar of the topmost layer, with what it has from lower layers."""
    index = shown.indexes[-1]
    with plain_tar(_layer(state), target, blobs) as tar:
        if not index.lenders:
            yield index, tar
            return
        from layercache.layers.lower_links import appended

        with tempfile.TemporaryFile(dir=os.path.dirname(target)) as spool:
            out = cast(BinaryIO, spool)
            shutil.copyfileobj(tar, out, _CHUNK)
            end = out.tell()
            append_lent(state, index, out, blobs)
            out.seek(0)
            yield appended(index, end), out


def _layer(state: State) -> Layer:
    assert state.layer is not None
    return state.layer
