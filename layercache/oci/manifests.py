"""Manifests, indexes and descriptors: read from untrusted JSON within bounds, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, Protocol, cast

from layercache._base.classes import evolve, frozen
from layercache.errors import HostileArchive, SourceError, UsageError
from layercache.model.descriptors import LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD, Descriptor
from layercache.model.digests import DiffID, Digest, check_digest
from layercache.oci.encoding import CONFIG, MANIFEST, encode
from layercache.oci.platforms import Platform
from layercache.oci.streams import Checked, read_bounded

__all__ = [
    "CONFIG",
    "INDEX",
    "MANIFEST",
    "BlobSource",
    "Index",
    "IndexEntry",
    "Manifest",
    "decode",
    "encode",
    "read_blob",
    "select",
]

INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS: Final = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({INDEX, DOCKER_LIST})

_LAYERS: Final = {
    LAYER_TAR: LAYER_TAR,
    LAYER_TAR_GZIP: LAYER_TAR_GZIP,
    LAYER_TAR_ZSTD: LAYER_TAR_ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TAR,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": LAYER_TAR_ZSTD,
    "application/vnd.oci.image.layer.nondistributable.v1.tar": LAYER_TAR,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": LAYER_TAR_GZIP,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": LAYER_TAR_ZSTD,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": LAYER_TAR_GZIP,
}

MANIFEST_LIMIT: Final = 4 << 20
"""The maximum size of a manifest or index in bytes, as in registries (distribution: 4 MiB)."""
CONFIG_LIMIT: Final = 16 << 20
_ENTRIES: Final = 10_000
_VALUES: Final = 500_000
"""Values in one JSON text: each costs far more memory than it has bytes."""
_DEPTH: Final = 8
_ATTESTATION: Final = "vnd.docker.reference.type"


class BlobSource(Protocol):
    """A place to read the blobs of an image from; its content is not trusted."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob, not yet checked; raises `SourceError` if it is missing."""


@frozen
class IndexEntry:
    """A descriptor in an index: its target, platform and names."""

    descriptor: Descriptor
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def image(self) -> bool:
        """Whether it is, or holds, an image rather than an attestation or another artifact."""
        annotations = dict(self.annotations)
        return self.descriptor.media_type in MANIFESTS | INDEXES and _ATTESTATION not in annotations


@frozen
class Index:
    """An OCI index or a Docker manifest list."""

    entries: tuple[IndexEntry, ...]

    @classmethod
    def from_json(cls, data: bytes, *, what: str) -> Index:
        """Parse an index; raises `HostileArchive` for anything else."""
        value = decode(data, what=what)
        return cls(tuple(_entry(v, what) for v in _items(value, "manifests", what)))


