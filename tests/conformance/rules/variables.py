"""Section 3: ENV and ARG, wherever they reach."""

from __future__ import annotations

from tests.conformance.deriving import build, op, refused, scenario

A = {"a.txt": "alpha\n"}
SAME = {"a.txt": "same\n", "b.txt": "same\n", "c.txt": "other\n"}

# -- what of ARG counts ---------------------------------------------------------------------

scenario(
    "arg-used",
    "a declared argument that the command uses",
    "FROM base\nARG V=1\nRUN echo $V > /x\n",
    build("..M", holds={"/x": "1\n"}),
    build("..M", args={"V": "2"}, holds={"/x": "2\n"}),
    build("..H", holds={"/x": "1\n"}),
    build("..H", args={"V": "2"}, holds={"/x": "2\n"}),
)
scenario(
    "arg-exec-form",
    "a declared argument and the exec form",
    'FROM base\nARG V=1\nRUN ["/bin/touch", "/x"]\n',
    build("..M"),
    build("..M", args={"V": "2"}),
    build("..H", args={"V": "1"}),
)
scenario(
    "arg-declared-after",
    "declared between two commands",
    "FROM base\nRUN echo a > /a\nARG V=1\nRUN echo b > /b\n",
    build(".M.M"),
    build(".H.M", args={"V": "2"}),
    build(".H.H", args={"V": "2"}),
)
scenario(
    "arg-declared-last",
    "declared after all commands",
    "FROM base\nCOPY a.txt /a.txt\nRUN echo a > /a\nARG V=1\n",
    build(".MM."),
    build(".HH.", args={"V": "2"}),
    build(".HH", op.replace("ARG V=1\n", "")),
    files=A,
)
scenario(
    "arg-default-change",
    "the default changes",
    "FROM base\nARG V=1\nRUN echo $V > /x\n",
    build("..M"),
    build("..M", op.replace("V=1", "V=2"), holds={"/x": "2\n"}),
    build("..H", op.replace("V=2", "V=1"), holds={"/x": "1\n"}),
)
scenario(
    "arg-default-change-overridden",
    "the default changes under a passed value",
    "FROM base\nARG V=1\nRUN echo $V > /x\n",
    build("..M", args={"V": "9"}, holds={"/x": "9\n"}),
    build("..H", op.replace("V=1", "V=2"), args={"V": "9"}, holds={"/x": "9\n"}),
)
scenario(
    "arg-no-default",
    "unset, empty and set",
    "FROM base\nARG V\nRUN echo ${V-unset} > /x\n",
    build("..M", holds={"/x": "unset\n"}),
    build("..M", args={"V": ""}, holds={"/x": "\n"}),
    build("..M", args={"V": "1"}, holds={"/x": "1\n"}),
    build("..H", holds={"/x": "unset\n"}),
    build("..H", args={"V": ""}, holds={"/x": "\n"}),
)
scenario(
    "arg-empty-default",
    "an empty default against none",
    "FROM base\nARG V=\nRUN echo ${V-unset} > /x\n",
    build("..M", holds={"/x": "\n"}),
    build("..M", op.replace("ARG V=\n", "ARG V\n"), holds={"/x": "unset\n"}),
    build("..H", args={"V": ""}, holds={"/x": "\n"}),
)
scenario(
    "arg-order-declared",
    "two declarations trade places",
    "FROM base\nARG V=1\nARG W=2\nRUN echo a > /x\n",
    build("...M"),
    build("...M", op.replace("ARG V=1\nARG W=2", "ARG W=2\nARG V=1")),
)
scenario(
    "arg-order-passed",
    "the order in which arguments are passed",
    "FROM base\nARG V=1\nARG W=2\nRUN echo a > /x\n",
    build("...M", args={"V": "3", "W": "4"}),
    build("...H", args={"W": "4", "V": "3"}),
)
scenario(
    "arg-multiple-on-line",
    "several arguments on one line",
    "FROM base\nARG V=1\nARG W=2\nRUN echo $V$W > /x\n",
    build("...M"),
    build("..H", op.replace("ARG V=1\nARG W=2", "ARG V=1 W=2"), holds={"/x": "12\n"}),
)
scenario(
    "arg-line-sees-itself",
    "a default sees the argument before it on its line",
    "FROM base\nARG V=1 W=w$V\nRUN echo $W > /x\n",
    build("..M", holds={"/x": "w1\n"}),
    build("..M", args={"V": "2"}, holds={"/x": "w2\n"}),
)
scenario(
    "arg-removed-declaration",
    "a declaration without value goes",
    "FROM base\nARG V\nRUN echo a > /x\n",
    build("..M"),
    build(".H", op.replace("ARG V\n", "")),
    build(".H", args={"V": "5"}),
)
scenario(
    "arg-redeclared",
    "declared twice: the last default counts where it stands",
    "FROM base\nARG V=1\nRUN echo $V > /a\nARG V=2\nRUN echo $V > /b\n",
    build("..M.M", holds={"/a": "1\n", "/b": "2\n"}),
    build("..H.M", op.replace("V=2", "V=3"), holds={"/b": "3\n"}),
    build("..M.M", args={"V": "9"}, holds={"/a": "9\n", "/b": "9\n"}),
)
scenario(
    "arg-from-environment",
    "a value taken from the client's environment",
    "FROM base\nARG V=1\nRUN echo $V > /x\n",
    build("..M", args={"V": None}, env={"V": "env"}, holds={"/x": "env\n"}),
    build("..H", args={"V": "env"}),
    build("..M", args={"V": None}, holds={"/x": "1\n"}),
)
scenario(
    "arg-undeclared-used",
    "passed but declared nowhere: the command does not see it",
    "FROM base\nRUN echo ${V:-none} > /x\n",
    build(".M", args={"V": "1"}, holds={"/x": "none\n"}),
    build(".H", args={"V": "2"}),
    build(".H"),
)
scenario(
    "arg-value-of-another",
    "a value is not expanded again",
    'FROM base\nARG W=w\nARG V=1\nRUN echo "$V" > /x\n',
    build("...M", args={"V": "$W"}, holds={"/x": "$W\n"}),
    build("...H", args={"V": "$W"}),
)
scenario(
    "arg-special-characters",
    "blanks, quotes and newlines in a value",
    'FROM base\nARG V\nRUN printf %s "$V" > /x\n',
    build("..M", args={"V": "a b 'c' \"d\"\n#e"}, holds={"/x": "a b 'c' \"d\"\n#e"}),
    build("..H", args={"V": "a b 'c' \"d\"\n#e"}),
    build("..M", args={"V": "a b 'c' \"d\"\n#f"}),
)

