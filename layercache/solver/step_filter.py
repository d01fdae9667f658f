"""Choosing steps whose cache is bypassed: by place, operation or text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from layercache.errors import UsageError
from layercache.model.graph import Origin

__all__ = ["StepSelection", "step_selector"]


class StepSelection:
    """The steps that one of several selectors names; a predicate of a step's `Origin`.

    `option` is the option that gave the selectors. Raises `UsageError` for an empty one.
    """

    def __init__(self, option: str, texts: Sequence[str]) -> None:
        self._option = option
        self._selectors = [(text, step_selector(text, option)) for text in texts]

    def __call__(self, origin: Origin) -> bool:
        return any(selects(origin) for _, selects in self._selectors)

    def check(self, origins: Iterable[Origin]) -> None:
        """Raise `UsageError` for the first selector that selects none of these steps."""
        steps = tuple(origins)
        for text, selects in self._selectors:
            if not any(map(selects, steps)):
                raise UsageError(
                    f"{self._option} {text!r} selects no step of this build: write STAGE:INDEX "
                    "as `plan --json` shows them, an operation, or a pattern of the whole text"
                )


def step_selector(text: str, option: str = "--no-cache-step") -> Callable[[Origin], bool]:
    """A predicate for one `--no-cache-step`.

    - `STAGE:INDEX`, both as in the JSON output, the stage by name or number: `build:3`, `0:2`;
    - the name of an operation: `RUN`;
    - a pattern over the whole text of the instruction with `*` and `?`: `RUN npm *`.

    Raises `UsageError` for an empty text.
    """
    if not text.strip():
        raise UsageError(f"{option} needs STAGE:INDEX, an operation or a pattern")
    stage, colon, index = text.rpartition(":")
    if colon and index.isdigit() and stage and not any(c.isspace() for c in stage):
        wanted = int(index)
        name = stage.lower()
        return lambda o: o.index == wanted and name in (o.stage_name.lower(), str(o.stage))
    if text.isalpha():
        operation = text.upper()
        return lambda o: o.op.upper() == operation
    return lambda o: _matches(text, o.text)


def _matches(pattern: str, text: str) -> bool:
    """`*` and `?` over the whole of `text`; at most the product of both lengths in steps."""
    at = star = 0
    mark = -1
    position = 0
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            mark, star = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[position]):
            at += 1
            position += 1
        elif mark >= 0:
            at = mark + 1
            star += 1
            position = star
        else:
            return False
    return all(character == "*" for character in pattern[at:])
