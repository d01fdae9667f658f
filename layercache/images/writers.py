"""The written forms of an image: layout, archive, `docker load`, push."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache._base.classes import frozen
from layercache._os.durability import sync_directory
from layercache.errors import HostileArchive, SourceError, UsageError
from layercache.images.atomic_files import UNFINISHED, atomic_file
from layercache.images.built import Assembled, BuiltImage
from layercache.model.descriptors import Descriptor
from layercache.model.digests import DiffID, Digest
from layercache.oci.encoding import descriptor_to_json, encode
from layercache.oci.manifests import INDEX, MANIFEST_LIMIT, decode
from layercache.oci.streams import CHUNK

if TYPE_CHECKING:
    from layercache.images.registry import Registry

__all__ = ["Written", "load", "push", "write_archive", "write_layout"]

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_IMAGE_NAME: Final = "io.containerd.image.name"

_Blob = tuple[Descriptor, Callable[[], BinaryIO]]


@frozen
class Written:
    """A layer as it is written: its descriptor, its diff ID, and how to open it."""

    descriptor: Descriptor
    diff_id: DiffID
    open: Callable[[], BinaryIO]
    origin: object = None
    """The origin of the base image's blob, if these are its original bytes."""


def _opener(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)


def _blobs(done: Assembled, layers: Sequence[Written]) -> dict[Digest, _Blob]:
    """All blobs of the image, each once, sorted by digest."""
    manifest, data = done.written()
    found: dict[Digest, _Blob] = {w.descriptor.digest: (w.descriptor, w.open) for w in layers}
    found[done.config.digest] = (done.config, _opener(done.config_bytes))
    found[manifest.digest] = (manifest, _opener(data))
    return dict(sorted(found.items()))


def _entries(image: BuiltImage, done: Assembled, notes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The entries of the index: one for each name, or one without a name."""
    platform = {"architecture": image.config.architecture, "os": image.config.os}
    if image.config.variant:
        platform["variant"] = image.config.variant
    if image.config.os_version:
        platform["os.version"] = image.config.os_version
    found = []
    for reference in image.references() or (None,):
        entry = descriptor_to_json(done.written()[0])
        annotations = dict(notes)
        if reference is not None:
            annotations[_IMAGE_NAME] = str(reference)
            annotations[_REF_NAME] = str(reference.tag)
        if annotations:
            entry["annotations"] = dict(sorted(annotations.items()))
        if all(platform.values()):
            entry["platform"] = platform
        found.append(entry)
    return found


def _index(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)})


def _saved(image: BuiltImage, done: Assembled, layers: Sequence[Written]) -> bytes:
    """The manifest.json that `docker load` reads."""
    config = done.config.digest.partition(":")[2]
    entry = {
        "Config": f"blobs/sha256/{config}",
        "RepoTags": [reference.familiar for reference in image.references()] or None,
        "Layers": [f"blobs/sha256/{layer.descriptor.digest.partition(':')[2]}" for layer in layers],
    }
    return json.dumps([entry], separators=(",", ":")).encode()


def write_archive(
    out: BinaryIO,
    image: BuiltImage,
    done: Assembled,
    layers: Sequence[Written],
    notes: Mapping[str, str],
    *,
    docker: bool,
) -> None:
    """One tar: an OCI layout that `docker load` also understands if `docker` is set."""
    from layercache.layers.writer import LayerWriter
    from layercache.model.tree import Node

    writer = LayerWriter(out)

    def add(name: str, size: int, content: BinaryIO | bytes) -> None:
        writer.add(name.encode(), Node(mode=stat.S_IFREG | 0o644, size=size), content)

    for name in ("blobs", "blobs/sha256"):
        writer.add(name.encode(), Node(mode=stat.S_IFDIR | 0o755))
    for digest, (descriptor, opened) in _blobs(done, layers).items():
        with opened() as content:
            add(f"blobs/sha256/{digest.partition(':')[2]}", descriptor.size, content)
    index = _index(_entries(image, done, notes))
    add("index.json", len(index), index)
    if docker:
        saved = _saved(image, done, layers)
        add("manifest.json", len(saved), saved)
    add("oci-layout", len(_LAYOUT), _LAYOUT)
    writer.finish()


def write_layout(
    path: str,
    image: BuiltImage,
    done: Assembled,
    layers: Sequence[Written],
    notes: Mapping[str, str],
    *,
    docker: bool,
) -> None:
    """Add the image to the OCI layout in the directory `path`, which is created if necessary.

    Images of other names stay; one with the same name, or without a name, is replaced in the
    index. Blobs come first, the index last. Raises `UsageError` for a directory that holds
    something else.
    """
    os.makedirs(path, exist_ok=True)
    _take(path)
    blobs = os.path.join(path, "blobs", "sha256")
    for folder in (os.path.dirname(blobs), blobs):
        if os.path.islink(folder):
            raise UsageError(
                f"{folder} is a symbolic link, and an output is never written through one; "
                "give the directory itself"
            )
    os.makedirs(blobs, exist_ok=True)
    for digest, (descriptor, opened) in _blobs(done, layers).items():
        target = os.path.join(blobs, digest.partition(":")[2])
        if not _holds(target, descriptor):
            with opened() as content, atomic_file(target, follow=False) as out:
                while data := content.read(CHUNK):
                    out.write(data)
    sync_directory(blobs)
    with _locked(path):
        entries = _entries(image, done, notes)
        index = _index([*_others(path, entries), *entries])
        files = {"index.json": index}
        if docker:
            files["manifest.json"] = _saved(image, done, layers)
        for name, data in files.items():
            with atomic_file(os.path.join(path, name), follow=False) as out:
                out.write(data)


def _take(path: str) -> None:
    """Mark the directory as a layout, unless it is one or holds something else."""
    marker = os.path.join(path, "oci-layout")
    if os.path.exists(marker):
        return
    others = [name for name in os.listdir(path) if not name.startswith(UNFINISHED)]
    if others and others != ["blobs"]:  # an interrupted export of an earlier version
        raise UsageError(f"the output directory {path} is neither empty nor an OCI layout")
    with atomic_file(marker, follow=False) as out:
        out.write(_LAYOUT)


def _holds(path: str, descriptor: Descriptor) -> bool:
    """Whether the file exists and is intact; a damaged one is written again."""
    import hashlib

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

    try:
        with open(path, "rb", opener=opener) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size != descriptor.size:
                return False
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False  # absent, unreadable, or a link: writing it will report the error
    return descriptor.digest == f"sha256:{found}"


class _locked:
    """Keep concurrent exports out of the index of the same layout."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> None:
        import fcntl

        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)


