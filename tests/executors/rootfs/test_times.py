"""Tools that compare times build from the sources of this build, with make itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layercache.builds.result import BuildResult
from layercache.executors.rootfs.seal import damaged_copies
from tests.executors.tracing.machines import Machine, base_layout, has_busybox

MAKEFILE = b"""\
out/all: out/a out/b
\tcat out/a out/b > $@; echo all >> $(LOG)
out/%: src/%
\tcat $< > $@; echo $* >> $(LOG)
"""

HEAD = "FROM base\nENV PATH=/bin:/usr/bin\nRUN chmod 755 /usr/bin/make /lib*/ld-*\n"

CACHED = "RUN --mount=type=cache,target=/w/out cd /w && make -s LOG=/log && cp out/all /all"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox image with make."""
    make = shutil.which("make")
    if not has_busybox() or make is None:
        pytest.skip("no busybox or make: apt-get install busybox-static make")
    said = subprocess.run(["ldd", make], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in said.split() if word.startswith("/")]
    extra: dict[str, Any] = {
        path.lstrip("/"): Path(path).read_bytes() for path in (make, *libraries)
    }
    return base_layout(tmp_path_factory.mktemp("make"), extra)


@pytest.fixture(params=["root", "rootless"])
def build(
    request: pytest.FixtureRequest, tmp_path: Path, base: Path
) -> Iterator[Callable[..., BuildResult]]:
    """Builds a recipe on the base with files of `/w` as its context."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    machine = Machine(tmp_path / "machine", base, rootless=request.param == "rootless")

    def run(steps: str, files: dict[str, bytes], **more: Any) -> BuildResult:
        text = HEAD + steps
        return machine.build(text, {"Makefile": MAKEFILE, **files}, **more)

    yield run
    machine.close()


def read(result: BuildResult, path: str) -> bytes:
    """A file of the last stage."""
    with result.tree().open(path.lstrip("/").encode()) as content:
        data: bytes = content.read()
        return data


def sources(a: str, b: str = "b\n") -> dict[str, bytes]:
    return {"src/a": a.encode(), "src/b": b.encode()}


@pytest.mark.parametrize("how", ["COPY . /w", "bind"])
def test_a_cache_mount_gives_the_program_of_this_build(
    build: Callable[..., BuildResult], how: str
) -> None:
    """Edited, and edited back: what the edit concerns is built again, and nothing else."""
    text = f"COPY . /w\nRUN mkdir -p /w/out\n{CACHED}"
    if how == "bind":
        bind = "--mount=type=bind,source=src,target=/w/src"
        cached = CACHED.replace("RUN ", f"RUN {bind} ")
        text = f"COPY Makefile /w/\nRUN mkdir -p /w/out /w/src\n{cached}"
    logs = []
    for n, a in enumerate(("one\n", "two\n", "one\n")):
        result = build(f"{text} && : {n}", sources(a))
        assert read(result, "/all") == a.encode() + b"b\n"
        logs.append(sorted(read(result, "/log").split()))

    assert logs == [[b"a", b"all", b"b"], [b"a", b"all"], [b"a", b"all"]]


def test_nothing_is_built_again_without_an_edit(build: Callable[..., BuildResult]) -> None:
    """Another text of the command, a step more above: all is up to date."""
    steps = f"COPY . /w\nRUN mkdir -p /w/out\n{CACHED}"
    build(steps, sources("one\n"))
    again = build(f"RUN touch /new\n{steps}; touch /log", sources("one\n"))

    assert read(again, "/log") == b""
    assert read(again, "/all") == b"one\nb\n"


def test_a_dummy_program_gives_way_to_the_real_one(build: Callable[..., BuildResult]) -> None:
    """Sources that are copied over those of an earlier build are newer than what that made."""
    text = (
        "COPY Makefile /w/\nRUN cd /w && mkdir -p src out && touch src/a src/b && make LOG=/l\n"
        "COPY src /w/src\nRUN cd /w && make LOG=/l2"
    )
    assert read(build(text, sources("real\n")), "/w/out/all") == b"real\nb\n"


@pytest.mark.parametrize("over", ["", HEAD + "COPY --from=0 /w /w\n"])
def test_what_was_built_is_not_built_again(build: Callable[..., BuildResult], over: str) -> None:
    """Make after make says that all is up to date, also where COPY --from took the tree over."""
    text = (
        f"COPY . /w\nRUN cd /w && mkdir out && make LOG=/l\n{over}"
        "RUN cd /w && touch /l2 && make LOG=/l2"
    )

    assert read(build(text, sources("a\n")), "/l2") == b""


def test_a_stale_tree_stays_stale_when_it_is_copied(build: Callable[..., BuildResult]) -> None:
    """COPY --from keeps that a source is newer than what was made of an earlier one."""
    text = (
        "COPY . /w\nRUN cd /w && mkdir out && make LOG=/l\nRUN echo new > /w/src/a\n"
        f"{HEAD}COPY --from=0 /w /w\nRUN cd /w && make LOG=/l2"
    )
    assert read(build(text, sources("a\n")), "/w/out/all") == b"new\nb\n"


def test_an_edit_in_a_command_counts(build: Callable[..., BuildResult]) -> None:
    """A RUN that edits a source is later than the RUN that built; one that gives files another
    mode changes no order."""
    text = (
        "COPY . /w\nRUN cd /w && mkdir out && make LOG=/l\nRUN sed -i s/a/edited/ /w/src/a\n"
        "RUN chmod -R 750 /w/out\nRUN cd /w && make LOG=/l2"
    )
    result = build(text, sources("a\n"))
    assert read(result, "/w/out/all") == b"edited\nb\n"
    assert sorted(read(result, "/l2").split()) == [b"a", b"all"]


TEXTS = st.sampled_from(["x\n", "y\n"])

STEP = st.fixed_dictionaries(
    {
        "a": TEXTS,
        "b": TEXTS,
        "above": st.booleans(),  # another instruction above: every time below is another
        "edit": st.booleans(),  # a command edits a source
        "over": st.booleans(),  # a build of other sources comes first, without the cache
        "no_cache": st.integers(0, 5).map(lambda n: not n),
    }
)


def check_history(build: Callable[..., BuildResult], history: list[dict[str, Any]]) -> None:
    """Builds of several recipes over one cache give the programs of their own sources."""
    for n, step in enumerate(history):
        text = "RUN touch /other\n" * step["above"]
        if step["over"]:
            text += (
                "COPY Makefile /w/\nRUN cd /w && mkdir -p src plain && ln -s plain out && "
                "touch src/a src/b && make -s LOG=/l && rm out\n"
            )
        text += "COPY . /w\nRUN mkdir -p /w/out\n"
        text += "RUN echo edited > /w/src/a\n" * step["edit"]
        text += f"{CACHED} && : {n}\n"
        if step["over"]:
            text += (
                "RUN cd /w && rmdir out && ln -s plain out && make -s LOG=/l && cp out/all /all2"
            )
        result = build(text, sources(step["a"], step["b"]), no_cache=step["no_cache"])
        wanted = ("edited\n" if step["edit"] else step["a"]) + step["b"]
        assert read(result, "/all") == wanted.encode()
        if step["over"]:
            assert read(result, "/all2") == wanted.encode()


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=st.lists(STEP, min_size=1, max_size=4))
def test_the_output_is_that_of_the_sources(
    build: Callable[..., BuildResult], history: list[dict[str, Any]]
) -> None:
    """Edits and reverts, several recipes over one cache: never the program of other sources."""
    check_history(build, history)


@pytest.mark.soak
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=st.lists(STEP, min_size=2, max_size=12))
def test_the_output_is_that_of_the_sources_for_long(
    build: Callable[..., BuildResult], history: list[dict[str, Any]]
) -> None:
    check_history(build, history)


def test_no_cache_empties_a_cache_mount_once(build: Callable[..., BuildResult]) -> None:
    """Before the first step that uses it; the next step finds what that one left."""
    mount = "--mount=type=cache,id=pk,target=/pk"
    text = (
        f"RUN {mount} ls /pk > /before && echo i > /pk/i\n"
        f"RUN {mount} cat /pk/i > /kept\n"
        f"FROM base\nCOPY --from=0 /kept /before /\nRUN {mount} cat /pk/i > /other"
    )
    for no_cache in (False, True, True):
        result = build(text, {}, no_cache=no_cache)
        assert [read(result, name) for name in ("/before", "/kept", "/other")] == [
            b"",
            b"i\n",
            b"i\n",
        ]


def test_seals_hold_for_shown_times(tmp_path: Path, base: Path) -> None:
    """What is unpacked with other times than its layer has is whole to `cache verify`, also in
    the next process; another time is not."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    text = f"{HEAD}COPY . /w\nRUN mkdir -p /w/out\n{CACHED}\nRUN ls /w"
    files = {"Makefile": MAKEFILE, **sources("one\n")}
    for n in range(2):
        machine = Machine(tmp_path / "machine", base)
        machine.build(f"{text} && : {n}", files)
        machine.close()
        assert damaged_copies(str(tmp_path / "machine" / "rootfs")) == []
    copies = (tmp_path / "machine" / "rootfs" / "unpacked").glob("*/fs/w/src/a")
    copy = next(copies)
    os.utime(copy, (1, 1))
    [damaged] = damaged_copies(str(tmp_path / "machine" / "rootfs"))
    assert copy.is_relative_to(damaged)
