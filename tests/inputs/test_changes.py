"""What changes or is swapped while it is read: the bytes copied are the bytes fingerprinted."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import BinaryIO

import pytest

from layercache.errors import ContextChanged, SourceError
from layercache.inputs.scan.context_tree import ContextTree
from layercache.model.selectors import Files
from layercache.trees.in_memory import link
from tests.inputs import disk

BIG = b"0123456789abcdef" * (1 << 17)  # 2 MiB: read in several pieces


@pytest.fixture
def root(tmp_path: str) -> str:
    """A context with a small, a large and an empty file."""
    return disk.make(
        os.path.join(tmp_path, "c"), {"d/small": "abc", "d/big": BIG, "d/empty": "", "x/y": "1"}
    )


def read(tree: ContextTree, path: bytes, size: int = 1 << 16) -> bytes:
    with tree.open(path) as content:
        return b"".join(iter(lambda: content.read(size), b""))


def drain(content: BinaryIO) -> None:
    while content.read(1 << 16):
        pass


def exactly(content: BinaryIO, size: int) -> None:
    while size:
        size -= len(content.read(min(size, 100_000)))


def test_files_are_read_as_they_are(root: str) -> None:
    """Any size of piece gives the bytes, with `read` and with `readinto`."""
    with disk.scan(root) as tree:
        for size in (1, 7, 1 << 20):
            assert read(tree, b"d/small", size) == b"abc"
        assert read(tree, b"d/big") == BIG
        assert read(tree, b"d/empty") == b""
        buffer = bytearray(len(BIG))
        with tree.open(b"d/big") as content:
            assert content.readinto(buffer) == len(BIG)  # type: ignore[attr-defined]
        assert buffer == BIG


CHANGES: dict[str, Callable[[str], object]] = {
    "other bytes": lambda path: _overwrite(path, b"ABC"),
    "last byte": lambda path: _overwrite(path, b"!", -1),
    "appended": lambda path: _append(path),
    "cut": lambda path: os.truncate(path, 1),
    "emptied": lambda path: os.truncate(path, 0),
    "gone": lambda path: os.unlink(path),
    "now a directory": lambda path: _replace(path, os.mkdir),
    "now a link": lambda path: _replace(path, lambda name: os.symlink("/etc/passwd", name)),
    "now a fifo": lambda path: _replace(path, os.mkfifo),
    "directory gone": lambda path: _move(os.path.dirname(path)),
    "directory a link": lambda path: _move(os.path.dirname(path), link="/etc"),
}


def _replace(path: str, make: Callable[[str], object]) -> None:
    os.unlink(path)
    make(path)


def _move(path: str, link: str | None = None) -> None:
    os.rename(path, path + "2")
    if link is not None:
        os.symlink(link, path)


def _overwrite(path: str, data: bytes, at: int = 0) -> None:
    with open(path, "r+b") as out:
        out.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        out.write(data)


def _append(path: str) -> None:
    with open(path, "ab") as out:
        out.write(b"more")


@pytest.mark.parametrize("name", ["small", "big"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_after_the_fingerprint_is_refused(root: str, what: str, name: str) -> None:
    """Whatever happens to a file after it was fingerprinted, its copy fails and stores nothing."""
    path = b"d/" + name.encode()
    with disk.scan(root) as tree:
        tree.fingerprint(disk.ALL)
        CHANGES[what](os.path.join(root, os.fsdecode(path)))
        with pytest.raises(ContextChanged, match="changed while it was being copied"):
            read(tree, path)


def test_an_unchanged_rewrite_is_no_change(root: str) -> None:
    """The same bytes under new stamps are the same content."""
    with disk.scan(root) as tree:
        tree.fingerprint(disk.ALL)
        disk.put(root, "d/small", "abc")
        assert read(tree, b"d/small") == b"abc"


def test_a_reader_that_stops_at_the_size_is_told(root: str) -> None:
    """Who reads exactly the announced size and never asks for the end is told, too."""
    with disk.scan(root) as tree:
        node = tree.lookup(b"d/big")
        assert node is not None
        _overwrite(os.path.join(root, "d/big"), b"!", -1)
        with tree.open(b"d/big") as content, pytest.raises(ContextChanged):
            exactly(content, node.size)


def test_a_change_in_the_middle_of_reading_is_seen(root: str) -> None:
    """Bytes that change after the first piece was handed out fail the last one."""
    with disk.scan(root) as tree:
        tree.fingerprint(disk.ALL)
        with tree.open(b"d/big") as content:
            content.read(1000)
            _overwrite(os.path.join(root, "d/big"), b"ABC", -3)
            with pytest.raises(ContextChanged):
                drain(content)


def test_a_file_that_grows_while_it_is_read_is_seen(root: str) -> None:
    """More bytes than were fingerprinted are an error, not a longer file."""
    with disk.scan(root) as tree:
        tree.fingerprint(disk.ALL)
        with tree.open(b"d/big") as content:
            content.read(1000)
            _append(os.path.join(root, "d/big"))
            with pytest.raises(ContextChanged):
                drain(content)


@pytest.mark.parametrize("what", [w for w in CHANGES if w not in {"other bytes", "last byte"}])
def test_a_change_before_the_file_is_first_read(root: str, what: str) -> None:
    """Between the scan and the first read a file may move on; it is taken whole or refused."""
    with disk.scan(root) as tree:
        CHANGES[what](os.path.join(root, "d/small"))
        try:
            tree.fingerprint(Files(("d/small",)))
        except ContextChanged:
            return
        node = tree.lookup(b"d/small")
        assert node is not None
        data = read(tree, b"d/small")
        assert len(data) == node.size


def test_a_file_that_never_holds_still(root: str) -> None:
    """A file written to all the time gives one consistent answer or an error, never a mixture."""
    path = os.path.join(root, "d/big")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 256
            _overwrite(path, bytes([number]) * 4096)
            _overwrite(path, bytes([number]) * 4096, -4096)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            with disk.scan(root) as tree:
                try:
                    tree.fingerprint(disk.ALL)
                    data = read(tree, b"d/big")
                except ContextChanged:
                    continue
                assert data[:4096] in {data[-4096:], bytes([(data[-1] + 1) % 256]) * 4096}
    finally:
        stop.set()
        writer.join()


# -- escapes -----------------------------------------------------------------------------------


def test_links_inside_are_never_followed_on_disk(tmp_path: str) -> None:
    """Links out of the context are copied as links; named, they stay inside the root."""
    secret = os.path.join(tmp_path, "secret")
    disk.put(str(tmp_path), "secret", "outside")
    root = disk.make(
        os.path.join(tmp_path, "c"),
        {"d/abs": link(secret), "d/up": link("../../secret"), "host": link("/etc"), "etc/x": "in"},
    )
    with disk.scan(root) as tree:
        tree.fingerprint(Files(("d",)))
        assert tree.counts.files_opened == 0
        for name in (b"d/abs", b"d/up"):
            with pytest.raises(SourceError):
                tree.fingerprint(Files((os.fsdecode(name),)))
            with pytest.raises(SourceError):
                tree.open(name)
        assert tree.children(b"host") == ()
        tree.fingerprint(Files(("host/x",)))
        assert read(tree, b"etc/x") == b"in"


def test_a_directory_swapped_for_a_link_leads_nowhere(tmp_path: str) -> None:
    """Between scan and read a directory becomes a link to outside: nothing there is read."""
    disk.make(os.path.join(tmp_path, "outside"), {"small": "xyz"})
    root = disk.make(os.path.join(tmp_path, "c"), {"d/small": "abc", "e/f": "1"})
    with disk.scan(root) as tree:
        os.rename(os.path.join(root, "d"), os.path.join(root, "d2"))
        os.symlink("../outside", os.path.join(root, "d"))
        tree.fingerprint(Files(("e",)))
        with pytest.raises(ContextChanged):
            tree.fingerprint(disk.ALL)


def test_a_link_retargeted_after_the_scan(tmp_path: str) -> None:
    """The target that is copied is the target that was fingerprinted."""
    root = disk.make(os.path.join(tmp_path, "c"), {"d/l": link("a")})
    with disk.scan(root) as tree:
        tree.fingerprint(disk.ALL)
        os.unlink(os.path.join(root, "d/l"))
        os.symlink("b", os.path.join(root, "d/l"))
        with pytest.raises(ContextChanged):
            tree.lookup(b"d/l")


def test_scanning_beside_a_storm(tmp_path: str) -> None:
    """Files and directories that come and go during scans never crash one or leave it stale."""
    root, cache = os.path.join(tmp_path, "c"), os.path.join(tmp_path, "cache")
    disk.make(root, {f"d{n}/f{m}": f"{n}{m}" for n in range(5) for m in range(20)})
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            where = f"d{number % 5}"
            disk.put(root, f"{where}/new{number % 11}", str(number))
            os.rename(os.path.join(root, where), os.path.join(root, "moved"))
            os.rename(os.path.join(root, "moved"), os.path.join(root, where))
            os.unlink(os.path.join(root, where, f"new{number % 11}"))

    writer = threading.Thread(target=churn)
    writer.start()
    done = 0
    try:
        for _ in range(60):
            try:
                disk.fingerprint(root, cache)
                done += 1
            except SourceError:
                continue
    finally:
        stop.set()
        writer.join()
    disk.age(root)

    assert disk.fingerprint(root, cache) == disk.fingerprint(root)
    print(f"60 run, {done} undisturbed")


def test_no_descriptor_stays_open(root: str) -> None:
    """Scans, readers and errors leave nothing open."""
    gc.collect()  # what earlier tests left open closes when it is collected
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with disk.scan(root) as tree:
            tree.fingerprint(disk.ALL)
            read(tree, b"d/big")
            _append(os.path.join(root, "d/small"))
            with pytest.raises(ContextChanged):
                tree.open(b"d/small")
            disk.put(root, "d/small", "abc")
    disk.scan(root)  # dropped without closing

    assert len(os.listdir("/proc/self/fd")) <= before
