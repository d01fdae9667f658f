"""The default sources of base images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from layercache.images.resolver import ImageFinder, Images
from layercache.images.tags import TaggedImages

if TYPE_CHECKING:
    from layercache._os.allowance import UnpackAllowance
    from layercache.images.layouts import FoundImage
    from layercache.oci.manifests import BlobSource
    from layercache.oci.platforms import Platform
    from layercache.store.parts import Cache

__all__ = ["LazyRegistry", "default_images"]


class LazyRegistry:
    """A registry whose client is loaded on first use: most builds never need it."""

    def __init__(
        self, store: Cache | None, *, write: bool = True, insecure: Iterable[str] = ()
    ) -> None:
        self._store = store
        self._write = write
        self._insecure = tuple(insecure)
        self._finder: ImageFinder | None = None

    def find(self, name: str, platform: Platform) -> tuple[FoundImage, BlobSource] | None:
        if self._finder is None:
            from layercache.images.registry import Registry
            from layercache.oci.transport import Transport

            transport = Transport(insecure=self._insecure)
            blobs = self._store.blobs if self._store is not None else None
            self._finder = Registry(transport, keep=blobs, write=self._write)
        return self._finder.find(name, platform)


def default_images(
    store: Cache,
    *,
    pull: bool = False,
    platform: str | None = None,
    write: bool = True,
    insecure: Iterable[str] = (),
    allowance: UnpackAllowance | None = None,
) -> Images:
    """The resolver for one build over `store`.

    Tags of the cache take precedence over registries; with `pull`, registries come first, and a
    tag serves only images that no registry has. `write` False stores no responses of registries
    (for a plan); `allowance` bounds the
    bytes that are fetched; `insecure` names registries that may be contacted without verified TLS.
    """
    tags = TaggedImages(store)
    registry = LazyRegistry(store, write=write, insecure=insecure)
    finders = (registry, tags) if pull else (tags, registry)
    # Stores check sizes, so layers used by a build need one. A plan fetches nothing.
    return Images(
        store.blobs,
        sizes=store.derived,
        finders=finders,
        platform=platform,
        lazy=not write,
        allowance=allowance,
    )
