"""Commands look at caches only, and tags stand for images that are there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.cli import main
from layercache.errors import CacheError, LayerCacheError, UsageError
from layercache.store.backends.local import LocalBackend
from layercache.store.collection import collect, entries_of, usage, verify
from layercache.store.store import Store
from layercache.store.tags import list_tags

TEXT = "FROM scratch\nCOPY a /\n"


def fill_layout(place: Path) -> None:
    """As an image layout and the local cache of another builder look."""
    (place / "blobs" / "sha256").mkdir(parents=True)
    (place / "blobs" / "sha256" / ("0" * 64)).write_text("a layer of somebody")
    (place / "index.json").write_text("{}")
    (place / "oci-layout").write_text("{}")


def fill_results(place: Path) -> None:
    """A folder of somebody's work."""
    for folder in ("results", "tmp", "index", "refs"):
        (place / folder).mkdir(parents=True)
        (place / folder / "thesis.txt").write_text("two years")
        os.utime(place / folder / "thesis.txt", (0, 0))


def fill_format(place: Path) -> None:
    """One that has a file of that name, too."""
    fill_results(place)
    (place / "format").write_text("black, please")


def contents(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


FILLED = [fill_layout, fill_results, fill_format]
COMMANDS = ["ls", "du", "prune", "prune --all", "gc --keep-builds 0", "verify", "verify --repair"]


@pytest.mark.parametrize("command", [*(f"cache {c}" for c in COMMANDS), "stats", "images"])
@pytest.mark.parametrize("fill", FILLED)
def test_commands_touch_no_directory_that_is_no_cache(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fill: Callable[[Path], None],
    command: str,
) -> None:
    """They say so, and change and list nothing."""
    place = tmp_path / "other"
    fill(place)
    before = contents(place)
    status = main([*command.split(), "--cache", str(place)])

    assert status == 2
    assert "is not a cache of layercache" in capsys.readouterr().err
    assert contents(place) == before


@pytest.mark.parametrize("fill", FILLED)
def test_python_touches_no_directory_that_is_no_cache(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    """Each function by itself, also where the object `format` went after the store was opened."""
    place = tmp_path / "other"
    place.mkdir()
    store = Store(LocalBackend(place))
    fill(place)
    before = contents(place)
    for function in (
        entries_of,
        usage,
        verify,
        lambda s: verify(s, repair=True),
        lambda s: collect(s, [], grace=0.0),
        lambda s: collect(s, [], everything=True, grace=0.0),
        lambda s: collect(s, [], dry_run=True),
    ):
        with pytest.raises(UsageError, match="not a cache of layercache"):
            function(store)
    assert contents(place) == before


def test_no_build_makes_a_cache_of_an_image_layout(tmp_path: Path) -> None:
    """A collection would later empty it."""
    fill_layout(tmp_path)
    with pytest.raises(UsageError, match="not a cache of layercache"):
        Builder(tmp_path)


def test_an_empty_cache_is_none_to_complain_of(tmp_path: Path) -> None:
    """Nothing is there, and nothing is done."""
    for place in (tmp_path, tmp_path / "not there"):
        store = Store(LocalBackend(place))
        assert usage(store).total == 0
        assert entries_of(store) == ()
        assert verify(store) == ()
        assert collect(store, [], everything=True).removed == ()
    assert list(tmp_path.iterdir()) == []


class Full(LocalBackend):
    """A directory that takes no more blobs, or no more references."""

    refuses = ""

    def adopt(self, path: str, name: str) -> bool:
        if self.refuses and name.startswith(self.refuses):
            raise CacheError("no space left on device")
        return super().adopt(path, name)

    def write(self, name: str, content: object) -> None:
        if self.refuses and name.partition("boot/")[2].startswith(self.refuses):
            raise CacheError("no space left on device")
        super().write(name, content)  # type: ignore[arg-type]

    def stage(self, name: str, content: bytes) -> None:
        if self.refuses and name.startswith(self.refuses):
            raise CacheError("no space left on device")
        super().stage(name, content)

    def sync(self) -> None:
        if self.refuses == "sync":
            raise CacheError("an error of the medium")
        super().sync()


@pytest.mark.parametrize("refuses", ["blobs/", "refs/", "sync"])
def test_no_tag_stands_for_an_image_that_is_not_there(tmp_path: Path, refuses: str) -> None:
    """The build fails, and the tag that was there stays good."""
    recipe = Dockerfile.parse(TEXT)
    with Store(Full(tmp_path)) as store:
        Builder(store).build(recipe, context={"a": "1"}, tags=["app"])
    (before,) = list_tags(Store(LocalBackend(tmp_path)))

    backend = Full(tmp_path)
    backend.refuses = refuses
    with Store(backend) as store, pytest.raises(LayerCacheError, match="can't tag the image"):
        Builder(store).build(recipe, context={"a": "2"}, tags=["app"])

    with Store(LocalBackend(tmp_path)) as store:
        assert list_tags(store) == (before,)
        assert verify(store) == ()
        image = Builder(store).build(Dockerfile.parse("FROM app\nCOPY b /\n"), context={"b": ""})
        assert image.tree().open(b"a").read() == b"1"


def test_verify_looks_at_what_tags_refer_to(tmp_path: Path) -> None:
    """A layer that is gone is found also where no record names it any more."""
    with Store(LocalBackend(tmp_path)) as store:
        Builder(store).build(Dockerfile.parse(TEXT), context={"a": "1"}, tags=["app"])
    for kind in ("ac", "blobs"):
        for path in (tmp_path / kind).rglob("*"):
            if path.is_file():
                path.unlink()
    with Store(LocalBackend(tmp_path)) as store:
        (damage,) = verify(store)
        assert "app" in damage.message
        assert "not there" in damage.message
        assert [d.repaired for d in verify(store, repair=True)] == [True]
        assert verify(store) == ()


def test_a_blob_is_copied_where_a_rename_crosses_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the file system says nothing about that."""
    with Store(LocalBackend(tmp_path / "cache")) as store:
        path = tmp_path / "layer"
        path.write_bytes(b"content")
        real = os.replace

        def replace(source: str, target: str, *, dst_dir_fd: int | None = None) -> None:
            if os.path.dirname(source) == str(tmp_path):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            real(source, target, dst_dir_fd=dst_dir_fd)

        monkeypatch.setattr(os, "replace", replace)
        import hashlib

        from layercache.model.digests import Digest

        digest = Digest("sha256:" + hashlib.sha256(b"content").hexdigest())
        descriptor = store.blobs.add_file(str(path), "x", digest, 7)
        assert not store.blobs.kept_aside(digest)
        assert store.blobs.read(descriptor.digest) == b"content"
        assert not path.exists()


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root of Linux may mount"
)
def test_two_mounts_of_one_file_system(tmp_path: Path) -> None:
    """As a container with a bind-mounted cache has them: layers are kept, not just for a build."""
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from layercache import Builder, Dockerfile
from layercache.store.backends.local import LocalBackend
from layercache.store.store import Store
events = []
with Store(LocalBackend({str(tmp_path / "mounted")!r}), on_event=events.append) as store:
    Builder(store).build(Dockerfile.parse({TEXT!r}), context={{"a": "1"}}, tags=["app"])
assert not events, events
"""
    for name in ("real", "mounted"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [
            "unshare", "--mount", "--propagation", "private", "sh", "-c",
            f'mount --bind "{tmp_path}/real" "{tmp_path}/mounted" && exec "$0" -c "$1"',
            sys.executable, script,
        ],
        capture_output=True, text=True, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    with Store(LocalBackend(tmp_path / "real")) as store:
        assert len(list_tags(store)) == 1
        assert verify(store) == ()
        assert entries_of(store)


def test_another_text_under_format_is_not_replaced_by_reading(tmp_path: Path) -> None:
    """A store that only looks writes nothing."""
    (tmp_path / "format").write_text("mine")
    Store(LocalBackend(tmp_path), on_event=lambda _: None)
    assert (tmp_path / "format").read_text() == "mine"
