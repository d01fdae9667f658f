"""Flags of instructions (`--name=value`) and the mounts and devices written in them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from layercache.dockerfile.instructions import Device
from layercache.dockerfile.syntax.faults import Fault, nearest
from layercache.errors import UsageError

if TYPE_CHECKING:
    from layercache.dockerfile.mounts import MountFlag

__all__ = ["FLAGS", "Flags", "mount_of", "parse_device", "parse_mount", "read_flags"]

TEXT, SWITCH, LIST = "text", "switch", "list"

FLAGS: Final[Mapping[str, Mapping[str, str]]] = {
    "ADD": {
        "chown": TEXT,
        "chmod": TEXT,
        "checksum": TEXT,
        "link": SWITCH,
        "keep-git-dir": SWITCH,
        "unpack": SWITCH,
        "exclude": LIST,
    },
    "COPY": {
        "from": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": SWITCH,
        "parents": SWITCH,
        "exclude": LIST,
    },
    "FROM": {"platform": TEXT},
    "HEALTHCHECK": {
        "interval": TEXT,
        "timeout": TEXT,
        "start-period": TEXT,
        "start-interval": TEXT,
        "retries": TEXT,
    },
    "RUN": {"mount": LIST, "network": TEXT, "security": TEXT, "device": LIST},
}
"""The flags of each instruction and their kinds; an instruction not listed takes none."""

_BARE: Final = frozenset({"ro", "readonly", "rw", "readwrite", "required"})

_DECIDING: Final = frozenset({"type", "ro", "readonly", "rw", "readwrite"})
"""Options of a mount that say which others it has, or are turned around when they are read."""


class Flags:
    """The flags of one instruction. A text flag with an empty value counts as absent."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def text(self, name: str) -> str | None:
        return self.values.get(name) or None

    def switch(self, name: str) -> bool:
        return bool(self.values.get(name, False))

    def maybe(self, name: str) -> bool | None:
        """A boolean flag, None if it is absent."""
        value: bool | None = self.values.get(name)
        return value

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(self.values.get(name, ()))


def read_flags(op: str, words: Sequence[str]) -> Flags:
    """Read the flags of instruction `op`. Raises `Fault`."""
    allowed = FLAGS.get(op, {})
    flags = Flags()
    for word in words:
        name, has_value, value = word[2:].partition("=")
        marked = f"--{name}"
        kind = allowed.get(name)
        if kind is None:
            near = nearest(name, allowed)
            raise Fault(
                f"unknown flag of {op}: {marked}",
                marked,
                expected=", ".join(f"--{one}" for one in allowed) or f"no flags of {op}",
                suggestion=near and f"--{near}",
            )
        if kind == LIST:
            _need_value(has_value, marked)
            flags.values.setdefault(name, []).append(value)
            continue
        if name in flags.values:
            raise Fault(f"{marked} is given twice", marked)
        if kind == TEXT:
            _need_value(has_value, marked)
            flags.values[name] = value
        elif not has_value:
            flags.values[name] = True
        elif value.lower() in ("true", "false"):
            flags.values[name] = value.lower() == "true"
        else:
            raise Fault(f"{marked} is a switch", word, expected=f"{marked}=true or {marked}=false")
    return flags


def _need_value(has_value: str, marked: str) -> None:
    if not has_value:
        raise Fault(f"{marked} has no value", marked, expected=f"{marked}=VALUE")


@functools.cache
def _mounts() -> Mapping[str, type[MountFlag]]:
    from layercache.dockerfile import mounts as m

    kinds = (m.BindMount, m.CacheMount, m.TmpfsMount, m.SecretMount, m.SshMount)
    return {kind.type: kind for kind in kinds}


def parse_mount(text: str) -> MountFlag:
    """Read the value of `RUN --mount=`. Raises `Fault`."""
    pairs: list[tuple[str, str | None]] = []
    for field in _fields(text, "--mount"):
        key, has_value, value = field.partition("=")
        pairs.append((key.lower(), value if has_value else None))
    if any(given and "$" in given for key, given in pairs if key in _DECIDING):
        from layercache.dockerfile.mounts import DeferredMount

        try:
            return DeferredMount(pairs)
        except UsageError as error:
            raise Fault(str(error), "--mount") from None
    return mount_of(pairs)


