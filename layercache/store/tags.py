"""Tags of images, stored as references.

A reference is JSON: schema, name, manifest descriptor, configuration, and for each layer the
descriptor of its uncompressed tar. All layers are in the store when a tag is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from layercache._base.classes import field, frozen
from layercache.errors import CorruptObject, HostileArchive, UsageError
from layercache.model.descriptors import LAYER_TAR, Descriptor
from layercache.model.digests import check_digest
from layercache.oci.manifests import CONFIG, MANIFEST, decode, encode
from layercache.oci.references import Reference

if TYPE_CHECKING:
    from layercache.store.small_objects import References

__all__ = [
    "TaggedImage",
    "decode_tag",
    "encode_tag",
    "list_tags",
    "remove_tag",
]

_SCHEMA: Final = 1


class TagStore(Protocol):
    """What is needed of a cache (`layercache.store.parts.Cache`)."""

    @property
    def references(self) -> References: ...


@frozen(kw_only=True)
class TaggedImage:
    """What a tag refers to. `layers` are descriptors of uncompressed tars, the lowest first."""

    name: str
    manifest: Descriptor
    config: Mapping[str, Any] = field(hash=False)
    config_descriptor: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def created(self) -> str | None:
        """RFC 3339 text, where the image says it."""
        created = self.config.get("created")
        return created if isinstance(created, str) else None


def list_tags(store: TagStore) -> tuple[TaggedImage, ...]:
    """All tags of the cache, by name; those that can't be read are left out."""
    found = []
    for name, payload in sorted(store.references.all().items()):
        try:
            found.append(decode_tag(name, payload))
        except CorruptObject:
            continue  # damaged, or written by a later version
    return tuple(found)


def remove_tag(store: TagStore, name: str) -> bool:
    """Remove the tag; returns whether it existed. Raises `UsageError` for a malformed name."""
    return store.references.delete(str(Reference.parse(name).tagged()))


def encode_tag(tagged: TaggedImage) -> bytes:
    """The payload of the reference that stands for `tagged`."""

    def flat(descriptor: Descriptor) -> list[Any]:
        return [descriptor.digest, descriptor.size]

    return encode(
        {
            "schema": _SCHEMA,
            "name": tagged.name,
            "manifest": flat(tagged.manifest),
            "config": dict(tagged.config),
            "config_descriptor": flat(tagged.config_descriptor),
            "layers": [flat(layer) for layer in tagged.layers],
        }
    )


def decode_tag(name: str, payload: bytes) -> TaggedImage:
    """What `tag_image` wrote under `name`; raises `CorruptObject` for anything else."""

    def descriptor(value: Any, media_type: str) -> Descriptor:
        digest, size = value
        if not isinstance(size, int) or size < 0:
            raise ValueError("a size")
        return Descriptor(media_type, check_digest(digest), size)

    try:
        value = decode(payload, what=f"tag {name}")
        if value["schema"] != _SCHEMA or value["name"] != name:
            raise ValueError("another schema or name")
        config = value["config"]
        layers = tuple(descriptor(item, LAYER_TAR) for item in value["layers"])
        stack = config["rootfs"]["diff_ids"]
        if not isinstance(stack, list) or stack != [layer.digest for layer in layers]:
            raise ValueError("layers and configuration differ")
        return TaggedImage(
            name=name,
            manifest=descriptor(value["manifest"], MANIFEST),
            config=config,
            config_descriptor=descriptor(value["config_descriptor"], CONFIG),
            layers=layers,
        )
    except (KeyError, TypeError, ValueError, HostileArchive, UsageError) as error:
        raise CorruptObject(
            f"the tag {name} can't be read ({error}); tag the image again"
        ) from error
