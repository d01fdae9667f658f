"""Sections 1 and 2: the chain, metadata beside it, and the command of RUN."""

from __future__ import annotations

from tests.conformance.deriving import build, failing, op, refused, scenario

THREE = "FROM base\nRUN echo one > /one\nRUN echo two > /two\nRUN echo three > /three\n"
COPIED = "FROM base\nCOPY a.txt /a.txt\nRUN cat /a.txt > /out\n"
A = {"a.txt": "alpha\n"}

# -- 1.1, 1.4, 1.5: repeating, coming back, failing -----------------------------------------

scenario(
    "run-repeat",
    "three plain commands, built three times",
    THREE,
    build(".MMM"),
    build(".HHH"),
    build(".HHH"),
)
scenario(
    "run-ab-a",
    "a command changes and changes back: the old chain is still there",
    THREE,
    build(".MMM"),
    build(".MMM", op.replace("echo one", "echo ONE")),
    build(".HHH", op.replace("echo ONE", "echo one")),
    build(".HHH", op.replace("echo one", "echo ONE")),
)
scenario(
    "run-insert-first",
    "a command is inserted before all others",
    THREE,
    build(".MMM"),
    build(".MMMM", op.replace("FROM base\n", "FROM base\nRUN echo zero > /zero\n")),
)
scenario(
    "run-insert-last-but-one",
    "a command is inserted before the last one",
    THREE,
    build(".MMM"),
    build(".HHMM", op.replace("RUN echo three", "RUN echo mid > /mid\nRUN echo three")),
)
scenario(
    "run-swap",
    "two commands trade places",
    THREE,
    build(".MMM"),
    build(
        ".MMM",
        op.dockerfile(
            "FROM base\nRUN echo two > /two\nRUN echo one > /one\nRUN echo three > /three\n"
        ),
    ),
)
scenario(
    "run-delete-last",
    "the last command goes: the shorter chain is all there",
    THREE,
    build(".MMM"),
    build(".HH", op.replace("RUN echo three > /three\n", ""), holds={"/three": None}),
    build(".HHH", op.replace("> /two\n", "> /two\nRUN echo three > /three\n")),
)
scenario(
    "run-delete-first",
    "the first command goes",
    THREE,
    build(".MMM"),
    build(".MM", op.replace("RUN echo one > /one\n", ""), holds={"/one": None}),
)
scenario(
    "run-fails-repeatedly",
    "a failing command is tried again each time; what is before it stays",
    "FROM base\nCOPY a.txt /a.txt\nRUN cat /a.txt > /x && exit 3\nRUN echo never\n",
    failing(".MMS", "exit code: 3"),
    failing(".HMS", "exit code: 3"),
    failing(".MMS", "exit code: 3", op.write("a.txt", "other\n")),
    files=A,
)
scenario(
    "run-fails-by-content",
    "whether the command fails depends on the file; the good state comes back",
    "FROM base\nCOPY a.txt /a.txt\nRUN grep -q alpha /a.txt\nRUN echo done > /out\n",
    build(".MMM"),
    failing(".MMS", "exit code: 1", op.write("a.txt", "bad\n")),
    build(".HHH", op.write("a.txt", "alpha\n")),
    files=A,
)
scenario(
    "run-missing-command",
    "a command that is not there",
    'FROM base\nRUN echo a > /x\nRUN ["/bin/nowhere"]\n',
    failing(".MM", "no such file"),
    failing(".HM", "no such file"),
)
scenario(
    "run-random-three",
    "random output stays through hits, and what is after it belongs to it",
    "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /u\nRUN cp /u /v\nCOPY a.txt /a.txt\n",
    build(".MMM"),
    build(".HHH"),
    build(".HHM", op.write("a.txt", "other\n")),
    build(".HHH", op.write("a.txt", "alpha\n")),
    files=A,
)
scenario(
    "run-comment-above",
    "comments and blank lines above, between and below",
    THREE,
    build(".MMM"),
    build(".HHH", op.replace("RUN echo two", "# why\n\nRUN echo two")),
    build(".HHH", op.replace("FROM base\n", "# first\n\n\nFROM base\n\n# and\n")),
)
scenario(
    "run-keyword-case",
    "letter case of the keyword",
    THREE,
    build(".MMM"),
    build(".HHH", op.replace("RUN", "run")),
    build(".HHH", op.replace("run", "Run"), op.replace("FROM", "from")),
)
scenario(
    "run-outer-whitespace",
    "blanks and tabs around the instruction",
    THREE,
    build(".MMM"),
    build(".HHH", op.replace("RUN echo two > /two", "  RUN \t echo two > /two  \t")),
)
scenario(
    "run-inner-whitespace",
    "blanks inside the command",
    THREE,
    build(".MMM"),
    build(".HMM", op.replace("echo two", "echo  two")),
)
scenario(
    "run-quote-style",
    "other quotes round the same word",
    "FROM base\nRUN echo 'a' > /x\n",
    build(".M"),
    build(".M", op.replace("'a'", '"a"'), holds={"/x": "a\n"}),
    build(".M", op.replace('"a"', "a"), holds={"/x": "a\n"}),
)
scenario(
    "run-shell-comment",
    "a comment of the shell at the end of the command",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".M", op.replace("> /x", "> /x # note"), holds={"/x": "a\n"}),
)
scenario(
    "run-env-prefix",
    "an assignment before the command",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".M", op.replace("RUN echo", "RUN X=1 echo"), holds={"/x": "a\n"}),
)
scenario(
    "run-crlf",
    "the Dockerfile with CRLF line ends",
    "FROM base\nRUN echo one > /one\nRUN echo a && \\\n  echo b > /two\n",
    build(".MM"),
    build(
        ".HH",
        op.dockerfile(
            "FROM base\r\nRUN echo one > /one\r\nRUN echo a && \\\r\n  echo b > /two\r\n"
        ),
    ),
)
scenario(
    "run-bom",
    "a byte order mark before the Dockerfile",
    THREE,
    build(".MMM"),
    build(".HHH", op.replace("FROM base", "\ufeffFROM base")),
)
scenario(
    "run-continuation-indent",
    "indentation after a continuation is part of the command",
    "FROM base\nRUN echo a && \\\n  echo b > /x\n",
    build(".M"),
    build(".M", op.replace("\\\n  echo", "\\\n    echo"), holds={"/x": "b\n"}),
    build(".H", op.replace("\\\n    echo", "\\\n  echo")),
)
scenario(
    "run-continuation-blank-line",
    "an empty line within a continued command",
    "FROM base\nRUN echo a && \\\n  echo b > /x\n",
    build(".M"),
    build(".H", op.replace("&& \\\n", "&& \\\n\n")),
)
scenario(
    "run-continuation-trailing-blank",
    "blanks after the continuation mark",
    "FROM base\nRUN echo a && \\\n  echo b > /x\n",
    build(".M"),
    build(".H", op.replace("&& \\\n", "&& \\  \n")),
)
scenario(
    "run-continuation-in-word",
    "a word split by a continuation",
    "FROM base\nRUN echo alphabet > /x\n",
    build(".M"),
    build(".H", op.replace("alphabet", "alpha\\\nbet"), holds={"/x": "alphabet\n"}),
)
scenario(
    "run-escape-directive-other",
    "with the backtick as escape a backslash is an ordinary character",
    "# escape=`\nFROM base\nRUN echo a\\nb > /x && `\n echo c > /y\n",
    build(".M", holds={"/y": "c\n"}),
    build(".M", op.replace("echo c", "echo d"), holds={"/y": "d\n"}),
)
scenario(
    "run-directive-syntax",
    "a syntax directive is added",
    THREE,
    build(".MMM"),
    build(".HHH", op.replace("FROM base\n", "# syntax=docker/dockerfile:1\nFROM base\n")),
    area="run",
)
scenario(
    "run-exec-args",
    "another split of the arguments",
    'FROM base\nRUN ["/bin/echo", "a b"]\n',
    build(".M"),
    build(".M", op.replace('"a b"', '"a", "b"')),
)
scenario(
    "run-exec-no-expansion",
    "the exec form expands nothing",
    'FROM base\nENV V=1\nRUN ["/bin/sh", "-c", "echo $V > /x"]\nRUN ["/bin/touch", "/$V"]\n',
    build("..MM", holds={"/x": "1\n", "/$V": ""}),
    build("..HH"),
)
scenario(
    "run-json-broken",
    "what is no JSON array is a shell command",
    "FROM base\nRUN [ -d /bin ] && echo yes > /x\n",
    build(".M", holds={"/x": "yes\n"}),
    build(".H"),
    build(".M", op.replace("yes", "yes2"), holds={"/x": "yes2\n"}),
)
scenario(
    "run-shell-variables",
    "variables of the shell are not the builder's",
    'FROM base\nRUN X=5; echo "$X ${X} $((X+1))" > /x\n',
    build(".M", holds={"/x": "5 5 6\n"}),
    build(".H"),
)
scenario(
    "run-equal-results",
    "two different commands with one result",
    "FROM base\nRUN echo a > /x\nRUN cat /x > /y\n",
    build(".MM"),
    build(".MM", op.replace("echo a", "printf 'a\\n'"), holds={"/y": "a\n"}),
)
scenario(
    "run-no-change",
    "a command that changes nothing, then another one",
    "FROM base\nRUN true\nRUN echo a > /x\n",
    build(".MM"),
    build(".MM", op.replace("RUN true", "RUN :")),
    build(".HH"),
)
scenario(
    "run-deletes",
    "files deleted by a command are gone, and come back without it",
    "FROM base\nCOPY a.txt b.txt /d/\nRUN rm /d/a.txt\nRUN ls /d > /out\n",
    build(".MMM", holds={"/out": "b.txt\n", "/d/a.txt": None, "/d/b.txt": "b\n"}),
    build(".HHH"),
    build(".MMM", op.write("a.txt", "other\n"), holds={"/out": "b.txt\n", "/d/a.txt": None}),
    files={"a.txt": "alpha\n", "b.txt": "b\n"},
)
scenario(
    "run-same-line-three-stages",
    "the same command in several places of several chains",
    "FROM base AS a\nRUN echo x >> /x\nRUN echo x >> /x\nFROM base\nCOPY --from=a /x /x\n"
    "RUN echo x >> /x\n",
    build(".MM.MM", holds={"/x": "x\nx\nx\n"}),
    build(".HH.HH"),
)

