"""A Dockerfile's ADD reaches nothing of whoever builds: no file, login, key or configuration."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from layercache import Builder, Dockerfile
from layercache._os.allowance import UnpackAllowance
from layercache.errors import DockerfileError, LayerCacheError, SourceError
from layercache.http import client
from layercache.inputs import fetch
from layercache.inputs.access import Access
from layercache.inputs.fetch import open_remote
from layercache.inputs.git import Git, _environment
from layercache.model.sources import GitSource, UrlSource
from layercache.model.tree import Tree
from layercache.store.backends.memory import MemoryBackend
from layercache.store.store import Store
from tests.inputs.test_remote_sources import Repository, git, served

from .servers import raw_server, reply

__all__ = ["served"]

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="not installed: git")


@pytest.fixture
def store() -> Store:
    return Store(MemoryBackend())


@pytest.fixture
def repository(served: tuple[Path, str]) -> Repository:
    return Repository(*served)


def plan(text: str, **options: object) -> None:
    with Builder() as builder:
        builder.plan(Dockerfile.parse(text), context={"f": b""}, **options)


# -- images of this machine -----------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "FROM oci-layout://{path}",
        "FROM docker-archive://{path}",
        "FROM oci-archive://{path}",
        "FROM scratch\nCOPY --from=oci-layout://{path} / /",
        "FROM scratch\nCOPY --from=docker-archive://{path} / /",
        "FROM scratch\nRUN --mount=from=oci-layout://{path},target=/x true",
        "FROM scratch\nRUN --mount=type=cache,from=oci-layout://{path},target=/x true",
        "ARG where=oci-layout://{path}\nFROM $where",
        "ARG scheme=oci-layout\nFROM ${{scheme}}://{path}",
        "FROM scratch AS a\nONBUILD COPY --from=oci-layout://{path} / /\nFROM a",
        "FROM docker-image://{path}",
        "FROM containers-storage:{path}",
        "FROM docker-archive:{path}",
        "FROM oci-layout:{path}",
        "FROM dir:{path}",
        "FROM file://{path}",
        "FROM OCI-LAYOUT://{path}",
        "# syntax=oci-layout://{path}\nFROM oci-layout://{path}",
        "FROM --platform=linux/amd64 oci-layout://{path}",
    ],
)
def test_a_recipe_opens_no_image_by_its_path(tmp_path: Path, line: str) -> None:
    """Neither FROM nor `--from` reads a layout or an archive of this machine: only a further
    context does."""
    (tmp_path / "trap").write_bytes(b"not an image")
    with pytest.raises(LayerCacheError) as caught:
        plan(line.format(path=tmp_path / "trap") + "\n")
    said = str(caught.value)
    assert "not a tar archive" not in said
    assert "no images at" not in said
    if "://" in line.replace("{path}", ""):
        assert isinstance(caught.value, DockerfileError)
        assert "--build-context" in said
        assert caught.value.line


def test_the_syntax_line_opens_nothing(tmp_path: Path) -> None:
    """`# syntax=` names what BuildKit would run; here it is read and nothing more."""
    with raw_server(reply(200)) as server:
        plan(f"# syntax={server.host}/frontend:1\nFROM scratch\nCOPY f /\n")
        assert server.requests == []


# -- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ADD http://127.0.0.1/a/.. /d/",
        "ADD http://127.0.0.1/a/. /d/",
        "ADD http://127.0.0.1/%2e%2e /d/",
        "ADD http://127.0.0.1/%2E /d/",
        "ADD http://127.0.0.1/a%00b /d/",
        "ADD http://127.0.0.1/a%2f%2e%2e /d/",
        "ADD http://127.0.0.1/" + "a" * 300 + " /d/",
        "ADD http://127.0.0.1/..;x=/.. /d/",
        "COPY <<.. /d/\nx\n..",
        "COPY <<. /d/\nx\n.",
        "COPY <<../x /d/\nx\n../x",
        "COPY <</etc/x /d/\nx\n/etc/x",
        "COPY <<a/b /d/\nx\na/b",
        "RUN <<../../x\n#!/bin/sh\n../../x",
        "RUN <<..\n#!/bin/sh\n..",
        "ADD https://127.0.0.1/r.git#main:../.. /d/",
        "ADD https://127.0.0.1/r.git#main:a/../../b /d/",
        "ADD https://127.0.0.1/r.git?subdir=.. /d/",
        "ADD https://127.0.0.1/r.git?subdir=%2e%2e/x /d/",
        "ADD https://127.0.0.1/r.git?subdir=a%00 /d/",
        "ADD https://127.0.0.1/r.git#--upload-pack=x /d/",
        "ADD https://127.0.0.1/r.git?ref=-x /d/",
        "ADD https://127.0.0.1/r.git#a..b /d/",
        "ADD https://127.0.0.1/r.git#+a:b /d/",
        "ADD https://127.0.0.1/r.git?other=1 /d/",
        "ADD https://127.0.0.1/r.git?ref=a&ref=b /d/",
        "ADD https://127.0.0.1/r.git?ref=a#b /d/",
        "ADD https://127.0.0.1/r.git?ref=a&tag=b /d/",
        "ADD https://127.0.0.1/r.git?checksum=x /d/",
        "ADD --checksum=abc https://127.0.0.1/r.git /d/",
        "ADD --checksum=abcdef1 https://127.0.0.1/r.git?commit=abcdef2 /d/",
        "ADD https://127.0.0.1/r.git?submodules=maybe /d/",
        "ADD http://[::1/x /d/",
        "ADD http://127.0.0.1/.wh.x /d/",
        "ADD http://127.0.0.1/%2ewh..wh..opq /d/",
        "COPY <<.wh.x /d/\nx\n.wh.x",
        "ADD ssh://[::1/r.git /d/",
        "ADD git://[::1/r.git /d/",
        "ADD git://\u2100/r.git /d/",
        "ADD ssh://-oProxyCommand=x/r.git /d/",
        "ADD ssh://git@-oProxyCommand=x/r.git /d/",
        "ADD -u@h:x /d/",
    ],
)
def test_names_that_no_file_has(line: str) -> None:
    """What a URL, a here-document or a Git URL names is refused at its line before anything is
    fetched or run."""
    with pytest.raises(DockerfileError) as caught:
        plan(f"FROM scratch\n{line}\n")
    assert caught.value.line == 2
    assert "Dockerfile:2" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@127.0.0.1/f",
        "https://user:hunter2@127.0.0.1/r.git",
        "https://hunter2@127.0.0.1/f",
        "https://hunter2@127.0.0.1/r.git",
        "https://:hunter2@127.0.0.1/f",
        "https://a@b:hunter2@127.0.0.1/f",
        "http://user:hunter2@127.0.0.1/f?x=1#y",
        "http://user:hunter2@127.0.0.1?x",
        "ssh://git:hunter2@127.0.0.1/r.git",
        "git://user:hunter2@127.0.0.1/r.git",
        "git://hunter2@127.0.0.1/r.git",
    ],
)
def test_a_url_with_a_password_is_refused(url: str) -> None:
    """It would be kept with the image; it is not even in the message."""
    for text in (
        f"FROM scratch\nADD {url} /d/\n",
        f"FROM scratch\nARG u={url}\nADD $u /d/\n",
        f"FROM scratch\nONBUILD ADD {url} /d/\n",
    ):
        with pytest.raises(DockerfileError, match="user information") as caught:
            plan(text)
        assert "hunter2" not in str(caught.value)


# -- files behind URLs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "http://u:p@127.0.0.1/x", "http://["],
)
def test_add_is_led_nowhere_else(store: Store, location: str) -> None:
    """A redirect to a file, to FTP, or to what is no URL is an error."""
    with (
        raw_server(reply(302, {"Location": location})) as server,
        pytest.raises(SourceError, match="not opened"),
    ):
        open_remote(UrlSource(f"{server.url}/f"), store)


def test_add_follows_from_https_to_nothing_less(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect that gives up TLS is refused before anything is asked there."""
    with raw_server(reply(302, {"Location": "http://127.0.0.1:1/f"})) as server:
        plain = client.send

        def send(method: str, address: client.Address, *args: Any, **options: Any) -> Any:
            # The server of this test speaks no TLS: what it answers is taken for such an answer.
            spoken = client.parse_address(address.url.replace("https:", "http:"))
            return plain(method, spoken, *args, **options)

        monkeypatch.setattr(fetch, "send", send)
        with pytest.raises(SourceError, match="from https to http"):
            open_remote(UrlSource(f"https://{server.host}/f"), store)


