"""`Images`: from the name of a base image to its configuration and layers, once per build.

Resolving reads the manifest and the configuration only. The bytes of a layer are fetched when
something needs them (`Images.ensure`). They are checked twice in transfer (compressed digest and
size, then the digest of the uncompressed tar, which must be the layer's diff ID), and are stored
uncompressed in the content store.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Final, Protocol, cast

from layercache._base.classes import evolve, field, frozen
from layercache._os.allowance import UnpackAllowance
from layercache.errors import (
    CacheError,
    HostileArchive,
    NotFound,
    SourceError,
    Unreachable,
    UsageError,
)
from layercache.images.layouts import FoundImage, ImageFile, open_images
from layercache.layers.compression import decompressed
from layercache.model.descriptors import (
    LAYER_TAR,
    MAX_UNPACKED_SIZE,
    SCRATCH,
    Descriptor,
    Layer,
    State,
)
from layercache.model.digests import DiffID, Digest, check_digest
from layercache.model.image_config import ImageConfig
from layercache.oci.manifests import BlobSource
from layercache.oci.platforms import Platform, host_platform
from layercache.oci.streams import CHUNK, Checked

__all__ = ["UNKNOWN_SIZE", "BaseImage", "Content", "ImageFinder", "Images", "Sizes", "split_tag"]

UNKNOWN_SIZE: Final = -1
"""Size in the descriptor of a base layer whose uncompressed size is unknown until fetched."""

_SIZE: Final = "layer-size"
_TRANSFERS: Final = 4
"""The number of layers that are fetched in parallel."""
_SCHEMES: Final = ("oci-layout://", "docker-archive://", "oci-archive://")


class Content(Protocol):
    """The part of the content store that is needed here: blobs by digest. Safe for threads."""

    def open(self, digest: Digest) -> BinaryIO:
        """The verified bytes of a blob; raises `CorruptObject` or `NotFound`."""

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store `content`; nothing is stored if reading it raises."""


class Sizes(Protocol):
    """The part of the derived objects of a store that is needed here: sizes of layers."""

    def get(self, kind: str, name: str) -> bytes | None: ...

    def put(self, kind: str, name: str, payload: bytes) -> None: ...


