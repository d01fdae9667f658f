"""Export of images: an OCI layout or a `docker load` archive, a root file system, a push.

Equal images give equal bytes: names sorted, owners and times fixed, layers uncompressed unless
requested otherwise. The output becomes visible as a whole, by a rename.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from layercache._base.classes import evolve, frozen
from layercache.errors import CacheError, SourceError, UsageError
from layercache.images.atomic_files import atomic_file
from layercache.images.built import BuiltImage, assemble, rfc3339
from layercache.images.compression import MEDIA_TYPES, write_compressed
from layercache.images.output_spec import OutputSpec
from layercache.images.resolver import Content
from layercache.images.writers import Written, load, push, write_archive, write_layout
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import DiffID, Digest
from layercache.oci.streams import CHUNK, Checked

if TYPE_CHECKING:
    from layercache.images.registry import Registry
    from layercache.model.tree import Tree

__all__ = ["Exported", "export"]


@frozen(kw_only=True)
class Exported:
    """The result of an export: digests of configuration and manifest (None if there is none)."""

    type: str
    dest: str | None = None
    config_digest: Digest | None = None
    manifest_digest: Digest | None = None
    manifest: Descriptor | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was not written."""


def export(
    image: BuiltImage,
    spec: OutputSpec,
    *,
    content: Content,
    fetch: Callable[[Layer], Layer],
    tree: Callable[[], Tree] | None = None,
    epoch: int | None = None,
    registry: Registry | None = None,
) -> Exported:
    """Write `image` as `spec` describes.

    `fetch` brings a base image's layer into `content` (`Images.ensure`); `tree` returns the root
    file system for `local` and `tar`; `epoch` is SOURCE_DATE_EPOCH: it sets times that `created`
    and the history leave open, and clamps times if requested. Without it these times are
    constant, or the present where `spec` asks for it. Raises `SourceError` if something can't be
    read or written, `UsageError` for an impossible request.
    """
    if epoch is not None or spec.created == "now":
        image = evolve(image, created=image.created or _created(epoch))
    if spec.names:
        image = evolve(image, names=(*image.names, *spec.names))
    image.references()  # a wrong name is reported before anything is written
    if spec.type == "cacheonly":
        return Exported(type=spec.type)
    try:
        if spec.type in {"local", "tar"}:
            from layercache.layers.apply import export_tree, merged_tar

            if tree is None:
                raise UsageError(f"--output type={spec.type} needs a root file system")
            if spec.type == "local":
                place = str(spec.dest)
                os.makedirs(place, exist_ok=True)
                root = os.geteuid() == 0
                devices = export_tree(tree(), place, owners=root, epoch=epoch, spare=True)
                notes = tuple(
                    f"--output type=local makes no devices: {os.fsdecode(path)!r} was left out"
                    for path in devices
                )
                return Exported(type=spec.type, dest=spec.dest, notes=notes)
            else:
                with atomic_file(str(spec.dest)) as out:
                    merged_tar(tree(), out, epoch)
            return Exported(type=spec.type, dest=spec.dest)
        return _export_image(image, spec, content, fetch, epoch, registry)
    except OSError as error:
        place = spec.dest or error.filename or spec.type
        why = error.strerror or error
        raise SourceError(f"can't write the output {place}: {why}") from error


def _created(epoch: int | None) -> str:
    """The creation time that the image states: `epoch`, otherwise now."""
    import time

    return rfc3339(time.time() if epoch is None else epoch)


def _export_image(
    image: BuiltImage,
    spec: OutputSpec,
    content: Content,
    fetch: Callable[[Layer], Layer],
    epoch: int | None,
    registry: Registry | None,
) -> Exported:
    kinds: dict[str, dict[str, str]] = {"manifest": dict(image.annotations)}
    for annotation in spec.annotations:
        kinds.setdefault(annotation.kind, {})[annotation.key] = annotation.value
    image = evolve(image, annotations=tuple(sorted(kinds["manifest"].items())))
    notes = kinds.get("manifest-descriptor", {})
    into_directory = spec.dest is not None and not spec.tar
    with _workspace(spec) as workspace:
        layers = _Layers(image, spec, content, fetch, epoch, workspace)
        written = [layers.write(number) for number in range(len(image.layers))]
        done = assemble(image, [w.descriptor for w in written], [w.diff_id for w in written])
        docker = spec.type == "docker"
        if spec.type == "registry":
            push(image, done, written, registry or _client(image, spec))
        elif spec.dest is None:
            load(image, done, written, notes)
        elif into_directory:
            write_layout(str(spec.dest), image, done, written, notes, docker=docker)
        else:
            with atomic_file(spec.dest) as out:
                write_archive(out, image, done, written, notes, docker=docker)
    return Exported(
        type=spec.type,
        dest=spec.dest,
        config_digest=done.config.digest,
        manifest_digest=done.written()[0].digest,
        manifest=done.written()[0],
        names=tuple(map(str, image.references())),
    )


