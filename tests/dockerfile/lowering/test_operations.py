"""Every instruction and flag, lowered to the effective operation."""

from __future__ import annotations

import pytest

from layercache.errors import DockerfileError
from layercache.model.operations import CopyFiles, CopySource, Exec, MakeDirectory, Mount
from layercache.model.selectors import EVERYTHING, Files
from layercache.model.sources import ContextSource, GitSource, UrlSource
from tests.dockerfile.lowering.support import PATH, lowered, step, steps

SHELL = ("/bin/sh", "-c")


# -- RUN ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("RUN echo a", (*SHELL, "echo a")),
        ("run   echo  'a  b'  ", (*SHELL, "echo  'a  b'")),
        ("RUN echo a && \\\n  echo b", (*SHELL, "echo a &&   echo b")),
        ("RUN echo a && \\\n# note\n\n  echo b", (*SHELL, "echo a &&   echo b")),
        ('RUN ["/bin/echo", "a b"]', ("/bin/echo", "a b")),
        ('RUN [ "x" , "" ]', ("x", "")),
        ("RUN ['x']", (*SHELL, "['x']")),
        ('SHELL ["/bin/ash", "-e"]\nRUN x', ("/bin/ash", "-e", "x")),
        ('SHELL ["/bin/ash", "-e"]\nRUN ["x"]', ("x",)),
        ("RUN <<EOF\necho a\nEOF", (*SHELL, "echo a\n")),
        ("RUN <<-EOF\n\techo a\n\tEOF", (*SHELL, "echo a\n")),
        ("RUN <<'EOF'\necho $X\nEOF", (*SHELL, "echo $X\n")),
        ("RUN cat <<EOF > /x\na\nEOF", (*SHELL, "cat <<EOF > /x\na\nEOF")),
        ("RUN cat <<A <<B\n1\nA\n2\nB", (*SHELL, "cat <<A <<B\n1\nA\n2\nB")),
    ],
)
def test_the_command(text: str, args: tuple[str, ...]) -> None:
    """The exact command after parsing: shell form equals the exec form of the shell."""
    found = step(text)
    assert isinstance(found, Exec)
    assert found.args == args


def test_a_script_with_an_interpreter() -> None:
    """A heredoc with #! becomes a file that the shell runs, as BuildKit does it."""
    found = step("RUN <<script\n#!/bin/ash -e\necho a\nscript")
    assert found.args == (*SHELL, "/dev/pipes/script")
    assert found.files == (("script", b"#!/bin/ash -e\necho a\n"),)


def test_what_a_command_sees() -> None:
    """Environment in order, user, working directory, platform, options of the build."""
    found = step(
        "ENV A=1\nARG B=2\nUSER app:grp\nWORKDIR /w\nRUN x",
        network="none",
        hosts=(("h", "10.0.0.1"),),
        shm_size=5,
        ulimits=("nofile=1:2",),
        platform="linux/arm64",
    )
    assert found == Exec(
        args=(*SHELL, "x"),
        env=(PATH, ("A", "1"), ("B", "2")),
        arguments=("B",),
        user="app:grp",
        workdir="/w",
        network="none",
        hosts=(("h", "10.0.0.1"),),
        shm_size=5,
        ulimits=("nofile=1:2",),
        platform=found.platform,
    )


@pytest.mark.parametrize(
    ("flag", "option", "network"),
    [
        ("", "default", "default"),
        ("", "host", "host"),
        ("--network=default ", "none", "none"),
        ("--network=none ", "default", "none"),
        ("--network=host ", "none", "host"),
    ],
)
def test_network(flag: str, option: str, network: str) -> None:
    """The flag wins over the option, `default` is no flag."""
    assert step(f"RUN {flag}x", network=option).network == network


