"""A tree of files as values: its nodes, the facts that count, and its digest.

Contexts, states and archives are all presented as a `Tree`; selection and copying work on any.
Paths are bytes, relative to the root, without leading or trailing slash; the root is b"".
"""

from __future__ import annotations

import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final, Protocol, runtime_checkable

from blake3 import blake3

from layercache._base.classes import frozen

__all__ = [
    "ACCESS_ACL",
    "CAPABILITY",
    "Child",
    "Closes",
    "HardLinks",
    "Linked",
    "Node",
    "Timed",
    "Tree",
    "counted_attributes",
    "described_digest",
    "directory_digest",
    "node_digest",
    "pack_directory",
]

_DIRECTORY: Final = "layercache 2026-11 directory digest 1"
_SPECIAL: Final = "layercache 2026-11 node digest 1"
_DESCRIBED: Final = "layercache 2026-11 node with attributes digest 1"

CAPABILITY: Final = b"security.capability"
"""Capabilities of a file: the only extended attribute that is read from a local context."""

ACCESS_ACL: Final = b"system.posix_acl_access"
"""Who but owner, group and others may do what; the group's bits of the mode are then its mask."""

_COUNTED: Final = (CAPABILITY, b"user.", b"system.posix_acl_")


@frozen
class Node:
    """The facts about one path that `lstat` and reading it would show.

    `mode` includes the type bits; `mtime` is in whole seconds; `content` is the BLAKE3 digest (32
    bytes) of a regular file's bytes; `link` a symbolic link's target; `device` major and minor.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    content: bytes = b""
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


@runtime_checkable
class Tree(Protocol):
    """A read-only tree that does not change while it is used.

    Paths are looked up literally: no symbolic link is followed by any method.
    """

    def lookup(self, path: bytes) -> Node | None:
        """The node at `path`, None if nothing exists there or a parent is not a directory."""

    def children(self, path: bytes) -> Sequence[bytes]:
        """The names in the directory `path`, sorted as bytes; empty if it is not a directory."""

    def digest(self, path: bytes) -> bytes:
        """`node_digest` of the node at `path`; for a directory `described_digest` of its
        `directory_digest`."""

    def open(self, path: bytes) -> BinaryIO:
        """The bytes of the regular file at `path`.

        Reading to the end raises `ContextChanged` if the bytes do not match `Node.content`.
        """


class Closes(ABC):
    """Optional: a tree or an executor that holds something open."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Give it up; nothing is asked afterwards."""


class HardLinks(ABC):
    """Optional: a tree in which several paths may name the same file (hard links)."""

    __slots__ = ()

    @abstractmethod
    def inode(self, path: bytes) -> object | None:
        """A token shared by all names of one file; None for a file with a single name."""

    @abstractmethod
    def shared(self) -> Sequence[tuple[bytes, object]]:
        """Every path that may share its file with another, with its token, in depth-first order
        with names sorted as bytes.
        """


class Linked(ABC):
    """Optional for a tree: gives all names of one file."""

    __slots__ = ()

    @abstractmethod
    def names(self, path: bytes) -> Sequence[bytes]:
        """All names of the file at `path` if it has several, sorted; otherwise empty."""


class Timed(ABC):
    """Optional for a tree: the times of its entries, as a running step sees them."""

    __slots__ = ()

    @abstractmethod
    def code(self, path: bytes) -> int | None:
        """None for a time that was set on purpose, or if nothing exists at the path."""

    @abstractmethod
    def moment(self, path: bytes) -> int:
        """A number that grows with time."""

    @abstractmethod
    def age(self, path: bytes) -> int | None:
        """The number of instants since then; None for a time that was set on purpose."""


Child = tuple[bytes, int, bytes, int, int]
"""Name, mode with type bits, digest, uid, gid."""


def counted_attributes(node: Node) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes that COPY carries and that therefore count: capabilities, ACLs, and
    `user.*` attributes. Labels of the host (`security.selinux`) do not count.
    """
    if not node.xattrs:
        return ()
    return tuple(sorted(pair for pair in node.xattrs if pair[0].startswith(_COUNTED)))


def described_digest(node: Node, digest: bytes) -> bytes:
    """The digest of an entry: its content's `digest`, and the attributes that count, if any."""
    attributes = counted_attributes(node)
    if not attributes:
        return digest
    parts = [struct.pack("<I", len(attributes))]
    for name, value in attributes:
        parts.append(struct.pack("<II", len(name), len(value)) + name + value)
    return blake3(digest + b"".join(parts), derive_key_context=_DESCRIBED).digest()


def node_digest(node: Node) -> bytes:
    """The digest of all facts about a node except its mode and owner; not for directories.

    A file without attributes has its content digest, so that no second hash is needed.
    """
    kind = stat.S_IFMT(node.mode)
    if kind == stat.S_IFREG and not node.xattrs:
        return node.content
    attributes = counted_attributes(node)
    capabilities = [value for name, value in attributes if name == CAPABILITY]
    if len(attributes) > len(capabilities):  # more than these alone
        return described_digest(node, node_digest(_bare(node)))
    if kind == stat.S_IFREG and not capabilities:
        return node.content
    hasher = blake3(derive_key_context=_SPECIAL)
    hasher.update(struct.pack("<I", kind))
    if kind == stat.S_IFREG:
        hasher.update(node.content + capabilities[0])
    elif kind == stat.S_IFLNK:
        hasher.update(node.link)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        hasher.update(struct.pack("<QQ", *node.device))
    return hasher.digest()


def _bare(node: Node) -> Node:
    return Node(mode=node.mode, content=node.content, link=node.link, device=node.device)


def directory_digest(children: Iterable[Child]) -> bytes:
    """The Merkle digest of a directory's children, which must come sorted by name."""
    rows = list(children)
    files = [row for row in rows if not stat.S_ISDIR(row[1])]
    directories = [row for row in rows if stat.S_ISDIR(row[1])]
    count, below = len(files), len(directories)
    owners = b""
    if any(row[3] or row[4] for row in rows):
        ids = [number for row in files + directories for number in row[3:5]]
        owners = struct.pack(f"<{2 * len(rows)}I", *ids)
    return pack_directory(
        count,
        struct.pack(f"<{count}I", *[row[1] for row in files]),
        b"".join([row[2] for row in files]),
        b"\0".join([row[0] for row in files]),
        below,
        struct.pack(f"<{below}I", *[row[1] for row in directories]),
        b"".join([row[2] for row in directories]),
        b"\0".join([row[0] for row in directories]),
        owners,
    )


def pack_directory(
    files: int,
    file_modes: bytes,
    file_digests: bytes,
    file_names: bytes,
    directories: int,
    directory_modes: bytes,
    directory_digests: bytes,
    directory_names: bytes,
    owners: bytes = b"",
) -> bytes:
    """`directory_digest` from columns: non-directories first, each group sorted by name.

    Modes are little-endian u32 with type bits, digests have 32 bytes, names are joined by NUL,
    `owners` is empty if all are 0:0, otherwise uid and gid of each row. Injective: counts and the
    presence of owners come first, the length of every column but the last follows from them, and
    names hold no NUL.
    """
    head = struct.pack("<II?", files, directories, bool(owners))
    parts = (
        head,
        file_modes,
        file_digests,
        directory_modes,
        directory_digests,
        owners,
        file_names,
        b"\0",
        directory_names,
    )
    return blake3(b"".join(parts), derive_key_context=_DIRECTORY).digest()