# -- global arguments -----------------------------------------------------------------------

scenario(
    "arg-global-in-from",
    "FROM by an argument: the image counts, not the text",
    "ARG T=b2\nFROM ${T}\nCOPY a.txt /a.txt\nRUN cat /v > /x\n",
    build("..MM", holds={"/x": "2\n"}),
    build("..MM", args={"T": "b3"}, holds={"/x": "3\n"}),
    build("..HH", op.replace("ARG T=b2", "ARG T=b3"), holds={"/x": "3\n"}),
    build("..HH", args={"T": "b2"}, holds={"/x": "2\n"}),
    files=A,
    images={
        "b2": {"dockerfile": "FROM base\nRUN echo 2 > /v\n"},
        "b3": {"dockerfile": "FROM base\nRUN echo 3 > /v\n"},
    },
)
scenario(
    "arg-global-default-in-from",
    "FROM with a default of its own",
    "ARG T\nFROM ${T:-base}\nRUN echo a > /x\n",
    build("..M"),
    build("..H", op.replace("ARG T\n", "ARG T=base\n")),
)
scenario(
    "arg-global-blank-from",
    "FROM by an argument that is not set",
    "ARG T\nFROM $T\nRUN echo a > /x\n",
    refused("base name ($T) should not be blank"),
    build("..M", args={"T": "base"}),
)
scenario(
    "arg-global-chain",
    "global arguments made of each other",
    "ARG A=1\nARG B=b$A\nFROM base\nARG B\nRUN echo $B > /x\n",
    build("....M", holds={"/x": "b1\n"}),
    build("....M", args={"A": "2"}, holds={"/x": "b2\n"}),
    build("....H", op.replace("A=1", "A=2")),
)
scenario(
    "arg-global-own-default",
    "a redeclaration with a default of its own does not see the global one",
    "ARG V=1\nFROM base\nARG V=2\nRUN echo $V > /x\n",
    build("...M", holds={"/x": "2\n"}),
    build("...H", op.replace("ARG V=1", "ARG V=7"), holds={"/x": "2\n"}),
    build("...M", args={"V": "3"}, holds={"/x": "3\n"}),
)
scenario(
    "arg-global-two-stages",
    "each stage has to declare it again",
    "ARG V=1\nFROM base AS one\nARG V\nRUN echo $V > /x\nFROM base\nRUN echo ${V:-none} > /y\n"
    "COPY --from=one /x /x\n",
    build("...M.MM", holds={"/x": "1\n", "/y": "none\n"}),
    build("...M.HM", args={"V": "2"}, holds={"/x": "2\n", "/y": "none\n"}),
)
scenario(
    "arg-other-stage-unused",
    "an argument of a stage that nothing needs",
    "FROM base AS one\nARG V=1\nRUN echo $V > /x\nFROM base\nRUN echo two > /y\n",
    build("..S.M"),
    build("..S.H", args={"V": "2"}),
)

