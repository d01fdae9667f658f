"""Files that hold images: an OCI layout (directory or archive), and `docker save` archives."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, Protocol, cast

from layercache._base.classes import evolve, frozen
from layercache.errors import HostileArchive, SourceError, UsageError
from layercache.images.archives import ArchiveFile
from layercache.layers.compression import LONGEST, compression_of, decompressed
from layercache.model.descriptors import LAYER_TAR, Descriptor
from layercache.model.digests import DiffID, Digest, sha256
from layercache.oci.manifests import (
    CONFIG,
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Index,
    IndexEntry,
    Manifest,
    decode,
    diff_ids,
    read_blob,
    select,
)
from layercache.oci.platforms import Platform
from layercache.oci.references import Reference
from layercache.oci.streams import read_bounded

__all__ = ["FoundImage", "ImageFile", "find_in_manifest", "open_images"]

_REF_NAME: Final = "org.opencontainers.image.ref.name"
_IMAGE_NAME: Final = "io.containerd.image.name"
_HEX: Final = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?", re.ASCII)


@frozen
class FoundImage:
    """An image in a file or registry: its digest, manifest, configuration, layers' diff IDs.

    `digest` is that of the manifest; for an archive without manifests that of the configuration,
    which Docker calls the image's ID.
    """

    digest: Digest
    manifest: Manifest
    config: Mapping[str, Any]
    diff_ids: tuple[DiffID, ...]


class ImageFile(Protocol):
    """A file or directory that holds images. Close it when no more layers are needed."""

    def find(self, name: str | None, digest: Digest | None, platform: Platform) -> FoundImage:
        """The image with this name, or the only one. Raises `SourceError` or `HostileArchive`."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A blob's bytes, not yet checked. Raises `SourceError` if it is missing."""

    def close(self) -> None: ...


def open_images(path: str) -> ImageFile:
    """The images at `path`: an OCI layout, as directory or tar, or a `docker save` archive.

    Archives may be compressed with gzip or zstd. Raises `SourceError`, `HostileArchive`.
    """
    if os.path.isdir(path):
        return _Layout(_Directory(path), path)
    try:
        file: BinaryIO = open(path, "rb")  # noqa: SIM115 - handed on
    except OSError as error:
        raise SourceError(f"can't open the images in {path}: {error.strerror}") from error
    archive = ArchiveFile(_plain(file, path), path)
    try:
        if "oci-layout" in archive and "index.json" in archive:
            return _Layout(_Archive(archive), path)
        if "manifest.json" in archive:
            return _Saved(archive, path)
        raise SourceError(
            f"{path} holds no images: it has neither oci-layout and index.json nor manifest.json"
        )
    except BaseException:
        archive.close()
        raise


def _plain(file: BinaryIO, path: str) -> BinaryIO:
    """`file`, decompressed into an unnamed temporary file if it is compressed."""
    try:
        head = file.read(LONGEST)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    if compression_of(head) is None:
        return file
    import shutil
    import tempfile

    with file, decompressed(file, what=path) as stream:
        plain = tempfile.TemporaryFile()  # noqa: SIM115 - handed on
        try:
            shutil.copyfileobj(stream, plain, 1 << 20)
        except BaseException:
            plain.close()
            raise
    return cast(BinaryIO, plain)


# -- OCI layout ---------------------------------------------------------------------------------


class _Members(Protocol):
    """The files of a layout by name: in a directory, or in an archive."""

    def member(self, name: str) -> tuple[BinaryIO, int] | None: ...

    def close(self) -> None: ...


class _Directory:
    """Opens files below one directory, through no symbolic link, and regular files only."""

    def __init__(self, path: str) -> None:
        self._path = path

    def member(self, name: str) -> tuple[BinaryIO, int] | None:
        where = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            *parents, last = name.split("/")
            for parent in parents:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                below = os.open(parent, flags, dir_fd=where)
                os.close(where)
                where = below
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(last, flags, dir_fd=where)
        except FileNotFoundError:
            return None
        except OSError as error:
            import errno

            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise HostileArchive(
                    f"{self._path}: {name} is, or is below, something other than a file or a "
                    "directory (a symbolic link?); links are not followed there"
                ) from error
            raise SourceError(f"can't read {self._path}/{name}: {error.strerror}") from error
        finally:
            os.close(where)
        import stat

        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            os.close(descriptor)
            raise HostileArchive(f"{self._path}: {name} is not a regular file")
        return open(descriptor, "rb"), info.st_size

    def close(self) -> None:
        return None


