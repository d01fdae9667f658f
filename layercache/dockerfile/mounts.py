"""Mounts of RUN as values: `BindMount`, `CacheMount`, `TmpfsMount`, `SecretMount`, `SshMount`.

Text fields are words that may hold variables; `expand` returns the same mount with all of them
expanded and checked. A number may also be a word, as long as it holds a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Self, TypeAlias

import attrs

from layercache._base.classes import evolve, field, frozen
from layercache.errors import UsageError
from layercache.model.units import parse_bool, parse_integer, parse_octal, parse_size

__all__ = [
    "BindMount",
    "CacheMount",
    "DeferredMount",
    "MountFlag",
    "SecretMount",
    "SshMount",
    "TmpfsMount",
]

Number: TypeAlias = "int | str | None"


_MAX_ID: Final = 2**32 - 2
"""The next number means "none" to the kernel: the owner would not be changed."""


def _text(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{attribute.name} of a mount is a text, not {value!r}")
    if isinstance(value, str) and ("\0" in value or "\n" in value):
        raise UsageError(f"{attribute.name} of a mount holds a control character: {value!r}")


def _from(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    _text(instance, attribute, value)
    if isinstance(value, str) and "$" in value.removesuffix("$"):
        raise UsageError(
            "'from' of a mount takes no variables; "
            "give the image a name with FROM … AS and use that"
        )


def _number(value: Number, parse: Callable[[str], int], what: str) -> Number:
    """The number; a word that holds a variable is kept and read after expansion."""
    if value is None or (isinstance(value, str) and "$" in value):
        return value
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise UsageError(f"{what} of a mount can't be {value!r}")
    return value


def _owner(value: Number) -> Number:
    number = _number(value, parse_integer, "an owner")
    if isinstance(number, int) and number > _MAX_ID:
        raise UsageError(f"an owner of a mount can't be {number}: {_MAX_ID} is the largest")
    return number


def _mode(value: Number) -> Number:
    number = _number(value, parse_octal, "the mode")
    if isinstance(number, int) and number > 0o7777:
        raise UsageError(f"the mode of a mount lies between 0 and 07777, not at {number:o}")
    return number


def _size(value: Number) -> Number:
    return _number(value, parse_size, "the size")


def _flag(value: bool | str) -> bool | str:
    if isinstance(value, str):
        return value if "$" in value else parse_bool(value)
    if not isinstance(value, bool):
        raise UsageError(f"a switch of a mount is true or false, not {value!r}")
    return value


def _sharing(value: str) -> str:
    if isinstance(value, str) and "$" in value:
        return value
    if not isinstance(value, str) or value.lower() not in ("shared", "private", "locked"):
        raise UsageError(f"sharing is shared, private or locked, not {value!r}")
    return value.lower()


def _word(**options: Any) -> Any:
    return field(default=None, validator=_text, **options)


def _switch(default: bool) -> Any:
    return field(default=default, converter=_flag)


@frozen
class MountFlag:
    """The common base of all mounts. `target` is the mount point; None selects the kind's
    default.
    """

    type: ClassVar[str]
    keys: ClassVar[Mapping[str, str]]
    """Option in a Dockerfile to field; only the options listed here are accepted."""

    target: str | None = _word()

    def expand(self, word: Callable[[str], str]) -> Self:
        """The mount with `word` applied to every text; numbers and booleans are then checked.

        Raises the errors of `word`, and `UsageError` for a value that is invalid afterwards.
        """
        changes: dict[str, Any] = {}
        for each in attrs.fields(type(self)):
            value = getattr(self, each.name)
            if isinstance(value, str):
                changes[each.name] = word(value)
        return evolve(self, **changes)

    def options(self) -> Iterable[tuple[str, str]]:
        """Options and values as in a Dockerfile, without defaults."""
        yield "type", self.type
        for each in attrs.fields(type(self)):
            value = getattr(self, each.name)
            if value == each.default and type(value) is type(each.default):
                continue
            key = _KEY_OF.get(each.name, each.name)
            if isinstance(value, bool):
                value = str(value).lower()
            elif each.name == "mode" and isinstance(value, int):
                value = f"{value:04o}"
            yield key, str(value)

    @property
    def text(self) -> str:
        """The value of `--mount=`."""
        return ",".join(_csv(f"{key}={value}") for key, value in self.options())


_KEY_OF: Final = {"from_": "from", "readonly": "ro"}
_TARGET: Final = {"target": "target", "dst": "target", "destination": "target"}
_ACCESS: Final = dict.fromkeys(("ro", "readonly", "rw", "readwrite"), "readonly")
_OWNER: Final = {"mode": "mode", "uid": "uid", "gid": "gid"}
_SOURCE: Final = {"from": "from_", "source": "source", "src": "source"}


@frozen
class BindMount(MountFlag):
    """Files of the context, or of a stage or image (`from_`), read-only unless requested otherwise.

    `source` is a path within it, its root by default.
    """

    type = "bind"
    keys: ClassVar[Mapping[str, str]] = {**_TARGET, **_SOURCE, **_ACCESS}

    source: str | None = _word()
    from_: str | None = field(default=None, validator=_from, kw_only=True)
    readonly: bool | str = _switch(True)


@frozen
class CacheMount(MountFlag):
    """A directory that outlives the step. `id` is its target by default.

    `from_` and `source` name the initial content of a new one; `mode`, `uid`, `gid` apply to a new
    one (0755, 0, 0).
    """

    type = "cache"
    keys: ClassVar[Mapping[str, str]] = {
        **_TARGET,
        **_SOURCE,
        **_ACCESS,
        **_OWNER,
        "id": "id",
        "sharing": "sharing",
    }

    id: str | None = _word()
    sharing: str = field(default="shared", converter=_sharing, kw_only=True)
    from_: str | None = field(default=None, validator=_from, kw_only=True)
    source: str | None = _word(kw_only=True)
    readonly: bool | str = field(default=False, converter=_flag, kw_only=True)
    mode: Number = field(default=None, converter=_mode, kw_only=True)
    uid: Number = field(default=None, converter=_owner, kw_only=True)
    gid: Number = field(default=None, converter=_owner, kw_only=True)


@frozen
class TmpfsMount(MountFlag):
    """An empty file system in memory. `size` is its maximum size in bytes."""

    type = "tmpfs"
    keys: ClassVar[Mapping[str, str]] = {**_TARGET, "size": "size"}

    size: Number = field(default=None, converter=_size)


@frozen(init=False)
class SecretMount(MountFlag):
    """A secret as a file at `target`, or as the variable `env`, or as both.

    The target is /run/secrets/ID by default, unless `env` is given. `required`: the build fails
    without the secret. `mode`, `uid`, `gid` are the file's (0400, 0, 0).
    """

    type = "secret"
    keys: ClassVar[Mapping[str, str]] = {
        **_TARGET,
        **_OWNER,
        "id": "id",
        "source": "id",
        "src": "id",
        "env": "env",
        "required": "required",
    }

    id: str | None = _word()
    env: str | None = _word(kw_only=True)
    required: bool | str = field(default=False, converter=_flag, kw_only=True)
    mode: Number = field(default=None, converter=_mode, kw_only=True)
    uid: Number = field(default=None, converter=_owner, kw_only=True)
    gid: Number = field(default=None, converter=_owner, kw_only=True)

    def __init__(self, id: str | None = None, target: str | None = None, **options: Any) -> None:
        if not id and not target:
            raise UsageError("a secret mount needs an id or a target")
        self.__attrs_init__(target=target, id=id, **options)


@frozen(init=False)
class SshMount(MountFlag):
    """Access to the SSH agent named `id` ("default"), at `target` or a path that the builder
    chooses.
    """

    type = "ssh"
    keys: ClassVar[Mapping[str, str]] = {**_TARGET, **_OWNER, "id": "id", "required": "required"}

    id: str | None = _word()
    required: bool | str = field(default=False, converter=_flag, kw_only=True)
    mode: Number = field(default=None, converter=_mode, kw_only=True)
    uid: Number = field(default=None, converter=_owner, kw_only=True)
    gid: Number = field(default=None, converter=_owner, kw_only=True)

    def __init__(self, id: str | None = None, target: str | None = None, **options: Any) -> None:
        self.__attrs_init__(target=target, id=id, **options)


@frozen(init=False)
class DeferredMount(MountFlag):
    """A mount whose kind or access depends on variables: parsed once their values are known.

    `pairs` are keys and values as written, None for a key without one.
    """

    type = "deferred"
    keys: ClassVar[Mapping[str, str]] = {}

    pairs: tuple[tuple[str, str | None], ...] = ()

    def __init__(self, pairs: Iterable[tuple[str, str | None]]) -> None:
        given = tuple(pairs)
        for _, value in given:
            _text(self, attrs.fields(MountFlag).target, value)
        self.__attrs_init__(target=None, pairs=given)
        _from(self, attrs.fields(BindMount).from_, self.from_)

    @property
    def from_(self) -> str | None:
        """The stage, context or image that the mount names; it holds no variables."""
        return dict(self.pairs).get("from")

    def expand(self, word: Callable[[str], str]) -> Self:
        """The same mount with `word` applied to every value; raises the errors of `word`."""
        return type(self)((k, None if v is None else word(v)) for k, v in self.pairs)

    def options(self) -> Iterable[tuple[str, str]]:
        """Keys and values as written; a key without one is true."""
        for key, value in self.pairs:
            yield key, "true" if value is None else value


def _csv(field: str) -> str:
    if "," in field or '"' in field:
        return '"' + field.replace('"', '""') + '"'
    return field
