"""Images out: equal images are equal bytes, and the tools of the world read them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest

from layercache.errors import SourceError, UsageError
from layercache.images.built import assemble
from layercache.images.resolver import Images
from layercache.model.digests import DiffID, Digest
from layercache.testing.images import make_layout, tar_of
from tests.images.support import (
    add_layer,
    base_layout,
    build,
    needs,
    new_store,
    run,
    snapshot,
    tree_of,
    write,
)

OWN = tar_of({"app": None, "app/x": b"hello", "etc": None, "etc/.wh.base": b""})


def test_equal_images_are_equal_bytes(tmp_path: Path) -> None:
    """Two stores, two directories, two exports: the same archive, to the byte."""
    archives = []
    for number in range(2):
        store = new_store()
        base = base_layout(tmp_path / f"base{number}")
        with Images(store.blobs, sizes=store.derived) as images:
            image = build(store, images, base, [OWN], ["example.org/app:1"])
            archive = tmp_path / f"{number}.tar"
            done = write(store, images, image, f"type=oci,dest={archive}")
        archives.append((archive.read_bytes(), done.config_digest, done.manifest_digest))
    assert archives[0] == archives[1]


@pytest.mark.parametrize("output", ["type=oci", "type=docker", "type=oci,compression=gzip"])
def test_round_trip(tmp_path: Path, output: str) -> None:
    """What was exported is resolved again as the same image: layers and configuration."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["example.org/app:1"])
        done = write(store, images, image, f"{output},dest={tmp_path}/out.tar")
        written = tree_of(store, images, image)
    again = new_store()
    with Images(again.blobs, sizes=again.derived) as images:
        found = images.resolve(f"oci-layout://{tmp_path}/out.tar")
        assert [layer.diff_id for layer in image.layers] == [la.diff_id for la in found.layers]
        assert found.digest == done.manifest_digest
        assert attrs.evolve(image.config, history=()) == attrs.evolve(found.config, history=())
        assert [entry.created_by for entry in found.config.history[-2:]] == [
            "COPY 0 / # buildkit",
            'CMD ["/bin/sh"]',
        ]
        tree = tree_of(again, images, attrs.evolve(image, layers=found.layers))
        assert written.digest(b"") == tree.digest(b"")
    for name in ("example.org/app:1", "1"):
        with Images(new_store().blobs) as images:
            assert images.resolve(f"oci-layout://{tmp_path}/out.tar:{name}").digest == found.digest


def test_layout_directory_keeps_other_images(tmp_path: Path) -> None:
    """A second export into a layout adds to it; one of the same name, or without, replaces."""
    store = new_store()
    out = tmp_path / "out"
    with Images(store.blobs, sizes=store.derived) as images:
        for name, content in (("a", b"1"), ("b", b"2"), ("a", b"3")):
            image = build(store, images, tars=[tar_of({"f": content})], names=[f"x/{name}:t"])
            write(store, images, image, f"type=oci,tar=false,dest={out}")
        for content in (b"4", b"5"):
            image = build(store, images, tars=[tar_of({"f": content})])
            last = write(store, images, image, f"type=oci,tar=false,dest={out}")
    index = json.loads((out / "index.json").read_bytes())
    names = [e.get("annotations", {}).get("io.containerd.image.name") for e in index["manifests"]]
    assert names == ["docker.io/x/b:t", "docker.io/x/a:t", None]
    assert index["manifests"][-1]["digest"] == last.manifest_digest
    assert not [name for name in os.listdir(out) if name.startswith(".")]
    with Images(store.blobs, sizes=store.derived) as images:
        assert images.resolve(f"oci-layout://{out}:x/a:t").digest == index["manifests"][1]["digest"]
        with pytest.raises(SourceError, match="several images"):
            images.resolve(f"oci-layout://{out}:t")


