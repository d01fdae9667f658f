"""The stat cache may only save time: whatever it holds, the answer is that of a fresh look."""

from __future__ import annotations

import multiprocessing
import os
import random
import stat
import time

import pytest

from layercache.errors import SourceError
from layercache.inputs.scan.context_tree import Context
from layercache.inputs.scan.filesystems import MountTable
from layercache.model.selectors import Files
from layercache.trees.in_memory import directory, file, link
from tests.inputs import disk


@pytest.fixture
def root(tmp_path: str) -> str:
    """A small context at rest."""
    where = disk.make(
        os.path.join(tmp_path, "c"),
        {"a.txt": "alpha", "d/b.txt": "beta", "d/s/c": "gamma", "d/l": link("b.txt"), "e/f": ""},
    )
    disk.age(where)
    return where


@pytest.fixture
def cache(tmp_path: str) -> str:
    """Where its stat cache is."""
    return os.path.join(tmp_path, "scans", "cache")


# -- what stamps can hide ---------------------------------------------------------------------


def test_equal_size_and_mtime_with_other_bytes_is_seen(root: str, cache: str) -> None:
    """A rewrite that puts back size and mtime is a change: ctime tells."""
    before = disk.fingerprint(root, cache)
    path = os.path.join(root, "a.txt")
    old = os.stat(path)
    for content in ("ALPHA", "aLpHa"):
        disk.put(root, "a.txt", content)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        new = os.stat(path)
        assert (new.st_size, new.st_mtime_ns, new.st_ino) == (
            old.st_size,
            old.st_mtime_ns,
            old.st_ino,
        )

        after = disk.fingerprint(root, cache)

        assert after != before
        assert after == disk.fingerprint(root)
        before = after


def test_another_inode_with_equal_stamps_is_seen(root: str, cache: str) -> None:
    """A file renamed into place with the size and mtime of the old one is a change."""
    before = disk.fingerprint(root, cache)
    path = os.path.join(root, "d/b.txt")
    old = os.stat(path)
    disk.put(root, "d/.new", "BETA")
    os.utime(os.path.join(root, "d/.new"), ns=(old.st_atime_ns, old.st_mtime_ns))
    os.rename(os.path.join(root, "d/.new"), path)

    assert disk.fingerprint(root, cache) == disk.fingerprint(root) != before


def test_swapped_files_are_seen(root: str, cache: str) -> None:
    """Two files of one size that trade places keep inode and mtime, and are a change."""
    disk.put(root, "d/x", "1111")
    disk.put(root, "d/y", "2222")
    disk.age(root)
    before = disk.fingerprint(root, cache)
    x, y, z = (os.path.join(root, "d", name) for name in "xyz")
    os.rename(x, z)
    os.rename(y, x)
    os.rename(z, y)

    assert disk.fingerprint(root, cache) == disk.fingerprint(root) != before


def test_a_change_in_the_tick_of_the_scan_is_seen(tmp_path: str, cache: str) -> None:
    """Stamps as young as the scan are not trusted: same-size rewrites right after show."""
    root = disk.make(os.path.join(tmp_path, "c"), {"a": "0"})
    seen = []
    for number in range(50):
        disk.put(root, "a", str(number % 10))
        seen.append(disk.fingerprint(root, cache))

    assert len(set(seen)) == 10
    assert seen[:10] * 5 == seen


def test_young_entries_are_read_again_once(tmp_path: str, cache: str) -> None:
    """What was too young to trust is read at the next scan, and then trusted."""
    root = disk.make(os.path.join(tmp_path, "c"), {"a": "0", "d/b": "1"})
    opened = []
    for _ in range(3):
        with disk.scan(root, cache) as tree:
            tree.fingerprint(disk.ALL)
            opened.append(tree.counts.files_opened)
        disk.age(root)

    assert opened == [2, 2, 0]


