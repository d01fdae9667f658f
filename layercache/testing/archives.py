"""Archives that violate the rules of safe reading, one rule each, for tests of unpacking code.

`hostile_archives` returns some hundred small tars. None may make a reader write or read outside its
directory; each must be rejected as a whole. `header`, `entry`, `pax` and `archive` build more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from layercache._base.classes import field, frozen

__all__ = ["END", "Hostile", "archive", "entry", "header", "hostile_archives", "pax"]

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""The two blocks of zeros that end a tar."""


@frozen
class Hostile:
    """One archive. `as_layer` and `as_archive` tell where it must be rejected: read as the layer of
    an image, or given to ADD (some tricks have no effect there).
    """

    name: str
    data: bytes = field(repr=False)
    as_layer: bool = True
    as_archive: bool = True


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    link: bytes = b"",
    mode: bytes = b"0000644",
    uid: int | bytes = 0,
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    mtime: bytes = b"00000000005",
    magic: bytes = b"ustar\00000",
    checksum: bytes | None = None,
) -> bytes:
    """One header block with any field as given; bytes are used unchanged."""

    def number(value: int | bytes, width: int) -> bytes:
        text = b"%0*o" % (width - 1, value) if isinstance(value, int) else value
        return text.ljust(width, b"\0")

    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            mode.ljust(8, b"\0"),
            number(uid, 8),
            number(0, 8),
            number(size, 12),
            mtime.ljust(12, b"\0"),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            number(device[0], 8),
            number(device[1], 8),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    field = b"%06o\0 " % sum(block) if checksum is None else checksum.ljust(8, b"\0")
    return block[:148] + field + block[156:]


