"""The base images of one build: resolved by name, fetched when their bytes are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from layercache.dockerfile.lowering.options import ImageNeed, ResolvedBase
from layercache.errors import UsageError
from layercache.images.resolver import BaseImage as ResolvedImage
from layercache.images.resolver import Images
from layercache.model.descriptors import Layer
from layercache.model.image_config import ImageConfig
from layercache.oci.platforms import Platform, host_platform

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["BaseImages"]


class BaseImages:
    """Resolves what FROM names, as `images` does it.

    `contexts` are images that stand for a name (in lower case); `note` is told where an image is
    for another platform than the one asked for.
    """

    def __init__(
        self,
        images: Images,
        store: Cache,
        contexts: Mapping[str, object],
        *,
        note: Callable[[str], None],
    ) -> None:
        self._images = images
        self._store = store
        self._contexts = contexts
        self._note = note
        self._resolved: dict[ImageNeed, ResolvedImage] = {}

    def resolve(self, need: ImageNeed) -> ResolvedBase:
        """Resolve the image that a recipe needs; raises `UsageError` and the errors of the
        resolver.
        """
        given = self._contexts.get(need.name.lower())
        if given is None and "://" in need.name:
            raise UsageError(
                f"{need.name}: a Dockerfile can't open an image by its path: give it a name with "
                f"--build-context NAME={need.name}"
            )
        name = str(given).removeprefix("docker-image://") if given is not None else need.name
        found = self._images.resolve(name, need.platform or None)
        self._resolved[need] = found
        self._compare_platforms(need, found.config)
        return ResolvedBase(need.name, found.state, found.config)

    def of(self, need: ImageNeed) -> ResolvedImage | None:
        """The image that was resolved for `need`."""
        return self._resolved.get(need)

    def _compare_platforms(self, need: ImageNeed, config: ImageConfig) -> None:
        """Note a base image that is for another platform than the requested one."""
        wanted = Platform.parse(need.platform) if need.platform else host_platform()
        said = {"os": config.os, "architecture": config.architecture, "variant": config.variant}
        offered = Platform.from_oci(said)
        if offered is not None and not wanted.may_run(said):
            self._note(f"{need.name} is an image for {offered}, not for {wanted}")

    def fetch(self, layer: Layer) -> bool:
        """Fetch the bytes of a layer again; return whether it belongs to one of these images and
        arrived.
        """
        return self._images.fetch(layer)

    def ensure(self, layer: Layer) -> Layer:
        """Make sure that the bytes of a layer are in the store, and return its descriptor."""
        if self._store.blobs.has(layer.descriptor):
            return layer
        return self._images.ensure(layer)

    def close(self) -> None:
        """Close the connections and files of the resolver."""
        self._images.close()
