"""Real tools that compare times: ninja, CMake, `cp -u`, `find -newer`, Python and pip."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layercache.builds.result import BuildResult
from layercache.model.layer_times import LAYER_TIME
from layercache.model.logical_clock import Clock
from tests.executors.tracing.machines import Machine, base_layout, has_busybox

PROGRAMS = ("/usr/bin/ninja", "/usr/bin/cmake", "/usr/bin/cp", "/usr/bin/find")
PYTHON = Path("/usr/bin/python3.11")
LIBRARY = Path("/usr/lib/python3.11")
PIP = Path("/usr/lib/python3/dist-packages/pip")
LEFT_OUT = {"test", "idlelib", "tkinter", "turtledemo", "lib2to3", "__pycache__", "ensurepip"}

HEAD = "FROM base\nENV PATH=/usr/bin:/bin\n"

UPDATE = "RUN --mount=type=cache,target=/c /usr/bin/cp -u /w/src/a /c/a && cp /c/a /all"

NINJA = b"""\
builddir = out
rule cat
  command = cat $in > $out && echo $out >> /log
build out/a: cat src/a
build out/b: cat src/b
build out/all: cat out/a out/b
"""

CMAKE = b"""\
cmake_minimum_required(VERSION 3.20)
project(x NONE)
set(S ${CMAKE_SOURCE_DIR}/src)
add_custom_command(OUTPUT a COMMAND cat ${S}/a > a COMMAND echo a >> /log DEPENDS ${S}/a)
add_custom_command(OUTPUT b COMMAND cat ${S}/b > b COMMAND echo b >> /log DEPENDS ${S}/b)
add_custom_command(OUTPUT all.txt COMMAND cat a b > all.txt DEPENDS a b)
add_custom_target(app ALL DEPENDS all.txt)
"""


def of_programs(*programs: str | Path) -> dict[str, Any]:
    """Programs and the libraries that they load, by their names in an image."""
    found: dict[str, Any] = {}
    for program in map(str, programs):
        if not os.path.exists(program):
            pytest.skip(f"not installed: {program}")
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in (program, *(word for word in said.split() if word.startswith("/"))):
            found[path.lstrip("/")] = Path(path).read_bytes()
    return found


def of_directory(top: Path) -> dict[str, Any]:
    """The files below a directory, but for tests and what is compiled."""
    found: dict[str, Any] = {}
    for place, directories, names in os.walk(top):
        directories[:] = [name for name in directories if name not in LEFT_OUT]
        for path in (Path(place) / name for name in names):
            if path.is_file() and path.suffix != ".a":
                found[str(path).lstrip("/")] = path.read_bytes()
    return found


def needs_root() -> None:
    if os.geteuid() != 0 or not has_busybox():
        pytest.skip("needs root and busybox")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_root()
    extra = of_programs(*PROGRAMS)
    for modules in Path("/usr/share").glob("cmake-*"):
        extra |= of_directory(modules)
    return base_layout(tmp_path_factory.mktemp("tools"), extra)


@pytest.fixture(params=["root", "rootless"])
def build(
    request: pytest.FixtureRequest, tmp_path: Path, tools: Path
) -> Iterator[Callable[..., BuildResult]]:
    if request.param == "rootless" and shutil.which("newuidmap") is None:
        pytest.skip("no newuidmap")
    machine = Machine(tmp_path / "machine", tools, rootless=request.param == "rootless")
    unlock = "RUN chmod 755 /usr/bin/* /lib*/ld-*\n"

    def run(steps: str, a: str = "a\n", **more: Any) -> BuildResult:
        files = {
            "w/build.ninja": NINJA,
            "w/CMakeLists.txt": CMAKE,
            "w/src/a": a.encode(),
            "w/src/b": b"b\n",
        }
        return machine.build(HEAD + unlock + steps, files, **more)

    yield run
    machine.close()


def read(result: BuildResult, path: str) -> bytes:
    with result.tree().open(path.lstrip("/").encode()) as content:
        data: bytes = content.read()
    return data


@pytest.mark.parametrize(
    ("command", "program", "logs"),
    [
        ("ninja -C /w out/all", "/w/out/all", [b"out/a", b"out/all"]),
        ("cmake -S /w -B /w/out -G Ninja && ninja -C /w/out", "/w/out/all.txt", [b"a"]),
    ],
)
def test_a_cache_mount_gives_the_program_of_this_build(
    build: Callable[..., BuildResult], command: str, program: str, logs: list[bytes]
) -> None:
    """Edited and edited back: built again is what the edit concerns, and nothing else."""
    for n, a in enumerate(("one\n", "two\n", "one\n", "one\n")):
        text = (
            "COPY w /w\nRUN mkdir /w/out\nRUN --mount=type=cache,target=/w/out touch /log && "
            f"{command} && cp {program} /all && : {n}"
        )
        result = build(text, a)
        assert read(result, "/all") == a.encode() + b"b\n"
        built = sorted(read(result, "/log").split())
        if n:
            assert built == (logs if n < 3 else [])
        else:
            assert set(logs) < set(built)


def test_ninja_without_a_cache_mount(build: Callable[..., BuildResult]) -> None:
    """Nothing is built twice; what a later instruction replaced is built again."""
    text = (
        "COPY w /w\nRUN ninja -C /w out/all && rm /log && touch /log\nRUN ninja -C /w out/all\n"
        "RUN mv /log /before && echo new > /w/src/a\nRUN ninja -C /w out/all"
    )
    result = build(text)
    assert read(result, "/before") == b""
    assert sorted(read(result, "/log").split()) == [b"out/a", b"out/all"]
    assert read(result, "/w/out/all") == b"new\nb\n"


def test_cp_update_and_find_newer(build: Callable[..., BuildResult]) -> None:
    """`cp -u` into a cache copies each other content; `find -newer` sees what came later."""
    for n, a in enumerate(("one\n", "two\n", "one\n")):
        text = (
            "RUN touch /stamp\nCOPY w /w\n"
            "RUN /usr/bin/find /w /stamp -newer /stamp -type f -name a > /newer\n"
            f"RUN /usr/bin/find /stamp -newer /w/src/a >> /newer\n{UPDATE} && : {n}"
        )
        result = build(text, a)
        assert read(result, "/all") == a.encode()
        assert read(result, "/newer") == b"/w/src/a\n"


@pytest.mark.parametrize("build", ["root"], indirect=True)
def test_the_tests_tell_a_clock_that_stands_still(
    build: Callable[..., BuildResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control: with the times of layers, and caches that note nothing, tools are misled."""
    monkeypatch.setattr(Clock, "shown", lambda *_: LAYER_TIME)
    monkeypatch.setattr("layercache.executors.rootfs.mounts.show", lambda seen, *_, **__: {
        name: one.moment for name, one in seen.items()
    })  # fmt: skip
    last = b""
    for n, a in enumerate(("one\n", "two\n")):
        last = read(build(f"COPY w /w\n{UPDATE} && : {n}", a), "/all")
    assert last == b"one\n"