# -- proxies --------------------------------------------------------------------------------

for name in ("HTTP_PROXY", "https_proxy", "NO_PROXY", "ftp_proxy", "ALL_PROXY"):
    scenario(
        f"arg-proxy-{name.lower().replace('_proxy', '')}{'-lower' if name.islower() else ''}",
        f"{name} passed and not declared: seen, and no part of the key",
        f"FROM base\nRUN echo ${{{name}:-none}} > /x\n",
        build(".M", args={name: "http://p1"}, holds={"/x": "http://p1\n"}),
        build(".H", args={name: "http://p2"}, holds={"/x": "http://p1\n"}),
        build(".H", holds={"/x": "http://p1\n"}),
        area="arg",
    )
scenario(
    "arg-proxy-lowercase",
    "http_proxy in lower case",
    "FROM base\nRUN echo ${http_proxy:-none} > /x\n",
    build(".M", holds={"/x": "none\n"}),
    build(".H", args={"http_proxy": "http://p1"}, holds={"/x": "none\n"}),
    build(".H", args={"http_proxy": "http://p2"}),
)
scenario(
    "arg-proxy-only-hits-after",
    "a proxy first, then none",
    "FROM base\nRUN echo ${HTTP_PROXY:-none} > /x\n",
    build(".M", args={"HTTP_PROXY": "http://p1"}, holds={"/x": "http://p1\n"}),
    build(".H", holds={"/x": "http://p1\n"}),
)
scenario(
    "arg-proxy-both-cases",
    "a proxy reaches the command in both cases",
    "FROM base\nRUN echo ${HTTP_PROXY:-none} ${http_proxy:-none} > /x\n",
    build(".M", args={"HTTP_PROXY": "http://p1"}, holds={"/x": "http://p1 http://p1\n"}),
)
scenario(
    "arg-proxy-declared",
    "a declared proxy counts",
    "FROM base\nARG HTTP_PROXY\nRUN echo ${HTTP_PROXY:-none} > /x\n",
    build("..M", args={"HTTP_PROXY": "http://p1"}, holds={"/x": "http://p1\n"}),
    build("..M", args={"HTTP_PROXY": "http://p2"}, holds={"/x": "http://p2\n"}),
    build("..M", holds={"/x": "none\n"}),
    build("..H", args={"HTTP_PROXY": "http://p1"}),
)