def test_security_and_devices() -> None:
    """--security and --device are taken over."""
    found = step("RUN --security=insecure --device=vendor.com/gpu=all,required x")
    assert found.security == "insecure"
    assert len(found.devices) == 1
    assert step("RUN --security=sandbox x") == step("RUN x")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=tmpfs,target=/t,size=1m", Mount(type="tmpfs", target="/t", size=1 << 20)),
        (
            "type=secret,id=s",
            Mount(type="secret", target="/run/secrets/s", id="s", mode=0o400),
        ),
        ("type=secret,id=a/s", Mount(type="secret", target="/run/secrets/s", id="a/s", mode=0o400)),
        (
            "type=secret,target=/x/y",
            Mount(type="secret", target="/x/y", id="y", mode=0o400),
        ),
        (
            "type=secret,id=s,env=V",
            Mount(type="secret", target="", id="s", env="V", mode=0o400),
        ),
        (
            "type=secret,id=s,env=V,dst=t,required,mode=0440,uid=1,gid=2",
            Mount(
                type="secret",
                target="/t",
                id="s",
                env="V",
                required=True,
                mode=0o440,
                uid=1,
                gid=2,
            ),
        ),
        ("type=ssh", Mount(type="ssh", target="", id="default", mode=0o600)),
        (
            "type=cache,target=c",
            Mount(type="cache", target="/c", id="c", readonly=False, mode=0o755),
        ),
        (
            "type=cache,id=i,target=/c,sharing=locked,mode=0700,uid=3,gid=4,ro",
            Mount(
                type="cache",
                target="/c",
                id="i",
                sharing="locked",
                mode=0o700,
                uid=3,
                gid=4,
            ),
        ),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    """Every option of a mount, with its default."""
    assert step(f"RUN --mount={text} x").mounts == (mount,)


def test_bind_mounts() -> None:
    """A bind mount reads the content of its source, by whatever name."""
    found = steps("FROM base\nWORKDIR /w\nRUN --mount=source=d/e,target=m,rw x\n")[-1]
    mount = found.instruction.mounts[0]  # type: ignore[attr-defined]
    assert (mount.target, mount.source, mount.readonly) == ("/w/m", "d/e", False)
    edge = found.inputs[-1]
    assert edge.role == mount.role
    assert edge.selector == Files(("d/e",), wildcards=False, named=False)


def test_mounts_of_variables() -> None:
    """Words of mounts are expanded."""
    found = step("ENV T=/t\nARG S=5\nRUN --mount=type=tmpfs,target=$T,size=$S x")
    assert found.mounts == (Mount(type="tmpfs", target="/t", size=5),)


@pytest.mark.parametrize("text", ["type=bind", "type=bind,target=/", "type=cache", "type=tmpfs"])
def test_mounts_need_a_target(text: str) -> None:
    """Without a target, or at the root, a mount is an error at its line."""
    with pytest.raises(DockerfileError) as caught:
        step(f"RUN --mount={text} x")
    assert caught.value.line == 2


# -- COPY and ADD ---------------------------------------------------------------------------


