"""The grammar of the Dockerfile reference, and the messages for what is not in it."""

from __future__ import annotations

import re

import pytest

from layercache.dockerfile.instructions import (
    Add,
    Arg,
    BindMount,
    CacheMount,
    Cmd,
    Copy,
    Device,
    DockerfileInstruction,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    HereDoc,
    Label,
    Location,
    Maintainer,
    Onbuild,
    Run,
    SecretMount,
    Shell,
    SshMount,
    Stopsignal,
    TmpfsMount,
    User,
    Volume,
    Workdir,
)
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.parser import parse, parse_trigger
from layercache.errors import DockerfileError, Problem


def one(line: str) -> DockerfileInstruction:
    """The instruction of `line`, which stands after a FROM."""
    instructions = parse(f"FROM base\n{line}").instructions
    assert len(instructions) == 2
    return instructions[1]


def problems(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("FROM a:1", From("a:1")),
        ("from a As Build", From("a", "build")),
        ("FROM --platform=$P a AS b-1.x_y", From("a", "b-1.x_y", "$P")),
        ("RUN npm install", Run("npm install")),
        ("run\t a  b ", Run("a  b")),
        ('RUN ["npm", "ci"]', Run(["npm", "ci"])),
        ("RUN [ a ] && b", Run("[ a ] && b")),
        ('RUN ["a"] && b', Run('["a"] && b')),
        ("RUN ['a']", Run("['a']")),
        ("RUN -- --version", Run("--version")),
        ("RUN --network=none x", Run("x", network="none")),
        ("RUN --security=insecure x", Run("x", security="insecure")),
        (
            "RUN --device=v.com/gpu=all,required x",
            Run("x", devices=[Device("v.com/gpu=all", True)]),
        ),
        ("RUN --device=gpu x", Run("x", devices=[Device("gpu")])),
        ("CMD node server.js", Cmd("node server.js")),
        ("CMD []", Cmd([])),
        ('ENTRYPOINT ["a", "b\\n\\u00e9"]', Entrypoint(["a", "b\né"])),
        ('SHELL ["/bin/bash", "-c"]', Shell(["/bin/bash", "-c"])),
        ("LABEL a=1 b='x y'", Label({"a": "1", "b": "'x y'"})),
        ("ENV A=1 B=$A", Env(A="1", B="$A")),
        ("ENV A  1  2 ", Env(A="1  2")),
        ('ENV A="x y" B=x\\ y', Env({"A": '"x y"', "B": "x\\ y"})),
        ("ENV A=", Env(A="")),
        ("EXPOSE 80 53/udp $P", Expose(80, "53/udp", "$P")),
        ("ADD https://x/y.tgz /z", Add("https://x/y.tgz", "/z")),
        (
            "ADD --checksum=sha256:$D --keep-git-dir --link=false --unpack=false "
            "--exclude=*.md --exclude=b --chown=1:2 --chmod=$M a b /c/",
            Add(
                "a",
                "b",
                "/c/",
                checksum="sha256:$D",
                keep_git_dir=True,
                unpack=False,
                exclude=["*.md", "b"],
                chown="1:2",
                chmod="$M",
            ),
        ),
        ("COPY package*.json ./", Copy("package*.json", "./")),
        ('COPY ["a b", "c/"]', Copy("a b", "c/")),
        ('COPY "a b" c', Copy('"a', 'b"', "c")),
        (
            "COPY --from=0 --chown=$U --chmod=u=rwX --link --parents --exclude=x a b",
            Copy(
                "a",
                "b",
                from_="0",
                chown="$U",
                chmod="u=rwX",
                link=True,
                parents=True,
                exclude=["x"],
            ),
        ),
        ('COPY --chown="a b" x y', Copy("x", "y", chown="a b")),
        ("VOLUME /a $B", Volume("/a", "$B")),
        ('VOLUME ["/a b"]', Volume("/a b")),
        ("USER a:b", User("a:b")),
        ("WORKDIR /a b", Workdir("/a b")),
        ("STOPSIGNAL SIGTERM", Stopsignal("SIGTERM")),
        ("MAINTAINER some one", Maintainer("some one")),
        ("ARG A", Arg("A")),
        ("ARG A=", Arg("A", "")),
        ('ARG A B="x y"', Arg(("A", None), ("B", '"x y"'))),
        ("HEALTHCHECK NONE", Healthcheck(None)),
        ("HEALTHCHECK cmd  curl x", Healthcheck("curl x")),
        (
            "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0s --start-interval=2s "
            '--retries=3 CMD ["a"]',
            Healthcheck(
                ["a"],
                interval="1m30s",
                timeout="500ms",
                start_period="0s",
                start_interval=2,
                retries=3,
            ),
        ),
        ("ONBUILD RUN  make", Onbuild(Run("make"))),
        ("ONBUILD COPY --from=b . .", Onbuild(Copy(".", ".", from_="b"))),
    ],
)
def test_an_instruction_reads_as(line: str, expected: DockerfileInstruction) -> None:
    """Each form of each instruction; equality ignores place and spelling."""
    assert one(line) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("target=/m", BindMount("/m")),
        ("type=bind,from=b,source=/s,dst=/m,rw", BindMount("/m", "/s", from_="b", readonly=False)),
        ("type=bind,src=$S,destination=$T,readwrite=false", BindMount("$T", "$S")),
        ("TYPE=Cache,Target=/c", CacheMount("/c")),
        (
            "type=cache,target=/c,id=x,sharing=Locked,mode=0700,uid=1,gid=$G,ro,from=b,source=/s",
            CacheMount(
                "/c",
                "x",
                sharing="locked",
                mode=0o700,
                uid=1,
                gid="$G",
                readonly=True,
                from_="b",
                source="/s",
            ),
        ),
        ("type=tmpfs,target=/t,size=64m", TmpfsMount("/t", 64 << 20)),
        ("type=secret,id=s", SecretMount("s")),
        (
            "type=secret,id=s,target=/t,env=E,required,mode=0400,uid=1,gid=2",
            SecretMount("s", "/t", env="E", required=True, mode=0o400, uid=1, gid=2),
        ),
        ("type=secret,src=s,required=false", SecretMount("s")),
        ("type=ssh", SshMount()),
        (
            "type=ssh,id=k,target=/a,required=1,mode=600",
            SshMount("k", "/a", required=True, mode=0o600),
        ),
        ('"source=a,b",target=/m', BindMount("/m", "a,b")),
    ],
)
def test_a_mount_reads_as(value: str, expected: object) -> None:
    """Every option of every kind of mount."""
    quoted = value.replace('"', '\\"')
    instruction = one(f"RUN --mount={quoted} x")
    assert isinstance(instruction, Run)

    assert instruction.mounts == (expected,)