# -- ENV beside ARG -------------------------------------------------------------------------

scenario(
    "arg-env-then-arg",
    "ARG after ENV of that name: the argument wins in commands",
    "FROM base\nENV V=env\nARG V=1\nRUN echo $V > /x\n",
    build("...M", holds={"/x": "1\n"}),
    build("...M", args={"V": "2"}, holds={"/x": "2\n"}),
    build("...M", op.replace("ARG V=1\n", "ARG V\n"), holds={"/x": "env\n"}),
    build("...H", args={"V": "2"}, holds={"/x": "2\n"}),
)
scenario(
    "arg-env-config",
    "the image keeps the ENV, whatever an argument of that name says",
    "FROM base\nENV V=env\nARG V=1\nENV W=$V\nRUN echo $V$W > /x\n",
    build(
        "....M",
        holds={"/x": "11\n"},
        config={
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "V=env",
                "W=1",
            ]
        },
    ),
)
scenario(
    "arg-into-env",
    "ENV takes an argument over into the image",
    "FROM base\nARG V=1\nENV W=${V:-x}\nRUN echo a > /x\n",
    build("...M"),
    build("...M", args={"V": "2"}),
    build("...M", args={"V": ""}),
    build("...H", args={"V": "2"}),
)
scenario(
    "arg-same-env-name",
    "ENV V=$V keeps the value of the argument",
    "FROM base\nARG V=1\nENV V=$V\nRUN echo $V > /x\n",
    build("...M", holds={"/x": "1\n"}),
    build("...M", args={"V": "2"}, holds={"/x": "2\n"}),
    build("...H", args={"V": "1"}),
)
scenario(
    "arg-shadowed-in-child-stage",
    "a stage FROM a stage: its ENV is set anew over arguments",
    "FROM base AS one\nENV V=env\nARG V=1\nRUN echo $V > /x\nFROM one\nRUN echo $V > /y\n",
    build("...M.M", holds={"/x": "1\n", "/y": "env\n"}),
)
scenario(
    "arg-inherited-three",
    "through three stages, with a redeclaration",
    "FROM base AS one\nARG V=1\nFROM one AS two\nRUN echo $V > /x\nFROM two\nARG V=3\n"
    "RUN echo $V > /y\n",
    build("...M..M", holds={"/x": "1\n", "/y": "3\n"}),
    build("...M..M", args={"V": "2"}, holds={"/x": "2\n", "/y": "2\n"}),
    build("...H..H", holds={"/x": "1\n", "/y": "3\n"}),
)

# -- automatic arguments --------------------------------------------------------------------

scenario(
    "arg-platform-all",
    "the automatic arguments of the platform",
    "FROM base\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDOS\n"
    "RUN echo $TARGETPLATFORM $TARGETOS $TARGETARCH ${TARGETVARIANT-unset}. $BUILDOS > /x\n",
    build("..M", platform="linux/amd64", holds={"/x": "linux/amd64 linux amd64 . linux\n"}),
    build("..H", platform="linux/amd64"),
)
scenario(
    "arg-platform-undeclared",
    "automatic arguments are not seen undeclared",
    "FROM base\nRUN echo ${TARGETARCH:-none} > /x\n",
    build(".M", holds={"/x": "none\n"}),
    build(".H", args={"TARGETARCH": "other"}),
)
scenario(
    "arg-platform-in-from",
    "FROM --platform by an automatic argument",
    "FROM --platform=$TARGETPLATFORM base\nRUN echo a > /x\n",
    build(".M", platform="linux/amd64"),
    build(".H", op.replace("--platform=$TARGETPLATFORM ", ""), platform="linux/amd64"),
)
scenario(
    "arg-targetstage",
    "TARGETSTAGE is the name of the target, else of the last stage",
    "FROM base AS one\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /x\nFROM one AS two\n",
    build("..M.", holds={"/x": "two\n"}),
    build("..M.", target="one", holds={"/x": "one\n"}),
    build("..H."),
)
scenario(
    "arg-source-date-epoch-declared",
    "SOURCE_DATE_EPOCH declared is an argument as any other",
    "FROM base\nARG SOURCE_DATE_EPOCH\nRUN echo ${SOURCE_DATE_EPOCH:-none} > /x\n",
    build("..M", args={"SOURCE_DATE_EPOCH": "1000000000"}, holds={"/x": "1000000000\n"}),
    build("..M", args={"SOURCE_DATE_EPOCH": "1000000001"}, holds={"/x": "1000000001\n"}),
    build("..H", args={"SOURCE_DATE_EPOCH": "1000000000"}),
)