def sources(*patterns: str) -> tuple[CopySource, ...]:
    return tuple(CopySource(role="source", pattern=pattern) for pattern in patterns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY a /b", CopyFiles(sources=sources("a"), destination="/b")),
        ('COPY ["a b", "/c d"]', CopyFiles(sources=sources("a b"), destination="/c d")),
        ("COPY ./a/ b/ ../c /d/", CopyFiles(sources=sources("a", "b", "c"), destination="/d/")),
        ("COPY . .", CopyFiles(sources=sources("."), destination="/")),
        ("COPY /a/../b //c/./d/.", CopyFiles(sources=sources("b"), destination="/c/d/")),
        ("COPY a*.txt /", CopyFiles(sources=sources("a*.txt"), destination="/")),
        ("WORKDIR /w\nCOPY a b", CopyFiles(sources=sources("a"), destination="/w/b")),
        ("WORKDIR /w\nCOPY a .", CopyFiles(sources=sources("a"), destination="/w/")),
        ("WORKDIR /w\nCOPY a ..", CopyFiles(sources=sources("a"), destination="/")),
        (
            "COPY --chown=app:root --link a /b",
            CopyFiles(sources=sources("a"), destination="/b", chown="app:0", link=True),
        ),
        (
            "COPY --chmod=755 --link a /b",
            CopyFiles(sources=sources("a"), destination="/b", chmod="0755"),
        ),
        (
            "COPY --chmod=u+x,go= a /b",
            CopyFiles(sources=sources("a"), destination="/b", chmod="u+x,go="),
        ),
        (
            "COPY --exclude=*.md --exclude=**/x d /d",
            CopyFiles(sources=sources("d"), destination="/d", exclude=("*.md", "**/x")),
        ),
        (
            "COPY --parents ./x/./y z/ /d/",
            CopyFiles(sources=sources("x/./y", "z"), destination="/d/", parents=True),
        ),
        ("ADD a /b", CopyFiles(name="ADD", sources=sources("a"), destination="/b", unpack=None)),
        (
            "ADD --unpack=false a /b",
            CopyFiles(name="ADD", sources=sources("a"), destination="/b", unpack=False),
        ),
        (
            "ADD --unpack a /b",
            CopyFiles(name="ADD", sources=sources("a"), destination="/b", unpack=None),
        ),
        (
            "ENV D=/d M=600 U=7\nCOPY --chown=$U --chmod=$M $D.txt ${D}/",
            CopyFiles(sources=sources("d.txt"), destination="/d/", chown="7", chmod="0600"),
        ),
    ],
)
def test_copies(text: str, expected: CopyFiles) -> None:
    """Sources relative to the context, the destination absolute, flags by value."""
    assert step(text) == expected


def test_only_the_last_name_of_a_source_counts() -> None:
    """What is copied counts by content and last name; with --parents by its path."""
    assert step("COPY x/a /b").definition() == step("COPY y/z/a /b").definition()
    assert step("COPY x/a /b").definition() != step("COPY x/b /b").definition()
    one, other = step("COPY --parents x/a /b"), step("COPY --parents y/a /b")
    assert one.definition() != other.definition()


def test_copies_read_the_context() -> None:
    """Without --from the input is the main context, with all patterns in one selector."""
    found = lowered("FROM base\nCOPY --exclude=z a b/*.txt /d/\n")
    last = found.graph.vertices[found.target]
    edge = last.inputs[-1]  # type: ignore[union-attr]
    assert found.graph.vertices[edge.vertex] == ContextSource("")
    assert edge.selector == Files(("a", "b/*.txt"), ("z",))


def test_here_documents() -> None:
    """Bodies are expanded unless the name is quoted, and come after the paths."""
    text = "ENV V=1\nCOPY <<one a <<'two' /d/\nv=$V \\$V\none\nv=$V\ntwo"
    assert step(text).sources == (
        *sources("a"),
        CopySource(role="", pattern="one", content=b"v=1 $V\n"),
        CopySource(role="", pattern="two", content=b"v=$V\n"),
    )
    assert step("ADD <<x /y\nbody\nx") == step("COPY <<x /y\nbody\nx")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/b.txt", "b.txt"),
        ("https://h/a/b%20c.txt?v=1#x", "b c.txt"),
        ("http://h/dir/", "dir"),
        ("http://h/", "__unnamed__"),
        ("http://h", "__unnamed__"),
        ("http://h?x=/y", "__unnamed__"),
    ],
)
def test_urls(url: str, name: str) -> None:
    """A URL is a source of its own; its name is the last component of its path."""
    found = steps(f"FROM base\nADD {url} /d/\n")[-1]
    operation = found.instruction
    assert operation.sources == (CopySource(role="remote 0", pattern=name, remote=True),)  # type: ignore[attr-defined]
    assert found.inputs[-1].selector == EVERYTHING
    graph = lowered(f"FROM base\nADD {url} /d/\n").graph
    assert UrlSource(url) in graph.vertices


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://h/r.git", GitSource("https://h/r.git")),
        ("https://h/r.git#v1:sub/dir", GitSource("https://h/r.git", "v1", "sub/dir")),
        ("https://h/r.git#:sub", GitSource("https://h/r.git", "", "sub")),
        ("git@h:o/r.git#main", GitSource("git@h:o/r.git", "main")),
        ("ssh://git@h/o/r", GitSource("ssh://git@h/o/r")),
        ("git://h/r", GitSource("git://h/r")),
    ],
)
def test_repositories(url: str, source: GitSource) -> None:
    """Git URLs are repositories, at a reference, below a directory."""
    assert source in lowered(f"FROM base\nADD {url} /d/\n").graph.vertices


