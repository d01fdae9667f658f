"""Section 10: heredocs, --link, --parents, --exclude."""

from __future__ import annotations

from tests.conformance.deriving import Build, build, failing, op, refused, scenario

# -- heredocs of RUN ------------------------------------------------------------------------

scenario(
    "heredoc-run-plain",
    "a heredoc against the same command as a line",
    "FROM base\nRUN <<EOF\necho one > /x\nEOF\n",
    build(".M"),
    build(".M", op.dockerfile("FROM base\nRUN echo one > /x\n"), holds={"/x": "one\n"}),
)
scenario(
    "heredoc-run-dash",
    "<<- strips tabs: another body in the file, the same in effect",
    "FROM base\nRUN <<EOF\necho one > /x\nEOF\n",
    build(".M"),
    build(".H", op.dockerfile("FROM base\nRUN <<-EOF\n\techo one > /x\n\tEOF\n")),
)
scenario(
    "heredoc-run-blank-line",
    "a blank line in the body",
    "FROM base\nRUN <<EOF\necho one > /x\necho two > /y\nEOF\n",
    build(".M"),
    build(".M", op.replace("/x\n", "/x\n\n")),
)
scenario(
    "heredoc-run-whitespace",
    "blanks at the end of a line of the body",
    "FROM base\nRUN <<EOF\necho one > /x\nEOF\n",
    build(".M"),
    build(".M", op.replace("> /x\n", "> /x \n")),
)
scenario(
    "heredoc-run-multi-commands",
    "several commands; a failing one does not end the shell",
    "FROM base\nRUN <<EOF\nfalse\necho on > /x\nEOF\n",
    build(".M", holds={"/x": "on\n"}),
    failing(".M", "exit code: 1", op.replace("<<EOF\n", "<<EOF\nset -e\n")),
)
scenario(
    "heredoc-run-variables",
    "variables in the body are those of the shell, quoted or not",
    "FROM base\nENV V=1\nRUN <<EOF\nW=2\necho $V$W > /x\nEOF\n",
    build("..M", holds={"/x": "12\n"}),
    build("..H", op.replace("<<EOF", "<<'EOF'")),
    build("..M", op.replace("V=1", "V=3"), holds={"/x": "32\n"}),
)
scenario(
    "heredoc-run-shebang",
    "a script with an interpreter of its own",
    "FROM base\nRUN <<EOF\n#!/bin/ash -e\necho $0 > /x\nfalse\necho never > /y\nEOF\n",
    failing(".M", "exit code: 1"),
    build(".M", op.replace("false\n", "true\n"), holds={"/y": "never\n"}),
    build(".H"),
)
scenario(
    "heredoc-run-awk",
    "an interpreter that is no shell",
    'FROM base\nRUN <<EOF\n#!/bin/awk -f\nBEGIN { print 6 * 7 > "/x" }\nEOF\n',
    build(".M", holds={"/x": "42\n"}),
    build(".H"),
)
scenario(
    "heredoc-run-two",
    "two heredocs for one command",
    "FROM base\nRUN cat <<A - <<B > /x\nignored\nA\nfrom b\nB\n",
    build(".M", holds={"/x": "from b\n"}),
    build(".M", op.replace("from b", "from B"), holds={"/x": "from B\n"}),
)
scenario(
    "heredoc-run-pipe",
    "a heredoc into a pipe",
    "FROM base\nRUN cat <<EOF | tr a-z A-Z > /x\nabc\nEOF\n",
    build(".M", holds={"/x": "ABC\n"}),
    build(".M", op.replace("abc", "abd"), holds={"/x": "ABD\n"}),
)
scenario(
    "heredoc-run-mount",
    "a heredoc under mounts",
    "FROM base\nRUN --mount=source=a.txt,target=/m <<EOF\ncat /m > /x\nEOF\n",
    build(".M", holds={"/x": "alpha\n"}),
    build(".M", op.write("a.txt", "2\n"), holds={"/x": "2\n"}),
    files={"a.txt": "alpha\n"},
)
scenario(
    "heredoc-run-indented-end",
    "an indented delimiter does not end it",
    "FROM base\nRUN <<EOF\necho a > /x\n EOF\necho b > /y\nEOF\n",
    build(".M", holds={"/x": "a\n", "/y": "b\n"}),
)
scenario(
    "heredoc-unterminated",
    "a heredoc without an end",
    "FROM base\nRUN <<EOF\necho a\n",
    refused("unterminated heredoc"),
)
scenario(
    "heredoc-empty",
    "a heredoc without a body",
    "FROM base\nCOPY <<EOF /x\nEOF\n",
    build(".M", holds={"/x": ""}),
    build(".M", op.replace("/x\n", "/x\n\n"), holds={"/x": "\n"}),
)