# -- where variables reach ------------------------------------------------------------------

scenario(
    "copy-arg-source",
    "the source by an argument: another name, equal content",
    "FROM base\nARG F=a.txt\nCOPY ${F} /x\n",
    build("..M"),
    build("..M", args={"F": "c.txt"}, holds={"/x": "other\n"}),
    build("..H"),
    files=SAME,
    area="arg",
)
scenario(
    "arg-in-copy-dest",
    "the destination by an argument",
    "FROM base\nARG D=/d\nCOPY a.txt $D/\nRUN cat $D/a.txt > /x\n",
    build("..MM"),
    build("..MM", args={"D": "/e"}, holds={"/e/a.txt": "alpha\n", "/d": None}),
    build("..HH"),
    files=A,
)
scenario(
    "arg-in-chown",
    "--chown by an argument",
    "FROM base\nARG U=1000\nCOPY --chown=$U:$U a.txt /x\n",
    build("..M", holds={"/x": {"type": "file", "uid": 1000, "gid": 1000}}),
    build("..M", args={"U": "1001"}, holds={"/x": {"type": "file", "uid": 1001, "gid": 1001}}),
    build("..H", op.replace("$U:$U", "1000:1000")),
    files=A,
)
scenario(
    "arg-in-chmod",
    "--chmod by an argument",
    "FROM base\nARG M=640\nCOPY --chmod=${M} a.txt /x\n",
    build("..M", holds={"/x": {"type": "file", "mode": "0640"}}),
    build("..M", args={"M": "0600"}, holds={"/x": {"type": "file", "mode": "0600"}}),
    build("..H", args={"M": "0640"}),
    files=A,
)
scenario(
    "arg-in-env-expose-volume",
    "arguments in configuration only",
    "FROM base\nRUN echo a > /x\nARG P=80\nEXPOSE $P\nVOLUME /v$P\nSTOPSIGNAL $P\n",
    build(
        ".M....",
        args={"P": "9"},
        config={"ExposedPorts": {"9/tcp": {}}, "Volumes": {"/v9": {}}, "StopSignal": "9"},
    ),
    build(
        ".H....",
        args={"P": "15"},
        config={"ExposedPorts": {"15/tcp": {}}, "Volumes": {"/v15": {}}, "StopSignal": "15"},
    ),
)
scenario(
    "arg-not-in-cmd",
    "CMD, ENTRYPOINT and HEALTHCHECK expand nothing",
    'FROM base\nARG V=1\nCMD ["$V"]\nENTRYPOINT e $V\nHEALTHCHECK CMD h $V\n',
    build(
        ".....",
        config={
            "Cmd": ["$V"],
            "Entrypoint": ["/bin/sh", "-c", "e $V"],
            "Healthcheck": {"Test": ["CMD-SHELL", "h $V"]},
        },
    ),
)
scenario(
    "arg-in-mount",
    "arguments in a mount",
    "FROM base\nARG S=a.txt\nARG T=/m\nRUN --mount=type=bind,source=$S,target=$T cat $T > /x\n",
    build("...M", holds={"/x": "alpha\n"}),
    build("...M", args={"S": "b.txt"}, holds={"/x": "beta\n"}),
    build("...M", args={"T": "/n"}, holds={"/x": "alpha\n"}),
    build("...H"),
    files={"a.txt": "alpha\n", "b.txt": "beta\n"},
)
scenario(
    "arg-in-add-url",
    "a URL by an argument",
    "FROM base\nARG N=f.txt\nADD @HTTP@/$N /x\n",
    build("..M", holds={"/x": "one\n"}),
    build("..M", args={"N": "g.txt"}, holds={"/x": "two\n"}),
    build("..H"),
    http={"/f.txt": {"content": "one\n"}, "/g.txt": {"content": "two\n"}},
)
scenario(
    "arg-in-copy-from",
    "--from takes no variables",
    "FROM base AS one\nRUN echo a > /x\nFROM base\nARG S=one\nCOPY --from=$S /x /x\n",
    refused("variable expansion is not supported for --from"),
)
scenario(
    "arg-stage-by-argument",
    "the stage to go on from is chosen by an argument",
    "ARG S=one\nFROM base AS one\nRUN echo 1 > /x\nFROM base AS two\nRUN echo 2 > /x\n"
    "FROM $S AS picked\nRUN cat /x > /y\n",
    build("..M.S.M", holds={"/y": "1\n"}),
    build("..S.M.M", args={"S": "two"}, holds={"/y": "2\n"}),
    build("..H.S.H", holds={"/y": "1\n"}),
)
scenario(
    "arg-in-heredoc-dest",
    "an argument in the destination of a heredoc",
    "FROM base\nARG D=/d\nCOPY <<EOF $D/x\nbody\nEOF\n",
    build("..M", holds={"/d/x": "body\n"}),
    build("..M", args={"D": "/e"}, holds={"/e/x": "body\n"}),
)
scenario(
    "arg-name-invalid",
    "an argument without a name",
    "FROM base\nARG =1\nRUN echo a\n",
    refused("ARG names can not be blank"),
)