def test_a_secret_for_a_host_goes_to_that_host_only(store: Store) -> None:
    """`HTTP_AUTH_TOKEN_<host>` is sent to the host of the URL, and not where that leads."""
    with raw_server(reply(200, {}, b"x")) as other:
        with raw_server(reply(302, {"Location": f"{other.url}/f"})) as server:
            secrets = {
                f"HTTP_AUTH_TOKEN_{server.host}": b"t0ken\n",
                f"HTTP_AUTH_TOKEN_{other.host}": b"other",
            }
            tree = open_remote(UrlSource(f"{server.url}/f"), store, Access(secrets))
            assert server.authorizations == [b"Bearer t0ken"]
        assert other.authorizations == []
    assert b"t0ken" not in repr((tree, Access(secrets))).encode()
    assert "t0ken" not in repr(Access(secrets))
    with raw_server(reply(200, {}, b"x")) as server:
        secrets = {f"HTTP_AUTH_HEADER_{server.host}": b"Basic abc"}
        open_remote(UrlSource(f"{server.url}/f"), store, Access(secrets))
        assert server.authorizations == [b"Basic abc"]
        open_remote(UrlSource(f"{server.url}/f"), store)
        assert server.authorizations == [b"Basic abc"]


def test_a_secret_is_no_second_header(store: Store) -> None:
    """A secret with a line break in it adds no header."""
    with raw_server(reply(200, {}, b"x")) as server:
        secrets = {f"HTTP_AUTH_HEADER_{server.host}": b"a\r\nX: y"}
        with pytest.raises(SourceError, match="as the value of a header") as caught:
            open_remote(UrlSource(f"{server.url}/f"), store, Access(secrets))
        assert "X: y" not in str(caught.value)
        assert server.requests == []


