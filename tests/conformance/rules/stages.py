"""Sections 6, 8 and 13: several stages, ONBUILD, named contexts, no-cache, transport."""

from __future__ import annotations

from tests.conformance.deriving import build, failing, op, refused, scenario

FILES = {"src.txt": "hello\n", "conf.txt": "conf\n"}
TWO = (
    "FROM base AS build\nCOPY src.txt /src.txt\nRUN tr a-z A-Z < /src.txt > /out.txt\n"
    "FROM base\nCOPY conf.txt /conf.txt\nCOPY --from=build /out.txt /out.txt\n"
    "RUN cat /conf.txt /out.txt > /final\n"
)
UPPER = op.write("src.txt", "HELLO\n")  # the output of the stage stays

# -- early cutoff ---------------------------------------------------------------------------

scenario(
    "ms-chain-three",
    "through three stages: the middle one reruns, the last does not",
    "FROM base AS a\nCOPY src.txt /s\nRUN tr a-z A-Z < /s > /o\n"
    "FROM base AS b\nCOPY --from=a /o /o\nRUN wc -c < /o > /n\n"
    "FROM base\nCOPY --from=b /n /n\nRUN cat /n > /final\n",
    build(".MM.MM.MM", holds={"/final": "6\n"}),
    build(".MM.HH.HH", UPPER),
    build(".MM.MM.HH", op.write("src.txt", "world\n"), holds={"/final": "6\n"}),
    build(".MM.MM.MM", op.write("src.txt", "longer\n"), holds={"/final": "7\n"}),
    files=FILES,
)
scenario(
    "ms-diamond-cutoff",
    "two stages of one output, joined",
    "FROM base AS a\nCOPY src.txt /s\nRUN tr a-z A-Z < /s > /o\n"
    "FROM base AS l\nCOPY --from=a /o /l\nRUN cp /l /l2\n"
    "FROM base AS r\nCOPY --from=a /o /r\nRUN cp /r /r2\n"
    "FROM base\nCOPY --from=l /l2 /\nCOPY --from=r /r2 /\nRUN cat /l2 /r2 > /final\n",
    build(".MM.MM.MM.MMM", holds={"/final": "HELLO\nHELLO\n"}),
    build(".MM.HH.HH.HHH", UPPER),
    build(".MM.MM.MM.MMM", op.write("src.txt", "x\n"), holds={"/final": "X\nX\n"}),
    files=FILES,
)
scenario(
    "ms-base-stage-shared",
    "two stages from one; it reruns with an equal output",
    "FROM base AS common\nCOPY src.txt /s\nRUN tr a-z A-Z < /s > /o && rm /s\n"
    "FROM common AS x\nRUN cp /o /x\nFROM base\nCOPY --from=x /x /x\nCOPY --from=common /o /o\n",
    build(".MM.M.MM", holds={"/x": "HELLO\n", "/o": "HELLO\n"}),
    build(".MM.M.HH", UPPER),
    build(".MM.M.MM", op.write("src.txt", "x\n"), holds={"/x": "X\n"}),
    files=FILES,
)
scenario(
    "ms-stage-uses-arg",
    "an argument of the stage that changes nothing of its output",
    "FROM base AS build\nARG V=1\nRUN echo fixed > /o\nFROM base\nCOPY --from=build /o /o\n"
    "RUN cat /o > /final\n",
    build("..M.MM"),
    build("..M.HH", args={"V": "2"}),
    build("..H.HH"),
)
scenario(
    "ms-early-cutoff-mode",
    "the stage's output gets another mode",
    "FROM base AS build\nRUN echo x > /o && chmod 644 /o\nFROM base\nCOPY --from=build /o /o\n"
    "RUN ls -l /o > /final\n",
    build(".M.MM"),
    build(".M.MM", op.replace("644", "600"), holds={"/o": {"type": "file", "mode": "0600"}}),
    build(".M.HH", op.replace("chmod 600", "chmod 0600")),
)
scenario(
    "ms-early-cutoff-owner",
    "the stage's output gets another owner",
    "FROM base AS build\nRUN echo x > /o && chown 1:1 /o\nFROM base\nCOPY --from=build /o /o\n"
    "RUN ls -ln /o > /final\n",
    build(".M.MM", holds={"/o": {"type": "file", "uid": 1, "gid": 1}}),
    build(
        ".M.MM",
        op.replace("1:1", "1000:1000"),
        holds={"/o": {"type": "file", "uid": 1000, "gid": 1000}},
    ),
)
scenario(
    "ms-early-cutoff-mtime",
    "the stage's output gets another time",
    "FROM base AS build\nRUN echo x > /o && touch -d '2020-01-01 00:00:00' /o\nFROM base\n"
    "COPY --from=build /o /o\nRUN cat /o > /final\n",
    build(".M.MM"),
    build(".M.HH", op.replace("2020", "2021")),
)
scenario(
    "ms-early-cutoff-dir",
    "COPY --from of a directory: what else the stage makes does not count",
    "FROM base AS build\nCOPY src.txt /s\nRUN mkdir /o && echo 1 > /o/a && cp /s /elsewhere\n"
    "FROM base\nCOPY --from=build /o /o\nRUN find /o > /final\n",
    build(".MM.MM"),
    build(".MM.HH", op.write("src.txt", "x\n")),
    build(".HM.MM", op.replace("> /o/a", "> /o/b"), holds={"/o/b": "1\n", "/o/a": None}),
    files=FILES,
)
scenario(
    "ms-early-cutoff-empty-dir",
    "an empty directory in the copied directory of a stage",
    "FROM base AS build\nRUN mkdir /o && echo 1 > /o/a\nFROM base\nCOPY --from=build /o /o\n"
    "RUN find /o > /final\n",
    build(".M.MM"),
    build(".M.MM", op.replace("mkdir /o ", "mkdir -p /o/e "), holds={"/o/e": {"type": "dir"}}),
)
scenario(
    "ms-early-cutoff-symlink-text",
    "a link within the copied directory of a stage",
    "FROM base AS build\nRUN mkdir /o && ln -s a /o/l\nFROM base\nCOPY --from=build /o /o\n"
    "RUN find /o > /final\n",
    build(".M.MM"),
    build(
        ".M.MM",
        op.replace("ln -s a", "ln -s b"),
        holds={"/o/l": {"type": "symlink", "target": "b"}},
    ),
    build(".H.HH", op.replace("ln -s b", "ln -s a")),
)
scenario(
    "ms-copy-from-src-rename",
    "the source in the stage gets another name, the destination stays",
    "FROM base AS build\nRUN echo x > /a\nFROM base\nCOPY --from=build /a /o\n"
    "RUN cat /o > /final\n",
    build(".M.MM"),
    build(
        ".M.MM", op.replace("> /a", "> /b"), op.replace("build /a", "build /b"), holds={"/o": "x\n"}
    ),
)
scenario(
    "ms-copy-from-missing",
    "COPY --from of what the stage does not have",
    "FROM base AS build\nRUN echo x > /a\nFROM base\nCOPY --from=build /b /o\n",
    failing(".M.M", "not found"),
    build(".H.M", op.replace("/b /o", "/a /o"), holds={"/o": "x\n"}),
)
scenario(
    "ms-copy-from-root",
    "COPY --from of everything",
    "FROM scratch AS build\nCOPY src.txt conf.txt /\nFROM base\nCOPY --from=build / /all\n"
    "RUN ls /all > /final\n",
    build(".M.MM", holds={"/final": "conf.txt\nsrc.txt\n"}),
    build(".M.MM", op.write("src.txt", "x\n")),
    build(".H.HH"),
    files=FILES,
)
scenario(
    "ms-copy-from-relative",
    "sources in a stage are relative to its root, not to its WORKDIR",
    "FROM base AS build\nWORKDIR /w\nRUN echo x > a && echo y > /a\nFROM base\n"
    "COPY --from=build a /o\nRUN cat /o > /final\n",
    build(".MM.MM", holds={"/o": "y\n"}),
    build(".HM.HH", op.replace("echo x", "echo z")),
    build(".HH.HH", op.replace("build a /o", "build /a /o")),
)
scenario(
    "ms-copy-from-many",
    "several sources of a stage; one changes",
    "FROM base AS build\nCOPY src.txt conf.txt /in/\nFROM base\n"
    "COPY --from=build /in/src.txt /in/conf.txt /t/\nRUN cat /t/* > /final\n",
    build(".M.MM"),
    build(".M.MM", op.write("conf.txt", "x\n"), holds={"/final": "x\nhello\n"}),
    build(".H.HH"),
    files=FILES,
)
scenario(
    "ms-from-stage-flattened",
    "a chain of stages against one flat stage",
    "FROM base AS a\nRUN echo 1 > /one\nFROM a AS b\nRUN echo 2 > /two\nFROM b\n"
    "RUN echo 3 > /three\n",
    build(".M.M.M"),
    build(
        ".HHH",
        op.dockerfile("FROM base\nRUN echo 1 > /one\nRUN echo 2 > /two\nRUN echo 3 > /three\n"),
    ),
)
scenario(
    "ms-from-stage-arg-env",
    "a chain of stages hands ENV, USER, WORKDIR and SHELL on",
    'FROM base AS a\nENV X=1\nUSER app\nWORKDIR /w\nSHELL ["/bin/ash", "-c"]\nFROM a\n'
    "RUN echo $X $(id -un) $(pwd) > f\n",
    build(
        "...M..M",
        holds={"/w/f": "1 app /w\n"},
        config={"User": "app", "WorkingDir": "/w", "Shell": ["/bin/ash", "-c"]},
    ),
    build("...H..M", op.replace("X=1", "X=2"), holds={"/w/f": "2 app /w\n"}),
)
scenario(
    "ms-number-shift",
    "--from by number follows the order of stages",
    "FROM base\nRUN echo 0 > /x\nFROM base\nRUN echo 1 > /x\nFROM base\nCOPY --from=1 /x /x\n"
    "RUN cat /x > /final\n",
    build(".S.M.MM", holds={"/final": "1\n"}),
    build(".M.S.MM", op.replace("--from=1", "--from=0"), holds={"/final": "0\n"}),
    build(".S.H.HH", op.replace("--from=0", "--from=1"), holds={"/final": "1\n"}),
)
scenario(
    "ms-number-invalid",
    "--from by a number that is none",
    "FROM base\nCOPY --from=5 /x /x\n",
    refused("invalid stage index 5"),
    files=FILES,
)
scenario(
    "ms-from-later",
    "--from names a later stage",
    "FROM base AS one\nCOPY --from=two /x /x\nFROM base AS two\nRUN echo a > /x\n",
    build(".S.M"),
    refused("it needs to be defined before current stage", target="one"),
)
scenario(
    "ms-from-itself",
    "--from names its own stage",
    "FROM base AS one\nCOPY --from=one /x /x\n",
    refused("circular dependency detected on stage: one"),
)
scenario(
    "ms-pick-by-name",
    "the name in --from picks the stage",
    "FROM base AS x\nRUN echo 1 > /f\nFROM base AS y\nRUN echo 2 > /f\nFROM base\n"
    "COPY --from=y /f /f\n",
    build(".S.M.M", holds={"/f": "2\n"}),
    build(".M.S.M", op.replace("--from=y", "--from=x"), holds={"/f": "1\n"}),
)
scenario(
    "ms-parallel-failure",
    "one of two stages fails; the other one stays",
    "FROM base AS p\nRUN echo p > /p\nFROM base AS q\nCOPY --from=p /p /p\nRUN exit 7\nFROM base\n"
    "COPY --from=q /p /q\n",
    failing(".M.MM.S", "exit code: 7"),
    failing(".H.HM.S", "exit code: 7"),
    build(".H.HM.M", op.replace("exit 7", "true")),
)

