"""Preparation of `RUN --mount`: the directory, file or socket behind each, and its content.

`Mounts` lives as long as one step and releases its resources (locks, agents) on closing.
It is one class: all kinds share the step's directories, order and what is given back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posixpath
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layercache.errors import BuildError, UsageError
from layercache.executors.rootfs.cache_mounts import CacheDirectory, Caches, KnowsBuild
from layercache.executors.rootfs.file_work import (
    FileWork,
    ShownTimes,
    clock_of,
    shown_state,
    state_tree,
)
from layercache.executors.rootfs.mount_times import Seen, Table, base_of, show
from layercache.executors.rootfs.scratch import Scratch
from layercache.executors.rootfs.unpacked import Unpacked
from layercache.executors.rootfs.upper import show_root
from layercache.executors.rootfs.written_selection import NAME, write_selection
from layercache.layers.passwd import MAX_ID
from layercache.model.descriptors import SCRATCH, State
from layercache.model.digests import Fingerprint
from layercache.model.layer_times import LAYER_TIME
from layercache.model.operations import Exec, Mount
from layercache.model.selectors import Files
from layercache.model.task import Blobs, BoundInput, Task
from layercache.trees.selection import select, walk

if TYPE_CHECKING:
    from layercache.executors.rootfs.inside.wire import Sendable
    from layercache.model.tree import Tree

__all__ = ["SharedInputs", "StepMounts", "check_mounts"]

_COARSE = 256
"""Seconds: what mounts show is of the first multiple of this after the state's own times."""

_SECRETS = "/run/secrets/"
_OWN = ("proc", "sys", "dev")
_AGENTS = "/run/buildkit/ssh_agent."
SHM = "/dev/shm"
_HALF = "50%"
"""Of the memory: what a tmpfs without a size may take."""


def check_mounts(mounts: Sequence[Mount]) -> None:
    """Refuse mounts over the root, at or below /proc, /sys and /dev, and invalid owners and modes;
    raises `UsageError`.

    If links of the image lead there, the step itself refuses.
    """
    for mount in mounts:
        if not (0 <= mount.uid <= MAX_ID and 0 <= mount.gid <= MAX_ID):
            raise UsageError(
                f"RUN --mount: {mount.uid}:{mount.gid} is not a valid owner: give numbers from 0 "
                f"to {MAX_ID}"
            )
        if mount.mode is not None and not 0 <= mount.mode <= 0o7777:
            raise UsageError(f"RUN --mount: {mount.mode:o} is not a mode: give at most 7777")
        if not mount.target:
            continue
        target = posixpath.normpath("/" + mount.target.lstrip("/"))
        if target == "/":
            raise UsageError("RUN --mount: a mount can't cover the root: give it a target below /")
        first = target.split("/")[1]
        if target == SHM and mount.type == "tmpfs":
            continue  # every step has one there: the mount says how large it is
        if first in _OWN:
            hint = "; --shm-size says how large /dev/shm is" if target == "/dev/shm" else ""
            raise UsageError(
                f"RUN --mount: {target} is at or below /{first}, and each step has its own: "
                f"mount it elsewhere{hint}"
            )