def test_damaged_blob_of_a_layout_is_written_again(tmp_path: Path) -> None:
    """An export trusts a blob that is there only after reading it."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN])
        write(store, images, image, f"type=oci,tar=false,dest={tmp_path}/out")
        for blob in (tmp_path / "out/blobs/sha256").iterdir():
            blob.write_bytes(b"x" * blob.stat().st_size)
        write(store, images, image, f"type=oci,tar=false,dest={tmp_path}/out")
    for blob in (tmp_path / "out/blobs/sha256").iterdir():
        assert blob.name == hashlib.sha256(blob.read_bytes()).hexdigest()


def test_output_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    """An export never mixes a layout into a directory that holds other things."""
    (tmp_path / "precious").write_text("x")
    store = new_store()
    with (
        Images(store.blobs, sizes=store.derived) as images,
        pytest.raises(UsageError, match="neither empty"),
    ):
        write(store, images, build(store, images), f"type=oci,tar=false,dest={tmp_path}")


NOWHERE = "sha256:" + "0" * 64


def test_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    """An archive becomes visible whole or not at all."""
    store = new_store()
    target = tmp_path / "out.tar"
    target.write_bytes(b"old")
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN])
        lost = attrs.evolve(
            image.layers[0],
            descriptor=attrs.evolve(image.layers[0].descriptor, digest=Digest(NOWHERE)),
            diff_id=DiffID(NOWHERE),
        )
        with pytest.raises(Exception, match="belongs to none of the images"):
            write(store, images, attrs.evolve(image, layers=(lost,)), f"type=oci,dest={target}")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.tar"]


def test_original_bytes_of_the_base_are_used(tmp_path: Path) -> None:
    """With the base's own compression its layers are the very blobs of the base."""
    base = base_layout(tmp_path / "base", compress=True)
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base, [OWN])
        assert image.base is not None
        for output, same in (("gzip", True), ("gzip,force-compression=true", False)):
            write(
                store,
                images,
                image,
                f"type=oci,dest={tmp_path}/out.tar,compression-level=1,compression={output}",
            )
            with Images(new_store().blobs) as others:
                found = others.resolve(f"oci-layout://{tmp_path}/out.tar")
                assert same == (found.originals[:2] == image.base.originals)


def test_original_bytes_that_are_gone_are_made_anew(tmp_path: Path) -> None:
    """An export does not fail because the base image was deleted meanwhile."""
    base = base_layout(tmp_path / "base", compress=True)
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base, [OWN])
        for layer in image.layers:
            images.ensure(layer)
        for blob in (tmp_path / "base/blobs/sha256").iterdir():
            blob.unlink()
        write(store, images, image, f"type=oci,compression=gzip,dest={tmp_path}/out.tar")
    with Images(new_store().blobs) as images:
        found = images.resolve(f"oci-layout://{tmp_path}/out.tar")
        for layer in found.layers:
            images.ensure(layer)


def test_zstd_round_trip(tmp_path: Path) -> None:
    """Layers may be compressed with zstd, out and in."""
    if os.sys.version_info < (3, 14):  # type: ignore[attr-defined]
        pytest.importorskip("backports.zstd")
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN])
        write(store, images, image, f"type=oci,compression=zstd,dest={tmp_path}/out.tar")
    with Images(new_store().blobs) as images:
        found = images.resolve(f"oci-layout://{tmp_path}/out.tar")
        assert found.originals[0].media_type.endswith("+zstd")
        assert images.ensure(found.layers[0]).descriptor.size == len(OWN)


def test_source_date_epoch(tmp_path: Path) -> None:
    """SOURCE_DATE_EPOCH sets created and history, and clamps own layers only when asked to."""
    store = new_store()
    epoch = 1_000_000_000
    tar = _aged_tar(tmp_path, epoch + 5, epoch - 5)
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [tar])
        plain = write(store, images, image, f"type=oci,dest={tmp_path}/plain.tar", epoch)
        write(store, images, image, f"type=oci,rewrite-timestamp=true,dest={tmp_path}/c.tar", epoch)
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            write(store, images, image, f"type=oci,rewrite-timestamp=1,dest={tmp_path}/d.tar")
    again = new_store()
    with Images(again.blobs, sizes=again.derived) as images:
        kept = images.resolve(f"oci-layout://{tmp_path}/plain.tar")
        clamped = images.resolve(f"oci-layout://{tmp_path}/c.tar")
        assert kept.digest == plain.manifest_digest
        assert [layer.diff_id for layer in image.layers] == [la.diff_id for la in kept.layers]
        assert kept.layers[:-1] == clamped.layers[:-1]
        assert kept.config.history[-1].created == "2001-09-09T01:46:40Z"
        last = again.blobs.read(images.ensure(clamped.layers[-1]).descriptor.digest)
    (tmp_path / "last.tar").write_bytes(last)
    with tarfile.open(tmp_path / "last.tar") as archive:
        times = {member.name: member.mtime for member in archive}
        content = archive.extractfile("new")
        assert content is not None
        assert content.read() == b"new"
    assert {"new": epoch, "old": epoch - 5} == times


