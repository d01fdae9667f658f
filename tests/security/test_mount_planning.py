"""Mount points in random hostile images: where they are made, and that nothing leaves the image.

Without namespaces and mounts: the planner works on an open directory like any other. A case is
one mount point in one image; several are planned in the same image, which changes in between as
commands change it.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layercache.executors.rootfs.inside.image_root import Refused, Root
from layercache.executors.rootfs.mount_stubs import remove_stubs

NAMES = ("a", "b", "c", "proc", "etc", "l", "m")
MANY_LINKS = 30
"""Links in one path from which on the kernel and the model need not agree about its end."""


class Scene:
    """A directory that is the image, and beside it what must not be touched."""

    def __init__(self, place: Path, pick: random.Random) -> None:
        self.root = place / "root"
        self.base = str(self.root)
        self.outside = place / "outside"
        self.pick = pick
        for path in (self.root, self.outside, self.outside / "a", self.outside / "proc"):
            path.mkdir()
        (self.outside / "b").write_bytes(b"")
        (self.outside / "etc").symlink_to("a")
        os.utime(self.outside, (1, 1))
        self.beside = self.seen()
        self.links = [
            "/", "..", "../..", "../outside", "../outside/a", str(self.outside), "../../outside/b",
            f"{self.outside}/new", "/proc/self/root", "/proc/self/fd/0", "/proc/self/cwd",
            "/outside", "../../../../../../../../etc",
        ]  # fmt: skip

    def seen(self) -> list[tuple[str, int, int, int]]:
        """What is there beside the image."""
        found = []
        for place in (self.outside.parent, self.outside, self.outside / "a", self.outside / "proc"):
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
                info = entry.stat(follow_symlinks=False)
                own = entry.name != "root"
                found.append((entry.path, info.st_mode, info.st_ino, own and info.st_mtime_ns))
        return found

    def path(self) -> str:
        return "/".join(self.pick.choices(NAMES, k=self.pick.randint(1, 4)))

    def target(self) -> str:
        """The text of a link."""
        if self.pick.random() < 0.4:
            return self.pick.choice(self.links)
        text = self.pick.choice(("", "/", "../", "../../", "./")) + self.path()
        if self.pick.random() < 0.2:
            text += self.pick.choice(("/..", "/../" + self.path(), "/.", "/"))
        return text

    def grow(self, count: int) -> None:
        """Put something at random places of the image."""
        for _ in range(count):
            where = self.root
            for name in self.path().split("/"):
                inner = where / name
                if not stat.S_ISDIR(mode_of(inner)):
                    break
                where = inner
            place = where / self.pick.choice(NAMES)
            kind = self.pick.random()
            try:
                if kind < 0.45:
                    place.symlink_to(self.target())
                elif kind < 0.85:
                    place.mkdir()
                else:
                    with open(place, "xb") as file:
                        file.write(b"x" if kind < 0.95 else b"")
            except FileExistsError:
                continue

    def expected(self, target: str) -> tuple[str, int] | None:
        """Where a mount point has to be, and through how many links; None for nowhere."""
        todo = [part for part in reversed(os.path.normpath("/" + target).split("/")) if part]
        here: list[str] = []
        links = 0
        missing = False
        while todo:
            part = todo.pop()
            mode = 0 if missing else mode_of("/".join((self.base, *here)))
            if part == ".":
                continue  # at the end of a file, too: what follows finds out
            if part == "..":
                if missing or not stat.S_ISDIR(mode):
                    return None
                del here[-1:]
            elif missing:
                here.append(part)
            elif not stat.S_ISDIR(mode):
                return None
            else:
                place = "/".join((self.base, *here, part))
                mode = mode_of(place)
                if not stat.S_ISLNK(mode):
                    here.append(part)
                    missing = mode == 0
                    continue
                links += 1
                if links > 200:
                    return None
                text = os.readlink(place)
                if text.startswith("/"):
                    here = []
                parts = text.split("/")
                if text.endswith("/"):
                    parts[-1] = "."
                todo += [part for part in reversed(parts) if part]
        return "/" + "/".join(here), links


def mode_of(path: str | Path) -> int:
    """The mode of what is at a path, 0 for nothing."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def plan(scene: Scene, target: str, *, directory: bool) -> bool:
    """One case: make the mount point, let a command act, remove it; whether it was made."""
    pick = scene.pick
    flags = os.O_PATH | os.O_DIRECTORY
    proc, upper = os.open("/proc", flags), os.open(scene.root, flags)
    root = Root(os.open(scene.root, flags), proc=proc, upper=upper)
    expected = scene.expected(target)
    try:
        fd = root.make(target, directory=directory)
    except Refused:
        made = list(root.made)
        assert expected is None or expected[1] > MANY_LINKS, (target, expected)
    else:
        made = list(root.made)
        try:
            real = os.readlink(f"/proc/self/fd/{fd}")
            assert real == str(scene.root) or real.startswith(f"{scene.root}/")
            assert expected is not None, (target, real)
            inside = real[len(str(scene.root)) :] or "/"
            assert inside == expected[0], target
            assert not made or made[-1] == (inside, os.fstat(fd).st_ino)
        finally:
            os.close(fd)
    finally:
        root.close()
    for path, _ in reversed(made):
        if pick.random() < 0.15:  # something else takes the place, or gets in
            place = scene.root / path[1:]
            if stat.S_ISDIR(mode_of(place)) and pick.random() < 0.4:
                (place / "kept").mkdir()
                continue
            os.rename(place, scene.root / f"moved{pick.random()}")
            if pick.random() < 0.7:
                place.symlink_to(scene.target())
            else:
                place.mkdir()
    inodes = {inode for _, inode in made}
    more = [(scene.target(), pick.choice([*inodes, 0])) for _ in range(2)]  # as if a step lied
    kept = {path: info for path, info in contents(scene.root).items() if info[0] not in inodes}
    remove_stubs(str(scene.root), [*made, *more])
    after = contents(scene.root)
    assert {path: after.get(path) for path in kept} == kept
    return bool(made)


def contents(root: Path) -> dict[str, tuple[int, int]]:
    """Path → inode and mode of everything in the image."""
    found: dict[str, tuple[int, int]] = {}
    todo = [str(root)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                found[entry.path] = (info.st_ino, info.st_mode)
                if stat.S_ISDIR(info.st_mode):
                    todo.append(entry.path)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: on a disk the cases take ten times as long."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def run(place: Path, cases: int, seed: int) -> None:
    pick = random.Random(seed)
    count = done = 0
    gc.collect()  # what earlier tests left open closes when it is collected
    open_before = len(os.listdir("/proc/self/fd"))
    while done < cases:
        scene_place = place / str(done)
        scene_place.mkdir()
        scene = Scene(scene_place, pick)
        for _ in range(20):
            scene.grow(pick.randint(0, 6))
            count += plan(scene, "/" + scene.path(), directory=pick.random() < 0.7)
            done += 1
        assert scene.seen() == scene.beside
        shutil.rmtree(scene_place)
    assert len(os.listdir("/proc/self/fd")) <= open_before
    assert count > cases // 20
    print(f"{done} run, seed {seed}")


def test_mount_points_in_hostile_images(place: Path) -> None:
    """Each is made where the image's links lead within it, or refused; nothing beside the image
    is opened or changed, and only what was made is removed."""
    run(place, 10_000, random.SystemRandom().randrange(1 << 32))


@pytest.mark.soak
def test_very_many_mount_points_in_hostile_images(place: Path) -> None:
    """The same, a million times."""
    run(place, 1_000_000, random.SystemRandom().randrange(1 << 32))
