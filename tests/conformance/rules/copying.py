"""Sections 4, 5, 7 of what COPY and ADD key on, and 12 on base images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.conformance.deriving import build, failing, op, refused, scenario

COPIED = "FROM base\nCOPY a.txt /a.txt\nRUN cat /a.txt > /out\n"
A = {"a.txt": "alpha\n"}
DIR = {"d/a.txt": "alpha\n", "d/b.txt": "beta\n"}
COPY_DIR = "FROM base\nCOPY d /d\nRUN find /d | sort > /out\n"
LISTED = "/d\n/d/a.txt\n/d/b.txt\n"


def one_change(
    name: str, title: str, change: Mapping[str, Any], decisions: str = ".MM", **more: Any
) -> None:
    """COPY of one file, and one change to it."""
    files = more.pop("files", A)
    scenario(name, title, COPIED, build(".MM"), build(decisions, change), files=files, **more)


def dir_change(
    name: str, title: str, *changes: Mapping[str, Any], decisions: str = ".MM", **more: Any
) -> None:
    """COPY of a directory, and one change in it."""
    files = more.pop("files", DIR)
    scenario(name, title, COPY_DIR, build(".MM"), build(decisions, *changes), files=files, **more)


# -- the content ----------------------------------------------------------------------------

one_change("copy-same-size", "other bytes of the same size", op.write("a.txt", "ALPHA\n"))
one_change("copy-newline-at-eof", "the final newline goes", op.write("a.txt", "alpha"))
one_change("copy-line-ends", "CRLF line ends", op.write("a.txt", "alpha\r\n"))
one_change("copy-empty", "the file becomes empty", op.write("a.txt", ""))
one_change(
    "copy-rewrite-same-content",
    "rewritten with equal bytes",
    op.write("a.txt", "alpha\n"),
    ".HH",
)
one_change(
    "copy-new-inode",
    "replaced by a new file with equal bytes",
    op.write("a.txt", "alpha\n", unlink_first=True),
    ".HH",
    area="copy",
)
one_change(
    "mtime-future-and-epoch",
    "a time in the future",
    op.touch("a.txt", 4000000000),
    ".HH",
)
one_change("mtime-epoch", "the time of the beginning", op.touch("a.txt", 0), ".HH")
one_change("perm-exec-bit", "the executable bit", op.chmod("a.txt", "0755"))
one_change("perm-sticky", "the sticky bit of a file", op.chmod("a.txt", "1644"))
one_change(
    "perm-dockerfile-mode", "the mode of the Dockerfile", op.chmod("Dockerfile", "0600"), ".HH"
)
one_change("owner-file", "the owner in the context", op.chown("a.txt", 1000, 1000), ".HH")
one_change(
    "xattr-user",
    "an extended attribute for users",
    op.of("setxattr", "a.txt", name="user.test", value="1"),
    ".HH",
)
one_change(
    "perm-unreadable-unused",
    "a file that is not copied loses all rights",
    op.chmod("b.txt", "0000"),
    ".HH",
    files={"a.txt": "alpha\n", "b.txt": "beta\n"},
)
one_change(
    "special-outside",
    "a FIFO appears outside",
    op.write("pipe", {"fifo": True}),
    ".HH",
)
one_change("emptydir-outside", "an empty directory appears outside", op.mkdir("new"), ".HH")
one_change(
    "emptydir-outside-deep",
    "directories appear outside",
    op.mkdir("new/deep/er"),
    ".HH",
    area="empty-dir",
)
scenario(
    "copy-content-boundary",
    "bytes move from one file to the next",
    COPY_DIR,
    build(".MM"),
    build(".MM", op.write("d/a.txt", "alphab"), op.write("d/b.txt", "eta\n")),
    build(".HH", op.write("d/a.txt", "alpha\n"), op.write("d/b.txt", "beta\n")),
    files={"d/a.txt": "alpha\n", "d/b.txt": "beta\n"},
)
scenario(
    "copy-sparse-in-dir",
    "a hole against zeros in a directory",
    "FROM base\nCOPY d /d\nRUN md5sum < /d/z > /out\n",
    build(".MM"),
    build(".HH", op.write("d/z", {"fill": "\u0000", "size": 300000}, unlink_first=True)),
    build(".MM", op.write("d/z", {"fill": "\u0000", "size": 300001}, unlink_first=True)),
    files={"d/z": {"sparse": 300000}},
)
scenario(
    "copy-large-first-byte",
    "the first byte of a large file",
    "FROM base\nCOPY big /big\nRUN wc -c < /big > /out\n",
    build(".MM", holds={"/out": "1000001\n"}),
    build(".MM", op.write("big", {"fill": "y", "size": 1000001})),
    build(".HH", op.write("big", {"fill": "x", "size": 1000001})),
    files={"big": {"fill": "x", "size": 1000001}},
)

# -- directories ----------------------------------------------------------------------------

dir_change(
    "copy-dir-rename-file", "a file of the directory is renamed", op.rename("d/a.txt", "d/z.txt")
)
dir_change(
    "copy-dir-rename-subdir",
    "a subdirectory is renamed",
    op.rename("d/s", "d/t"),
    files={"d/s/a.txt": "alpha\n"},
)
dir_change("copy-case-rename", "only the letter case of a name", op.rename("d/a.txt", "d/A.txt"))
dir_change("copy-dir-add-file", "a file joins", op.write("d/c.txt", "c\n"))
dir_change("copy-dir-delete-file", "a file goes", op.delete("d/b.txt"))
dir_change("copy-dir-hidden", "a hidden file joins", op.write("d/.hidden", "h\n"))
dir_change("copy-dir-file-mode", "a file of it becomes executable", op.chmod("d/a.txt", "0755"))
dir_change("owner-dir", "the owner of the directory", op.chown("d", 1000, 1000), decisions=".HH")
dir_change(
    "owner-dir-file", "the owner of a file in it", op.chown("d/a.txt", 5, 6), decisions=".HH"
)
dir_change(
    "mtime-dir-all",
    "times of everything in it",
    op.touch("d", 5),
    op.touch("d/a.txt", 6),
    op.touch("d/b.txt", 7),
    decisions=".HH",
)
dir_change(
    "perm-parent-dir-mode",
    "the mode of a directory above the copied one",
    op.chmod("p", "0700"),
    decisions=".HH",
    files={"p/x": "1\n", **DIR},
)
dir_change(
    "copy-hardlinks",
    "a hard link becomes a file of its own with equal bytes",
    op.write("d/b.txt", "alpha\n", unlink_first=True),
    decisions=".HH",
    files={"d/a.txt": "alpha\n", "d/b.txt": {"hardlink": "d/a.txt"}},
)
dir_change("emptydir-nested", "an empty directory deep down", op.mkdir("d/e/f/g"), area="empty-dir")
dir_change(
    "emptydir-becomes-file",
    "an empty directory becomes an empty file",
    op.delete("d/e"),
    op.write("d/e", ""),
    files={"d/e": {"dir": True}, **DIR},
    area="empty-dir",
)
dir_change(
    "emptydir-filled",
    "an empty directory gets a file",
    op.write("d/e/x", "1\n"),
    files={"d/e": {"dir": True}, **DIR},
    area="empty-dir",
)
scenario(
    "emptydir-context",
    "COPY . with an empty directory that comes and goes",
    "FROM base\nCOPY . /c\nRUN find /c | sort > /out\n",
    build(".MM", holds={"/out": "/c\n/c/Dockerfile\n/c/a.txt\n"}),
    build(".MM", op.mkdir("e"), holds={"/out": "/c\n/c/Dockerfile\n/c/a.txt\n/c/e\n"}),
    build(".HH", op.delete("e")),
    files=A,
    area="empty-dir",
)
dir_change("special-fifo-appears", "a FIFO joins", op.write("d/p", {"fifo": True}), area="special")
scenario(
    "special-fifo-replaced",
    "a FIFO becomes a file",
    "FROM base\nCOPY d /d\n",
    build(".M", holds={"/d/p": {"type": "fifo"}}),
    build(".M", op.delete("d/p"), op.write("d/p", ""), holds={"/d/p": ""}),
    files={"d/a": "1\n", "d/p": {"fifo": True}},
)
scenario(
    "special-device-type",
    "a character device becomes a block device of the same numbers",
    "FROM base\nCOPY d /d\n",
    build(".M", holds={"/d/n": {"type": "chr"}}),
    build(
        ".M",
        op.delete("d/n"),
        op.write("d/n", {"device": ["b", 1, 3]}),
        holds={"/d/n": {"type": "blk"}},
    ),
    files={"d/a": "1\n", "d/n": {"device": ["c", 1, 3]}},
)

# Modes of copied directories count here: BuildKit reused outdated ones (observed rule 4.1).
for name, path, files in (
    ("perm-source-dir-mode", "d", DIR),
    ("emptydir-only", "d/e", {"d/e": {"dir": True}}),
):
    scenario(
        name,
        "the mode of a directory that is copied",
        "FROM base\nCOPY . /c\nRUN ls -ld /c/d /c/d/* > /out\n",
        build(".MM", holds={f"/c/{path}": {"type": "dir", "mode": "0755"}}),
        build(".MM", op.chmod(path, "0700"), holds={f"/c/{path}": {"type": "dir", "mode": "0700"}}),
        build(".HH", op.chmod(path, "0755")),
        files=files,
    )

# -- names ----------------------------------------------------------------------------------

for label, first, second in (
    ("unicode", "é.txt", "e\u0301.txt"),
    ("tab", "a\tb", "a b"),
    ("leading-blank", " a", "a"),
    ("trailing-blank", "a ", "a"),
    ("leading-dash", "-a", "a"),
    ("dots", "...", ".a."),
    ("dollar", "$X", "X"),
    ("quotes", "'a'", '"a"'),
    ("hash", "#a", "a#"),
    ("long", "n" * 200, "n" * 201),
    ("bracket", "[ab]", "a"),
    ("star", "*", "a"),
    ("colon", "a:b", "a;b"),
):
    scenario(
        f"name-{label}",
        "a name in a copied directory is renamed to a similar one",
        "FROM base\nCOPY d /d\nRUN ls -A /d > /out\n",
        build(".MM", holds={f"/d/{first}": "1\n", f"/d/{second}": None}),
        build(".HH"),
        build(
            ".MM",
            op.rename(f"d/{first}", f"d/{second}"),
            holds={f"/d/{second}": "1\n", f"/d/{first}": None},
        ),
        files={f"d/{first}": "1\n"},
    )
scenario(
    "name-glob-chars-direct",
    "a name with brackets, escaped and not, as the source",
    "FROM base\nCOPY [[]a].txt /x\n",
    build(".M", holds={"/x": "bracket\n"}),
    build(".H", op.write("a.txt", "other\n")),
    build(".M", op.write("[a].txt", "changed\n"), holds={"/x": "changed\n"}),
    files={"[a].txt": "bracket\n", "a.txt": "plain\n"},
)
scenario(
    "name-glob-escaped",
    "a star in a name, escaped for the words and for the pattern",
    "FROM base\nCOPY a\\\\*b /x\n",
    build(".M", holds={"/x": "star\n"}),
    build(".H", op.write("axb", "other\n")),
    files={"a*b": "star\n", "axb": "x\n"},
)
scenario(
    "name-glob-escaped-once",
    "escaped for the words only, the star is a pattern",
    "FROM base\nCOPY a\\*b /x/\nRUN ls /x > /out\n",
    build(".MM", holds={"/out": "a*b\naxb\n"}),
    build(".MM", op.write("axb", "other\n")),
    files={"a*b": "star\n", "axb": "x\n"},
)
scenario(
    "name-dollar-direct",
    "a dollar sign in the source, escaped",
    "FROM base\nENV X=a\nCOPY \\$X.txt /x\n",
    build("..M", holds={"/x": "dollar\n"}),
    build("..H", op.replace("X=a", "X=b")),
    files={"$X.txt": "dollar\n", "a.txt": "a\n"},
)
scenario(
    "name-json-blanks",
    "names with blanks in JSON form",
    'FROM base\nCOPY ["a b", "c  d", "/to here/"]\nRUN ls "/to here" > /out\n',
    build(".MM", holds={"/out": "a b\nc  d\n"}),
    build(".MM", op.write("a b", "x\n")),
    files={"a b": "1\n", "c  d": "2\n"},
)
scenario(
    "name-quoted-words",
    "quotes do not join words outside of JSON form",
    'FROM base\nCOPY "a b" /x\n',
    refused("unexpected end of statement while looking for matching double-quote"),
    files={"a b": "1\n"},
)

# -- source and destination -----------------------------------------------------------------

scenario(
    "copy-src-trailing-slash",
    "d, d/ and ./d",
    COPY_DIR,
    build(".MM", holds={"/out": LISTED}),
    build(".HH", op.replace("COPY d /d", "COPY d/ /d")),
    build(".HH", op.replace("COPY d/ /d", "COPY ./d /d")),
    build(".HH", op.replace("COPY ./d /d", "COPY /d /d")),
    build(".HH", op.replace("COPY /d /d", "COPY d/. /d")),
    files=DIR,
)
scenario(
    "copy-src-dotdot",
    "a source that leads above the context stays in it",
    COPIED,
    build(".MM"),
    build(".HH", op.replace("COPY a.txt", "COPY ../a.txt"), holds={"/out": "alpha\n"}),
    build(".HH", op.replace("COPY ../a.txt", "COPY x/../a.txt")),
    files=A,
)
scenario(
    "copy-json-form",
    "JSON form",
    COPIED,
    build(".MM"),
    build(".HH", op.replace("COPY a.txt /a.txt", 'COPY ["a.txt", "/a.txt"]')),
    build(".HH", op.replace('"a.txt", "/a.txt"', ' "a.txt" ,"/a.txt" ')),
    files=A,
)
for label, one, two, hit in (
    ("trailing-slash", "/d", "/d/", False),
    ("double-slash", "/d", "//d", True),
    ("dots", "/d", "/x/../d", True),
    ("dot-slash", "/d/", "/d/.", True),
    ("name", "/d", "/e", False),
    ("deeper", "/d", "/d/d", False),
):
    scenario(
        f"copy-dst-{label}",
        f"the destination {one} becomes {two}",
        f"FROM base\nCOPY d {one}\nRUN echo a > /out\n",
        build(".MM"),
        build(".HH" if hit else ".MM", op.replace(f"COPY d {one}\n", f"COPY d {two}\n")),
        files=DIR,
    )
scenario(
    "copy-dst-relative-root",
    "a relative destination without WORKDIR",
    "FROM base\nCOPY a.txt x/\nRUN cat /x/a.txt > /out\n",
    build(".MM", holds={"/x/a.txt": "alpha\n"}),
    build(".HH", op.replace("a.txt x/", "a.txt /x/")),
    build(".HH", op.replace("a.txt /x/", "a.txt ./x/")),
    files=A,
)
scenario(
    "copy-dst-existing-dir",
    "a file to a directory that is there, with and without a slash",
    "FROM base\nRUN mkdir /t\nCOPY a.txt /t\nRUN ls /t > /out\n",
    build(".MMM", holds={"/t/a.txt": "alpha\n"}),
    build(".HMM", op.replace("a.txt /t\n", "a.txt /t/\n"), holds={"/t/a.txt": "alpha\n"}),
    files=A,
)
scenario(
    "copy-dst-symlink",
    "the destination is a link of the image",
    "FROM base\nRUN mkdir /real && ln -s /real /l\nCOPY a.txt /l/\nRUN ls /real > /out\n",
    build(".MMM", holds={"/real/a.txt": "alpha\n", "/l": {"type": "symlink", "target": "/real"}}),
    build(".HHH"),
    files=A,
)
scenario(
    "copy-dst-symlink-file",
    "the destination is a link to a file",
    "FROM base\nRUN echo old > /real && ln -s real /l\nCOPY a.txt /l\n",
    build(".MM"),
    build(".HH"),
    files=A,
)
scenario(
    "copy-dst-parents-made",
    "directories on the way are made",
    "FROM base\nCOPY --chown=1000:1000 a.txt /x/y/z/a.txt\n",
    build(
        ".M",
        holds={
            "/x": {"type": "dir", "mode": "0755", "uid": 1000, "gid": 1000},
            "/x/y/z": {"type": "dir", "mode": "0755"},
        },
    ),
    build(".H"),
    files=A,
)
scenario(
    "copy-dst-file-in-the-way",
    "a directory where a file is",
    "FROM base\nCOPY a.txt /d\nCOPY d /d\n",
    failing(".MM", "cannot copy to non-directory"),
    files={**A, **DIR},
)
scenario(
    "copy-dir-onto-dir",
    "two directories to one place: they merge, later files win",
    "FROM base\nCOPY d /t\nCOPY e /t\nRUN cat /t/* > /out\n",
    build(".MMM", holds={"/out": "A\nbeta\nc\n"}),
    build(".MMM", op.write("d/a.txt", "hidden\n"), holds={"/out": "A\nbeta\nc\n"}),
    build(".HMM", op.write("e/c.txt", "C\n"), holds={"/out": "A\nbeta\nC\n"}),
    files={**DIR, "e/a.txt": "A\n", "e/c.txt": "c\n"},
)
scenario(
    "copy-multi-source-reorder",
    "sources trade places",
    "FROM base\nCOPY a.txt b.txt /t/\nRUN ls /t > /out\n",
    build(".MM"),
    build(".MM", op.replace("a.txt b.txt", "b.txt a.txt"), holds={"/out": "a.txt\nb.txt\n"}),
    files={"a.txt": "1\n", "b.txt": "2\n"},
)
scenario(
    "copy-multi-source-dirs",
    "two directories as sources: their contents",
    "FROM base\nCOPY d e /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": "/t\n/t/a.txt\n/t/b.txt\n/t/c.txt\n"}),
    build(".MM", op.write("e/c.txt", "C\n")),
    build(".HH", op.write("e/c.txt", "c\n")),
    files={**DIR, "e/c.txt": "c\n"},
)
scenario(
    "copy-multi-source-added",
    "a source is added, and taken away",
    "FROM base\nCOPY a.txt /t/\nRUN ls /t > /out\n",
    build(".MM"),
    build(".MM", op.replace("a.txt /t/", "a.txt b.txt /t/"), holds={"/out": "a.txt\nb.txt\n"}),
    build(".HH", op.replace("a.txt b.txt /t/", "a.txt /t/"), holds={"/out": "a.txt\n"}),
    files={"a.txt": "1\n", "b.txt": "2\n"},
)
scenario(
    "copy-vs-add",
    "COPY becomes ADD",
    COPIED,
    build(".MM"),
    build(".MM", op.replace("COPY", "ADD"), holds={"/out": "alpha\n"}),
    files=A,
)
scenario(
    "copy-one-word",
    "COPY with a source only",
    "FROM base\nCOPY a.txt\n",
    refused("COPY requires at least two arguments"),
    files=A,
)
scenario(
    "copy-whole-context-root",
    "COPY . /: everything into the root",
    "FROM base\nCOPY . /\nRUN cat /d/a.txt > /out\n",
    build(".MM", holds={"/out": "alpha\n", "/d/b.txt": "beta\n"}),
    build(".MM", op.write("d/b.txt", "B\n"), holds={"/d/b.txt": "B\n"}),
    files=DIR,
)
scenario(
    "copy-dot-dockerfile-change",
    "COPY . . takes the Dockerfile along: a comment in it",
    "FROM base\nCOPY . /c\nRUN ls -A /c > /out\n",
    build(".MM", holds={"/out": "Dockerfile\na.txt\n"}),
    build(".MM", op.replace("FROM base\n", "# note\nFROM base\n")),
    build(".HH", op.replace("# note\n", "")),
    files=A,
)
scenario(
    "copy-dot-then-more",
    "COPY . . before commands: any file counts",
    "FROM base\nWORKDIR /w\nCOPY . .\nRUN ls > /out\n",
    build(".MMM"),
    build(".HMM", op.write("new", "1\n")),
    build(".HHH", op.delete("new")),
    files=A,
)
scenario(
    "copy-dir-and-file-of-it",
    "a directory and a file of it separately",
    "FROM base\nCOPY d/a.txt /one/\nCOPY d /all\nRUN cat /one/a.txt > /out\n",
    build(".MMM"),
    build(".HMM", op.write("d/b.txt", "B\n")),
    build(".MMM", op.write("d/a.txt", "A\n"), holds={"/out": "A\n"}),
    files=DIR,
)

# -- globs ----------------------------------------------------------------------------------

scenario(
    "copy-glob-no-match",
    "a glob that matches nothing",
    "FROM base\nCOPY *.none /t/\nRUN ls -d /t > /out; true\n",
    build(".MM", holds={"/t": None}),
    build(".HH"),
    build(".MM", op.write("x.none", "x\n"), holds={"/t/x.none": "x\n"}),
    files=A,
)
scenario(
    "copy-glob-missing-directory",
    "a directory before a glob has to be there",
    "FROM base\nCOPY d/* /t/\n",
    failing(".M", "no such file or directory"),
    build(".M", op.write("d/x", "x\n"), holds={"/t/x": "x\n"}),
    build(".M", op.delete("d/x"), holds={"/t": None}),
    files=A,
)
scenario(
    "copy-glob-optional",
    "an optional glob beside a source that is there",
    "FROM base\nCOPY a.txt lock* /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "a.txt\n"}),
    build(".MM", op.write("lock.json", "{}\n"), holds={"/out": "a.txt\nlock.json\n"}),
    build(".HH", op.delete("lock.json"), holds={"/out": "a.txt\n"}),
    files=A,
)
scenario(
    "copy-glob-subdir",
    "a glob below a directory does not cross directories",
    "FROM base\nCOPY d/*.txt /t/\nRUN find /t -type f | sort > /out\n",
    build(".MM", holds={"/out": "/t/a.txt\n/t/b.txt\n"}),
    build(".HH", op.write("d/s/c.txt", "c\n")),
    build(".MM", op.write("d/c.txt", "c\n"), holds={"/out": "/t/a.txt\n/t/b.txt\n/t/c.txt\n"}),
    files=DIR,
)
scenario(
    "copy-glob-directories",
    "a glob that matches directories copies their contents",
    "FROM base\nCOPY d* /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": "/t\n/t/a\n/t/b\n"}),
    build(".MM", op.write("d3/c", "3\n"), holds={"/out": "/t\n/t/a\n/t/b\n/t/c\n"}),
    build(".HH", op.delete("d3")),
    files={"d1/a": "1\n", "d2/b": "2\n"},
)
scenario(
    "copy-glob-middle",
    "a glob in the middle of the path",
    "FROM base\nCOPY */x.txt /t/\nRUN cat /t/x.txt > /out\n",
    build(".MM", holds={"/out": "2\n"}),
    build(".HH", op.write("d1/y.txt", "y\n")),
    build(".MM", op.write("d2/x.txt", "22\n"), holds={"/out": "22\n"}),
    files={"d1/x.txt": "1\n", "d2/x.txt": "2\n"},
)
scenario(
    "copy-glob-delete-match",
    "a match goes",
    "FROM base\nCOPY *.txt /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "a.txt\nb.txt\n"}),
    build(".MM", op.delete("b.txt"), holds={"/out": "a.txt\n"}),
    files={"a.txt": "1\n", "b.txt": "2\n"},
)
scenario(
    "copy-glob-content",
    "the content of a match",
    "FROM base\nCOPY *.txt /t/\nRUN cat /t/* > /out\n",
    build(".MM"),
    build(".MM", op.write("b.txt", "22\n"), holds={"/out": "1\n22\n"}),
    build(".MM", op.chmod("a.txt", "0600")),
    files={"a.txt": "1\n", "b.txt": "2\n"},
)
scenario(
    "copy-glob-hidden",
    "a star matches hidden files, too",
    "FROM base\nCOPY * /t/\nRUN ls -A /t > /out\n",
    build(".MM", holds={"/out": ".h\nDockerfile\na.txt\n"}),
    build(".MM", op.write(".h", "2\n")),
    files={**A, ".h": "1\n"},
)
scenario(
    "copy-glob-class",
    "character classes, negated too",
    "FROM base\nCOPY [^b].txt /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "a.txt\nc.txt\n"}),
    build(".HH", op.write("b.txt", "x\n")),
    build(".MM", op.write("c.txt", "x\n")),
    files={"a.txt": "1\n", "b.txt": "2\n", "c.txt": "3\n"},
)
scenario(
    "copy-glob-malformed",
    "a pattern that is none",
    "FROM base\nCOPY a[.txt /t/\n",
    failing(".M", "syntax error in pattern"),
    files=A,
)

# -- links ----------------------------------------------------------------------------------

LINKED = {"a.txt": "alpha\n", "b.txt": "beta\n", "c.txt": "alpha\n", "l": {"symlink": "a.txt"}}
LINK = "FROM base\nCOPY l /x\nRUN cat /x > /out\n"
scenario(
    "symlink-file-retarget-other",
    "a link points to another file of other content",
    LINK,
    build(".MM", holds={"/x": "alpha\n"}),
    build(".MM", op.symlink("l", "b.txt"), holds={"/x": "beta\n"}),
    build(".HH", op.symlink("l", "a.txt")),
    files=LINKED,
)
scenario(
    "symlink-replaced-by-file",
    "a link becomes a file of equal content",
    LINK,
    build(".MM"),
    build(".HH", op.delete("l"), op.write("l", "alpha\n"), holds={"/x": "alpha\n"}),
    files=LINKED,
)
scenario(
    "symlink-mtime",
    "only the time of the link",
    LINK,
    build(".MM"),
    build(".HH", op.touch("l", 1600000000)),
    files=LINKED,
)
scenario(
    "symlink-mtime-in-dir",
    "only the time of a link in a copied directory",
    COPY_DIR,
    build(".MM", holds={"/d/l": {"type": "symlink", "target": "a"}}),
    build(".HH", op.touch("d/l", 1600000000)),
    files={"d/a": "1\n", "d/l": {"symlink": "a"}},
)
scenario(
    "symlink-parent-component",
    "a link on the way to the source",
    "FROM base\nCOPY l/a.txt /x\nRUN cat /x > /out\n",
    build(".MM", holds={"/x": "1\n"}),
    build(".HH", op.symlink("l", "two")),
    build(".MM", op.write("two/a.txt", "2\n"), holds={"/x": "2\n"}),
    files={"one/a.txt": "1\n", "two/a.txt": "1\n", "l": {"symlink": "one"}},
)
scenario(
    "symlink-dir-retarget",
    "a link to a directory points to an equal one",
    "FROM base\nCOPY l /x\nRUN find /x | sort > /out\n",
    build(".MM", holds={"/out": "/x\n/x/a\n"}),
    build(".HH", op.symlink("l", "two")),
    build(".MM", op.write("two/b", "2\n"), holds={"/out": "/x\n/x/a\n/x/b\n"}),
    files={"one/a": "1\n", "two/a": "1\n", "l": {"symlink": "one"}},
)
scenario(
    "symlink-in-dir-retarget",
    "a link in a copied directory gets another target of equal content",
    COPY_DIR,
    build(".MM", holds={"/d/l": {"type": "symlink", "target": "a"}}),
    build(".MM", op.symlink("d/l", "b"), holds={"/d/l": {"type": "symlink", "target": "b"}}),
    build(".HH", op.symlink("d/l", "a")),
    files={"d/a": "1\n", "d/b": "1\n", "d/l": {"symlink": "a"}},
)
scenario(
    "symlink-in-dir-target-outside",
    "the file behind a link that leads out of the copied directory",
    COPY_DIR,
    build(".MM", holds={"/d/l": {"type": "symlink", "target": "../o"}}),
    build(".HH", op.write("o", "2\n")),
    files={"d/a": "1\n", "o": "1\n", "d/l": {"symlink": "../o"}},
)
scenario(
    "symlink-dangling-in-dir",
    "a dangling link in a copied directory",
    COPY_DIR,
    build(".MM", holds={"/d/l": {"type": "symlink", "target": "nowhere"}}),
    build(".MM", op.symlink("d/l", "elsewhere")),
    build(".HH", op.symlink("d/l", "nowhere")),
    files={"d/a": "1\n", "d/l": {"symlink": "nowhere"}},
)
scenario(
    "symlink-in-dir-appears",
    "a link joins a copied directory",
    COPY_DIR,
    build(".MM"),
    build(".MM", op.symlink("d/l", "a.txt")),
    build(".HH", op.delete("d/l")),
    files=DIR,
)
scenario(
    "symlink-glob",
    "a glob that matches a link: it is followed",
    "FROM base\nCOPY l* /t/\nRUN cat /t/l > /out\n",
    build(".MM"),
    build(".MM", op.write("a.txt", "new\n"), holds={"/out": "new\n"}),
    files=LINKED,
)
scenario(
    "symlink-whole-context",
    "links of the context root with COPY .",
    "FROM base\nCOPY . /c\nRUN readlink /c/l > /out\n",
    build(".MM", holds={"/out": "a.txt\n"}),
    build(".MM", op.symlink("l", "c.txt"), holds={"/out": "c.txt\n"}),
    files=LINKED,
)
scenario(
    "symlink-loop-direct",
    "a loop of links as the source",
    "FROM base\nCOPY a /x\n",
    failing(".M", "too many links"),
    files={"a": {"symlink": "b"}, "b": {"symlink": "a"}},
)

# -- --chown, --chmod -----------------------------------------------------------------------

scenario(
    "chown-forms",
    "numbers, names, with and without group",
    "FROM base\nCOPY --chown=1000:1000 a.txt /x\n",
    *(
        build(
            ".M" if first else ".MM"[:2],
            *([] if first else [op.replace(old, new)]),
            holds={"/x": {"type": "file", "uid": 1000, "gid": 1000}},
        )
        for first, old, new in (
            (True, "", ""),
            (False, "1000:1000", "app:app"),
            (False, "app:app", "app"),
            (False, "--chown=app ", "--chown=1000 "),
        )
    ),
    files=A,
)
scenario(
    "chown-group-only-differs",
    "the group changes",
    "FROM base\nCOPY --chown=1000:1000 a.txt /x\n",
    build(".M"),
    build(
        ".M", op.replace(":1000", ":1001"), holds={"/x": {"type": "file", "uid": 1000, "gid": 1001}}
    ),
    build(
        ".M",
        op.replace("1000:1001", "app:other"),
        holds={"/x": {"type": "file", "uid": 1000, "gid": 1001}},
    ),
    files=A,
)
scenario(
    "chown-dir",
    "a directory and all that is in it",
    "FROM base\nCOPY --chown=app:app d /d\n",
    build(
        ".M",
        holds={
            "/d": {"type": "dir", "uid": 1000, "gid": 1000},
            "/d/s": {"type": "dir", "uid": 1000, "gid": 1000},
            "/d/s/a": {"type": "file", "uid": 1000, "gid": 1000},
        },
    ),
    build(".H", op.chown("d/s", 1001, 1001)),
    files={"d/s/a": "1\n"},
)
scenario(
    "chown-user-does-not-matter",
    "COPY as USER app gives files to root",
    "FROM base\nUSER app\nCOPY a.txt /x\nCOPY --chown=other a.txt /y\n",
    build(
        "..MM",
        holds={"/x": {"type": "file", "uid": 0}, "/y": {"type": "file", "uid": 1001, "gid": 1001}},
    ),
    build("..HH", op.replace("USER app", "USER other")),
    files=A,
)
scenario(
    "chown-passwd-other-line",
    "another account appears in /etc/passwd",
    "FROM base\nRUN echo 'svc:x:700:700::/:/bin/sh' >> /etc/passwd\nCOPY --chown=app a.txt /x\n",
    build(".MM", holds={"/x": {"type": "file", "uid": 1000}}),
    build(".MM", op.replace("700:700", "701:701"), holds={"/x": {"type": "file", "uid": 1000}}),
    files=A,
)
scenario(
    "chmod-own-mode-counts",
    "the file's own mode under --chmod",
    "FROM base\nCOPY --chmod=755 a.txt /x\n",
    build(".M", holds={"/x": {"type": "file", "mode": "0755"}}),
    build(".M", op.chmod("a.txt", "0600"), holds={"/x": {"type": "file", "mode": "0755"}}),
    files=A,
)
scenario(
    "chmod-special-bits",
    "setuid, setgid and sticky bits",
    "FROM base\nCOPY --chmod=4755 a.txt /x\n",
    build(".M", holds={"/x": {"type": "file", "mode": "4755"}}),
    build(".M", op.replace("4755", "1755"), holds={"/x": {"type": "file", "mode": "1755"}}),
    files=A,
)
scenario(
    "chmod-symbolic",
    "symbolic modes",
    "FROM base\nCOPY --chmod=u+x,go-r a.txt /x\n",
    build(".M", holds={"/x": {"type": "file", "mode": "0700"}}),
    build(".M", op.replace("u+x,go-r", "go=u"), holds={"/x": {"type": "file", "mode": "0666"}}),
    build(".M", op.replace("go=u", "a=rX"), holds={"/x": {"type": "file", "mode": "0444"}}),
    build(".M", op.replace("a=rX", "+x"), holds={"/x": {"type": "file", "mode": "0755"}}),
    files=A,
)
scenario(
    "chmod-symbolic-dir",
    "X means directories and what is executable already",
    "FROM base\nCOPY --chmod=u=rwX,go=rX d /d\n",
    build(
        ".M",
        holds={
            "/d/s": {"type": "dir", "mode": "0755"},
            "/d/s/a": {"type": "file", "mode": "0644"},
            "/d/tool": {"type": "file", "mode": "0755"},
        },
    ),
    build(".H"),
    files={
        "d/s/a": {"content": "1\n", "mode": "0600"},
        "d/tool": {"content": "2\n", "mode": "0700"},
    },
)
scenario(
    "chmod-invalid",
    "modes that are none",
    "FROM base\nCOPY --chmod=99999 a.txt /x\n",
    refused("invalid chmod parameter"),
    refused("invalid mode", op.replace("99999", "z+q")),
    refused("invalid chmod parameter", op.replace("z+q", "10000")),
    files=A,
)
scenario(
    "chmod-add",
    "ADD --chmod",
    "FROM base\nADD --chmod=600 a.txt /x\n",
    build(".M", holds={"/x": {"type": "file", "mode": "0600"}}),
    build(".M", op.replace("600", "640"), holds={"/x": {"type": "file", "mode": "0640"}}),
    files=A,
)

# -- 5: the racy case -----------------------------------------------------------------------

scenario(
    "mtime-racy-newinode",
    "same size and time, other bytes in a new file",
    COPIED,
    build(".MM", holds={"/out": "alpha\n"}),
    build(
        ".MM",
        op.write("a.txt", "ALPHA\n", preserve_mtime=True, unlink_first=True),
        holds={"/out": "ALPHA\n"},
    ),
    files=A,
)
scenario(
    "mtime-racy-swap",
    "two files of one size and time trade places",
    COPIED,
    build(".MM", holds={"/out": "alpha\n"}),
    build(".MM", op.of("swap", "a.txt", **{"with": "b.txt"}), holds={"/out": "BRAVO\n"}),
    files={"a.txt": "alpha\n", "b.txt": "BRAVO\n"},
)
scenario(
    "mtime-racy-dockerfile",
    "a Dockerfile of the same size",
    "FROM base\nRUN echo one > /x\n",
    build(".M", holds={"/x": "one\n"}),
    build(".M", op.replace("one", "two"), holds={"/x": "two\n"}),
)
scenario(
    "mtime-racy-other-context",
    "another context with a file of the same size and time",
    COPIED,
    build(".MM", holds={"/out": "alpha\n"}),
    build(".MM", context="two", holds={"/out": "ALPHA\n"}),
    build(".HH", holds={"/out": "alpha\n"}),
    files=A,
    contexts={"two": {"files": {"a.txt": "ALPHA\n"}, "dockerfile": COPIED}},
)

# -- contexts -------------------------------------------------------------------------------

scenario(
    "context-other-path",
    "an exact copy of the context elsewhere",
    COPIED,
    build(".MM"),
    build(".HH", {"op": "clone_context", "to": "copy"}, context="copy"),
    build(".MM", op.write("a.txt", "x\n", context="copy"), context="copy", holds={"/out": "x\n"}),
    build(".HH"),
    files=A,
)
scenario(
    "context-other-path-mtimes",
    "a copy of the context with other times",
    COPIED,
    build(".MM"),
    build(
        ".HH",
        {"op": "clone_context", "to": "copy"},
        op.of("touch", "a.txt", context="copy"),
        context="copy",
    ),
    files=A,
)
scenario(
    "context-dockerfile-name",
    "a Dockerfile of another name",
    COPIED,
    build(".MM"),
    build(".HH", op.dockerfile(COPIED, name="Build.df"), file="Build.df"),
    files=A,
)
scenario(
    "context-dockerfile-other-context",
    "the same Dockerfile from elsewhere",
    COPIED,
    build(".MM"),
    build(".HH", dockerfile_context="df"),
    files=A,
    contexts={"df": {"dockerfile": COPIED}},
)
scenario(
    "context-subdir-as-root",
    "a subdirectory as context, the file under its own name",
    "FROM base\nCOPY sub/a.txt /x\nRUN cat /x > /out\n",
    build(".MM"),
    build(".HH", context="sub"),
    files={"sub/a.txt": "alpha\n"},
    contexts={
        "sub": {
            "files": {"a.txt": "alpha\n"},
            "dockerfile": "FROM base\nCOPY a.txt /x\nRUN cat /x > /out\n",
        }
    },
)

scenario(
    "copy-source-other-dir",
    "the same name from another directory with equal content",
    "FROM base\nCOPY one/a.txt /x\nCOPY one/d /d\nRUN cat /x > /out\n",
    build(".MMM"),
    build(".HHH", op.replace("one/", "two/")),
    build(".MMM", op.write("two/a.txt", "2\n"), holds={"/out": "2\n"}),
    files={"one/a.txt": "1\n", "two/a.txt": "1\n", "one/d/f": "f\n", "two/d/f": "f\n"},
)
scenario(
    "copy-source-other-dir-glob",
    "a glob in another directory with equal matches",
    "FROM base\nCOPY one/*.txt /x/\n",
    build(".M"),
    build(".H", op.replace("one/", "two/")),
    build(".M", op.write("two/b.txt", "2\n"), holds={"/x/b.txt": "2\n"}),
    files={"one/a.txt": "1\n", "two/a.txt": "1\n"},
)

# -- 7: base images -------------------------------------------------------------------------

B2 = {"b2": {"dockerfile": "FROM base\nRUN echo 1 > /v\n"}}
scenario(
    "from-base-label-changes",
    "only a label of the base changes",
    "FROM b2\nCOPY a.txt /a.txt\nRUN echo hi > /x\n",
    build(".MM", config={"Labels": {"k": "1"}}),
    build(".HH", op.image("b2", "FROM base\nLABEL k=2\n"), config={"Labels": {"k": "2"}}),
    files=A,
    images={"b2": {"dockerfile": "FROM base\nLABEL k=1\n"}},
)
scenario(
    "from-base-env-changes",
    "only an ENV of the base changes",
    "FROM b2\nCOPY a.txt /a.txt\nRUN echo $E > /x\n",
    build(".MM", holds={"/x": "1\n"}),
    build(".HM", op.image("b2", "FROM base\nENV E=2\n"), holds={"/x": "2\n"}),
    build(".HH", op.image("b2", "FROM base\nENV E=1\n"), holds={"/x": "1\n"}),
    files=A,
    images={"b2": {"dockerfile": "FROM base\nENV E=1\n"}},
)
scenario(
    "from-base-user-changes",
    "only the USER of the base changes",
    "FROM b2\nCOPY a.txt /a.txt\nRUN id -u > /tmp/x\n",
    build(".MM", holds={"/tmp/x": "1000\n"}),
    build(".HM", op.image("b2", "FROM base\nUSER other\n"), holds={"/tmp/x": "1001\n"}),
    files=A,
    images={"b2": {"dockerfile": "FROM base\nUSER app\n"}},
)
scenario(
    "from-base-cmd-changes",
    "only the CMD of the base changes",
    "FROM b2\nRUN echo a > /x\n",
    build(".M", config={"Cmd": ["one"]}),
    build(".H", op.image("b2", 'FROM base\nCMD ["two"]\n'), config={"Cmd": ["two"]}),
    images={"b2": {"dockerfile": 'FROM base\nCMD ["one"]\n'}},
)
scenario(
    "from-base-more-layers",
    "the base gets a layer, and loses it",
    "FROM b2\nCOPY a.txt /a.txt\nRUN ls /v* > /x\n",
    build(".MM", holds={"/x": "/v\n"}),
    build(
        ".MM",
        op.image("b2", "FROM base\nRUN echo 1 > /v\nRUN echo 2 > /v2\n"),
        holds={"/x": "/v\n/v2\n"},
    ),
    build(".HH", op.image("b2", "FROM base\nRUN echo 1 > /v\n")),
    files=A,
    images=B2,
)
scenario(
    "from-missing-image",
    "a base image that is not there",
    "FROM localhost:1/nowhere/none:1\nRUN echo a\n",
    refused("failed to resolve"),
)
scenario(
    "from-unused-missing-image",
    "a base image that is not there, of a stage that nothing needs",
    "FROM localhost:1/nowhere/none:1 AS x\nRUN echo a\nFROM base\nRUN echo b > /b\n",
    build(".S.M"),
    build(".S.H"),
)
scenario(
    "from-latest-tag",
    "FROM base and FROM base:latest are one",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".H", op.replace("FROM base", "FROM base:latest")),
    build(".H", op.replace("FROM base:latest", "FROM docker.io/library/base")),
)
scenario(
    "from-scratch-only",
    "a stage from scratch with a file",
    "FROM scratch\nCOPY a.txt /a.txt\nCOPY d /d\n",
    build(".MM", holds={"/a.txt": "@SALT@\n", "/d/x": "1\n"}),
    build(".HH"),
    build(".MM", op.write("a.txt", "2@SALT@\n")),
    build(".HM", op.write("d/x", "2\n")),
    files={"a.txt": "@SALT@\n", "d/x": "1\n"},
)
scenario(
    "from-scratch-empty",
    "nothing but scratch and configuration",
    'FROM scratch\nLABEL a=1\nCMD ["x"]\n',
    build("...", config={"Cmd": ["x"], "Labels": {"a": "1"}}),
    build("...", op.replace("a=1", "a=2"), config={"Labels": {"a": "2"}}),
)
scenario(
    "from-no-stage",
    "a Dockerfile without FROM",
    "RUN echo a\n",
    refused("no build stage in current context"),
)
scenario(
    "platform-invalid",
    "a platform that is none",
    "FROM --platform=a/b/c/d base\nRUN echo a > /x\n",
    refused("failed to parse platform"),
)
scenario(
    "platform-empty",
    "a platform by an argument that is not set",
    "ARG P\nFROM --platform=$P base\nRUN echo a > /x\n",
    refused("empty platform value from expression $P"),
)
scenario(
    "platform-scratch-env",
    "scratch for another platform, with its automatic arguments",
    "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH.txt /x\n",
    build("..M", platform="linux/amd64", holds={"/x": "a@SALT@\n"}),
    build("..M", platform="linux/arm64", holds={"/x": "b@SALT@\n"}),
    build("..H", platform="linux/amd64"),
    files={"amd64.txt": "a@SALT@\n", "arm64.txt": "b@SALT@\n"},
)
