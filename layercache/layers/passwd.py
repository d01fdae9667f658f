"""Users and groups of an image: /etc/passwd and /etc/group, parsed as text, never through libc.

The rules are those of runc and BuildKit (`libcontainer/user`): the first line that matches
counts, a name is tried before a number, and a number needs no line at all. Imports nothing, so
that it can also be used when the image is already the root directory.
"""

from __future__ import annotations

__all__ = ["MAX_ID", "resolve_user"]

MAX_ID = 2**32 - 2
"""The largest user or group number; 2**32 - 1 means "none" to the kernel."""

_DIGITS = 10
"""Digits of the largest number; a longer text is out of range and is not converted."""

_Row = list[bytes]


def _rows(text: bytes, width: int) -> list[_Row]:
    """The lines with at least `width` fields; comments and NIS lines are not accounts."""
    found = []
    for line in text.split(b"\n"):
        line = line.strip()
        if not line or line[:1] in (b"#", b"+", b"-"):
            continue
        fields = line.split(b":")
        if len(fields) >= width:
            found.append(fields)
    return found


def _number(text: bytes) -> int | None:
    """`text` as an account number, None if it is not a decimal number in range.

    Every digit counts, as in runc and BuildKit: `0…01000` is 1000, however many zeros it has.
    """
    if not text.isdigit():
        return None
    digits = text.lstrip(b"0") or b"0"
    if len(digits) > _DIGITS:
        return None
    value = int(digits)
    return value if value <= MAX_ID else None


def _lookup(rows: list[_Row], wanted: bytes, what: str, file: str) -> tuple[_Row | None, int]:
    number = _number(wanted)
    for fields in rows:
        found = _number(fields[2])
        if found is not None and (fields[0] == wanted or (number is not None and found == number)):
            return fields, found
    if number is None:
        shown = wanted.decode("utf-8", "replace")
        raise LookupError(f"the image has no {what} {shown!r} in {file}")
    return None, number


def resolve_user(user: str, passwd: bytes, group: bytes) -> tuple[int, int, tuple[int, ...], str]:
    """Resolve `USER user[:group]`: uid, gid, supplementary groups, home directory.

    An empty `user` is root. Supplementary groups are those whose line names the user; there are
    none if a group is given. Home is "/" for a number without a line. `passwd` and `group` are the
    contents of the files, empty if the image has none. Raises `LookupError` with a message for
    people if a name is unknown.
    """
    name, _, group_name = user.partition(":")
    given = _number(_encoded(group_name))
    if _number(_encoded(name)) is not None and given is not None:
        # If both are numbers, the image is not read (BuildKit, `ParseUIDGID`).
        home, gid = "/", given
        fields, uid = _lookup(_rows(passwd, 6), _encoded(name), "user", "/etc/passwd")
        if fields is not None:
            home = _decoded(fields[5]) or "/"
        return uid, gid, (), home
    try:
        fields, uid = _lookup(_rows(passwd, 4), _encoded(name or "0"), "user", "/etc/passwd")
    except LookupError:
        if name == "root":
            fields, uid = None, 0
        else:
            raise
    gid, home = 0, "/"
    if fields is not None:
        gid = _number(fields[3]) or 0
        if len(fields) > 5 and fields[5]:
            home = _decoded(fields[5])
    if group_name:
        return uid, _group(group_name, group), (), home
    if fields is None:
        return uid, gid, (), home
    further = []
    for row in _rows(group, 4):
        number = _number(row[2])
        if number is not None and number not in further and fields[0] in row[3].split(b","):
            further.append(number)
    return uid, gid, tuple(further), home


def _group(name: str, group: bytes) -> int:
    return _lookup(_rows(group, 3), _encoded(name), "group", "/etc/group")[1]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