# -- heredocs of COPY -----------------------------------------------------------------------

scenario(
    "heredoc-copy-change",
    "the body changes, and changes back",
    "FROM base\nCOPY <<EOF /x\none\nEOF\nRUN cat /x > /y\n",
    build(".MM", holds={"/x": {"type": "file", "mode": "0644", "uid": 0, "content": "one\n"}}),
    build(".MM", op.replace("one", "two"), holds={"/y": "two\n"}),
    build(".HH", op.replace("two", "one")),
)
scenario(
    "heredoc-copy-dest",
    "the destination of a heredoc",
    "FROM base\nCOPY <<EOF /x\none\nEOF\n",
    build(".M"),
    build(".M", op.replace("/x", "/y"), holds={"/y": "one\n", "/x": None}),
)
scenario(
    "heredoc-copy-dash",
    "<<- with stripped tabs equals the plain one",
    "FROM base\nCOPY <<EOF /x\none\nEOF\n",
    build(".M"),
    build(".H", op.dockerfile("FROM base\nCOPY <<-EOF /x\n\t\tone\nEOF\n")),
)
scenario(
    "heredoc-copy-name",
    "the name of the heredoc is the name in a directory",
    "FROM base\nCOPY <<one.txt /d/\nbody\none.txt\n",
    build(".M", holds={"/d/one.txt": "body\n"}),
    build(".M", op.replace("one.txt", "two.txt"), holds={"/d/two.txt": "body\n"}),
)
scenario(
    "heredoc-copy-name-file-dest",
    "the name of the heredoc with a file as destination",
    "FROM base\nCOPY <<EOF /x\nbody\nEOF\n",
    build(".M"),
    build(".M", op.replace("EOF", "END"), holds={"/x": "body\n"}),
)
scenario(
    "heredoc-copy-several",
    "several heredocs and a file in one COPY",
    "FROM base\nCOPY <<one a.txt <<two /d/\n1\none\n2\ntwo\nRUN ls /d > /x\n",
    build(".MM", holds={"/x": "a.txt\none\ntwo\n", "/d/one": "1\n", "/d/two": "2\n"}),
    build(".MM", op.write("a.txt", "b\n")),
    build(".HH", op.write("a.txt", "alpha\n")),
    files={"a.txt": "alpha\n"},
)
scenario(
    "heredoc-copy-vs-file",
    "a heredoc against a context file of equal content",
    "FROM base\nCOPY <<EOF /x\nalpha\nEOF\n",
    build(".M"),
    build(".M", op.dockerfile("FROM base\nCOPY a.txt /x\n"), holds={"/x": "alpha\n"}),
    files={"a.txt": "alpha\n"},
)
scenario(
    "heredoc-copy-chown",
    "--chown of a heredoc",
    "FROM base\nCOPY --chown=app:app <<EOF /x\nbody\nEOF\n",
    build(".M", holds={"/x": {"type": "file", "uid": 1000, "gid": 1000}}),
    build(".M", op.replace("app:app", "other"), holds={"/x": {"type": "file", "uid": 1001}}),
)
scenario(
    "heredoc-copy-expansion-forms",
    "escapes and quotes in an expanded body",
    "FROM base\nENV V=1\nCOPY <<EOF /x\n\"$V\" '$V' \\$V ${V:-d} ${W:-d}\nEOF\n",
    build("..M", holds={"/x": "\"1\" '1' $V 1 d\n"}),
    build(
        "..M", op.replace("<<EOF", '<<"EOF"'), holds={"/x": "\"$V\" '$V' \\$V ${V:-d} ${W:-d}\n"}
    ),
)
scenario(
    "heredoc-copy-same-expansion",
    "another text with an equal body after expansion",
    "FROM base\nENV V=1\nCOPY <<EOF /x\nv=$V\nEOF\n",
    build("..M"),
    build("..H", op.replace("v=$V", "v=1")),
    build("..H", op.replace("<<EOF", "<<'EOF'")),
)
scenario(
    "heredoc-onbuild",
    "a heredoc in a trigger",
    "FROM trig\nRUN cat /x > /y\n",
    build(".(M)M", holds={"/y": "body\n"}),
    build(".(H)H"),
    images={"trig": {"dockerfile": "FROM base\nONBUILD COPY <<EOF /x\nbody\nEOF\n"}},
)

# -- --link ---------------------------------------------------------------------------------

