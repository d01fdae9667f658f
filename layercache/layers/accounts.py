"""Resolution of `--chown` and USER in the accounts of a tree, as in BuildKit.

Numbers are used directly (a single user number is also the group's), `root` is 0 without a
look-up, other names are resolved by their first line in /etc/passwd and /etc/group. A name that is
in neither counts as absent: root, or the group of the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from layercache.errors import BuildError, UsageError

__all__ = ["resolve_owner"]

_MAX_ID: Final = 0x7FFFFFFF
_DIGITS: Final = 10
"""Digits of the largest number, without leading zeros."""


def resolve_owner(
    owner: str,
    read: Callable[[bytes], bytes | None] | None,
    unknown: Callable[[str], None] = lambda _: None,
) -> tuple[int, int]:
    """User and group number of `user[:group]`.

    `read` returns the bytes of a path in the image, None if there is no such file; without it
    (`--link`, which reads nothing of the image) names are an error. `unknown` is called with a
    sentence about each name that the image does not know.

    Raises `BuildError` for an account without a usable number, `UsageError` for a name without
    `read`.
    """
    user, colon, group = owner.partition(":")
    uid = gid = 0
    number = _number(user)
    if number is not None:
        uid = gid = number
    elif user:
        line = _line(owner, "user", user, b"etc/passwd", read)
        if line is not None:
            uid, gid = _field(line, 2, owner), _field(line, 3, owner)
        else:
            unknown(f"no user {user!r} in /etc/passwd: root is the owner")
    if colon:
        number = _number(group) if group else 0
        if number is not None:
            gid = number
        else:
            line = _line(owner, "group", group, b"etc/group", read)
            if line is not None:
                gid = _field(line, 2, owner)
            else:
                unknown(f"no group {group!r} in /etc/group: the group is {gid}")
    return uid, gid


def _number(text: str) -> int | None:
    if text == "root":
        return 0
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0") or "0"
        if len(digits) <= _DIGITS and int(digits) <= _MAX_ID:
            return int(digits)
    return None


def _line(
    owner: str,
    kind: str,
    name: str,
    path: bytes,
    read: Callable[[bytes], bytes | None] | None,
) -> list[bytes] | None:
    if read is None:
        raise UsageError(
            f"--chown={owner}: with --link the image is not read, so the {kind} {name!r} can't be "
            "looked up; give numbers"
        )
    for line in (read(path) or b"").split(b"\n"):
        fields = line.strip().split(b":")
        if fields[0] == name.encode() and len(fields) > 3:
            return fields
    return None


def _field(fields: list[bytes], number: int, owner: str) -> int:
    text = fields[number]
    digits = text.lstrip(b"0") or b"0"
    if not text.isdigit() or len(digits) > _DIGITS or int(digits) > _MAX_ID:
        raise BuildError(f"the owner {owner!r} has no usable number in the image: {text!r}")
    return int(digits)
