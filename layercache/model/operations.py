"""The effective operations of a Dockerfile's graph: every field after substitution.

They are instructions like an embedder's own. The instructions that people write
(`dockerfile.instructions`) are lowered to these: configuration is folded in, text is expanded,
defaults are filled in.
"""

from __future__ import annotations

import functools
from typing import Final

from layercache._base.classes import field, frozen
from layercache.model.environment import Environment, is_large
from layercache.model.framing import share
from layercache.model.instruction import Field, Value

__all__ = ["PARENT", "SOURCE", "CopyFiles", "CopySource", "Exec", "MakeDirectory", "Mount"]

PARENT: Final = "parent"
"""The role of the state that a step is applied to."""

SOURCE: Final = "source"
"""Role of the context, stage or image that COPY and ADD take files from."""


@frozen(kw_only=True)
class Mount:
    """One `RUN --mount`, resolved. `role` names the step's input behind bind and cache mounts.

    `source` is the path within that input; `mode`, `uid`, `gid` apply to a cache, secret or ssh
    mount; `size` is that of a tmpfs, in bytes; `env` is the variable that receives a secret.
    """

    type: str
    target: str
    role: str | None = None
    source: str = "/"
    readonly: bool = True
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int | None = None
    required: bool = False
    env: str | None = None

    @property
    def label(self) -> str:
        """The label of the field that a step's definition has for the mount."""
        return f"mount {self.target or self.env or self.id}"

    def definition(self) -> tuple[Field, ...]:
        """The facts that count: never contents; for a cache neither id nor sharing (observed rule
        9.2).
        """
        fields = [Field("type", self.type), Field("target", self.target)]
        if self.type == "bind":
            fields += [Field("readonly", self.readonly), Field("from", self.role)]
        elif self.type == "cache":
            fields += [
                Field("readonly", self.readonly),
                Field("mode", self.mode),
                Field("uid", self.uid),
                Field("gid", self.gid),
                Field("from", self.role),
            ]
        elif self.type == "tmpfs":
            fields.append(Field("size", self.size))
        else:
            fields += [
                Field("id", self.id),
                Field("mode", self.mode),
                Field("uid", self.uid),
                Field("gid", self.gid),
                Field("required", self.required),
                Field("env", self.env),
            ]
        return tuple(fields)


@frozen(kw_only=True)
class Exec:
    """An effective RUN: the exact command and everything that it sees.

    `env` is ordered as the command sees it, build arguments included; `arguments` names the
    variables that are build arguments (their values are private). More than 256 variables, or
    32,768 characters of them, count as one private value. `user` is the value of USER, which the
    executor resolves in the parent's accounts. `files` are here-documents with `#!`,
    mounted below /dev/pipes. `proxies` reach the command but never count (observed rule 3.5).
    """

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] | Environment = ()
    arguments: tuple[str, ...] = ()
    user: str = ""
    workdir: str = "/"
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[str, ...] = ()
    platform: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    hostname: str = ""
    """The host name that the command sees; empty leaves it to the executor."""
    proxies: tuple[tuple[str, str], ...] = field(default=(), eq=False)
    private: tuple[str, ...] = field(default=(), eq=False)
    """Labels of fields that were expanded from build arguments; only their digests are stored."""
    tools: tuple[str, ...] = ()
    """Host tools that the recipe declares; they count by content in the workspace executor."""

    name = "RUN"
    commands = True

    def definition(self) -> tuple[Field, ...]:
        env = self.env
        if is_large(env):
            whole = env if isinstance(env, Environment) else Environment(env)
            seen: tuple[Field, ...] = (Field("environment", whole.digest, private=True),)
        else:
            seen = _environment(tuple(env), self.arguments)
        fields = [Field("command", self.args), *seen]
        fields += [Field(mount.label, _pairs(mount.definition())) for mount in self.ordered_mounts]
        fields += _surroundings(
            self.user,
            self.workdir,
            self.network,
            self.security,
            self.devices,
            self.hosts,
            self.shm_size,
            self.ulimits,
            self.platform,
        )
        fields.append(Field("files", self.files) if self.files else _NO_FILES)
        fields.append(Field("tools", self.tools) if self.tools else _NO_TOOLS)
        if self.hostname:
            fields.append(Field("hostname", self.hostname))
        return _with_private(tuple(fields), self.private)

    @property
    def ordered_mounts(self) -> tuple[Mount, ...]:
        """The mounts in the order in which they count and are mounted: by target.

        The order in which they are written matters only between mounts of one target, of which the
        last covers the others.
        """
        return tuple(sorted(self.mounts, key=_mount_order))