def test_repositories_with_flags() -> None:
    """--keep-git-dir and --checksum belong to the repository."""
    graph = lowered(
        "FROM base\nADD --keep-git-dir=true --checksum=abc1234 https://h/r.git /d\n"
    ).graph
    wanted = GitSource("https://h/r.git", keep_git_dir=True, checksum="abc1234")
    assert wanted in graph.vertices


def test_checksums() -> None:
    """--checksum is expanded and checked, and belongs to the URL."""
    digest = "sha256:" + "0" * 64
    graph = lowered(f"FROM base\nARG S={digest}\nADD --checksum=$S https://h/f /f\n").graph
    assert UrlSource("https://h/f", digest) in graph.vertices  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("COPY https://h/f /f", "use ADD"),
        ("COPY git@h:o/r.git /f", "use ADD"),
        ("ADD https://user:pass@h/f /f", "user information"),
        ("ADD --checksum=sha256:00 https://h/f /f", "sha256"),
        ("ADD --checksum=sha256:" + "0" * 64 + " a /f", "checksum"),
        ("ADD --checksum=sha256:" + "0" * 64 + " https://h/a https://h/b /f/", "single"),
        ("COPY --from=5 /a /b", "stage 5"),
        ("COPY --from=here /a /b", "itself"),
        ("COPY --from=later /a /b", "before this one"),
        ("ENV X=${NOPE:?why}", "why"),
        ("USER ${NOPE:?why}", "why"),
        ("COPY ${NOPE:?why} /x", "why"),
        ("EXPOSE 80/none", "EXPOSE"),
        ("EXPOSE 99999", "EXPOSE"),
        ("VOLUME $NOPE", "VOLUME"),
        ("STOPSIGNAL KILL ME", "STOPSIGNAL"),
    ],
)
def test_errors_carry_their_place(text: str, part: str) -> None:
    """What is wrong is told with file and line."""
    recipe = f"FROM base AS here\n\n{text}\nFROM base AS later\n"
    with pytest.raises(DockerfileError) as caught:
        lowered(recipe, target="here")
    assert caught.value.line == 3
    assert "Dockerfile:3" in str(caught.value)
    assert part in str(caught.value)


# -- WORKDIR --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("WORKDIR /a", "/a"),
        ("WORKDIR a/b/../c/", "/a/c"),
        ("WORKDIR /a\nWORKDIR b", "/a/b"),
        ("WORKDIR /a\nWORKDIR ../..//b", "/b"),
        ("ENV D=d\nWORKDIR /$D", "/d"),
        ('WORKDIR "/a b"', "/a b"),
    ],
)
def test_working_directories(text: str, path: str) -> None:
    """WORKDIR is a step that makes the cleaned, absolute path."""
    assert step(text) == MakeDirectory(path=path)


def test_working_directory_of_a_user() -> None:
    """What it makes belongs to USER."""
    assert step("USER app\nWORKDIR /w") == MakeDirectory(path="/w", user="app")


def test_the_root_as_working_directory() -> None:
    """WORKDIR / makes nothing, and is no layer."""
    found = lowered("FROM base\nWORKDIR /\n")
    assert [row.vertex for row in found.rows] == [None, None]
    assert found.config.workdir == "/"
