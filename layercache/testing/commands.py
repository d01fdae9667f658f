"""A small command language over files in memory: what `MemoryExecutor` runs instead of a shell.

A subset of what `/bin/sh` would understand, so that a recipe means the same to a real executor,
plus a few commands that only make sense in tests:

    write PATH TEXT      echo WORDS     printf %s WORD   cat FILE…      cp [-r] A… B   mv A B
    rm [-r] [-f] PATH…   mkdir [-p] D…  touch PATH…      chmod 755 P…   chown 1:1 P…   ln -s T P
    ls [D]   pwd   true   false   exit N   env [NAME]   id   test -f|-d|-e|-x PATH   upper|sort [F…]
    fail [N]             ends with status N (1)
    random               prints another text each time
    fetch NAME           prints the outside world's answer for NAME, which no key covers

Words are quoted as in a shell, `$NAME` is expanded; `&&`, `||`, `;`, newlines, `|`, `>`, `>>`
and `<` work. Any other command is unknown: it leaves a file below /made whose content is a
digest of everything that the command could have read. So it shows whatever a key left out.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence

from blake3 import blake3

from layercache._base.classes import define, evolve, field, frozen
from layercache.errors import BuildError, StepFailed
from layercache.layers.accounts import resolve_owner
from layercache.model.framing import frame
from layercache.model.instruction import Value
from layercache.testing.memory import MemoryFiles, NotPermitted

__all__ = ["MemoryShell"]

_OPERATORS = ("&&", "||", ">>", ";", "|", ">", "<", "\n")


@define
class MemoryShell:
    """Runs commands on `files`.

    `sees` is everything else that a command can read, its variables included: it counts in the
    result of unknown commands. `random` and `fetch` provide data that no key covers.
    """

    files: MemoryFiles
    environment: Mapping[str, str] = field(factory=dict)
    directory: str = "/"
    sees: Value = ()
    random: Callable[[], bytes] = lambda: b"4"
    fetch: Callable[[str], bytes] = lambda name: b""
    scripts: Mapping[str, bytes] = field(factory=dict)
    """Path → content of a here-document."""
    output: bytearray = field(factory=bytearray)

    def run(self, args: Sequence[str]) -> None:
        """Run a command in exec form; if it is a shell, its script is interpreted.

        Raises `StepFailed` with the status of the failed command.
        """
        if len(args) > 2 and args[-2].startswith("-") and args[-2].endswith("c"):
            status = self.script(args[-1])
        else:
            status, out = self._command(list(args), b"")
            self.output += out
        if status:
            shown = args[-1] if len(args) > 2 else " ".join(args)
            tail = self.output.decode("utf-8", "replace").rstrip()
            raise StepFailed(
                f"{shown!r} did not complete: exit status {status}" + (tail and f"\n    {tail}"),
                status=status,
            )

    def script(self, text: str) -> int:
        """Run a script; returns the status of its last command, or of the one that ended it."""
        status = 0
        for operator, pipeline in _pipelines(_tokens(text, self.environment)):
            if (operator == "&&" and status) or (operator == "||" and not status):
                continue
            try:
                status = self._pipeline(pipeline)
            except _Exit as end:
                return end.status
        return status

    def _pipeline(self, commands: Sequence[_Command]) -> int:
        status, data = 0, b""
        for number, command in enumerate(commands):
            try:
                if command.source is not None:
                    data = self.files.read(self._path(command.source))
                before = self._begin_target(command)
                status, data = self._command(command.words, data)
                if command.target is not None:
                    self.files.write(self._path(command.target), before + data)
                    data = b""
            except BuildError as error:
                name = command.words[0] if command.words else ">"
                status, data = 1, f"{name}: {error}\n".encode("utf-8", "replace")
            if number == len(commands) - 1 or status:
                self.output += data
        return status

    def _begin_target(self, command: _Command) -> bytes:
        """Create the target of output, as a shell does before it runs a command."""
        if command.target is None:
            return b""
        path = self._path(command.target)
        before = b""
        if command.append and self.files.resolve(path).node is not None:
            before = self.files.read(path)
        self.files.write(path, before)
        return before

    def _command(self, words: list[str], data: bytes) -> tuple[int, bytes]:
        if not words:
            return 0, b""
        if words[0] in self.scripts:
            text = self.scripts[words[0]].decode("utf-8", "surrogateescape")
            return self.script(text.partition("\n")[2]), b""
        known = _COMMANDS.get(words[0])
        if known is None:
            return 0, self._unknown(words, data)
        try:
            return 0, known(self, words[1:], data)
        except _Exit as end:
            if words[0] == "exit":
                raise
            return end.status, end.output
        except (IndexError, ValueError):
            return 2, f"{words[0]}: can't be used like this: {words[1:]}\n".encode()

    def _unknown(self, words: list[str], data: bytes) -> bytes:
        seen: Value = (
            tuple(words),
            data,
            self.directory,
            self.files.owner,
            self.sees,
            self.files.digest_of_all(),
        )
        name = "-".join(word for word in words if word.isalnum())[:40] or "command"
        name += "-" + blake3(frame(tuple(words))).hexdigest()[:8]
        if self.files.resolve("/made").node is None:
            self.files.make_directory("/made")
        self.files.write(f"/made/{name}", blake3(frame(seen)).hexdigest().encode())
        return f"made /made/{name}\n".encode()

    def _path(self, path: str) -> str:
        return posixpath.join(self.directory, path)


@frozen
class _Command:
    words: list[str]
    source: str | None = None
    target: str | None = None
    append: bool = False


class _Exit(Exception):
    def __init__(self, status: int, output: bytes = b"") -> None:
        super().__init__(status)
        self.status = status
        self.output = output


# -- words ----------------------------------------------------------------------------------


def _tokens(text: str, environment: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Words and operators of a script; True marks operators. Comments are left out."""
    found: list[tuple[str, bool]] = []
    word: list[str] | None = None
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        operator = next((o for o in _OPERATORS if text.startswith(o, at)), None)
        if operator or char in " \t" or (char == "#" and word is None):
            if word is not None:
                found.append(("".join(word), False))
                word = None
            if operator:
                found.append((operator, True))
                at += len(operator)
            elif char == "#":
                at = text.find("\n", at) if "\n" in text[at:] else end
            else:
                at += 1
            continue
        word = [] if word is None else word
        if char == "'":
            close = text.find("'", at + 1)
            close = end if close < 0 else close
            word.append(text[at + 1 : close])
            at = close + 1
        elif char == '"':
            at += 1
            while at < end and text[at] != '"':
                at = _expand(text, at, environment, word)
            at += 1
        else:
            at = _expand(text, at, environment, word)
    if word is not None:
        found.append(("".join(word), False))
    return found