AB = {"a.txt": "alpha @SALT@\n", "b.txt": "beta @SALT@\n"}
LINK = "FROM base\nRUN echo one > /one\nCOPY --link a.txt /a.txt\n"
scenario(
    "link-run-before",
    "a changed command before COPY --link",
    LINK,
    build(".MM"),
    build(
        ".MH", op.replace("echo one", "echo 1"), holds={"/one": "1\n", "/a.txt": "alpha @SALT@\n"}
    ),
    files=AB,
)
scenario(
    "link-two-independent",
    "two COPY --link, each for itself",
    "FROM base\nCOPY --link a.txt /a.txt\nCOPY --link b.txt /b.txt\n",
    build(".MM"),
    build(".MH", op.write("a.txt", "x @SALT@\n")),
    build(".HM", op.write("b.txt", "y @SALT@\n")),
    build(".HH"),
    files=AB,
)
scenario(
    "link-swap",
    "two COPY --link trade places",
    "FROM base\nCOPY --link a.txt /a.txt\nCOPY --link b.txt /b.txt\n",
    build(".MM"),
    build(".HH", op.dockerfile("FROM base\nCOPY --link b.txt /b.txt\nCOPY --link a.txt /a.txt\n")),
    files=AB,
)
scenario(
    "link-false",
    "--link=false is no flag",
    "FROM base\nRUN echo one > /one\nCOPY a.txt /a.txt\n",
    build(".MM"),
    build(".HH", op.replace("COPY a.txt", "COPY --link=false a.txt")),
    files=AB,
)
scenario(
    "link-true",
    "--link=true is --link",
    LINK,
    build(".MM"),
    build(".HH", op.replace("--link", "--link=true")),
    files=AB,
)
scenario(
    "link-content",
    "the content under --link",
    LINK,
    build(".MM"),
    build(".HM", op.write("a.txt", "x @SALT@\n")),
    build(".HH", op.write("a.txt", "alpha @SALT@\n")),
    files=AB,
)
scenario(
    "link-other-base",
    "another base image under --link",
    "FROM b2\nCOPY --link a.txt /d/a.txt\nRUN cat /v /d/a.txt > /x\n",
    build(".MM"),
    build(".HM", op.image("b2", "FROM base\nRUN echo 2 > /v\n"), holds={"/x": "2\nalpha @SALT@\n"}),
    files=AB,
    images={"b2": {"dockerfile": "FROM base\nRUN echo 1 > /v\n"}},
)
scenario(
    "link-other-stage",
    "the same COPY --link in another stage",
    "FROM base AS one\nCOPY --link a.txt /a.txt\nFROM base\nRUN echo two > /two\n"
    "COPY --link a.txt /a.txt\nCOPY --from=one /a.txt /b.txt\n",
    build(".M.MMM"),
    build(".H.MHM", op.replace("echo two", "echo 2")),
    files=AB,
)
scenario(
    "link-workdir",
    "a relative destination of --link: WORKDIR counts by its path",
    "FROM base\nWORKDIR /w\nCOPY --link a.txt ./\nRUN ls > /x\n",
    build(".MMM", holds={"/x": "a.txt\n"}),
    build(".MMM", op.replace("/w", "/v"), holds={"/v/a.txt": "alpha @SALT@\n"}),
    files=AB,
)
scenario(
    "link-chown-numbers",
    "--link --chown with numbers",
    LINK.replace("--link", "--link --chown=1000:1001"),
    build(".MM", holds={"/a.txt": {"type": "file", "uid": 1000, "gid": 1001}}),
    build(".MH", op.replace("echo one", "echo 1")),
    files=AB,
)
scenario(
    "link-chown-name",
    "--link reads nothing of the image, so names of accounts can't be looked up",
    "FROM base\nCOPY --link --chown=app a.txt /a.txt\n",
    failing(".M", "invalid user index: -1"),
    build(
        ".M",
        op.replace("--chown=app", "--chown=root:root"),
        holds={"/a.txt": {"type": "file", "uid": 0}},
    ),
    files=AB,
)
scenario(
    "link-add-tar",
    "ADD --link of an archive",
    "FROM base\nRUN echo one > /one\nADD --link t.tar /t/\n",
    build(".MM", holds={"/t/f": "@SALT@\n"}),
    build(".MH", op.replace("echo one", "echo 1"), holds={"/t/f": "@SALT@\n"}),
    files={"t.tar": {"tar": {"f": "@SALT@\n"}}},
)
scenario(
    "link-dir",
    "a directory with --link, over files that are there",
    "FROM base\nCOPY b.txt /d/b.txt\nCOPY --link d /d\nRUN ls /d > /x\n",
    build(".MMM", holds={"/x": "b.txt\nf\n"}),
    build(".MHM", op.write("b.txt", "x @SALT@\n"), holds={"/d/b.txt": "x @SALT@\n"}),
    files={**AB, "d/f": "@SALT@\n"},
)
scenario(
    "link-mtime",
    "only the time of the file under --link",
    LINK,
    build(".MM"),
    build(".HH", op.touch("a.txt", 5)),
    files=AB,
)

