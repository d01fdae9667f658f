"""What is written has the lists that its layer gives it, none of the directory it comes into."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from layercache.layers.write_beneath import WriteBeneath
from layercache.model.tree import Node

needs_acl = pytest.mark.skipif(shutil.which("setfacl") is None, reason="not installed: acl")


@needs_acl
def test_nothing_inherits_a_default_list(tmp_path: Path) -> None:
    """Files, directories and what is in them, FIFOs: mode and lists are those of the entry."""
    done = subprocess.run(
        ["setfacl", "-d", "-m", "u:1000:rwx,g:1000:rwx,m:rwx", os.fspath(tmp_path)], check=False
    )
    if done.returncode:
        pytest.skip("this file system has no access control lists")
    with WriteBeneath(os.fspath(tmp_path), owners=False) as out:
        out.make(b"d", Node(mode=stat.S_IFDIR | 0o750))
        out.file(b"d/deep", Node(mode=stat.S_IFREG | 0o600), None)
        out.file(b"f", Node(mode=stat.S_IFREG | 0o600), None)
        out.other(b"fifo", Node(mode=stat.S_IFIFO | 0o600))
        own = os.getxattr(tmp_path, "system.posix_acl_default")
        listed = Node(mode=stat.S_IFDIR | 0o770, xattrs=((b"system.posix_acl_default", own),))
        out.make(b"listed", listed)
    modes = {"d": 0o750, "d/deep": 0o600, "f": 0o600, "fifo": 0o600, "listed": 0o770}
    for name, mode in modes.items():
        path = tmp_path / name
        lists = [a for a in os.listxattr(path) if a.startswith("system.posix_acl")]
        assert lists == (["system.posix_acl_default"] if name == "listed" else [])
        assert stat.S_IMODE(path.stat().st_mode) == mode