def test_mounts_expand() -> None:
    """Words of a mount are expanded by the caller; numbers are checked then."""
    mount = CacheMount("$T", uid="$U", sharing="$S")
    values = {"$T": "/t", "$U": "7", "$S": "private"}

    assert mount.expand(lambda word: values[word]) == CacheMount("/t", uid=7, sharing="private")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN --mount=type=cashe,target=/c x", "unknown type of mount: 'cashe'"),
        ("RUN --mount=type=cache,taget=/c x", "a cache mount has no option 'taget'"),
        ("RUN --mount=type=bind,target=/c,z x", "a bind mount has no option 'z'"),
        ("RUN --mount=type=tmpfs,target=/c,ro x", "a tmpfs mount has no option 'ro'"),
        ("RUN --mount=type=bind,target=/c,id=3 x", "has no option 'id' (other mounts do)"),
        ("RUN --mount=type=cache,target x", "option 'target' of a mount has no value"),
        ("RUN --mount=type=cache,target=/c,mode=9 x", "'9' is not an octal number"),
        ("RUN --mount=type=cache,target=/c,sharing=all x", "sharing is shared, private or locked"),
        ("RUN --mount=type=tmpfs,target=/c,size=big x", "'big' is not a size"),
        ("RUN --mount=type=secret x", "a secret mount needs an id or a target"),
        ("RUN --mount=type=secret,id=a,src=b x", "a source or an id, not both"),
        ("RUN --mount=type=bind,target=/m,from=$B x", "takes no variables"),
        ("RUN --mount= x", "--mount is empty"),
        ("RUN --mount x", "--mount has no value"),
        ("RUN --network=lan x", "the network of RUN is default, none or host"),
        ("RUN --security=some x", "the security of RUN is sandbox or insecure"),
        ("RUN --device=name=,x y", "--device has no option"),
        ("RUN --mont=type=cache x", "unknown flag of RUN: --mont"),
        ("COPY --form=b a c", "unknown flag of COPY: --form"),
        ("COPY --link=maybe a c", "--link is a switch"),
        ("COPY --chown=a --chown=b a c", "--chown is given twice"),
        ("COPY --checksum=x a c", "unknown flag of COPY: --checksum"),
        ("COPY --from=$B a c", "--from takes no variables"),
        ("COPY a", "COPY requires at least one source and a destination"),
        ("COPY [1, 2]", "something other than strings"),
        ("ADD --from=b a c", "unknown flag of ADD: --from"),
        ("COPPY a b", "unknown instruction: COPPY"),
        ("ENV A", "ENV A has no value"),
        ("ENV A=1 B", "B of ENV has no ="),
        ("ENV =1", "no name"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =1", "an ARG has no name"),
        ("SHELL bash", "SHELL requires its arguments in JSON form"),
        ("SHELL []", "SHELL requires its arguments in JSON form"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ('VOLUME [" "]', "is empty"),
        ("USER", "USER requires exactly one argument"),
        ("USER --x y", "unknown flag of USER: --x"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK curl x", "unknown type 'curl' in HEALTHCHECK"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "HEALTHCHECK CMD needs a command"),
        ("HEALTHCHECK --interval=5 CMD x", "'5' is not a duration"),
        ("HEALTHCHECK --interval=1us CMD x", "--interval is at least 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "'-1' is not a decimal number"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN x", "ONBUILD ONBUILD isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as a trigger"),
        ("ONBUILD MAINTAINER x", "MAINTAINER isn't allowed as a trigger"),
        ("ONBUILD RUNN x", "unknown instruction: RUNN"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a is b", "unexpected 'is' in FROM"),
        ("FROM a AS 1b", "invalid name for a stage: '1b'"),
        ("FROM --platfrom=x a", "unknown flag of FROM: --platfrom"),
        ("COPY a <<EOF\nx\nEOF", "the destination of COPY can't be a here-document"),
        ("COPY << EOF /x\nx\nEOF", "is not a whole word"),
        ("RUN <<EOF\nx", "here-document EOF is never ended"),
    ],
)
def test_a_mistake_is_named(line: str, message: str) -> None:
    """The message names the mistake; the place is the line, with the line itself."""
    (problem,) = problems(f"FROM base\n{line}\n")

    assert message in problem.message
    assert problem.line == 2
    assert problem.source_line == line.split("\n")[0]
    marked = problem.source_line[problem.column - 1 :][: problem.length]
    assert marked.strip() == marked != ""


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("COPPY a b", "COPY"),
        ("HEALTCHECK NONE", "HEALTHCHECK"),
        ("COPY --form=b a c", "--from"),
        ("RUN --mont=type=cache x", "--mount"),
        ("RUN --mount=type=cache,taget=/c x", "target"),
        ("RUN --mount=type=cashe,target=/c x", "cache"),
        ("ONBUILD RUNN x", "RUN"),
        ("ZZZ x", None),
    ],
)
def test_a_misspelling_gets_a_suggestion(line: str, suggestion: str | None) -> None:
    """Names of instructions, flags, kinds and options of mounts."""
    (problem,) = problems(f"FROM base\n{line}\n")

    assert problem.suggestion == suggestion