class SharedInputs:
    """Contexts written out for mounting: once per build, however many steps read one.

    All files are root's, because owners in a context don't count.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._lock = threading.Lock()
        self._made: dict[tuple[Fingerprint, int], str] = {}

    def directory(self, bound: BoundInput, blobs: Blobs, time: int) -> str:
        """The directory that holds the part of an input that a selector picks, as `content`.

        All entries have the time `time`, in seconds since 1970.
        """
        if not isinstance(bound.selector, Files):
            raise UsageError(f"a mount reads files, not {bound.selector.name!r}")
        with self._lock:
            path = self._made.get((bound.fingerprint, time))
            if path is None:
                path = self._scratch.new("inputs")
                try:
                    write_selection(blobs.tree(bound.subject), bound.selector, path, time)
                except BaseException:
                    self._scratch.discard(path)
                    raise
                self._made[bound.fingerprint, time] = path
            return path


class StepMounts:
    """The mounts of one step.

    After `prepare`: `specs` are what the helper process mounts, in order; `variables` what the
    command's environment gets; `held` the locks that the step must hold;
    `shm_size` the size of /dev/shm where a mount says it.
    """

    def __init__(
        self,
        task: Task,
        work: str,
        *,
        scratch: Scratch,
        unpacked: Unpacked,
        files: FileWork,
        inputs: SharedInputs,
        caches: Caches,
        secrets: Mapping[str, bytes],
        agents: Mapping[str, str],
        empty: str,
    ) -> None:
        self._task = task
        self._work = work
        self._scratch = scratch
        self._unpacked = unpacked
        self._files = files
        self._inputs = inputs
        self._caches = caches
        self._secrets = secrets
        self._agents = agents
        self._empty = empty
        self._stack = contextlib.ExitStack()
        self._count = 0
        self._sockets = 0
        self._taken: dict[str, str] = {}
        self._moments: set[int] = set()
        self._mounts: tuple[Mount, ...] = ()
        self._used: list[CacheDirectory] = []
        self._filled = False
        self._binds: list[tuple[dict[bytes, bytes], dict[str, Any]]] = []
        """What is shown in bind mounts: name → path there, the mount."""
        self._seen: dict[bytes, Seen] = {}
        self._kept: dict[bytes, int] = {}
        self.timed: dict[str, Any] | None = None
        """Times to be set on what the step's own state shows, beneath its root."""
        self.specs: list[dict[str, Sendable]] = []
        self.variables: dict[str, str] = {}
        self.held: list[int] = []
        self.shm_size: int | str | None = None

    def __enter__(self) -> StepMounts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self, instruction: Exec, blobs: Blobs) -> None:
        """Prepare everything; raises `BuildError` for a missing requirement, `Cancelled`."""
        check_mounts(instruction.mounts)
        self._mounts = instruction.mounts
        found: list[tuple[Mount, dict[str, Sendable]]] = []
        # Locks in one order for all steps, so that two can't wait for each other.
        caches = [m for m in instruction.mounts if m.type == "cache"]
        for mount in sorted(caches, key=self._cache_place):
            found.append((mount, self._cache(mount, blobs)))
        mounts = instruction.ordered_mounts
        for mount in mounts:
            if mount.type == "bind":
                found.append((mount, self._bind(mount, blobs)))
            elif mount.type == "tmpfs" and posixpath.normpath(mount.target) == SHM:
                self.shm_size = mount.size or _HALF
            elif mount.type == "tmpfs":
                spec: dict[str, Sendable] = {"kind": "tmpfs", "size": mount.size}
                found.append((mount, {**spec, "target": mount.target}))
            elif mount.type == "secret":
                found += [(mount, spec) for spec in self._secret(mount)]
            elif mount.type == "ssh":
                found += [(mount, spec) for spec in self._ssh(mount)]
            elif mount.type != "cache":
                raise UsageError(f"a mount of type {mount.type!r} is not known")
        order = {id(mount): n for n, mount in enumerate(mounts)}
        found.sort(key=lambda pair: (str(pair[1]["target"]).count("/"), order[id(pair[0])]))
        self.specs = [spec for _, spec in found]
        if self._used:
            self._show_times(blobs)

    def _show_times(self, blobs: Blobs) -> None:
        """Set file times that the caches can compare with those of their last use: see
        `mount_times`.
        """
        parent = self._task.parent or SCRATCH
        state = state_tree(parent, blobs)
        count = state.base_layers
        base = base_of([layer.id for layer in parent.layers[:count]])
        seen = self._seen
        for path, row, moment in state.files_above(count):
            seen[b"/" + path] = Seen.of(row[0], row[1], row[2], row[7], moment)
        alone = []
        for found in self._used:
            lock, only = self._caches.alone(found)
            self._stack.callback(os.close, lock)
            self.held.append(lock)
            alone.append((found, lock, only))
        fresh = all(only and found.new for found, _, only in alone) and not self._filled
        tables = [Table.read(found.times) if only else None for found, _, only in alone]
        shown = show(seen, base, tables, fresh=fresh)
        for found, lock, only in alone:
            if only:
                table = Table(base, {name: (seen[name].identity, t) for name, t in shown.items()})
                table.write(found.times)
                fcntl.flock(lock, fcntl.LOCK_SH)
            else:
                # Two at once: what is in there may be of either.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(found.times)
        other = {name: t for name, t in shown.items() if t != seen[name].moment}
        self._kept = {name[1:]: t for name, t in other.items() if not name.startswith(b"//")}
        if self._kept:
            self.timed = self._timed(self._kept)
        for paths, spec in self._binds:
            times = {path: other[name] for name, path in paths.items() if name in other}
            if times:
                self._moments.update(times.values())
                self._retime(spec, times)

    def _timed(self, times: Mapping[bytes, int]) -> dict[str, Any]:
        """An overlay in which only times differ, to be mounted over other directories."""
        upper, names = self._next("tu"), sorted(times)
        return {
            "at": self._next("ti"),
            "upper": upper,
            "work": self._next("tw"),
            # Two texts, because a value each would cost as much as setting them.
            "paths": b"\0".join(names),
            "times": b" ".join([b"%d" % times[name] for name in names]),
        }

    def _retime(self, spec: dict[str, Any], times: Mapping[bytes, int]) -> None:
        """Put an overlay with other times below the content of a bind mount."""
        lower = spec["overlays"][0]["lower"] if spec["overlays"] else [spec["base"]]
        timed = {**self._timed(times), "lower": lower}
        info = os.stat(lower[0])
        os.chmod(timed["upper"], info.st_mode & 0o7777)
        if os.geteuid() == 0 and (info.st_uid or info.st_gid):
            os.chown(timed["upper"], info.st_uid, info.st_gid)
        if spec["overlays"] and spec["overlays"][0]["upper"] is not None:
            spec["overlays"][0]["lower"] = [timed["at"]]
            spec["overlays"].insert(0, timed)
        else:
            spec["overlays"], spec["base"] = [timed], timed["at"]

    def _see(
        self, mount: Mount, bound: BoundInput, spec: dict[str, Any], start: int, blobs: Blobs
    ) -> None:
        """Record the files that a bind mount shows, for the caches."""
        if not isinstance(bound.selector, Files):
            return
        if isinstance(bound.subject, State):
            tree: Tree = shown_state(bound.subject, blobs, start)
        else:
            tree = blobs.tree(bound.subject)
        prefix = b"//" + os.fsencode(posixpath.normpath(mount.target)) + b"//"
        paths = {}
        state = isinstance(bound.subject, State)
        for match in select(tree, bound.selector):
            for relative, path, node in walk(tree, match):
                if node.is_file:
                    name = prefix + relative
                    inside = os.fsencode(NAME) + (b"/" + relative if relative else b"")
                    paths[name] = path if state else inside
                    moment = node.mtime if state else start
                    self._seen[name] = Seen.of(node.mode, node.uid, node.gid, node.content, moment)
        self._binds.append((paths, spec))

    @property
    def shown(self) -> ShownTimes:
        """The times that the step is shown besides those of its logical clock."""
        return ShownTimes(kept=self._kept, mounted=sorted(self._moments))

    def _next(self, kind: str) -> str:
        """A new directory of the step."""
        self._count += 1
        path = os.path.join(self._work, f"{kind}{self._count}")
        os.mkdir(path, 0o700)
        return path

    def _input(self, mount: Mount) -> BoundInput:
        for bound in self._task.inputs:
            if bound.role == mount.role:
                return bound
        raise BuildError(f"the mount at {mount.target} has no input {mount.role!r}")

    # -- one of each ------------------------------------------------------------------------

    def _bind(self, mount: Mount, blobs: Blobs) -> dict[str, Sendable]:
        bound = self._input(mount)
        spec, start = self._bind_spec(mount, bound, blobs)
        if any(other.type == "cache" for other in self._mounts):
            self._see(mount, bound, spec, start, blobs)
        return spec

    def _bind_spec(
        self, mount: Mount, bound: BoundInput, blobs: Blobs
    ) -> tuple[dict[str, Any], int]:
        """The mount, and the start of its clock, or the time of everything in it."""
        spec: dict[str, Any] = {
            "kind": "bind",
            "target": mount.target,
            "readonly": mount.readonly,
            "overlays": [],
        }
        if isinstance(bound.subject, State):
            # An unpacked layer has marks of overlayfs in it; an overlay takes two directories.
            start, moments = self._beside(bound.subject, blobs)
            self._moments |= moments
            lower = [*self._unpacked.lower(bound.subject, blobs, start), self._empty]
            source = mount.source
        else:
            start = self._later(blobs)
            self._moments.add(start * 10**9)
            lower = [self._inputs.directory(bound, blobs, start)]
            source = NAME
        if mount.readonly and len(lower) == 1:
            return {**spec, "base": lower[0], "source": source}, start
        at = self._next("in")
        layer: dict[str, Any] = {"at": at, "lower": lower, "upper": None, "work": None}
        if not mount.readonly:
            # What a command writes there is gone afterwards, as with BuildKit.
            layer["upper"], layer["work"] = self._next("up"), self._next("wk")
            shown = blobs.tree(bound.subject) if isinstance(bound.subject, State) else None
            show_root(layer["upper"], shown, self._files)
            if shown is not None:
                # The time that a read-only mount shows: that of the mounted state's own clock.
                moment = os.stat(lower[0]).st_mtime_ns
                os.utime(layer["upper"], ns=(moment, moment))
        return {**spec, "base": at, "source": source, "overlays": [layer]}, start

    def _later(self, blobs: Blobs) -> int:
        """A time after all that the step's own state shows: a mount may be newer than any of it."""
        instants = clock_of(self._task.parent or SCRATCH, blobs).instants
        # In coarse steps: so that a state is seldom unpacked anew for the next instruction.
        return (instants[-1] // _COARSE + 1) * _COARSE

    def _beside(self, subject: State, blobs: Blobs) -> tuple[int, set[int]]:
        """The start of the clock of a mounted state, and its moments in ns."""
        start = LAYER_TIME
        moments = _moments(subject, blobs, start)
        later = self._later(blobs)
        if moments and min(moments) < later:
            start = later
            moments = _moments(subject, blobs, start)
        return start, {moment * 10**9 for moment in moments}

    def _start(self, mount: Mount) -> BoundInput | None:
        """The input with the initial content of a cache mount, None if it begins empty."""
        return None if mount.role is None else self._input(mount)

    def _cache_place(self, mount: Mount) -> str:
        bound = self._start(mount)
        return self._caches.place(mount, None if bound is None else bound.fingerprint)

    def _cache(self, mount: Mount, blobs: Blobs) -> dict[str, Sendable]:
        bound = self._start(mount)
        place = self._cache_place(mount)
        if mount.sharing != "private" and place in self._taken:
            path = self._taken[place]  # twice in one step: waiting for itself would not end
        else:
            path = self._take_cache(mount, bound, blobs)
            self._taken[place] = path
        # Only the helper process can give a directory to another user of its user namespace.
        foreign = bound is None and os.geteuid() != 0
        if bound is None and mount.source.strip("/") not in ("", "."):
            # A path within what commands wrote: its links lead nowhere but within.
            return {
                "kind": "bind",
                "target": mount.target,
                "readonly": mount.readonly,
                "overlays": [],
                "base": path,
                "source": mount.source,
            }
        return {
            "kind": "path",
            "path": path,
            "target": mount.target,
            "readonly": mount.readonly,
            "owner": [mount.uid, mount.gid] if foreign else None,
        }

    def _take_cache(self, mount: Mount, bound: BoundInput | None, blobs: Blobs) -> str:
        """The locked directory of a cache mount."""

        def fill(directory: str) -> None:
            content = os.path.join(directory, NAME)
            if bound is None:
                os.mkdir(content)
                os.chmod(content, 0o755 if mount.mode is None else mount.mode)
                if os.geteuid() == 0:
                    os.chown(content, mount.uid, mount.gid)
                return
            if not isinstance(bound.selector, Files):
                raise UsageError(f"a mount reads files, not {bound.selector.name!r}")
            state = isinstance(bound.subject, State)
            tree, now = blobs.tree(bound.subject), int(time.time())
            owners = write_selection(tree, bound.selector, directory, now, attributes=state)
            if state:
                self._files.give(directory, owners)

        found = self._caches.acquire(
            mount,
            None if bound is None else bound.fingerprint,
            empty=self._task.bypass,
            build=blobs.build if isinstance(blobs, KnowsBuild) else None,
            fill=fill,
            cancelled=blobs.cancelled,
        )
        self._used.append(found)
        self._filled |= bound is not None
        self._stack.callback(os.close, found.lock)
        self.held.append(found.lock)
        return os.path.join(found.path, NAME)

    def _secret(self, mount: Mount) -> list[dict[str, Sendable]]:
        value = self._secrets.get(mount.id)
        if value is None:
            if mount.required:
                raise BuildError(
                    f"RUN needs the secret {mount.id!r}, but it was not given: pass "
                    f"--secret id={mount.id},src=FILE"
                )
            return []
        if mount.env:
            self.variables[mount.env] = os.fsdecode(value)
        target = mount.target
        if not target and not mount.env:
            target = _SECRETS + os.path.basename(mount.id)
        if not target:
            return []
        self._count += 1
        return [
            {
                "kind": "secret",
                "name": str(self._count),
                "content": value,
                "target": target,
                "mode": 0o400 if mount.mode is None else mount.mode,
                "uid": mount.uid,
                "gid": mount.gid,
            }
        ]

    def _ssh(self, mount: Mount) -> list[dict[str, Sendable]]:
        name = mount.id or "default"
        agent = self._agents.get(name)
        # Set without an agent, too, as BuildKit does.
        target = mount.target or f"{_AGENTS}{self._sockets}"
        self.variables.setdefault("SSH_AUTH_SOCK", target)
        if agent is None:
            if mount.required:
                raise BuildError(
                    f"RUN needs the SSH agent {name!r}, but it was not given: pass "
                    f"--ssh {name}=SOCKET"
                )
            return []
        from layercache.executors.rootfs.ssh_proxy import AgentProxy

        self._sockets += 1
        path = os.path.join(self._next("ssh"), "agent")
        proxy = AgentProxy(path, agent)
        self._stack.callback(proxy.close)
        return [
            {
                "kind": "socket",
                "path": path,
                "target": target,
                "mode": 0o600 if mount.mode is None else mount.mode,
                "uid": mount.uid,
                "gid": mount.gid,
            }
        ]


def _moments(state: State, blobs: Blobs, start: int) -> list[int]:
    """The times at which a step sees files that the layers of a state mark as written now."""
    tree = state_tree(state, blobs)
    clock = tree.clock_from(start)
    return [
        clock.shown(number, code)
        for number, index in enumerate(tree.indexes)
        for code in index.times.codes
    ]