# -- targets and what nothing needs ---------------------------------------------------------

scenario(
    "ms-target",
    "a stage in the middle as target, then the whole",
    TWO,
    build(".MM.SSS", target="build", holds={"/out.txt": "HELLO\n"}),
    build(".HH.MMM"),
    build(".HH.SSS", target="build"),
    files=FILES,
)
scenario(
    "ms-target-case",
    "letter case of a target",
    TWO,
    build(".MM.SSS", target="build"),
    build(".HH.SSS", target="BUILD"),
    files=FILES,
)
scenario(
    "ms-target-index",
    "a target by number",
    TWO,
    refused('target stage "0" could not be found', target="0"),
    files=FILES,
)
scenario(
    "ms-target-unknown",
    "a target that is none",
    TWO,
    refused('target stage "nothing" could not be found', target="nothing"),
    files=FILES,
)
scenario(
    "ms-target-config",
    "the configuration is that of the target",
    'FROM base AS one\nCMD ["one"]\nLABEL l=one\nFROM one AS two\nCMD ["two"]\nRUN echo a > /x\n',
    build(".....S", target="one", config={"Cmd": ["one"], "Labels": {"l": "one"}}),
    build(".....M", config={"Cmd": ["two"], "Labels": {"l": "one"}}),
)
scenario(
    "ms-unused-copy-missing",
    "an unused stage that copies what is not there",
    "FROM base AS unused\nCOPY nothing /x\nFROM base\nCOPY conf.txt /conf.txt\n",
    build(".S.M"),
    build(".S.H"),
    files=FILES,
)
scenario(
    "ms-unused-becomes-used",
    "an unused stage is used from now on",
    "FROM base AS a\nRUN echo a > /a\nFROM base\nCOPY conf.txt /conf.txt\n",
    build(".S.M"),
    build(".M.HM", op.replace("/conf.txt\n", "/conf.txt\nCOPY --from=a /a /a\n")),
    files=FILES,
)
scenario(
    "ms-unused-reuse",
    "a stage that goes unused and is used again",
    TWO,
    build(".MM.MMM"),
    build(
        ".SS.HM",
        op.replace("COPY --from=build /out.txt /out.txt\n", ""),
        op.replace("/conf.txt /out.txt >", "/conf.txt >"),
    ),
    build(".HH.HHH", op.dockerfile(TWO)),
    files=FILES,
)
scenario(
    "ms-from-arg-stage",
    "an argument picks which stages are needed",
    "ARG KIND=dev\nFROM base AS dev\nRUN echo dev > /k\nFROM base AS prod\nRUN echo prod > /k\n"
    "FROM ${KIND}\nRUN cat /k > /final\n",
    build("..M.S.M", holds={"/final": "dev\n"}),
    build("..S.M.M", args={"KIND": "prod"}, holds={"/final": "prod\n"}),
    build("..H.S.H"),
)
scenario(
    "ms-rename-and-case",
    "a stage gets another name in another case",
    TWO,
    build(".MM.MMM"),
    build(".HH.HHH", op.replace("AS build", "AS Other"), op.replace("=build", "=OTHER")),
    files=FILES,
)
scenario(
    "ms-stage-name-invalid",
    "a name that a stage can't have",
    "FROM base AS 1st\nRUN echo a\n",
    refused("invalid name for build stage"),
)
scenario(
    "ms-many-stages",
    "twelve stages in a chain; the first changes without effect",
    "FROM base AS s0\nCOPY src.txt /s\nRUN tr a-z A-Z < /s > /o\n"
    + "".join(
        f"FROM base AS s{i}\nCOPY --from=s{i - 1} /o /o\nRUN echo {i} >> /o\n" for i in range(1, 12)
    ),
    build(".MM" * 12),
    build(".MM" + ".HH" * 11, UPPER),
    files=FILES,
)