def test_stamps_of_whole_seconds_get_a_wider_margin() -> None:
    """A change time without a fraction, not two seconds old, may hide a later change."""
    from layercache.inputs.scan.columns import PACK
    from layercache.inputs.scan.statcache import distrust

    row = (0o100644, 1, 0, 0, 1, 1)
    second = 1_700_000_000 * 10**9
    found = {}
    for name, ctime, before in (
        ("coarse", second, second + 10**9),
        ("coarse and old", second, second + 3 * 10**9),
        ("fine", second + 123, second + 10**9),
        ("fine and young", second + 123, second + 10**6),
        ("future", second, second - 10**12),
    ):
        packed = PACK.pack(*row[:2], ctime - 10**10, ctime, *row[4:])
        kept = PACK.unpack(distrust(bytearray(packed), before, set()))
        found[name] = kept[3] == ctime

    assert found == {
        "coarse": False,
        "coarse and old": True,
        "fine": True,
        "fine and young": False,
        "future": False,
    }


# -- what the file may be -----------------------------------------------------------------------


def test_the_file_is_private_and_leaves_no_litter(root: str, cache: str) -> None:
    """Mode 0600 whatever the umask, in a directory of its own; no temporary file stays."""
    old = os.umask(0)
    try:
        disk.fingerprint(root, cache)
    finally:
        os.umask(old)

    assert stat.S_IMODE(os.stat(cache).st_mode) == 0o600
    assert os.listdir(os.path.dirname(cache)) == ["cache"]


def test_nothing_changed_writes_nothing(root: str, cache: str) -> None:
    """A scan that learnt nothing leaves the file alone."""
    disk.fingerprint(root, cache)
    before = os.stat(cache)
    disk.fingerprint(root, cache)

    assert os.stat(cache).st_mtime_ns == before.st_mtime_ns
    assert os.stat(cache).st_ino == before.st_ino


def test_planning_writes_nothing(root: str, cache: str) -> None:
    """With `write_cache` False neither the scan nor what follows writes; reading is allowed."""
    with disk.scan(root, cache, write_cache=False) as tree:
        tree.fingerprint(disk.ALL)
        tree.save()
    assert not os.path.exists(os.path.dirname(cache))
    disk.fingerprint(root, cache)
    before = os.stat(cache)
    disk.put(root, "a.txt", "new")
    with disk.scan(root, cache, write_cache=False) as tree:
        tree.fingerprint(disk.ALL)
        assert tree.counts.files_opened == 1

    assert os.stat(cache).st_ino == before.st_ino


def test_damage_anywhere_is_seen(root: str, cache: str) -> None:
    """Every flipped byte and every cut makes the file as good as absent, and it heals."""
    expected = disk.fingerprint(root, cache)
    with open(cache, "rb") as content:
        data = content.read()
    source = random.Random(20261124)
    places = [*range(0, len(data), 7), len(data) - 1]
    for at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << source.randrange(8)
        for bad in (bytes(damaged), data[:at], data + data[:at]):
            if bad == data:
                continue
            with open(cache, "wb") as out:
                out.write(bad)
            with disk.scan(root, cache, write_cache=False) as tree:
                assert tree.fingerprint(disk.ALL) == expected
                assert tree.counts.files_opened == 4
    disk.fingerprint(root, cache)
    with disk.scan(root, cache) as tree:
        tree.fingerprint(disk.ALL)
        assert tree.counts.files_opened == 0
    print(f"{len(places) * 3} run, seed 20261124")


@disk.needs_root
def test_a_file_of_somebody_else_is_not_believed(root: str, cache: str) -> None:
    """Another owner, or one that others may write, counts as absent."""
    disk.fingerprint(root, cache)
    for change in (lambda: os.chown(cache, 1000, 1000), lambda: os.chmod(cache, 0o666)):
        change()
        with disk.scan(root, cache, write_cache=False) as tree:
            tree.fingerprint(disk.ALL)
            assert tree.counts.files_opened == 4
        os.chown(cache, os.geteuid(), os.getegid())
        os.chmod(cache, 0o600)


