"""The common base of Dockerfile instructions: position, text, validation and rendering."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeAlias

from layercache._base.classes import field, frozen
from layercache.dockerfile.syntax.words import SPACE, json_list, json_text
from layercache.errors import UsageError

__all__ = ["Command", "DockerfileInstruction", "Location"]

Command: TypeAlias = "str | tuple[str, ...]"
"""A string for the shell (shell form), or the list of arguments (exec form)."""


@frozen
class Location:
    """The position of an instruction: file, first line and last line, counted from 1."""

    name: str
    line: int
    end_line: int


@frozen
class DockerfileInstruction:
    """One instruction of a Dockerfile, as written: no variable in it is expanded yet.

    Fields that a Dockerfile expands hold words of its syntax, so `$NAME`, quotes and backslashes
    have their usual meaning in them; `literal()` makes a word that stands for exactly its text.
    Two instructions are equal if they mean the same, wherever and however they are written.
    """

    op: ClassVar[str]
    """The name in capitals."""

    location: Location | None = field(default=None, kw_only=True, eq=False, repr=False)
    source: str | None = field(default=None, kw_only=True, eq=False, repr=False)
    """The instruction as written in its file, continued lines joined, or None."""

    @property
    def text(self) -> str:
        """The instruction as written in its file, otherwise in canonical form."""
        return self.render() if self.source is None else self.source

    @abstractmethod
    def render(self, escape: str = "\\") -> str:
        """The instruction in canonical form, without a final newline.

        Parsing the result gives an equal value, except for values that Dockerfile syntax can't
        express: a newline in a shell command or a word, or a command that would be read as
        something else. `escape` is the escape character of the file.
        """
        raise NotImplementedError


def text_of(value: object, what: str, *, empty: bool = False) -> str:
    """`value`, if it is a valid text. Raises `UsageError`."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is a text, not {value!r}")
    if not value and not empty:
        raise UsageError(f"{what} is empty")
    if "\0" in value:
        raise UsageError(f"{what} holds a NUL character")
    return value


def texts_of(values: object, what: str, *, empty: bool = False) -> tuple[str, ...]:
    """`values` as a tuple of valid texts. A single string is refused, as it is probably a
    mistake.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{what} is a list of texts, not {values!r}")
    return tuple(text_of(value, f"an item of {what}", empty=empty) for value in values)


def command_of(value: object, what: str) -> Command:
    """A command in shell form (a text) or exec form (a list of texts)."""
    if isinstance(value, str):
        return text_of(value, what, empty=True)
    return texts_of(value, what, empty=True)


def switch_of(value: object, what: str) -> bool:
    """`value`, if it is a bool. Raises `UsageError`."""
    if not isinstance(value, bool):
        raise UsageError(f"{what} is True or False, not {value!r}")
    return value


def render_command(command: Command, escape: str) -> str:
    """A command in the form that follows the name of its instruction."""
    if not isinstance(command, str):
        return json_text(command)
    return "-- " + command if command.startswith("--") else command


def render_flags(flags: Iterable[tuple[str, object]], escape: str) -> str:
    """The flags that are set, each followed by a blank. True stands for a flag without a value."""
    parts: list[str] = []
    for name, value in flags:
        if value is None or value is False or value == ():
            continue
        for one in value if isinstance(value, tuple) else (value,):
            parts.append(f"--{name} " if one is True else f"--{name}={_quoted(str(one), escape)} ")
    return "".join(parts)


def _quoted(value: str, escape: str) -> str:
    return "".join(escape + c if c in SPACE or c in ("'", '"', escape) else c for c in value)


def render_words(words: Sequence[str], *, shell: bool = False) -> str:
    """Words of COPY, ADD or VOLUME: plain if that parses to the same words, otherwise a JSON
    list.
    """
    plain = " ".join(words)
    if shell or (
        not any(not word or set(word) & set(SPACE) for word in words)
        and not plain.startswith("--")
        and not (plain.startswith("[") and json_list(plain) is not None)
        and not any("<<" in word for word in words)
        and not words[-1].endswith("\\")
        and not words[-1].endswith("`")
    ):
        return plain
    return json_text(words)