# -- --parents ------------------------------------------------------------------------------

TREE = {"x/a.txt": "1\n", "x/y/b.txt": "2\n", "c.txt": "3\n", "x/n.md": "4\n"}
FIND = "RUN cd /p && find . ! -type d | sort > /out\n"


def parents(name: str, title: str, source: str, listed: str, *builds: Build) -> None:
    scenario(
        f"parents-{name}",
        title,
        f"FROM base\nCOPY --parents {source} /p/\n{FIND}",
        build(".MM", holds={"/out": listed}),
        *builds,
        files=TREE,
    )


parents(
    "file",
    "a file keeps its path",
    "x/y/b.txt",
    "./x/y/b.txt\n",
    build(".HH", op.write("x/a.txt", "9\n")),
    build(".MM", op.write("x/y/b.txt", "9\n")),
)
parents(
    "dir",
    "a directory keeps its path",
    "x/y",
    "./x/y/b.txt\n",
    build(".HH", op.write("x/a.txt", "9\n")),
    build(".MM", op.write("x/y/c", "9\n")),
)
parents(
    "glob",
    "** crosses directories",
    "**/*.txt",
    "./c.txt\n./x/a.txt\n./x/y/b.txt\n",
    build(".HH", op.write("x/n.md", "9\n")),
    build(".MM", op.write("x/y/b.txt", "9\n")),
    build(".MM", op.write("z/new.txt", "9\n")),
)
parents(
    "glob-below",
    "a pattern below a directory",
    "x/**/*.txt",
    "./x/a.txt\n./x/y/b.txt\n",
    build(".HH", op.write("c.txt", "9\n")),
    build(".MM", op.write("x/a.txt", "9\n")),
)
parents(
    "two",
    "two sources",
    "x/a.txt c.txt",
    "./c.txt\n./x/a.txt\n",
    build(".MM", op.write("c.txt", "9\n")),
    build(".HH", op.write("x/n.md", "9\n")),
)
parents(
    "pivot-dir",
    "the pivot before a directory",
    "x/./y",
    "./y/b.txt\n",
    build(".HH", op.write("x/a.txt", "9\n")),
    build(".MM", op.write("x/y/b.txt", "9\n")),
)
parents(
    "pivot-glob",
    "the pivot before a pattern",
    "./x/./**/*.txt",
    "./a.txt\n./y/b.txt\n",
    build(".HH", op.write("x/n.md", "9\n")),
    build(".MM", op.write("x/y/b.txt", "9\n")),
)
parents(
    "false",
    "--parents=false is no flag",
    "x/./y/b.txt",
    "./y/b.txt\n",
    build(".MM", op.replace("--parents", "--parents=false"), holds={"/out": "./b.txt\n"}),
)
scenario(
    "parents-missing",
    "a source that is not there, and a pattern without match",
    f"FROM base\nCOPY --parents x/none.txt /p/\n{FIND}",
    failing(".MS", "not found"),
    files=TREE,
)
scenario(
    "parents-chown",
    "--parents with --chown: parents too",
    "FROM base\nCOPY --parents --chown=1000:1000 x/y/b.txt /p/\n",
    build(".M", holds={"/p/x/y/b.txt": {"type": "file", "uid": 1000, "gid": 1000}}),
    build(".H", op.chown("x/y/b.txt", 5, 5)),
    files=TREE,
)
scenario(
    "parents-from-stage",
    "--parents from a stage",
    "FROM base AS one\nCOPY . /src\nFROM base\n"
    f"COPY --parents --from=one /src/./x/*.txt /p/\n{FIND}",
    build(".M.MM", holds={"/out": "./x/a.txt\n"}),
    build(".M.HH", op.write("c.txt", "9\n")),
    build(".M.MM", op.write("x/a.txt", "9\n")),
    files=TREE,
)
scenario(
    "parents-exclude",
    "--parents with --exclude",
    f"FROM base\nCOPY --parents --exclude=**/b.txt x /p/\n{FIND}",
    build(".MM", holds={"/out": "./x/a.txt\n./x/n.md\n"}),
    build(".HH", op.write("x/y/b.txt", "9\n")),
    build(".MM", op.write("x/a.txt", "9\n")),
    files=TREE,
)

# -- --exclude ------------------------------------------------------------------------------

