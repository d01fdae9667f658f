"""POSIX access control lists in the kernel's format (`system.posix_acl_access`).

A version (4 bytes), then entries of tag, permissions (2 bytes each) and id (4 bytes), all
little-endian (Linux, include/uapi/linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["with_mode"]

_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_OWNER, _GROUP, _MASK, _OTHERS = 0x01, 0x04, 0x10, 0x20


def with_mode(acl: bytes, permissions: int) -> bytes | None:
    """`acl` after chmod(2) to `permissions`: if there is a mask, the group's bits apply to it. None
    if the ACL is malformed: leaving it out is safer than granting too much.
    """
    if not acl.startswith(_VERSION) or (len(acl) - len(_VERSION)) % _ENTRY.size:
        return None
    entries = list(_ENTRY.iter_unpack(acl[len(_VERSION) :]))
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP
    bits = {_OWNER: permissions >> 6 & 7, group: permissions >> 3 & 7, _OTHERS: permissions & 7}
    changed = [(tag, bits.get(tag, old), number) for tag, old, number in entries]
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in changed)