# -- Python -----------------------------------------------------------------------------------


def wheel() -> bytes:
    """A wheel with a package of two modules."""
    out = io.BytesIO()
    info = "greeting-1.0.dist-info"
    files = {
        "greeting/__init__.py": "from greeting.text import TEXT\n",
        "greeting/text.py": "TEXT = 'hello'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_root()
    if not PIP.is_dir() or not LIBRARY.is_dir():
        pytest.skip("no pip of the system's Python 3.11: apt-get install python3-pip")
    extra = of_programs(PYTHON, *LIBRARY.glob("lib-dynload/_*.so"))
    extra |= of_directory(LIBRARY) | of_directory(PIP)
    return base_layout(tmp_path_factory.mktemp("python"), extra)


@pytest.mark.parametrize("rootless", [False, True])
def test_pip_install_is_reproducible_and_compiled_once(
    tmp_path: Path, python: Path, *, rootless: bool
) -> None:
    """Two machines make one layer; imports in the image compile nothing."""
    install = (
        "python3.11 -m pip install -q --no-index --no-deps --no-cache-dir --root-user-action=ignore"
        " --disable-pip-version-check --break-system-packages /greeting*.whl"
    )
    text = (
        f"{HEAD}RUN chmod 755 /usr/bin/python3.11 /lib*/ld-*\nCOPY *.whl /\nRUN {install}\n"
        "RUN find /usr/local -name '*.pyc' | sort > /list && "
        "python3.11 -v -c 'import greeting; print(greeting.TEXT)' > /out 2> /said"
    )
    layers, said = set(), b""
    for name in ("one", "two"):
        machine = Machine(tmp_path / name, python, rootless=rootless)
        result = machine.build(text, {"greeting-1.0-py3-none-any.whl": wheel()})
        assert result.state is not None
        layers.add(result.state.layers[-2].diff_id)
        assert read(result, "/out") == b"hello\n"
        assert len(read(result, "/list").split()) == 2
        said = read(result, "/said")
        machine.close()
    about = [line for line in said.splitlines() if b"/dist-packages/greeting" in line]
    assert about
    assert not [line for line in about if b"wrote" in line or b"bytecode is stale" in line]
    assert len(layers) == 1


@pytest.mark.parametrize("rootless", [False, True])
def test_bytecode_is_kept_where_that_is_asked_for(
    tmp_path: Path, python: Path, *, rootless: bool
) -> None:
    """As compiled, by the time of the source, and with another key than without."""
    text = (
        f"{HEAD}RUN chmod 755 /usr/bin/python3.11 /lib*/ld-*\nRUN mkdir /m && echo A=1 > /m/a.py "
        "&& python3.11 -m py_compile /m/a.py"
    )
    for keep_bytecode, flags in ((False, 3), (True, 0)):
        machine = Machine(
            tmp_path / "machine", python, rootless=rootless, keep_bytecode=keep_bytecode
        )
        result = machine.build(text)
        assert read(result, "/m/__pycache__/a.cpython-311.pyc")[4] == flags
        machine.close()
