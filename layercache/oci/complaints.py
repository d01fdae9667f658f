"""What a registry says of an error, as one line for people."""

from __future__ import annotations

import json
from typing import Final

from layercache.http.client import Response, words

__all__ = ["complaint"]

_MOST: Final = 3


def complaint(answer: Response) -> str:
    """The messages of an error response, in parentheses and after a space; "" if it has none.

    The form of the distribution specification (`{"errors": [{"code", "message"}]}`) is shown
    without its braces, anything else as it is. Reads the beginning of the body.
    """
    try:
        data = answer.body.read(2000)
    except OSError:
        return ""
    said = "; ".join(_messages(data)) or words(data)
    return f" (it says: {said})" if said else ""


def _messages(data: bytes) -> list[str]:
    try:
        errors = json.loads(data)["errors"]
        found = []
        for error in errors[:_MOST]:
            parts = [str(error[key]) for key in ("code", "message") if error.get(key)]
            if parts:
                found.append(words(": ".join(parts).encode("utf-8", "replace")))
        return found
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
