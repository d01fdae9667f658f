"""Extended attributes, on platforms that have calls for them; elsewhere "not supported"."""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["get_xattr", "list_xattrs", "remove_xattr", "set_xattr"]

if sys.platform == "linux":
    # The calls themselves: `list_xattrs` is made for every file that is read.
    get_xattr = os.getxattr
    list_xattrs = os.listxattr
    remove_xattr = os.removexattr
    set_xattr = os.setxattr
else:
    _NOT_HERE = OSError(errno.ENOTSUP, "this platform has no extended attributes")

    def get_xattr(path: int | bytes, name: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """As `os.getxattr`."""
        raise _NOT_HERE

    def list_xattrs(path: int | bytes, *, follow_symlinks: bool = True) -> list[str]:
        """As `os.listxattr`: none."""
        return []

    def remove_xattr(path: int | bytes, name: str | bytes, *, follow_symlinks: bool = True) -> None:
        """As `os.removexattr`."""
        raise _NOT_HERE

    def set_xattr(
        path: int | bytes, name: str | bytes, value: bytes, *, follow_symlinks: bool = True
    ) -> None:
        """As `os.setxattr`."""
        raise _NOT_HERE
