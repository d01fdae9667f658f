"""Lowering of RUN: the exact command, its environment, its mounts and their inputs."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from layercache.dockerfile.instructions import Run
from layercache.dockerfile.lowering.origins import located, problem
from layercache.dockerfile.lowering.remote import file_name
from layercache.dockerfile.lowering.stage import StageFold
from layercache.dockerfile.lowering.variables import HOSTNAME, proxy_variables
from layercache.dockerfile.syntax.heredocs import HereDoc
from layercache.model.graph import Input, Origin
from layercache.model.image_config import HistoryEntry
from layercache.model.operations import Exec, Mount
from layercache.model.selectors import Files

if TYPE_CHECKING:
    from layercache.dockerfile import mounts as written

__all__ = ["lower_run"]

_PIPES = "/dev/pipes/"
_MAX_HOSTNAME = 64
_IN_HOSTNAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")
_DIRECTORIES = ("bind", "cache", "tmpfs")
"""Kinds of mounts that are at the working directory where they have no target."""

_SHOWN = 2_048
"""Characters of arguments in a line of history: all lines together stay linear."""


def lower_run(fold: StageFold, run: Run, origin: Origin) -> HistoryEntry | None:
    """Append the step of a RUN; None if an image behind a mount is still missing."""
    args, files = command(fold, run)
    inputs: list[Input] = []
    mounts: list[Mount] = []
    roles: dict[str, int] = {}
    private = list(fold.private_fields())
    fold.variables.from_argument()
    for mount in run.mounts:
        lowered = _mount(fold, run, mount, inputs, roles)
        if lowered is None:
            return None
        mounts.append(lowered)
        private += [lowered.label] * fold.variables.from_argument()
    inputs.sort(key=lambda known: known.role)  # the order of mounts does not count
    options, variables = fold.options, fold.variables
    env, arguments = variables.seen()
    network = run.network or "default"
    proxies = proxy_variables(options.args, variables)
    operation = Exec(
        args=args,
        env=env,
        arguments=arguments,
        user=fold.config.user,
        workdir=fold.config.directory,
        mounts=tuple(mounts),
        network=options.network if network == "default" else network,
        security=run.security or "sandbox",
        devices=tuple(device.text for device in run.devices),
        hosts=options.hosts,
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        platform=fold.platform,
        files=files,
        hostname=_host_name(run, options.args.get(HOSTNAME, "")),
        proxies=proxies,
        private=(*private, "hostname"),
    )
    fold.add(operation, origin, inputs)
    return HistoryEntry.of(_created_by(fold, args), layer=True)


def command(fold: StageFold, run: Run) -> tuple[tuple[str, ...], tuple[tuple[str, bytes], ...]]:
    """The arguments, and the scripts that they need (here-documents with `#!`)."""
    if not isinstance(run.command, str):
        return run.command, ()
    text = run.command
    if not run.heredocs:
        return fold.config.command(text), ()
    first = run.heredocs[0]
    if text.strip() != first.marker and not _only_heredoc(text, first):
        # The shell itself reads the here-documents.
        full = "\n".join([text, *(heredoc.lines for heredoc in run.heredocs)])
        return fold.config.command(full), ()
    body = first.body
    if body.startswith("#!"):
        file_name(run, first.name, "a here-document")
        return fold.config.command(_PIPES + first.name), ((first.name, body.encode()),)
    return fold.config.command(body), ()


def _only_heredoc(text: str, heredoc: HereDoc) -> bool:
    """Whether the command consists only of `<<NAME`, quoted or not."""
    words = text.split()
    return len(words) == 1 and words[0].lstrip("0123456789").startswith("<<")


def _created_by(fold: StageFold, args: tuple[str, ...]) -> str:
    """History text: with the arguments declared so far, as BuildKit writes it, up to a length."""
    used: list[str] = []
    left = _SHOWN
    for name, given in fold.arguments.items():
        value = fold.variables.get(name)
        text = f"{name}={(given or '') if value is None else value}"
        left -= len(text) + 1
        if left < 0:
            break
        used.append(text)
    cut = ["…"] if len(used) < fold.declared else []
    prefix = f"|{fold.declared} {' '.join([*used, *cut])} " if fold.declared else ""
    fold.budget.spend(len(prefix) + len(used))
    return f"RUN {prefix}{' '.join(args)}"


def _mount(
    fold: StageFold,
    run: Run,
    mount: written.MountFlag,
    inputs: list[Input],
    roles: dict[str, int],
) -> Mount | None:
    """One mount with its words expanded; appends the input that it reads."""
    from layercache.dockerfile import mounts as written

    expanded = located(run, lambda _: mount.expand(fold.variables.expand), "")
    if isinstance(expanded, written.DeferredMount):
        expanded = _read_mount(run, expanded)
    target = posixpath.join(fold.config.directory, expanded.target or "")
    target = posixpath.normpath("/" + target.lstrip("/"))
    if target == "/" and expanded.type in _DIRECTORIES:
        where = "the working directory is /" if not expanded.target else "the target is /"
        raise problem(run, f"a mount can't cover the root, and {where}: give it a target below /")
    if isinstance(expanded, written.TmpfsMount):
        return Mount(type="tmpfs", target=target, size=_int(expanded.size))
    if not expanded.target and expanded.type not in _DIRECTORIES:
        target = ""
    if isinstance(expanded, written.SecretMount):
        name = expanded.id or posixpath.basename(target)
        if not target and not expanded.env:
            target = f"/run/secrets/{posixpath.basename(name)}"
        return Mount(
            type="secret",
            target=target,
            id=name,
            env=expanded.env,
            required=bool(expanded.required),
            mode=_int(expanded.mode, 0o400),
            uid=_int(expanded.uid, 0) or 0,
            gid=_int(expanded.gid, 0) or 0,
        )
    if isinstance(expanded, written.SshMount):
        return Mount(
            type="ssh",
            target=target,
            id=expanded.id or "default",
            required=bool(expanded.required),
            mode=_int(expanded.mode, 0o600),
            uid=_int(expanded.uid, 0) or 0,
            gid=_int(expanded.gid, 0) or 0,
        )
    if isinstance(expanded, written.BindMount):
        role = _role(target, roles)
        source = expanded.source or "/"
        if not _read(fold, run, expanded.from_, source, role, inputs):
            return None
        return Mount(
            type="bind",
            target=target,
            role=role,
            source=source,
            readonly=bool(expanded.readonly),
        )
    if isinstance(expanded, written.CacheMount):
        source = expanded.source or "/"
        start = expanded.from_ is not None
        role = _role(target, roles) if start else ""
        # As written, so that a relative target is one cache wherever it is mounted.
        name = expanded.id or posixpath.normpath(expanded.target or "")
        if start and not _read(fold, run, expanded.from_, source, role, inputs):
            return None
        return Mount(
            type="cache",
            target=target,
            role=role if start else None,
            source=source,
            readonly=bool(expanded.readonly),
            id=name,
            sharing=str(expanded.sharing),
            mode=_int(expanded.mode, 0o755),
            uid=_int(expanded.uid, 0) or 0,
            gid=_int(expanded.gid, 0) or 0,
        )
    raise problem(run, f"a mount of type {mount.type!r} is not known")


def _read_mount(run: Run, mount: written.DeferredMount) -> written.MountFlag:
    """The mount that its options mean now that they hold no variables."""
    from layercache.dockerfile.syntax.faults import Fault
    from layercache.dockerfile.syntax.flags import mount_of

    try:
        return mount_of(mount.pairs)
    except Fault as fault:
        raise problem(run, f"--mount={mount.text}: {fault}") from None


def _host_name(run: Run, name: str) -> str:
    """The host name of a build argument; raises `DockerfileError` for any other text."""
    if name and (len(name) > _MAX_HOSTNAME or not set(name) <= _IN_HOSTNAME):
        raise problem(
            run, f"{HOSTNAME}={name!r} is not a host name: use letters, digits, '-' and '.'"
        )
    return name


def _role(target: str, roles: dict[str, int]) -> str:
    """The role of a mount's input; two mounts of one target have different roles.

    `roles` has those of the step, each with the number that the next of its target begins at.
    """
    first = role = f"mount {target}"
    number = roles.get(first, 1)
    while role in roles:
        number += 1
        role = f"{first} #{number}"
    roles[role] = 1
    roles[first] = number
    return role


def _int(value: int | str | None, default: int | None = None) -> int | None:
    return value if isinstance(value, int) else default


def _read(
    fold: StageFold, run: Run, name: str | None, source: str, role: str, inputs: list[Input]
) -> bool:
    """The content of `source` counts, not its name (observed rule 9.1)."""
    vertex = fold.input_of(name, run)
    if vertex is None:
        return False
    pattern = posixpath.normpath("/" + source).lstrip("/") or "."
    files = Files(patterns=(pattern,), wildcards=False, named=False)
    inputs.append(Input(role, vertex, files))
    return True
