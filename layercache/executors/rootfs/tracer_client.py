"""The build's side of tracing: when a step is watched, and what was observed in the end.

Observations count only if the result depends on nothing else; any doubt is a reason to reuse the
step by its whole parent only.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache._base.paths import shown_in_image
from layercache.errors import BuildError
from layercache.executors.rootfs.file_work import Notes
from layercache.executors.rootfs.helper_command import tracer_command
from layercache.executors.rootfs.inside import wire as _wire
from layercache.layers.accounts_derive import derive
from layercache.model.layer_times import MAX_CODE
from layercache.model.observations import (
    ABSENT,
    FOUND,
    LISTING,
    METADATA,
    SINCE,
    WHOLE,
    Observations,
)
from layercache.model.tree import HardLinks, Timed

if TYPE_CHECKING:
    from layercache.executors.rootfs.helper_client import HelperClient
    from layercache.model.descriptors import State
    from layercache.model.layer_index import LayerIndex
    from layercache.model.operations import Exec
    from layercache.model.task import Blobs
    from layercache.model.tree import Node, Tree

__all__ = [
    "TOO_MUCH",
    "Tracer",
    "TracerFailed",
    "Watch",
    "Watched",
    "has_attributes",
    "identity_of",
    "observations_of",
    "refusal_of",
]

_SKELETON: Final = frozenset(
    (b"proc", b"sys", b"dev", b"etc", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")
)
"""What every root file system has, whether or not a layer has it (`Surroundings`)."""

TOO_MUCH: Final = "it looked at more paths than are noted"
"""Why nothing is known of what a step looked at."""

_ACL: Final = b"system.posix_acl_"


def refusal_of(instruction: Exec, parent: State, blobs: Blobs) -> str:
    """Why a step can't be traced, empty if it can."""
    if instruction.security == "insecure":
        return "with --security=insecure it may change what it is watched by"
    for mount in instruction.mounts:
        if mount.type == "cache":
            return "it has a cache mount: what it reads depends on what that holds"
    for layer in parent.layers:
        for pairs in blobs.index(layer).xattrs.values():
            if any(name.startswith(_ACL) for name, _ in pairs):
                return "the image has access control lists"
    return ""


def has_attributes(parent: State, blobs: Blobs) -> bool:
    """Whether any entry of the image has extended attributes."""
    return any(blobs.index(layer).xattrs for layer in parent.layers)


def identity_of(instruction: Exec, tree: Tree) -> list[Any] | None:
    """The user of the command: uid, gid, groups, home; None if there is no such user, or if a mount
    may cover the accounts: then they are read inside, where reads are observed.
    """
    if instruction.mounts:
        return None
    found = derive("user", instruction.user, tree)
    if not isinstance(found, tuple):
        return None
    uid, gid, groups, home = found
    return [uid, gid, list(cast(tuple[int, ...], groups)), home]


class TracerFailed(Exception):
    """The result of a watched step is invalid, because it may have received wrong answers."""


class Tracer:
    """The tracing processes of one session, started with the first traced step."""

    def __init__(self, runner: HelperClient, *, userxattr: bool) -> None:
        self._runner = runner
        self._userxattr = userxattr
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None

    def begin(self, lower: Sequence[str], at: str, *, attributes: bool) -> Watch | str:
        """Serve the directories `lower` at the directory `at`, or return the reason why it is
        impossible.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    if self._channel is None:
                        self._channel = self._runner.program(tracer_command())
                    socket.send_fds(self._channel, [b"t"], [theirs.fileno()])
            except (OSError, BuildError) as error:
                ours.close()
                self.close()
                return f"the tracer can't be started: {error}"
        watch = Watch(ours)
        trouble = watch.ask(
            {
                "lower": list(lower),
                "at": at,
                "attributes": attributes,
                "userxattr": self._userxattr,
            }
        )
        if trouble["trouble"]:
            watch.close()
            return f"nothing can be traced here: {trouble['trouble']}"
        return watch

    def close(self) -> None:
        """End the tracing processes."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None


class Watch:
    """One watched step. `end` must be called when nothing of the step is left."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self.requests = 0
        self.full = False
        self.cpu = 0.0
        """Processor seconds that watching took."""

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """One question to the tracer, and its answer; a dead tracer is also an answer."""
        try:
            _wire.send(self._stream, message)
            answer = _wire.receive(self._stream)
        except OSError as error:
            answer = {"trouble": f"the tracer is gone ({error.strerror})"}
        found: dict[str, Any] = answer or {"trouble": "the tracer is gone"}
        return found

    def end(self) -> dict[bytes, int] | str:
        """The observations (path → bits), or the failure of tracing.

        `full` then tells that there were too many observations to record, and the result is empty.
        """
        answer = self.ask({})
        self.close()
        if answer["trouble"]:
            return f"the tracer failed: {answer['trouble']}"
        self.requests = answer["requests"]
        self.cpu = answer["cpu"] / 1000
        self.full = answer["full"]
        return dict(zip(answer["paths"], answer["bits"], strict=True))

    def close(self) -> None:
        self._stream.close()


class Watched(Notes):
    """The `Blobs` of a step that records look-ups in the tree that it is compared with.

    Capturing leaves out entries that are unchanged from the parent, so they count as read, too.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.lookups: dict[bytes, Node | None] = {}
        self.listed: set[bytes] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def noted(self, tree: Tree) -> Tree:
        """The capability `Notes`: `tree`, with look-ups recorded."""
        return _Noting(tree, self)