# -- ENV ------------------------------------------------------------------------------------

scenario(
    "env-merge-lines",
    "two ENV lines become one",
    "FROM base\nENV X=1\nENV Y=2\nRUN echo $X$Y > /x\n",
    build("...M"),
    build("..H", op.replace("ENV X=1\nENV Y=2", "ENV X=1 Y=2")),
    build("..M", op.replace("X=1 Y=2", "Y=2 X=1")),
)
scenario(
    "env-quotes",
    "quotes and escapes of one value",
    "FROM base\nENV X=1\nRUN echo $X > /x\n",
    build("..M"),
    build("..H", op.replace("X=1", 'X="1"')),
    build("..H", op.replace('X="1"', "X='1'")),
    build("..H", op.replace("X='1'", "X=\\1")),
)
scenario(
    "env-quotes-blank",
    "a value with blanks in three forms",
    'FROM base\nENV X="a b"\nRUN echo "$X" > /x\n',
    build("..M", holds={"/x": "a b\n"}),
    build("..H", op.replace('X="a b"', "X=a\\ b")),
    build("..H", op.replace("X=a\\ b", "X a b")),
)
scenario(
    "env-unused-run",
    "an ENV that the command does not use still counts",
    "FROM base\nENV X=1\nRUN echo hi > /x\n",
    build("..M"),
    build("..M", op.replace("X=1", "X=2")),
    build("..H", op.replace("X=2", "X=1")),
)
scenario(
    "env-empty",
    "empty and unset",
    "FROM base\nENV X=\nRUN echo ${X-unset} > /x\n",
    build("..M", holds={"/x": "\n"}),
    build(".M", op.replace("ENV X=\n", ""), holds={"/x": "unset\n"}),
)
scenario(
    "env-same-line",
    "on one line all values see what was before the line",
    "FROM base\nENV X=1\nENV X=2 Y=$X\nRUN echo $X$Y > /x\n",
    build("...M", holds={"/x": "21\n"}),
    build("...M", op.replace("Y=$X", "Y=${X}0"), holds={"/x": "210\n"}),
)
scenario(
    "env-path-extend",
    "PATH is extended",
    "FROM base\nCOPY --chmod=755 tool /opt/bin/tool\nENV PATH=/opt/bin:$PATH\nRUN tool > /x\n",
    build(".M.M", holds={"/x": "tool\n"}),
    build(".H.M", op.replace("/opt/bin:$PATH", "$PATH:/opt/bin")),
    files={"tool": "#!/bin/sh\necho tool\n"},
)
scenario(
    "env-expansion-forms",
    "the forms of expansion",
    "FROM base\nENV X=abc\nENV P=${X:-d} Q=${Z:-d} R=${X:+s} S=${Z:+s} T=\\$X U='$X'\n"
    'RUN echo $P $Q $R $S. "$T" "$U" > /x\n',
    build("...M", holds={"/x": "abc d s . $X $X\n"}),
    build("...H"),
)
scenario(
    "env-patterns",
    "prefixes, suffixes and replacements",
    "FROM base\nENV X=a/b/c.tar.gz\nENV P=${X#*/} Q=${X##*/} R=${X%.*} S=${X%%.*} T=${X//\\//-}\n"
    "RUN echo $P $Q $R $S $T > /x\n",
    build("...M", holds={"/x": "b/c.tar.gz c.tar.gz a/b/c.tar a/b/c a-b-c.tar.gz\n"}),
)
scenario(
    "env-used-in-many",
    "one ENV in WORKDIR, COPY, USER, LABEL and EXPOSE",
    "FROM base\nENV N=app P=1\nWORKDIR /$N\nCOPY a.txt $N.txt\nUSER $N\nLABEL n=$N\nEXPOSE $P\n"
    "RUN id -un > /tmp/x\n",
    build(
        "..MM...M",
        holds={"/app/app.txt": "alpha\n", "/tmp/x": "app\n"},
        config={"Labels": {"n": "app"}, "WorkingDir": "/app", "User": "app"},
    ),
    build("..HH...M", op.replace("P=1", "P=2"), config={"ExposedPorts": {"2/tcp": {}}}),
    build("..MM...M", op.replace("N=app", "N=other"), holds={"/tmp/x": "other\n"}),
    files=A,
)
scenario(
    "env-copy-workdir-relative",
    "an ENV that a COPY does not use, below a WORKDIR",
    "FROM base\nENV X=1\nWORKDIR /w\nCOPY a.txt .\n",
    build("..MM"),
    build("..HH", op.replace("X=1", "X=2")),
    files=A,
)
scenario(
    "env-between-runs",
    "an ENV between two commands reaches the second only",
    "FROM base\nRUN echo a > /a\nENV X=1\nRUN echo b > /b\n",
    build(".M.M"),
    build(".H.M", op.replace("X=1", "X=2")),
    build(".H.H", op.replace("X=2", "X=1")),
)
scenario(
    "env-from-base",
    "the base image brings an ENV, the stage overrides it",
    "FROM withenv\nENV X=mine\nRUN echo $X$Y > /x\n",
    build("..M", holds={"/x": "mineY\n"}),
    build("..M", op.image("withenv", "FROM base\nENV X=other Y=Y2\n"), holds={"/x": "mineY2\n"}),
    images={"withenv": {"dockerfile": "FROM base\nENV X=base Y=Y\n"}},
)
scenario(
    "env-name-invalid",
    "an ENV without a name",
    "FROM base\nENV =1\nRUN echo a\n",
    refused("ENV names can not be blank"),
)
scenario(
    "env-unset-variable",
    "an expansion that demands a value",
    'FROM base\nENV X="${NOPE:?must be set}"\nRUN echo a\n',
    refused("NOPE: must be set"),
    build(
        "...M",
        op.replace("ENV X", "ARG NOPE=1\nENV X"),
    ),
)
