"""Images tagged in the cache (`-t NAME`): written after a build, found by FROM."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject, SourceError
from layercache.images.built import BuiltImage, assemble
from layercache.images.layouts import FoundImage
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import DiffID
from layercache.oci.manifests import Manifest, decode
from layercache.oci.platforms import Platform
from layercache.oci.references import Reference
from layercache.store.tags import TaggedImage, decode_tag, encode_tag

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["StoreBlobs", "TaggedImages", "tag_image"]


def tag_image(
    store: Cache, image: BuiltImage, fetch: Callable[[Layer], Layer]
) -> tuple[TaggedImage, ...]:
    """Write a reference for each name of `image`.

    Layers of the base that were never needed are fetched first (`Images.ensure`), so that the
    tag stays complete even if the base disappears. Raises `UsageError` for a wrong name,
    `SourceError` if a layer is unavailable or the cache does not accept it or the tag.
    """
    references = image.references()
    if not references:
        return ()
    layers = []
    for layer in image.layers:
        descriptor = layer.descriptor
        if descriptor.size < 0 or not store.blobs.has(descriptor):
            descriptor = fetch(layer).descriptor
        try:
            store.blobs.keep(descriptor)
        except CacheError as error:
            raise SourceError(
                f"can't tag the image {references[0].familiar}: {error}. An earlier tag of that "
                "name is kept. Free some space, or use another --cache"
            ) from error
        layers.append(evolve(descriptor, media_type=LAYER_TAR))
    done = assemble(image, layers)
    if done.manifest is None:
        raise SourceError("can't tag the image: the size of a layer is not known")
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
        try:
            store.references.put(tagged.name, encode_tag(tagged))
        except CacheError as error:
            raise SourceError(f"can't tag the image {reference.familiar}: {error}") from error
        found.append(tagged)
    return tuple(found)


class StoreBlobs:
    """The layers of tagged images, read from the store that holds them."""

    def __init__(self, store: Cache) -> None:
        self._store = store

    def open(self, descriptor: Descriptor) -> BinaryIO:
        try:
            return self._store.blobs.open(descriptor.digest)
        except CacheError as error:
            raise SourceError(
                f"the cache has lost the layer {descriptor.digest} of a tagged image: "
                "build and tag the image again"
            ) from error


class TaggedImages:
    """Finds images that were tagged in the cache."""

    def __init__(self, store: Cache) -> None:
        self._store = store

    def find(self, name: str, platform: Platform) -> tuple[FoundImage, StoreBlobs] | None:
        """The image tagged `name` (a complete reference), None if there is none.

        A reference with a digest is found if the tag refers to that digest. Raises `SourceError` if
        the tag exists but a layer is lost: silently using another image of the same name, from a
        registry say, would be a surprise.
        """
        reference = Reference.parse(name)
        plain = evolve(reference, digest=None).tagged()
        payload = self._store.references.get(str(plain))
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
            if not self._store.blobs.has(layer):
                raise SourceError(
                    f"the image {plain.familiar} in the cache has lost the layer {layer.digest}: "
                    "build and tag it again, or remove the tag"
                )
        manifest = Manifest(tagged.config_descriptor, tagged.layers)
        stack = tuple(DiffID(layer.digest) for layer in tagged.layers)
        return FoundImage(tagged.manifest.digest, manifest, tagged.config, stack), StoreBlobs(
            self._store
        )
