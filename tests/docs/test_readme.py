"""The README: its commands are those that CI runs, its examples run, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, below: str = "") -> list[str]:
    """The code blocks of a language, in the section with the heading `below` or everywhere."""
    text = README
    if below:
        text = README.partition(f"\n## {below}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def python(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a reader would: in a process of its own, in a directory of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_test_command_is_what_ci_runs() -> None:
    """The one command of "Run the tests" is a script of the repository, and CI calls it."""
    command, *others = blocks("sh", "Run the tests")
    script = ROOT / command.split()[0]

    assert [] == others
    assert "./.ci/test\n" == command
    assert os.access(script, os.X_OK)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert command.split()[0] in (ROOT / ".ci" / "run").read_text()


def test_the_main_job_is_one_command(tmp_path: Path) -> None:
    """The first command of "Run it" is one line, and what it runs after its set-up works."""
    command = blocks("sh", "Run it")[0]
    assert 1 == command.count("\n")
    setup, run = command.rsplit("&&", 1)
    assert "venv .venv" in setup
    assert "pip install --quiet ." in setup
    run = run.replace("PYTHON=.venv/bin/python", f"PYTHON={sys.executable}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", run], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "went as the guide says" in done.stdout
    shown = blocks("text", "Run it")[0]
    if "npm" in done.stdout:
        assert shown in done.stdout


def test_the_further_commands_work(tmp_path: Path) -> None:
    """The other commands of "Run it" do what they say, on the variant that needs only Python."""
    for line in blocks("sh", "Run it")[1].splitlines():
        assert line.startswith(".venv/bin/layercache ")
        words = line.replace("node-app", "python-app").split()[1:]
        done = subprocess.run(
            [sys.executable, "-m", "layercache", words[0], "--cache", str(tmp_path), *words[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr


def test_the_python_examples_run(tmp_path: Path) -> None:
    """Each works as it stands; the first shows the one step that ran, and why."""
    first, second = blocks("python", "From Python")
    done = python(first, tmp_path)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert ["None", "hit", "hit", "miss"] == [line.split()[0] for line in lines[:4]]
    assert "server.py" in done.stdout
    assert python(second, tmp_path).returncode == 0


def test_the_unit_test_example_runs(tmp_path: Path) -> None:
    """The three lines pass as a test of somebody's project, with the plugin asked for."""
    pytest.importorskip("layercache.testing.pytest_plugin")
    (example,) = blocks("python", "Test your recipe")
    recipe = (ROOT / "docs" / "examples" / "node-app" / "Dockerfile").read_text()
    recipe = "".join(line for line in recipe.splitlines(True) if not line.startswith("ADD"))
    (tmp_path / "test_recipe.py").write_text(f"DOCKERFILE = {recipe!r}\n\n\n{example}")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "layercache.testing.pytest_plugin",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_to_files(name: str) -> None:
    """Every relative link is to something in the repository."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)

    assert links
    assert [] == [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_it_says_what_workspace_does_not_do() -> None:
    """A reader learns before the first build that nothing is isolated and nothing is pulled."""
    section = README.partition("## Run it")[2].partition("\n## ")[0]

    assert "isolates nothing" in section
    assert "**name only**" in section
