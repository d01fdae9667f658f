"""The stat cache: one file that stores columns, trusted only where that is safe.

It is a hint of this machine for this machine. A file with any defect (damage, another format,
another owner) counts as missing. It is replaced atomically and never synced: losing it costs one
scan.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from typing import Final, TypeAlias

from blake3 import blake3

from layercache.inputs.scan.columns import DIGEST, ROW, Columns
from layercache.inputs.scan.filesystems import MountTable

__all__ = ["distrust", "load", "save", "untrusted_devices"]

_MAGIC: Final = b"LCstat2\n"
_HEAD: Final = struct.Struct("<32s8sQQQQQ")
_CAPABILITY: Final = struct.Struct("<QI")

Buffer: TypeAlias = "bytes | bytearray"

MARGIN: Final = 20_000_000
"""Nanoseconds: stamps come from a clock that ticks every 1 to 10 ms, and what changes twice in
one tick looks the same (git's racy rule)."""

COARSE_MARGIN: Final = 2_020_000_000
"""Nanoseconds, for stamps that show no fraction: a file system of 1 or 2 second steps."""

_SECOND: Final = 1_000_000_000


def load(path: str, rules: bytes) -> tuple[Columns, bool] | None:
    """The columns stored at `path`, and whether they were made under the same `rules`.

    `rules` (32 bytes) identify the ignore patterns. None if the file is unusable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o170022 != 0o100000:
            return None
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            data = file.readall()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return _decode(data, rules)


def _decode(data: bytes, rules: bytes) -> tuple[Columns, bool] | None:
    view = memoryview(data)
    size = len(_MAGIC) + DIGEST
    if len(data) < size + _HEAD.size or not data.startswith(_MAGIC):
        return None
    if blake3(view[size:]).digest() != view[len(_MAGIC) : size]:
        return None
    found, order, directories, files, paths, names, capabilities = _HEAD.unpack_from(data, size)
    if order.rstrip(b"\0") != sys.byteorder.encode():
        return None
    at = size + _HEAD.size

    def take(count: int) -> memoryview:
        nonlocal at
        at += count
        return view[at - count : at]

    columns = Columns()
    columns.dir_rows = bytearray(take(directories * ROW))
    columns.dir_digests = bytearray(take(directories * DIGEST))
    columns.dir_known = bytearray(take(directories))
    columns.dir_flags = bytearray(take(directories))
    columns.starts = array("Q", bytes(take((directories + 1) * 8)))
    columns.known_ends = array("q", bytes(take(directories * 8)))
    columns.rows = bytearray(take(files * ROW))
    columns.digests = bytearray(take(files * DIGEST))
    columns.known = bytearray(take(files))
    lengths = array("I", bytes(take(directories * 4)))
    columns.dir_paths = bytes(take(paths)).split(b"\0")
    blob = take(names)
    extra = take(capabilities)
    if at != len(data) or len(columns.dir_paths) != directories:
        return None
    start = 0
    for length in lengths:
        columns.dir_names.append(bytes(blob[start : start + length]))
        start += length
    while extra:
        file, length = _CAPABILITY.unpack_from(extra)
        size = _CAPABILITY.size
        content, value = extra[size : size + DIGEST], extra[size + DIGEST : size + DIGEST + length]
        columns.capabilities[file] = (bytes(content), bytes(value))
        extra = extra[size + DIGEST + length :]
    return columns, found == rules


def _encode(columns: Columns, rules: bytes, rows: bytes, dir_rows: bytes) -> list[Buffer]:
    paths = b"\0".join(columns.dir_paths)
    names = b"".join(columns.dir_names)
    extra = b"".join(
        _CAPABILITY.pack(file, len(value)) + content + value
        for file, (content, value) in columns.capabilities.items()
    )
    head = _HEAD.pack(
        rules,
        sys.byteorder.encode(),
        len(columns.dir_paths),
        len(columns.known),
        len(paths),
        len(names),
        len(extra),
    )
    body: list[Buffer] = [
        head,
        dir_rows,
        bytes(columns.dir_digests),
        bytes(columns.dir_known),
        bytes(columns.dir_flags),
        columns.starts.tobytes(),
        columns.ends.tobytes(),
        rows,
        columns.digests,
        columns.known,
        array("I", map(len, columns.dir_names)).tobytes(),
        paths,
        names,
        extra,
    ]
    hasher = blake3()
    for part in body:
        hasher.update(part)
    return [_MAGIC, hasher.digest(), *body]


def distrust(rows: bytearray, before: int, untrusted: set[int]) -> bytes:
    """`rows` with ctime 0, which never matches, for entries that may change without a new stamp.

    `before` is the time at which the scan began, in nanoseconds.
    """
    column = array("q", bytes(rows))
    mtimes, ctimes = column[2::6], column[3::6]
    suspects: list[int] = []
    limit = before - COARSE_MARGIN
    if len(ctimes) and (max(ctimes) >= limit or max(mtimes) >= limit):
        for number, newest in enumerate(map(max, mtimes, ctimes)):
            if newest >= limit and (
                newest >= before - MARGIN or not ctimes[number] % _SECOND
            ):  # fmt: skip
                suspects.append(number)
    if untrusted:
        devices = array("Q", bytes(rows))[5::6]
        suspects += [number for number, device in enumerate(devices) if device in untrusted]
    for number in suspects:
        column[number * 6 + 3] = 0
    return column.tobytes()


def save(path: str, rules: bytes, columns: Columns, root: bytes, before: int) -> None:
    """Store `columns` at `path`; raises `OSError` if the file can't be written.

    `before` is the time in nanoseconds at which the scan began, `root` the absolute path of the
    context (to determine its file systems).
    """
    untrusted = untrusted_devices(columns, root)
    rows = distrust(columns.rows, before, untrusted)
    dir_rows = distrust(columns.dir_rows, before, untrusted)
    parts = _encode(columns, rules, rows, dir_rows)
    os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[file.write(view) :]
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def untrusted_devices(columns: Columns, root: bytes) -> set[int]:
    """Devices below `root` whose stamps don't show every change."""
    devices = set(array("Q", bytes(columns.dir_rows))[5::6])
    devices |= set(array("Q", bytes(columns.rows))[5::6])
    mounts = MountTable()
    found: set[int] = set()
    for device in devices:
        where = root
        for number, path in enumerate(columns.dir_paths):
            if columns.dir_row(number)[5] == device:
                where = root + b"/" + path if path else root
                break
        if not mounts.trusted(device, where):
            found.add(device)
    return found