def padded(data: bytes) -> bytes:
    """`data` padded to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def entry(name: bytes, content: bytes = b"", kind: bytes = b"0", **fields: object) -> bytes:
    """A header and its content; `fields` as for `header`."""
    fields.setdefault("size", len(content))
    return header(name, kind, **fields) + padded(content)  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    """A pax record with the right length."""
    length = len(key) + len(value) + 3
    while len(b"%d %s=%s\n" % (length, key, value)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """A pax header; a record given as bytes is used unchanged."""
    body = b"".join(r if isinstance(r, bytes) else record(*r) for r in records)
    return entry(b"PaxHeaders/x", body, kind)


def archive(*parts: bytes, end: bytes = END) -> bytes:
    """A tar of `parts`, after a harmless first file that makes it look ordinary."""
    return b"".join((entry(b"first", b"innocent\n"), *parts, end))


def hostile_archives() -> tuple[Hostile, ...]:
    """All hostile archives."""
    found: list[Hostile] = []
    for make in (_paths, _links, _deletions, _devices, _format, _pax_headers, _codecs):
        found += make()
    return tuple(found)


def _long(name: bytes, kind: bytes = b"L") -> bytes:
    return entry(b"././@LongLink", name + b"\0", kind)


def _paths() -> Iterator[Hostile]:
    names = {
        "parent directory": b"../evil",
        "parent directory inside": b"a/../../evil",
        "parent directory that stays inside": b"a/../evil",
        "parent directory alone": b"..",
        "parent directory at the end": b"a/..",
        "parent directory after a dot": b"./../evil",
    }
    for what, name in names.items():
        yield Hostile(what, archive(entry(name, b"evil")))
    for what, name in {"only slashes": b"///", "no name": b"", "root as a file": b"."}.items():
        yield Hostile(what, archive(entry(name, b"evil")), as_archive=False)
    yield Hostile("parent directory in prefix", archive(entry(b"evil", b"x", prefix=b"..")))
    yield Hostile("parent directory in pax path", archive(pax((b"path", b"../evil")), entry(b"x")))
    yield Hostile("NUL in pax path", archive(pax((b"path", b"good\0/../evil")), entry(b"x")))
    yield Hostile("empty pax path", archive(pax((b"path", b"")), entry(b"x")))
    yield Hostile("parent directory in long name", archive(_long(b"../evil"), entry(b"x")))
    yield Hostile("NUL in long name", archive(_long(b"a\0b"), entry(b"x")))
    yield Hostile("path too long", archive(_long(b"d/" * 2100 + b"x"), entry(b"x")))
    yield Hostile("name too long", archive(_long(b"n" * 300), entry(b"x")))
    yield Hostile("nested too deeply", archive(_long(b"d/" * 600 + b"x"), entry(b"x")))
    yield Hostile("directory above the root", archive(entry(b"../", kind=b"5")))
    root = archive(entry(b".", kind=b"2", link=b"/etc"))
    yield Hostile("root as a link", root, as_archive=False)
    yield Hostile("file with a slash behind", archive(entry(b"a/", b"x")))


def _links() -> Iterator[Hostile]:
    def link(name: bytes, target: bytes) -> bytes:
        return entry(name, kind=b"2", link=target)

    def hard(name: bytes, target: bytes, size: int = 0) -> bytes:
        return entry(name, kind=b"1", link=target, size=size)

    evil = entry(b"l/evil", b"x")
    directory = entry(b"l/", kind=b"5")
    for what, parts in {
        "through a link to the root": (link(b"l", b"/"), evil),
        "through a link to the parent": (link(b"l", b"../.."), evil),
        "through a link inside": (link(b"l", b"d"), entry(b"d/", kind=b"5"), evil),
        "through links to links": (link(b"k", b"/etc"), link(b"l", b"k"), evil),
        "through a link deep down": (link(b"d/l", b"/etc"), entry(b"d/l/a/b", b"x")),
        "through a directory that became a link": (
            directory,
            entry(b"l/f"),
            link(b"l", b"/etc"),
            evil,
        ),
        "directory through a link": (link(b"l", b"/"), entry(b"l/d/", kind=b"5")),
        "link through a link": (link(b"l", b"/"), link(b"l/x", b"y")),
    }.items():
        yield Hostile(what, archive(*parts), as_archive=False)  # ADD stays inside, as tar does
    yield Hostile("through a loop", archive(link(b"l", b"m"), link(b"m", b"l"), evil))
    yield Hostile("through a hard link", archive(hard(b"l", b"first"), evil))
    yield Hostile("through a file", archive(entry(b"l", b"file"), evil))
    yield Hostile("link without target", archive(link(b"l", b"")))
    yield Hostile("link with NUL", archive(pax((b"linkpath", b"a\0b")), link(b"l", b"x")))
    yield Hostile("link too long", archive(_long(b"x" * 5000, b"K"), link(b"l", b"x")))
    yield Hostile("hard link to an absolute path", archive(hard(b"h", b"/etc/passwd")))
    yield Hostile("hard link outside", archive(hard(b"h", b"../../etc/passwd")))
    yield Hostile("hard link to nothing", archive(hard(b"h", b"nothing")))
    yield Hostile("hard link to itself", archive(hard(b"h", b"h")))
    yield Hostile("hard link to a directory", archive(entry(b"d/", kind=b"5"), hard(b"h", b"d")))
    yield Hostile("hard link to the root", archive(hard(b"h", b".")))
    yield Hostile("hard link without target", archive(hard(b"h", b"")))
    yield Hostile("hard link to what comes later", archive(hard(b"h", b"z"), entry(b"z", b"x")))
    yield Hostile("hard link through a link", archive(link(b"l", b"/etc"), hard(b"h", b"l/passwd")))
    yield Hostile(
        "hard link with content", archive(hard(b"h", b"first", size=4), b"evil".ljust(512))
    )
    yield Hostile(
        "hard link outside in pax",
        archive(pax((b"linkpath", b"../evil")), hard(b"h", b"first")),
    )


def _deletions() -> Iterator[Hostile]:
    for what, name in {
        "deletion of nothing": b".wh.",
        "deletion of the directory itself": b".wh..",
        "deletion of the parent": b".wh...",
        "deletion of the directory itself, deeper": b"a/.wh..",
        "marker of aufs": b".wh..wh.aufs",
        "marker of aufs for links": b".wh..wh.plnk",
        "marker nearly opaque": b".wh..wh..opqx",
        "deletion outside": b"../.wh.x",
        "beneath a marker": b".wh.a/b",
        "beneath an opaque marker": b".wh..wh..opq/x",
    }.items():
        yield Hostile(what, archive(entry(name)))
    for what, name in {
        "deletion at an absolute path": b"/.wh.etc",
        "deletion of what is there": b".wh.first",
    }.items():
        yield Hostile(what, archive(entry(name)), as_layer=False)
    yield Hostile("deletion with content", archive(entry(b".wh.x", b"evil")))
    yield Hostile("deletion as directory", archive(entry(b".wh.x/", kind=b"5")))
    yield Hostile("deletion as link", archive(entry(b".wh.x", kind=b"2", link=b"/etc")))
    yield Hostile("deletion as hard link", archive(entry(b".wh.x", kind=b"1", link=b"first")))
    yield Hostile("deletion as device", archive(entry(b".wh.x", kind=b"3", device=(1, 3))))
    yield Hostile("opaque marker with content", archive(entry(b"d/.wh..wh..opq", b"evil")))
    yield Hostile("opaque marker as directory", archive(entry(b".wh..wh..opq/", kind=b"5")))
    yield Hostile(
        "deletion through a link",
        archive(entry(b"l", kind=b"2", link=b"/"), entry(b"l/.wh.etc")),
    )
    yield Hostile("deletion by ADD", archive(entry(b".wh.etc")), as_layer=False)
    yield Hostile("opaque marker by ADD", archive(entry(b"etc/.wh..wh..opq")), as_layer=False)


def _devices() -> Iterator[Hostile]:
    zero = entry(b"etc", kind=b"3", device=(0, 0))
    yield Hostile("device that means a deletion", archive(zero))
    yield Hostile("device number too big", archive(entry(b"d", kind=b"4", device=(4096, 0))))
    yield Hostile("device with content", archive(entry(b"d", b"x", b"3", device=(1, 3))))
    yield Hostile("FIFO with content", archive(entry(b"d", b"x", b"6")))
    for name in (b"trusted.overlay.opaque", b"trusted.overlay.redirect", b"user.overlay.metacopy"):
        key = b"SCHILY.xattr." + name
        yield Hostile(name.decode(), archive(pax((key, b"y")), entry(b"d/", kind=b"5")))
    yield Hostile("attribute without name", archive(pax((b"SCHILY.xattr.", b"y")), entry(b"f")))
    yield Hostile(
        "attribute with NUL", archive(pax((b"SCHILY.xattr.user.a\0b", b"y")), entry(b"f"))
    )


def _format() -> Iterator[Hostile]:
    good = entry(b"f", b"content" * 100)
    yield Hostile("wrong checksum", archive(header(b"f", checksum=b"000001")))
    yield Hostile("checksum that is no number", archive(header(b"f", checksum=b"1_0000")))
    yield Hostile("cut within a header", archive(good, end=header(b"g")[:300]))
    yield Hostile("cut within content", archive(good, end=header(b"g", size=2000) + b"x" * 700))
    yield Hostile("cut within padding", archive(good, end=header(b"g", size=4) + b"abcd"))
    yield Hostile("no end", archive(good, end=b""))
    yield Hostile("data behind the end", archive(good) + b"hidden")
    yield Hostile("archive behind the end", archive(good) + archive(good))
    yield Hostile("garbage between entries", archive(good, b"garbage".ljust(512), good))
    yield Hostile("negative size", archive(header(b"f", size=b"\xff" * 12)))
    yield Hostile("size beyond all", archive(header(b"f", size=b"\x80" + b"\xff" * 11)))
    yield Hostile(
        "size of half the world",
        archive(header(b"f", size=b"\x80" + bytes(4) + b"\x20" + bytes(6))),
    )
    yield Hostile("size that is no number", archive(header(b"f", size=b"12x4")))
    yield Hostile("size that is not octal", archive(header(b"f", size=b"00000000089")))
    yield Hostile("size with a sign", archive(header(b"f", size=b"-0000000001")))
    yield Hostile("mode that is no number", archive(header(b"f", mode=b"rwxr-xr")))
    yield Hostile("owner beyond all", archive(header(b"f", uid=b"\x80" + b"\x01" * 7)))
    yield Hostile(
        "owner that means nobody changes", archive(header(b"f", uid=b"\x80\0\0\0\xff\xff\xff\xff"))
    )
    yield Hostile("sparse file", archive(entry(b"f", b"x" * 600, b"S")))
    yield Hostile("unknown type", archive(entry(b"f", kind=b"Z")))
    yield Hostile("volume continued", archive(entry(b"f", b"x", b"M")))
    yield Hostile("directory of GNU dumps", archive(entry(b"f", b"Yx\0", b"D")))
    yield Hostile("directory with content", archive(entry(b"d/", b"evil", b"5")))
    yield Hostile("link with content", archive(entry(b"l", b"evil", b"2", link=b"x")))
    yield Hostile("time that is no number", archive(header(b"f", mtime=b"tomorrow")))


def _pax_headers() -> Iterator[Hostile]:
    file = entry(b"f", b"content")
    bad: dict[str, tuple[tuple[bytes, bytes] | bytes, ...]] = {
        "pax size beyond the archive": ((b"size", b"99999999"),),
        "pax size beyond all": ((b"size", b"9" * 30),),
        "pax size negative": ((b"size", b"-1"),),
        "pax size no number": ((b"size", b"0x10"),),
        "pax owner negative": ((b"uid", b"-1"),),
        "pax owner beyond all": ((b"gid", b"4294967295"),),
        "pax time no number": ((b"mtime", b"now"),),
        "pax record too long": (b"99 path=x\n",),
        "pax record too short": (b"5 path=x\n",),
        "pax record of no length": (b"0 path=x\n",),
        "pax record with a sign": (b"+9 path=x\n",),
        "pax record without equals": (b"9 pathxx\n",),
        "pax record without key": (b"5 =x\n",),
        "pax record without end": (b"9 path=xy",),
        "pax key twice": ((b"path", b"a"), (b"path", b"b")),
        "pax sparse file": ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"../x")),
    }
    for what, records in bad.items():
        yield Hostile(what, archive(pax(*records), file))
    yield Hostile(
        "pax size that hides an entry", archive(pax((b"size", b"1024")), file, entry(b"h"))
    )
    yield Hostile("pax header too big", archive(pax((b"comment", b"x" * (2 << 20))), file))
    yield Hostile("pax header of no entry", archive(pax((b"path", b"x"))))
    yield Hostile("two pax headers", archive(pax((b"path", b"x")), pax((b"uid", b"1")), file))
    yield Hostile("long name too big", archive(_long(b"x" * (2 << 20)), file))
    yield Hostile("long name of no length", archive(entry(b"././@LongLink", b"", b"L"), file))
    yield Hostile("long name cut off", archive(end=header(b"x", b"L", size=5000) + b"x" * 100))
    yield Hostile("global path", archive(pax((b"path", b"x"), kind=b"g"), file))
    yield Hostile("global size", archive(pax((b"size", b"1"), kind=b"g"), file))
    yield Hostile("global attribute", archive(pax((b"SCHILY.xattr.user.a", b"1"), kind=b"g"), file))


def _codecs() -> Iterator[Hostile]:
    import bz2
    import gzip
    import lzma

    plain = archive(entry(b"f", bytes(range(256)) * 2000))
    zipped = gzip.compress(plain, 1, mtime=0)
    yield Hostile("gzip cut off", zipped[:-100])
    yield Hostile("gzip without its end", zipped[:-8])
    yield Hostile("gzip with a wrong checksum", zipped[:-8] + b"\0" * 8)
    yield Hostile("gzip with garbage behind", zipped + b"garbage!")
    yield Hostile("gzip damaged", zipped[:900] + b"\xff" * 64 + zipped[964:])
    yield Hostile("bzip2 cut off", bz2.compress(plain, 1)[:-50])
    yield Hostile("xz cut off", lzma.compress(plain)[:-50])
    # A gigabyte of zeros in some kilobytes; the file's header promises it.
    zeros = bytes(1 << 20)
    for name, codec in (("bzip2", bz2.BZ2Compressor(9)), ("xz", lzma.LZMACompressor(preset=1))):
        parts = [codec.compress(entry(b"first", b"x") + header(b"f", size=256 << 20))]
        parts += [codec.compress(zeros) for _ in range(256)]
        parts += [codec.compress(END), codec.flush()]
        yield Hostile(f"{name} bomb", b"".join(parts))