def _aged_tar(tmp_path: Path, new: float, old: float) -> bytes:
    path = tmp_path / "aged.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, mtime in (("new", new + 0.5), ("old", old)):
            (tmp_path / name).write_bytes(name.encode())
            info = archive.gettarinfo(tmp_path / name, name)
            info.mtime = mtime
            with open(tmp_path / name, "rb") as content:
                archive.addfile(info, content)
    return path.read_bytes()


def test_local_directory_is_the_root_file_system(tmp_path: Path) -> None:
    """type=local writes the merged tree, deletions applied; type=tar holds the same."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN])
        write(store, images, image, f"type=local,dest={tmp_path}/local")
        write(store, images, image, f"type=tar,dest={tmp_path}/flat.tar")
    local = tmp_path / "local"
    assert (local / "app/x").read_bytes() == b"hello"
    assert not (local / "etc/base").exists()
    assert not (local / "keep/b").exists()
    assert (local / "keep/a").read_bytes() == b"1"
    os.mkdir(tmp_path / "flat")
    run("tar", "-xpf", tmp_path / "flat.tar", "-C", tmp_path / "flat")
    assert snapshot(local) == snapshot(tmp_path / "flat")


def test_flat_outputs_keep_hard_links(tmp_path: Path) -> None:
    """Names of one file are names of one file in type=local and in type=tar, too."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, data in [("a/x", tarfile.REGTYPE, b"one"), ("b", tarfile.LNKTYPE, b"")]:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), "a/x" * (not data)
            tar.addfile(member, io.BytesIO(data))
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[archive.getvalue(), tar_of({"b2": b"one"})])
        write(store, images, image, f"type=local,dest={tmp_path}/local")
        write(store, images, image, f"type=local,dest={tmp_path}/local")
        write(store, images, image, f"type=tar,dest={tmp_path}/flat.tar")
    local = tmp_path / "local"
    assert (local / "a/x").samefile(local / "b")
    assert not (local / "b2").samefile(local / "b")
    assert (local / "b").stat().st_nlink == 2
    with tarfile.open(tmp_path / "flat.tar") as flat:
        assert [m.name for m in flat if m.islnk()] == ["b"]
        assert flat.extractfile("b").read() == b"one"  # type: ignore[union-attr]


def test_local_directory_follows_no_links(tmp_path: Path) -> None:
    """What stands in the output directory is replaced, never followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("precious")
    local = tmp_path / "local"
    local.mkdir()
    (local / "app").symlink_to(outside)
    (local / "other").write_text("stays")
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[tar_of({"app": None, "app/x": b"new", "l": "app/x"})])
        for _ in range(2):
            write(store, images, image, f"type=local,dest={local}")
    assert (outside / "x").read_text() == "precious"
    assert (local / "app/x").read_text() == "new"
    assert (local / "other").read_text() == "stays"
    assert os.readlink(local / "l") == "app/x"


def test_local_directory_never_deletes_a_full_directory(tmp_path: Path) -> None:
    """A directory with files in the place of a file is left alone, with an error."""
    (tmp_path / "local/f").mkdir(parents=True)
    (tmp_path / "local/f/precious").write_text("x")
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[tar_of({"f": b"1"})])
        with pytest.raises(UsageError, match="empty the output"):
            write(store, images, image, f"type=local,dest={tmp_path}/local")
    assert (tmp_path / "local/f/precious").exists()


def test_annotations(tmp_path: Path) -> None:
    """Annotations reach the manifest, or its descriptor in the index."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN])
        write(
            store,
            images,
            image,
            f"type=oci,tar=false,dest={tmp_path}/o,annotation.a=1,annotation-manifest-descriptor.b=2",
        )
    entry = json.loads((tmp_path / "o/index.json").read_bytes())["manifests"][0]
    assert entry["annotations"] == {"b": "2"}
    manifest = tmp_path / "o/blobs/sha256" / entry["digest"].partition(":")[2]
    assert json.loads(manifest.read_bytes())["annotations"] == {"a": "1"}


