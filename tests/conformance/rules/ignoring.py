"""Section 12: .dockerignore."""

from __future__ import annotations

from typing import Any

from tests.conformance.deriving import build, failing, op, refused, scenario

TREE = {
    "a.txt": "1\n",
    "b.log": "2\n",
    "sub/a.txt": "3\n",
    "sub/b.log": "4\n",
    "sub/deep/c.log": "5\n",
    "node_modules/m.js": "6\n",
}
OWN = (".dockerignore", "Dockerfile")
COPY = "FROM base\nCOPY . /c\nRUN cd /c && find . ! -type d | sort > /out\n"


def ignored(
    name: str,
    title: str,
    rules: str,
    left: str,
    *,
    hits: str = "",
    misses: str = "",
    files: dict[str, Any] | None = None,
) -> None:
    """COPY . under `rules`: `left` are the files that stay; changes to the others are hits."""
    tree = TREE if files is None else files
    listed = "".join(f"./{path}\n" for path in sorted(left.split("|"), key=str.encode) if path)
    builds = [build(".MM", holds={"/out": listed})]
    builds += [build(".HH", op.write(path, "9\n"), holds={"/out": listed}) for path in hits.split()]
    builds += [
        build(".MM", op.write(path, "9\n"), holds={"/out": listed}) for path in misses.split()
    ]
    scenario(
        f"ignore-{name}",
        title,
        COPY,
        *builds,
        files={**tree, ".dockerignore": rules},
        area="dockerignore",
    )


ALL = "a.txt|b.log|sub/a.txt|sub/b.log|sub/deep/c.log|node_modules/m.js|.dockerignore|Dockerfile"


def but(*names: str) -> str:
    return "|".join(path for path in ALL.split("|") if path not in names)


