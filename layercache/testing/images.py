"""Images for tests: OCI layouts of any layers, and a busybox base image made locally."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from layercache._base.classes import frozen
from layercache.model.digests import DiffID, Digest, sha256

__all__ = ["MadeImage", "busybox_layer", "make_layout", "tar_of"]

_OCI: Final = "application/vnd.oci.image"
_LINKS: Final = """
[ [[ ash awk base64 basename cat chgrp chmod chown cmp cp cut date dd diff dirname du
echo env expr false find grep gunzip gzip head hostname id install ln ls md5sum mkdir
mkfifo mknod mktemp mount mv nproc od pidof printf ps pwd readlink realpath rm rmdir
sed seq sh sha256sum sleep sort stat su sync tail tar tee test touch tr true truncate
tty umount uname uniq unlink vi wc wget which whoami xargs yes zcat
"""


@frozen
class MadeImage:
    """The result of `make_layout`: digests of the manifest and configuration, and diff IDs."""

    manifest: Digest
    config: Digest
    diff_ids: tuple[DiffID, ...]


def make_layout(
    directory: str | os.PathLike[str],
    layers: Sequence[bytes],
    config: Mapping[str, Any] | None = None,
    name: str | None = "latest",
    *,
    compress: bool = False,
    architecture: str | None = None,
    platform: Mapping[str, str] | None = None,
    history: Iterable[Mapping[str, Any]] = (),
) -> MadeImage:
    """Add an image of these layers (uncompressed tars) to the OCI layout in `directory`.

    `config` is the "config" object of the image configuration; `name` its tag (an image of the
    same name is replaced), `compress` stores the layers as gzip, `platform` goes into the
    index. The layout is made when it isn't there.
    """
    from layercache.oci.platforms import host_platform

    root = os.fspath(directory)
    os.makedirs(os.path.join(root, "blobs", "sha256"), exist_ok=True)
    with open(os.path.join(root, "oci-layout"), "w", encoding="utf-8") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    host = host_platform()
    diff_ids = tuple(DiffID(sha256(layer)) for layer in layers)
    image: dict[str, Any] = {
        "architecture": architecture or host.architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    if entries := list(history):
        image["history"] = entries
    stored = [gzip.compress(layer, 6, mtime=0) if compress else layer for layer in layers]
    media_type = f"{_OCI}.layer.v1.tar" + ("+gzip" if compress else "")
    config_descriptor = _blob(root, json.dumps(image).encode(), f"{_OCI}.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": config_descriptor,
        "layers": [_blob(root, data, media_type) for data in stored],
    }
    entry = _blob(root, json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
    entry["platform"] = dict(platform or {"os": "linux", "architecture": image["architecture"]})
    if name is not None:
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    index_path = os.path.join(root, "index.json")
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json"}
    index["manifests"] = []
    if os.path.exists(index_path):
        with open(index_path, encoding="utf-8") as file:
            index = json.load(file)
    index["manifests"] = [
        known
        for known in index["manifests"]
        if name is None
        or known.get("annotations", {}).get("org.opencontainers.image.ref.name") != name
        or known.get("platform") != entry["platform"]
    ] + [entry]
    with open(index_path, "w", encoding="utf-8") as file:
        json.dump(index, file)
    return MadeImage(Digest(entry["digest"]), Digest(config_descriptor["digest"]), diff_ids)


def _blob(root: str, data: bytes, media_type: str) -> dict[str, Any]:
    digits = hashlib.sha256(data).hexdigest()
    with open(os.path.join(root, "blobs", "sha256", digits), "wb") as file:
        file.write(data)
    return {"mediaType": media_type, "digest": f"sha256:{digits}", "size": len(data)}


def tar_of(files: Mapping[str, bytes | str | None], *, mode: int = 0o644) -> bytes:
    """A tar of these files: bytes are a file, text the target of a symbolic link, None a
    directory; sorted by name, owner 0:0, times 0."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, content, 0o777
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def busybox_layer(
    busybox: str | None = None, extra: Mapping[str, bytes | str | None] | None = None
) -> bytes | None:
    """A root file system of a static busybox as a layer; None if the program is not installed.

    It has the applets as links in /bin, /etc/passwd and /etc/group with root, app (1000) and
    other (1001), /tmp, /proc, /sys, /dev, and the files of `extra`.
    """
    import shutil

    path = busybox or shutil.which("busybox")
    if path is None:
        return None
    with open(path, "rb") as file:
        program = file.read()
    out = io.BytesIO()
    accounts = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"
        b"app:x:1000:1000:app:/home/app:/bin/sh\nother:x:1001:1001:other:/:/bin/sh\n",
        "etc/group": b"root:x:0:\napp:x:1000:\nother:x:1001:\n",
    }
    directories = dict.fromkeys(("bin", "dev", "etc", "proc", "root", "sys", "tmp"))
    links = {f"bin/{applet}": "busybox" for applet in _LINKS.split()}
    content = {**directories, **accounts, **links, **(extra or {}), "bin/busybox": program}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, value in sorted(content.items()):
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            if value is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                archive.addfile(info)
            elif isinstance(value, str):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, value, 0o777
                archive.addfile(info)
            else:
                info.mode = 0o755 if name.startswith("bin/") else 0o644
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
    return out.getvalue()
