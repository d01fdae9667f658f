"""The lowest level of Dockerfile syntax: blanks, words, quoted text and JSON lists.

As in other builders, two notions of white space exist side by side: Unicode white space
(`SPACE`), which separates words of ENV, LABEL, ARG and flags, and the plain `BLANK`, which
separates the words of all other instructions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from layercache._base.regex import expression

__all__ = [
    "SPACE",
    "NotStrings",
    "json_list",
    "json_text",
    "literal",
    "split_blanks",
    "split_first",
    "split_flags",
    "split_words",
]

SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode white space. (`str.strip()` would also take the separators U+001C to U+001F.)"""

_BLANKS: Final = expression(r"[\t\v\f\r ]+")

_JSON_DEPTH: Final = 50
"""With more brackets, a text is not parsed as JSON: no list of strings has that many."""


class NotStrings(ValueError):
    """A JSON list that holds something other than strings."""


def split_blanks(text: str) -> list[str]:
    """Words of `text` between blanks; quotes mean nothing here. `""` gives no words."""
    return _BLANKS.split(text) if text else []


def split_first(text: str) -> tuple[str, str]:
    """The text before the first run of blanks, and the text after it (`""` if none)."""
    match = _BLANKS.search(text)
    return (text, "") if match is None else (text[: match.start()], text[match.end() :])


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words of `text` between white space outside quotes, quotes and escapes kept as written.

    An escape at the very end of the text is dropped. An open quote reaches to the end.
    """
    words: list[str] = []
    start = -1
    quote = ""
    cut = False
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if start < 0:
            if char in SPACE:
                at += 1
                continue
            start = at
        if char == escape and quote != "'":
            if at + 1 == end:
                cut = True
            at += 2
            continue
        if quote:
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in SPACE:
            words.append(text[start:at])
            start = -1
        at += 1
    if start >= 0:
        word = text[start : end - 1] if cut else text[start:]
        if word:
            words.append(word)
    return words


def split_flags(text: str, escape: str = "\\") -> tuple[list[str], str]:
    """The leading `--flag[=value]` words of `text`, quotes and escapes removed, and the rest.

    A bare `--` ends the flags and is dropped.
    """
    flags: list[str] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return flags, text[at:]
        word: list[str] = []
        quote = ""
        while at < end:
            char = text[at]
            if char == escape:
                if at + 1 < end:
                    word.append(text[at + 1])
                at += 2
                continue
            if quote:
                if char == quote:
                    quote = ""
                else:
                    word.append(char)
            elif char in "'\"":
                quote = char
            elif char in SPACE:
                break
            else:
                word.append(char)
            at += 1
        flag = "".join(word)
        if flag == "--":
            return flags, text[at:]
        flags.append(flag)


def json_list(text: str) -> list[str] | None:
    """The strings of a JSON list, or None if `text` is not a JSON list.

    Raises `NotStrings` for a JSON list with other items.
    """
    text = text.strip(SPACE)
    if not text.startswith("[") or not text.endswith("]"):
        return None
    if text.count("[") + text.count("{") > _JSON_DEPTH and not _shallow(text):
        return None
    try:
        # Numbers are never used, and converting long ones is costly.
        value = json.loads(text, parse_int=len, parse_float=len, parse_constant=_no_constant)
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in value):
        raise NotStrings
    # A lone surrogate can be written in JSON but in no file; Go reads it as U+FFFD.
    return [item.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for item in value]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _shallow(text: str) -> bool:
    """Whether brackets outside JSON strings nest less than `_JSON_DEPTH` deep."""
    depth = 0
    quoted = skip = False
    for char in text:
        if skip:
            skip = False
        elif quoted:
            if char == "\\":
                skip = True
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
            if depth > _JSON_DEPTH:
                return False
        elif char in "]}":
            depth -= 1
    return True


def json_text(items: Sequence[Any]) -> str:
    """A JSON list on one line, as people write it in a Dockerfile."""
    return json.dumps(list(items), ensure_ascii=False)


_SPECIAL: Final = frozenset("\\'\"$" + SPACE)


def literal(text: str, escape: str = "\\") -> str:
    """Escape `text` so that a field of an instruction takes it literally.

    Expanding the result gives back `text`: no part of it is a variable, a quote or an escape.
    """
    return "".join(escape + c if c in _SPECIAL or c == escape else c for c in text)