# -- images and named contexts --------------------------------------------------------------

IMG = {"img": {"dockerfile": "FROM base\nRUN echo 1 > /f && echo 2 > /g\n"}}
scenario(
    "ms-copy-from-image",
    "COPY --from of an image: only the copied file counts",
    "FROM base\nCOPY --from=img /f /f\nRUN cat /f > /final\n",
    build(".MM", holds={"/final": "1\n"}),
    build(".HH"),
    build(".HH", op.image("img", "FROM base\nRUN echo 1 > /f && echo 3 > /g\n")),
    build(
        ".MM",
        op.image("img", "FROM base\nRUN echo 9 > /f && echo 3 > /g\n"),
        holds={"/final": "9\n"},
    ),
    images=IMG,
)
scenario(
    "ms-copy-from-image-dir",
    "COPY --from of a directory of an image",
    "FROM base\nCOPY --from=img /d /d\nRUN find /d > /final\n",
    build(".MM"),
    build(".MM", op.image("img", "FROM base\nRUN mkdir -p /d/e && echo 1 > /d/a\n")),
    images={"img": {"dockerfile": "FROM base\nRUN mkdir -p /d && echo 1 > /d/a\n"}},
)
scenario(
    "named-context-from",
    "FROM a named context",
    "FROM tree AS t\nFROM base\nCOPY --from=t /e.txt /e.txt\nRUN cat /e.txt > /out\n",
    build("..MM", contexts={"tree": "ex"}, holds={"/out": "one\n"}),
    build("..HH", contexts={"tree": "ex"}),
    build("..HH", op.write("f.txt", "f\n", context="ex"), contexts={"tree": "ex"}),
    build(
        "..MM",
        op.write("e.txt", "two\n", context="ex"),
        contexts={"tree": "ex"},
        holds={"/out": "two\n"},
    ),
    contexts={"ex": {"files": {"e.txt": "one\n"}}},
)
scenario(
    "named-context-instead-of-image",
    "a named context replaces an image",
    "FROM base\nCOPY --from=img /f /f\nRUN cat /f > /out\n",
    build(".MM", holds={"/out": "1\n"}),
    build(".HH", contexts={"img": "ex"}, holds={"/out": "1\n"}),
    build(".MM", op.write("f", "2\n", context="ex"), contexts={"img": "ex"}, holds={"/out": "2\n"}),
    images=IMG,
    contexts={"ex": {"files": {"f": "1\n"}}},
)
scenario(
    "named-context-mount",
    "a mount from a named context",
    "FROM base\nRUN --mount=from=extra,target=/m cat /m/e.txt > /out\n",
    build(".M", contexts={"extra": "ex"}, holds={"/out": "one\n"}),
    build(".H", op.of("touch", "e.txt", context="ex"), contexts={"extra": "ex"}),
    build(
        ".M",
        op.write("e.txt", "two\n", context="ex"),
        contexts={"extra": "ex"},
        holds={"/out": "two\n"},
    ),
    contexts={"ex": {"files": {"e.txt": "one\n"}}},
)
scenario(
    "named-context-ignore",
    "a named context has an ignore file of its own",
    "FROM base\nCOPY --from=extra . /e\nRUN ls -A /e > /out\n",
    build(".MM", contexts={"extra": "ex"}, holds={"/out": ".dockerignore\na\n"}),
    build(".HH", op.write("b", "2\n", context="ex"), contexts={"extra": "ex"}),
    build(".MM", op.write("a", "2\n", context="ex"), contexts={"extra": "ex"}),
    contexts={"ex": {"files": {"a": "1\n", "b": "1\n", ".dockerignore": "b\n"}}},
)
scenario(
    "named-context-two",
    "two named contexts trade places",
    "FROM base\nCOPY --from=one e.txt /one\nCOPY --from=two e.txt /two\n",
    build(".MM", contexts={"one": "x", "two": "y"}, holds={"/one": "x\n", "/two": "y\n"}),
    build(".MM", contexts={"one": "y", "two": "x"}, holds={"/one": "y\n", "/two": "x\n"}),
    build(".HH", contexts={"one": "x", "two": "y"}),
    contexts={"x": {"files": {"e.txt": "x\n"}}, "y": {"files": {"e.txt": "y\n"}}},
)
scenario(
    "named-context-unused",
    "a named context that nothing uses",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".H", contexts={"extra": "ex"}),
    contexts={"ex": {"files": {"e.txt": "x\n"}}},
)

