"""The battery of observations: what each kind must have been seen to look at."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs

from layercache.model.observations import BITS, Observations
from layercache.model.task import Result
from tests.executors.rootfs.conftest import Bench

__all__ = ["EXPECTED", "battery_base", "letters", "observe", "program"]

F: Final = "t/file"

EXPECTED: Final[dict[str, dict[str, str]]] = {
    "read_file": {"t": "E", F: "ER"},
    "open_absent": {"t/absent": "N"},
    "stat_file": {F: "ES"},
    "stat_directory": {"t/dir": "ES"},
    "stat_absent": {"t/absent": "N"},
    "lstat_link": {"t/link": "ESZ"},
    "fstat_open": {F: "ES"},
    "stat_path_fd": {F: "ES"},
    "statx_file": {F: "ES"},
    "statx_cached": {F: "ESZ"},
    "statx_cached_after_read": {F: "ESRZ"},
    "access_file": {F: "E"},
    "access_absent": {"t/absent": "N"},
    "faccessat2_file": {F: "E"},
    "readlink_link": {"t/link": "EL"},
    "follow_link": {"t/link": "EL", F: "ER"},
    "follow_chain": {"t/chain1": "EL", "t/chain2": "EL", "t/chain3": "EL", F: "ER"},
    "follow_directory_link": {"t/dirlink": "EL", "t/dir": "E", "t/dir/inner": "ER"},
    "dangling_link": {"t/dangling": "EL", "t/absent": "N"},
    "absent_beneath_directory": {"t/dir": "E", "t/dir/absent": "N"},
    "dotdot": {"t/dir": "E", F: "ER"},
    "list_directory": {"t/dir": "ED"},
    "list_empty": {"t/empty": "ED"},
    "list_through_link": {"t/dirlink": "EL", "t/dir": "ED"},
    "list_root": {"": "D"},
    "relative_to_cwd": {"t/dir": "E", "t/dir/inner": "ER"},
    "relative_to_dirfd": {"t/dir": "E", "t/dir/inner": "ER"},
    "relative_after_fchdir": {"t/dir/inner": "ES"},
    "openat2_beneath": {"t/dir/inner": "ER"},
    "open_path_only": {F: "E"},
    "chdir_directory": {"t/dir": "E"},
    "chroot_directory": {"t/dir/inner": "ER"},
    "mmap_file": {F: "ER"},
    "mmap_shared": {F: "ER"},
    "pread_file": {F: "ER"},
    "readv_file": {F: "ER"},
    "read_page_in_middle": {"t/big": "ER"},
    "readahead_then_read": {F: "ER"},
    "sendfile_file": {F: "ER"},
    "splice_file": {F: "ER"},
    "copy_range": {F: "ER"},
    "size_by_fionread": {F: "EZ"},
    "size_by_seek": {F: "EZ"},
    "size_by_read": {"t/nothing": "EZ"},
    "size_by_sendfile": {"t/nothing": "EZ"},
    "size_by_fiemap": {F: "EZ"},
    "hole_by_seek": {F: "EZ"},
    "uring_open": {F: "ER"},
    "uring_statx": {F: "ES"},
    "uring_statx_cached": {F: "ESZ"},
    "int80_open": {F: "ER"},
    "xattr_get": {"t/marked": "EX"},
    "xattr_absent": {F: "EX"},
    "xattr_list": {"t/marked": "EX"},
    "xattr_none": {F: "EX"},
    "exec_script": {"t/script": "ER", "t/dir/again": "ER"},
    "exec_static": {"t/dir/again": "ER"},
    "exec_by_fd": {"t/dir/again": "ER"},
    "exec_absent": {"bin/not-in-path": "N", "usr": "N"},
    "append_copies_up": {F: "ESR"},
    "chmod_copies_up": {F: "ESR"},
    "chown_copies_up": {F: "ESR"},
    "utime_copies_up": {F: "ESR"},
    "truncate_copies_up": {F: "E"},
    "write_into_middle": {F: "ESR"},
    "overwrite": {F: "E"},
    "create_exclusive": {F: "E"},
    "create_absent": {"t/absent": "N"},
    "rename_file": {F: "ESR", "t/absent": "N"},
    "rename_over": {F: "ESR", "t/other": "E"},
    "rename_no_replace": {F: "E", "t/other": "E"},
    "rename_exchange": {F: "ESR", "t/other": "ESR"},
    "hard_link": {F: "ESR", "t/absent": "N"},
    "unlink_file": {F: "E"},
    "unlink_absent": {"t/absent": "N"},
    "rmdir_directory": {"t/empty": "ED"},
    "rmdir_full": {"t/dir": "ED"},
    "mkdir_absent": {"t/absent": "N"},
    "mkdir_there": {"t/dir": "E"},
    "symlink_absent": {"t/absent": "N"},
    "mkfifo_absent": {"t/absent": "N"},
    "temporary_file": {"t/dir": "E"},
    "create_in_directory": {"t/dir": "E", "t/dir/new": "N"},
    "bind_socket": {"t/absent": "N"},
    "connect_socket": {"t/absent": "N"},
    "watch_file": {F: "E"},
    "handle_of_file": {F: "E"},
    "statfs_file": {F: "E"},
    "lock_file": {F: "E"},
    "in_thread": {F: "ER"},
    "in_child": {F: "ER"},
    "in_orphan": {F: "ER"},
    "through_proc": {F: "ER"},
    "device_stat": {"t/device": "ES"},
    "stat_after_read": {"t/nothing": "ESZ"},
}
"""Kind → path → letters that must be among what was seen there (`observations.BITS`)."""

NOT_READ: Final = ("overwrite", "stat_file", "open_path_only", "create_exclusive", "unlink_file")
"""Kinds after which the bytes of `t/file` must not count: what is not looked at changes nothing."""

_BIG: Final = bytes(range(256)) * 1024


@cache
def program() -> bytes | None:
    """The battery, compiled; None without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("observe.c")
    command = [compiler, "-static", "-O1", "-pthread", "-w", "-o", "/dev/stdout", str(source)]
    # A linker writes by seeking: not into a pipe.
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        command[-2] = f"{directory}/observe"
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            return None
        return Path(command[-2]).read_bytes()


