"""A command in a workspace finds the same whether the steps before it ran or were reused."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layercache import Builder, BuildError, Dockerfile, Workspace
from layercache.builds.result import BuildResult

PYTHON = shlex.quote(sys.executable)
CONTEXT = {"d/y": "1", "d/z": "1"}
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
_CAPABILITY = struct.pack("<5I", 0x02000000, 1, 0, 0, 0)


def python(code: str) -> str:
    return f"{PYTHON} -c {shlex.quote(code)}"


def built(directory: Path, text: str, *, again: int | None = None) -> BuildResult:
    """A build over one cache; with `again` only that step is executed, on a fresh root."""
    if again is not None:
        shutil.rmtree(directory / "workspace")
    builder = Builder(directory / "cache", executor=Workspace(directory / "workspace"))
    return builder.build(
        Dockerfile.parse(text),
        context=CONTEXT,
        no_cache=lambda origin: origin.index == again,
    )


LEFT = {
    "names of one file": ("echo a > a && ln a b", "echo x >> a && cat b"),
    "a link to an equal file": ("ln -f d/y d/z", "echo x >> d/y && cat d/z"),
    "the time of a directory that got a file": ("touch d/x", "stat -c %Y d"),
    "the time of a directory made anew": ("rm -r d && mkdir d", "stat -c %Y d"),
    "the time of a file with the bytes it had": ("cp d/y q && cat q > d/y", "stat -c %Y d/y"),
    "a time that was set": ("touch -d 1999-01-01 d d/y", "stat -c %Y d d/y"),
    "the mode of the root": ("chmod 711 .", "stat -c %a ."),
    "an attribute": (
        python("import os; os.setxattr('d/y', 'user.mark', b'1')"),
        python("import os; print(os.listxattr('d/y'))"),
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the commands are those of Linux")
@pytest.mark.parametrize("left", LEFT)
def test_nothing_is_left_that_no_layer_holds(tmp_path: Path, left: str) -> None:
    """What an earlier command leaves in the root besides its layer is not seen by a later one."""
    make, look = LEFT[left]
    text = f"FROM x\nCOPY . .\nRUN {make}\nRUN {look} > seen\n"
    first = built(tmp_path, text)
    second = built(tmp_path, text, again=3)

    assert [step.decision for step in second.steps] == [None, "hit", "hit", "miss"]
    assert second.image == first.image


@pytest.mark.skipif(sys.platform != "linux" or not ROOT, reason="only root may do this")
@pytest.mark.parametrize(
    ("make", "look"),
    [
        ("chown -R 1000:1001 d", "stat -c %u:%g d d/y"),
        (
            python(f"import os; os.setxattr('d/y', 'security.capability', {_CAPABILITY!r})"),
            python("import os; print(os.listxattr('d/y'))"),
        ),
    ],
    ids=["owners", "capabilities"],
)
def test_what_only_root_can_leave(tmp_path: Path, make: str, look: str) -> None:
    """Owners go, as in no layer of a workspace; capabilities stay, as in every layer."""
    text = f"FROM x\nCOPY . .\nRUN {make}\nRUN {look} > seen\n"
    first = built(tmp_path, text)
    second = built(tmp_path, text, again=3)

    assert second.image == first.image


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX has the umask")
def test_the_umask_of_the_caller_changes_nothing(tmp_path: Path) -> None:
    """Modes of what a command makes are in its layer, and the caller's umask is in no key."""
    text = "FROM x\nRUN touch f && mkdir d && stat -c %a . f d > seen\n"
    found = []
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            found.append(built(tmp_path / f"{mask:o}", text).image)
        finally:
            os.umask(before)

    assert found[0] == found[1]


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are a shell's")
def test_a_root_that_became_a_link_leads_nowhere(tmp_path: Path) -> None:
    """What it points at is neither taken for the result nor touched by the next build."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("1")
    text = f"FROM x\nRUN rm -r $LAYERCACHE_ROOT && ln -s {outside} $LAYERCACHE_ROOT\n"

    with pytest.raises(BuildError, match="root directory"):
        built(tmp_path, text)
    built(tmp_path, "FROM x\nRUN touch here\n")
    assert os.listdir(outside) == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are a shell's")
@pytest.mark.parametrize("target", ["/d/y", "/d/y/s"])
def test_a_secret_covers_no_file(tmp_path: Path, target: str) -> None:
    """It can't be put where something is, and says so."""
    executor = Workspace(tmp_path / "workspace", secrets={"s": b"hunter2"})
    text = f"FROM x\nCOPY . .\nRUN --mount=type=secret,id=s,target={target} true\n"

    with pytest.raises(BuildError, match="the secret 's' can't be put at"):
        Builder(None, executor=executor).build(Dockerfile.parse(text), context=CONTEXT)


@pytest.mark.skipif(sys.platform != "linux" or not ROOT, reason="only root may do this")
def test_a_device_is_refused_when_it_is_made(tmp_path: Path) -> None:
    """Not only when it would have to be restored."""
    with pytest.raises(BuildError, match="device"):
        built(tmp_path, "FROM x\nRUN mknod n c 1 3\n")


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are a shell's")
def test_where_the_build_is_started_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script of the workspace is not looked for in the caller's directory."""
    text = "FROM x\nRUN echo true > tool && chmod +x tool\nRUN ./tool\n"
    built(tmp_path, text)
    (tmp_path / "tool").write_text("echo another\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)

    assert [step.decision for step in built(tmp_path, text).steps] == [None, "hit", "hit"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX has TZ")
def test_the_time_zone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host lets commands see and everyday commands go by is in their keys."""
    text = "FROM x\nRUN date -d @0 > seen || date -r 0 > seen\n"
    monkeypatch.setenv("TZ", "UTC")
    first = built(tmp_path, text)
    monkeypatch.setenv("TZ", "JST-9")
    second = built(tmp_path, text)

    assert second.steps[1].decision == "miss"
    assert first.image != second.image


DAEMON = (
    "setsid sh -c 'touch begun; sleep 3; touch late; sleep 30' > /dev/null 2>&1 & "
    "until [ -e begun ]; do :; done"
)


@pytest.mark.skipif(sys.platform != "linux", reason="found by /proc")
def test_a_daemon_ends_with_its_command(tmp_path: Path) -> None:
    """Though it is in no process group of it: it could write into later steps."""
    text = f"FROM x\nRUN {DAEMON}\nRUN sleep 3.2; ls > seen\n"
    result = built(tmp_path, text)

    assert result.tree().lookup(b"late") is None


@pytest.mark.skipif(sys.platform != "linux", reason="found by /proc")
def test_what_a_killed_build_left_running_is_ended(tmp_path: Path) -> None:
    """The next build of the workspace begins with it, and finds nothing of its doing."""
    command = "touch begun; sleep 1.5; touch late; sleep 30"
    (tmp_path / "Dockerfile").write_text(f"FROM x\nRUN {command}\n")
    code = (
        "from layercache import Builder, Dockerfile, Workspace; import sys; where = sys.argv[1];"
        "builder = Builder(None, executor=Workspace(where + '/workspace'));"
        "builder.build(Dockerfile.load(where + '/Dockerfile'), context={})"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    while not list((tmp_path / "workspace").rglob("begun")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()

    result = built(tmp_path, "FROM x\nRUN sleep 2; ls > seen\n")
    with result.tree().open(b"seen") as content:
        assert content.read() == b"seen\n"
    assert not (tmp_path / "workspace" / "0" / "running").exists()