def _expand(text: str, at: int, environment: Mapping[str, str], word: list[str]) -> int:
    """Append one character, an escaped one, or the value of a variable; returns the next
    position.
    """
    char = text[at]
    if char == "\\" and at + 1 < len(text):
        word.append("" if text[at + 1] == "\n" else text[at + 1])
        return at + 2
    if char != "$":
        word.append(char)
        return at + 1
    braces = text.startswith("{", at + 1)
    start = stop = at + 1 + braces
    while stop < len(text) and (text[stop].isalnum() or text[stop] == "_"):
        stop += 1
    if stop == start:
        word.append(char)
        return at + 1
    word.append(environment.get(text[start:stop], ""))
    return stop + braces


def _pipelines(tokens: list[tuple[str, bool]]) -> list[tuple[str, list[_Command]]]:
    """The operator before each pipeline, and its commands."""
    found: list[tuple[str, list[_Command]]] = [(";", [])]
    command = _Command([])
    redirect = ""
    for text, operator in [*tokens, (";", True)]:
        if operator and text in ("<", ">", ">>"):
            redirect = text
        elif operator:
            if command != _Command([]):
                found[-1][1].append(command)
            command = _Command([])
            if text != "|":
                found.append((text, []))
        elif redirect:
            if redirect == "<":
                command = evolve(command, source=text)
            else:
                command = evolve(command, target=text, append=redirect == ">>")
            redirect = ""
        else:
            command.words.append(text)
    return [(operator, commands) for operator, commands in found if commands]


# -- commands -------------------------------------------------------------------------------


def _flags(words: list[str]) -> tuple[set[str], list[str]]:
    flags = {letter for word in words if word.startswith("-") for letter in word[1:]}
    return flags, [word for word in words if not word.startswith("-")]


