"""Who USER is: names and numbers looked up in an image's own files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.layers.passwd import resolve_user

PASSWD = b"""# accounts
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
1234:x:77:77::/odd:/bin/sh
short:x:5:6
+nis
homeless:x:9:9:::/bin/sh
app:x:2000:2000:second:/second:/bin/sh
"""
GROUP = b"""root:x:0:
app:x:1000:
wheel:x:10:root,app
tape:x:26:app
77:x:78:
broken:x:
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (10,), "/root")),
        ("root", (0, 0, (10,), "/root")),
        ("0", (0, 0, (10,), "/root")),
        ("app", (1000, 1000, (10, 26), "/home/app")),
        ("1000", (1000, 1000, (10, 26), "/home/app")),
        ("app:tape", (1000, 26, (), "/home/app")),
        ("app:0", (1000, 0, (), "/home/app")),
        ("1000:1000", (1000, 1000, (), "/home/app")),
        ("4242", (4242, 0, (), "/")),
        ("4242:4243", (4242, 4243, (), "/")),
        ("4242:wheel", (4242, 10, (), "/")),
        ("1234", (77, 77, (), "/odd")),
        ("short", (5, 6, (), "/")),
        ("homeless", (9, 9, (), "/")),
        ("app:", (1000, 1000, (10, 26), "/home/app")),
    ],
)
def test_users_are_resolved_as_runc_does(user: str, expected: object) -> None:
    """The first matching line counts, a group given replaces all others, numbers need no line."""
    assert expected == resolve_user(user, PASSWD, GROUP)


@pytest.mark.parametrize("user", ["nobody", "app:nogroup", "-1", "4294967295", "0x10", "１"])
def test_unknown_names_are_errors(user: str) -> None:
    """A name without a line, and what is no number in range, is never guessed at."""
    with pytest.raises(LookupError, match="the image has no"):
        resolve_user(user, PASSWD, GROUP)


def test_root_needs_no_files() -> None:
    """An image without accounts runs as root, at home in /."""
    assert resolve_user("", b"", b"") == (0, 0, (), "/") == resolve_user("root", b"", b"")


@given(st.text(), st.binary(), st.binary())
def test_hostile_files_give_ids_in_range_or_an_error(
    user: str, passwd: bytes, group: bytes
) -> None:
    """Whatever the files hold, the result is a set of valid ids or `LookupError`."""
    try:
        uid, gid, groups, _ = resolve_user(user, passwd, group)
    except LookupError:
        return
    assert all(0 <= number < 2**32 - 1 for number in (uid, gid, *groups))