class _Archive:
    def __init__(self, archive: ArchiveFile) -> None:
        self._archive = archive

    def member(self, name: str) -> tuple[BinaryIO, int] | None:
        return self._archive.open(name)

    def close(self) -> None:
        self._archive.close()


class _Layout:
    """An OCI image layout (OCI image specification, image-layout.md)."""

    def __init__(self, members: _Members, path: str) -> None:
        self._members = members
        self._path = path

    def find(self, name: str | None, digest: Digest | None, platform: Platform) -> FoundImage:
        if "imageLayoutVersion" not in self._json("oci-layout"):
            raise SourceError(
                f"{self._path} is not an OCI layout: its oci-layout file has no version"
            )
        member = self._members.member("index.json")
        if member is None:
            raise SourceError(f"{self._path} is not an OCI layout: it has no index.json")
        what = f"{self._path}/index.json"
        index = Index.from_json(read_bounded(member[0], MANIFEST_LIMIT, what=what), what=what)
        images = [entry for entry in index.entries if entry.image]
        if digest is not None:
            images = [entry for entry in images if entry.descriptor.digest == digest]
            if not images and (entry := self._by_digest(digest)):
                images = [entry]
        elif name is not None:
            images = _named(images, name, self._path)
        else:
            images = _unnamed(images, self._path)
        if not images:
            known = sorted({min(_names(e), key=len) for e in index.entries if _names(e)})
            raise SourceError(
                f"{self._path} holds no image {digest or name or ''}".rstrip()
                + (f"; it holds {', '.join(known)}" if known else "")
            )
        what = f"{self._path}{f':{name}' if name else ''}"
        if len(images) == 1:  # a single image is taken, whatever its platform
            images = [evolve(images[0], platform=None)]
        chosen, data = select(self, images, platform, what=what)
        return find_in_manifest(self, chosen.digest, data, what=what)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        algorithm, _, digits = descriptor.digest.partition(":")
        member = self._members.member(f"blobs/{algorithm}/{digits}")
        if member is None:
            raise SourceError(
                f"{self._path} is not complete: the blob {descriptor.digest} is missing"
            )
        return member[0]

    def close(self) -> None:
        self._members.close()

    def _by_digest(self, digest: Digest) -> IndexEntry | None:
        """A manifest that no entry of the index names directly, e.g. one within another index."""
        member = self._members.member(f"blobs/sha256/{digest.partition(':')[2]}")
        if member is None:
            return None
        stream, size = member
        data = read_bounded(stream, MANIFEST_LIMIT, what=f"manifest {digest}")
        media_type = decode(data, what=f"manifest {digest}").get("mediaType")
        if not isinstance(media_type, str):
            return None
        return IndexEntry(Descriptor(media_type, digest, size))

    def _json(self, name: str) -> Mapping[str, Any]:
        member = self._members.member(name)
        if member is None:
            raise SourceError(f"{self._path} is not an OCI layout: it has no {name}")
        what = f"{self._path}/{name}"
        return decode(read_bounded(member[0], MANIFEST_LIMIT, what=what), what=what)


def find_in_manifest(
    source: ImageFile | Any, digest: Digest, data: bytes, *, what: str
) -> FoundImage:
    """The image that the manifest in `data` describes, with its configuration read and checked."""
    manifest = Manifest.from_json(data, what=f"manifest of {what}")
    name = f"configuration of {what}"
    config = decode(read_blob(source, manifest.config, CONFIG_LIMIT, what=name), what=name)
    return FoundImage(digest, manifest, config, diff_ids(config, len(manifest.layers), what=name))


def _names(entry: IndexEntry) -> frozenset[str]:
    """Every name of an entry: as annotated, complete, and its tag alone."""
    found: set[str] = set()
    annotations = dict(entry.annotations)
    for key in (_REF_NAME, _IMAGE_NAME):
        if text := annotations.get(key):
            found |= {text} | _spellings(text if key == _IMAGE_NAME or "/" in text else "")
    return frozenset(found)


def _spellings(text: str) -> set[str]:
    try:
        reference = Reference.parse(text).tagged()
    except UsageError:
        return set()
    found = {str(reference), reference.familiar}
    return found | ({reference.tag} if reference.tag else set())