def test_odd_things_at_its_place(root: str, tmp_path: str) -> None:
    """A link, a directory, a FIFO or a place that can't be written cost time only."""
    expected = disk.fingerprint(root)
    target = os.path.join(tmp_path, "target")
    with open(target, "w") as out:
        out.write("precious")
    places = {name: os.path.join(tmp_path, name) for name in ("link", "dir", "fifo")}
    os.symlink(target, places["link"])
    os.mkdir(places["dir"])
    os.mkfifo(places["fifo"])
    places["below a file"] = os.path.join(target, "x")
    for place in places.values():
        assert disk.fingerprint(root, place) == expected
        assert disk.fingerprint(root, place) == expected

    with open(target) as content:
        assert content.read() == "precious"


def test_other_rules_read_nothing_again(root: str, cache: str) -> None:
    """An edit of the ignore file lists anew, but what is known of files stays known."""
    disk.fingerprint(root, cache)
    with disk.scan(root, cache, ignore="e\n") as tree:
        found = tree.fingerprint(disk.ALL)
        assert tree.counts.files_opened == 0
        assert tree.counts.directories_listed == 3
    assert found == disk.fingerprint(root, ignore="e\n")
    with disk.scan(root, cache) as tree:
        assert tree.fingerprint(disk.ALL) == disk.fingerprint(root)
        assert tree.counts.files_opened == 1  # e/f was forgotten with its directory


def test_a_cache_of_another_tree_is_harmless(root: str, cache: str, tmp_path: str) -> None:
    """A copy of the context, and any other tree, are read: inodes and stamps differ."""
    import shutil

    disk.fingerprint(root, cache)
    copy = os.path.join(tmp_path, "copy")
    shutil.copytree(root, copy, symlinks=True)
    disk.put(copy, "a.txt", "ALPHA")
    os.utime(os.path.join(copy, "a.txt"), ns=(0, os.stat(os.path.join(root, "a.txt")).st_mtime_ns))

    assert disk.fingerprint(copy, cache) == disk.fingerprint(copy) != disk.fingerprint(root)


def test_names_differ_by_root_and_rules(root: str) -> None:
    """`cache_name` is one name for one root, however it is written."""
    from layercache.trees.patterns import Ignore

    name = Context.cache_name(root)

    assert name == Context.cache_name(os.path.join(root, "..", "c"))
    assert name != Context.cache_name(os.path.join(root, "d"))
    assert name != Context.cache_name(root, Ignore.parse("x"))


def test_what_was_known_survives_a_failure(root: str, cache: str) -> None:
    """Files read before one that can't be are remembered all the same."""
    with disk.scan(root, cache) as tree:
        os.unlink(os.path.join(root, "d/s/c"))
        with pytest.raises(SourceError):
            tree.fingerprint(disk.ALL)
    with disk.scan(root, cache) as tree:
        tree.fingerprint(disk.ALL)
        assert tree.counts.files_opened == 1  # only e/f, which came after it


# -- twins --------------------------------------------------------------------------------------


def _scan_often(root: str, cache: str, turns: int) -> None:
    for _ in range(turns):
        os.utime(os.path.join(root, "a.txt"))
        disk.fingerprint(root, cache)


def test_twins_leave_a_good_file(root: str, cache: str) -> None:
    """Several processes that scan and save at once never leave a damaged file behind."""
    expected = disk.fingerprint(root, cache)
    context = multiprocessing.get_context("fork")
    twins = [context.Process(target=_scan_often, args=(root, cache, 30)) for _ in range(3)]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join()
    disk.age(root)
    disk.fingerprint(root, cache)

    assert [twin.exitcode for twin in twins] == [0, 0, 0]
    assert os.listdir(os.path.dirname(cache)) == ["cache"]
    with disk.scan(root, cache) as tree:
        assert tree.fingerprint(disk.ALL) == expected
        assert tree.counts.files_opened == 0