ignored("none", "an empty ignore file", "", ALL, misses="b.log")
ignored(
    "comment-blank",
    "comments, blank lines, blanks round a pattern",
    "# a.txt\n\n   b.log  \n\t\n#sub\n",
    but("b.log"),
    hits="b.log",
    misses="a.txt",
)
ignored(
    "comment-indented",
    "an indented number sign is a pattern",
    " #x\nb.log\n",
    but("b.log"),
    hits="b.log",
)
ignored(
    "self",
    "the ignore file and the Dockerfile ignored",
    ".dockerignore\nDockerfile\n",
    but(".dockerignore", "Dockerfile"),
    misses="a.txt",
)
ignored(
    "leading-slash",
    "a leading slash",
    "/b.log\n/sub/a.txt\n",
    but("b.log", "sub/a.txt"),
    hits="b.log sub/a.txt",
    misses="sub/b.log",
)
ignored(
    "trailing-slash",
    "a trailing slash",
    "sub/\nnode_modules/\n",
    "a.txt|b.log|.dockerignore|Dockerfile",
    hits="sub/a.txt node_modules/m.js",
    misses="a.txt",
)
ignored("trailing-slash-file", "a trailing slash on a file", "b.log/\n", but("b.log"), hits="b.log")
ignored(
    "dot-slash",
    "./ before a pattern",
    "./b.log\n./sub/deep\n",
    but("b.log", "sub/deep/c.log"),
    hits="b.log",
)
ignored(
    "dotdot",
    "a/../ is cleaned",
    "x/../b.log\nsub/../sub/a.txt\n",
    but("b.log", "sub/a.txt"),
    hits="sub/a.txt",
    misses="sub/b.log",
)
ignored("dot", "a dot ignores nothing", ".\n", ALL, misses="a.txt")
ignored("slash", "a slash ignores nothing", "/\n", ALL, misses="a.txt")
ignored("case", "letter case counts", "B.LOG\nSub\n", ALL, misses="b.log")
ignored(
    "directory",
    "a directory by its name",
    "sub\n",
    "a.txt|b.log|node_modules/m.js|.dockerignore|Dockerfile",
    hits="sub/a.txt sub/deep/c.log sub/new",
    misses="a.txt",
)
ignored(
    "directory-deep",
    "a directory two levels down",
    "sub/deep\n",
    but("sub/deep/c.log"),
    hits="sub/deep/c.log",
    misses="sub/a.txt",
)
ignored(
    "name-any-level",
    "a name at every level with **/",
    "**/a.txt\n",
    but("a.txt", "sub/a.txt"),
    hits="a.txt sub/a.txt",
    misses="b.log",
)
ignored(
    "doublestar-middle",
    "** in the middle",
    "sub/**/c.log\n",
    but("sub/deep/c.log"),
    hits="sub/deep/c.log",
    misses="sub/b.log",
)
ignored("doublestar-alone", "** ignores everything", "**\n", "")
ignored(
    "doublestar-dir",
    "a directory at every level",
    "**/deep/\n",
    but("sub/deep/c.log"),
    hits="sub/deep/c.log",
)
ignored("star-alone", "* ignores everything", "*\n", "")
ignored(
    "star-in-dir",
    "a star does not cross directories",
    "sub/*.log\n",
    but("sub/b.log"),
    hits="sub/b.log",
    misses="sub/deep/c.log",
)
ignored(
    "star-then-name",
    "a star as a directory",
    "*/a.txt\n",
    but("sub/a.txt"),
    hits="sub/a.txt",
    misses="a.txt",
)
ignored("star-no-dot", "a star matches hidden names", "*.dockerignore\n", but(".dockerignore"))
ignored(
    "class-range",
    "ranges in classes",
    "[a-b].*\n",
    but("a.txt", "b.log"),
    hits="a.txt b.log",
    misses="sub/a.txt",
)
ignored("question", "question marks", "?.log\n", but("b.log"), hits="b.log", misses="sub/b.log")
ignored(
    "escape-star",
    "an escaped star",
    "x\\*\n",
    ".dockerignore|Dockerfile|xy",
    files={"x*": "1\n", "xy": "2\n"},
    misses="xy",
)
ignored(
    "regex-characters",
    "characters that mean something elsewhere",
    "a+b\n(c)\n",
    ".dockerignore|Dockerfile|aab|c",
    files={"a+b": "1\n", "aab": "2\n", "(c)": "3\n", "c": "4\n"},
    hits="a+b",
    misses="aab",
)
ignored(
    "blank-in-name",
    "a blank within a pattern",
    "a b\n",
    ".dockerignore|Dockerfile|a",
    files={"a b": "1\n", "a": "2\n"},
)
ignored(
    "unicode",
    "names beyond ASCII",
    "é*\n",
    ".dockerignore|Dockerfile|e",
    files={"éa": "1\n", "e": "2\n"},
    hits="éa",
)
ignored(
    "duplicate",
    "a pattern twice, with an exception between",
    "b.log\n!b.log\nb.log\n",
    but("b.log"),
    hits="b.log",
)
ignored("negation-last", "an exception at the end", "*.log\n!b.log\n", ALL, misses="b.log")
ignored(
    "negation-blank", "blanks after the exclamation mark", "b.log\n! b.log\n", ALL, misses="b.log"
)
ignored("negation-alone", "an exception without an exclusion", "!a.txt\n", ALL, misses="a.txt")
ignored(
    "negation-subdir",
    "an excluded directory, a directory of it kept",
    "sub\n!sub/deep\n",
    "a.txt|b.log|sub/deep/c.log|node_modules/m.js|.dockerignore|Dockerfile",
    hits="sub/a.txt",
    misses="sub/deep/c.log",
)
ignored(
    "negation-star",
    "all of a directory but a kind",
    "sub/*\n!sub/*.txt\n",
    "a.txt|b.log|sub/a.txt|node_modules/m.js|.dockerignore|Dockerfile",
    hits="sub/b.log",
    misses="sub/a.txt",
)
ignored(
    "negation-reexclude",
    "excluded, kept, excluded again",
    "sub\n!sub/a.txt\nsub/a.txt\n",
    "a.txt|b.log|node_modules/m.js|.dockerignore|Dockerfile",
    hits="sub/a.txt",
)
ignored(
    "negation-slash",
    "an exception with a leading slash",
    "*\n!/a.txt\n",
    "a.txt",
    hits="b.log",
    misses="a.txt",
)
ignored(
    "negation-whole-dir",
    "everything but one directory",
    "*\n!sub\n",
    "sub/a.txt|sub/b.log|sub/deep/c.log",
    hits="a.txt",
    misses="sub/deep/c.log",
)
ignored("crlf-negation", "CRLF with an exception", "*\r\n!a.txt\r\n", "a.txt", hits="b.log")
ignored("no-final-newline", "no newline at the end", "b.log", but("b.log"), hits="b.log")
ignored(
    "symlink",
    "a link is ignored by its own name",
    "l\n",
    ".dockerignore|Dockerfile|a",
    files={"a": "1\n", "l": {"symlink": "a"}},
    misses="a",
)
ignored(
    "symlink-target",
    "the target of a link is ignored, the link stays",
    "a\n",
    ".dockerignore|Dockerfile|l",
    files={"a": "1\n", "l": {"symlink": "a"}},
    hits="a",
)
scenario(
    "ignore-malformed",
    "a pattern that is none",
    COPY,
    refused("syntax error in pattern"),
    build(".MM", op.write(".dockerignore", "b.log\n")),
    files={**TREE, ".dockerignore": "a[\n"},
    area="dockerignore",
)
scenario(
    "ignore-pattern-added-no-effect",
    "a pattern without effect is added: the ignore file itself is copied",
    COPY,
    build(".MM"),
    build(".MM", op.write(".dockerignore", "b.log\nnothing\n")),
    build(".HH", op.write(".dockerignore", "b.log\n")),
    files={**TREE, ".dockerignore": "b.log\n"},
    area="dockerignore",
)
scenario(
    "ignore-pattern-added-ignored-itself",
    "a pattern without effect is added to an ignore file that is ignored",
    COPY,
    build(".MM"),
    build(".HH", op.write(".dockerignore", ".dockerignore\nb.log\nnothing\n")),
    build(".MM", op.write(".dockerignore", ".dockerignore\nb.log\na.txt\n")),
    files={**TREE, ".dockerignore": ".dockerignore\nb.log\n"},
    area="dockerignore",
)
scenario(
    "ignore-file-appears",
    "an ignore file appears and goes",
    "FROM base\nCOPY sub /c\nRUN cd /c && find . ! -type d | sort > /out\n",
    build(".MM", holds={"/out": "./a.txt\n./b.log\n./deep/c.log\n"}),
    build(
        ".MM", op.write(".dockerignore", "sub/*.log\n"), holds={"/out": "./a.txt\n./deep/c.log\n"}
    ),
    build(".HH", op.delete(".dockerignore")),
    files=TREE,
    area="dockerignore",
)
scenario(
    "ignore-dockerfile-specific",
    "Dockerfile.dockerignore wins over .dockerignore",
    COPY,
    build(
        ".MM", holds={"/out": "./.dockerignore\n./Dockerfile\n./Dockerfile.dockerignore\n./b.log\n"}
    ),
    build(".HH", op.write("a.txt", "9\n")),
    build(".MM", op.write("b.log", "9\n")),
    build(
        ".MM",
        op.delete("Dockerfile.dockerignore"),
        holds={"/out": "./.dockerignore\n./Dockerfile\n./a.txt\n"},
    ),
    files={
        "a.txt": "1\n",
        "b.log": "2\n",
        ".dockerignore": "b.log\n",
        "Dockerfile.dockerignore": "a.txt\n",
    },
    area="dockerignore",
)
scenario(
    "ignore-dockerfile-specific-name",
    "the ignore file of a Dockerfile of another name",
    COPY,
    build(
        ".MM", holds={"/out": "./.dockerignore\n./Dockerfile\n./a.txt\n./other.df.dockerignore\n"}
    ),
    build(
        ".MM",
        op.dockerfile(COPY, name="other.df"),
        file="other.df",
        holds={
            "/out": "./.dockerignore\n./Dockerfile\n./b.log\n./other.df\n./other.df.dockerignore\n"
        },
    ),
    build(".HH", op.write("a.txt", "9\n"), file="other.df"),
    files={
        "a.txt": "1\n",
        "b.log": "2\n",
        ".dockerignore": "b.log\n",
        "other.df.dockerignore": "a.txt\n",
    },
    area="dockerignore",
)
scenario(
    "ignore-dockerfile-specific-subdir",
    "the ignore file beside a Dockerfile in a subdirectory is relative to the context",
    "FROM base\n",
    build(
        ".MM",
        op.dockerfile(COPY, name="sub/Dockerfile"),
        file="sub/Dockerfile",
        holds={"/out": "./Dockerfile\n./sub/Dockerfile\n./sub/Dockerfile.dockerignore\n./sub/a\n"},
    ),
    build(".HH", op.write("a", "9\n"), file="sub/Dockerfile"),
    files={"a": "1\n", "sub/a": "2\n", "sub/Dockerfile.dockerignore": "a\n"},
    area="dockerignore",
)
scenario(
    "ignore-dockerfile-still-read",
    "an ignored Dockerfile is still used",
    "FROM base\nCOPY . /c\nRUN ls -A /c > /out\n",
    build(".MM", holds={"/out": "a\n"}),
    build(".HH", op.replace("FROM base\n", "# note\nFROM base\n")),
    files={"a": "1\n", ".dockerignore": "*\n!a\n"},
    area="dockerignore",
)
scenario(
    "ignore-copied-directory",
    "an ignored directory as the source",
    "FROM base\nCOPY sub /c\n",
    failing(".M", "not found"),
    build(
        ".M", op.write(".dockerignore", "sub/a.txt\n"), holds={"/c/a.txt": None, "/c/b.log": "4\n"}
    ),
    files={**TREE, ".dockerignore": "sub\n"},
    area="dockerignore",
)
scenario(
    "ignore-copied-negated",
    "a directory of which only one file is left",
    "FROM base\nCOPY sub /c\nRUN find /c | sort > /out\n",
    build(".MM", holds={"/out": "/c\n/c/a.txt\n"}),
    build(".HH", op.write("sub/b.log", "9\n")),
    files={**TREE, ".dockerignore": "sub\n!sub/a.txt\n"},
    area="dockerignore",
)
scenario(
    "ignore-add",
    "ADD of an ignored archive",
    "FROM base\nADD t.tar /t/\n",
    failing(".M", "not found"),
    files={"t.tar": {"tar": {"a": "1\n"}}, ".dockerignore": "*.tar\n"},
    area="dockerignore",
)
scenario(
    "ignore-empty-dir-left",
    "a directory whose files are all ignored by name stays, empty",
    "FROM base\nCOPY . /c\nRUN find /c -type d | sort > /out\n",
    build(".MM", holds={"/out": "/c\n/c/d\n"}),
    build(".HH", op.write("d/y.log", "9\n")),
    build(".MM", op.delete("d"), holds={"/out": "/c\n"}),
    files={"a": "1\n", "d/x.log": "2\n", ".dockerignore": "**/*.log\n"},
    area="dockerignore",
)