def test_history_of_a_base_is_mended(tmp_path: Path) -> None:
    """A base whose history names more or fewer layers than it has still gives a valid image."""
    layer = tar_of({"a": b"1"})
    histories: list[list[dict[str, Any]]] = [
        [],
        [{"created_by": "one"}, {"created_by": "two"}],
        [{"created_by": "none", "empty_layer": True}],
    ]
    for number, history in enumerate(histories):
        layout = tmp_path / str(number)
        make_layout(layout, [layer], {}, "b", history=history)
        store = new_store()
        with Images(store.blobs, sizes=store.derived) as images:
            image = build(store, images, f"oci-layout://{layout}", [OWN])
            config = json.loads(assemble(image).config_bytes)
        layers = [entry for entry in config["history"] if not entry.get("empty_layer")]
        assert len(layers) == len(config["rootfs"]["diff_ids"]) == 2


def test_manifest_is_unknown_while_a_size_is(tmp_path: Path) -> None:
    """The configuration's digest needs no layer; the manifest's does, and is exact later."""
    store = new_store()
    base = base_layout(tmp_path / "base", compress=True)
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base, [OWN])
        early = assemble(image)
        assert early.manifest is None
        done = write(store, images, image, f"type=oci,dest={tmp_path}/o.tar")
        assert done.config_digest == early.config.digest
    with Images(store.blobs, sizes=store.derived) as images:
        late = assemble(build(store, images, base, [OWN]))
        assert late.manifest is not None
        assert late.manifest.digest == done.manifest_digest


def test_bad_places_and_names(tmp_path: Path) -> None:
    """What can't be written is said clearly, before anything is written."""
    store = new_store()
    (tmp_path / "file").write_text("")
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN])
        with pytest.raises(UsageError, match="is a directory"):
            write(store, images, image, f"type=oci,dest={tmp_path}")
        with pytest.raises(SourceError, match="can't write the output"):
            write(store, images, image, f"type=oci,dest={tmp_path}/file/x.tar")
        with pytest.raises(UsageError, match="not an image reference"):
            write(store, images, image, f"type=oci,dest={tmp_path}/x.tar,name=UPPER")
        with pytest.raises(UsageError, match="needs a name"):
            write(store, images, image, "type=registry")
    assert os.listdir(tmp_path) == ["file"]


# -- real tools ---------------------------------------------------------------------------------


@needs("skopeo")
@pytest.mark.parametrize(
    "compression", ["uncompressed", "gzip", "gzip,compression-level=9", "zstd"]
)
def test_skopeo_reads_layouts_and_archives(tmp_path: Path, compression: str) -> None:
    """skopeo inspects and copies what was written, and finds our digests and configuration."""
    if compression == "zstd":
        pytest.importorskip("backports.zstd")
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["example.org/app:1"])
        options = f"compression={compression}"
        done = write(store, images, image, f"type=oci,tar=false,dest={tmp_path}/d,{options}")
        write(store, images, image, f"type=oci,dest={tmp_path}/a.tar,{options}")
    for place in (f"oci:{tmp_path}/d:1", f"oci-archive:{tmp_path}/a.tar:1"):
        seen = json.loads(run("skopeo", "inspect", place))
        assert seen["Digest"] == done.manifest_digest
        assert seen["Labels"] == {"base": "yes", "made": "here"}
    seen = json.loads(run("skopeo", "inspect", "--config", f"oci:{tmp_path}/d:1"))
    assert seen["config"]["Env"] == ["PATH=/bin", "BASE=1"]
    if compression == "zstd":
        return  # which archives of docker save can't hold
    target = f"docker-archive:{tmp_path}/s.tar:x/y:z"
    run("skopeo", "copy", f"oci-archive:{tmp_path}/a.tar:1", target)
    again = new_store()
    with Images(again.blobs, sizes=again.derived) as images:
        found = images.resolve(f"docker-archive://{tmp_path}/s.tar:x/y:z")
        assert [layer.diff_id for layer in image.layers] == [la.diff_id for la in found.layers]
        for layer in found.layers:
            images.ensure(layer)


