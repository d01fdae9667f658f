"""What users install: built once from this checkout, then looked into."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source archive and the wheel that was made from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    """The wheel."""
    return zipfile.ZipFile(next(built.glob("*.whl")))


def metadata(wheel: zipfile.ZipFile) -> dict[str, list[str]]:
    """Its metadata: name of a header -> values."""
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    message = Parser().parsestr(wheel.read(name).decode())
    return {key: [str(value) for value in message.get_all(key, [])] for key in message}


def test_wheel_has_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Every module and the marker for type checkers; no tests, docs or other top-level names."""
    names = wheel.namelist()
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "layercache").rglob("*.py")
        if "__pycache__" not in path.parts
    }

    assert {"layercache"} == {n.split("/")[0] for n in names if ".dist-info/" not in n}
    assert "layercache/py.typed" in names
    assert modules <= set(names)


def test_wheel_names_the_distribution(wheel: zipfile.ZipFile) -> None:
    """`layercache-engine`, with the licence, the Python it needs and the script."""
    found = metadata(wheel)
    scripts = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))

    assert ["layercache-engine"] == found["Name"]
    assert ["Apache-2.0"] == found["License-Expression"]
    assert [">=3.11"] == found["Requires-Python"]
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert "layercache = layercache.cli:script" in wheel.read(scripts).decode()


def test_core_needs_three_packages(wheel: zipfile.ZipFile) -> None:
    """Without extras: attrs, blake3 and fsspec, and no others."""
    needs = [need for need in metadata(wheel)["Requires-Dist"] if "extra ==" not in need]

    assert ["attrs", "blake3", "fsspec"] == sorted(re.split(r"[ <>=!~;\[]", n)[0] for n in needs)


def test_source_archive_can_be_tested(built: Path) -> None:
    """It has the tests, the documentation, the licence, and what runs the tests."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    wanted = {"LICENSE", "README.md", "CHANGELOG.md", ".ci/test", "tests/conftest.py"}
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".git/")]


def test_wheel_works_where_nothing_else_is(built: Path, tmp_path: Path) -> None:
    """Unpacked away from this checkout, the module runs and plans a Dockerfile."""
    site = tmp_path / "site"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import layercache; "
        "print(layercache.__file__); from layercache.cli import main; "
        f"sys.exit(main(['plan', '--cache', {str(tmp_path / 'cache')!r}, {str(context)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert "COPY Dockerfile /" in done.stdout


def test_every_extra_that_an_error_names_exists() -> None:
    """`MissingExtra` tells people to install an extra: it must be one of ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set()
    for path in (ROOT / "layercache").rglob("*.py"):
        named |= set(re.findall(r"MissingExtra\([^)]*\"([a-z0-9]+)\"\)", path.read_text()))

    assert named
    assert named <= set(project["optional-dependencies"])


def test_nothing_installs_the_other_project() -> None:
    """No text tells anybody to install the unrelated distribution of the same import name."""
    told = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*"), *ROOT.glob("layercache/**/*.py")]:
        if path.is_file() and "_build" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="replace")
            told += re.findall(r"pip install[^\n]*\blayercache(?![-\w])[^\n]*", text)

    assert [] == [line for line in told if "layercache-engine" not in line]


def test_the_suites_that_ci_describes_exist() -> None:
    """Each has tests, and each test whose randomised cases are stated is there by that name."""
    described = tomllib.loads((ROOT / ".ci" / "suites.toml").read_text())["suites"]
    text = {
        name: "".join(path.read_text() for path in (ROOT / "tests" / name).glob("test_*.py"))
        for name in described
    }

    assert [] == [name for name, content in text.items() if not content]
    for name, content in text.items():
        stated = described[name].get("cases", {})
        missing = [t for t in stated if t.startswith("test_") and f"def {t}(" not in content]
        assert [] == missing, name