D = {"d/a.txt": "1\n", "d/b.md": "2\n", "d/s/c.txt": "3\n", "d/s/d.md": "4\n"}
LIST = "RUN cd /d && find . ! -type d | sort > /out\n"


def exclude(name: str, title: str, flags: str, listed: str, *builds: Build) -> None:
    scenario(
        f"exclude-{name}",
        title,
        f"FROM base\nCOPY {flags} d /d\n{LIST}",
        build(".MM", holds={"/out": listed}),
        *builds,
        files=D,
    )


exclude(
    "file",
    "an excluded file",
    "--exclude=a.txt",
    "./b.md\n./s/c.txt\n./s/d.md\n",
    build(".HH", op.write("d/a.txt", "9\n")),
    build(".HH", op.delete("d/a.txt")),
    build(".MM", op.write("d/b.md", "9\n")),
)
exclude(
    "dir",
    "an excluded directory",
    "--exclude=s",
    "./a.txt\n./b.md\n",
    build(".HH", op.write("d/s/c.txt", "9\n")),
    build(".HH", op.write("d/s/new", "9\n")),
    build(".MM", op.write("d/a.txt", "9\n")),
)
exclude(
    "root-only",
    "a pattern without ** is for the top",
    "--exclude=*.md",
    "./a.txt\n./s/c.txt\n./s/d.md\n",
    build(".HH", op.write("d/b.md", "9\n")),
    build(".MM", op.write("d/s/d.md", "9\n")),
)
exclude(
    "two",
    "two patterns",
    "--exclude=*.txt --exclude=s/*.md",
    "./b.md\n./s/c.txt\n",
    build(".HH", op.write("d/s/d.md", "9\n")),
    build(".MM", op.write("d/s/c.txt", "9\n")),
)
exclude(
    "order",
    "two patterns in another order",
    "--exclude=a.txt --exclude=b.md",
    "./s/c.txt\n./s/d.md\n",
    build(".MM", op.replace("--exclude=a.txt --exclude=b.md", "--exclude=b.md --exclude=a.txt")),
)
exclude(
    "toggle",
    "a pattern that excludes nothing is added",
    "--chmod=644 --exclude=none",
    "./a.txt\n./b.md\n./s/c.txt\n./s/d.md\n",
    build(".MM", op.replace(" --exclude=none", "")),
)
exclude(
    "negated",
    "an exception within an exclusion",
    "--exclude=s --exclude=!s/c.txt",
    "./a.txt\n./b.md\n./s/c.txt\n",
    build(".HH", op.write("d/s/d.md", "9\n")),
    build(".MM", op.write("d/s/c.txt", "9\n")),
)
scenario(
    "exclude-glob",
    "--exclude beside a pattern as source",
    "FROM base\nCOPY --exclude=b* *.txt /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "a.txt\nb.txt\n"}),
    build(".MM", op.write("a.txt", "9\n")),
    files={"a.txt": "1\n", "b.txt": "2\n"},
)
scenario(
    "exclude-from-stage",
    "--exclude from a stage",
    f"FROM base AS one\nCOPY d /d\nFROM base\nCOPY --from=one --exclude=**/*.md /d /d\n{LIST}",
    build(".M.MM", holds={"/out": "./a.txt\n./s/c.txt\n"}),
    build(".M.HH", op.write("d/s/d.md", "9\n")),
    build(".M.MM", op.write("d/s/c.txt", "9\n")),
    files=D,
)
scenario(
    "exclude-add",
    "ADD --exclude",
    f"FROM base\nADD --exclude=*.md d /d\n{LIST}",
    build(".MM", holds={"/out": "./a.txt\n./s/c.txt\n./s/d.md\n"}),
    build(".HH", op.write("d/b.md", "9\n")),
    files=D,
)
scenario(
    "exclude-whole-context",
    "COPY . with an exclusion of the Dockerfile",
    "FROM base\nCOPY --exclude=Dockerfile . /c\nRUN ls -A /c > /out\n",
    build(".MM", holds={"/out": "d\n"}),
    build(".HH", op.replace("FROM base\n", "# note\nFROM base\n")),
    files=D,
)
scenario(
    "exclude-variable",
    "a pattern by an argument",
    f"FROM base\nARG X=*.md\nCOPY --exclude=$X d /d\n{LIST}",
    build("..MM", args={"X": "*.txt"}),
    build("..HH", args={"X": "*.txt"}),
    files=D,
)
scenario(
    "copy-flag-unknown",
    "a flag that COPY does not have",
    "FROM base\nCOPY --nothing d /d\n",
    refused("unknown flag: --nothing"),
    files=D,
)
