"""Facts derived from a tree's accounts: the resolved user, the owner given by `--chown`.

The result is in the key as a value, so that an unrelated line in /etc/passwd changes nothing.
"""

from __future__ import annotations

from typing import Final

from layercache.errors import BuildError, CacheError, UsageError
from layercache.layers.accounts import resolve_owner
from layercache.layers.follow_links import resolve
from layercache.layers.passwd import resolve_user
from layercache.model.instruction import Value
from layercache.model.tree import Node, Tree

__all__ = ["FILES", "account_files", "derive", "read_file"]

FILES: Final = (b"etc/passwd", b"etc/group")
_LIMIT: Final = 8 << 20


def derive(kind: str, text: str, tree: Tree) -> Value:
    """`("user", USER)`: uid, gid, groups, home; `("owner", CHOWN)`: uid, gid.

    If the account does not exist or is unusable, the result is a text with the reason: such a step
    would fail, and no recorded step has this value. Raises `CacheError` if the account files can't
    be read.
    """
    try:
        if kind == "user":
            passwd, group = (read_file(tree, path) for path in FILES)
            uid, gid, groups, home = resolve_user(text, passwd, group)
            return (uid, gid, groups, home)
        return resolve_owner(text, lambda path: read_file(tree, path))
    except CacheError:
        raise
    except (LookupError, BuildError, UsageError) as error:
        return f"none: {error}"


def account_files(tree: Tree) -> tuple[bytes, bytes]:
    """The content digests of the account files, empty for a missing one."""
    found = [_file(tree, path) for path in FILES]
    first, second = (node.content if node is not None else b"" for _, node in found)
    return first, second


def read_file(tree: Tree, path: bytes) -> bytes:
    """The bytes of a file, links followed inside the tree; empty if it is missing."""
    place, node = _file(tree, path)
    if node is None:
        return b""
    with tree.open(place) as content:
        data = content.read(_LIMIT)
        while content.read(_LIMIT):
            pass  # only the end of a file confirms that its bytes are right
        return data


def _file(tree: Tree, path: bytes) -> tuple[bytes, Node | None]:
    try:
        found = resolve(tree, path)
    except BuildError:
        return b"", None  # a loop of links
    node = found.node
    return found.path, node if node is not None and node.is_file else None