def _client(image: BuiltImage, spec: OutputSpec) -> Registry:
    from layercache.images.registry import Registry
    from layercache.oci.transport import Transport

    hosts = {reference.domain for reference in image.references()} if spec.insecure else ()
    return Registry(Transport(insecure=hosts))


class _Layers:
    """Converts each layer to the form in which it is written."""

    def __init__(
        self,
        image: BuiltImage,
        spec: OutputSpec,
        content: Content,
        fetch: Callable[[Layer], Layer],
        epoch: int | None,
        workspace: str,
    ) -> None:
        self._image = image
        self._spec = spec
        self._content = content
        self._fetch = fetch
        self._epoch = epoch if spec.rewrite_timestamp else None
        if spec.rewrite_timestamp and epoch is None:
            raise UsageError("--output: rewrite-timestamp needs SOURCE_DATE_EPOCH")
        self._workspace = workspace
        pushed = spec.type == "registry"
        self._kind = spec.compression or ("gzip" if pushed else "uncompressed")

    def write(self, number: int) -> Written:
        layer = self._image.layers[number]
        base = self._image.base
        own = base is None or number >= len(base.layers)
        rewritten = own and self._epoch is not None
        if not own and not self._spec.force_compression:
            original = self._original(number)
            if original is not None:
                return original
        if self._kind == "uncompressed" and not rewritten:
            size = self._size(layer)
            descriptor = Descriptor(LAYER_TAR, Digest(layer.archive), size)
            return Written(descriptor, layer.archive, lambda: self._open(layer))
        if not rewritten:
            return self._converted(self._chunks(layer), layer.archive, self._kind)
        plain = self._converted(self._clamped(layer), layer.archive, "uncompressed")
        diff_id = DiffID(plain.descriptor.digest)
        if self._kind == "uncompressed":
            return evolve(plain, diff_id=diff_id)
        with plain.open() as stream:
            return self._converted(_chunks(stream), diff_id, self._kind)

    def _original(self, number: int) -> Written | None:
        """The base image's own bytes, if they have the requested form."""
        base = self._image.base
        if base is None or base.source is None:
            return None
        descriptor, source = base.originals[number], base.source
        diff_id = base.layers[number].archive
        if descriptor.media_type != MEDIA_TYPES[self._kind] or descriptor.size < 0:
            return None
        if self._kind == "uncompressed":
            return None  # these layers are in the store, or are stored now
        pushed = self._spec.type == "registry"

        def opened() -> BinaryIO:
            stream = source.open(descriptor)
            what = f"layer {descriptor.digest}"
            return cast(BinaryIO, Checked(stream, descriptor.digest, descriptor.size, what=what))

        if pushed:
            return Written(descriptor, diff_id, opened, origin=source)
        try:
            with opened() as stream:
                done = self._converted(_chunks(stream), diff_id, "uncompressed")
        except SourceError:
            return None  # no longer available: compressed anew
        return evolve(done, descriptor=descriptor)

    def _open(self, layer: Layer) -> BinaryIO:
        digest = Digest(layer.archive)
        try:
            return self._content.open(digest)
        except CacheError:
            self._fetch(layer)
            return self._content.open(digest)

    def _size(self, layer: Layer) -> int:
        size = layer.descriptor.size
        return size if size >= 0 else self._fetch(layer).descriptor.size

    def _chunks(self, layer: Layer) -> Iterator[bytes]:
        with self._open(layer) as stream:
            yield from _chunks(stream)

    def _clamped(self, layer: Layer) -> Iterator[bytes]:
        from layercache.images.rewrite_times import clamped

        assert self._epoch is not None
        with self._open(layer) as stream:
            yield from clamped(stream, self._epoch)

    def _converted(self, chunks: Iterator[bytes], diff_id: DiffID, kind: str) -> Written:
        import tempfile

        with tempfile.NamedTemporaryFile(dir=self._workspace, delete=False) as out:
            descriptor = write_compressed(chunks, cast(BinaryIO, out), kind, self._spec.level)
        path = out.name
        return Written(descriptor, diff_id, lambda: open(path, "rb"))


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(CHUNK), b"")


@contextlib.contextmanager
def _workspace(spec: OutputSpec) -> Iterator[str]:
    """A directory for compressed files; if possible, on the file system of the output."""
    import tempfile

    if spec.dest is None or spec.dest == "-":
        where = None
    else:
        where = os.path.dirname(os.path.abspath(spec.dest))
        os.makedirs(where, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".layercache-export-", dir=where) as path:
        yield path