def _named(images: Sequence[IndexEntry], name: str, path: str) -> list[IndexEntry]:
    """The entries with this name; a tag alone must not match two different images."""
    found = [entry for entry in images if name in _names(entry)]
    groups = {dict(entry.annotations).get(_IMAGE_NAME) for entry in found}
    digests = {(entry.descriptor.digest, entry.platform) for entry in found}
    if len(groups) > 1 and len(digests) > len({platform for _, platform in digests}):
        known = ", ".join(sorted(filter(None, groups)))
        raise SourceError(f"{path}: {name!r} names several images; give one of {known}")
    return found


def _unnamed(images: Sequence[IndexEntry], path: str) -> list[IndexEntry]:
    """The default image: all entries if they are one image, otherwise `latest`."""
    groups = {_names(entry) for entry in images}
    if len(groups) > 1:
        latest = [entry for entry in images if "latest" in _names(entry)]
        if not latest:
            known = sorted(min(group, key=len) for group in groups if group)
            raise SourceError(
                f"{path} holds several images and none is tagged latest; "
                f"name one of {', '.join(known)} (as {path}:NAME)"
            )
        return latest
    return list(images)


# -- docker save --------------------------------------------------------------------------------


class _Saved:
    """The archive of `docker save` before it held an OCI layout: manifest.json and layers."""

    def __init__(self, archive: ArchiveFile, path: str) -> None:
        self._archive = archive
        self._path = path
        self._layers: dict[Digest, str] = {}

    def find(self, name: str | None, digest: Digest | None, platform: Platform) -> FoundImage:
        images = self._images()
        if digest is not None:
            chosen = [image for image in images if sha256(self._read(image["Config"])) == digest]
        elif name is not None:
            chosen = [image for image in images if name in _tags(image)]
        else:
            chosen = images if len(images) == 1 else [i for i in images if "latest" in _tags(i)]
        if not chosen:
            known = sorted(tag for image in images for tag in image["RepoTags"])
            raise SourceError(
                f"{self._path} holds no image {digest or name or 'tagged latest'}; "
                f"it holds {', '.join(known) or 'images without names'}"
            )
        return self._found(chosen[0])

    def _found(self, image: Mapping[str, Any]) -> FoundImage:
        what = f"{self._path}: {image['Config']}"
        data = self._read(image["Config"])
        digest = sha256(data)
        named = _HEX.fullmatch(image["Config"])
        if named and named[1] != digest.partition(":")[2]:
            raise HostileArchive(f"{what}: its digest is {digest}; the archive is damaged")
        config = decode(data, what=what)
        stack = diff_ids(config, len(image["Layers"]), what=what)
        layers = []
        for diff_id, name in zip(stack, image["Layers"], strict=True):
            member = self._archive.open(name)
            if member is None:
                raise SourceError(f"{self._path} is not complete: {name} is missing")
            with member[0] as stream:
                packed = compression_of(stream.read(LONGEST)) is not None
            self._layers[Digest(diff_id)] = name
            layers.append(Descriptor(LAYER_TAR, Digest(diff_id), -1 if packed else member[1]))
        manifest = Manifest(Descriptor(CONFIG, digest, len(data)), tuple(layers))
        return FoundImage(digest, manifest, config, stack)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        name = self._layers.get(descriptor.digest)
        member = self._archive.open(name) if name is not None else None
        if member is None:
            raise SourceError(f"{self._path}: the layer {descriptor.digest} is missing")
        return decompressed(member[0], what=f"{self._path}: {name}")

    def close(self) -> None:
        self._archive.close()

    def _read(self, name: str) -> bytes:
        member = self._archive.open(name)
        if member is None:
            raise SourceError(f"{self._path} is not complete: {name} is missing")
        return read_bounded(member[0], CONFIG_LIMIT, what=f"{self._path}: {name}")

    def _images(self) -> list[dict[str, Any]]:
        import json

        what = f"{self._path}: manifest.json"
        try:
            value = json.loads(self._read("manifest.json"))
        except (ValueError, RecursionError) as error:
            raise HostileArchive(f"{what}: not JSON ({error})") from error
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise HostileArchive(f"{what}: not a list of objects")
        for item in value:
            item["RepoTags"] = item.get("RepoTags") or []
            item["Layers"] = item.get("Layers") or []
            texts = [item.get("Config"), *item["RepoTags"], *item["Layers"]]
            if not all(isinstance(text, str) and text for text in texts):
                raise HostileArchive(f"{what}: Config, RepoTags or Layers is of a wrong type")
        return value


def _tags(image: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for text in image["RepoTags"]:
        found |= {text} | _spellings(text)
    return found