@frozen
class Manifest:
    """An image manifest; `layers` have OCI media types, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, data: bytes, *, what: str) -> Manifest:
        """Parse a manifest; raises `HostileArchive` if it is malformed, `SourceError` if it is
        no image.
        """
        value = decode(data, what=what)
        if value.get("schemaVersion") == 1:
            raise SourceError(
                f"{what}: a manifest of schema 1, which Docker withdrew; push the image again"
            )
        layers = []
        for item in _items(value, "layers", what):
            found = _descriptor(item, what)
            media_type = _LAYERS.get(found.media_type)
            if media_type is None:
                raise SourceError(
                    f"{what}: a layer of media type {found.media_type!r}: this is not an image "
                    "of file systems, or its layers are encrypted"
                )
            layers.append(evolve(found, media_type=media_type))
        config = _descriptor(value.get("config"), what)
        return cls(config, tuple(layers), _annotations(value, what))


def decode(data: bytes, *, what: str) -> dict[str, Any]:
    """The JSON object in `data`; raises `HostileArchive`."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > _VALUES:
        raise HostileArchive(f"{what}: it has more than {_VALUES} values")
    try:
        value = json.loads(data.decode("utf-8", "replace"))
        if b"\\u" in data:
            # A lone surrogate is no text that can be shown or written: U+FFFD, as in Go.
            text = json.dumps(value, ensure_ascii=False)
            value = json.loads(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise HostileArchive(f"{what}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise HostileArchive(f"{what}: not a JSON object")
    return cast("dict[str, Any]", value)


def read_blob(source: BlobSource, descriptor: Descriptor, limit: int, *, what: str) -> bytes:
    """A small blob, checked by size and digest. Raises `HostileArchive` or `SourceError`."""
    if not 0 <= descriptor.size <= limit:
        raise HostileArchive(f"{what}: {descriptor.size} bytes, more than {limit}")
    stream = Checked(source.open(descriptor), descriptor.digest, descriptor.size, what=what)
    return read_bounded(cast(BinaryIO, stream), limit, what=what)


def select(
    source: BlobSource, entries: Sequence[IndexEntry], platform: Platform, *, what: str
) -> tuple[Descriptor, bytes]:
    """The manifest for `platform` among `entries`, through nested indexes, with its bytes.

    An entry without a platform serves any platform, but entries that name a matching one come
    first. Raises `SourceError` if none matches, `HostileArchive` for damage or indexes nested too
    deeply.
    """
    for _ in range(_DEPTH):
        chosen = _choose(entries, platform, what)
        data = read_blob(source, chosen.descriptor, MANIFEST_LIMIT, what=f"manifest of {what}")
        if chosen.descriptor.media_type in MANIFESTS:
            return chosen.descriptor, data
        entries = Index.from_json(data, what=f"index of {what}").entries
    raise HostileArchive(f"{what}: indexes are nested more than {_DEPTH} deep")


def _choose(entries: Sequence[IndexEntry], platform: Platform, what: str) -> IndexEntry:
    images = [entry for entry in entries if entry.image]
    ranked = []
    for number, entry in enumerate(images):
        # An index of another index commonly carries no platform: it may hold the right one.
        rank = 1000 if entry.platform is None else platform.rank(entry.platform)
        if rank is not None:
            ranked.append((rank, number))
    if not ranked:
        offered = sorted({str(entry.platform) for entry in images if entry.platform})
        raise SourceError(
            f"{what}: no image for {platform}"
            + (f"; there is {', '.join(offered)}" if offered else "; the index holds no image")
        )
    return images[min(ranked)[1]]


def _items(value: Mapping[str, Any], key: str, what: str) -> list[Any]:
    items = value.get(key)
    if items is None:
        items = []
    if not isinstance(items, list) or len(items) > _ENTRIES:
        raise HostileArchive(f"{what}: {key!r} is not a list of at most {_ENTRIES} entries")
    return items


def _descriptor(value: Any, what: str) -> Descriptor:
    if not isinstance(value, Mapping):
        raise HostileArchive(f"{what}: a descriptor is missing or not an object")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise HostileArchive(f"{what}: a descriptor without media type or digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise HostileArchive(f"{what}: a descriptor with the size {size!r}")
    try:
        return Descriptor(media_type=media_type, digest=check_digest(digest), size=size)
    except UsageError as error:
        raise HostileArchive(f"{what}: {error}") from None


def _entry(value: Any, what: str) -> IndexEntry:
    descriptor = _descriptor(value, what)
    platform = value.get("platform")
    return IndexEntry(
        descriptor,
        Platform.from_oci(platform) if isinstance(platform, Mapping) else None,
        _annotations(value, what),
    )


def _annotations(value: Mapping[str, Any], what: str) -> tuple[tuple[str, str], ...]:
    found = value.get("annotations") or {}
    if not isinstance(found, Mapping) or not all(isinstance(v, str) for v in found.values()):
        raise HostileArchive(f"{what}: the annotations are not an object of strings")
    return tuple(sorted(found.items()))


def diff_ids(config: Mapping[str, Any], layers: int, *, what: str) -> tuple[DiffID, ...]:
    """The diff IDs in an image configuration, one for each layer. Raises `HostileArchive`."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, Mapping) else None
    found = [] if found is None else found
    if not isinstance(found, list) or len(found) != layers:
        raise HostileArchive(
            f"{what}: the configuration names {len(found) if isinstance(found, list) else 'no'} "
            f"layers, the manifest {layers}"
        )
    try:
        return tuple(DiffID(Digest(check_digest(item))) for item in found)
    except (UsageError, TypeError) as error:
        raise HostileArchive(f"{what}: a diff ID of the configuration: {error}") from None