def test_compressed_answers_stay_what_they_are(store: Store) -> None:
    """No encoding is asked for, and none is undone: a small answer stays small."""
    with raw_server(reply(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b bomb")) as server:
        tree = open_remote(UrlSource(f"{server.url}/f"), store)
        with tree.open(b"f") as content:
            assert content.read() == b"\x1f\x8b bomb"
        assert b"Accept-Encoding: identity" in server.requests[0]


def test_a_slow_url_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte at a time for ever is no download."""
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.3)

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    with raw_server(answer) as server, pytest.raises(SourceError, match=r"too slow|timed out"):
        open_remote(UrlSource(f"{server.url}/f"), store)


def test_a_query_is_shown_in_no_error(store: Store) -> None:
    """It may be a signature that gives access."""
    with (
        raw_server(reply(404, {}, b"\x1b[2Jgone")) as server,
        pytest.raises(SourceError) as caught,
    ):
        open_remote(UrlSource(f"{server.url}/f?sig=hunter2"), store)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


# -- repositories ---------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with all that git and ssh would use of it; each leaves a mark where it is used."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    mark = tmp_path / "mark"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {mark}\ncat\n')
    program.chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[credential]\n\thelper = "!{program} credential"\n'
        f'[filter "x"]\n\tsmudge = {program} smudge\n\trequired = true\n'
        f"[core]\n\tfsmonitor = {program} fsmonitor\n\tsshCommand = {program} ssh\n"
        f"\taskPass = {program}\n\tattributesFile = {home}/attributes\n\thooksPath = {home}/hooks\n"
        f'[url "file:///"]\n\tinsteadOf = https://replaced/\n'
        "[http]\n\textraHeader = X-Home: yes\n[user]\n\tname = me\n"
    )
    (home / "attributes").write_text("* filter=x\n")
    (home / "hooks").mkdir()
    shutil.copy(program, home / "hooks" / "post-checkout")
    (home / ".netrc").write_text("machine 127.0.0.1 login user password hunter2\n")
    (home / ".ssh" / "config").write_text(f"Host *\n\tProxyCommand {program} proxy\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{program} ssh")
    monkeypatch.setenv("GIT_SSH", str(program))
    monkeypatch.setenv("GIT_PROXY_COMMAND", str(program))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={program}'")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(program))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "mark"))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    return home


@needs_git
def test_nothing_of_the_builder_s_git_is_used(
    home: Path, repository: Repository, store: Store
) -> None:
    """Configuration, filters, hooks and helpers of the user don't run; the tree is as committed."""
    (repository.work / ".gitattributes").write_text("* filter=x\n*.lfs filter=lfs\n")
    (repository.work / "big.lfs").write_text("version https://git-lfs.github.com/spec/v1\n")
    repository.commit("attributes")
    repository.publish()
    before = sorted(p.name for p in home.rglob("*"))
    (home.parent / "mark").unlink(missing_ok=True)  # the test's own git traces, too
    tree = open_remote(GitSource(repository.url), store)
    assert tree.lookup(b"big.lfs") is not None
    assert not (home.parent / "mark").exists()
    assert sorted(p.name for p in home.rglob("*")) == before


@needs_git
@pytest.mark.parametrize(
    "source",
    [
        GitSource("ssh://[::1/r"),
        GitSource("https://\u2100/r"),
        GitSource("git://127.0.0.1:1/r\0"),
        GitSource("git://127.0.0.1:1/r", "main\0"),
        GitSource("{}", "", "sub\0"),
    ],
    ids=repr,
)
def test_sources_that_no_git_can_open(
    home: Path, repository: Repository, store: Store, source: GitSource
) -> None:
    """A source made by a program is refused like one of a Dockerfile."""
    url = source.url.format(repository.url)
    with pytest.raises(SourceError):
        open_remote(GitSource(url, source.reference, source.subdirectory), store)


@needs_git
def test_a_silent_server_ends_with_all_that_git_may_take(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All calls of git for one source share one deadline, those that try again, too."""
    monkeypatch.setattr("layercache.inputs.git._SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(SourceError, match="took more than"):
            open_remote(GitSource(f"git://127.0.0.1:{server.getsockname()[1]}/r"), store)
        assert time.monotonic() - started < 1.9


@needs_git
def test_a_server_gets_no_stored_login(home: Path, store: Store) -> None:
    """Neither `.netrc`, nor a helper, nor an extra header reaches a server that asks."""
    with raw_server(reply(401, {"WWW-Authenticate": "Basic realm=x"})) as server:
        with pytest.raises(SourceError):
            open_remote(GitSource(f"{server.url}/r.git"), store)
        assert server.authorizations == []
        assert not any(b"X-Home" in head for head in server.requests)
    assert not (home.parent / "mark").exists()


@needs_git
def test_a_token_for_git_goes_to_its_host_only(home: Path, store: Store) -> None:
    """`GIT_AUTH_TOKEN` is sent to the host of the URL; a redirect is not followed with it."""
    with raw_server(reply(404)) as other:
        with raw_server(reply(302, {"Location": f"{other.url}/r.git/info/refs"})) as server:
            for secrets in (
                {"GIT_AUTH_TOKEN": b"t0ken"},
                {f"GIT_AUTH_HEADER.{server.host}": b"Bearer t0ken"},
            ):
                with pytest.raises(SourceError) as caught:
                    open_remote(GitSource(f"{server.url}/r.git"), store, Access(secrets))
                assert "t0ken" not in str(caught.value)
            assert any(a.startswith(b"basic ") for a in server.authorizations)
            assert b"Bearer t0ken" in server.authorizations
            count = len(server.authorizations)
            secrets = {"GIT_AUTH_TOKEN.other.example": b"t0ken"}
            with pytest.raises(SourceError):
                open_remote(GitSource(f"{server.url}/r.git"), store, Access(secrets))
            assert len(server.authorizations) == count
        assert other.authorizations == []


@needs_git
@pytest.mark.parametrize(
    "url",
    ["ext::sh -c 'touch {mark}'", "file://{path}", "{path}", "fd::0", "--upload-pack=touch {mark}"],
)
def test_other_protocols_are_not_spoken(tmp_path: Path, store: Store, url: str) -> None:
    """No helper of git's runs, and no repository of this machine is read, by whatever way a
    source was made."""
    place, mark = tmp_path / "r", tmp_path / "mark"
    place.mkdir()
    git(place, "init", "-q")
    git(place, "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(SourceError):
        open_remote(GitSource(url.format(mark=mark, path=place)), store)
    assert not mark.exists()


@needs_git
def test_a_submodule_is_no_way_out(repository: Repository, store: Store, tmp_path: Path) -> None:
    """A submodule of a local path, of ext:: or of ssh:// is not fetched."""
    secret = tmp_path / "secret"
    secret.mkdir()
    git(secret, "init", "-q")
    git(secret, "commit", "-q", "--allow-empty", "-m", "x")
    commit = git(secret, "rev-parse", "HEAD").strip()
    for url in (
        str(secret),
        f"file://{secret}",
        f"ext::touch {tmp_path}/mark",
        "ssh://127.0.0.1/x",
    ):
        (repository.work / ".gitmodules").write_text(
            f'[submodule "s"]\n\tpath = s\n\turl = {url}\n\tupdate = checkout\n'
        )
        git(repository.work, "update-index", "--add", "--cacheinfo", f"160000,{commit},s")
        git(repository.work, "add", ".gitmodules")
        git(repository.work, "commit", "-q", "-m", "submodule")
        repository.publish()
        with pytest.raises(SourceError):
            open_remote(GitSource(repository.url), store)
    assert not (tmp_path / "mark").exists()
    without = open_remote(GitSource(repository.url, submodules=False), store)
    assert without.lookup(b"a") is not None


def test_ssh_uses_no_key_and_no_configuration(tmp_path: Path, home: Path) -> None:
    """ssh gets neither the user's configuration nor keys nor agent; an agent only by name."""
    command = _environment("git@host:r.git", str(tmp_path), Access())["GIT_SSH_COMMAND"]
    assert command.startswith("ssh -F none ")
    for option in ("IdentityFile=none", "IdentityAgent=none", "StrictHostKeyChecking=yes"):
        assert option in command
    given = Access({}, {"default": "/run/the agent"})
    command = _environment("git@host:r.git", str(tmp_path), given)["GIT_SSH_COMMAND"]
    assert "/run/the agent" in command
    if shutil.which("ssh"):
        import shlex

        shown = subprocess.run(
            [*shlex.split(command), "-G", "host"], capture_output=True, text=True, check=True
        ).stdout
        assert "identityagent /run/the agent" in shown
        assert "proxycommand" not in shown


def test_the_environment_of_git_is_ours(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the builder's environment only a list of names passes; a token is no argument."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    found = _environment("https://h/r.git", "/empty", Access({"GIT_AUTH_TOKEN": b"t"}))
    assert "hunter2" not in str(found)
    assert str(tmp_path / "program") not in str(found)
    assert found["HOME"] == "/empty"
    assert found["GIT_ALLOW_PROTOCOL"] == "https"
    access = Access({"GIT_AUTH_TOKEN": b"t0ken"})
    git = Git("https://h/r.git", "/e", access, UnpackAllowance(1 << 30), "/e")
    assert "t0ken" not in repr(git)


def bytes_of(tree: Tree, path: bytes = b"") -> dict[bytes, bytes]:
    """All files of a tree with their modes."""
    found: dict[bytes, bytes] = {}
    for name in tree.children(path):
        whole = path + b"/" + name if path else name
        node = tree.lookup(whole)
        assert node is not None
        if stat.S_ISDIR(node.mode):
            found |= bytes_of(tree, whole)
        elif stat.S_ISREG(node.mode):
            with tree.open(whole) as content:
                found[whole] = b"%o " % node.mode + content.read()
    return found


@needs_git
def test_a_kept_git_directory_is_the_same_each_time(repository: Repository, store: Store) -> None:
    """Two fetches give one tree, byte by byte; it is known by all that shows in it, the URL and
    what was checked out; and git works in it."""
    source = GitSource(repository.url, keep_git_dir=True)
    first = open_remote(source, store)
    time.sleep(1.1)
    git(repository.bare, "gc", "-q")
    git(repository.bare, "update-server-info")
    again = open_remote(source, store)
    assert bytes_of(first) == bytes_of(again)
    assert first.digest(b"") == again.digest(b"")
    config = bytes_of(first)[b".git/config"]
    assert repository.url.encode() in config
    other = f"{repository.url}/"
    moved = open_remote(GitSource(other, keep_git_dir=True), store)
    assert moved.digest(b"") != first.digest(b"")
    tagged = open_remote(GitSource(repository.url, "v1", keep_git_dir=True), store)
    assert bytes_of(tagged)[b".git/HEAD"] == bytes_of(first)[b".git/HEAD"]


@needs_git
def test_a_kept_git_directory_works(repository: Repository, store: Store, tmp_path: Path) -> None:
    """git knows the commit and sees no change, also where history was left behind."""
    (repository.work / "a").write_text("three\n")
    commit = repository.commit("second")
    repository.publish()
    tree = open_remote(GitSource(repository.url, keep_git_dir=True), store)
    place = tmp_path / "out"
    for path, data in bytes_of(tree).items():
        mode, _, content = data.partition(b" ")
        file = place / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(int(mode, 8) & 0o7777)
    for name in ("refs/heads", "objects/info"):
        (place / ".git" / name).mkdir(parents=True, exist_ok=True)
    assert git(place, "rev-parse", "HEAD").strip() == commit
    assert git(place, "status", "--porcelain") == ""
    assert git(place, "log", "--format=%s").split() == ["second"]
    git(place, "fsck", "--strict")


@needs_git
def test_forms_of_a_git_url(repository: Repository, store: Store) -> None:
    """A query says what a fragment says, and more."""
    recipe = f"FROM scratch\nADD {repository.url}?branch=side&subdir=sub /d/\n"
    from layercache.dockerfile.lowering.lower import lower
    from layercache.dockerfile.lowering.options import Lowered, Options

    def source(line: str) -> GitSource:
        lowered = lower(Dockerfile.parse(line).instructions, Options(), {})
        assert isinstance(lowered, Lowered)
        return next(v for v in lowered.graph.vertices if isinstance(v, GitSource))

    found = source(recipe)
    assert found == GitSource(repository.url, "refs/heads/side", "sub")
    assert open_remote(found, store).lookup(b"tool") is not None
    tag = source(f"FROM scratch\nADD {repository.url}?tag=v1&keep-git-dir=1 /d/\n")
    assert tag == GitSource(repository.url, "refs/tags/v1", keep_git_dir=True)
    assert open_remote(tag, store).lookup(b".git/HEAD") is not None
    commit = source(f"FROM scratch\nADD {repository.url}?checksum={repository.first} /d/\n")
    assert commit == GitSource(repository.url, repository.first, checksum=repository.first)
    assert open_remote(commit, store).lookup(b"a") is not None
    plain = source(f"FROM scratch\nADD {repository.url}?ref=v1&submodules=0 /d/\n")
    assert plain == GitSource(repository.url, "v1", submodules=False)