# -- ONBUILD --------------------------------------------------------------------------------

scenario(
    "onbuild-trigger-run",
    "a trigger that runs a command",
    "FROM trig\nRUN cat /b > /x\n",
    build(".(M)M", holds={"/x": "b\n"}, config={"OnBuild": None}),
    build(".(H)H"),
    images={"trig": {"dockerfile": "FROM base\nONBUILD RUN echo b > /b\n"}},
)
scenario(
    "onbuild-trigger-order",
    "triggers run in order, before the stage's own steps",
    "FROM trig\nRUN echo 3 >> /o\n",
    build(".(MM)M", holds={"/o": "1\n2\n3\n"}),
    build(
        ".(HM)M",
        op.image("trig", "FROM base\nONBUILD RUN echo 1 >> /o\nONBUILD RUN echo 22 >> /o\n"),
        holds={"/o": "1\n22\n3\n"},
    ),
    images={
        "trig": {"dockerfile": "FROM base\nONBUILD RUN echo 1 >> /o\nONBUILD RUN echo 2 >> /o\n"}
    },
)
scenario(
    "onbuild-trigger-equal-instruction",
    "a trigger against the same instruction in the stage",
    "FROM trig\nRUN echo 2 > /two\n",
    build(".(M)M"),
    build(".HH", op.dockerfile("FROM base\nRUN echo 1 > /one\nRUN echo 2 > /two\n")),
    images={"trig": {"dockerfile": "FROM base\nONBUILD RUN echo 1 > /one\n"}},
)
scenario(
    "onbuild-trigger-env-arg",
    "triggers of ENV, ARG, USER and WORKDIR",
    "FROM trig\nRUN echo $E $A $(id -un) $(pwd) > f\n",
    build(".(...M)M", holds={"/w/f": "e 1 app /w\n"}, config={"User": "app", "WorkingDir": "/w"}),
    build(".(...H)M", args={"A": "2"}, holds={"/w/f": "e 2 app /w\n"}),
    images={
        "trig": {
            "dockerfile": "FROM base\nONBUILD ENV E=e\nONBUILD ARG A=1\nONBUILD USER app\n"
            "ONBUILD WORKDIR /w\n"
        }
    },
)
scenario(
    "onbuild-trigger-stage",
    "triggers of a stage fire in the stage that is made from it",
    "FROM base AS one\nONBUILD RUN echo t > /t\nRUN echo 1 > /one\nFROM one\nRUN ls /t > /x\n",
    build("..M.(M)M", holds={"/x": "/t\n"}),
    build("..H.(M)M", op.replace("echo t >", "echo T >"), holds={"/t": "T\n"}),
)
scenario(
    "onbuild-trigger-not-grandchild",
    "triggers do not fire twice",
    "FROM base AS one\nONBUILD RUN echo t >> /t\nFROM one AS two\nFROM two\nRUN wc -l < /t > /x\n",
    build("...(M).M", holds={"/x": "1\n"}),
    build("...(H).H"),
)
scenario(
    "onbuild-trigger-copy-from",
    "a trigger of an image that copies from a stage of this file",
    "FROM base AS build\nCOPY src.txt /out\nFROM trig\nRUN cat /got > /x\n",
    build(".M.(M)M", holds={"/x": "hello\n"}),
    build(".H.(H)H"),
    build(".M.(M)M", op.write("src.txt", "new\n"), holds={"/x": "new\n"}),
    files=FILES,
    images={"trig": {"dockerfile": "FROM base\nONBUILD COPY --from=build /out /got\n"}},
)
scenario(
    "onbuild-trigger-metadata",
    "a trigger that changes the configuration only",
    "FROM trig\nRUN echo a > /x\n",
    build(".(.)M", config={"Labels": {"l": "1"}}),
    build(
        ".(.)H", op.image("trig", "FROM base\nONBUILD LABEL l=2\n"), config={"Labels": {"l": "2"}}
    ),
    images={"trig": {"dockerfile": "FROM base\nONBUILD LABEL l=1\n"}},
)
scenario(
    "onbuild-unused",
    "ONBUILD of a stage that nothing is made from",
    "FROM base AS one\nRUN echo a > /a\nONBUILD RUN exit 1\nFROM base\nCOPY --from=one /a /a\n",
    build(".M..M"),
    build(".H..H", op.replace("exit 1", "exit 2")),
)
scenario(
    "onbuild-forbidden",
    "ONBUILD of what can't be a trigger",
    "FROM base\nONBUILD FROM base\n",
    refused("FROM isn't allowed as an ONBUILD trigger"),
    refused(
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        op.replace("ONBUILD FROM base", "ONBUILD ONBUILD RUN a"),
    ),
)
scenario(
    "onbuild-inherited-config",
    "triggers of the base do not stay in the image",
    "FROM trig\nONBUILD RUN echo mine\n",
    build(".(M).", config={"OnBuild": ["RUN echo mine"]}),
    images={"trig": {"dockerfile": "FROM base\nONBUILD RUN echo b > /b\n"}},
)

