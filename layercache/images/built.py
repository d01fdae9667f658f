"""A built image as a value, and its configuration and manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from layercache._base.classes import evolve, frozen
from layercache.errors import SourceError, UsageError
from layercache.model.descriptors import Descriptor, Layer
from layercache.model.digests import DiffID, sha256
from layercache.model.image_config import HistoryEntry, ImageConfig
from layercache.oci.encoding import CONFIG, MANIFEST, encode, manifest_to_json

if TYPE_CHECKING:
    from layercache.images.resolver import BaseImage
    from layercache.oci.references import Reference

__all__ = ["Assembled", "BuiltImage", "assemble", "complete_history", "rfc3339", "source_date"]


CREATED: Final = "2020-09-13T12:26:40Z"
"""Creation time of an image that states no other: the time of layers (`LAYER_TIME`)."""


@frozen(kw_only=True)
class BuiltImage:
    """The resulting image of a build.

    `layers` are all layers, the base's first; `history` holds the entries that this build adds to
    the base's (one for each instruction; as many non-empty ones as there are layers of its own).
    `names` are the tags; `annotations` are those of the manifest. `created` is RFC 3339 text; None
    is `CREATED`, so that equal builds are equal images. SOURCE_DATE_EPOCH sets it.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    base: BaseImage | None = None
    history: tuple[HistoryEntry, ...] = ()
    names: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    created: str | None = None
    epoch: int | None = None
    """SOURCE_DATE_EPOCH of the build."""

    @property
    def own_layers(self) -> int:
        """The number of layers that are not the base's."""
        return len(self.layers) - (len(self.base.layers) if self.base else 0)

    def references(self) -> tuple[Reference, ...]:
        """The names as references with a tag. Raises `UsageError` for one with a digest."""
        from layercache.oci.references import Reference

        found = []
        for name in self.names:
            reference = Reference.parse(name).tagged()
            if reference.digest is not None:
                raise UsageError(f"a tag can't hold a digest: {name!r}")
            found.append(reference)
        return tuple(dict.fromkeys(found))


@frozen
class Assembled:
    """Configuration and manifest as bytes, with their descriptors.

    `manifest` and `manifest_bytes` are None as long as the size of a layer is unknown.
    """

    config: Descriptor
    config_bytes: bytes
    manifest: Descriptor | None
    manifest_bytes: bytes | None

    def written(self) -> tuple[Descriptor, bytes]:
        """The manifest with its bytes; raises `SourceError` as long as a size is unknown."""
        if self.manifest is None or self.manifest_bytes is None:
            raise SourceError("can't write the image: the size of a layer is not known")
        return self.manifest, self.manifest_bytes


def assemble(
    image: BuiltImage,
    layers: Sequence[Descriptor] | None = None,
    diff_ids: Sequence[DiffID] | None = None,
) -> Assembled:
    """The configuration and manifest of `image`.

    `layers` and `diff_ids` describe the written form of its layers; by default they are
    uncompressed. Raises `UsageError` if the history does not match the layers.
    """
    wire = [layer.descriptor for layer in image.layers] if layers is None else list(layers)
    stack = [layer.archive for layer in image.layers] if diff_ids is None else list(diff_ids)
    base_layers = len(image.layers) - image.own_layers
    history = complete_history(image.config.history, base_layers)
    created = image.created or CREATED
    history += tuple([entry.dated(created) for entry in image.history])
    if not image.history:
        history = complete_history(history, len(image.layers), "layer")
    data = encode(image.config.to_oci(stack, created, history))
    config = Descriptor(CONFIG, sha256(data), len(data))
    if any(descriptor.size < 0 for descriptor in wire):
        return Assembled(config, data, None, None)
    written = encode(manifest_to_json(config, wire, image.annotations))
    return Assembled(config, data, Descriptor(MANIFEST, sha256(written), len(written)), written)


def complete_history(
    history: Sequence[HistoryEntry], layers: int, text: str = "layer of the base image"
) -> tuple[HistoryEntry, ...]:
    """`history` with exactly `layers` non-empty entries, repaired as in BuildKit.

    If there are too many, the last ones are marked as empty. If there are too few, entries with
    `text` are added at the end.
    """
    found = []
    left = layers
    for entry in history:
        if not entry.empty_layer:
            if left <= 0:
                entry = evolve(entry, empty_layer=True)
            left -= 1
        found.append(entry)
    found += [HistoryEntry(created_by=text)] * max(left, 0)
    return tuple(found)


def rfc3339(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339 text in UTC, whole seconds."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromtimestamp(int(seconds), UTC)
    except (OverflowError, ValueError, OSError):
        raise UsageError(f"not a time that can be written: {seconds!r} seconds") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def source_date(text: str | None) -> int | None:
    """The value of SOURCE_DATE_EPOCH; None if it is unset or empty. Raises `UsageError`."""
    if text is None or not text.strip():
        return None
    if not text.strip().isdecimal() or len(text.strip()) > 12:
        raise UsageError(f"SOURCE_DATE_EPOCH={text!r} is not a whole number of seconds since 1970")
    return int(text)