def test_all_mistakes_are_reported_at_once() -> None:
    """In the order of lines, each with its marker, in one error."""
    text = "FROM base\nCOPPY a b\nRUN x\nENV a\nRUN \\\n  --mout=x \\\n  y\n"
    with pytest.raises(DockerfileError) as caught:
        parse(text, "my/Dockerfile")

    assert [problem.line for problem in caught.value.problems] == [2, 4, 6]
    assert str(caught.value) == (
        "my/Dockerfile:2: unknown instruction: COPPY\n"
        "    COPPY a b\n"
        "    ^~~~~\n"
        "    did you mean COPY?\n"
        "my/Dockerfile:4: ENV a has no value\n"
        "    ENV a\n"
        "        ^\n"
        "    expected: ENV a=VALUE\n"
        "my/Dockerfile:6: unknown flag of RUN: --mout\n"
        "      --mout=x \\\n"
        "      ^~~~~~\n"
        "    expected: --mount, --network, --security, --device\n"
        "    did you mean --mount?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no instructions"),
        ("# only a comment\n", "no instructions"),
        ("RUN x\nFROM a\n", "RUN stands before the first FROM"),
        ("ARG A\n", "the file has no FROM"),
        (b"FROM a\nRUN echo \xff\n", "not UTF-8"),
        (b"FROM a\nRUN <<E\n\xff\nE\n", "not UTF-8"),
        ("FROM a\nRUN \0\n", "NUL"),
        ("# escape=x\nFROM a\n", "invalid escape character 'x'"),
        ("# syntax=a\n# Syntax=b\nFROM a\n", "only one syntax directive"),
        ("FROM a\n\\\n", "the instruction is empty"),
    ],
)
def test_a_bad_file_is_refused(text: str | bytes, message: str) -> None:
    """Mistakes of the file as a whole."""
    assert message in problems(text)[0].message