class _Noting(HardLinks):
    def __init__(self, tree: Tree, notes: Watched) -> None:
        self._tree = tree
        self._notes = notes

    def digest(self, path: bytes) -> bytes:
        return self._tree.digest(path)

    def open(self, path: bytes) -> BinaryIO:
        return self._tree.open(path)

    def inode(self, path: bytes) -> object | None:
        return self._tree.inode(path) if isinstance(self._tree, HardLinks) else None

    def shared(self) -> Sequence[tuple[bytes, object]]:
        return self._tree.shared() if isinstance(self._tree, HardLinks) else ()

    def lookup(self, path: bytes) -> Node | None:
        node = self._notes.lookups[path] = self._tree.lookup(path)
        return node

    def children(self, path: bytes) -> Sequence[bytes]:
        self._notes.listed.add(path)
        return self._tree.children(path)


def observations_of(
    seen: Mapping[bytes, int],
    captured: Watched,
    index: LayerIndex | None,
    tree: Tree,
    user: str,
) -> Observations | str | None:
    """All observations that a step's result depends on, or the reason for doubt.

    None if the times of its files depend on more than the observations.

    `seen` are the tracer's, `captured` the look-ups of capturing, `index` is the layer's.
    """
    doubt = _unexplained(seen, index, tree) or _mistaken(seen, tree)
    if doubt:
        return doubt
    found = dict(seen)
    # The upper directory was given what the root is: nobody had to ask for it.
    found[b""] = found.get(b"", 0) | FOUND | METADATA
    for path, node in captured.lookups.items():
        if node is None:
            bits = ABSENT
        elif node.is_dir:
            bits = FOUND | METADATA
        elif index is not None and _has_entry(index, path):
            bits = FOUND
        else:
            bits = WHOLE  # the layer has no entry because it is what it was
        found[path] = found.get(path, 0) | bits
    for path in captured.listed:
        found[path] = found.get(path, 0) | LISTING
    since = _since(index, tree, found)
    if since is None:
        return None
    return Observations.of(found, [("user", user), *((SINCE, path) for path in since)])


def _since(index: LayerIndex | None, tree: Tree, seen: Mapping[bytes, int]) -> list[str] | None:
    """Paths of the parent whose times the layer's entries have; None if one is unknown.

    Such a time tells the number of instants since then, which unrelated instructions may change.
    """
    kept = [code for code in index.times.codes if _is_age(code)] if index is not None else []
    if index is None or not kept:
        return []
    if not isinstance(tree, Timed):
        return None
    found: dict[int, bytes] = {}
    for path, bits in seen.items():
        age = tree.age(path) if bits & FOUND else None
        if age is not None:
            found.setdefault(age, path)
    paths = set()
    for row, path in enumerate(index.paths):
        code = index.code(row)
        if code is None or not _is_age(code):
            continue
        source = path if tree.age(path) == code else found.get(code)
        if source is None:
            return None
        paths.add(os.fsdecode(source))
    return sorted(paths)


def _is_age(code: int) -> bool:
    return 0 < code < MAX_CODE and code % 2 == 0


def _has_entry(index: LayerIndex, path: bytes) -> bool:
    entry = index.get(path)
    return entry is not None and not entry.implied


def _unexplained(seen: Mapping[bytes, int], index: LayerIndex | None, tree: Tree) -> str:
    """A change without a look-up: overlayfs can't make one, so an observation is missing. Empty if
    there is none.
    """
    inside: bytes | None = None
    for entry in index or ():
        path = entry.path
        if not path or entry.implied or (inside is not None and path.startswith(inside)):
            continue
        if not seen.get(path, 0) & (ABSENT | FOUND) and not _beneath_absent(seen, path):
            return f"the tracer did not see how {shown_in_image(path)} came about"
        node = tree.lookup(path)
        if node is None or not node.is_dir or entry.opaque:
            inside = path + b"/"
    return ""


def _beneath_absent(seen: Mapping[bytes, int], path: bytes) -> bool:
    while path:
        path = path.rpartition(b"/")[0]
        if seen.get(path, 0) & ABSENT:
            return True
    return False


def _mistaken(seen: Mapping[bytes, int], tree: Tree) -> str:
    """A path on which the tracer and the layers disagree; empty if there is none."""
    for path, bits in seen.items():
        if path in _SKELETON:
            continue
        there = tree.lookup(path) is not None
        if (bits & ABSENT and there) or (bits & FOUND and not there):
            return f"the tracer saw something else at {shown_in_image(path)} than the layers say"
    return ""
