"""Images tagged in the cache (`-t NAME`): what a reference of the store says, found by FROM.

A reference is JSON: schema, name, manifest descriptor, configuration, and for each layer the
descriptor of its uncompressed tar. All layers are in the store when a tag is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final, Protocol

import attrs

from layercache._base.frozen import frozen
from layercache.errors import CacheError, CorruptObject, HostileArchive, SourceError, UsageError
from layercache.images.built import BuiltImage, assemble
from layercache.images.layouts import Found
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import DiffID, Digest, check_digest
from layercache.oci.manifests import CONFIG, MANIFEST, Manifest, decode, encode
from layercache.oci.platforms import Platform
from layercache.oci.references import Reference

__all__ = [
    "StoreBlobs",
    "TagStore",
    "TaggedImage",
    "TaggedImages",
    "decode_tag",
    "list_tags",
    "remove_tag",
    "tag_image",
]

_SCHEMA: Final = 1


class TagStore(Protocol):
    """What is needed of the store (`layercache.store.store.Store`)."""

    def open_blob(self, digest: Digest) -> BinaryIO: ...

    def has_blob(self, descriptor: Descriptor) -> bool: ...

    def references(self) -> Mapping[str, bytes]: ...

    def get_reference(self, name: str) -> bytes | None: ...

    def put_reference(self, name: str, payload: bytes) -> None: ...

    def delete_reference(self, name: str) -> bool: ...


@frozen(kw_only=True)
class TaggedImage:
    """What a tag refers to. `layers` are descriptors of uncompressed tars, the lowest first."""

    name: str
    manifest: Descriptor
    config: Mapping[str, Any] = attrs.field(hash=False)
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


def tag_image(
    store: TagStore, image: BuiltImage, fetch: Callable[[Layer], Layer]
) -> tuple[TaggedImage, ...]:
    """Write a reference for each name of `image`.

    Layers of the base that were never needed are fetched first (`Images.ensure`), so that the
    tag holds whatever becomes of the base. Raises `UsageError` for a wrong name, `SourceError`
    when a layer can't be had.
    """
    references = image.references()
    layers = []
    for layer in image.layers:
        descriptor = layer.descriptor
        if descriptor.size < 0 or not store.has_blob(descriptor):
            descriptor = fetch(layer).descriptor
        layers.append(attrs.evolve(descriptor, media_type=LAYER_TAR))
    done = assemble(image, layers)
    if done.manifest is None:
        raise SourceError("the size of a layer is not known: the image can't be tagged")
    config = decode(done.config_bytes, what="image configuration")
    found = []
    for reference in references:
        tagged = TaggedImage(
            name=str(reference),
            manifest=done.manifest,
            config=config,
            config_descriptor=done.config,
            layers=tuple(layers),
        )
        store.put_reference(tagged.name, _encode_tag(tagged))
        found.append(tagged)
    return tuple(found)


def list_tags(store: TagStore) -> tuple[TaggedImage, ...]:
    """All tags of the cache, by name; those that can't be read are left out."""
    found = []
    for name, payload in sorted(store.references().items()):
        try:
            found.append(decode_tag(name, payload))
        except CorruptObject:
            continue  # written by a later version, say; such a tag is no image of ours
    return tuple(found)


def remove_tag(store: TagStore, name: str) -> bool:
    """Forget the tag; whether it was there. Raises `UsageError` for a wrong name."""
    return store.delete_reference(str(Reference.parse(name).tagged()))


def _encode_tag(tagged: TaggedImage) -> bytes:
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


class StoreBlobs:
    """The layers of tagged images, read from the store that holds them."""

    def __init__(self, store: TagStore) -> None:
        self._store = store

    def open(self, descriptor: Descriptor) -> BinaryIO:
        try:
            return self._store.open_blob(descriptor.digest)
        except CacheError as error:
            raise SourceError(
                f"the cache has lost the layer {descriptor.digest} of a tagged image: "
                "build and tag the image again"
            ) from error


class TaggedImages:
    """Finds images that were tagged in the cache."""

    def __init__(self, store: TagStore) -> None:
        self._store = store

    def find(self, name: str, platform: Platform) -> tuple[Found, StoreBlobs] | None:
        """The image tagged `name` (a complete reference), None when there is none.

        A reference with a digest is found when the tag stands for that digest. Raises
        `SourceError` when it is there but has lost a layer: another image of the same name,
        from a registry say, would be a surprise.
        """
        reference = Reference.parse(name)
        plain = attrs.evolve(reference, digest=None).tagged()
        payload = self._store.get_reference(str(plain))
        if payload is None:
            return None
        try:
            tagged = decode_tag(str(plain), payload)
        except CorruptObject as error:
            raise SourceError(str(error)) from error
        if reference.digest not in (None, tagged.manifest.digest):
            return None
        if not platform.may_run(tagged.config):
            return None
        for layer in tagged.layers:
            if not self._store.has_blob(layer):
                raise SourceError(
                    f"the image {plain.familiar} in the cache has lost the layer {layer.digest}: "
                    "build and tag it again, or remove the tag"
                )
        manifest = Manifest(tagged.config_descriptor, tagged.layers)
        stack = tuple(DiffID(layer.digest) for layer in tagged.layers)
        return Found(tagged.manifest.digest, manifest, tagged.config, stack), StoreBlobs(
            self._store
        )