# -- 8: no-cache ----------------------------------------------------------------------------

RANDOM = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /u\nRUN cp /u /v\n"
scenario(
    "nocache-then-plain",
    "--no-cache replaces what was there",
    RANDOM,
    build(".MM"),
    build(".MM", no_cache=True),
    build(".HH"),
    build(".HH"),
)
scenario(
    "nocache-twice",
    "--no-cache twice, then plain",
    RANDOM,
    build(".MM", no_cache=True),
    build(".MM", no_cache=True),
    build(".HH"),
)
scenario(
    "nocache-copy",
    "--no-cache and COPY, WORKDIR",
    "FROM base\nWORKDIR /w\nCOPY conf.txt .\nRUN cat conf.txt > out\n",
    build(".MMM"),
    build(".MMM", no_cache=True),
    build(".HHH"),
    files=FILES,
)
scenario(
    "nocache-deterministic",
    "--no-cache with an equal result, then a change at the end",
    "FROM base\nRUN echo a > /a\nCOPY conf.txt /c\n",
    build(".MM"),
    build(".MM", no_cache=True),
    build(".HM", op.write("conf.txt", "x\n")),
    files=FILES,
)
scenario(
    "nocache-failing",
    "--no-cache that fails leaves what was there",
    "FROM base\nRUN echo a > /a\nRUN echo b > /b\n",
    build(".MM"),
    failing(".MM", "exit code: 1", op.replace("echo b", "exit 1; echo b"), no_cache=True),
    build(".HH", op.replace("exit 1; ", "")),
)
scenario(
    "nocache-filter-child",
    "a filtered stage does not rerun the one that it is from",
    "FROM base AS one\nRUN echo 1 > /one\nFROM one AS two\nRUN echo 2 > /two\n",
    build(".M.M"),
    build(".H.M", no_cache_filter=["two"]),
    build(".H.H"),
)
scenario(
    "nocache-filter-parent",
    "a stage that is made from a filtered one reruns, too",
    "FROM base AS one\nRUN echo 1 > /one\nFROM one AS two\nRUN echo 2 > /two\n",
    build(".M.M"),
    build(".M.M", no_cache_filter=["one"]),
    build(".H.H"),
)
scenario(
    "nocache-filter-case",
    "letter case of a filtered name",
    TWO,
    build(".MM.MMM"),
    build(".MM.HHH", no_cache_filter=["Build"]),
    build(".HH.HHH", no_cache_filter=["builds"]),
    files=FILES,
)
scenario(
    "nocache-filter-unused",
    "a filtered stage that is not needed",
    "FROM base AS one\nRUN echo 1 > /one\nFROM base AS two\nRUN echo 2 > /two\n",
    build(".S.M"),
    build(".S.H", no_cache_filter=["one"]),
)
scenario(
    "nocache-filter-output-changes",
    "a filtered stage yields other bytes: all that reads them runs",
    "FROM base AS build\nRUN cat /proc/sys/kernel/random/uuid > /u\nFROM base\n"
    "COPY --from=build /u /u\nRUN cp /u /v\n",
    build(".M.MM"),
    build(".M.MM", no_cache_filter=["build"]),
    build(".H.HH"),
)

