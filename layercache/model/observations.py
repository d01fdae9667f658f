"""The observed reads of a step's parent, as a value: paths, and which facts of each were read.

A set holds no values: the values are looked up later in a given tree, so that the same set can be
evaluated on another tree. `docs/explanation/tracing.md` is the contract; if the meaning of a bit
changes, `CONTRACT` changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from blake3 import blake3

from layercache._base.classes import frozen
from layercache.errors import CorruptObject

__all__ = [
    "ABSENT",
    "ATTRIBUTES",
    "BITS",
    "CONTENT",
    "CONTRACT",
    "FOUND",
    "LINK",
    "LISTING",
    "METADATA",
    "SINCE",
    "SIZE",
    "WHOLE",
    "Observations",
]

CONTRACT: Final = 3
"""The version of the contract; part of every key that rests on observations."""

ABSENT: Final = 1
"""N: looked up, and absent."""
FOUND: Final = 2
"""E: looked up and found: type, mode, owner, device numbers, extended attributes."""
METADATA: Final = 4
"""S: modification time (one that was set on purpose; else which of the observed ones are later),
and which other names the file has; known from the lookup on."""
SIZE: Final = 8
"""Z: the size of a file or link."""
LINK: Final = 16
"""L: the target of a symbolic link."""
CONTENT: Final = 32
"""R: the bytes of a file."""
LISTING: Final = 64
"""D: names and types in a directory."""
ATTRIBUTES: Final = 128
"""X: extended attributes."""

BITS: Final = {
    ABSENT: "N",
    FOUND: "E",
    CONTENT: "R",
    LINK: "L",
    LISTING: "D",
    ATTRIBUTES: "X",
    SIZE: "Z",
    METADATA: "S",
}
"""Each bit with its letter, in the order in which their values are compared: another time says
least of all why something differs."""

SINCE: Final = "since"
"""What is worked out of a path whose time the result has: how many instants ago that was."""

WHOLE: Final = FOUND | METADATA | SIZE | LINK | CONTENT | ATTRIBUTES
"""All facts about a path except the entries of a directory."""

_MAGIC: Final = b"layercache observations 1\n"
_CONTEXT: Final = "layercache 2026-11 observations 1"
_MAX_ROWS: Final = 1_000_000


@frozen
class Observations:
    """A set of observations: `rows` are (path, bits), sorted by path, no path twice.

    `derived` are facts that the engine or the executor, instead of the step, derived from the
    parent's accounts: ("user", USER) for the resolved user, ("owner", CHOWN) for the two numbers.
    """

    rows: tuple[tuple[bytes, int], ...]
    derived: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, seen: Mapping[bytes, int], derived: Iterable[tuple[str, str]] = ()) -> Observations:
        """The observations in `seen`, without paths that can't exist because of another
        observation.

        A path beneath an absent path or a non-directory is absent as well, which the observation of
        the upper path already implies.
        """
        rows = []
        dead: bytes | None = None
        for path in sorted(seen, key=_depth_first):
            bits = seen[path]
            if dead is not None and path.startswith(dead):
                continue
            if bits & ABSENT:
                dead = path + b"/" if path else None
                bits = ABSENT
            rows.append((path, bits))
        return cls(tuple(sorted(rows)), tuple(sorted(set(derived))))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """The identity of the set: hex BLAKE3 of the encoded form."""
        return blake3(self.encode(), derive_key_context=_CONTEXT).hexdigest()

    def encode(self) -> bytes:
        """The binary form: for each path, the length shared with the previous path and the rest."""
        out = bytearray(_MAGIC)
        _put_number(out, len(self.derived))
        for pair in self.derived:
            for text in pair:
                data = text.encode("utf-8", "surrogateescape")
                _put_number(out, len(data))
                out += data
        _put_number(out, len(self.rows))
        before = b""
        for path, bits in self.rows:
            shared = _shared(before, path)
            rest = path[shared:]
            _put_number(out, shared)
            _put_number(out, len(rest))
            out += rest
            out.append(bits)
            before = path
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Observations:
        """The inverse of `encode`; raises `CorruptObject` for any other bytes."""
        if not data.startswith(_MAGIC):
            raise CorruptObject("not observations of this version")
        try:
            found, end = _decode(data, len(_MAGIC))
        except IndexError as error:
            raise CorruptObject("observations are cut short") from error
        if end != len(data):
            raise CorruptObject("observations have a wrong length")
        return found


def _depth_first(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def _shared(one: bytes, other: bytes) -> int:
    end = min(len(one), len(other))
    if one[:end] == other[:end]:
        return end
    low, high = 0, end  # one[:low] == other[:low], and not at high
    while high - low > 1:
        middle = (low + high) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle
    return low


def _put_number(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _decode(data: bytes, at: int) -> tuple[Observations, int]:
    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 35:
                raise CorruptObject("a number in observations is too long")

    def text() -> str:
        nonlocal at
        size = number()
        part = data[at : at + size]
        if len(part) != size:
            raise IndexError
        at += size
        return part.decode("utf-8", "surrogateescape")

    derived = []
    for _ in range(number()):
        kind = text()
        derived.append((kind, text()))
    count = number()
    if count > _MAX_ROWS:
        raise CorruptObject("too many observations")
    rows: list[tuple[bytes, int]] = []
    path = b""
    for _ in range(count):
        shared = number()
        size = number()
        rest = data[at : at + size]
        if shared > len(path) or len(rest) != size:
            raise CorruptObject("observations are malformed")
        at += size
        bits = data[at]
        at += 1
        following = path[:shared] + rest
        if rows and following <= path:
            raise CorruptObject("observations are not in order")
        path = following
        rows.append((path, bits))
    return Observations(tuple(rows), tuple(derived)), at
