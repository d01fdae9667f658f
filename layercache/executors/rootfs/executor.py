"""The rootfs executor: runs each command in the image's own file system, isolated.

A step is an overlay over the unpacked layers of its state, in namespaces of its own; the changes
of the command are captured as a layer and kept as the directory of that layer.

One class, because its options govern all of it; the parts that do the work are separate modules.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from layercache._base.classes import evolve
from layercache.errors import CacheError, StepFailed, UsageError
from layercache.executors.redaction import masks_of
from layercache.executors.rootfs.environment import environment
from layercache.executors.rootfs.networks import NETWORKS, Isolation, find_isolation
from layercache.executors.rootfs.privileges import is_root, may_set_host_name
from layercache.executors.rootfs.secret_values import secret_value
from layercache.model.descriptors import SCRATCH
from layercache.model.image_config import DEFAULT_PATH
from layercache.model.instruction import Field, Instruction
from layercache.model.open_layers import KeepsOpenLayers
from layercache.model.operations import CopyFiles, Exec, MakeDirectory
from layercache.model.task import (
    Blobs,
    ChecksInstructions,
    Masks,
    Result,
    Task,
    UnpacksStates,
    WithSecrets,
)
from layercache.model.tree import Closes

if TYPE_CHECKING:
    # Most builds execute nothing, so modules for execution are loaded on first use.
    from layercache.executors.rootfs import tracer_client as tracing
    from layercache.executors.rootfs.cache_listing import KeptCacheMount
    from layercache.executors.rootfs.file_work import Captured, ShownTimes
    from layercache.executors.rootfs.helper_client import Ended
    from layercache.executors.rootfs.output import Output
    from layercache.executors.rootfs.session import Session
    from layercache.executors.rootfs.user_namespace import UserNamespace
    from layercache.model.descriptors import Layer

__all__ = ["RootfsExecutor"]

_SCHEME: Final = "rootfs/3"
_SHM_SIZE: Final = 64 << 20
HOST_GATEWAY: Final = "host-gateway"


class RootfsExecutor(ChecksInstructions, Masks, UnpacksStates, WithSecrets, Closes):
    """Runs steps in root file systems made from their layers. Safe for threads.

    Args:
        directory: a scratch directory on a local file system to which overlayfs can write;
            several builds may share it. Unpacked layers and cache mounts stay there.
        secrets: id → bytes, or the path of a file that holds them (read immediately).
        ssh: id → the socket of an SSH agent.
        network: the meaning of `default`. "isolated": a network of the step's own, by pasta or
            slirp4netns if one is available; otherwise the host's, without raw sockets
            (`network_reason` gives the reason). "host", which implies `allow_host_network`. "none".
        allow_host_network: honour `RUN --network=host`.
        step_timeout: the maximum duration of one command in seconds; None is no limit.
        rootless: work in a user namespace; None does so if the process isn't root or lacks
            CAP_SYS_ADMIN.
        trust: the name of the trust domain that shares cache mounts; other domains don't see them.
        allow_insecure: honour `RUN --security=insecure` (all capabilities of this process).
        durable: sync unpacked layers when closing, so that they outlast a reboot.
        keep_bytecode: leave `.pyc` files in layers as commands compiled them, instead of making
            those that go by the time of their source go by its content.

    Close it, or use it as a context manager: that ends the helper process and deletes temporary
    files. At the latest, this happens at the end of the process.
    """

    name = "rootfs"
    unpacks_states = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        secrets: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
        ssh: Mapping[str, str] | None = None,
        network: str = "isolated",
        allow_host_network: bool = False,
        step_timeout: float | None = None,
        rootless: bool | None = None,
        trust: str = "",
        allow_insecure: bool = False,
        durable: bool = False,
        keep_bytecode: bool = False,
    ) -> None:
        if network not in NETWORKS:
            raise UsageError(f"network {network!r}: expected {', '.join(NETWORKS)}")
        self.directory = os.path.realpath(os.fspath(directory))
        self._secrets = {name: secret_value(name, value) for name, value in (secrets or {}).items()}
        self._agents = dict(ssh or {})
        self._network = network
        self._host_network = allow_host_network or network == "host"
        self._isolation: Isolation | None = None
        self._names_host: bool | None = None
        self._timeout = step_timeout
        if rootless is None:
            rootless = not is_root()
        self._namespace: UserNamespace | None = None
        if rootless:
            from layercache.executors.rootfs.user_namespace import user_namespace

            self._namespace = user_namespace()
        self._trust = trust
        self._insecure = allow_insecure
        self._durable = durable
        self._keep_bytecode = keep_bytecode
        self._masks = masks_of(self._secrets.values())
        self._lock = threading.Lock()
        self._session: Session | None = None

    def __enter__(self) -> RootfsExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every step and the helper process, and delete temporary files.

        The executor can be used again afterwards.
        """
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def prune(self, *, unused_for: float = 0.0, caches: bool = False) -> int:
        """Delete unpacked layers that no step needed for `unused_for` seconds, and with `caches`
        also the contents of all cache mounts; returns the number of deleted directories.

        Everything but the caches' contents can be made again. Files of other users of a user
        namespace can be deleted only in this way. Does nothing while another build uses the
        directory; raises `UsageError` while a step of this executor runs.
        """
        with self._open() as session:
            if session.users > 1:
                raise UsageError("the executor is running steps: prune before or after the build")
            with session.scratch.alone() as alone:
                if not alone:
                    return 0
                count = session.unpacked.prune(time.time() - unused_for)
                if caches:
                    count += session.caches.prune()
            session.clean()
            return count

    def discard_cache_mounts(self, caches: Sequence[KeptCacheMount]) -> Sequence[KeptCacheMount]:
        """Delete the contents of these cache mounts (of `cache_listing.cache_mounts`); returns
        those that were deleted: not the ones that a step uses.
        """
        with self._open() as session:
            gone = [cache for cache in caches if session.caches.discard(cache)]
            session.clean()
            return gone

    @property
    def masks(self) -> tuple[bytes, ...]:
        """The texts that must not be shown in output: the secrets."""
        return self._masks

    @property
    def traits(self) -> Sequence[Field]:
        """The facts about this executor that may change the results of commands."""
        from layercache.executors.rootfs.constraints import constraints
        from layercache.executors.rootfs.surroundings import HOSTNAME
        from layercache.oci.platforms import host_platform

        return (
            Field("executor", _SCHEME),
            Field("platform", str(host_platform())),
            Field("privileges", self._privileges()),
            Field("default network", self._default_network()),
            Field("host name", self._host_name(HOSTNAME)),
            Field("default PATH", DEFAULT_PATH),
            *((Field("bytecode", "as compiled"),) if self._keep_bytecode else ()),
            *constraints(rootless=self._namespace is not None),
        )

    @property
    def network_reason(self) -> str:
        """Why commands use the host's network instead of one of their own; "" if they don't."""
        if self._network != "isolated":
            return ""
        # Looked up when first asked for: most builds execute nothing.
        if self._isolation is None:
            self._isolation = find_isolation()
        return self._isolation.reason

    def _default_network(self) -> str:
        """The default network of commands: it determines addresses, resolver and reachable hosts,
        so results of one kind are not reused by another.
        """
        return "host without raw sockets" if self.network_reason else self._network

    @property
    def names_host(self) -> bool:
        """Whether commands see the fixed host name rather than this machine's."""
        if self._names_host is None:
            self._names_host = self._namespace is None or may_set_host_name()
        return self._names_host

    def _host_name(self, name: str) -> str:
        """`name`, or empty if it can't be set; such results are kept apart."""
        return name if self.names_host else ""

    def _privileges(self) -> str:
        """The users that commands can have: without changing owners or making devices, results
        may differ.
        """
        if self._namespace is None:
            return "root"
        return "user namespace, root only" if self._namespace.single else "user namespace"

    def check(self, instruction: Instruction) -> None:
        """Refuse an instruction that can't be honoured here; raises `UsageError`."""
        if not isinstance(instruction, Exec):
            return
        if instruction.devices:
            raise UsageError(
                f"RUN --device={instruction.devices[0]}: the rootfs executor gives commands no "
                "devices of the host"
            )
        if instruction.security not in ("sandbox", "insecure"):
            raise UsageError(f"RUN --security={instruction.security}: expected sandbox or insecure")
        if instruction.security == "insecure" and not self._insecure:
            raise UsageError(
                "RUN --security=insecure gives the command all privileges of this process: allow "
                "it with --allow security.insecure"
            )
        if instruction.network not in ("default", "host", "none"):
            raise UsageError(f"--network={instruction.network}: expected default, host or none")
        if instruction.network == "host" and not self._host_network:
            raise UsageError(
                "RUN --network=host gives the command the network of this machine, with all that "
                "listens only there: allow it with --allow network.host"
            )
        isolated = instruction.network == "default" and self._default_network() == "isolated"
        for name, address in instruction.hosts:
            if address == HOST_GATEWAY and isolated:
                raise UsageError(
                    f"--add-host {name}:{address}: the network of a command does not reach this "
                    "machine: give it that of the machine with --network host"
                )
        for name, address in instruction.hosts:
            if not name or not address or set(name + address) & set(" \t\n#"):
                raise UsageError(f"--add-host {name}:{address}: not a name and an address")
        for name, _ in instruction.files:
            if "/" in name or name in ("", ".", ".."):
                raise UsageError(f"a here-document can't be named {name!r}")
        if instruction.mounts:
            from layercache.executors.rootfs.mounts import check_mounts

            check_mounts(instruction.mounts)
        if instruction.ulimits:
            from layercache.executors.rootfs.ulimits import parse_ulimits

            parse_ulimits(instruction.ulimits)

    # -- executing --------------------------------------------------------------------------

    def execute(self, task: Task, blobs: Blobs) -> Result:
        """Run one step; raises `StepFailed` for the command, `BuildError` for a missing
        requirement.

        Even if it raises, nothing of the step is left running or mounted.
        """
        instruction = task.instruction
        if isinstance(instruction, CopyFiles | MakeDirectory):
            from layercache.executors.copy import copy_layer

            return copy_layer(task, blobs)
        if not isinstance(instruction, Exec):
            raise UsageError(
                f"the rootfs executor does not know {instruction.name}: give the Builder an "
                "executor for your own instruction types"
            )
        self.check(instruction)
        if not instruction.args:
            raise UsageError("RUN without a command")
        with self._open() as session:
            return self._execute(session, task, instruction, blobs)

    def _execute(self, session: Session, task: Task, instruction: Exec, blobs: Blobs) -> Result:
        session.runner.start()
        if not task.observe:
            return self._step(session, task, instruction, blobs)
        from layercache.executors.rootfs import tracer_client as tracing

        parent = task.parent or SCRATCH
        refusal = tracing.refusal_of(instruction, parent, blobs)
        if self._namespace is not None:
            refusal = refusal or "in a user namespace steps are not traced"
        if not refusal:
            traced = self._traced(session, task, instruction, blobs)
            if isinstance(traced, Result):
                return traced
            refusal = traced
        result = self._step(session, task, instruction, blobs)
        return evolve(result, refusal=refusal)

    def _traced(
        self, session: Session, task: Task, instruction: Exec, blobs: Blobs
    ) -> Result | str:
        """Run one step watched; a text gives the reason why it must run again unwatched."""
        from layercache.executors.rootfs import tracer_client as tracing

        parent = task.parent or SCRATCH
        at = session.scratch.new()
        try:
            lower = [*session.unpacked.lower(parent, blobs), session.surroundings.skeleton]
            watch = session.tracer.begin(
                lower, at, attributes=tracing.has_attributes(parent, blobs)
            )
            if isinstance(watch, str):
                return watch
            return self._step(session, task, instruction, blobs, watch=watch, lower=at)
        except tracing.TracerFailed as error:
            return str(error)
        finally:
            session.scratch.discard(at)

    def _step(
        self,
        session: Session,
        task: Task,
        instruction: Exec,
        blobs: Blobs,
        *,
        watch: tracing.Watch | None = None,
        lower: str = "",
    ) -> Result:
        """Run one step; `watch` serves its parent at `lower`, otherwise the unpacked layers do."""
        from layercache.executors.rootfs import tracer_client as tracing
        from layercache.executors.rootfs.upper import make_upper

        parent = task.parent or SCRATCH
        tree = blobs.tree(parent)
        # The upper directory has one of its own around it, which is moved when it is kept.
        work, container = session.scratch.new(), session.scratch.new()
        try:
            around = session.surroundings
            spec: dict[str, Any] = {
                "root": {"at": around.root, "work": work, "lower": [lower], "options": []},
                "identity": None,
            }
            if watch is None:
                spec["root"]["lower"] = [*session.unpacked.lower(parent, blobs), around.skeleton]
            else:
                # Lower and upper are two file systems now, but have to look like one.
                spec["root"]["options"] = [["xino", "on"]]
                spec["identity"] = tracing.identity_of(instruction, tree)
            upper = spec["root"]["upper"] = make_upper(container, tree, session.files)
            try:
                output, ended, shown = self._run(session, task, instruction, blobs, work, spec)
            finally:
                seen = watch.end() if watch is not None else {}
            if isinstance(seen, str):
                raise tracing.TracerFailed(seen)
            kept = output.end()
            self._raise_for(instruction, ended, output)
            noting = tracing.Watched(blobs) if watch is not None else blobs
            shown = evolve(shown, keep_bytecode=self._keep_bytecode)
            captured = session.files.capture(upper, ended.made, parent, work, noting, shown)
            layer = None if captured is None else captured.layer
            index = None if captured is None else captured.index
            result = Result(layer=layer, output=kept)
            if watch is not None and watch.full:
                # Its answers were right; only its dependencies are unknown.
                result = evolve(result, refusal=tracing.TOO_MUCH)
            elif isinstance(noting, tracing.Watched):
                found = tracing.observations_of(seen, noting, index, tree, instruction.user)
                if isinstance(found, str):
                    raise tracing.TracerFailed(found)
                if found is None:
                    result = evolve(result, refusal="its files have the times of unseen ones")
                else:
                    result = evolve(result, observed=found)
            if captured is not None and captured.faithful:
                name = session.unpacked.adopt(parent, captured.layer, container, blobs)
                if captured.layer.is_open:
                    layer = self._kept_open(session, captured, name, work, blobs)
                    result = evolve(result, layer=layer)
            return result
        finally:
            session.scratch.discard(work)
            session.scratch.discard(container)

    def _kept_open(
        self, session: Session, captured: Captured, name: str, work: str, blobs: Blobs
    ) -> Layer:
        """The layer in the unpacked directory `name`: open if the cache takes it so, else with its
        archive."""
        from layercache.executors.rootfs.file_work import archived

        try:
            if isinstance(blobs, KeepsOpenLayers):
                blobs.keep_open(captured.layer, captured.index, name)
                return captured.layer
        except CacheError:
            pass  # a cache that fails must not cost the result: it is kept like any blob
        tar = os.path.join(work, "layer.tar")
        return archived(captured, session.unpacked.files(name), tar, blobs).layer

    def with_secrets(self, names: Collection[str]) -> RootfsExecutor:
        """The same executor, not started, with only the named secrets (`WithSecrets`)."""
        secrets = {name: value for name, value in self._secrets.items() if name in names}
        found: RootfsExecutor = object.__new__(RootfsExecutor)
        found.__setstate__(self.__getstate__() | {"_secrets": secrets})
        found._masks = masks_of(secrets.values())
        return found

    def __getstate__(self) -> dict[str, object]:
        """The state for another process of a pool: everything except open resources."""
        # What can speak for a network is another machine's own.
        own = {"_lock": None, "_session": None, "_isolation": None, "_names_host": None}
        return {**self.__dict__, **own}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def _open(self) -> Iterator[Session]:
        """The session, opened on first use, and kept open while the context lasts."""
        from layercache.executors.rootfs.session import Session

        with self._lock:
            session = self._session
            if session is None:
                session = self._session = Session(
                    self.directory,
                    namespace=self._namespace,
                    trust=self._trust,
                    durable=self._durable,
                )
            session.enter()
        try:
            yield session
        finally:
            session.leave()

    def _run(
        self,
        session: Session,
        task: Task,
        instruction: Exec,
        blobs: Blobs,
        work: str,
        root: Mapping[str, Any],
    ) -> tuple[Output, Ended, ShownTimes]:
        """Run the helper's orders; `root` is the part of them that describes the root directory."""
        from layercache.executors.rootfs.mounts import StepMounts
        from layercache.executors.rootfs.output import Output
        from layercache.executors.rootfs.surroundings import HOSTNAME
        from layercache.executors.rootfs.ulimits import parse_ulimits

        limits = parse_ulimits(instruction.ulimits, rootless=self._namespace is not None)
        output = Output(blobs.log, self._masks)
        network = instruction.network
        if network == "default":
            network = self._default_network()
        programs: tuple[str, ...] = ()
        if network == "isolated":
            assert self._isolation is not None
            programs = self._isolation.programs
        around = session.surroundings
        with StepMounts(
            task,
            work,
            scratch=session.scratch,
            unpacked=session.unpacked,
            files=session.files,
            inputs=session.inputs,
            caches=session.caches,
            secrets=self._secrets,
            agents=self._agents,
            empty=around.empty,
        ) as mounts:
            mounts.prepare(instruction, blobs)
            if mounts.timed is not None:
                from layercache.executors.rootfs.upper import show_root

                tree = blobs.tree(task.parent or SCRATCH)
                show_root(mounts.timed["upper"], tree, session.files)
                root["root"]["timed"] = {**mounts.timed, "lower": root["root"]["lower"]}
                root["root"]["lower"] = [mounts.timed["at"]]
                root["root"]["options"] = [["xino", "on"]]
            spec: dict[str, Any] = {
                **root,
                "private": around.private,
                "staging": around.staging,
                "mounts": mounts.specs,
                "etc": around.files(instruction.hosts, network, work, instruction.hostname),
                "files": [[name, content] for name, content in instruction.files],
                "args": list(instruction.args),
                "env": environment(instruction, mounts.variables),
                "user": instruction.user,
                "cwd": instruction.workdir or "/",
                "hostname": self._host_name(instruction.hostname or HOSTNAME),
                "shm_size": mounts.shm_size or instruction.shm_size or _SHM_SIZE,
                "ulimits": [list(limit) for limit in limits],
                "insecure": instruction.security == "insecure",
                "new_network": network == "none",
                "raw_network": network != "host without raw sockets",
            }
            ended = session.runner.run(
                spec,
                network=programs,
                held=mounts.held,
                log=output.write,
                cancelled=blobs.cancelled,
                timeout=self._timeout,
            )
        return output, ended, mounts.shown

    def _raise_for(self, instruction: Exec, ended: Ended, output: Output) -> None:
        from layercache.executors.rootfs.output import shown_command

        what = shown_command(instruction.args)
        if ended.timed_out:
            raise StepFailed(
                f"{what} took longer than {self._timeout:g} s{output.tail()}", status=124
            )
        if ended.message:
            raise StepFailed(
                f"{what} did not complete: {ended.message}{output.tail()}", status=ended.code
            )
        if ended.code:
            how, status = f"exit status {ended.code}", ended.code
            if ended.code < 0:
                how, status = f"killed by signal {-ended.code}", 128 - ended.code
            text = f"{what} did not complete: {how}{output.tail()}{self._hint(output)}"
            raise StepFailed(text, status=status)

    def _hint(self, output: Output) -> str:
        """A hint if the output suggests that only this mode made the command fail."""
        single = self._namespace is not None and self._namespace.single
        # What chown says of an owner that the user namespace does not have (EINVAL).
        if not single or "Invalid argument" not in output.tail():
            return ""
        return (
            "\nThis user namespace has one user only, so files can belong to root only: "
            "install newuidmap and give the user a range in /etc/subuid, or build as root"
        )
