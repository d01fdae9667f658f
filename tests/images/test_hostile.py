"""Layouts and archives that lie, lead astray or never end are refused, and nothing is stored."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layercache.errors import HostileArchive, LayerCacheError, SourceError
from layercache.images.resolver import Images
from layercache.model.digests import sha256
from layercache.oci.manifests import INDEX, encode
from layercache.testing.images import MadeImage, make_layout, tar_of
from tests.images.support import new_store

LAYER = tar_of({"a": b"content"})


@pytest.fixture
def layout(tmp_path: Path) -> tuple[Path, MadeImage]:
    path = tmp_path / "layout"
    return path, make_layout(path, [LAYER], {}, "x")


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.partition(":")[2]


def read(layout: Path, platform: str | None = None, name: str = "") -> None:
    """Resolve and read everything."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        for layer in images.resolve(f"oci-layout://{layout}{name}", platform).layers:
            images.ensure(layer)


def put(layout: Path, data: bytes) -> dict[str, Any]:
    digest = sha256(data)
    blob(layout, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def change(layout: Path, made: MadeImage, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the manifest, with digests that are right again."""
    manifest = json.loads(blob(layout, made.manifest).read_bytes())
    edit(manifest)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0] |= put(layout, json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps(index))


def test_the_layout_is_good_to_begin_with(layout: tuple[Path, MadeImage]) -> None:
    """The control: untouched, it is read."""
    read(layout[0])


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_bytes_that_are_not_their_digest(
    layout: tuple[Path, MadeImage], which: str, damage: str
) -> None:
    """Every blob is checked by size and digest."""
    path, made = layout
    target = blob(path, {"layer": made.diff_ids[0]}.get(which) or getattr(made, which))
    data = target.read_bytes()
    damaged = {
        "flip": data[:-1] + bytes([data[-1] ^ 1]),
        "cut": data[:-1],
        "grow": data + b"x",
        "empty": b"",
    }
    target.write_bytes(damaged[damage])
    with pytest.raises(HostileArchive):
        read(path)


@pytest.mark.parametrize("size", [0, 1, 10**15, -1, "5", None, 1.5, True, 1 << 70])
def test_sizes_that_lie(layout: tuple[Path, MadeImage], size: object) -> None:
    """A size that is wrong, or none, is refused, for the layer and for the configuration."""
    path, made = layout
    for edit in (
        lambda m: m["layers"][0].update(size=size),
        lambda m: m["config"].update(size=size),
    ):
        change(path, made, edit)
        with pytest.raises(HostileArchive):
            read(path)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "../x",
        "sha256:" + "g" * 64,
        "sha256:" + "A" * 64,
        "",
        None,
        "sha256:" + "0" * 63,
        "sha512:" + "0" * 128,
        "sha256:" + "0" * 64 + "\n",
        5,
    ],
)
def test_digests_that_are_none(layout: tuple[Path, MadeImage], digest: object) -> None:
    """A digest is 64 hexadecimal digits: it can't lead out of the layout."""
    path, made = layout
    change(path, made, lambda m: m["layers"][0].update(digest=digest))
    with pytest.raises(HostileArchive):
        read(path)


def test_uncompressed_layer_that_is_not_its_diff_id(tmp_path: Path) -> None:
    """The uncompressed tar must be what the configuration says, not only the compressed blob."""
    path = tmp_path / "layout"
    made = make_layout(path, [LAYER], {}, "x", compress=True)
    other = gzip.compress(tar_of({"a": b"another"}))
    change(path, made, lambda m: m["layers"][0].update(put(path, other)))
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        layer = images.resolve(f"oci-layout://{path}").layers[0]
        with pytest.raises(HostileArchive, match="diff ID"):
            images.ensure(layer)
    assert not list(store.backend.list("blobs/"))


@pytest.mark.parametrize("how", ["cut", "garbage", "trailing"])
def test_damaged_compression(tmp_path: Path, how: str) -> None:
    """Compressed data that ends early, is damaged, or is followed by something else."""
    path = tmp_path / "layout"
    made = make_layout(path, [LAYER], {}, "x", compress=True)
    data = gzip.compress(LAYER)
    bad = {"cut": data[:-9], "garbage": data[:20] + b"\xff" * 40, "trailing": data + b"junk"}
    change(path, made, lambda m: m["layers"][0].update(put(path, bad[how])))
    with pytest.raises(HostileArchive):
        read(path)


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_layers(layout: tuple[Path, MadeImage], count: int) -> None:
    """Manifest and configuration must agree on the layers."""
    path, made = layout
    change(path, made, lambda m: m.update(layers=m["layers"] * count))
    with pytest.raises(HostileArchive, match="layers"):
        read(path)


@pytest.mark.parametrize("what", ["link", "directory", "fifo", "parent"])
def test_blobs_that_are_no_files(layout: tuple[Path, MadeImage], tmp_path: Path, what: str) -> None:
    """No link is followed within a layout, and nothing but a regular file is opened."""
    path, made = layout
    target = blob(path, made.config)
    outside = tmp_path / "outside"
    outside.write_bytes(target.read_bytes())
    if what == "parent":
        os.rename(path / "blobs", tmp_path / "elsewhere")
        (path / "blobs").symlink_to(tmp_path / "elsewhere")
    else:
        target.unlink()
        if what == "link":
            target.symlink_to(outside)
        elif what == "directory":
            target.mkdir()
        else:
            os.mkfifo(target)
    with pytest.raises(HostileArchive):
        read(path)


def test_missing_blob(layout: tuple[Path, MadeImage]) -> None:
    """An incomplete layout is said to be that."""
    path, made = layout
    blob(path, made.diff_ids[0]).unlink()
    with pytest.raises(SourceError, match="missing"):
        read(path)


def test_indexes_nested_without_end(layout: tuple[Path, MadeImage]) -> None:
    """Indexes within indexes are followed a few deep, not for ever."""
    path, _ = layout
    index = (path / "index.json").read_bytes()
    for depth in range(20):
        entry = {"mediaType": INDEX, **put(path, index)}
        index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        (path / "index.json").write_bytes(index)
        if depth < 5:
            read(path)
    with pytest.raises(HostileArchive, match="nested"):
        read(path)


def test_index_that_holds_itself(layout: tuple[Path, MadeImage]) -> None:
    """A circle needs a digest that lies, and that is found."""
    path, _ = layout
    entry = {"mediaType": INDEX, "digest": "sha256:" + "1" * 64}
    data = b'{"schemaVersion":2,"manifests":[]}'
    for _ in range(3):
        data = json.dumps({"manifests": [{**entry, "size": len(data)}]}).encode()
    blob(path, "sha256:" + "1" * 64).write_bytes(data)
    index = {"manifests": [{**entry, "size": len(data)}]}
    (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(HostileArchive, match="digest"):
        read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b"[" * 200000,
        b'{"manifests": 5}',
        b'{"manifests": [5]}',
        b'{"manifests": [{}]}',
        b'{"manifests": [{"mediaType": "x", "digest": "y", "size": 1}]}',
        b'{"manifests":[' + b"{}," * 20000 + b"{}]}",
        b" " * (5 << 20),
        b"\xff\xfe",
        b"1" * 5000,
    ],
)
def test_indexes_that_are_none(layout: tuple[Path, MadeImage], data: bytes) -> None:
    """JSON that is damaged, of wrong types, too deep or too long ends in a clear error."""
    (layout[0] / "index.json").write_bytes(data)
    with pytest.raises(HostileArchive):
        read(layout[0])


def test_huge_manifest(layout: tuple[Path, MadeImage]) -> None:
    """A manifest is bounded, whatever its descriptor says."""
    path, made = layout
    change(path, made, lambda m: m.update(annotations={"a": "x" * (5 << 20)}))
    with pytest.raises(HostileArchive, match="more than"):
        read(path)


def test_no_image_for_this_platform(tmp_path: Path) -> None:
    """Among several platforms the fitting one is taken; where there is none, that is said."""
    path = tmp_path / "layout"
    platforms = ("linux/amd64", "linux/arm64", "linux/arm/v6")
    for text in platforms:
        os_name, arch, *variant = text.split("/")
        platform = {
            "os": os_name,
            "architecture": arch,
            **({"variant": variant[0]} if variant else {}),
        }
        make_layout(
            path, [tar_of({"p": text.encode()})], {}, "x", architecture=arch, platform=platform
        )
    with Images(new_store().blobs) as images:
        states = {p: images.resolve(f"oci-layout://{path}:x", p).state for p in platforms}
        assert len(set(states.values())) == 3
        older = images.resolve(f"oci-layout://{path}:x", "linux/arm/v7")
        assert older.state == states["linux/arm/v6"]
        with pytest.raises(SourceError, match="linux/amd64, linux/arm/v6, linux/arm64"):
            images.resolve(f"oci-layout://{path}:x", "linux/s390x")


def test_encrypted_and_foreign_layers(layout: tuple[Path, MadeImage]) -> None:
    """A layer of an unknown kind is no file system."""
    path, made = layout
    kind = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    change(path, made, lambda m: m["layers"][0].update(mediaType=kind))
    with pytest.raises(SourceError, match="encrypted"):
        read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["a=b", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELDS = (
    "Env Cmd Entrypoint User WorkingDir Labels ExposedPorts Volumes Healthcheck OnBuild Shell "
    "StopSignal"
)
FUZZED = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZED
@given(
    inner=st.dictionaries(st.sampled_from(FIELDS.split()), JSON, max_size=3),
    outer=st.dictionaries(st.sampled_from(["os", "variant", "history", "author", "x"]), JSON),
    manifest=st.dictionaries(st.sampled_from(["annotations", "config", "mediaType"]), JSON),
)
def test_any_json_is_an_image_or_refused(
    tmp_path: Path, inner: dict[str, Any], outer: dict[str, Any], manifest: dict[str, Any]
) -> None:
    """Whatever the JSON of manifest and configuration holds, it is read or refused by us."""
    path = tmp_path / "layout"
    made = make_layout(path, [LAYER], {}, "x")
    config = json.loads(blob(path, made.config).read_bytes()) | {"config": inner} | outer
    kind = {"mediaType": "application/vnd.oci.image.config.v1+json"}
    described = kind | put(path, json.dumps(config).encode())
    change(path, made, lambda m: m.update({"config": described, **manifest}))
    try:
        with Images(new_store().blobs) as images:
            image = images.resolve(f"oci-layout://{path}")
    except LayerCacheError:
        return
    finally:
        shutil.rmtree(path)
    assert encode(image.config.to_oci([layer.archive for layer in image.layers]))


# -- archives -----------------------------------------------------------------------------------


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for info, data in members:
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def saved(path: Path, *, layer: str = "l/layer.tar", links: dict[str, str] | None = None) -> Path:
    """A `docker save` archive of one layer."""
    config = json.dumps({"os": "linux", "rootfs": {"diff_ids": [sha256(LAYER)]}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["a/b:1"], "Layers": [layer]}]
    members = [
        (tarfile.TarInfo("c.json"), config),
        (tarfile.TarInfo("l/layer.tar"), LAYER),
        (tarfile.TarInfo("manifest.json"), json.dumps(manifest).encode()),
    ]
    for name, target in (links or {}).items():
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        members.append((info, b""))
    return archive(path, members)


def test_archive_of_docker_save(tmp_path: Path) -> None:
    """The control: it is read by any of its names, also through links and compressed."""
    path = saved(tmp_path / "a.tar")
    for name in ("", ":1", ":a/b:1", ":docker.io/a/b:1"):
        read(path, name=name)
    read(saved(tmp_path / "b.tar", layer="d/x", links={"d/x": "../l/layer.tar"}))
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    read(tmp_path / "c.tar.gz")
    with pytest.raises(SourceError, match="a/b:1"):
        read(path, name=":2")


@pytest.mark.parametrize(
    "links",
    [{"d/x": "../../etc/passwd"}, {"d/x": "/etc/passwd"}, {"d/x": "x"}, {"d/x": "y", "d/y": "x"}],
)
def test_links_that_lead_astray(tmp_path: Path, links: dict[str, str]) -> None:
    """A link leads within the archive, and somewhere."""
    with pytest.raises(HostileArchive):
        read(saved(tmp_path / "a.tar", layer="d/x", links=links))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ".."])
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    """A member's name is within the archive."""
    with pytest.raises(HostileArchive, match="leaves"):
        read(archive(tmp_path / "a.tar", [(tarfile.TarInfo(name), b"x")]))


