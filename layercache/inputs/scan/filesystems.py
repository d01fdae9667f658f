"""Which file systems can be trusted to show every change in their stamps.

A change time set by this machine's clock is what the stat cache rests on. Network and FUSE file
systems have another clock or caches of their own, FAT has no change time: there everything is
read again.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from layercache._base.regex import expression

__all__ = ["Mounts"]

TRUSTED: Final = frozenset(
    (
        "ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "rootfs", "overlay", "aufs",
        "f2fs", "zfs", "bcachefs", "jfs", "nilfs2", "squashfs", "erofs", "iso9660", "ubifs",
    )
)  # fmt: skip
"""Local file systems whose change time can't be set and comes from this machine's clock."""

_OCTAL: Final = expression(rb"\\([0-7]{3})")


class Mounts:
    """The mount table, read once (`proc/self/mountinfo`, see proc(5)); empty where there is none.

    `table` overrides it for tests.
    """

    def __init__(self, table: bytes | None = None) -> None:
        self._by_device: dict[int, str] = {}
        self._by_path: list[tuple[bytes, str]] = []
        if table is None:
            table = b""
            if sys.platform == "linux":
                try:
                    with open("/proc/self/mountinfo", "rb") as file:
                        table = file.read()
                except OSError:
                    table = b""  # no table: nothing is trusted
        for line in table.splitlines():
            fields, _, rest = line.partition(b" - ")
            parts = fields.split(b" ")
            kind = rest.split(b" ")[0].decode("ascii", "replace")
            if len(parts) < 5 or not kind:
                continue
            major, _, minor = parts[2].partition(b":")
            if major.isdigit() and minor.isdigit():
                self._by_device[os.makedev(int(major), int(minor))] = kind
            where = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), parts[4])
            self._by_path.append((where, kind))

    def trusted(self, device: int, path: bytes) -> bool:
        """Whether stamps on `device` (where the absolute `path` lies) show every change."""
        kind = self._by_device.get(device)
        if kind is None:
            # btrfs subvolumes have device numbers of their own; the longest mount point counts,
            # the last of several mounts on one.
            best = -1
            for where, name in self._by_path:
                inside = where == b"/" or path == where or path.startswith(where + b"/")
                if inside and len(where) >= best:
                    best, kind = len(where), name
        return kind in TRUSTED
