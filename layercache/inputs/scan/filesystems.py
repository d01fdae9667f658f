"""File systems whose stamps can be trusted to show every change.

The stat cache relies on a change time set by this machine's clock. Network and FUSE file systems
have another clock or caches of their own; FAT has no change time; an image that is mounted
read-only (squashfs, erofs, iso9660) can be replaced by another with the same stamps; tmpfs and
ramfs never update stamps after a write through a shared mapping. On these, and on overlays over
them, every file is read again.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from layercache._base.regex import expression

__all__ = ["MountTable"]

TRUSTED: Final = frozenset(
    (
        "ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "f2fs", "zfs", "bcachefs", "jfs",
        "nilfs2", "ubifs",
    )
)  # fmt: skip
"""Local file systems whose change time can't be set and comes from this machine's clock; for an
overlay, the directories beneath it must be on such file systems, too."""

_BENEATH: Final = ("lowerdir", "lowerdir+", "datadir+", "upperdir")
"""Options of an overlay that name directories."""

_OCTAL: Final = expression(rb"\\([0-7]{3})")


class MountTable:
    """The mount table, read once (`proc/self/mountinfo`, see proc(5)); empty if there is none.

    `table` overrides it for tests.
    """

    def __init__(self, table: bytes | None = None) -> None:
        self._by_device: dict[int, str] = {}
        self._by_path: list[tuple[bytes, str]] = []
        self._beneath: dict[bytes, list[bytes]] = {}
        """Overlay's mount point → the directories that it lies over."""
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
            where = _unescaped(parts[4])
            self._by_path.append((where, kind))
            if kind == "overlay":
                options = rest.split(b" ")[-1]
                self._beneath[where] = [_unescaped(d) for d in _directories(options)]

    def trusted(self, device: int, path: bytes) -> bool:
        """Whether stamps on `device` (which holds the absolute `path`) show every change."""
        kind = self._by_device.get(device)
        where, found = self._mount(path)
        # btrfs subvolumes have device numbers of their own; the mount point tells then.
        kind = kind or found
        if kind not in TRUSTED:
            return False
        return kind != "overlay" or self._trusted_beneath(where, {where})

    def _mount(self, path: bytes) -> tuple[bytes, str]:
        """The longest mount point that contains `path`, the last of several on one, and its
        type.
        """
        best: tuple[bytes, str] = (b"", "")
        for where, kind in self._by_path:
            inside = where in (b"/", path) or path.startswith(where + b"/")
            if inside and len(where) >= len(best[0]):
                best = where, kind
        return best

    def _trusted_beneath(self, overlay: bytes, seen: set[bytes]) -> bool:
        """Whether the directories beneath an overlay can be trusted, as far as they are visible: a
        container does not see the host directories of its own overlay.
        """
        for directory in self._beneath.get(overlay, ()):
            where, kind = self._mount(directory)
            if where in seen:
                continue
            if kind not in TRUSTED:
                return False
            if kind == "overlay" and not self._trusted_beneath(where, seen | {where}):
                return False
        return True


def _directories(options: bytes) -> list[bytes]:
    """The directories of an overlay's mount options, absolute ones only."""
    found = []
    for option in options.split(b","):
        name, _, value = option.partition(b"=")
        if name.decode("ascii", "replace") in _BENEATH:
            found += [part for part in value.split(b":") if part.startswith(b"/")]
    return found


def _unescaped(text: bytes) -> bytes:
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), text)
