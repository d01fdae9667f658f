"""Every instruction of a Dockerfile as a frozen value, parsed or written by hand.

    Copy("package*.json", "./")
    Run("npm install", mounts=[CacheMount("/root/.npm")])
    Env(NODE_ENV="production")
    Cmd(["node", "server.js"])

All of them check their fields on construction and raise `UsageError`.

This is one module because it is one catalogue; each class is a signature, its checks and its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

from layercache._base.classes import frozen
from layercache.dockerfile._instruction import (
    Command,
    DockerfileInstruction,
    Location,
    command_of,
    render_command,
    render_flags,
    render_words,
    switch_of,
    text_of,
    texts_of,
)
from layercache.dockerfile.syntax.heredocs import HereDoc, find_heredocs
from layercache.dockerfile.syntax.words import SPACE, json_text, split_first, split_words
from layercache.errors import UsageError

if TYPE_CHECKING:
    from layercache.dockerfile.mounts import (
        BindMount,
        CacheMount,
        MountFlag,
        SecretMount,
        SshMount,
        TmpfsMount,
    )

__all__ = [
    "Add",
    "Arg",
    "BindMount",
    "CacheMount",
    "Cmd",
    "Command",
    "Copy",
    "Device",
    "DockerfileInstruction",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "HereDoc",
    "Label",
    "Location",
    "Maintainer",
    "MountFlag",
    "Onbuild",
    "Run",
    "SecretMount",
    "Shell",
    "SshMount",
    "Stopsignal",
    "TmpfsMount",
    "User",
    "Volume",
    "Workdir",
]

_NETWORKS: Final = ("default", "none", "host")
_SECURITIES: Final = ("sandbox", "insecure")
_STAGE_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

Pairs: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"


@frozen(init=False)
class From(DockerfileInstruction):
    """FROM: begins a stage. `image` and `platform` are words; `alias` is lower-cased."""

    op = "FROM"
    image: str
    alias: str | None
    platform: str | None

    def __init__(
        self,
        image: str,
        alias: str | None = None,
        platform: str | None = None,
        *,
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        text_of(image, "the image of FROM")
        if set(image) & set(SPACE):
            raise UsageError(f"the image of FROM holds white space: {image!r}")
        if alias is not None:
            lower = text_of(alias, "the name of a stage").lower()
            if not lower[0].isalpha() or not set(lower) <= _STAGE_NAME:
                raise UsageError(
                    f"invalid name for a stage: {alias!r}; it begins with a letter and holds "
                    "letters, digits, '-', '_' and '.' only"
                )
            alias = lower
        if platform is not None:
            text_of(platform, "the platform of FROM")
        self.__attrs_init__(
            image=image, alias=alias, platform=platform, location=location, source=source
        )

    def render(self, escape: str = "\\") -> str:
        flags = render_flags([("platform", self.platform)], escape)
        return f"FROM {flags}{self.image}" + (f" AS {self.alias}" if self.alias else "")


if not TYPE_CHECKING:

    def __getattr__(name):
        # Most Dockerfiles have no mount, and loading the classes takes much of a short build.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from layercache.dockerfile import mounts

        value = globals()[name] = getattr(mounts, name)
        return value


def _check_mounts(mounts: tuple[object, ...]) -> None:
    if not mounts:
        return
    from layercache.dockerfile.mounts import MountFlag

    for mount in mounts:
        if not isinstance(mount, MountFlag):
            raise UsageError(f"a mount of RUN is a BindMount, CacheMount, …, not {mount!r}")


@frozen
class Device:
    """One `RUN --device`: the name of a device (or class of devices), and whether it is
    required.
    """

    name: str
    required: bool = False

    def __attrs_post_init__(self) -> None:
        text_of(self.name, "the name of a device")
        switch_of(self.required, "required of a device")

    @property
    def text(self) -> str:
        """The value of `--device=`."""
        return self.name + (",required" if self.required else "")


@frozen(init=False)
class Run(DockerfileInstruction):
    """RUN: a command in shell form (a string) or exec form (a list); never expanded here.

    `heredocs` hold the bodies that the command announces with `<<NAME`, in that order.
    `network` is "default", "none" or "host"; `security` "sandbox" or "insecure"; None means that
    the flag is absent.
    """

    op = "RUN"
    command: Command
    mounts: tuple[MountFlag, ...]
    network: str | None
    security: str | None
    devices: tuple[Device, ...]
    heredocs: tuple[HereDoc, ...]

    def __init__(
        self,
        command: str | Iterable[str],
        *,
        mounts: Iterable[MountFlag] = (),
        network: str | None = None,
        security: str | None = None,
        devices: Iterable[Device] = (),
        heredocs: Iterable[HereDoc] = (),
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        what = command_of(command, "the command of RUN")
        all_mounts, all_devices, bodies = tuple(mounts), tuple(devices), tuple(heredocs)
        _check_mounts(all_mounts)
        for device in all_devices:
            if not isinstance(device, Device):
                raise UsageError(f"a device of RUN is a Device, not {device!r}")
        _one_of(network, _NETWORKS, "the network of RUN")
        _one_of(security, _SECURITIES, "the security of RUN")
        if source is None:  # the parser itself takes them from the command
            announced = find_heredocs(what) if isinstance(what, str) else []
            markers = [heredoc.marker for heredoc in announced]
            if markers != [heredoc.marker for heredoc in bodies]:
                raise UsageError(
                    "the here-documents of RUN are not those that its command announces: "
                    f"{', '.join(markers) or 'none'}"
                )
        self.__attrs_init__(
            command=what,
            mounts=all_mounts,
            network=network,
            security=security,
            devices=all_devices,
            heredocs=bodies,
            location=location,
            source=source,
        )

    def render(self, escape: str = "\\") -> str:
        flags = render_flags(
            [
                ("mount", tuple(mount.text for mount in self.mounts)),
                ("network", self.network),
                ("security", self.security),
                ("device", tuple(device.text for device in self.devices)),
            ],
            escape,
        )
        line = f"RUN {flags}{render_command(self.command, escape)}".rstrip(" ")
        return "\n".join([line, *(heredoc.lines for heredoc in self.heredocs)])


@frozen(init=False)
class Copy(DockerfileInstruction):
    """COPY: `Copy(source, …, destination)`; all are words, a source may be a `HereDoc`.

    `from_` names a stage (or its number), an image or a named context, and takes no variables.
    `chmod` may be given as a number. `exclude` are patterns.
    """

    op = "COPY"
    sources: tuple[str | HereDoc, ...]
    destination: str
    from_: str | None
    chown: str | None
    chmod: str | None
    link: bool
    parents: bool
    exclude: tuple[str, ...]

    def __init__(
        self,
        *paths: str | HereDoc,
        from_: str | None = None,
        chown: str | None = None,
        chmod: str | int | None = None,
        link: bool = False,
        parents: bool = False,
        exclude: Iterable[str] = (),
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        sources, destination = _paths(paths, self.op)
        if from_ is not None and "$" in text_of(from_, "from_ of COPY").removesuffix("$"):
            raise UsageError(
                "--from takes no variables; give the image a name with FROM … AS "
                "and use that (an ARG before the first FROM can be used there)"
            )
        self.__attrs_init__(
            sources=sources,
            destination=destination,
            from_=from_,
            chown=_optional(chown, "chown of COPY"),
            chmod=_mode(chmod),
            link=switch_of(link, "link of COPY"),
            parents=switch_of(parents, "parents of COPY"),
            exclude=texts_of(exclude, "exclude of COPY", empty=True),
            location=location,
            source=source,
        )

    def render(self, escape: str = "\\") -> str:
        flags: list[tuple[str, object]] = [
            ("from", self.from_),
            ("chown", self.chown),
            ("chmod", self.chmod),
            ("link", self.link),
            ("parents", self.parents),
            ("exclude", self.exclude),
        ]
        return _render_paths(self, flags, escape)


@frozen(init=False)
class Add(DockerfileInstruction):
    """ADD: like `Copy`, but a source may be a URL or a Git repository; local archives are unpacked.

    `checksum` is the digest that a URL's content or a repository's commit must have.
    `unpack` overrides the rule: None unpacks local archives and keeps downloads as they are.
    """

    op = "ADD"
    sources: tuple[str | HereDoc, ...]
    destination: str
    checksum: str | None
    keep_git_dir: bool
    unpack: bool | None
    chown: str | None
    chmod: str | None
    link: bool
    exclude: tuple[str, ...]

    def __init__(
        self,
        *paths: str | HereDoc,
        checksum: str | None = None,
        keep_git_dir: bool = False,
        unpack: bool | None = None,
        chown: str | None = None,
        chmod: str | int | None = None,
        link: bool = False,
        exclude: Iterable[str] = (),
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        sources, destination = _paths(paths, self.op)
        self.__attrs_init__(
            sources=sources,
            destination=destination,
            checksum=_optional(checksum, "checksum of ADD"),
            keep_git_dir=switch_of(keep_git_dir, "keep_git_dir of ADD"),
            unpack=None if unpack is None else switch_of(unpack, "unpack of ADD"),
            chown=_optional(chown, "chown of ADD"),
            chmod=_mode(chmod),
            link=switch_of(link, "link of ADD"),
            exclude=texts_of(exclude, "exclude of ADD", empty=True),
            location=location,
            source=source,
        )

    def render(self, escape: str = "\\") -> str:
        flags: list[tuple[str, object]] = [
            ("checksum", self.checksum),
            ("keep-git-dir", self.keep_git_dir),
            ("unpack", "false" if self.unpack is False else self.unpack),
            ("chown", self.chown),
            ("chmod", self.chmod),
            ("link", self.link),
            ("exclude", self.exclude),
        ]
        return _render_paths(self, flags, escape)


@frozen(init=False)
class _Named(DockerfileInstruction):
    """ENV and LABEL: ordered pairs of words."""

    pairs: tuple[tuple[str, str], ...]

    def __init__(
        self,
        pairs: Pairs = (),
        /,
        *,
        location: Location | None = None,
        source: str | None = None,
        **named: str,
    ) -> None:
        given = pairs.items() if isinstance(pairs, Mapping) else pairs
        items = (*given, *named.items())
        if not items:
            raise UsageError(f"{self.op} needs at least one name with a value")
        for item in items:
            if not isinstance(item, tuple) or len(item) != 2:
                raise UsageError(f"{self.op} takes pairs of name and value, not {item!r}")
            text_of(item[0], f"a name of {self.op}")
            text_of(item[1], f"the value of {item[0]}", empty=True)
        self.__attrs_init__(pairs=items, location=location, source=source)

    def render(self, escape: str = "\\") -> str:
        if len(self.pairs) == 1:
            name, value = self.pairs[0]
            new, old = f"{name}={value}", f"{name} {value}"
            if split_words(new, escape) != [new] and split_first(old) == (name, value):
                return f"{self.op} {old}"  # the old form keeps blanks unchanged
        words = [_one_word(f"{name}={value}", escape) for name, value in self.pairs]
        return f"{self.op} {' '.join(words)}"


class Env(_Named):
    """ENV: `Env({"A": "1"})`, `Env(A="1")`, or a list of pairs; `pairs` keeps their order."""

    __slots__ = ()
    op = "ENV"


class Label(_Named):
    """LABEL: `Label({"org.example.name": "x"})` and so on; `pairs` keeps their order."""

    __slots__ = ()
    op = "LABEL"


@frozen(init=False)
class Arg(DockerfileInstruction):
    """ARG: `Arg("V")`, `Arg("V", "1")`, or several: `Arg(("A", None), ("B", "1"))`.

    `arguments` are pairs of name and default; None means "no default", unlike the empty string.
    """

    op = "ARG"
    arguments: tuple[tuple[str, str | None], ...]

    @overload
    def __init__(
        self,
        name: str,
        default: str | None = None,
        /,
        *,
        location: Location | None = None,
        source: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *arguments: tuple[str, str | None],
        location: Location | None = None,
        source: str | None = None,
    ) -> None: ...
    def __init__(
        self, *arguments: Any, location: Location | None = None, source: str | None = None
    ) -> None:
        if arguments and isinstance(arguments[0], str):
            if len(arguments) > 2:
                raise UsageError("several arguments of ARG are given as pairs: Arg(('A', None), …)")
            arguments = ((arguments[0], arguments[1] if len(arguments) == 2 else None),)
        if not arguments:
            raise UsageError("ARG needs at least one name")
        for item in arguments:
            if not isinstance(item, tuple) or len(item) != 2:
                raise UsageError(f"ARG takes pairs of name and default, not {item!r}")
            name, default = item
            if "=" in text_of(name, "a name of ARG"):
                raise UsageError(f"a name of ARG holds '=': {name!r}")
            if default is not None:
                text_of(default, f"the default of {name}", empty=True)
        self.__attrs_init__(arguments=arguments, location=location, source=source)

    def render(self, escape: str = "\\") -> str:
        words = [
            _one_word(name if default is None else f"{name}={default}", escape)
            for name, default in self.arguments
        ]
        return f"ARG {' '.join(words)}"


@frozen(init=False)
class _Executed(DockerfileInstruction):
    """CMD and ENTRYPOINT: a command for the image, never expanded here."""

    command: Command

    def __init__(
        self,
        command: str | Iterable[str],
        *,
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        self.__attrs_init__(
            command=command_of(command, f"the command of {self.op}"),
            location=location,
            source=source,
        )

    def render(self, escape: str = "\\") -> str:
        return f"{self.op} {render_command(self.command, escape)}".rstrip(" ")


class Cmd(_Executed):
    """CMD: the image's default command, in shell form (a string) or exec form (a list)."""

    __slots__ = ()
    op = "CMD"