# -- 1.3, 1.6: metadata --------------------------------------------------------------------


def metadata(
    name: str, first: str, second: str, key: str, one: object, two: object, places: str
) -> None:
    """An instruction that changes the configuration only, in the middle and as the last."""
    for place in places.split():
        run = "RUN echo hi > /tmp/x\n"
        middle = place == "middle"
        body = (
            f"{first}\n{run}COPY a.txt /a.txt\n" if middle else f"COPY a.txt /a.txt\n{run}{first}\n"
        )
        made, reused = ("..MM", "..HH") if middle else (".MM.", ".HH.")
        scenario(
            f"{name}-{place}",
            f"{first.split()[0]} changes " + ("before RUN and COPY" if middle else "at the end"),
            f"FROM base\n{body}",
            build(made, config={key: one}),
            build(reused, op.replace(first, second), config={key: two}),
            build(reused, op.replace(second, first), config={key: one}),
            files=A,
        )


metadata("volume", "VOLUME /v1", "VOLUME /v2", "Volumes", {"/v1": {}}, {"/v2": {}}, "middle")
metadata("stopsignal", "STOPSIGNAL SIGTERM", "STOPSIGNAL 9", "StopSignal", "SIGTERM", "9", "last")
metadata(
    "expose", "EXPOSE 80", "EXPOSE 81/udp", "ExposedPorts", {"80/tcp": {}}, {"81/udp": {}}, "last"
)
metadata("cmd", 'CMD ["a"]', 'CMD ["b"]', "Cmd", ["a"], ["b"], "last")
metadata(
    "cmd-shell",
    "CMD a b",
    "CMD c",
    "Cmd",
    ["/bin/sh", "-c", "a b"],
    ["/bin/sh", "-c", "c"],
    "middle last",
)
metadata("entrypoint", 'ENTRYPOINT ["a"]', 'ENTRYPOINT ["b"]', "Entrypoint", ["a"], ["b"], "middle")
metadata(
    "healthcheck",
    "HEALTHCHECK CMD true",
    "HEALTHCHECK NONE",
    "Healthcheck",
    {"Test": ["CMD-SHELL", "true"]},
    {"Test": ["NONE"]},
    "middle last",
)
metadata(
    "healthcheck-flags",
    "HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD true",
    'HEALTHCHECK --start-period=1m CMD ["a", "b"]',
    "Healthcheck",
    {"Test": ["CMD-SHELL", "true"], "Interval": 5000000000, "Timeout": 3000000000, "Retries": 2},
    {"Test": ["CMD", "a", "b"], "StartPeriod": 60000000000},
    "middle",
)
metadata(
    "onbuild",
    "ONBUILD RUN echo t1",
    "ONBUILD COPY . /x",
    "OnBuild",
    ["RUN echo t1"],
    ["COPY . /x"],
    "middle",
)
metadata("maintainer", "MAINTAINER one", "MAINTAINER two", "Maintainer", None, None, "last")
metadata(
    "label-several",
    "LABEL a=1 b=2",
    'LABEL b="2 3"',
    "Labels",
    {"a": "1", "b": "2"},
    {"b": "2 3"},
    "middle last",
)
metadata(
    "shell",
    'SHELL ["/bin/sh", "-c"]',
    'SHELL ["/bin/sh", "-ec"]',
    "Shell",
    ["/bin/sh", "-c"],
    ["/bin/sh", "-ec"],
    "last",
)