def _others(path: str, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries of the existing index that the new ones do not replace."""
    try:
        with open(os.path.join(path, "index.json"), "rb") as file:
            data = file.read(MANIFEST_LIMIT + 1)
    except FileNotFoundError:
        return []
    if len(data) > MANIFEST_LIMIT:
        raise HostileArchive(f"{path}/index.json is larger than any index of images")
    index = decode(data, what=f"{path}/index.json")
    known = index.get("manifests")
    if not isinstance(known, list) or not all(isinstance(entry, dict) for entry in known):
        raise HostileArchive(f"{path}/index.json: 'manifests' is not a list of objects")
    replaced = {_identity(entry) for entry in entries}
    return [entry for entry in known if _identity(entry) not in replaced]


def _identity(entry: Mapping[str, Any]) -> tuple[str | None, str]:
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        annotations = {}
    name = annotations.get(_IMAGE_NAME) or annotations.get(_REF_NAME)
    return name, json.dumps(entry.get("platform"), sort_keys=True)


def load(
    image: BuiltImage, done: Assembled, layers: Sequence[Written], notes: Mapping[str, str]
) -> None:
    """Load the image into the local engine: `docker load`, or `podman load`.

    Raises `UsageError` if neither is installed, `SourceError` if loading fails.
    """
    import shutil
    import subprocess
    import tempfile

    program = shutil.which("docker") or shutil.which("podman")
    if program is None:
        raise UsageError(
            "neither docker nor podman is here to load the image into; "
            "write an archive instead: --output type=docker,dest=PATH"
        )
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [program, "load"], stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT
        )
        assert process.stdin is not None
        broken = False
        try:
            with process.stdin as pipe:
                write_archive(cast(BinaryIO, pipe), image, done, layers, notes, docker=True)
        except BrokenPipeError:
            broken = True
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait() or broken:
            said.seek(0)
            text = said.read(2000).decode("utf-8", "replace").strip()
            raise SourceError(f"{os.path.basename(program)} load failed: {text}")


def push(image: BuiltImage, done: Assembled, layers: Sequence[Written], client: Registry) -> None:
    """Push under every name. Raises `UsageError` without a name, `SourceError` if refused."""
    from layercache.images.registry import RegistryBlobs

    if not image.names:
        raise UsageError("a push needs a name: give -t REGISTRY/NAME:TAG")
    blobs = [
        (
            layer.descriptor,
            layer.open,
            layer.origin if isinstance(layer.origin, RegistryBlobs) else None,
        )
        for layer in layers
    ]
    config = (done.config, _opener(done.config_bytes), None)
    client.push(image.references(), done.written(), [*blobs, config])