@frozen(kw_only=True)
class BaseImage:
    """A base image as one build uses it.

    `reference` is the requested name; `digest` identifies the image (its manifest; for
    `docker save` archives its configuration; None for scratch). `layers` hold the uncompressed
    tars (digest == diff ID), whose sizes are `UNKNOWN_SIZE` if they are unknown before the fetch;
    `originals` are the descriptors of the image's own blobs, in the same order.
    """

    reference: str
    digest: Digest | None
    config: ImageConfig
    layers: tuple[Layer, ...] = ()
    originals: tuple[Descriptor, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    source: BlobSource | None = field(default=None, eq=False, repr=False)

    @property
    def state(self) -> State:
        """The stack of layers."""
        state = SCRATCH
        for layer in self.layers:
            state = state.plus(layer)
        return state


class ImageFinder(Protocol):
    """Finds images by reference: those tagged in the cache, a registry."""

    def find(self, name: str, platform: Platform) -> tuple[FoundImage, BlobSource] | None:
        """The image, or None if this place has no image with that name. Raises `SourceError`."""


class Images:
    """Resolves names of base images, each once; make one instance per build.

    Sizes of layers are kept in `sizes`, if given. `finders` are asked in order for a plain
    reference (the cache's own tags, then a registry); `platform` is the default platform, that of
    this machine if None. With `lazy` False, a layer whose uncompressed size is known neither from
    the image nor from an earlier build is fetched when its image is resolved, so that no
    descriptor has `UNKNOWN_SIZE`. `allowance` bounds the bytes of all layers that are fetched.
    """

    def __init__(
        self,
        content: Content,
        *,
        sizes: Sizes | None = None,
        finders: tuple[ImageFinder, ...] = (),
        platform: str | None = None,
        directory: str | Callable[[], str] = os.getcwd,
        lazy: bool = True,
        allowance: UnpackAllowance | None = None,
    ) -> None:
        self._sizes = sizes
        self._allowance = allowance or UnpackAllowance(MAX_UNPACKED_SIZE)
        self._content = content
        self._finders = finders
        self._platform = Platform.parse(platform) if platform else None
        self._directory = directory
        self._lazy = lazy
        self._files: dict[str, ImageFile] = {}
        self._resolved: dict[tuple[str, Platform], BaseImage] = {}
        self._from: dict[Digest, tuple[Descriptor, BlobSource]] = {}
        self._names: dict[tuple[str, Platform], threading.Lock] = {}
        self._locks: dict[Digest, threading.Lock] = {}
        self._lock = threading.RLock()

    def resolve(self, name: str, platform: str | None = None) -> BaseImage:
        """The image that `FROM name` refers to.

        `scratch`; `oci-layout://PATH[:TAG][@DIGEST]` for an OCI layout (directory or archive) or a
        `docker save` archive; otherwise an image reference. A tag is resolved once and keeps its
        result for the life of this object; a digest pins. `platform` chooses among the images of an
        index; a single image is taken, whatever its platform. Raises `SourceError` if there is no
        such image, `HostileArchive` if the image does not match its digests, `UsageError` for an
        invalid name.
        """
        wanted = Platform.parse(platform) if platform else self._platform or host_platform()
        key = (name, wanted)
        with self._lock:
            lock = self._names.setdefault(key, threading.Lock())
        with lock:
            known = self._resolved.get(key)
            if known is None:
                known = self._resolve(name, wanted)
                self._register(known)
                if not self._lazy:
                    known = evolve(known, layers=self._sized(known.layers))
                self._resolved[key] = known
            return known

    def ensure(self, layer: Layer, *, again: bool = False) -> Layer:
        """`layer` with its true size, and its bytes in the content store.

        `again` fetches the blob even if the store has it, because it turned out to be damaged.
        Raises `NotFound` if no image that was resolved here has it, `SourceError` if the bytes are
        unavailable, `HostileArchive` if they do not match the image's configuration; in that case
        nothing is stored. Safe for threads: each layer is fetched once.
        """
        digest = Digest(layer.id)
        with self._lock:
            lock = self._locks.setdefault(digest, threading.Lock())
        with lock:
            if not again and (kept := self._kept(layer)) is not None:
                return kept
            with self._lock:
                place = self._from.get(digest)
            if place is None:
                # The cache is at fault; running the step again repairs it.
                raise NotFound(f"the layer {digest} belongs to none of the images of this build")
            original, source = place
            what = f"layer {original.digest}"
            plain = self.open_original(original, source, digest)
            with self._allowance.counted(plain, what) as stream:
                stored = self._content.add(stream, LAYER_TAR)
        if stored.digest != digest:
            raise HostileArchive(f"layer {digest}: stored as {stored.digest}")
        self._remember(stored)
        return evolve(layer, descriptor=stored)

    @staticmethod
    def open_original(original: Descriptor, source: BlobSource, digest: Digest) -> BinaryIO:
        """The uncompressed tar of a layer, checked against both digests while it is read."""
        what = f"layer {original.digest}"
        size = None if original.size < 0 else original.size
        stream = source.open(original)
        if original.digest == digest:
            return cast(BinaryIO, Checked(stream, digest, size, what=what))
        checked = cast(BinaryIO, Checked(stream, original.digest, size, what=what))
        plain = decompressed(checked, what=what)
        what = f"layer {original.digest}, uncompressed (diff ID {digest})"
        return cast(BinaryIO, Checked(plain, digest, None, what=what, closes=checked))

    def fetch(self, layer: Layer) -> bool:
        """Bring the bytes of `layer` into the content store, whatever it holds now.

        False if no image that was resolved here has it; otherwise raises the errors of `ensure`.
        """
        with self._lock:
            known = Digest(layer.id) in self._from
        if known:
            self.ensure(layer, again=True)
        return known

    def _register(self, image: BaseImage) -> None:
        """Record the sources of the layers of `image`."""
        if image.source is not None:
            with self._lock:
                for layer, original in zip(image.layers, image.originals, strict=True):
                    self._from.setdefault(Digest(layer.id), (original, image.source))

    def _sized(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """`layers` with their sizes; layers of unknown size are fetched."""
        unknown = {layer.id: layer for layer in layers if layer.descriptor.size < 0}
        if unknown:
            from layercache._os.side_by_side import side_by_side

            # No thread here holds the exit: whoever gives up on a slow registry is free at once.
            calls = [partial(self.ensure, layer) for layer in unknown.values()]
            unknown = dict(zip(unknown, side_by_side(calls, _TRANSFERS), strict=True))
        return tuple(unknown.get(layer.id, layer) for layer in layers)

    def _kept(self, layer: Layer) -> Layer | None:
        """`layer` with its size if the store has it; an unknown size is counted."""
        digest = Digest(layer.id)
        try:
            with self._content.open(digest) as stream:
                if layer.descriptor.size >= 0:
                    return layer
                size = sum(map(len, iter(lambda: stream.read(CHUNK), b"")))
        except CacheError:
            return None
        stored = Descriptor(LAYER_TAR, digest, size)
        self._remember(stored)
        return evolve(layer, descriptor=stored)

    def _remember(self, stored: Descriptor) -> None:
        if self._sizes is not None:
            self._sizes.put(_SIZE, stored.digest, str(stored.size).encode())

    def close(self) -> None:
        """Close the files in which images were found."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- ------------------------------------------------------------------------------------

    def _resolve(self, name: str, wanted: Platform) -> BaseImage:
        if name == "scratch":
            config = ImageConfig.scratch(wanted.architecture, wanted.os, wanted.variant)
            return BaseImage(reference=name, digest=None, config=config)
        scheme = next((s for s in _SCHEMES if name.startswith(s)), None)
        source: BlobSource
        if scheme is not None:
            found, source = self._in_file(name.removeprefix(scheme), wanted)
        else:
            found, source = self._by_reference(name, wanted)
        try:
            config = ImageConfig.from_oci(found.config)
        except UsageError as error:
            raise HostileArchive(f"{name}: {error}") from error
        layers = tuple(
            Layer(Descriptor(LAYER_TAR, Digest(diff_id), self._size(original, diff_id)), diff_id)
            for diff_id, original in zip(found.diff_ids, found.manifest.layers, strict=True)
        )
        return BaseImage(
            reference=name,
            digest=found.digest,
            config=config,
            layers=layers,
            originals=found.manifest.layers,
            annotations=found.manifest.annotations,
            source=source,
        )

    def _size(self, original: Descriptor, diff_id: DiffID) -> int:
        """The size of the uncompressed tar, from the image or from an earlier build."""
        if original.digest == Digest(diff_id):
            return original.size
        kept = self._sizes.get(_SIZE, diff_id) if self._sizes is not None else None
        return int(kept) if kept is not None and kept.isdigit() else UNKNOWN_SIZE

    def _in_file(self, text: str, platform: Platform) -> tuple[FoundImage, ImageFile]:
        text, _, digest_text = text.partition("@")
        digest = check_digest(digest_text) if digest_text else None
        base = self._directory if isinstance(self._directory, str) else self._directory()
        path, tag = split_tag(os.path.join(base, text))
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = open_images(path)
        return file.find(tag if digest is None else None, digest, platform), file

    def _by_reference(self, name: str, platform: Platform) -> tuple[FoundImage, BlobSource]:
        from layercache.oci.references import Reference

        reference = Reference.parse(name).tagged()
        for finder in self._finders:
            try:
                found = finder.find(str(reference), platform)
            except SourceError as error:
                if type(error) not in (SourceError, Unreachable):
                    raise
                why = f"can't get the image {reference.familiar}: {error}"
                if "/" not in name:  # perhaps meant as a name of something here
                    why += f" (no stage, build context or image in the cache is named {name})"
                raise type(error)(why) from error
            if found is not None:
                return found
        raise SourceError(
            f"the image {reference.familiar} was not found: it is neither in the cache "
            "nor in any place that was asked"
        )


def split_tag(text: str) -> tuple[str, str | None]:
    """Path and name in `PATH[:NAME[:TAG]]`: the longest path that exists; raises `SourceError`."""
    path, tag = text, None
    while not os.path.lexists(path) and ":" in path:
        path, _, last = path.rpartition(":")
        tag = last if tag is None else f"{last}:{tag}"
    if not os.path.lexists(path):
        raise SourceError(f"no images at {text}: there is no such file or directory")
    return path, tag
