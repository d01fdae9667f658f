"""Advice: measured over histories, legal, ranked, never made up."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.advice.advise import AdviceStep, RecipeVersion, advise, rebuild_seconds
from layercache.advice.versions import plain_graph, steps_of
from layercache.cli import main
from layercache.dockerfile.recipe import Dockerfile

DOCKERFILE = "FROM node:20\nCOPY . .\nRUN npm ci\nRUN node build.js\n"


def steps() -> tuple[AdviceStep, ...]:
    """The worst order: everything is copied before the install."""
    return (
        AdviceStep(
            place=(0, 1), op="COPY", text="COPY . .", seconds=0.1, sources=(".",),
            destination="/", line=2, end_line=2,
        ),
        AdviceStep(place=(0, 2), op="RUN", text="RUN npm ci", seconds=60.0, line=3, end_line=3),
        AdviceStep(
            place=(0, 3), op="RUN", text="RUN node build.js", seconds=5.0, line=4, end_line=4
        ),
    )  # fmt: skip


FILES = ("package.json", "package-lock.json", "src/a.js", "README.md", "build.js")


def versions(*changes: tuple[str, ...]) -> list[RecipeVersion]:
    return [RecipeVersion(str(n), {(0, 1): paths}) for n, paths in enumerate(changes)]


def test_an_install_that_reruns_for_sources_is_told_to_copy_its_manifests_first() -> None:
    """Three source edits, one of the manifest: the install would have run once, not 4 times."""
    history = versions(("src/a.js",), ("src/a.js",), ("package.json",), ("src/a.js",))
    found = advise(steps(), history, dockerfile=DOCKERFILE, files=FILES)
    best = found[0]

    assert best.kind == "split"
    assert best.saved_seconds == pytest.approx(179.9)
    assert best.rebuilds == 3
    assert "+COPY package-lock.json package.json /\n" in best.diff
    assert best.doubt


def test_files_that_images_seldom_need_are_told_to_be_ignored() -> None:
    """A README that changes alone costs whole builds."""
    history = versions(("README.md",), ("README.md",), ("src/a.js",))
    found = [a for a in advise(steps(), history, files=FILES) if a.kind == "ignore"]

    assert found[0].title == "add '*.md' to .dockerignore"
    assert found[0].saved_seconds == pytest.approx(130.2)
    assert advise(steps(), history, files=FILES, ignore_file="*.md\n")[0].kind != "ignore"


def test_nothing_is_proposed_where_nothing_would_be_saved() -> None:
    """A history in which only the manifest changed has nothing to gain."""
    assert advise(steps(), versions(("package.json",)), dockerfile=DOCKERFILE, files=FILES) == ()
    assert advise(steps(), [], files=FILES) == ()


def test_a_command_that_names_what_is_copied_is_never_moved_before_it() -> None:
    """`RUN make -C src` after `COPY src`: the copy may not go after it."""
    recipe = (
        AdviceStep(place=(0, 1), op="COPY", text="COPY src src", sources=("src",),
                   destination="/src/"),
        AdviceStep(place=(0, 2), op="RUN", text="RUN make -C src", seconds=9.0),
    )  # fmt: skip
    assert advise(recipe, versions(("src/a.c",)), files=("src/a.c",)) == ()


@given(
    st.lists(
        st.lists(st.sampled_from(FILES), max_size=3, unique=True).map(tuple), min_size=1, max_size=6
    )
)
def test_savings_are_what_the_history_shows(changes: list[tuple[str, ...]]) -> None:
    """No proposal saves more than everything cost; they come ranked; none saves nothing."""
    history = versions(*[change for change in changes if change])
    found = advise(steps(), history, dockerfile=DOCKERFILE, files=FILES)
    total = rebuild_seconds(steps(), history)

    assert all(0 < advice.saved_seconds <= total + 1e-9 for advice in found)
    savings = [advice.saved_seconds for advice in found]
    assert savings == sorted(savings, reverse=True)


def project(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    if not (root / ".git").exists():
        subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "change", "--allow-empty"], check=True)


HISTORIES = {
    "python": (
        {"Dockerfile": "FROM x\nCOPY . .\nRUN sleep 0.2; : pip install -r requirements.txt\n",
         "requirements.txt": "a\n", "app.py": "0"},
        "requirements.txt", "app.py",
    ),
    "node": (
        {"Dockerfile": "FROM x\nCOPY . /app\nWORKDIR /app\nRUN sleep 0.2; : npm ci\n",
         "package.json": "{}", "package-lock.json": "{}", "server.js": "0"},
        "package.json", "server.js",
    ),
    "go": (
        {"Dockerfile": "FROM x\nCOPY . .\nRUN sleep 0.2; : go mod download\nRUN : go build\n",
         "go.mod": "module x\n", "go.sum": "", "main.go": "0"},
        "go.mod", "main.go",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(HISTORIES))
def test_a_project_with_a_known_bad_order_gets_the_known_advice(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its own Git history and the recorded seconds; nothing is checked out or rewritten."""
    files, manifest, source = HISTORIES[kind]
    root = tmp_path / "project"
    root.mkdir()
    project(root, files)
    for number in range(5):
        project(root, {source: str(number + 1)})
    project(root, {manifest: files[manifest] + "\n"})
    cache = ["--cache", str(tmp_path / "cache"), "--executor", "workspace"]
    assert main(["build", "-q", *cache, str(root)]) == 0
    before = (root / "Dockerfile").read_bytes()
    capsys.readouterr()

    assert main(["advise", *cache, "--history", "10", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "1. copy " in shown
    assert manifest in shown.splitlines()[1]
    assert "in 5 of 6 versions" in shown
    assert (root / "Dockerfile").read_bytes() == before


def proposed(dockerfile: str, changed: str, files: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Kind, added lines and doubt of what is said when `changed` changed; each RUN took 9 s."""
    recipe = Dockerfile.parse(dockerfile)
    lowered = plain_graph(recipe, None, {})
    texts = [line for line in dockerfile.splitlines() if line.startswith("RUN")]
    known = steps_of(lowered, recipe, dict.fromkeys(texts, 9.0))
    copies = {s.place: (changed,) for s in known if s.sources in {(".",), ("/",), ("",)}}
    found = advise(
        known,
        [RecipeVersion("1", copies)],
        dockerfile=dockerfile,
        files=files,
        read=lambda path: files[path],
    )
    return [
        (a.kind, "".join(f"{x[1:]}\n" for x in a.diff.splitlines()[2:] if x[0] == "+"), a.doubt)
        for a in found
        if a.kind != "ignore"
    ]


APP = {"app.py": "", "requirements.txt": "flask\n"}


def test_packages_of_the_system_go_before_the_project_without_doubt() -> None:
    """They read nothing of it, unless they are files of it or it brings their configuration."""
    said = proposed(
        "FROM x\nCOPY . /app\nRUN apt-get update && apt-get install -y git\n", "app.py", APP
    )
    assert said == [("move", "RUN apt-get update && apt-get install -y git\n", "")]
    for command in (
        "apt-get install -y ./tool.deb", "apt-get install -y $(cat list)", "apk add < list",
        "apt-get update && make", "rm -rf /app/x; apt-get update",
        "--mount=type=bind,target=/c apt-get update",
    ):  # fmt: skip
        assert proposed(f"FROM x\nCOPY . /app\nRUN {command}\n", "app.py", APP) == []
    lists = {**APP, "etc/apt/sources.list": "deb x"}
    assert proposed("FROM x\nCOPY . /\nRUN apt-get update\n", "app.py", lists) == []
    assert proposed("FROM x\nCOPY . /etc\nRUN apt-get update\n", "app.py", APP) == []


def test_a_copy_is_not_moved_where_it_would_mean_something_else() -> None:
    """Another directory, another variable, another file on top."""
    install = "RUN pip install -r requirements.txt\n"
    files = {**APP, "production/app.py": "1"}
    for between in ("WORKDIR /b\n", "COPY production /a/\n"):
        recipe = f"FROM x\nWORKDIR /a\nCOPY . .\n{between}{install}"
        assert proposed(recipe, "app.py", files) == []
    recipe = f"FROM x\nENV D=/a\nCOPY . $D\nENV D=/b\nWORKDIR /a\n{install}"
    assert proposed(recipe, "app.py", files) == []
    recipe = f"FROM x\nCOPY . /a\nWORKDIR /a\n{install}"
    assert proposed(recipe, "app.py", files) != []


def test_the_narrower_copy_keeps_owner_and_mode() -> None:
    """A command that runs as another user may write the manifests."""
    recipe = "FROM x\nWORKDIR /a\nCOPY --chown=1:1 . .\nRUN pip install -r requirements.txt\n"
    [(_, lines, _)] = proposed(recipe, "app.py", APP)
    assert lines.startswith("COPY --chown=1:1 requirements.txt /a/\n")


def test_lists_of_requirements_are_followed() -> None:
    """What they name is needed, too; a list that names the project needs all of it."""
    files = {
        "app.py": "", "deps/prod.txt": "-r base.txt\n-c ../pins.txt\n", "deps/base.txt": "flask\n",
        "deps/docs.txt": "sphinx\n", "pins.txt": "flask==3\n",
    }  # fmt: skip
    recipe = "FROM x\nWORKDIR /a\nCOPY . .\nRUN pip install -r deps/prod.txt\n"
    [(_, lines, _)] = proposed(recipe, "app.py", files)
    assert lines.splitlines()[:2] == [
        "COPY deps/base.txt deps/prod.txt /a/deps/", "COPY pins.txt /a/",
    ]  # fmt: skip
    for line in ("-e .", "./vendored", "tool @ file:///a/tool"):
        assert proposed(recipe, "app.py", {**files, "deps/base.txt": line}) == []


def test_what_the_context_leaves_out_is_not_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ignored lock file can't be taken by a COPY; the Dockerfile's own ignore file counts."""
    root = tmp_path / "project"
    root.mkdir()
    files = {
        "Dockerfile": "FROM x\nCOPY . .\nRUN sleep 0.1; : npm ci\n", "package.json": "{}",
        "package-lock.json": "{}", "server.js": "0",
        "Dockerfile.dockerignore": "package-lock.json\n",
    }  # fmt: skip
    project(root, files)
    project(root, {"server.js": "1"})
    cache = ["--cache", str(tmp_path / "cache"), "--executor", "workspace"]
    assert main(["build", "-q", *cache, str(root)]) == 0
    capsys.readouterr()
    assert main(["advise", *cache, str(root)]) == 0
    assert "+COPY package.json /\n" in capsys.readouterr().out


def test_advice_without_a_record_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No cost is known before a build: exit status 2 and a sentence."""
    root = tmp_path / "project"
    root.mkdir()
    project(root, HISTORIES["python"][0])
    status = main(["advise", "--cache", str(tmp_path / "c"), "--executor", "workspace", str(root)])

    assert status == 2
    assert "build once" in capsys.readouterr().err
