"""Text from elsewhere, made fit to be shown: nothing in it steers a terminal or hides. Pure.

File names, Dockerfiles, the output of commands, answers of servers: whoever wrote them may have
put in sequences that move the cursor, rename the window, fill the clipboard, or turn the order of
characters around.
"""

from __future__ import annotations

from typing import Final

from layercache._base.regex import expression

__all__ = ["visible", "without_sequences"]

_SEQUENCE: Final = expression(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[@-Z\\-~])"
    r"|\x9b[0-?]{0,64}[ -/]{0,8}[@-~]"
)
"""Control sequences and strings (ECMA-48), and what else begins with an escape."""

_UNSEEN: Final = expression(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters but tab and newline, marks that turn or join text, lone surrogates."""


def visible(text: str) -> str:
    """`text` with what can't be seen written out (`\\x1b`, `\\u202e`); lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub(lambda found: _escaped(found[0]), text)


def without_sequences(text: str) -> str:
    """What a command wrote, without colours and cursor movements; the rest as `visible` has it.

    A carriage return within a line begins it anew: what was there before is not shown.
    """
    if text.isascii() and text.isprintable():
        return text
    plain = _SEQUENCE.sub("", text)
    if "\r" in plain:
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n")]
        plain = "\n".join(lines)
    return visible(plain)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