# -- 13: transport --------------------------------------------------------------------------

scenario(
    "cache-export-min",
    "mode=min, pruned: an unchanged build",
    TWO,
    build(".MM.MMM", cache_to=[{"name": "c"}]),
    build(".HH.HHH", {"op": "prune"}, cache_from=[{"name": "c"}]),
    files=FILES,
)
scenario(
    "cache-export-max",
    "mode=max, pruned: a change in the final stage",
    TWO,
    build(".MM.MMM", cache_to=[{"name": "c", "mode": "max"}]),
    build(
        ".HH.MMM",
        {"op": "prune"},
        op.write("conf.txt", "x\n"),
        cache_from=[{"name": "c"}],
        holds={"/final": "x\nHELLO\n"},
    ),
    files=FILES,
)
scenario(
    "cache-import-nothing",
    "an import from a place where nothing is",
    "FROM base\nRUN echo a > /x\n",
    build(".M", cache_from=[{"name": "none"}]),
    build(".H", cache_from=[{"name": "none"}]),
)
scenario(
    "cache-prune-all",
    "pruned: everything runs",
    TWO,
    build(".MM.MMM"),
    build(".MM.MMM", {"op": "prune"}),
    build(".HH.HHH"),
    files=FILES,
)
scenario(
    "cache-export-random",
    "what was exported is what is imported, also random output",
    RANDOM,
    build(".MM", cache_to=[{"name": "c", "mode": "max"}]),
    build(".HH", {"op": "prune"}, cache_from=[{"name": "c"}]),
)