# -- file systems that can't be trusted ---------------------------------------------------------

TABLE = (
    b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    b"30 22 0:50 / /mnt/nfs rw - nfs4 server:/x rw\n"
    b"31 22 0:51 / /mnt/with\\040space rw - fuse.sshfs x rw\n"
    b"32 22 0:52 /sub /mnt/btrfs rw shared:2 master:1 - btrfs /dev/sdb rw\n"
    b"33 22 0:53 / /mnt/twice rw - nfs4 server:/y rw\n"
    b"34 33 0:54 / /mnt/twice rw - tmpfs tmpfs rw\n"
    b"40 22 0:60 / /mnt/squash ro - squashfs /dev/loop0 ro\n"
    b"41 22 0:61 / /mnt/over rw - overlay o rw,lowerdir=/a:/mnt/squash/l,upperdir=/u,workdir=/w\n"
    b"42 22 0:62 / /mnt/good rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n"
    b"43 22 0:63 / /mnt/twofold rw - overlay o rw,lowerdir=/mnt/good:/mnt/over/x\n"
    b"44 22 0:64 / /mnt/unseen rw - overlay o rw,lowerdir=l/A:l/B,upperdir=/u\n"
    b"45 22 0:65 / /mnt/iso ro - iso9660 /dev/sr0 ro\n"
    b"46 22 0:66 / /mnt/erofs ro - erofs /dev/loop1 ro\n"
    b"47 22 0:67 / /mnt/ram rw - ramfs none rw\n"
    b"garbage\n"
)


@pytest.mark.parametrize(
    ("device", "path", "trusted"),
    [
        (os.makedev(8, 1), b"/x", True),
        (os.makedev(0, 50), b"/mnt/nfs/x", False),
        (os.makedev(0, 99), b"/mnt/nfs/x", False),
        (os.makedev(0, 99), b"/mnt/nfsx", True),
        (os.makedev(0, 99), b"/mnt/with space/y", False),
        (os.makedev(0, 99), b"/mnt/btrfs/subvolume", True),
        (os.makedev(0, 99), b"/mnt/twice/z", False),
        (os.makedev(0, 60), b"/mnt/squash", False),
        (os.makedev(0, 61), b"/mnt/over/x", False),
        (os.makedev(0, 62), b"/mnt/good/x", True),
        (os.makedev(0, 63), b"/mnt/twofold/x", False),
        (os.makedev(0, 64), b"/mnt/unseen/x", True),
        (os.makedev(0, 65), b"/mnt/iso/x", False),
        (os.makedev(0, 66), b"/mnt/erofs/x", False),
        (os.makedev(0, 67), b"/mnt/ram/x", False),
    ],
)
def test_the_mount_table_decides(device: int, path: bytes, trusted: bool) -> None:
    """By device, else by the longest mount point; the last of several mounts on one counts."""
    assert MountTable(TABLE).trusted(device, path) == trusted


def test_without_a_mount_table_nothing_is_trusted() -> None:
    """Where nothing is known of the file system, everything is read."""
    assert not MountTable(b"").trusted(1, b"/")


def test_paranoid_reads_everything_each_time(root: str, cache: str) -> None:
    """On request nothing is taken from the cache, and it is left alone."""
    expected = disk.fingerprint(root, cache)
    before = os.stat(cache).st_mtime_ns
    with disk.scan(root, cache, paranoid=True) as tree:
        assert tree.fingerprint(disk.ALL) == expected
        assert tree.counts.files_opened == 4

    assert os.stat(cache).st_mtime_ns == before


