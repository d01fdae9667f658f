"""What the tests of images share: a store, a build over a base, trees on disk, real tools."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from layercache.images.built import BuiltImage
from layercache.images.export import Exported, export
from layercache.images.output_spec import parse_output
from layercache.images.resolver import Images
from layercache.layers.reader import index_layer
from layercache.layers.state_tree import StateTree
from layercache.model.descriptors import LAYER_TAR, Layer
from layercache.model.digests import DiffID
from layercache.model.image_config import HistoryEntry
from layercache.model.tree import Tree
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from layercache.testing.images import busybox_layer, make_layout, tar_of

__all__ = [
    "add_layer",
    "base_layout",
    "build",
    "needs",
    "new_store",
    "run",
    "snapshot",
    "tree_of",
    "write",
]


def new_store() -> Store:
    """A store in memory."""
    return Store(MemoryBackend())


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program of the real world is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str | Path, timeout: int = 120, **env: str) -> str:
    """Run a program; its standard output. Fails the test with its errors."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def base_layout(directory: Path, *, compress: bool = True, name: str = "base") -> str:
    """An OCI layout with a base image of two layers; its name for `resolve`."""
    program = busybox_layer(extra={"keep/a": b"1", "keep/b": b"2"})
    first = program or tar_of({"bin": None, "keep": None, "keep/a": b"1", "keep/b": b"2"})
    second = tar_of({"etc": None, "etc/base": b"base", "keep": None, "keep/.wh.b": b""})
    config = {"Env": ["PATH=/bin", "BASE=1"], "Cmd": ["/bin/sh"], "Labels": {"base": "yes"}}
    make_layout(directory, [first, second], config, name, compress=compress)
    return f"oci-layout://{directory}:{name}"


def add_layer(store: Store, tar: bytes) -> Layer:
    """A layer of these bytes, put into the store."""
    descriptor = store.blobs.add(io.BytesIO(tar), LAYER_TAR)
    return Layer(descriptor, DiffID(descriptor.digest))


def build(
    store: Store,
    images: Images,
    base: str = "scratch",
    tars: Sequence[bytes] = (),
    names: Sequence[str] = (),
) -> BuiltImage:
    """An image on `base` with one COPY for each tar, a label and a command."""
    found = images.resolve(base)
    config = found.config.inherited().with_label("made", "here").with_cmd(["/bin/sh"])
    layers = [add_layer(store, tar) for tar in tars]
    history = [HistoryEntry.of(f"COPY {n} /", layer=True) for n in range(len(tars))]
    history.append(HistoryEntry.of('CMD ["/bin/sh"]'))
    return BuiltImage(
        config=config,
        layers=(*found.layers, *layers),
        base=found,
        history=tuple(history),
        names=tuple(names),
    )


def tree_of(store: Store, images: Images, image: BuiltImage) -> Tree:
    """The root file system of an image."""
    layers = [images.ensure(layer) for layer in image.layers]
    blobs = [store.blobs.read(layer.descriptor.digest) for layer in layers]
    return StateTree(
        [index_layer(io.BytesIO(blob)) for blob in blobs],
        lambda number, offset, size: io.BytesIO(blobs[number][offset : offset + size]),
    )


def write(
    store: Store,
    images: Images,
    image: BuiltImage,
    output: str,
    epoch: int | None = None,
) -> Exported:
    """Export as `--output` would."""
    return export(
        image,
        parse_output(output),
        content=store.blobs,
        fetch=images.ensure,
        tree=lambda: tree_of(store, images, image),
        epoch=epoch,
    )


@attrs.frozen
class Seen:
    """What a path on disk is: type and mode, owner, mtime in seconds, content or target."""

    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes


def snapshot(root: Path, *, owners: bool = False) -> dict[str, Seen]:
    """Every path below a directory."""
    found = {}
    for where, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(where, name)
            info = path.lstat()
            content = b""
            if stat.S_ISLNK(info.st_mode):
                content = os.fsencode(os.readlink(path))
            elif stat.S_ISREG(info.st_mode):
                content = path.read_bytes()
            found[str(path.relative_to(root))] = Seen(
                info.st_mode,
                (info.st_uid, info.st_gid) if owners else (0, 0),
                int(info.st_mtime),
                content,
            )
    return found
