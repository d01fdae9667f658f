"""Neighbours of what was observed: other forms, places and mixtures of the same instructions.

What is expected follows from BuildKit's reference and from how it goes about each instruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.conformance.deriving import build, failing, op, refused, scenario

A = {"a.txt": "alpha\n"}
AB = {"a.txt": "alpha\n", "b.txt": "beta\n"}
TREE = {
    "p/a.txt": "alpha\n",
    "p/q/b.txt": "beta\n",
    "p/q/r/c.txt": "gamma\n",
    "s/q/b.txt": "delta\n",
}


def letters(dockerfile: str, letter: str) -> str:
    """`letter` for each step, a dot for each instruction that decides nothing."""
    steps = ("RUN", "COPY", "ADD", "WORKDIR")
    lines = [line for line in dockerfile.split("\n") if line]
    return "".join(letter if line.split()[0].upper() in steps else "." for line in lines)


def holding(
    name: str,
    title: str,
    dockerfile: str,
    holds: Mapping[str, Any],
    files: Mapping[str, Any] = AB,
    **rest: Any,
) -> None:
    """What one build leaves in the image, and that the next one executes nothing."""
    scenario(
        name,
        title,
        dockerfile,
        build(letters(dockerfile, "M"), holds=holds),
        build(letters(dockerfile, "H"), holds=holds),
        files=files,
        **rest,
    )


def owned(uid: int, gid: int, mode: str = "0644") -> dict[str, Any]:
    """A file with these owners."""
    return {"type": "file", "uid": uid, "gid": gid, "mode": mode}


DIRECTORY = {"type": "dir", "mode": "0755"}

# -- owners ---------------------------------------------------------------------------------

for name, chown, uid, gid in [
    ("chown-unknown-user", "nobody", 0, 0),
    ("chown-unknown-group", "app:nogroup", 1000, 1000),
    ("chown-unknown-both", "nobody:nogroup", 0, 0),
    ("chown-group-by-name", "0:other", 0, 1001),
    ("chown-number-and-name", "1001:app", 1001, 1000),
    ("chown-large-number", "70000:70001", 70000, 70001),
    ("chown-leading-zero", "01000", 1000, 1000),
    ("chown-quoted", '"app"', 1000, 1000),
]:
    holding(
        name,
        f"--chown={chown}",
        f"FROM base\nCOPY --chown={chown} a.txt /a\n",
        {"/a": owned(uid, gid)},
    )
scenario(
    "chown-unknown-then-known",
    "the account appears in a step before",
    "FROM base\nRUN true\nCOPY --chown=svc a.txt /a\n",
    build(".MM", holds={"/a": owned(0, 0)}),
    build(
        ".MM",
        op.replace("RUN true", "RUN echo 'svc:x:70:71::/:/bin/sh' >> /etc/passwd"),
        holds={"/a": owned(70, 71)},
    ),
    files=A,
)
holding(
    "chown-scratch-number",
    "--chown by numbers on nothing",
    "FROM scratch\nCOPY --chown=5:6 a.txt /d/a\n",
    {"/d/a": owned(5, 6), "/d": {"type": "dir", "uid": 5, "gid": 6}},
)
holding(
    "chown-parents-of-destination",
    "directories that COPY makes have the owner of --chown, those that are there keep theirs",
    "FROM base\nRUN mkdir /there && chown 7:8 /there\nCOPY --chown=app a.txt /there/new/er/a\n",
    {
        "/there": {"type": "dir", "uid": 7, "gid": 8},
        "/there/new": {"type": "dir", "uid": 1000, "gid": 1000, "mode": "0755"},
        "/there/new/er/a": owned(1000, 1000),
    },
)
holding(
    "chown-merged-directory",
    "a directory that is merged over takes owner and mode of the copy",
    "FROM base\nRUN mkdir -m 700 /d && chown 7:8 /d && echo x > /d/old\nCOPY --chown=app d /d\n",
    {
        "/d/f": owned(1000, 1000),
        "/d/old": {"type": "file", "uid": 0},
    },
    {"d/f": "1\n"},
)
holding(
    "chown-symlink",
    "the link itself gets the owner",
    "FROM base\nCOPY --chown=5:6 d /d\n",
    {"/d/l": {"type": "symlink", "target": "f", "uid": 5, "gid": 6}, "/d/f": owned(5, 6)},
    {"d/f": "1\n", "d/l": {"symlink": "f"}},
)
holding(
    "chown-from-stage-kept",
    "COPY --from keeps the owners of the stage",
    "FROM base AS s\nRUN echo 1 > /f && chown 7:8 /f && mkdir /d && chown 9:9 /d\n"
    "FROM base\nCOPY --from=s /f /f\nCOPY --from=s /d /d2\n",
    {"/f": owned(7, 8)},
)
holding(
    "chown-add-directory",
    "ADD of a directory with --chown",
    "FROM base\nADD --chown=app:other d /d\n",
    {"/d/f": owned(1000, 1001), "/d": {"type": "dir", "uid": 1000, "gid": 1001}},
    {"d/f": "1\n"},
)

# -- modes ----------------------------------------------------------------------------------

for name, chmod, before, after in [
    ("chmod-symbolic-add-exec", "+x", "0644", "0755"),
    ("chmod-symbolic-user", "u=rw,go=", "0755", "0600"),
    ("chmod-symbolic-capital-file", "a+X", "0644", "0644"),
    ("chmod-symbolic-capital-exec", "go+X", "0744", "0755"),
    ("chmod-symbolic-remove", "a-w", "0666", "0444"),
    ("chmod-symbolic-copy", "g=u", "0640", "0660"),
    ("chmod-symbolic-setuid", "u+s", "0755", "4755"),
    ("chmod-three-digits", "600", "0644", "0600"),
    ("chmod-four-digits", "4755", "0644", "4755"),
    ("chmod-zero", "0", "0644", "0000"),
]:
    holding(
        name,
        f"--chmod={chmod} of a file of mode {before}",
        f"FROM base\nCOPY --chmod={chmod} a.txt /a\n",
        {"/a": {"type": "file", "mode": after}},
        {"a.txt": {"content": "alpha\n", "mode": before}},
    )
scenario(
    "chmod-variable",
    "the mode by an argument",
    "FROM base\nARG M=600\nCOPY --chmod=$M a.txt /a\n",
    build("..M", holds={"/a": {"type": "file", "mode": "0600"}}),
    build("..M", args={"M": "640"}, holds={"/a": {"type": "file", "mode": "0640"}}),
    build("..H", args={"M": "0600"}),
    files=A,
)
holding(
    "chmod-and-chown",
    "both flags, in either order",
    "FROM base\nCOPY --chmod=750 --chown=5:6 a.txt /a\nCOPY --chown=5:6 --chmod=750 b.txt /b\n",
    {"/a": owned(5, 6, "0750"), "/b": owned(5, 6, "0750")},
)
holding(
    "chmod-parents-of-destination",
    "directories that COPY makes have the octal mode of --chmod, too",
    "FROM base\nCOPY --chmod=600 a.txt /n/m/a\n",
    {
        "/n": {"type": "dir", "mode": "0600"},
        "/n/m": {"type": "dir", "mode": "0600"},
        "/n/m/a": {"type": "file", "mode": "0600"},
    },
)
holding(
    "chmod-from-stage",
    "--chmod of a file of a stage",
    "FROM base AS s\nRUN echo 1 > /f\nFROM base\nCOPY --from=s --chmod=511 /f /f\n",
    {"/f": {"type": "file", "mode": "0511"}},
)
holding(
    "chmod-link-flag",
    "--chmod with --link",
    "FROM base\nCOPY --link --chmod=711 a.txt /x/a\n",
    {"/x/a": {"type": "file", "mode": "0711"}, "/x": {"type": "dir", "mode": "0711"}},
)

# -- destinations ---------------------------------------------------------------------------

holding(
    "copy-glob-two-onto-name",
    "a pattern with two matches onto one name: the last one stays",
    "FROM base\nCOPY *.txt /x\n",
    {"/x": "beta\n"},
)
holding(
    "copy-glob-one-onto-name",
    "a pattern with one match onto a name",
    "FROM base\nCOPY a*.txt /x\n",
    {"/x": "alpha\n"},
)
holding(
    "copy-two-without-slash",
    "two sources, and a destination without a slash: a directory that is there, or a file",
    "FROM base\nRUN mkdir /d\nCOPY a.txt b.txt /d\nCOPY a.txt b.txt /x\n",
    {"/d/a.txt": "alpha\n", "/d/b.txt": "beta\n", "/x": "beta\n"},
)
scenario(
    "copy-two-into-dot",
    "two sources into the WORKDIR, in three spellings",
    "FROM base\nWORKDIR /w\nCOPY a.txt b.txt ./\n",
    build(".MM", holds={"/w/b.txt": "beta\n"}),
    build(".HH", op.replace(" ./", " .")),
    build(".HH", op.replace(" .\n", " /w/\n")),
    files=AB,
)
holding(
    "copy-directory-into-existing",
    "the contents of a directory go into one that is there, which keeps its other files",
    "FROM base\nRUN mkdir -p /d/q && echo old > /d/q/old && echo old > /d/a.txt\nCOPY p /d\n",
    {"/d/a.txt": "alpha\n", "/d/q/old": "old\n", "/d/q/b.txt": "beta\n"},
    TREE,
)
holding(
    "copy-two-directories",
    "two directories into one: the second wins",
    "FROM base\nCOPY p s /d/\n",
    {"/d/a.txt": "alpha\n", "/d/q/b.txt": "delta\n", "/d/q/r/c.txt": "gamma\n", "/d/p": None},
    TREE,
)
holding(
    "copy-dst-variable-in-middle",
    "a variable within the destination",
    "FROM base\nENV V=1.2 N=app\nCOPY a.txt /opt/${N}-$V/${N}.txt\n",
    {"/opt/app-1.2/app.txt": "alpha\n"},
)
holding(
    "copy-dst-through-absolute-link",
    "a destination below a link to an absolute path",
    "FROM base\nRUN mkdir -p /real/d && ln -s /real /l\nCOPY a.txt /l/d/\n",
    {"/real/d/a.txt": "alpha\n", "/l": {"type": "symlink", "target": "/real"}},
)
holding(
    "copy-dst-through-relative-links",
    "a destination below a chain of relative links",
    "FROM base\nRUN mkdir -p /x/y/z && ln -s y/z /x/one && ln -s ../x/one /x/two\n"
    "COPY a.txt /x/two/a\n",
    {"/x/y/z/a": "alpha\n"},
)
holding(
    "copy-dst-link-escapes",
    "a destination below a link that leads above the root stays in the image",
    "FROM base\nRUN ln -s ../../../../up /l && mkdir /up\nCOPY a.txt /l/a\n",
    {"/up/a": "alpha\n"},
)
holding(
    "copy-dst-dangling-link-directory",
    "a destination below a link to nothing: what it leads to is made",
    "FROM base\nRUN ln -s /not/yet /l\nCOPY a.txt /l/\n",
    {"/not/yet/a.txt": "alpha\n"},
)
holding(
    "copy-source-dot-in-middle",
    "sources with . and .. inside",
    "FROM base\nCOPY ./p/./q/../a.txt /a\nCOPY p/q/./b.txt /b\n",
    {"/a": "alpha\n", "/b": "beta\n"},
    TREE,
)
holding(
    "copy-source-absolute",
    "an absolute source is one of the context",
    "FROM base\nCOPY /p/a.txt /a\nCOPY /p/q/ /d/\n",
    {"/a": "alpha\n", "/d/b.txt": "beta\n"},
    TREE,
)
holding(
    "copy-source-above",
    "a source above the root is one of the root",
    "FROM base\nCOPY ../../p/a.txt /a\n",
    {"/a": "alpha\n"},
    TREE,
)
holding(
    "copy-json-blanks",
    "names with blanks in the JSON form",
    'FROM base\nCOPY ["a b.txt", "c d/e.txt", "/to here/"]\n',
    {"/to here/a b.txt": "1\n", "/to here/e.txt": "2\n"},
    {"a b.txt": "1\n", "c d/e.txt": "2\n"},
)
holding(
    "copy-json-variables",
    "variables in the JSON form",
    'FROM base\nENV S=a.txt D=/x\nCOPY ["$S", "${D}/y"]\n',
    {"/x/y": "alpha\n"},
)
scenario(
    "copy-file-as-directory",
    "a source that is below a file",
    "FROM base\nCOPY a.txt/b /x\n",
    failing(".M", "not found"),
    files=A,
)
scenario(
    "copy-over-directory",
    "a file onto a directory of its own name",
    "FROM base\nRUN mkdir -p /d/a.txt\nCOPY a.txt /d/\n",
    failing(".MM", "cannot copy to directory"),
    files=A,
)
holding(
    "copy-keeps-empty-directories",
    "empty directories and their modes",
    "FROM base\nCOPY d /d\n",
    {"/d/e": {"type": "dir", "mode": "0700"}, "/d/s": {"type": "dir", "mode": "1777"}},
    {"d/e": {"dir": True, "mode": "0700"}, "d/s": {"dir": True, "mode": "1777"}},
)
holding(
    "copy-root-of-scratch",
    "a whole stage into nothing",
    "FROM base AS s\nRUN mkdir -p /out/bin && echo x > /out/bin/x && ln -s bin/x /out/l\n"
    "FROM scratch\nCOPY --from=s /out /\n",
    {"/bin/x": "x\n", "/l": {"type": "symlink", "target": "bin/x"}, "/out": None},
)
scenario(
    "copy-missing-after-run",
    "the source is missing from the beginning: the steps before are kept",
    "FROM base\nRUN echo a > /x\nRUN echo b >> /x\nCOPY m.txt /m\nRUN cat /m > /out\n",
    failing(".MMMS", "not found"),
    failing(".HHMS", "not found"),
    build(".HHMM", op.write("m.txt", "here\n"), holds={"/out": "here\n", "/x": "a\nb\n"}),
    files=A,
)
scenario(
    "copy-missing-in-stage",
    "what a stage does not have: it is built, and kept",
    "FROM base AS s\nRUN echo 1 > /f\nFROM base\nRUN echo 2 > /g\nCOPY --from=s /none /x\n",
    failing(".M.MM", "not found"),
    failing(".H.HM", "not found"),
    build(".H.HM", op.replace("/none", "/f"), holds={"/x": "1\n"}),
)

# -- parents --------------------------------------------------------------------------------

PIVOTS: list[tuple[str, str, dict[str, Any]]] = [
    ("parents-pivot-deep", "p/q/./r/c.txt", {"/o/r/c.txt": "gamma\n", "/o/p": None}),
    ("parents-pivot-first", "./p/./q/b.txt", {"/o/q/b.txt": "beta\n", "/o/p": None}),
    ("parents-pivot-two", "p/./q/./r/c.txt", {"/o/q/r/c.txt": "gamma\n"}),
    ("parents-pivot-star", "*/./q/b.txt", {"/o/q/b.txt": "delta\n", "/o/p": None}),
    (
        "parents-pivot-doublestar",
        "p/./**/*.txt",
        {"/o/q/r/c.txt": "gamma\n", "/o/a.txt": "alpha\n"},
    ),
    ("parents-doublestar-middle", "p/**/c.txt", {"/o/p/q/r/c.txt": "gamma\n", "/o/p/a.txt": None}),
    ("parents-dot-slash", "./p/a.txt", {"/o/p/a.txt": "alpha\n"}),
    ("parents-leading-slash", "/p/q/b.txt", {"/o/p/q/b.txt": "beta\n"}),
    ("parents-star-directory", "*/q", {"/o/p/q/r/c.txt": "gamma\n", "/o/s/q/b.txt": "delta\n"}),
    ("parents-dotdot", "p/q/../a.txt", {"/o/p/a.txt": "alpha\n"}),
    ("parents-trailing-slash", "p/q/", {"/o/p/q/r/c.txt": "gamma\n", "/o/p/a.txt": None}),
]
for name, source, held in PIVOTS:
    holding(name, f"--parents {source}", f"FROM base\nCOPY --parents {source} /o/\n", held, TREE)
scenario(
    "parents-monorepo",
    "the manifests of all packages first: a source change leaves their step alone",
    "FROM base\nWORKDIR /src\nCOPY --parents package.json packages/*/package.json ./\n"
    "RUN find . -type f | sort > /installed\nCOPY . .\nRUN find packages -type f | sort > /built\n",
    build(
        ".MMMMM",
        holds={
            "/installed": "./package.json\n./packages/a/package.json\n./packages/b/package.json\n"
        },
    ),
    build(".HHHMM", op.write("packages/a/index.js", "2\n")),
    build(".HMMMM", op.write("packages/c/package.json", "{}\n")),
    files={
        "package.json": "{}\n",
        "packages/a/package.json": "{}\n",
        "packages/a/index.js": "1\n",
        "packages/b/package.json": "{}\n",
    },
)
holding(
    "parents-with-workdir",
    "--parents into a relative destination",
    "FROM base\nWORKDIR /w\nCOPY --parents p/q/b.txt to/\n",
    {"/w/to/p/q/b.txt": "beta\n"},
    TREE,
)
holding(
    "parents-link-flag",
    "--parents with --link",
    "FROM base\nCOPY --link --parents p/q/b.txt s/q/b.txt /o/\n",
    {"/o/p/q/b.txt": "beta\n", "/o/s/q/b.txt": "delta\n"},
    TREE,
)
holding(
    "parents-chmod-flag",
    "--parents with --chmod",
    "FROM base\nCOPY --parents --chmod=600 p/q/b.txt /o/\n",
    {"/o/p/q/b.txt": {"type": "file", "mode": "0600"}},
    TREE,
)

# -- exclude --------------------------------------------------------------------------------

EXCLUSIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("exclude-deep-pattern", "--exclude=q/r/*.txt", {"/o/q/b.txt": "beta\n", "/o/q/r/c.txt": None}),
    ("exclude-any-level", "--exclude=**/b.txt", {"/o/q/b.txt": None, "/o/a.txt": "alpha\n"}),
    ("exclude-trailing-slash", "--exclude=q/", {"/o/a.txt": "alpha\n", "/o/q": None}),
    ("exclude-all", "--exclude=*", {"/o": DIRECTORY, "/o/a.txt": None, "/o/q": None}),
]
for name, flags, held in EXCLUSIONS:
    holding(name, f"COPY {flags}", f"FROM base\nCOPY {flags} p /o\n", held, TREE)
holding(
    "exclude-of-add",
    "--exclude of ADD",
    "FROM base\nADD --exclude=q p /o/\n",
    {"/o/a.txt": "alpha\n", "/o/q": None},
    TREE,
)
holding(
    "exclude-with-glob-source",
    "--exclude of what a pattern matches",
    "FROM base\nCOPY --exclude=b.txt *.txt /o/\n",
    {"/o/a.txt": "alpha\n"},
)

# -- ADD ------------------------------------------------------------------------------------

TAR = {"t.tar": {"tar": {"x/f": "1\n", "g": {"content": "2\n", "mode": "0600", "uid": 7}}}}
holding(
    "add-tar-into-relative",
    "an archive into the WORKDIR",
    "FROM base\nWORKDIR /w\nADD t.tar .\n",
    {"/w/x/f": "1\n", "/w/g": {"type": "file", "mode": "0600", "uid": 7}, "/w/t.tar": None},
    TAR,
)
holding(
    "add-tar-name-without-slash",
    "an archive onto a name: it becomes a directory",
    "FROM base\nADD t.tar /n\n",
    {"/n/x/f": "1\n", "/n": DIRECTORY},
    TAR,
)
holding(
    "add-tar-through-link",
    "an archive into a directory behind a link",
    "FROM base\nRUN mkdir /real && ln -s /real /l\nADD t.tar /l\n",
    {"/real/x/f": "1\n", "/l": {"type": "symlink", "target": "/real"}},
    TAR,
)
holding(
    "add-tar-link-flag",
    "an archive with --link",
    "FROM base\nADD --link t.tar /n/\n",
    {"/n/x/f": "1\n"},
    TAR,
)
holding(
    "add-tar-and-file",
    "an archive and a file together",
    "FROM base\nADD t.tar a.txt /n/\n",
    {"/n/x/f": "1\n", "/n/a.txt": "alpha\n", "/n/t.tar": None},
    {**TAR, **A},
)
holding(
    "add-copied-tar-stays",
    "COPY of an archive does not unpack, and ADD of a copy in a stage neither reads it",
    "FROM base\nCOPY t.tar /n/\n",
    {"/n/t.tar": {"type": "file"}, "/n/x": None},
    TAR,
)
holding(
    "add-tar-wrong-suffix",
    "content decides, not the name",
    "FROM base\nADD t.txt /n/\n",
    {"/n/f": "1\n", "/n/t.txt": None},
    {"t.txt": {"tar": {"f": "1\n"}, "gzip": 6}},
)
holding(
    "add-tar-suffix-only",
    "a text file called .tar.gz is copied",
    "FROM base\nADD t.tar.gz /n/\n",
    {"/n/t.tar.gz": "no archive\n"},
    {"t.tar.gz": "no archive\n"},
)
holding(
    "add-several-globs",
    "patterns and a directory",
    "FROM base\nADD *.txt p /n/\n",
    {"/n/a.txt": "alpha\n", "/n/b.txt": "beta\n", "/n/q/b.txt": "beta\n"},
    {**TREE, **AB},
)

# -- URLs -----------------------------------------------------------------------------------

PAGE = {"/d/page.txt": {"content": "page\n", "etag": '"1"'}}
holding(
    "http-into-directory",
    "a URL into a directory takes its last name, and mode 0600",
    "FROM base\nADD @HTTP@/d/page.txt /n/\n",
    {"/n/page.txt": {"type": "file", "content": "page\n", "mode": "0600", "uid": 0}},
    http=PAGE,
)
holding(
    "http-onto-name",
    "a URL onto a name",
    "FROM base\nADD @HTTP@/d/page.txt /n\n",
    {"/n": "page\n"},
    http=PAGE,
)
holding(
    "http-with-query-name",
    "a query is no part of the name",
    "FROM base\nADD @HTTP@/d/page.txt?v=1 /n/\n",
    {"/n/page.txt": "page\n"},
    http={"/d/page.txt?v=1": {"content": "page\n", "etag": '"1"'}, **PAGE},
)
holding(
    "http-env-in-url",
    "a variable in the URL",
    "FROM base\nENV P=page\nADD @HTTP@/d/${P}.txt /n/$P\n",
    {"/n/page": "page\n"},
    http=PAGE,
)
scenario(
    "http-after-run",
    "a URL that is not there, after a RUN",
    "FROM base\nRUN echo 1 > /x\nADD @HTTP@/none /n\n",
    failing(".MM", "404"),
    build(".HM", op.http("/none", content="now\n", etag='"1"'), holds={"/n": "now\n"}),
    http=PAGE,
)

# -- variables ------------------------------------------------------------------------------

for name, text, wanted in [
    ("env-default-empty", "${E:-d}", "d"),
    ("env-default-unset", "${NONE:-d}", "d"),
    ("env-default-only-unset", "${E-d}", ""),
    ("env-alternative-set", "${V:+alt}", "alt"),
    ("env-alternative-empty", "${E:+alt}", ""),
    ("env-alternative-only-set", "${E+alt}", "alt"),
    ("env-default-nested", "${NONE:-${V}x}", "valx"),
    ("env-escaped-dollar", "\\$V", "$V"),
    ("env-escaped-brace", "\\${V}", "${V}"),
    ("env-single-quotes", "'$V'", "$V"),
    ("env-double-quotes", '"$V"', "val"),
    ("env-quotes-inside", "a\"b c\"d'e f'", "ab cde f"),
    ("env-backslash-blank", "a\\ b", "a b"),
    ("env-remove-prefix", "${P#*/}", "b/c.txt"),
    ("env-remove-prefix-long", "${P##*/}", "c.txt"),
    ("env-remove-suffix", "${P%/*}", "a/b"),
    ("env-remove-suffix-long", "${P%%/*}", "a"),
    ("env-replace-one", "${P/\\//-}", "a-b/c.txt"),
    ("env-replace-all", "${P//\\//-}", "a-b-c.txt"),
    ("env-underscore-name", "$V_", ""),
    ("env-number-name", "${V}1", "val1"),
    ("env-lone-dollar", "a$", "a$"),
]:
    scenario(
        name,
        f"ENV X={text}",
        f"FROM base\nENV V=val E= P=a/b/c.txt\nENV X={text}\nRUN printf '%s' \"$X\" > /x\n",
        build("...M", holds={"/x": wanted}),
        build("...H"),
    )
for name, text in [
    ("env-error-unset", "${NONE:?it is needed}"),
    ("env-error-empty", "${E:?}"),
    ("env-brace-open", "${V"),
    ("env-bad-modifier", "${V:!x}"),
]:
    scenario(name, f"ENV X={text}", f"FROM base\nENV E= V=1\nENV X={text}\n", refused("expand"))
scenario(
    "arg-quoted-default",
    "quotes around a default",
    'FROM base\nARG A="x y"\nARG B=\'$A\'\nARG C="$A"\nRUN echo "$A|$B|$C" > /x\n',
    build("....M", holds={"/x": "x y|$A|x y\n"}),
    build("....H", args={"A": "x y"}),
)
scenario(
    "arg-passed-is-not-expanded",
    "a passed value is taken as it is",
    'FROM base\nENV V=1\nARG A\nRUN echo "$A" > /x\n',
    build("...M", args={"A": "$V ${V} 'q'"}, holds={"/x": "$V ${V} 'q'\n"}),
)
scenario(
    "arg-default-from-env",
    "a default that comes from ENV, which changes",
    "FROM base\nENV V=1\nARG A=v$V\nRUN echo $A > /x\n",
    build("...M", holds={"/x": "v1\n"}),
    build("...M", op.replace("V=1", "V=2"), holds={"/x": "v2\n"}),
    build("...M", args={"A": "mine"}, holds={"/x": "mine\n"}),
)
scenario(
    "arg-from-mount-target",
    "an argument in source and target of a mount",
    "FROM base\nARG S=a.txt\nRUN --mount=type=bind,source=${S},target=/m/$S cat /m/$S > /x\n",
    build("..M", holds={"/x": "alpha\n"}),
    build("..M", args={"S": "b.txt"}, holds={"/x": "beta\n"}),
    files=AB,
)
scenario(
    "arg-several-stages-one-used",
    "one argument in two stages, passed with another value",
    "FROM base AS s\nARG V=1\nRUN echo $V > /o\nFROM base\nRUN echo fixed > /f\n"
    "COPY --from=s /o /o\nARG V=2\nRUN echo $V > /p\n",
    build("..M.MM.M", holds={"/o": "1\n", "/p": "2\n"}),
    build("..M.HM.M", args={"V": "3"}, holds={"/o": "3\n", "/p": "3\n"}),
)
scenario(
    "arg-env-wins-in-child-stage",
    "ENV of the stage below hides an argument",
    "FROM base AS s\nENV V=env\nFROM s\nARG V=arg\nRUN echo $V > /x\n",
    build("....M", holds={"/x": "arg\n"}),
)
scenario(
    "arg-target-of-platform",
    "automatic platform arguments have values once they are declared",
    'FROM base\nRUN echo "[$TARGETOS]" > /u\nARG TARGETOS\nARG TARGETARCH\nARG BUILDOS\n'
    'RUN echo "$TARGETOS $BUILDOS" > /x\n',
    build(".M...M", holds={"/u": "[]\n", "/x": "linux linux\n"}),
)

# -- WORKDIR and USER -----------------------------------------------------------------------

scenario(
    "workdir-empty-variable",
    "a WORKDIR that is empty after expansion stays where it was",
    "FROM base\nWORKDIR /w\nWORKDIR $NONE\nRUN pwd > /x\n",
    build(".MMM", holds={"/x": "/w\n"}, config={"WorkingDir": "/w"}),
    build(".HHH"),
)
for name, text, wanted in [
    ("workdir-quoted", '"/a b"', "/a b"),
    ("workdir-blank", "/a b", "/a b"),
    ("workdir-single-quoted", "'/q'", "/q"),
    ("workdir-trailing-slash", "/t/", "/t"),
    ("workdir-default-value", "${NONE:-/dflt}", "/dflt"),
    ("workdir-tilde", "~", "/~"),
    ("workdir-dot", ".", "/"),
]:
    dockerfile = f"FROM base\nWORKDIR {text}\nRUN pwd > /x\n"
    made = "M" if wanted != "/" else "."
    # The configuration has an absolute one as it is written.
    kept = text if text.startswith("/") else wanted
    scenario(
        name,
        f"WORKDIR {text}",
        dockerfile,
        build(f".{made}M", holds={"/x": wanted + "\n"}, config={"WorkingDir": kept}),
    )
scenario(
    "workdir-relative-chain",
    "relative ones add up, .. goes back",
    "FROM base\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c\nRUN pwd > /x\n",
    build(".MMMM", holds={"/x": "/a/c\n", "/a/b": DIRECTORY}, config={"WorkingDir": "/a/c"}),
    build(".HHMM", op.replace("../c", "../d"), holds={"/x": "/a/d\n"}),
)
scenario(
    "workdir-inherited-relative",
    "a stage goes on from the WORKDIR of the one below",
    "FROM base AS s\nWORKDIR /a\nFROM s\nWORKDIR b\nRUN pwd > /x\n",
    build(".M.MM", holds={"/x": "/a/b\n"}),
)
holding(
    "workdir-owner-of-user",
    "WORKDIR makes directories for the user of the time",
    "FROM base\nUSER app\nWORKDIR /home/app/x\nUSER root\nWORKDIR /r\n",
    {
        "/home/app/x": {"type": "dir", "uid": 1000, "gid": 1000},
        "/r": {"type": "dir", "uid": 0, "gid": 0},
    },
)
for name, user, wanted in [
    ("user-number", "1234", "1234 0"),
    ("user-number-group", "1234:56", "1234 56"),
    ("user-name-group-number", "app:77", "1000 77"),
    ("user-name-other-group", "app:other", "1000 1001"),
    ("user-variable-default", "${NONE:-app}", "1000 1000"),
]:
    scenario(
        name,
        f"USER {user}",
        f"FROM base\nRUN chmod 1777 /tmp\nUSER {user}\nRUN echo $(id -u) $(id -g) > /tmp/x\n",
        build(".M.M", holds={"/tmp/x": wanted + "\n"}),
        build(".H.H"),
    )

# -- metadata -------------------------------------------------------------------------------

CONFIGS: list[tuple[str, str, dict[str, Any]]] = [
    ("config-cmd-json", 'CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
    ("config-cmd-shell", "CMD a  'b c' $V", {"Cmd": ["/bin/sh", "-c", "a  'b c' $V"]}),
    ("config-cmd-not-json", "CMD ['a']", {"Cmd": ["/bin/sh", "-c", "['a']"]}),
    ("config-cmd-empty", "CMD []", {"Cmd": None}),
    (
        "config-cmd-and-entrypoint",
        'ENTRYPOINT ["e"]\nCMD ["c"]',
        {"Entrypoint": ["e"], "Cmd": ["c"]},
    ),
    ("config-entrypoint-resets-cmd", 'ENTRYPOINT ["e"]', {"Entrypoint": ["e"], "Cmd": None}),
    ("config-cmd-twice", "CMD one\nCMD two", {"Cmd": ["/bin/sh", "-c", "two"]}),
    (
        "config-shell-for-cmd",
        'SHELL ["/bin/ash", "-ec"]\nCMD x',
        {"Cmd": ["/bin/ash", "-ec", "x"], "Shell": ["/bin/ash", "-ec"]},
    ),
    (
        "config-expose",
        "EXPOSE 80 53/udp 8000-8001",
        {"ExposedPorts": {"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}}},
    ),
    ("config-volume-json", 'VOLUME ["/a b", "/c"]', {"Volumes": {"/a b": {}, "/c": {}}}),
    ("config-volume-words", "VOLUME /a /c", {"Volumes": {"/a": {}, "/c": {}}}),
    (
        "config-label-forms",
        'LABEL a=1 "b c"="d e" f=\'g\'',
        {"Labels": {"a": "1", "b c": "d e", "f": "g"}},
    ),
    ("config-label-legacy", "LABEL a b c", {"Labels": {"a": "b c"}}),
    ("config-label-lines", 'LABEL a="x \\\n y"', {"Labels": {"a": "x  y"}}),
    ("config-label-overridden", "LABEL a=1\nLABEL a=2", {"Labels": {"a": "2"}}),
    ("config-label-variable", "ENV V=1\nLABEL a=$V b='$V'", {"Labels": {"a": "1", "b": "$V"}}),
    ("config-stopsignal", "STOPSIGNAL SIGUSR1", {"StopSignal": "SIGUSR1"}),
    ("config-stopsignal-number", "STOPSIGNAL 9", {"StopSignal": "9"}),
    ("config-user", "USER app:other", {"User": "app:other"}),
    ("config-healthcheck-none", "HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
    (
        "config-healthcheck",
        "HEALTHCHECK --interval=1m30s --timeout=2s --start-period=5s --retries=4 CMD a b",
        {
            "Healthcheck": {
                "Test": ["CMD-SHELL", "a b"],
                "Interval": 90_000_000_000,
                "Timeout": 2_000_000_000,
                "StartPeriod": 5_000_000_000,
                "Retries": 4,
            }
        },
    ),
    (
        "config-healthcheck-json",
        'HEALTHCHECK CMD ["a", "b"]',
        {"Healthcheck": {"Test": ["CMD", "a", "b"]}},
    ),
    (
        "config-onbuild",
        "ONBUILD RUN  a b\nONBUILD COPY . /x",
        {"OnBuild": ["RUN  a b", "COPY . /x"]},
    ),
]
for name, text, config in CONFIGS:
    dockerfile = f"FROM base\nRUN echo 1 > /x\n{text}\n"
    dots = "." * (text.replace("\\\n", "").count("\n") + 1)
    scenario(
        name,
        text.replace("\n", "; ").replace("\\", ""),
        dockerfile,
        build(".M" + dots, config=config),
        build(".H" + dots, config=config),
        area="config",
    )
scenario(
    "config-inherited-by-stage",
    "a stage has the configuration of the one below, and changes it",
    'FROM base AS s\nLABEL a=1 b=2\nEXPOSE 80\nVOLUME /v\nCMD ["s"]\nFROM s\nLABEL b=3\nEXPOSE 81\n'
    "RUN echo 1 > /x\n",
    build(
        "........M",
        config={
            "Labels": {"a": "1", "b": "3"},
            "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
            "Volumes": {"/v": {}},
            "Cmd": ["s"],
        },
    ),
)
scenario(
    "config-not-from-copied-stage",
    "COPY --from takes no configuration along",
    "FROM base AS s\nENV V=1\nLABEL a=1\nUSER app\nFROM base\nCOPY --from=s /salt /salt\n"
    'RUN echo "[$V]$(id -u)" > /x\n',
    build(".....MM", holds={"/x": "[]0\n"}, config={"Labels": None, "User": None}),
)

# -- RUN ------------------------------------------------------------------------------------

for name, text, written in [
    ("run-json-no-shell", 'RUN ["/bin/echo", "$HOME"]', None),
    ("run-and-chain", "RUN true && echo 1 > /x || echo 2 > /x", "1\n"),
    ("run-semicolons", "RUN a=1; echo $a > /x", "1\n"),
    ("run-dollar-dollar", "RUN sh -c 'echo $0' > /x", "sh\n"),
    ("run-quotes-kept", "RUN echo 'a  \"b\"' > /x", 'a  "b"\n'),
    ("run-hash-inside", "RUN echo a#b > /x # gone", "a#b\n"),
    ("run-backslash-n", "RUN printf 'a\\nb\\n' > /x", "a\nb\n"),
    ("run-home-of-root", "RUN echo $HOME > /x", "/root\n"),
    ("run-umask", "RUN umask > /x", "0022\n"),
    ("run-standard-input", "RUN wc -c > /x", "0\n"),
]:
    scenario(
        name,
        text,
        f"FROM base\n{text}\n",
        build(".M", holds={} if written is None else {"/x": written}),
        build(".H"),
    )
scenario(
    "run-continuation-comments",
    "comments and blank lines between the lines of one command",
    "FROM base\nRUN echo a \\\n# first\n\n  # second\n  b \\\n\n  c > /x\n",
    build(".M", holds={"/x": "a b c\n"}),
    build(".H", op.replace("# first\n", "# other\n")),
    build(".H", op.replace("# other\n\n", "")),
)
scenario(
    "run-json-lines",
    "an exec form over several lines",
    'FROM base\nRUN ["sh", \\\n  "-c", \\\n  "echo 1 > /x"]\n',
    build(".M", holds={"/x": "1\n"}),
    build(".H", op.replace(" \\\n  ", " ")),
)
scenario(
    "run-shell-flag",
    "a shell that stops at the first failure",
    'FROM base\nSHELL ["/bin/sh", "-ec"]\nRUN false; echo 1 > /x\n',
    failing("..M", "exit code: 1"),
    build("..M", op.replace('"-ec"', '"-c"'), holds={"/x": "1\n"}),
)
scenario(
    "run-deletes-base-file",
    "a deletion, and the file again",
    "FROM base\nRUN rm /etc/group\nRUN test ! -e /etc/group && echo gone > /x\n"
    "RUN echo n > /etc/group\n",
    build(".MMM", holds={"/etc/group": "n\n", "/x": "gone\n"}),
    build(".HHH"),
)
scenario(
    "run-directory-becomes-file",
    "a directory is replaced by a file, then by a link",
    "FROM base\nRUN mkdir /d && echo 1 > /d/f\nRUN rm -r /d && echo 2 > /d\nRUN ln -sf /etc /d\n",
    build(".MMM", holds={"/d": {"type": "symlink", "target": "/etc"}}),
    build(".HHM", op.replace("ln -sf /etc", "ln -sf /bin"), holds={"/d": {"type": "symlink"}}),
)

# -- mounts ---------------------------------------------------------------------------------

scenario(
    "mount-cache-env-target",
    "a variable in the target of a cache",
    "FROM base\nENV C=/c\n"
    "RUN --mount=type=cache,target=$C/x echo 1 >> $C/x/n && wc -l < $C/x/n > /o\n",
    build("..M", holds={"/o": "1\n", "/c/x/n": None}),
    build("..M", op.replace(" > /o", " > /p"), holds={"/p": "2\n"}),
)
scenario(
    "mount-cache-id-shared-targets",
    "one id at two places is one cache",
    "FROM base\nRUN --mount=type=cache,id=k,target=/a echo 1 > /a/f\n"
    "RUN --mount=type=cache,id=k,target=/b cat /b/f > /x\n",
    build(".MM", holds={"/x": "1\n"}),
    build(".HH"),
)
scenario(
    "mount-cache-target-is-id",
    "without an id the target is it, whatever its spelling",
    "FROM base\nRUN --mount=type=cache,target=/a/b echo 1 > /a/b/f\n"
    "RUN --mount=type=cache,target=/a/b/ cat /a/b/f > /x\n",
    build(".MM", holds={"/x": "1\n"}),
)
scenario(
    "mount-cache-over-content",
    "what the image has at the target of a cache stays, unseen",
    "FROM base\nRUN mkdir /c && echo image > /c/f\n"
    "RUN --mount=type=cache,target=/c ls -A /c > /x\n",
    build(".MM", holds={"/x": "", "/c/f": "image\n"}),
)
scenario(
    "mount-cache-sharing-invalid",
    "a sharing that there is not",
    "FROM base\nRUN --mount=type=cache,target=/c,sharing=all true\n",
    refused("sharing"),
    build(".M", op.replace("sharing=all", "sharing=private")),
)
scenario(
    "mount-type-first-or-last",
    "the order of options, and the short names",
    "FROM base\nRUN --mount=type=bind,source=a.txt,target=/m cat /m > /x\n",
    build(".M"),
    build(".H", op.replace("type=bind,source=a.txt,target=/m", "target=/m,source=a.txt,type=bind")),
    build(".H", op.replace("target=/m,source=a.txt,type=bind", "dst=/m,src=a.txt")),
    build(".H", op.replace("dst=/m,src=a.txt", "dst=/m,src=a.txt,ro")),
    build(".H", op.replace("src=a.txt,ro", "src=a.txt,readonly=true")),
    build(".H", op.replace("src=a.txt,readonly=true", "src=a.txt,rw=false")),
    files=A,
)
scenario(
    "mount-tmpfs-size",
    "the size of a tmpfs",
    "FROM base\nRUN --mount=type=tmpfs,target=/t,size=1m echo 1 > /t/f && cp /t/f /x\n",
    build(".M", holds={"/x": "1\n", "/t/f": None}),
    build(".M", op.replace("size=1m", "size=2m")),
    build(".H", op.replace("size=2m", "size=2097152")),
)
scenario(
    "mount-secret-default-target",
    "a secret at its default place, with its mode",
    "FROM base\nRUN --mount=type=secret,id=k cat /run/secrets/k > /x && "
    "stat -c '%a %u' /run/secrets/k >> /x\n",
    build(".M", secrets={"k": "s1"}, holds={"/x": "s1400 0\n", "/run/secrets/k": None}),
    build(".H", secrets={"k": "s2"}, holds={"/x": "s1400 0\n"}),
)
scenario(
    "mount-secret-owner",
    "owner and mode of a secret",
    "FROM base\nRUN --mount=type=secret,id=k,uid=1000,gid=1001,mode=0440,dst=/k "
    "stat -c '%a %u %g' /k > /x\n",
    build(".M", secrets={"k": "s"}, holds={"/x": "440 1000 1001\n"}),
    build(".M", op.replace("mode=0440", "mode=0400"), secrets={"k": "s"}),
)
scenario(
    "mount-secret-as-variable",
    "a secret as a variable only, and optional",
    'FROM base\nRUN --mount=type=secret,id=k,env=K echo "${K:-none}" > /x\n',
    build(".M", holds={"/x": "none\n"}),
    build(".H", secrets={"k": "s"}, holds={"/x": "none\n"}),
    build(".M", secrets={"k": "s"}, no_cache=True, holds={"/x": "s\n"}),
)
scenario(
    "mount-bind-whole-context-rw",
    "the context writable: what is written is in neither",
    "FROM base\nRUN --mount=target=/src,rw cd /src && echo 2 > a.txt && cat a.txt > /x\n"
    "COPY a.txt /a\n",
    build(".MM", holds={"/x": "2\n", "/a": "alpha\n"}),
    build(".HH"),
    files=A,
)
scenario(
    "mount-from-unknown-stage",
    "a mount of an image that there is not",
    "FROM base\nRUN --mount=from=none.invalid/none,target=/m true\n",
    refused("none"),
)
scenario(
    "mount-from-later-stage",
    "a mount of a stage that comes later",
    "FROM base AS a\nRUN --mount=from=b,target=/m true\nFROM base AS b\nRUN echo 1 > /x\n",
    build(".S.M", holds={"/x": "1\n"}),
    area="mount",
)

# -- here-documents -------------------------------------------------------------------------

HEREDOCS: list[tuple[str, str, dict[str, Any]]] = [
    ("heredoc-run-quoted", "RUN cat <<'E' > /x\n$HOME `a`\nE\n", {"/x": "$HOME `a`\n"}),
    ("heredoc-run-unquoted", "RUN cat <<E > /x\n$HOME\nE\n", {"/x": "/root\n"}),
    ("heredoc-run-double-quoted", 'RUN cat <<"E" > /x\n$HOME\nE\n', {"/x": "$HOME\n"}),
    ("heredoc-run-set-e", "RUN <<E\nset -e\necho 1 > /x\nE\n", {"/x": "1\n"}),
    ("heredoc-run-backslash", "RUN <<E\necho a \\\n  b > /x\nE\n", {"/x": "a b\n"}),
    ("heredoc-run-dockerfile-inside", "RUN <<E\nCOPY() { echo c > /x; }\nCOPY\nE\n", {"/x": "c\n"}),
    ("heredoc-run-hash-line", "RUN <<E\n# only a comment\necho 1 > /x\nE\n", {"/x": "1\n"}),
    (
        "heredoc-copy-two",
        "COPY <<E1 <<E2 /d/\none\nE1\ntwo\nE2\n",
        {"/d/E1": "one\n", "/d/E2": "two\n"},
    ),
    ("heredoc-copy-quoted-no-expansion", "COPY <<'E' /x\n$PATH\nE\n", {"/x": "$PATH\n"}),
    (
        "heredoc-copy-mode",
        "COPY --chmod=755 <<E /x\n#!/bin/sh\nE\n",
        {"/x": {"type": "file", "mode": "0755"}},
    ),
    ("heredoc-copy-empty-body", "COPY <<E /x\nE\n", {"/x": ""}),
    ("heredoc-copy-no-newline-dollar", "COPY <<E /x\na \\$b\nE\n", {"/x": "a $b\n"}),
    ("heredoc-add-name", "ADD <<f.txt /d/\n1\nf.txt\n", {"/d/f.txt": "1\n"}),
]
for name, dockerfile, held in HEREDOCS:
    scenario(
        name,
        "a here-document: " + name.removeprefix("heredoc-").replace("-", " "),
        "FROM base\n" + dockerfile,
        build(".M", holds=held),
        build(".H", holds=held),
    )

# -- FROM and platforms ---------------------------------------------------------------------

scenario(
    "platform-other-single",
    "an image for another platform than asked for is used all the same",
    "FROM --platform=linux/s390x base\nCOPY a.txt /a\n",
    build(".M", holds={"/a": "alpha\n"}),
    build(".H", op.replace("linux/s390x", "linux/ppc64le")),
    build(".H", op.replace("FROM --platform=linux/ppc64le", "FROM")),
    files=A,
)
scenario(
    "platform-build-variable",
    "--platform=$BUILDPLATFORM is the platform of the builder",
    "FROM --platform=$BUILDPLATFORM base\nRUN echo 1 > /x\n",
    build(".M"),
    build(".H", op.replace("FROM --platform=$BUILDPLATFORM", "FROM")),
)
scenario(
    "from-keyword-case",
    "letters of FROM and AS",
    "from base as One\nRUN echo 1 > /x\nFrom one As two\nCOPY --from=ONE /x /y\n",
    build(".M.M", holds={"/y": "1\n"}),
    build(".H.H", op.replace("from base as One", "FROM base AS one")),
)
scenario(
    "from-arg-with-default",
    "a default in FROM for an argument that has none",
    "ARG B\nFROM ${B:-base}\nRUN echo 1 > /x\n",
    build("..M"),
    build("..H", args={"B": "base"}),
    build("..H", args={"B": ""}),
)
scenario(
    "from-stage-twice",
    "two stages on one, both copied from",
    "FROM base AS s\nRUN echo s > /s\nFROM s AS a\nRUN echo a > /a\nFROM s AS b\nRUN echo b > /b\n"
    "FROM base\nCOPY --from=a /s /a /o/\nCOPY --from=b /s /b /p/\n",
    build(".M.M.M.MM", holds={"/o/a": "a\n", "/p/b": "b\n", "/p/s": "s\n"}),
    build(".H.H.M.HM", op.replace("echo b >", "echo B >"), holds={"/p/b": "B\n"}),
)
# -- the text -------------------------------------------------------------------------------

for name, before, after in [
    ("text-comment-first", "FROM base\n", "# a comment\n\nFROM base\n"),
    ("text-check-directive", "FROM base\n", "# check=skip=all\nFROM base\n"),
    ("text-leading-blanks", "RUN echo 1", "    RUN echo 1"),
    ("text-tab-after-keyword", "RUN echo 1", "RUN\techo 1"),
    ("text-blank-lines", "FROM base\n", "\n\n\nFROM base\n\n\n"),
    ("text-comment-indented", "RUN echo 1", "   # a comment\nRUN echo 1"),
    ("text-escape-declared", "FROM base\n", "# escape=\\\nFROM base\n"),
    ("text-late-directive", "FROM base\n", "# comment\n# escape=`\nFROM base\n"),
    ("text-mixed-case-keyword", "RUN echo 1", "rUn echo 1"),
]:
    scenario(
        name,
        name.removeprefix("text-").replace("-", " ") + ": no other step",
        "FROM base\nRUN echo 1 > /x\n",
        build(".M"),
        build(".H", op.replace(before, after)),
        area="text",
    )
for name, dockerfile, why in [
    ("text-no-instruction", "# nothing\n", "no build stage"),
    ("text-unknown-instruction", "FROM base\nRUNN true\n", "unknown instruction"),
    ("text-from-missing", "RUN true\n", "no build stage"),
    ("text-copy-no-arguments", "FROM base\nCOPY a.txt\n", "requires at least two arguments"),
    ("text-from-too-many", "FROM base x y z\n", "requires either one or three arguments"),
    ("text-env-no-value", "FROM base\nENV A\n", "must have two arguments"),
    ("text-env-no-arguments", "FROM base\nENV\n", "requires at least one argument"),
    ("text-label-broken", "FROM base\nLABEL a=1 b\n", "can't find = in"),
    ("text-expose-bad", "FROM base\nEXPOSE x\n", "invalid"),
    ("text-healthcheck-bad", "FROM base\nHEALTHCHECK FOO\n", "Unknown type"),
    (
        "text-shell-not-json",
        "FROM base\nSHELL sh -c\n",
        "requires the arguments to be in JSON form",
    ),
    ("text-stopsignal-two", "FROM base\nSTOPSIGNAL 1 2\n", "requires exactly one argument"),
    ("text-onbuild-onbuild", "FROM base\nONBUILD ONBUILD RUN true\n", "not allowed"),
    ("text-maintainer-none", "FROM base\nMAINTAINER\n", "requires exactly one argument"),
    ("text-heredoc-open", "FROM base\nRUN <<E\necho 1\n", "unterminated heredoc"),
    ("text-stage-name-bad", "FROM base AS 1x\n", "invalid name for build stage"),
]:
    scenario(name, why, dockerfile, refused(why), area="text", files=A)
