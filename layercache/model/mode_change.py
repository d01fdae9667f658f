"""`--chmod` values: octal, or symbolic as for chmod(1) (`u=rwX,go=rX`, `+x`, `g=u`)."""

from __future__ import annotations

from typing import Final

from layercache._base.classes import frozen
from layercache._base.regex import expression
from layercache.errors import UsageError

__all__ = ["ModeChange", "parse_mode"]

_OCTAL: Final = expression(r"[0-7]{1,8}")
_CLAUSE: Final = expression(r"([ugoa]*)((?:[-+=][rwxXst]*[ugo]*)+)")
_ACTION: Final = expression(r"([-+=])([rwxXst]*)([ugo]*)")
_WHO: Final = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_BITS: Final = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_SHIFT: Final = {"u": 6, "g": 3, "o": 0}
_EXECUTE: Final = 0o111


@frozen
class ModeChange:
    """The effect of `--chmod` on permission bits: an absolute mode, or a sequence of changes.

    A change is operator, affected classes as a mask, bits, whether `X`, classes to copy from.
    As in BuildKit, `g=u` copies the three bits of a class and leaves setuid, setgid and sticky.
    """

    absolute: int | None = None
    steps: tuple[tuple[str, int, int, bool, str], ...] = ()

    def apply(self, mode: int, *, directory: bool) -> int:
        """The new permission bits (12 of them) for `mode`; its type bits don't matter."""
        if self.absolute is not None:
            return self.absolute
        original = mode & 0o7777
        mode = original
        for operator, mask, bits, conditional, copies in self.steps:
            if conditional and (directory or original & _EXECUTE):
                bits |= _EXECUTE
            for source in copies:
                value = mode >> _SHIFT[source] & 0o7
                bits |= value | value << 3 | value << 6
            bits &= mask
            cleared = mask & (0o777 if copies else 0o6777)
            if operator == "+":
                mode |= bits
            elif operator == "-":
                mode &= ~bits
            else:
                mode = mode & ~cleared | bits
        return mode


def parse_mode(text: str) -> ModeChange:
    """Parse a `--chmod` value; raises `UsageError` if it is neither octal nor symbolic.

    Without a class (`+x`), all three classes are meant and no umask applies, as in BuildKit's
    daemon.
    """
    if text.isdecimal():
        if _OCTAL.fullmatch(text) and int(text, 8) <= 0o7777:
            return ModeChange(absolute=int(text, 8))
        raise UsageError(f"--chmod={text}: an octal mode lies between 0 and 07777")
    steps = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if not found:
            raise UsageError(
                f"--chmod={text}: neither an octal mode (755) nor a symbolic one (u=rwX,go=rX)"
            )
        for operator, letters, copies in _ACTION.findall(found[2]):
            mask = 0
            for who in found[1] or "a":
                mask |= _WHO[who]
            bits = 0
            for letter in letters:
                bits |= _BITS.get(letter, 0)
            if "t" in letters and found[1] != "o":
                mask |= 0o1000
            steps.append((operator, mask, bits, "X" in letters, copies))
    return ModeChange(steps=tuple(steps))