def test_untrusted_devices_are_not_remembered(
    root: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the stamps of the root itself can't be trusted, no cache is used or written."""
    monkeypatch.setattr(MountTable, "trusted", lambda *_: False)
    for _ in range(2):
        with disk.scan(root, cache) as tree:
            tree.fingerprint(disk.ALL)
            assert tree.counts.files_opened == 4

    assert not os.path.exists(cache)


@disk.needs_root
def test_a_mount_inside_that_is_not_trusted(
    root: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what lies on the other device is read again."""
    inside = os.path.join(root, "d/s")
    if os.system(f"mount -t tmpfs none {inside} 2>/dev/null"):
        pytest.skip("can't mount here")
    try:
        disk.put(root, "d/s/far", "1")
        disk.age(root)
        device = os.stat(inside).st_dev
        monkeypatch.setattr(MountTable, "trusted", lambda _, number, __: number != device)
        disk.fingerprint(root, cache)
        with disk.scan(root, cache) as tree:
            tree.fingerprint(disk.ALL)
            assert tree.counts.files_opened == 1
    finally:
        os.system(f"umount {inside}")


# -- soak -----------------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "x.md", "é"]


def _anything(source: random.Random, root: str) -> str:
    depth = source.randint(1, 3)
    return "/".join(source.choice(NAMES) for _ in range(depth))


def _mutate(source: random.Random, root: str) -> None:
    """One change of the kind that people and tools make; some fail, which is no matter."""
    path = os.path.join(root, _anything(source, root))
    other = os.path.join(root, _anything(source, root))
    what = source.randrange(12)
    old = os.lstat(path) if os.path.lexists(path) else None
    if what <= 3:
        size = source.choice([0, 1, 1, 5])
        disk.put(root, os.path.relpath(path, root), source.choice("xyz") * size)
        if old is not None and what == 3:
            os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    elif what == 4:
        os.rename(path, other)
    elif what == 5:
        os.unlink(path)
    elif what == 6:
        os.system(f"rm -rf '{path}'")
    elif what == 7:
        os.makedirs(path)
    elif what == 8:
        os.chmod(path, source.choice([0o644, 0o755, 0o600]))
    elif what == 9:
        os.symlink(source.choice(["a", "/b", "../c"]), path)
    elif what == 10:
        os.link(path, other)
    else:
        aside = path + ".aside"
        os.rename(path, aside)
        os.rename(other, path)
        os.rename(aside, other)


@pytest.mark.parametrize("seed", range(8))
def test_a_cached_scan_is_a_fresh_scan(tmp_path: str, cache: str, seed: int) -> None:
    """Through random changes, at any speed, the cached answer is that of reading everything."""
    source = random.Random(20261124 + seed)
    began, run = time.monotonic(), 0
    root = disk.make(os.path.join(tmp_path, "c"), {"a/b/c": "1", "b": "2", "c": directory()})
    rules = source.choice([None, "**/x.md\n", "a\n!a/b\n", "*\n!**/c\n"])
    selections = [disk.ALL, Files((".",), exclude=("**/a",)), Files(("*",))]
    for _ in range(60):
        for _ in range(source.randint(1, 3)):
            try:
                _mutate(source, root)
            except OSError:
                continue
        files = source.choice(selections)
        found = []
        for place in (cache, None):
            try:
                found.append(disk.fingerprint(root, place, rules, files))
            except SourceError as error:
                found.append(type(error).__name__)
        run += 1
        assert found[0] == found[1]
    print(f"{run} run, seed {20261124 + seed}, wall {time.monotonic() - began:.1f}")


def test_file_modes_below_the_margin(root: str, cache: str) -> None:
    """A change of mode alone is a change of the selection, without reading the file again."""
    before = disk.fingerprint(root, cache)
    os.chmod(os.path.join(root, "a.txt"), 0o755)
    with disk.scan(root, cache) as tree:
        after = tree.fingerprint(disk.ALL)

    assert after != before
    assert after == disk.fingerprint(root)
    assert file("alpha", 0o755)[0].mode == os.stat(os.path.join(root, "a.txt")).st_mode