def test_bytes_that_are_no_text_may_stand_in_comments() -> None:
    """An old comment in another encoding is no reason to refuse a file."""
    assert len(parse(b"# caf\xe9\nFROM a\n").instructions) == 1


def test_directives() -> None:
    """Only at the top, only known names; the first other line ends them."""
    parsed = parse("#syntax = x/y:1\n# ESCAPE=`\n# check=error=true\nFROM a\nRUN a`\n b\n")

    assert parsed.directives.syntax == "x/y:1"
    assert parsed.escape == "`"
    assert parsed.directives.check == "error=true"
    assert parsed.instructions[1] == Run("a b")
    assert parse("# note\n# escape=`\nFROM a\nRUN a`\n").instructions[1] == Run("a`")
    assert parse("\n# escape=`\nFROM a\n").escape == "\\"
    assert parse("# other=1\n# escape=`\nFROM a\n").escape == "\\"


def test_continuations() -> None:
    """Comments and empty lines in between vanish, the latter with a warning."""
    parsed = parse("FROM a\nRUN x \\\n# note\n  # note\n\n   y \\  \n z\nRUN a\\\\\nRUN b \\")

    assert parsed.instructions[1] == Run("x    y  z")
    assert parsed.instructions[1].text == "RUN x y z"
    assert parsed.instructions[1].location == Location("Dockerfile", 2, 7)
    assert parsed.instructions[2] == Run("a\\\\")
    assert parsed.instructions[3] == Run("b")
    assert [warning.line for warning in parsed.warnings] == [5]


def test_a_mark_and_carriage_returns_do_not_count() -> None:
    """A byte order mark and CRLF change nothing."""
    text = "FROM a\nRUN x \\\n  y\nENV A=b\n"
    expected = parse(text).instructions

    assert parse(b"\xef\xbb\xbf" + text.encode()).instructions == expected
    assert parse("\ufeff" + text).instructions == expected
    assert parse(text.replace("\n", "\r\n")).instructions == expected


def test_heredocs_of_run() -> None:
    """Several bodies, with tabs stripped, quoted, with a file descriptor."""
    run = one("RUN a <<A 3<<-'B' && c\n$x\n  A\nA\n\tb\n\tB\n")

    assert isinstance(run, Run)
    assert run.command == "a <<A 3<<-'B' && c"
    assert run.heredocs == (
        HereDoc("A", "$x\n  A\n"),
        HereDoc("B", "\tb\n", expand=False, strip_tabs=True, descriptor=3),
    )
    assert run.heredocs[1].body == "b\n"
    assert run.location == Location("Dockerfile", 2, 7)
    assert run.text == "RUN a <<A 3<<-'B' && c\n$x\n  A\nA\n\tb\nB"