def _write(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    shell.files.write(shell._path(words[0]), " ".join(words[1:]).encode())
    return b""


def _echo(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    return (" ".join(words) + "\n").encode("utf-8", "surrogateescape")


def _printf(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    text, *values = words or [""]
    parts = text.replace("\\n", "\n").split("%s")
    values += [""] * len(parts)
    joined = "".join(p + v for p, v in zip(parts, [*values[: len(parts) - 1], ""], strict=False))
    return joined.encode("utf-8", "surrogateescape")


def _cat(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    if not words:
        return data
    return b"".join(shell.files.read(shell._path(word)) for word in words)


def _upper(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    return _cat(shell, words, data).upper()


def _sort(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    return b"".join(sorted(_cat(shell, words, data).splitlines(keepends=True)))


def _copy(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    flags, paths = _flags(words)
    for path in paths[:-1]:
        shell.files.copy(
            shell._path(path), shell._path(paths[-1]), recursive=bool(flags & {"r", "R", "a"})
        )
    return b""


def _move(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    shell.files.rename(shell._path(words[0]), shell._path(words[1]))
    return b""


def _remove(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    flags, paths = _flags(words)
    for path in map(shell._path, paths):
        if "f" in flags and shell.files.resolve(path, last=False).node is None:
            continue
        shell.files.remove(path, recursive=bool(flags & {"r", "R"}))
    return b""


def _mkdir(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    flags, paths = _flags(words)
    for path in paths:
        shell.files.make_directory(shell._path(path), parents="p" in flags)
    return b""


def _touch(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    for word in words:
        shell.files.touch(shell._path(word))
    return b""


def _chmod(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    try:
        mode = int(words[0], 8)
    except ValueError:
        raise NotPermitted(f"{words[0]}: only octal modes are known here") from None
    for word in words[1:]:
        shell.files.change_mode(shell._path(word), mode)
    return b""


def _chown(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    for word in words[1:]:
        shell.files.change_owner(shell._path(word), *owner_of(words[0], shell.files))
    return b""


def owner_of(text: str, files: MemoryFiles) -> tuple[int, int]:
    """User and group numbers of `user[:group]`, names looked up in /etc; raises `BuildError`."""

    def read(path: bytes) -> bytes | None:
        node = files.resolve("/" + path.decode()).node
        return files.read("/" + path.decode()) if node is not None else None

    def refuse(sentence: str) -> None:
        raise NotPermitted(sentence)

    try:
        return resolve_owner(text, read, refuse)
    except NotPermitted as error:
        raise BuildError(f"the owner {text!r} can't be found: {error}") from error


def _link(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    _, paths = _flags(words)
    shell.files.link(paths[0], shell._path(paths[1]))
    return b""


def _list(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    found = shell.files.resolve(shell._path(words[0] if words else "."))
    if found.node is None:
        raise NotPermitted(f"{words[0] if words else '.'}: no such directory")
    return b"".join(name + b"\n" for name in shell.files.children(found.path))


def _env(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    if not words:
        return "".join(f"{n}={v}\n" for n, v in shell.environment.items()).encode()
    if words[0] not in shell.environment:
        raise _Exit(1)
    return (shell.environment[words[0]] + "\n").encode()


def _test(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    node = shell.files.resolve(shell._path(words[1])).node
    holds = node is not None and {
        "-e": True,
        "-f": node.is_file,
        "-d": node.is_dir,
        "-x": bool(node.mode & 0o111),
    }.get(words[0], False)
    if not holds:
        raise _Exit(1)
    return b""


def _fail(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    raise _Exit(int(words[0]) if words else 1)


def _exit(shell: MemoryShell, words: list[str], data: bytes) -> bytes:
    raise _Exit(int(words[0]) if words else 0)


_COMMANDS: dict[str, Callable[[MemoryShell, list[str], bytes], bytes]] = {
    "write": _write,
    "echo": _echo,
    "printf": _printf,
    "cat": _cat,
    "cp": _copy,
    "mv": _move,
    "rm": _remove,
    "mkdir": _mkdir,
    "touch": _touch,
    "chmod": _chmod,
    "chown": _chown,
    "ln": _link,
    "ls": _list,
    "pwd": lambda shell, words, data: f"{shell.directory}\n".encode(),
    "true": lambda shell, words, data: b"",
    ":": lambda shell, words, data: b"",
    "false": _fail,
    "fail": _fail,
    "exit": _exit,
    "env": _env,
    "printenv": _env,
    "id": lambda shell, words, data: "{} {}\n".format(*shell.files.owner).encode(),
    "test": _test,
    "upper": _upper,
    "sort": _sort,
    "random": lambda shell, words, data: shell.random(),
    "fetch": lambda shell, words, data: shell.fetch(words[0] if words else ""),
}