def mount_of(pairs: Sequence[tuple[str, str | None]]) -> MountFlag:
    """The mount that these options mean. Raises `Fault`."""
    mounts = _mounts()
    kind = "bind"
    for key, given in pairs:
        if key == "type":
            kind = (given or "").lower()
            if kind not in mounts:
                raise Fault(
                    f"unknown type of mount: {given or ''!r}",
                    given or "type",
                    expected=", ".join(sorted(mounts)),
                    suggestion=nearest(kind, mounts),
                )
    fields: dict[str, Any] = {}
    for key, given in pairs:
        if key != "type":
            name, value = _option(kind, key, given)
            if name is not None:
                if kind == "secret" and key in ("source", "src") and fields.get("id"):
                    raise Fault("a secret mount takes a source or an id, not both", key)
                fields[name] = value
    try:
        return mounts[kind](**fields)
    except UsageError as error:
        raise Fault(str(error), "--mount") from None


def _option(kind: str, key: str, value: str | None) -> tuple[str | None, Any]:
    """The field that an option of a mount sets, and its value. None: it states the default."""
    from layercache.model.units import parse_bool

    mounts = _mounts()
    keys = mounts[kind].keys
    field = keys.get(key)
    if field is None:
        if key in ("ro", "readonly") and kind in ("secret", "ssh"):
            return None, None  # they are never anything else
        if key in ("rw", "readwrite") and kind == "tmpfs":
            return None, None
        known = {"type"}.union(*(other.keys for other in mounts.values()))
        others = "other mounts do" if key in known else None
        raise Fault(
            f"a {kind} mount has no option {key!r}" + (f" ({others})" if others else ""),
            key,
            expected=", ".join(sorted({"type", *keys})),
            suggestion=None if others else nearest(key, {"type", *keys}),
        )
    if value is None:
        if key not in _BARE:
            raise Fault(f"option {key!r} of a mount has no value", key, expected=f"{key}=VALUE")
        value = "true"
    if field == "readonly":
        try:
            switch = parse_bool(value)
        except UsageError as error:
            raise Fault(str(error), key) from None
        return field, switch if key in ("ro", "readonly") else not switch
    return field, value


def parse_device(text: str) -> Device:
    """Read the value of `RUN --device=`. Raises `Fault`."""
    from layercache.model.units import parse_bool

    name = ""
    required = False
    for index, field in enumerate(_fields(text, "--device")):
        key, has_value, value = field.partition("=")
        lower = key.lower()
        if index == 0 and lower not in ("name", "required"):
            name = field  # a qualified name may hold "=", as in vendor.com/class=name
        elif lower == "name" and value:
            name = value
        elif lower == "required":
            try:
                required = parse_bool(value) if has_value else True
            except UsageError as error:
                raise Fault(str(error), field) from None
        else:
            raise Fault(f"--device has no option {field!r}", field, expected="NAME[,required]")
    if not name:
        raise Fault("--device names no device", "--device", expected="--device=NAME[,required]")
    return Device(name, required)


def _fields(text: str, flag: str) -> list[str]:
    """The fields of one line of comma-separated values. Raises `Fault`."""
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            field: list[str] = []
            at += 1
            while True:
                close = text.find('"', at)
                if close < 0:
                    raise Fault(f"a quote in {flag} is never closed", flag)
                field.append(text[at:close])
                at = close + 1
                if not text.startswith('"', at):
                    break
                field.append('"')
                at += 1
            fields.append("".join(field))
            if at < len(text) and text[at] != ",":
                raise Fault(f"something follows a closing quote in {flag}", flag)
        else:
            comma = text.find(",", at)
            comma = len(text) if comma < 0 else comma
            if '"' in text[at:comma]:
                raise Fault(f"a quote stands within a field of {flag}", flag)
            fields.append(text[at:comma])
            at = comma
        if at >= len(text):
            break
        at += 1
    if fields == [""]:
        raise Fault(f"{flag} is empty", flag)
    return fields
