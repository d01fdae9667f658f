"""Worlds of scenarios: files made and changed as the scenario format says (version 1)."""

from __future__ import annotations

import base64
import gzip
import io
import os
import shutil
import socket
import stat
import struct
import tarfile
from collections.abc import Mapping
from typing import Any

__all__ = ["EPOCH", "World", "fill_placeholders"]

EPOCH = 1_700_000_000
"""The default modification time of every file and directory, in seconds since 1970."""

_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""A `security.capability` value: cap_net_bind_service, effective and permitted."""


def fill_placeholders(value: Any, table: Mapping[str, str]) -> Any:
    """`value` with `@SALT@` and `@HTTP@` replaced in every text."""
    if isinstance(value, str):
        for name, text in table.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, list):
        return [fill_placeholders(item, table) for item in value]
    if isinstance(value, dict):
        return {
            fill_placeholders(key, table): fill_placeholders(item, table)
            for key, item in value.items()
        }
    return value


class World:
    """One context directory."""

    def __init__(self, root: str, files: Mapping[str, Any]) -> None:
        self.root = root
        os.makedirs(root, exist_ok=True)
        # Directories first, so that a hard link finds its target whatever the order.
        for path, entry in sorted(files.items(), key=lambda item: "hardlink" in str(item[1])):
            self.write(path, entry, EPOCH)
        self._settle()

    def _settle(self) -> None:
        for directory, _, _ in os.walk(self.root):
            os.utime(directory, (EPOCH, EPOCH))

    def path(self, name: str) -> str:
        """Where a file of the context is."""
        return os.path.join(self.root, name)

    def write(self, name: str, entry: Any, mtime: int) -> None:
        """Make `name` what the entry says; a file that is there is written in place."""
        if isinstance(entry, str):
            entry = {"content": entry}
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if entry.get("unlink_first") and os.path.lexists(path):
            os.unlink(path)
        self._make(path, entry)
        special = {"symlink", "socket", "device", "fifo"} & set(entry)
        if "mode" in entry or not special:
            default = 0o755 if entry.get("dir") else 0o644
            os.chmod(path, int(entry["mode"], 8) if "mode" in entry else default)
        if "uid" in entry or "gid" in entry:
            os.chown(path, entry.get("uid", 0), entry.get("gid", 0), follow_symlinks=False)
        for key, value in (entry.get("xattrs") or {}).items():
            os.setxattr(path, key, value.encode())
        when = entry.get("mtime", mtime)
        os.utime(path, (when, when), follow_symlinks=False)

    def _make(self, path: str, entry: Mapping[str, Any]) -> None:
        if entry.get("dir"):
            os.makedirs(path, exist_ok=True)
        elif "symlink" in entry:
            self._clear(path)
            os.symlink(entry["symlink"], path)
        elif "hardlink" in entry:
            self._clear(path)
            os.link(self.path(entry["hardlink"]), path)
        elif entry.get("fifo"):
            self._clear(path)
            os.mkfifo(path)
        elif entry.get("socket"):
            self._clear(path)
            with socket.socket(socket.AF_UNIX) as bound:
                here = os.getcwd()
                os.chdir(os.path.dirname(path))  # the address of a socket is short
                try:
                    bound.bind(os.path.basename(path))
                finally:
                    os.chdir(here)
        elif "device" in entry:
            self._clear(path)
            kind, major, minor = entry["device"]
            mode = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
            os.mknod(path, mode | 0o600, os.makedev(major, minor))
        else:
            there = os.path.isfile(path) and not os.path.islink(path)
            with open(path, "r+b" if there else "wb") as out:
                out.truncate(0)
                if "sparse" in entry:
                    out.seek(entry["sparse"])
                    out.truncate()
                out.write(_bytes(entry))

    @staticmethod
    def _clear(path: str) -> None:
        if os.path.lexists(path):
            os.unlink(path)

    def mutate(self, operation: Mapping[str, Any], now: int) -> None:
        """Apply one operation on files; `now` is the time that changes get."""
        kind = operation["op"]
        path = self.path(operation.get("path", ""))
        if kind == "write":
            times = os.lstat(path) if operation.get("preserve_mtime") else None
            kept = {k: v for k, v in operation.items() if k not in {"op", "path", "context"}}
            if "mode" not in kept and "dir" not in kept and os.path.isfile(path):
                kept["mode"] = f"{stat.S_IMODE(os.stat(path).st_mode):o}"
            self.write(operation["path"], kept, now)
            if times is not None:
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        elif kind == "append":
            with open(path, "ab") as out:
                out.write(operation["content"].encode())
            os.utime(path, (now, now))
        elif kind == "delete":
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        elif kind == "chmod":
            os.chmod(path, int(operation["mode"], 8))
        elif kind == "chown":
            os.chown(path, operation.get("uid", -1), operation.get("gid", -1))
        elif kind == "touch":
            when = operation.get("mtime", now)
            os.utime(path, (when, when), follow_symlinks=False)
        elif kind == "rename":
            os.makedirs(os.path.dirname(self.path(operation["to"])), exist_ok=True)
            os.rename(path, self.path(operation["to"]))
        elif kind == "swap":
            other, aside = self.path(operation["with"]), path + ".swapping"
            os.rename(path, aside)
            os.rename(other, path)
            os.rename(aside, other)
        elif kind == "mkdir":
            os.makedirs(path)
            os.utime(path, (now, now))
        elif kind == "symlink":
            self._clear(path)
            os.symlink(operation["target"], path)
            os.utime(path, (now, now), follow_symlinks=False)
        elif kind == "hardlink":
            self._clear(path)
            os.link(self.path(operation["target"]), path)
        elif kind == "setxattr":
            name = operation.get("name", "user.test")
            os.setxattr(path, name, operation.get("value", "1").encode())
        elif kind == "removexattr":
            os.removexattr(path, operation.get("name", "user.test"))
        elif kind == "setcap":
            os.setxattr(path, "security.capability", _CAPABILITY)
        else:
            raise ValueError(f"unknown operation {kind!r}")


def _bytes(entry: Mapping[str, Any]) -> bytes:
    if "tar" in entry:
        data = _tar(entry["tar"], entry.get("tar_mtime", EPOCH))
        return gzip.compress(data, entry["gzip"], mtime=0) if "gzip" in entry else data
    if "b64" in entry:
        return base64.b64decode(entry["b64"])
    if "fill" in entry:
        return str(entry["fill"]).encode() * int(entry["size"])
    return str(entry.get("content", "")).encode("utf-8", "surrogateescape")


def _tar(members: Mapping[str, Any], mtime: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, entry in members.items():
            if isinstance(entry, str):
                entry = {"content": entry}
            info = tarfile.TarInfo(name)
            info.mtime = entry.get("mtime", mtime)
            info.uid, info.gid = entry.get("uid", 0), entry.get("gid", 0)
            info.mode = int(entry.get("mode", "0755" if entry.get("dir") else "0644"), 8)
            for key, value in (entry.get("xattrs") or {}).items():
                info.pax_headers = {**info.pax_headers, f"SCHILY.xattr.{key}": value}
            data = b""
            if entry.get("dir"):
                info.type = tarfile.DIRTYPE
            elif "symlink" in entry:
                info.type, info.linkname = tarfile.SYMTYPE, entry["symlink"]
            elif "hardlink" in entry:
                info.type, info.linkname = tarfile.LNKTYPE, entry["hardlink"]
            elif entry.get("fifo"):
                info.type = tarfile.FIFOTYPE
            elif "device" in entry:
                kind, info.devmajor, info.devminor = entry["device"]
                info.type = tarfile.CHRTYPE if kind == "c" else tarfile.BLKTYPE
            else:
                data = _bytes(entry)
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
