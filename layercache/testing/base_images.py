"""Base images made of dictionaries: found by `FROM name` in tests, without a registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layercache._base.classes import field, frozen
from layercache.errors import SourceError
from layercache.images.resolver import BaseImage, Images
from layercache.model.descriptors import Layer
from layercache.model.image_config import ImageConfig
from layercache.model.tree import Node
from layercache.store.parts import Cache
from layercache.testing.workbench import Workbench

__all__ = ["MemoryImage", "MemoryImages"]


@frozen(kw_only=True)
class MemoryImage:
    """A base image: the files of its one layer, and the relevant parts of its configuration."""

    files: Mapping[str, str | bytes | tuple[Node, bytes]] = field(factory=dict)
    config: ImageConfig = field(factory=lambda: ImageConfig.scratch("amd64"))

    @classmethod
    def of(
        cls,
        files: Mapping[str, str | bytes | tuple[Node, bytes]] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        shell: Sequence[str] = (),
        onbuild: Sequence[str] = (),
    ) -> MemoryImage:
        """An image with these files and settings."""
        config = ImageConfig.scratch("amd64")
        for name, value in (env or {}).items():
            config = config.with_env(name, value)
        if workdir:
            config = config.with_workdir(workdir)
        if user:
            config = config.with_user(user)
        if shell:
            config = config.with_shell(tuple(shell))
        for trigger in onbuild:
            config = config.with_onbuild(trigger)
        return cls(files=files or {}, config=config)


class MemoryImages:
    """Give this to `Builder(images=…)`; change `images` to let a tag move between builds.

    The executor must want base images: `MemoryExecutor(base_images=True)`.
    """

    def __init__(self, images: Mapping[str, MemoryImage]) -> None:
        self.images = dict(images)

    def __call__(self, store: Cache) -> Images:
        return _Resolver(self.images, store)


class _Resolver(Images):
    """Images whose layers are made in a separate store, and copied when needed."""

    def __init__(self, images: Mapping[str, MemoryImage], store: Cache) -> None:
        super().__init__(store.blobs, sizes=store.derived)
        self._images = images
        self._store = store
        self._bench = Workbench()
        self._found: dict[str, BaseImage] = {}

    def resolve(self, name: str, platform: str | None = None) -> BaseImage:
        found = self._found.get(name)
        if found is None:
            image = self._images.get(name)
            if image is None:
                raise SourceError(f"there is no image {name!r} in this test")
            layers = self._bench.state(image.files).layers if image.files else ()
            found = self._found[name] = BaseImage(
                reference=name, digest=None, config=image.config, layers=layers
            )
        return found

    def ensure(self, layer: Layer, *, again: bool = False) -> Layer:
        if again or not self._store.blobs.has(layer.descriptor):
            self.fetch(layer)
        return layer

    def fetch(self, layer: Layer) -> bool:
        if not any(layer in found.layers for found in self._found.values()):
            return False
        with self._bench.open(layer.descriptor.digest) as content:
            self._store.blobs.add(content, layer.descriptor.media_type)
        return True
