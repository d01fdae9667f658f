"""Untrusted text made safe to show: it can't control a terminal or hide content. Pure.

File names, Dockerfiles, the output of commands and answers of servers may contain sequences that
move the cursor, rename the window, fill the clipboard, or reverse the order of characters.
"""

from __future__ import annotations

from typing import Final

from layercache._base.regex import expression

__all__ = ["visible", "without_sequences"]

_SEQUENCE: Final = expression(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[@-Z\\-~])"
    r"|\x9b[0-?]{0,64}[ -/]{0,8}[@-~]"
)
"""Control sequences and strings (ECMA-48), and other sequences that begin with an escape."""

_UNSEEN: Final = expression(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters except tab and newline, marks that reverse or join text, surrogates."""


def visible(text: str) -> str:
    """`text` with invisible characters written out (`\\x1b`, `\\u202e`); lines and tabs are
    kept.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub(lambda found: _escaped(found[0]), text)


def without_sequences(text: str) -> str:
    """Output of a command without colours and cursor movements, otherwise like `visible`.

    A carriage return within a line starts it again: the text before it is not shown.
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
