"""Builds of an ordinary user, in a user namespace: with a range of users, and with one only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Bench

REPOSITORY = Path(__file__).parents[3]
CHECKS = "tests.executors.rootfs.rootless_build"
USER = "layercache-" + os.environ.get("PYTEST_XDIST_WORKER", "test")

Check = Callable[..., str]


def _python(user: str) -> list[str]:
    """An interpreter of this version that `user` may run, with this one's packages."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if candidate:
            done = (
                subprocess.run(
                    [candidate, "-c", "import ctypes"],
                    user=user,
                    cwd="/",
                    capture_output=True,
                    check=False,
                )
                if _may(candidate, user)
                else None
            )
            if done is not None and done.returncode == 0:
                return [candidate]
    pytest.skip(f"no {version} that an ordinary user may run")


def _may(program: str, user: str) -> bool:
    try:
        subprocess.run([program, "-c", ""], user=user, cwd="/", capture_output=True, check=False)
    except PermissionError:
        return False
    return True


@pytest.fixture(scope="session")
def user() -> Iterator[str]:
    """The name of an ordinary user, made for these tests."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become an ordinary user")
    if shutil.which("useradd") is None:
        pytest.skip("no useradd")
    subprocess.run(["useradd", "--create-home", USER], capture_output=True, check=False)
    yield USER
    subprocess.run(["userdel", "--remove", USER], capture_output=True, check=False)


def _checker(user: str, path: str) -> Check:
    python = _python(user)
    home = tempfile.mkdtemp(prefix="layercache-rootless-")
    shutil.chown(home, user)
    packages = [str(REPOSITORY), *(p for p in sys.path if p.endswith("site-packages"))]
    environment = {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": home,
    }

    readable = subprocess.run(
        [*python, "-c", "import tests.executors.rootfs.rootless_build"],
        cwd="/",
        env=environment,
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    if readable.returncode:
        pytest.skip(f"an ordinary user can't use this checkout: {readable.stderr.decode()}")

    def check(name: str, *arguments: str, module: str = CHECKS) -> str:
        scratch = tempfile.mkdtemp(dir=home)
        shutil.chown(scratch, user)
        done = subprocess.run(
            [*python, "-m", module, name, f"{scratch}/s", *arguments],
            cwd="/",
            env=environment,
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            check=False,
            timeout=300,
        )
        said = done.stderr.decode()
        if "user namespaces are not allowed" in said:
            pytest.skip("user namespaces are not allowed here")
        assert done.returncode == 0, said
        return done.stdout.decode()

    check.home = home  # type: ignore[attr-defined]
    return check


@pytest.fixture(scope="session")
def ranged(user: str, busybox: bytes) -> Iterator[Check]:
    """Runs a check of `rootless_build` with a range of users."""
    if shutil.which("newuidmap") is None:
        pytest.skip("no newuidmap: apt-get install uidmap")
    if user not in Path("/etc/subuid").read_text():
        pytest.skip("useradd gave no range in /etc/subuid")
    check = _checker(user, os.environ["PATH"])
    yield check
    shutil.rmtree(check.home)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def single(user: str, busybox: bytes) -> Iterator[Check]:
    """Runs a check of `rootless_build` where newuidmap isn't to be found."""
    place = tempfile.mkdtemp()
    os.chmod(place, 0o755)
    program = shutil.which("busybox")
    assert program is not None
    os.symlink(program, f"{place}/busybox")
    check = _checker(user, place)
    yield check
    shutil.rmtree(check.home)  # type: ignore[attr-defined]
    shutil.rmtree(place)


@pytest.mark.parametrize(
    "name",
    [
        "mode_range",
        "commands",
        "opaque",
        "owners",
        "far_owners",
        "mounts",
        "cache_owners",
        "clean",
        "no_network",
        "isolation",
        "long_chain",
        "lower_links",
        "bad_image",
    ],
)
def test_with_a_range_of_users(ranged: Check, name: str) -> None:
    """What works as root works in a user namespace with a range, devices apart."""
    ranged(name)


@pytest.mark.parametrize(
    "name",
    [
        "mode_single",
        "commands",
        "opaque",
        "lower_links",
        "single_owners",
        "foreign_owners_stay",
        "mounts",
        "clean",
        "no_network",
        "isolation",
    ],
)
def test_with_one_user(single: Check, name: str) -> None:
    """Without newuidmap everything works that needs no second user; what does says so."""
    single(name)


def test_layers_do_not_depend_on_the_mode(ranged: Check, single: Check, bench: Bench) -> None:
    """One step, three modes, the same bytes."""
    result = bench.sh("rm /bin/wc; mkdir -p /a/b; echo x > /a/b/c; chmod 750 /a")
    assert result.layer is not None
    expected = result.layer.diff_id

    assert [expected] * 2 == [check("layers_are_root_s").strip() for check in (ranged, single)]