def battery_base(*, attributes: bool = True) -> bytes:
    """The layer that the battery looks at; one of its files has extended attributes, or none."""
    observe = program()
    assert observe is not None
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, content: bytes | None = None, **fields: object) -> None:
            info = tarfile.TarInfo(name)
            info.mtime = 1_599_000_000  # as that of a copied file, which counts when asked for
            info.mode = 0o755
            if content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content or b""))

        for directory in ("bin", "proc", "sys", "dev", "t", "t/dir", "t/empty"):
            add(directory)
        add("observe", observe)
        add("t/dir/again", observe)
        add("t/dir/inner", b"inner")
        add(F, b"fifth")
        add("t/other", b"other")
        add("t/nothing", b"")
        add("t/big", _BIG)
        marks = {"SCHILY.xattr.user.mark": "value"} if attributes else {}
        add("t/marked", b"marked", pax_headers=marks)
        add("t/script", b"#!/t/dir/again nothing\n")
        add("t/device", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        for name, target in (
            ("t/link", "file"),
            ("t/chain1", "chain2"),
            ("t/chain2", "/t/chain3"),
            ("t/chain3", "dir/../file"),
            ("t/dirlink", "dir"),
            ("t/dangling", "absent"),
        ):
            add(name, b"", type=tarfile.SYMTYPE, linkname=target, mode=0o777)
    return out.getvalue()


def observe(bench: Bench, *args: str, **fields: Any) -> Result:
    """Run a command on the bench's base, watched."""
    from tests.executors.rootfs.conftest import Window

    task = attrs.evolve(bench.task(*args, **fields), observe=True)
    return bench.executor.execute(task, Window(bench))


def letters(observed: Observations, path: str) -> str:
    """What was seen of a path."""
    bits = dict(observed.rows).get(path.encode(), 0)
    return "".join(letter for bit, letter in BITS.items() if bits & bit)


def missing(observed: Observations, expected: dict[str, str]) -> dict[str, str]:
    """What of `expected` was not seen."""
    found = {}
    for path, wanted in expected.items():
        seen = letters(observed, path)
        if lacking := "".join(letter for letter in wanted if letter not in seen):
            found[path] = f"{lacking} not in {seen or 'nothing'}"
    return found
