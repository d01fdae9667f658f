"""The user namespace that this user can have: a range of users by /etc/subuid, or only itself."""

from __future__ import annotations

import os
import shutil

from layercache._base.classes import frozen

__all__ = ["UserNamespace", "user_namespace"]


@frozen
class UserNamespace:
    """A user namespace in which this process's user is root.

    `users` and `groups` are first number and count of its further ids; a count of 0 means that root
    is its only user. `reason` tells why there is no range.
    """

    users: tuple[int, int] = (0, 0)
    groups: tuple[int, int] = (0, 0)
    tools: tuple[str, str] = ("", "")
    reason: str = ""

    @property
    def single(self) -> bool:
        """Whether root is the only user."""
        return self.users[1] == 0

    def arguments(self) -> list[str]:
        """The arguments for the helper process."""
        numbers = (*self.users, *self.groups)
        return [str(os.geteuid()), str(os.getegid()), *self.tools, *map(str, numbers)]


def user_namespace() -> UserNamespace:
    """The largest namespace that this user can have; nothing is tried."""
    tools = tuple(shutil.which(name) or "" for name in ("newuidmap", "newgidmap"))
    if not all(tools):
        return UserNamespace(reason="newuidmap and newgidmap are not installed")
    users, groups = _range("/etc/subuid"), _range("/etc/subgid")
    if users[1] == 0 or groups[1] == 0:
        return UserNamespace(reason="/etc/subuid and /etc/subgid have no range for this user")
    return UserNamespace(users, groups, (tools[0], tools[1]))


def _range(path: str) -> tuple[int, int]:
    """The first range that a file gives this user, by name or number (subuid(5))."""
    import pwd

    names = {str(os.geteuid())}
    try:
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        pass  # a user without a name may still have a line by number
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0, 0
    for line in lines:
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in names:
            start, count = fields[1:]
            if start.isdigit() and count.isdigit() and int(count) > 0:
                return int(start), int(count)
    return 0, 0