scenario(
    "label-option",
    "--label appears and changes",
    COPIED,
    build(".MM", config={"Labels": None}),
    build(".HH", labels={"k": "1"}, config={"Labels": {"k": "1"}}),
    build(".HH", labels={"k": "2"}, config={"Labels": {"k": "2"}}),
    build(".HH", config={"Labels": None}),
    files=A,
    area="label",
)
scenario(
    "label-option-wins",
    "--label over a LABEL of the same name",
    "FROM base\nLABEL k=file other=x\nRUN echo a > /x\n",
    build("..M", labels={"k": "option"}, config={"Labels": {"k": "option", "other": "x"}}),
    build("..H", config={"Labels": {"k": "file", "other": "x"}}),
    area="label",
)
scenario(
    "label-added-removed",
    "LABEL lines come and go anywhere",
    COPIED,
    build(".MM"),
    build("..HH", op.replace("FROM base\n", "FROM base\nLABEL a=1\n")),
    build("..H.H", op.replace("RUN cat", "LABEL b=2\nRUN cat")),
    build(
        "..H.H.",
        op.replace("> /out\n", "> /out\nLABEL c=3\n"),
        config={"Labels": {"a": "1", "b": "2", "c": "3"}},
    ),
    files=A,
)
scenario(
    "tag-change",
    "another name for the image",
    COPIED,
    build(".MM", tag="one:1"),
    build(".HH", tag="two:2"),
    files=A,
)
scenario(
    "env-add-end",
    "ENV is added after all steps",
    COPIED,
    build(".MM"),
    build(".HH.", op.replace("> /out\n", "> /out\nENV X=1\n")),
    build(".HH.", op.replace("X=1", "X=2")),
    files=A,
)
scenario(
    "user-then-copy",
    "USER changes before a COPY only",
    "FROM base\nUSER app\nCOPY a.txt /a.txt\n",
    build("..M", holds={"/a.txt": {"type": "file", "uid": 0, "gid": 0}}),
    build("..H", op.replace("USER app", "USER other"), config={"User": "other"}),
    files=A,
)
scenario(
    "workdir-env",
    "WORKDIR by a variable against WORKDIR by its value",
    "FROM base\nENV D=/w\nWORKDIR $D\nRUN pwd > /x\n",
    build("..MM", holds={"/x": "/w\n"}),
    build("..HH", op.replace("WORKDIR $D", "WORKDIR /w")),
    build("..HH", op.replace("WORKDIR /w", "WORKDIR ${D}/")),
)
scenario(
    "workdir-change-back",
    "WORKDIR changes before RUN, and back",
    "FROM base\nWORKDIR /w\nRUN pwd > /x\n",
    build(".MM", holds={"/x": "/w\n", "/w": {"type": "dir", "mode": "0755", "uid": 0}}),
    build(".MM", op.replace("/w\n", "/v\n"), holds={"/x": "/v\n", "/w": None}),
    build(".HH", op.replace("/v\n", "/w\n")),
)
scenario(
    "workdir-last",
    "WORKDIR as the last instruction changes",
    "FROM base\nRUN echo a > /x\nWORKDIR /w\n",
    build(".MM", config={"WorkingDir": "/w"}),
    build(".HM", op.replace("/w", "/v"), config={"WorkingDir": "/v"}, holds={"/w": None}),
    build(".HH", op.replace("/v", "/w")),
)
scenario(
    "workdir-copy-absolute",
    "WORKDIR changes before a COPY with an absolute destination",
    "FROM base\nWORKDIR /w\nCOPY a.txt /a.txt\n",
    build(".MM"),
    build(".MM", op.replace("/w", "/v")),
    files=A,
)
scenario(
    "workdir-dots",
    "dots and slashes in WORKDIR are cleaned",
    "FROM base\nWORKDIR /a/b\nRUN pwd > /x\n",
    build(".MM"),
    build(".HH", op.replace("/a/b", "/a/./c/../b/")),
    build(".HH", op.replace("/a/./c/../b/", "a//b")),
)
scenario(
    "workdir-user",
    "the directory belongs to USER, and so it counts",
    "FROM base\nUSER app\nWORKDIR /w/x\nRUN touch y\n",
    build(
        "..MM",
        holds={
            "/w/x": {"type": "dir", "uid": 1000, "gid": 1000},
            "/w": {"type": "dir", "uid": 1000, "gid": 1000},
        },
    ),
    build(
        "..MM",
        op.replace("USER app", "USER other"),
        holds={"/w/x": {"type": "dir", "uid": 1001, "gid": 1001}},
    ),
)
scenario(
    "workdir-base-image",
    "WORKDIR comes from the base image",
    "FROM withdir\nCOPY a.txt .\nRUN pwd > /x\n",
    build(".MM", holds={"/x": "/from/base\n", "/from/base/a.txt": "alpha\n"}),
    build(".HH"),
    files=A,
    images={"withdir": {"dockerfile": "FROM base\nWORKDIR /from/base\n"}},
)
scenario(
    "workdir-file-in-the-way",
    "WORKDIR where a file is",
    "FROM base\nCOPY a.txt /w\nWORKDIR /w\n",
    failing(".MM", "not a directory"),
    files=A,
)
scenario(
    "workdir-symlink",
    "WORKDIR through a symlink of the image",
    "FROM base\nRUN mkdir /real && ln -s /real /l\nWORKDIR /l/d\nRUN touch f\n",
    build(".MMM", holds={"/real/d/f": "", "/real/d": {"type": "dir"}}),
    build(".HHH"),
)
scenario(
    "shell-default-explicit",
    "the default shell stated",
    "FROM base\nRUN echo hi > /x\n",
    build(".M"),
    build(
        "..H",
        op.replace("RUN", 'SHELL ["/bin/sh", "-c"]\nRUN'),
        config={"Shell": ["/bin/sh", "-c"]},
    ),
)
scenario(
    "shell-after-run",
    "SHELL after the last RUN",
    "FROM base\nRUN echo hi > /x\n",
    build(".M"),
    build(".H.", op.replace("> /x\n", '> /x\nSHELL ["/bin/ash", "-c"]\n')),
    build(
        ".H..", op.replace('"-c"]\n', '"-c"]\nCMD go\n'), config={"Cmd": ["/bin/ash", "-c", "go"]}
    ),
)
scenario(
    "shell-inherited",
    "a stage takes over the SHELL of the stage it is from",
    'FROM base AS one\nSHELL ["/bin/ash", "-ec"]\nFROM one\nRUN false; echo on > /x\n',
    failing("...M", "exit code: 1"),
    build("...M", op.replace("-ec", "-c"), holds={"/x": "on\n"}),
)
scenario(
    "shell-exec-equal",
    "a SHELL spelled out against the exec form",
    'FROM base\nSHELL ["/bin/ash", "-c"]\nRUN echo hi > /x\n',
    build("..M"),
    build(".H", op.dockerfile('FROM base\nRUN ["/bin/ash", "-c", "echo hi > /x"]\n')),
)
scenario(
    "entrypoint-keeps-own-cmd",
    "ENTRYPOINT after CMD of the same stage keeps it, that of the base goes",
    'FROM base\nENTRYPOINT ["e"]\n',
    build("..", config={"Cmd": None, "Entrypoint": ["e"]}),
    build(
        "...", op.replace("ENTRY", 'CMD ["c"]\nENTRY'), config={"Cmd": ["c"], "Entrypoint": ["e"]}
    ),
)
scenario(
    "entrypoint-stage-cmd",
    "CMD of the stage that it is from goes with ENTRYPOINT",
    'FROM base AS one\nCMD ["c"]\nFROM one\nENTRYPOINT ["e"]\n',
    build("....", config={"Cmd": None, "Entrypoint": ["e"]}),
)
scenario(
    "expose-forms",
    "ranges, protocols, variables, several words",
    "FROM base\nENV P=9000\nEXPOSE 80 81/udp 90-92/tcp $P\n",
    build(
        "...",
        config={
            "ExposedPorts": {
                "80/tcp": {},
                "81/udp": {},
                "90/tcp": {},
                "91/tcp": {},
                "92/tcp": {},
                "9000/tcp": {},
            }
        },
    ),
)
scenario(
    "volume-several",
    "several volumes, as words and as a list",
    "FROM base\nVOLUME /a /b\nRUN echo x > /x\n",
    build("..M", config={"Volumes": {"/a": {}, "/b": {}}}),
    build("..H", op.replace("/a /b", '["/b", "/a"]'), config={"Volumes": {"/a": {}, "/b": {}}}),
)
scenario(
    "from-scratch-label-salt",
    "a label on scratch changes: the file stays",
    "FROM scratch\nLABEL s=1\nCOPY a.txt /a.txt\n",
    build("..M"),
    build("..H", op.replace("s=1", "s=2"), config={"Labels": {"s": "2"}}),
    files={"a.txt": "alpha @SALT@\n"},
)
scenario(
    "copy-content-change",
    "the file changes, and changes back",
    COPIED,
    build(".MM", holds={"/out": "alpha\n"}),
    build(".MM", op.write("a.txt", "other\n"), holds={"/out": "other\n"}),
    build(".MM", op.write("a.txt", "third\n"), holds={"/out": "third\n"}),
    build(".HH", op.write("a.txt", "alpha\n"), holds={"/out": "alpha\n"}),
    files=A,
    area="copy",
)
scenario(
    "copy-missing-source",
    "the source goes, and comes back",
    "FROM base\nRUN echo a > /x\nCOPY m.txt /m\nRUN cat /m > /out\n",
    build(".MMM", holds={"/out": "here\n"}),
    failing(".HMS", "not found", op.delete("m.txt")),
    failing(".HMS", "not found"),
    build(".HHH", op.write("m.txt", "here\n"), holds={"/out": "here\n"}),
    files={"m.txt": "here\n"},
    area="copy",
)
scenario(
    "copy-missing-first",
    "the source is not there at first",
    "FROM base\nCOPY missing.txt /m\nRUN cat /m > /out\n",
    failing(".MS", "not found"),
    build(".MM", op.write("missing.txt", "here\n"), holds={"/out": "here\n"}),
    files=A,
    area="copy",
)