def test_heredocs_of_copy() -> None:
    """Sources that are bodies stand where their markers stood."""
    expected = Copy(HereDoc("A", "1\n"), "f", HereDoc("B c", "", expand=False), "/d/")

    assert one("COPY <<A f <<'B' /d/\n1\nA\nB\n") == Copy(
        HereDoc("A", "1\n"), "f", HereDoc("B", "", expand=False), "/d/"
    )
    assert expected.sources[2] == HereDoc("B c", "", expand=False)


@pytest.mark.parametrize(
    "line",
    ["RUN cat < a", "RUN a <<< b", 'RUN ["a", "<<B"]', "RUN echo '<<A'", "CMD cat <<A", "RUN a <<"],
)
def test_what_is_no_heredoc(line: str) -> None:
    """Here-strings, exec forms, quoted marks and other instructions have no bodies."""
    assert one(line).text == line


def test_triggers() -> None:
    """A trigger keeps its exact text, bodies included, and reads back alone."""
    onbuild = one("ONBUILD  RUN a \\\n   b <<E\nx\nE\n")

    assert isinstance(onbuild, Onbuild)
    assert onbuild.expression == "RUN a    b <<E\nx\nE"
    assert parse_trigger(onbuild.expression) == onbuild.trigger
    with pytest.raises(DockerfileError, match="FROM isn't allowed"):
        parse_trigger("FROM x")
    with pytest.raises(DockerfileError, match="one instruction"):
        parse_trigger("RUN a\nRUN b")
    with pytest.raises(DockerfileError, match="no instruction"):
        parse_trigger("# nothing")


def test_doubtful_things_are_warned_of() -> None:
    """Names used twice or reserved, MAINTAINER, RUN without a command."""
    text = "FROM a AS x\nFROM b AS X\nFROM c AS scratch\nMAINTAINER m\nRUN\n"
    messages = [warning.message for warning in parse(text).warnings]

    assert messages == [
        "two stages are named x: the last one counts",
        "scratch is a reserved name",
        "MAINTAINER is deprecated",
        "RUN has no command",
    ]


# -- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "text", "message"),
    [
        (RecipeLimits(file_bytes=10), "FROM a\nRUN x\n", "the file is larger than 10 bytes"),
        (
            RecipeLimits(line_chars=8),
            "FROM a\nRUN xxxxxx\n",
            "the line is longer than 8 characters",
        ),
        (RecipeLimits(instructions=1), "FROM a\nRUN x\n", "the file has more than 1 instructions"),
    ],
)
def test_sizes_are_bounded(limits: RecipeLimits, text: str, message: str) -> None:
    """Each bound has its message."""
    with pytest.raises(DockerfileError, match=re.escape(message)):
        parse(text, limits=limits)


def test_the_number_of_problems_is_bounded() -> None:
    """A file of nothing but mistakes is given up after some."""
    assert len(problems("FROM a\n" + "X\n" * 10_000)) == RecipeLimits().problems


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: "FROM a\n" + "RUN x\n" * n, id="instructions"),
        pytest.param(lambda n: "FROM a\nRUN " + "\\\n" * n + "x", id="continuations"),
        pytest.param(lambda n: "FROM a\nRUN <<A\n" + "x\n" * n + "A\n", id="body"),
        pytest.param(lambda n: "FROM a\nRUN " + "<<A " * n + "\n" + "A\n" * n, id="bodies"),
        pytest.param(lambda n: "FROM a\nRUN " + "${x:-" * n + " <<A\n", id="open expressions"),
        pytest.param(lambda n: "FROM a\nCMD " + "[" * n + "]" * n, id="brackets"),
        pytest.param(lambda n: "# " + "escape" + " " * n + "=\\\nFROM a\n", id="blanks"),
    ],
)
def test_reading_is_linear(make: object) -> None:
    """Four times the text takes about four times the steps."""
    assert callable(make)
    used = []
    for size in (1_000, 4_000):
        budget = Budget()
        try:
            parse(make(size), budget=budget)
        except DockerfileError:
            pass
        used.append(budget.used)

    assert used[1] <= 4.2 * used[0] + 1_000


def test_deep_json_is_no_recursion() -> None:
    """Brackets without end are a command like any other."""
    text = "[" * 30_000
    assert one(f"CMD {text}") == Cmd(text)
