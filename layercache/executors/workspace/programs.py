"""The host programs that a command names, and the digests of their content."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Sequence

from blake3 import blake3

__all__ = ["Programs", "program_names"]

_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh"}
_PLAIN = dict.fromkeys(
    b" \t_-./,:=+@%0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
"""Characters that are words and space to a shell and nothing else."""

_BLOCK = 1 << 20


def program_names(args: Sequence[str]) -> list[str]:
    """The programs that a command names: its own, and for `sh -c` the first word of each command.

    A simple reading of the shell text, without variables, functions or substitutions: a name that
    is no program on PATH (a builtin, a keyword) has no file and never counts.
    """
    if not args:
        return []
    found = [args[0]]
    shell = os.path.basename(args[0])
    if shell in _SHELLS and len(args) >= 3 and args[1].startswith("-") and "c" in args[1]:
        found += _named(args[2])
    return found


def _named(text: str) -> list[str]:
    if not text.translate(_PLAIN):
        return _commands(text.split())  # what the lexer would give, in a tenth of the time
    import shlex

    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    return _commands(lexer)


def _commands(tokens: Iterable[str]) -> list[str]:
    found: list[str] = []
    start = True
    try:
        for token in tokens:
            if set(token) <= set("();<>|&\n"):
                start = not set(token) & set("<>")
            elif start and "=" in token and token.partition("=")[0].isidentifier():
                continue
            elif start:
                found.append(token)
                start = token in {"if", "then", "else", "elif", "do", "while", "until", "!", "{"}
    except ValueError:
        return found  # an open quote: the shell will say so
    return found


class Programs:
    """Digests of programs on PATH, remembered as long as their stat data is unchanged. Safe for
    threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int, int, int, int], str] = {}

    def digest(self, name: str, path: str) -> str | None:
        """Hex BLAKE3 digest of the program `name`, links followed; None if there is none.

        A relative path is a file of the workspace, whose content counts anyway.
        """
        if os.path.dirname(name) and not os.path.isabs(name):
            return None
        found = _which(name, path)
        if found is None:
            return None
        status = os.stat(found)
        stamp = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        with self._lock:
            if stamp not in self._known:
                self._known[stamp] = _file_digest(found)
            return self._known[stamp]


def _which(name: str, path: str) -> str | None:
    """Like `shutil.which`, which is slow to load and to call once for each step."""
    if sys.platform == "win32":
        import shutil

        return shutil.which(name, path=path)
    directories = [""] if os.path.dirname(name) else path.split(os.pathsep) if path else []
    for directory in directories:
        file = os.path.join(directory, name)
        if os.access(file, os.X_OK) and not os.path.isdir(file):
            return file
    return None


def _file_digest(path: str) -> str:
    hasher = blake3()
    with open(path, "rb", buffering=0) as content:
        while block := content.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()