# -- 2.5: options of the build --------------------------------------------------------------

RUN = "FROM base\nRUN echo a > /x\n"
scenario(
    "run-network-option",
    "--network of the build",
    RUN,
    build(".M"),
    build(".M", network="none"),
    build(".H"),
    build(".H", network="none"),
    area="host-options",
)
scenario(
    "run-shm-size",
    "--shm-size of the build",
    RUN,
    build(".M"),
    build(".M", shm_size="128m"),
    build(".M", shm_size="64m"),
    build(".H", shm_size="128m"),
    area="host-options",
)
scenario(
    "run-shm-size-seen",
    "the command sees the size of /dev/shm",
    "FROM base\nRUN df -m /dev/shm | tail -n 1 | awk '{print $2}' > /x\n",
    build(".M", shm_size="32m", holds={"/x": "32\n"}),
    build(".M", shm_size="16m", holds={"/x": "16\n"}),
    area="host-options",
)
scenario(
    "run-ulimit-values",
    "--ulimit changes its value, and the command sees it",
    "FROM base\nRUN ulimit -n > /x\n",
    build(".M", ulimits=["nofile=1000:2000"], holds={"/x": "1000\n"}),
    build(".M", ulimits=["nofile=1001:2000"], holds={"/x": "1001\n"}),
    build(".H", ulimits=["nofile=1000:2000"]),
    area="host-options",
)
scenario(
    "run-add-host-other-name",
    "--add-host with other names",
    "FROM base\nRUN grep -c 10.0.0.9 /etc/hosts > /x; true\n",
    build(".M", holds={"/x": "0\n"}),
    build(".M", add_hosts=["one:10.0.0.9"], holds={"/x": "1\n"}),
    build(".M", add_hosts=["two:10.0.0.9"]),
    build(".M", add_hosts=["one:10.0.0.9", "two:10.0.0.9"], holds={"/x": "2\n"}),
    build(".H"),
    area="host-options",
)
scenario(
    "run-options-copy-only",
    "options of commands do not touch COPY and WORKDIR",
    "FROM base\nWORKDIR /w\nCOPY a.txt .\n",
    build(".MM"),
    build(".HH", network="none", shm_size="64m", ulimits=["nofile=1024:1024"]),
    build(".HH", add_hosts=["h:10.0.0.1"]),
    files=A,
    area="host-options",
)
scenario(
    "run-network-none-works",
    "a command without network",
    "FROM base\nRUN --network=none ls /sys/class/net | sort | tr '\\n' ' ' > /x\n",
    build(".M", holds={"/x": "lo "}),
    build(".H"),
    area="network",
)
scenario(
    "run-network-host",
    "RUN --network=host against the option of the build",
    RUN,
    build(".M", network="none"),
    build(".H", op.replace("RUN echo", "RUN --network=none echo")),
    area="network",
)
scenario(
    "run-network-unknown",
    "a network mode that is none",
    "FROM base\nRUN --network=bridge echo a\n",
    refused("invalid network mode"),
    area="network",
)
scenario(
    "run-flag-unknown",
    "a flag that RUN does not have",
    "FROM base\nRUN --nothing=1 echo a\n",
    refused("unknown flag"),
    area="run",
)
scenario(
    "run-user-scratch",
    "a numeric user without any account",
    "FROM base\nRUN chmod 777 /tmp && rm -f /etc/passwd /etc/group\nUSER 1234:55\n"
    "RUN echo $(id -u) $(id -g) > /tmp/x\n",
    build(
        ".M.M", holds={"/tmp/x": {"type": "file", "content": "1234 55\n", "uid": 1234, "gid": 55}}
    ),
    build(".H.H"),
    area="user",
)
scenario(
    "user-group",
    "USER with a group",
    "FROM base\nUSER app:other\nRUN echo $(id -un) $(id -gn) > /tmp/x\n",
    build("..M", holds={"/tmp/x": "app other\n"}),
    build("..M", op.replace("app:other", "app"), holds={"/tmp/x": "app app\n"}),
    build("..M", op.replace("USER app", "USER 1000:1001"), holds={"/tmp/x": "app other\n"}),
)
scenario(
    "user-unknown",
    "a user that the image does not know",
    "FROM base\nUSER nobody-here\nRUN echo a > /tmp/x\n",
    failing("..M", "unable to find user"),
    failing("..M", "unable to find user"),
)
scenario(
    "user-unused",
    "a user that the image does not know, and no command",
    "FROM base\nUSER nobody-here\nCOPY a.txt /a.txt\n",
    build("..M", config={"User": "nobody-here"}),
    build("..H"),
    files=A,
)
scenario(
    "user-env",
    "USER by a variable",
    "FROM base\nENV U=app\nUSER $U\nRUN id -un > /tmp/x\n",
    build("...M", holds={"/tmp/x": "app\n"}),
    build("...H", op.replace("USER $U", "USER ${U}")),
    build("...M", op.replace("U=app", "U=other"), holds={"/tmp/x": "other\n"}),
)
scenario(
    "user-root-explicit",
    "USER root stated",
    "FROM base\nRUN id -u > /x\n",
    build(".M", holds={"/x": "0\n"}),
    build("..M", op.replace("RUN", "USER root\nRUN"), holds={"/x": "0\n"}),
)
scenario(
    "user-switch-back",
    "USER app, then USER root again",
    "FROM base\nUSER app\nRUN id -u > /tmp/a\nUSER root\nRUN id -u > /b\n",
    build("..M.M", holds={"/tmp/a": "1000\n", "/b": "0\n"}),
    build("..H.M", op.replace("USER root", "USER 0"), holds={"/b": "0\n"}),
)
scenario(
    "user-home",
    "HOME follows the user unless it is set",
    "FROM base\nRUN echo $HOME > /tmp/a\nUSER app\nRUN echo $HOME > /tmp/b\n",
    build(".M.M", holds={"/tmp/a": "/root\n"}),
    build(".H.H"),
)