class Entrypoint(_Executed):
    """ENTRYPOINT: the program that the image always runs, in shell form (a string) or exec form."""

    __slots__ = ()
    op = "ENTRYPOINT"


@frozen(init=False)
class Shell(DockerfileInstruction):
    """SHELL: the shell for later commands in shell form. `Shell(["/bin/bash", "-c"])`."""

    op = "SHELL"
    command: tuple[str, ...]

    def __init__(
        self,
        command: Iterable[str],
        *,
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        words = texts_of(command, "the command of SHELL", empty=True)
        if not words:
            raise UsageError("SHELL needs at least one argument")
        self.__attrs_init__(command=words, location=location, source=source)

    def render(self, escape: str = "\\") -> str:
        return f"SHELL {json_text(self.command)}"


@frozen(init=False)
class _Listed(DockerfileInstruction):
    """EXPOSE and VOLUME: words."""

    words: tuple[str, ...]

    def __init__(
        self, *words: str | int, location: Location | None = None, source: str | None = None
    ) -> None:
        texts = texts_of(
            [str(word) if type(word) is int else word for word in words], f"the words of {self.op}"
        )
        texts = tuple(text_of(text.strip(SPACE), f"a word of {self.op}") for text in texts)
        if not texts:
            raise UsageError(f"{self.op} needs at least one argument")
        self.__attrs_init__(words=texts, location=location, source=source)

    def render(self, escape: str = "\\") -> str:
        return f"{self.op} {render_words(self.words, shell=self.op == 'EXPOSE')}"


class Expose(_Listed):
    """EXPOSE: `Expose(80, "53/udp", "8000-8010")`."""

    __slots__ = ()
    op = "EXPOSE"


class Volume(_Listed):
    """VOLUME: `Volume("/data")`."""

    __slots__ = ()
    op = "VOLUME"


@frozen(init=False)
class _Single(DockerfileInstruction):
    """Instructions with one word, which may hold blanks."""

    value: str

    def __init__(
        self, value: str, *, location: Location | None = None, source: str | None = None
    ) -> None:
        self.__attrs_init__(
            value=text_of(value, f"the argument of {self.op}"), location=location, source=source
        )

    def render(self, escape: str = "\\") -> str:
        return f"{self.op} {render_command(self.value, escape)}"


class User(_Single):
    """USER: the user of later commands. `value` is `name`, `uid`, `name:group` or `uid:gid`."""

    __slots__ = ()
    op = "USER"


class Workdir(_Single):
    """WORKDIR: the directory of later instructions; `value` is a path, created if missing."""

    __slots__ = ()
    op = "WORKDIR"


class Stopsignal(_Single):
    """STOPSIGNAL: the signal that ends a container; `value` is its name or number."""

    __slots__ = ()
    op = "STOPSIGNAL"


class Maintainer(_Single):
    """MAINTAINER: the author (deprecated in favour of a label)."""

    __slots__ = ()
    op = "MAINTAINER"


@frozen(init=False)
class Healthcheck(DockerfileInstruction):
    """HEALTHCHECK: `Healthcheck("curl -f localhost", interval="30s")`, or `Healthcheck(None)`.

    None is `HEALTHCHECK NONE`. Durations are strings like "1m30s" (or whole seconds as a number)
    of at least 1ms; "0" and None mean the default.
    """

    op = "HEALTHCHECK"
    command: Command | None
    interval: str | None
    timeout: str | None
    start_period: str | None
    start_interval: str | None
    retries: int | None

    def __init__(
        self,
        command: str | Iterable[str] | None,
        *,
        interval: str | int | None = None,
        timeout: str | int | None = None,
        start_period: str | int | None = None,
        start_interval: str | int | None = None,
        retries: int | None = None,
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        what = None if command is None else command_of(command, "the command of HEALTHCHECK")
        if what is not None and not what:
            raise UsageError("HEALTHCHECK CMD needs a command")
        if retries is not None and (type(retries) is not int or not 0 <= retries < 1 << 31):
            raise UsageError(f"retries of HEALTHCHECK can't be {retries!r}")
        options = (interval, timeout, start_period, start_interval, retries)
        if what is None and any(option is not None for option in options):
            raise UsageError("HEALTHCHECK NONE takes no options")
        self.__attrs_init__(
            command=what,
            interval=_duration(interval, "interval"),
            timeout=_duration(timeout, "timeout"),
            start_period=_duration(start_period, "start-period"),
            start_interval=_duration(start_interval, "start-interval"),
            retries=retries,
            location=location,
            source=source,
        )

    def render(self, escape: str = "\\") -> str:
        if self.command is None:
            return "HEALTHCHECK NONE"
        flags = render_flags(
            [
                ("interval", self.interval),
                ("timeout", self.timeout),
                ("start-period", self.start_period),
                ("start-interval", self.start_interval),
                ("retries", self.retries),
            ],
            escape,
        )
        command = self.command if isinstance(self.command, str) else json_text(self.command)
        return f"HEALTHCHECK {flags}CMD {command}"


@frozen(init=False)
class Onbuild(DockerfileInstruction):
    """ONBUILD: an instruction for builds that start FROM this image. `Onbuild(Run("make"))`."""

    op = "ONBUILD"
    trigger: DockerfileInstruction

    def __init__(
        self,
        trigger: DockerfileInstruction,
        *,
        location: Location | None = None,
        source: str | None = None,
    ) -> None:
        if not isinstance(trigger, DockerfileInstruction):
            raise UsageError(f"the trigger of ONBUILD is an instruction, not {trigger!r}")
        if isinstance(trigger, Onbuild):
            raise UsageError("ONBUILD ONBUILD isn't allowed")
        if isinstance(trigger, From | Maintainer):
            raise UsageError(f"{trigger.op} isn't allowed as a trigger of ONBUILD")
        self.__attrs_init__(trigger=trigger, location=location, source=source)

    @property
    def expression(self) -> str:
        """The trigger's text, as stored in the image's configuration."""
        return self.trigger.text

    def render(self, escape: str = "\\") -> str:
        return f"ONBUILD {self.trigger.render(escape)}"


def _one_of(value: object, allowed: tuple[str, ...], what: str) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"{what} is {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")


def _optional(value: object, what: str) -> str | None:
    return None if value is None else text_of(value, what)


def _mode(value: str | int | None) -> str | None:
    if type(value) is int:
        if not 0 <= value <= 0o7777:
            raise UsageError(f"chmod can't be {value:o}; modes go up to 7777")
        return f"{value:04o}"
    return _optional(value, "chmod")


def _duration(value: str | int | None, flag: str) -> str | None:
    from layercache.model.units import parse_duration

    if value is None:
        return None
    text = f"{value}s" if type(value) is int else text_of(value, f"--{flag}")
    length = parse_duration(text)
    if length != 0 and length < 1_000_000:
        raise UsageError(f"--{flag} is at least 1ms, not {text}")
    return text


def _paths(paths: tuple[object, ...], op: str) -> tuple[tuple[str | HereDoc, ...], str]:
    if len(paths) < 2:
        raise UsageError(f"{op} needs at least one source and a destination")
    if isinstance(paths[-1], HereDoc):
        raise UsageError(f"the destination of {op} can't be a here-document")
    sources = tuple(
        path if isinstance(path, HereDoc) else text_of(path, f"a source of {op}", empty=True)
        for path in paths[:-1]
    )
    return sources, text_of(paths[-1], f"the destination of {op}", empty=True)


def _render_paths(instruction: Copy | Add, flags: Iterable[tuple[str, object]], escape: str) -> str:
    bodies = [source for source in instruction.sources if isinstance(source, HereDoc)]
    words = [s.marker if isinstance(s, HereDoc) else s for s in instruction.sources]
    written = render_words([*words, instruction.destination], shell=bool(bodies))
    line = f"{instruction.op} {render_flags(flags, escape)}{written}"
    return "\n".join([line, *(body.lines for body in bodies)])


def _one_word(text: str, escape: str) -> str:
    """`text` with white space outside quotes escaped, so that it stays one word."""
    if split_words(text, escape) == [text]:
        return text
    out: list[str] = []
    quote = ""
    skip = False
    for char in text:
        if skip:
            skip = False
        elif char == escape and quote != "'":
            skip = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in SPACE:
            out.append(escape)
        out.append(char)
    return "".join(out)