def test_names_given_twice(tmp_path: Path) -> None:
    """An archive that means two things is refused."""
    twice = [(tarfile.TarInfo("manifest.json"), b"[]"), (tarfile.TarInfo("./manifest.json"), b"[]")]
    with pytest.raises(HostileArchive, match="twice"):
        read(archive(tmp_path / "a.tar", twice))


@pytest.mark.parametrize(
    "manifest",
    [b"{}", b"[5]", b'[{"Config": 5}]', b'[{"Config": "c.json", "Layers": [5]}]', b"[" * 100_000],
)
def test_manifests_of_docker_save_that_are_none(tmp_path: Path, manifest: bytes) -> None:
    """Wrong types are refused."""
    with pytest.raises(HostileArchive):
        read(archive(tmp_path / "a.tar", [(tarfile.TarInfo("manifest.json"), manifest)]))


def test_neither_layout_nor_archive(tmp_path: Path) -> None:
    """What holds no images is said to hold none, and what is not there not to be there."""
    with pytest.raises(SourceError, match="no images"):
        read(archive(tmp_path / "a.tar", [(tarfile.TarInfo("x"), b"x")]))
    with pytest.raises(SourceError, match="no such file"):
        read(tmp_path / "absent")
    (tmp_path / "d").mkdir()
    with pytest.raises(SourceError, match="not an OCI layout"):
        read(tmp_path / "d")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_archives_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed or cut anywhere end in the same image, or in an error of ours."""
    good = bytearray(saved(tmp_path / "good.tar").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(good), 6000) - 1))
        good[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del good[data.draw(st.integers(0, len(good))) :]
    path = tmp_path / "bad.tar"
    path.write_bytes(good)
    store = new_store()
    try:
        with Images(store.blobs, sizes=store.derived) as images:
            layers = images.resolve(f"docker-archive://{path}").layers
            contents = [
                store.blobs.read(images.ensure(layer).descriptor.digest) for layer in layers
            ]
    except LayerCacheError:
        return
    assert contents == [LAYER]