@functools.lru_cache(maxsize=64)
def _environment(env: tuple[tuple[str, str], ...], arguments: tuple[str, ...]) -> tuple[Field, ...]:
    """Like `_surroundings`, for the environment of the command."""
    private = frozenset(arguments)
    return share(
        Field("env order", tuple([name for name, _ in env])),
        *[Field(f"env {name}", value, private=name in private) for name, value in env],
    )


@functools.lru_cache(maxsize=64, typed=True)
def _surroundings(
    user: str,
    workdir: str,
    network: str,
    security: str,
    devices: tuple[str, ...],
    hosts: tuple[tuple[str, str], ...],
    shm_size: int | None,
    ulimits: tuple[str, ...],
    platform: str,
) -> tuple[Field, ...]:
    """Fields that most commands of a recipe share, made once for all of them."""
    return share(
        Field("user", user),
        Field("workdir", workdir),
        Field("network", network),
        Field("security", security),
        Field("devices", devices),
        Field("hosts", hosts),
        Field("shm size", shm_size),
        Field("ulimits", ulimits),
        Field("platform", platform),
    )


def _with_private(fields: tuple[Field, ...], private: tuple[str, ...]) -> tuple[Field, ...]:
    """`fields`, with those whose labels are in `private` marked as private; the key is the same."""
    if not private:
        return fields
    return tuple(
        Field(field.label, field.value, private=True) if field.label in private else field
        for field in fields
    )


_NO_FILES, _NO_TOOLS = share(Field("files", ()), Field("tools", ()))


def _mount_order(mount: Mount) -> tuple[str, ...]:
    return (mount.target,) if mount.target else ("", mount.type, mount.env or "")


def _pairs(fields: tuple[Field, ...]) -> Value:
    return tuple((field.label, field.value) for field in fields)


@frozen(kw_only=True)
class CopySource:
    """One source of COPY or ADD, in order.

    A pattern in the input `role`, or, with `content`, a here-document named `pattern`. For a
    URL or a repository, the input is the fetched tree and `remote` is True.
    """

    role: str
    pattern: str
    content: bytes | None = None
    remote: bool = False

    @property
    def name(self) -> str:
        """The last component of the pattern."""
        return self.pattern.rpartition("/")[2]


@frozen(kw_only=True)
class CopyFiles:
    """An effective COPY or ADD.

    `destination` is absolute and keeps a trailing slash, which counts. `chown` and `chmod` are
    as written; names are resolved in the parent's accounts. `unpack`: None applies the rule of
    ADD (unpack local archives, not remote ones), COPY sets False.
    """

    name: str = "COPY"
    sources: tuple[CopySource, ...]
    destination: str
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool | None = False
    keep_git_dir: bool = False
    private: tuple[str, ...] = field(default=(), eq=False)
    """As of `Exec`."""

    commands = False

    def definition(self) -> tuple[Field, ...]:
        """Of a source, only the last component of its name counts: the origin of the content is
        irrelevant.

        With `parents`, the path is kept at the destination, so all of it counts.
        """
        names = [s.pattern if self.parents else s.name for s in self.sources]
        sources = zip(self.sources, names, strict=True)
        fields = (
            Field("sources", tuple([(s.role, name, s.content, s.remote) for s, name in sources])),
            Field("destination", self.destination),
            *_manners(
                self.chown,
                self.chmod,
                self.link,
                self.parents,
                self.exclude,
                self.unpack,
                self.keep_git_dir,
            ),
        )
        return _with_private(fields, self.private)


_COPY_RULES: Final = Field("rules", 2)
"""Raised when the same instruction on the same files produces a different tree than before."""


@functools.lru_cache(maxsize=64, typed=True)
def _manners(
    chown: str | None,
    chmod: str | None,
    link: bool,
    parents: bool,
    exclude: tuple[str, ...],
    unpack: bool | None,
    keep_git_dir: bool,
) -> tuple[Field, ...]:
    """Like `_surroundings`, for COPY and ADD."""
    return share(
        _COPY_RULES,
        Field("chown", chown),
        Field("chmod", chmod),
        Field("link", link),
        Field("parents", parents),
        Field("exclude", exclude),
        Field("unpack", unpack),
        Field("keep git dir", keep_git_dir),
    )


@frozen(kw_only=True)
class MakeDirectory:
    """An effective WORKDIR: afterwards, the directory exists (0755 if it was created).

    A created directory belongs to `user`, in the notation of USER; empty means 0:0.
    """

    path: str
    user: str = ""
    private: tuple[str, ...] = field(default=(), eq=False)
    """As of `Exec`."""

    name = "WORKDIR"
    commands = False

    def definition(self) -> tuple[Field, ...]:
        fields = (Field("path", self.path), Field("user", self.user))
        return _with_private(fields, self.private)
