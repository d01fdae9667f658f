"""Numbers, durations and booleans as Dockerfiles write them."""

from __future__ import annotations

from typing import Final

from layercache.errors import UsageError

__all__ = ["parse_bool", "parse_duration", "parse_integer", "parse_octal", "parse_size"]

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DIGITS: Final = "0123456789"


def parse_bool(text: str) -> bool:
    """A boolean option of a mount, with the spellings of Go's `strconv.ParseBool`."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UsageError(f"a switch is true or false, not {text!r}")


def parse_integer(text: str) -> int:
    """A decimal number of 32 bits without a sign (a user or group ID, a count)."""
    return _number(text, 10, _DIGITS)


def parse_octal(text: str) -> int:
    """An octal number of 32 bits without a sign (a mode)."""
    return _number(text, 8, "01234567")


def _number(text: str, base: int, digits: str) -> int:
    if not text or len(text) > 16 or not set(text) <= set(digits):
        kind = "an octal" if base == 8 else "a decimal"
        raise UsageError(f"{text[:40]!r} is not {kind} number")
    value = int(text, base)
    if value >= 1 << 32:
        raise UsageError(f"{text} is too large")
    return value


def parse_size(text: str) -> int:
    """A number of bytes with an optional unit of 1024: `64m`, `1.5G`, `100kb`, `8MiB`."""
    from fractions import Fraction

    number = text.strip(" ").lower()
    unit = ""
    for suffix in ("ib", "b"):
        if number.endswith(suffix):
            number = number.removesuffix(suffix)
            break
    if number[-1:] in ("k", "m", "g", "t", "p"):
        number, unit = number[:-1], number[-1]
    number = number.rstrip(" ")
    whole, _, part = number.partition(".")
    if not (whole + part) or len(number) > 24 or not set(whole + part) <= set(_DIGITS):
        raise UsageError(f"{text[:40]!r} is not a size; write it like 64m or 1g")
    value = int(Fraction(f"{whole or '0'}.{part or '0'}") * 1024 ** " kmgtp".index(unit or " "))
    if value >= 1 << 63:
        raise UsageError(f"{text} is too large")
    return value


def parse_duration(text: str) -> int:
    """A duration in Go's notation, in nanoseconds: `1m30s`, `500ms`, `1.5h`, `0`."""
    from fractions import Fraction

    rest = text[1:] if text[:1] in ("+", "-") else text
    total = Fraction(0)
    if rest != "0":
        if not rest or len(rest) > 100:
            raise _no_duration(text)
        while rest:
            digits = len(rest) - len(rest.lstrip(_DIGITS + "."))
            number, rest = rest[:digits], rest[digits:]
            letters = 0
            while letters < len(rest) and rest[letters] not in _DIGITS + ".":
                letters += 1
            unit, rest = rest[:letters], rest[letters:]
            if unit not in _NANOSECONDS or number.count(".") > 1 or not number.strip("."):
                raise _no_duration(text)
            whole, _, part = number.partition(".")
            total += Fraction(f"{whole or '0'}.{part or '0'}") * _NANOSECONDS[unit]
    if total >= 1 << 63:
        raise UsageError(f"the duration {text} is too long")
    return -int(total) if text.startswith("-") else int(total)


def _no_duration(text: str) -> UsageError:
    return UsageError(f"{text[:40]!r} is not a duration; write it like 30s, 1m30s or 500ms")
