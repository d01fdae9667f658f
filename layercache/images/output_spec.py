"""The value of `--output`: `type=oci,dest=PATH,tar=false` and so on, in the notation of buildx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from layercache._base.classes import frozen
from layercache.errors import UsageError

__all__ = ["Annotation", "OutputSpec", "parse_annotation", "parse_output"]

TYPES: Final = ("oci", "docker", "local", "tar", "registry", "cacheonly")
COMPRESSIONS: Final = ("uncompressed", "gzip", "zstd")
_KINDS: Final = ("manifest", "manifest-descriptor")
_TRUE: Final = frozenset({"1", "t", "true", "yes"})
_FALSE: Final = frozenset({"0", "f", "false", "no"})
_LEVELS: Final = {"uncompressed": (0, 0), "gzip": (0, 9), "zstd": (-7, 22)}


@frozen
class Annotation:
    """An annotation of the manifest, or of its descriptor in the index of the layout."""

    key: str
    value: str
    kind: str = "manifest"


@frozen(kw_only=True)
class OutputSpec:
    """The destination and form of a result.

    `type`: `oci` (layout), `docker` (for docker load; without `dest` into the running engine),
    `local` (directory of the root file system), `tar` (the same as one archive), `registry`
    (push), `cacheonly` (nothing). `dest` "-" is standard output. `tar` False writes a directory
    instead of an archive. `compression` None selects the default of the destination: none for
    files, so that equal images have equal bytes whatever the machine's codecs and no time is spent
    on it; gzip for a push, which travels over a network. `force_compression` compresses base
    layers anew instead of using their original bytes. `rewrite_timestamp` clamps the times in the
    build's own layers to SOURCE_DATE_EPOCH. `created` "now" dates the image with the present;
    otherwise it has the time of SOURCE_DATE_EPOCH, or one that is the same for every build.
    `insecure` allows http, and certificates that can't be verified, for the registries of a push.
    """

    type: str
    dest: str | None = None
    tar: bool = True
    compression: str | None = None
    level: int | None = None
    force_compression: bool = False
    names: tuple[str, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    rewrite_timestamp: bool = False
    created: str | None = None
    insecure: bool = False

    def __attrs_post_init__(self) -> None:
        if self.created not in (None, "now"):
            raise UsageError(f"--output: created={self.created!r}: expected now")
        if self.type not in TYPES:
            raise UsageError(
                f"--output: unknown type {self.type!r} (expected one of {', '.join(TYPES)})"
            )
        if self.type in {"oci", "local", "tar"} and not self.dest:
            raise UsageError(f"--output type={self.type} needs dest=PATH")
        if self.dest == "-" and (self.type == "local" or not self.tar):
            raise UsageError("--output: a directory can't be written to standard output")
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise UsageError(
                f"--output: unknown compression {self.compression!r} "
                f"(expected one of {', '.join(COMPRESSIONS)})"
            )
        if self.insecure and self.type != "registry":
            raise UsageError(f"--output type={self.type}: registry.insecure is for a push")
        if self.level is not None:
            low, high = _LEVELS[self.compression or "gzip"]
            if not low <= self.level <= high:
                raise UsageError(
                    f"--output: compression-level={self.level} is not between {low} and {high}"
                )


def parse_output(text: str) -> OutputSpec:
    """Parse one `--output`; raises `UsageError`.

    A plain path is `type=local,dest=PATH`, and `-` is `type=tar,dest=-`. Fields are separated
    as in CSV: a field that holds a comma is put in double quotes.
    """
    fields = _fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        if not fields[0]:
            raise UsageError("--output: empty")
        kind = "tar" if fields[0] == "-" else "local"
        return OutputSpec(type=kind, dest=fields[0])
    values: dict[str, str] = {}
    annotations = []
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"--output: {field!r} is not KEY=VALUE")
        if key.startswith("annotation"):
            annotations.append(_annotation_field(field))
            continue
        if key in values:
            raise UsageError(f"--output: {key} is given twice")
        values[key] = value
    if "type" not in values:
        raise UsageError(f"--output: {text!r} has no type")
    kind = values.pop("type").lower()
    if kind == "image":
        pushed = _flag("push", values.pop("push", "false"))
        kind = "registry" if pushed else "cacheonly"
    elif "push" in values and not _flag("push", values.pop("push")):
        kind = "cacheonly" if kind == "registry" else kind
    convert: dict[str, Callable[[str], object]] = {
        "dest": str,
        "tar": lambda v: _flag("tar", v),
        "compression": str.lower,
        "compression-level": _level,
        "force-compression": lambda v: _flag("force-compression", v),
        "name": lambda v: tuple(filter(None, (n.strip() for n in v.split(",")))),
        "created": str.lower,
        "registry.insecure": lambda v: _flag("registry.insecure", v),
        "rewrite-timestamp": lambda v: _flag("rewrite-timestamp", v),
    }
    if not _flag("oci-mediatypes", values.pop("oci-mediatypes", "true")):
        raise UsageError("--output: oci-mediatypes=false: only OCI media types are written")
    unknown = sorted(values.keys() - convert.keys())
    if unknown:
        raise UsageError(
            f"--output: unknown options: {', '.join(unknown)} "
            f"(expected type, annotation.KEY, {', '.join(convert)})"
        )
    names = {
        "compression-level": "level",
        "name": "names",
        "registry.insecure": "insecure",
    }
    given = {names.get(k, k.replace("-", "_")): convert[k](v) for k, v in values.items()}
    return OutputSpec(type=kind, annotations=tuple(annotations), **given)  # type: ignore[arg-type]


def parse_annotation(text: str) -> Annotation:
    """Parse one `--annotation [TYPE:]KEY=VALUE`; raises `UsageError`.

    TYPE is `manifest` (the default) or `manifest-descriptor`; an image for one platform has no
    index of its own, so index annotations are refused.
    """
    name, equals, value = text.partition("=")
    kind, colon, key = name.partition(":")
    if not colon:
        kind, key = "manifest", name
    kind = kind.partition("[")[0]
    if not equals or not key:
        raise UsageError(f"--annotation: {text!r} is not KEY=VALUE")
    if kind not in _KINDS:
        raise UsageError(
            f"--annotation: {kind!r} is not possible for an image of one platform "
            f"(expected {' or '.join(_KINDS)})"
        )
    return Annotation(key, value, kind)


def _annotation_field(field: str) -> Annotation:
    """`annotation.KEY=VALUE` or `annotation-manifest-descriptor.KEY=VALUE`."""
    name, _, value = field.partition("=")
    head, dot, key = name.partition(".")
    kind = head.strip().lower().removeprefix("annotation").removeprefix("-").partition("[")[0]
    if not dot:
        raise UsageError(f"--output: {field!r}: write annotation.KEY=VALUE")
    return parse_annotation(f"{kind or 'manifest'}:{key}={value}")


def _fields(text: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"--output: {text!r}: {error}") from None
    return rows[0] if rows else [""]


def _flag(key: str, value: str) -> bool:
    word = value.strip().lower()
    if word not in _TRUE | _FALSE:
        raise UsageError(f"--output: {key}={value!r}: expected true or false")
    return word in _TRUE


def _level(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"--output: compression-level={value!r} is not a number") from None
