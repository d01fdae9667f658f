"""The image configuration as a frozen value, and its fold over the instructions of a build.

Configuration is never cached: each build folds it anew, starting from the base image's. The output
follows BuildKit (`frontend/dockerfile/dockerfile2llb`, `exporter/containerimage`) on top of the
OCI image specification (config.md) and Docker's extensions of it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from layercache._base.classes import evolve, field, frozen
from layercache._base.regex import expression
from layercache.errors import UsageError
from layercache.model.digests import DiffID

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_SHELL",
    "HealthcheckConfig",
    "HistoryEntry",
    "ImageConfig",
    "ports",
]

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of an image whose base sets none (BuildKit, `system.DefaultPathEnvUnix`)."""

DEFAULT_SHELL: Final = ("/bin/sh", "-c")
"""The shell for commands in shell form if no SHELL was given."""

# The rest of what Docker's classic builder writes into "config" describes the container that
# the last step ran in, not the image; BuildKit drops it, and so does this.
_CONTAINER_LEFTOVERS = frozenset(
    {"Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin"}
    | {"StdinOnce", "Image", "NetworkDisabled", "MacAddress"}
)
_KNOWN = frozenset(
    {"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"}
    | {"StopSignal", "ArgsEscaped", "Healthcheck", "OnBuild", "Shell"}
)
_PORT = expression(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_SIGNAL = expression(
    r"(?:SIG)?(?:ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT"
    r"|SEGV|STKFLT|STOP|SYS|TERM|TRAP|TSTP|TTIN|TTOU|URG|USR1|USR2|VTALRM|WINCH|XCPU|XFSZ"
    r"|RTMIN(?:\+\d{1,2})?|RTMAX(?:-\d{1,2})?)|0*[1-9]\d{0,4}",
    re.ASCII | re.IGNORECASE,
)
_SECOND: Final = 1_000_000_000


@frozen(kw_only=True)
class HealthcheckConfig:
    """The health check of a container.

    `test` is `("CMD", args…)`, `("CMD-SHELL", command)`, `("NONE",)` or empty (inherit);
    durations are nanoseconds, 0 selects the runtime's default.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    def to_oci(self) -> dict[str, Any]:
        """The JSON object as Docker writes it: zero values are left out."""
        found: dict[str, Any] = {}
        if self.test:
            found["Test"] = list(self.test)
        for key, value in (
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
            ("Retries", self.retries),
        ):
            if value:
                found[key] = value
        return found

    def __str__(self) -> str:
        test = " ".join(self.test)
        return (
            f"{{Test:[{test}] Interval:{_duration(self.interval)} "
            f"Timeout:{_duration(self.timeout)} StartPeriod:{_duration(self.start_period)} "
            f"StartInterval:{_duration(self.start_interval)} Retries:{self.retries}}}"
        )


@frozen(kw_only=True)
class HistoryEntry:
    """One line of an image's history (OCI image specification, config.md, "history").

    `created` is RFC 3339 text, None until the export sets it; `empty_layer` means that the
    instruction made no layer.
    """

    created: str | None = None
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False
    author: str = ""

    @classmethod
    def of(cls, text: str, *, layer: bool = False, operation: bool | None = None) -> HistoryEntry:
        """The entry that BuildKit writes for an instruction.

        `layer`: the instruction makes a layer. `operation` (default: same as `layer`): the text
        ends with "# buildkit", as for RUN, COPY and ADD but not for WORKDIR.
        """
        marked = layer if operation is None else operation
        return cls(
            created_by=text + (" # buildkit" if marked else ""),
            comment="buildkit.dockerfile.v0",
            empty_layer=not layer,
        )

    def dated(self, created: str | None) -> HistoryEntry:
        """This entry with the given time, unless it already has one."""
        if self.created or not created:
            return self
        return HistoryEntry(
            created=created,
            created_by=self.created_by,
            comment=self.comment,
            empty_layer=self.empty_layer,
            author=self.author,
        )

    @classmethod
    def from_oci(cls, value: Mapping[str, Any]) -> HistoryEntry:
        return cls(
            created=_text(value, "created") or None,
            created_by=_text(value, "created_by"),
            comment=_text(value, "comment"),
            empty_layer=value.get("empty_layer") is True,
            author=_text(value, "author"),
        )

    def to_oci(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in ("created", "created_by", "author", "comment"):
            if value := getattr(self, key):
                found[key] = value
        if self.empty_layer:
            found["empty_layer"] = True
        return found


@frozen(kw_only=True)
class ImageConfig:
    """The configuration of an image: how to run it.

    `env` is ordered and holds each name once. `labels`, `exposed_ports` and `volumes` are
    sorted. `cmd_set` means that CMD was given in this stage, so that ENTRYPOINT keeps it (it is
    not written to the configuration). `history` holds the base's entries.
    """

    env: tuple[tuple[str, str], ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    onbuild: tuple[str, ...] = ()
    healthcheck: HealthcheckConfig | None = None
    author: str = ""
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    args_escaped: bool = False
    history: tuple[HistoryEntry, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    """Unknown fields of a base's "config": name and JSON text, written back unchanged."""
    cmd_set: bool = field(default=False, eq=False)

    # -- in ---------------------------------------------------------------------------------

    @classmethod
    def scratch(cls, architecture: str, os: str = "linux", variant: str = "") -> ImageConfig:
        """The configuration that `FROM scratch` starts with."""
        return cls(
            env=(("PATH", DEFAULT_PATH),),
            workdir="/",
            architecture=architecture,
            os=os,
            variant=variant,
        )

    @classmethod
    def from_oci(cls, value: Mapping[str, Any]) -> ImageConfig:
        """The configuration in the JSON object of an OCI or Docker image.

        `created` and `rootfs` belong to that image and are not kept. Unknown fields of "config" are
        kept in `unknown`. Raises `UsageError` for a wrong type.
        """
        inner = value.get("config")
        if inner is None:
            inner = {}
        if not isinstance(inner, Mapping):
            raise UsageError("image configuration: 'config' is not an object")
        health = inner.get("Healthcheck")
        history = value.get("history") or ()
        if not isinstance(history, Sequence) or not all(isinstance(h, Mapping) for h in history):
            raise UsageError("image configuration: 'history' is not a list of objects")
        env: dict[str, str] = {}
        for entry in _list(inner, "Env"):
            name, _, content = entry.partition("=")
            env[name] = content
        return cls(
            env=tuple(env.items()),
            cmd=_list(inner, "Cmd"),
            entrypoint=_list(inner, "Entrypoint"),
            user=_text(inner, "User"),
            workdir=_text(inner, "WorkingDir"),
            exposed_ports=tuple(sorted(_table(inner, "ExposedPorts"))),
            volumes=tuple(sorted(_table(inner, "Volumes"))),
            labels=tuple(sorted((k, _as_text(v, k)) for k, v in _table(inner, "Labels").items())),
            stop_signal=_text(inner, "StopSignal"),
            shell=_list(inner, "Shell"),
            onbuild=_list(inner, "OnBuild"),
            healthcheck=_healthcheck(health) if health else None,
            author=_text(value, "author"),
            architecture=_text(value, "architecture"),
            os=_text(value, "os"),
            variant=_text(value, "variant"),
            os_version=_text(value, "os.version"),
            os_features=_list(value, "os.features"),
            args_escaped=inner.get("ArgsEscaped") is True,
            history=tuple(HistoryEntry.from_oci(h) for h in history),
            unknown=tuple(
                (key, json.dumps(inner[key], ensure_ascii=False))
                for key in sorted(inner.keys() - _KNOWN - _CONTAINER_LEFTOVERS)
            ),
        )

    # -- out --------------------------------------------------------------------------------

    def config_to_oci(self) -> dict[str, Any]:
        """The "config" object, without empty values, with keys in the order of Docker's type."""
        values: list[tuple[str, Any]] = [
            ("User", self.user),
            ("ExposedPorts", {port: {} for port in self.exposed_ports}),
            ("Env", [f"{name}={value}" for name, value in self.env]),
            ("Entrypoint", list(self.entrypoint)),
            ("Cmd", list(self.cmd)),
            ("Volumes", {path: {} for path in self.volumes}),
            ("WorkingDir", self.workdir),
            ("Labels", dict(self.labels)),
            ("StopSignal", self.stop_signal),
            ("ArgsEscaped", self.args_escaped),
            ("Healthcheck", self.healthcheck.to_oci() if self.healthcheck else None),
            ("OnBuild", list(self.onbuild)),
            ("Shell", list(self.shell)),
        ]
        found = {key: value for key, value in values if value}
        if self.healthcheck is not None:
            found["Healthcheck"] = self.healthcheck.to_oci()
        return found | {key: json.loads(text) for key, text in self.unknown}

    def to_oci(
        self,
        diff_ids: Iterable[DiffID],
        created: str | None = None,
        history: Iterable[HistoryEntry] = (),
    ) -> dict[str, Any]:
        """The JSON object of the whole image, keys in a fixed (sorted) order.

        `diff_ids` are those of all layers, the lowest first; `history` is the whole history,
        including the base's entries; `created` is RFC 3339 text, left out if None. Raises
        `UsageError` if the number of layers in the history is wrong.
        """
        stack, entries = list(diff_ids), list(history)
        claimed = sum(not entry.empty_layer for entry in entries)
        if entries and claimed != len(stack):
            raise UsageError(f"image history names {claimed} layers, but there are {len(stack)}")
        top: dict[str, Any] = {
            "architecture": self.architecture,
            "config": self.config_to_oci(),
            "os": self.os,
            "rootfs": {"type": "layers", "diff_ids": stack},
        }
        optional = {
            "author": self.author,
            "created": created,
            "history": [entry.to_oci() for entry in entries],
            "os.features": list(self.os_features),
            "os.version": self.os_version,
            "variant": self.variant,
        }
        top.update((key, value) for key, value in optional.items() if value)
        return dict(sorted(top.items()))

    # -- the fold ---------------------------------------------------------------------------

    def inherited(self) -> ImageConfig:
        """The configuration that a stage FROM this image starts with.

        The caller runs the ONBUILD triggers, which are not passed on; PATH is set; an existing CMD
        counts as the base's, so that ENTRYPOINT resets it.
        """
        env = self.env
        if self.os != "windows" and not any(name == "PATH" for name, _ in env):
            env = (*env, ("PATH", DEFAULT_PATH))
        return evolve(self, env=env, onbuild=(), cmd_set=False)

    def with_env(self, name: str, value: str) -> ImageConfig:
        """`name` is set to `value`, in its place or at the end. Raises `UsageError` for an invalid
        name.
        """
        if not name or "=" in name or "\0" in name + value:
            raise UsageError(f"ENV: not a name of a variable: {name!r}")
        if any(known == name for known, _ in self.env):
            env = tuple((k, value if k == name else v) for k, v in self.env)
        else:
            env = (*self.env, (name, value))
        return evolve(self, env=env)

    def command(self, args: Sequence[str] | str) -> tuple[str, ...]:
        """`args` unchanged, or a shell form with the effective shell before it."""
        return (*(self.shell or DEFAULT_SHELL), args) if isinstance(args, str) else tuple(args)

    def with_cmd(self, args: Sequence[str] | str) -> ImageConfig:
        """CMD: a list as given, a string as the shell form with the effective SHELL.

        `ArgsEscaped` is written for any CMD, as BuildKit does.
        """
        return evolve(self, cmd=self.command(args), args_escaped=True, cmd_set=True)

    def with_entrypoint(self, args: Sequence[str] | str) -> ImageConfig:
        """ENTRYPOINT; a CMD of the base is dropped, a CMD of this stage is kept."""
        cmd = self.cmd if self.cmd_set else ()
        return evolve(self, entrypoint=self.command(args), cmd=cmd)

    def with_label(self, name: str, value: str) -> ImageConfig:
        """LABEL: the label gets this value. Raises `UsageError` for an empty name."""
        if not name:
            raise UsageError("LABEL: the name is empty")
        labels = {**dict(self.labels), name: value}
        return evolve(self, labels=tuple(sorted(labels.items())))

    def with_user(self, user: str) -> ImageConfig:
        """USER, as written; names are resolved in the accounts of the image."""
        return evolve(self, user=user)

    def with_workdir(self, path: str) -> ImageConfig:
        """WORKDIR: an absolute `path` as written, another one below `directory`, cleaned."""
        if path.startswith("/"):
            return evolve(self, workdir=path)
        if not path:  # a variable without a value
            return evolve(self, workdir=self.workdir or "/")
        return evolve(self, workdir=_clean(posixpath.join(self.directory, path)))

    @property
    def directory(self) -> str:
        """The working directory that commands have: `workdir` absolute and cleaned."""
        return _clean(self.workdir)

    def with_expose(self, spec: str) -> ImageConfig:
        """EXPOSE: one port or range, `8080`, `53/udp`, `8000-8010`. Raises `UsageError`."""
        return evolve(self, exposed_ports=tuple(sorted({*self.exposed_ports, *ports(spec)})))

    def with_volume(self, path: str) -> ImageConfig:
        """VOLUME, as written. Raises `UsageError` for an empty path."""
        if not path:
            raise UsageError("VOLUME: the path is empty")
        return evolve(self, volumes=tuple(sorted({*self.volumes, path})))

    def with_stop_signal(self, signal: str) -> ImageConfig:
        """STOPSIGNAL, as written: a number above 0 or a name. Raises `UsageError`."""
        if not _SIGNAL.fullmatch(signal):
            raise UsageError(f"STOPSIGNAL: not a signal: {signal!r}")
        return evolve(self, stop_signal=signal)

    def with_shell(self, args: Sequence[str]) -> ImageConfig:
        """SHELL. Raises `UsageError` for an empty list."""
        if not args:
            raise UsageError("SHELL needs at least one argument")
        return evolve(self, shell=tuple(args))

    def with_onbuild(self, trigger: str) -> ImageConfig:
        """ONBUILD: one more trigger, the text of an instruction."""
        return evolve(self, onbuild=(*self.onbuild, trigger))

    def with_healthcheck(self, healthcheck: HealthcheckConfig) -> ImageConfig:
        """HEALTHCHECK, which replaces an earlier one entirely."""
        return evolve(self, healthcheck=healthcheck)

    def with_maintainer(self, author: str) -> ImageConfig:
        """MAINTAINER, which becomes the image's author."""
        return evolve(self, author=author)


def ports(spec: str) -> tuple[str, ...]:
    """The ports of one word of EXPOSE as `port/protocol`; raises `UsageError`.

    Accepts `[[ip:]host:]port[-port][/tcp|udp|sctp]`; the published address does not count.
    """
    text, _, protocol = spec.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    found = _PORT.fullmatch(text)
    if found is None or protocol not in {"tcp", "udp", "sctp"}:
        raise UsageError(
            f"EXPOSE: not a port: {spec!r} (expected PORT, PORT-PORT or PORT/PROTOCOL, "
            "the protocol being tcp, udp or sctp)"
        )
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    if not first <= last <= 65535:
        raise UsageError(f"EXPOSE: not a range of ports: {spec!r}")
    return tuple(f"{port}/{protocol}" for port in range(first, last + 1))


def _clean(path: str) -> str:
    # normpath keeps exactly two leading slashes, as POSIX allows; Go's path.Clean does not.
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def _duration(nanoseconds: int) -> str:
    """A duration in Go's notation: 1h2m3.5s, 20ms, 0s."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, seconds = divmod(rest, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, _SECOND)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else sign + text


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    if not rest:
        return str(whole)
    digits = len(str(size)) - 1
    return f"{whole}.{str(rest).zfill(digits).rstrip('0')}"


def _healthcheck(value: Any) -> HealthcheckConfig:
    if not isinstance(value, Mapping):
        raise UsageError("image configuration: 'Healthcheck' is not an object")
    return HealthcheckConfig(
        test=_list(value, "Test"),
        interval=_number(value, "Interval"),
        timeout=_number(value, "Timeout"),
        start_period=_number(value, "StartPeriod"),
        start_interval=_number(value, "StartInterval"),
        retries=_number(value, "Retries"),
    )


def _as_text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"image configuration: {key!r} is not text")
    return value


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    return "" if value is None else _as_text(value, key)


def _number(table: Mapping[str, Any], key: str) -> int:
    value = table.get(key) or 0
    if not isinstance(value, int):
        raise UsageError(f"image configuration: {key!r} is not a whole number")
    return value


def _list(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key) or ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f"image configuration: {key!r} is not a list")
    return tuple(_as_text(item, key) for item in value)


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key) or {}
    if not isinstance(value, Mapping):
        raise UsageError(f"image configuration: {key!r} is not an object")
    return value