@needs("skopeo")
def test_skopeo_reads_the_docker_archive(tmp_path: Path) -> None:
    """type=docker is an archive in the form of docker save, with its tags."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["app", "app:2"])
        done = write(store, images, image, f"type=docker,dest={tmp_path}/a.tar")
    for tag in ("app:latest", "app:2"):
        seen = json.loads(
            run("skopeo", "inspect", "--config", f"docker-archive:{tmp_path}/a.tar:{tag}")
        )
        assert [layer.diff_id for layer in image.layers] == seen["rootfs"]["diff_ids"]
    raw = run("skopeo", "inspect", "--raw", "--config", f"docker-archive:{tmp_path}/a.tar:app:2")
    assert done.config_digest == "sha256:" + hashlib.sha256(raw.encode()).hexdigest()


@needs("umoci")
def test_umoci_unpacks_the_same_tree(tmp_path: Path) -> None:
    """umoci, another implementation of the layer rules, unpacks what type=local writes."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["app:1"])
        write(store, images, image, f"type=oci,tar=false,dest={tmp_path}/d,compression=gzip")
        write(store, images, image, f"type=local,dest={tmp_path}/local")
    options = [] if os.geteuid() == 0 else ["--rootless"]
    run("umoci", "unpack", *options, "--image", f"{tmp_path}/d:1", tmp_path / "bundle")
    theirs = snapshot(tmp_path / "bundle/rootfs", owners=not options)
    ours = snapshot(tmp_path / "local", owners=not options)
    # umoci gives directories in which it deleted something a time of its own.
    assert theirs.keys() == ours.keys()
    for path, seen in ours.items():
        other = theirs[path]
        assert (seen.mode, seen.owner, seen.content) == (other.mode, other.owner, other.content)
        if path not in {"etc", "keep"}:
            assert seen.mtime == other.mtime, path


def _podman(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Options for a podman with storage of its own; its run root must have a short name."""
    run_root = tempfile.mkdtemp(prefix="lc-")
    request.addfinalizer(lambda: shutil.rmtree(run_root, ignore_errors=True))
    return ["--root", f"{tmp_path}/r", "--runroot", run_root, "--storage-driver", "vfs"]


@needs("podman", "busybox")
def test_podman_loads_and_runs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """podman loads the docker archive and, where containers can run, runs its command."""
    store = new_store()
    options = _podman(tmp_path, request)
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["localhost/lc:1"])
        write(store, images, image, f"type=docker,dest={tmp_path}/a.tar")
    try:
        said = run("podman", *options, "load", "-i", tmp_path / "a.tar", timeout=300)
    except AssertionError as error:
        if any(word in str(error) for word in ("newuidmap", "user namespace", "unshare")):
            pytest.skip(f"podman can't work here: {error}")
        raise
    assert "localhost/lc:1" in said
    seen = json.loads(run("podman", *options, "image", "inspect", "localhost/lc:1"))[0]
    assert [layer.diff_id for layer in image.layers] == seen["RootFS"]["Layers"]


@needs("podman", "busybox")
def test_podman_runs_the_image(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Where podman can run containers, the image's files and configuration are in them."""
    store = new_store()
    options = _podman(tmp_path, request)
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["localhost/lc:1"])
        write(store, images, image, f"type=docker,dest={tmp_path}/a.tar")
    try:
        run("podman", *options, "load", "-i", tmp_path / "a.tar")
        flags = ["--rm", "--network=none", "--cgroups=disabled"]
        command = "cat /app/x; echo $BASE"
        said = run("podman", *options, "run", *flags, "localhost/lc:1", "/bin/sh", "-c", command)
    except AssertionError as error:
        pytest.skip(f"podman can't run containers here: {str(error)[-200:]}")
    assert said == "hello1\n"


@needs("podman", "busybox")
def test_podman_reads_the_oci_archive(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """podman loads an OCI archive too, with its name."""
    store = new_store()
    options = _podman(tmp_path, request)
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, base_layout(tmp_path / "base"), [OWN], ["localhost/lc:1"])
        write(store, images, image, f"type=oci,dest={tmp_path}/a.tar")
    said = run("podman", *options, "pull", "-q", f"oci-archive:{tmp_path}/a.tar")
    assert said.strip()


def test_blobs_of_layers_are_shared(tmp_path: Path) -> None:
    """The same layer twice in an image is one blob, and reads back as two layers."""
    store = new_store()
    with Images(store.blobs, sizes=store.derived) as images:
        image = build(store, images, tars=[OWN, OWN])
        write(store, images, image, f"type=oci,dest={tmp_path}/o.tar")
        assert add_layer(store, OWN) == image.layers[0]
    with Images(new_store().blobs) as images:
        found = images.resolve(f"oci-layout://{tmp_path}/o.tar")
        assert [layer.diff_id for layer in image.layers] == [la.diff_id for la in found.layers]
