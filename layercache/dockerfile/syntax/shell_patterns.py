"""Shell patterns of `${a#p}`, `${a%p}` and `${a/p/r}`, matched in linear time.

A pattern has `*` (any run of characters), `?` (any character) and literal characters; neither
wildcard matches a newline. `\\*`, `\\?` and `\\\\` are literal, and the backslash that keeps `}`
or `/` from ending the expression is dropped. There are no bracket expressions.

No regular expression is made. The pattern is a row of states, one bit each, and all states are
advanced at once for each character of the value, so the work is (characters of the value) times
(machine words of the pattern), whatever the two contain.
"""

from __future__ import annotations

from typing import Final

from layercache._base.classes import frozen
from layercache.dockerfile.syntax.limits import Budget

__all__ = ["Pattern"]

_ANY: Final = "?any"  # longer than a character, so it equals none
_CELLS: Final = 1 << 26
"""Largest (value length x pattern length) for a replacement, which remembers every position."""


@frozen
class Pattern:
    """A parsed pattern: `tokens` to match in order, and a `*` before the tokens in `stars`."""

    tokens: tuple[str, ...]
    stars: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern. Raises `ValueError` for a backslash before anything else."""
        tokens: list[str] = []
        stars: set[int] = set()
        at = 0
        while at < len(text):
            char = text[at]
            at += 1
            if char == "*":
                stars.add(len(tokens))
            elif char == "?":
                tokens.append(_ANY)
            elif char == "\\":
                after = text[at : at + 1]
                if after not in ("*", "?", "\\", "}", "/"):
                    raise ValueError(f"invalid escape '\\{after}'")
                tokens.append(after)
                at += 1
            else:
                tokens.append(char)
        return cls(tuple(tokens), frozenset(stars))

    def reversed(self) -> Pattern:
        """The pattern that matches the reversed texts of this pattern."""
        count = len(self.tokens)
        return Pattern(self.tokens[::-1], frozenset(count - star for star in self.stars))

    def prefix(self, value: str, longest: bool, budget: Budget) -> int | None:
        """Length of the shortest (or longest) prefix of `value` that matches, else None."""
        masks, any_mask, stars, accept, cost = self._automaton()
        state = 1
        found = 0 if state & accept else None
        if found is not None and not longest:
            return found
        steps = 0
        for at, char in enumerate(value, 1):
            steps += cost
            if char == "\n":
                state = (state & masks.get(char, 0)) << 1
            else:
                state = ((state & (masks.get(char, 0) | any_mask)) << 1) | (state & stars)
            if state & accept:
                found = at
                if not longest:
                    break
            if not state:
                break
        budget.spend(steps)
        return found

    def replace(self, value: str, replacement: str, every: bool, budget: Budget) -> list[str]:
        """The pieces of `value` with the first or every match replaced; joined, they are the
        result.

        Matches are leftmost and, from there, longest. An empty match right after another match does
        not count. Raises `ValueError` if value and pattern are too long together.
        """
        if len(value) * (len(self.tokens) + 1) > _CELLS:
            raise ValueError("the value is too long for this pattern")
        reach = self._reach(value, budget)
        masks, any_mask, stars, accept, cost = self._automaton()
        pieces: list[str] = []
        copied = start = 0
        size = len(value)
        while start <= size:
            if not reach[start] & 1:
                start += 1
                continue
            # Follow only states from which the pattern can still be completed.
            state, end, at = 1, start, start
            while True:
                if state & accept:
                    end = at
                    if not stars & accept:
                        state &= ~accept
                if at == size or not state:
                    break
                char = value[at]
                if char == "\n":
                    state = (state & masks.get(char, 0)) << 1
                else:
                    state = ((state & (masks.get(char, 0) | any_mask)) << 1) | (state & stars)
                at += 1
                state &= reach[at]
                budget.spend(cost)
            pieces.append(value[copied:start])
            if end > copied or start == 0:
                pieces.append(replacement)
                budget.spend(1 + len(replacement))
            copied = end
            if not every:
                break
            start = max(end, start + 1)
        pieces.append(value[copied:])
        return pieces

    def _automaton(self) -> tuple[dict[str, int], int, int, int, int]:
        """Bit i stands for "i tokens matched": masks by character, `?`, `*`, the end, the cost."""
        masks: dict[str, int] = {}
        any_mask = 0
        for index, token in enumerate(self.tokens):
            if token == _ANY:
                any_mask |= 1 << index
            else:
                masks[token] = masks.get(token, 0) | 1 << index
        stars = sum(1 << star for star in self.stars)
        return masks, any_mask, stars, 1 << len(self.tokens), 1 + len(self.tokens) // 64

    def _reach(self, value: str, budget: Budget) -> list[int]:
        """For each position, the states from which the rest of the pattern matches there."""
        masks, any_mask, stars, accept, cost = self._automaton()
        state = accept
        reach = [state] * (len(value) + 1)
        for at in range(len(value) - 1, -1, -1):
            char = value[at]
            if char == "\n":
                state = (state >> 1 & masks.get(char, 0)) | accept
            else:
                step = state >> 1 & (masks.get(char, 0) | any_mask)
                state = step | (state & stars) | accept
            reach[at] = state
        budget.spend(cost * len(value))
        return reach
