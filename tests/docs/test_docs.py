"""The documentation: every example runs, every closed list is complete, every link leads on.

A page is run from top to bottom in a directory of its own: `python` blocks share one namespace,
`sh` blocks find `layercache` on PATH. Comments before a block say more:

    <!-- file: NAME -->      the block is written to this file
    <!-- output -->          the block is what the one before it printed (numbers may differ)
    <!-- needs: PROGRAM -->  the block runs where this program is
    <!-- not run: REASON --> the block is not run, and why

A `python` block with an ellipsis (…) leaves something out for the reader, and is only compiled
with `...` in its place.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from layercache.cli.options import parse
from layercache.dockerfile.instructions import DockerfileInstruction
from layercache.dockerfile.syntax.flags import FLAGS
from layercache.reports.reasons import CAUSES, KINDS, WHATS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if not {"_build", "examples"} & set(page.relative_to(DOCS).parts)
)
RUN = {"python", "sh"}
FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n\n?)?^```(?P<language>[\w{}]*)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NOTES = {"file", "output", "needs", "not run"}


@attrs.frozen
class Block:
    """One code block of a page, and what the comment before it says."""

    language: str
    body: str
    line: int
    note: str = ""
    value: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        note, _, value = (match["note"] or "").partition(":")
        line = text.count("\n", 0, match.start()) + 1
        yield Block(match["language"], match["body"], line, note.strip(), value.strip())


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS))


def close(text: str) -> str:
    """A text in which numbers, and the room that they take, are all the same."""
    text = re.sub(r"[0-9a-f]{12,64}", "DIGEST", text)
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?", "N", text)).strip()


class Page:
    """Runs the blocks of one page."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.printed = ""
        self.namespace: dict[str, object] = {"__name__": "example"}
        programs = directory / ".bin"
        programs.mkdir()
        script = programs / "layercache"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m layercache "$@"\n')
        script.chmod(0o755)
        for name in ("python", "python3"):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("LAYERCACHE_CACHE", str(directory / ".cache"))
        monkeypatch.setenv("LAYERCACHE_DOCS", str(DOCS))
        monkeypatch.chdir(directory)

    def run(self, block: Block) -> None:
        """Run one block, or compare it with what the one before it printed."""
        if block.note == "output":
            assert close(block.body) == close(self.printed), f"line {block.line}"
        elif block.note == "file":
            path = self.directory / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body)
        elif block.note == "needs" and shutil.which(block.value) is None:
            pytest.skip(f"not installed: {block.value}")
        elif block.note == "not run" or block.language not in RUN:
            pass
        elif block.language == "python" and "…" in block.body:
            compile(block.body.replace("…", "..."), f"line {block.line}", "exec")
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block.body, f"line {block.line}", "exec"), self.namespace)
            self.printed = out.getvalue()
        else:
            done = subprocess.run(
                ["sh", "-eu", "-c", block.body],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"line {block.line}: {done.stdout}"
            self.printed = done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of the page works as it stands, in the order in which a reader meets it."""
    runner = Page(tmp_path, monkeypatch)
    for block in blocks(page):
        runner.run(block)


def test_notes_are_known() -> None:
    """A comment before a block is one that means something, and what is not run says why."""
    for page in PAGES:
        for block in blocks(page):
            where = f"{name_of(page)}:{block.line}"
            assert block.note in {"", *NOTES}, where
            assert block.note != "not run" or len(block.value) > 10, where
            assert block.language, f"{where}: name the language"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    """Every relative link is to something in the repository."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]

    assert [] == [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_in_the_index(page: Path) -> None:
    """Every page is named in the table of contents of its folder's index."""
    index = page.parent / "index.md"
    if page == DOCS / "index.md":
        return
    name = page.stem
    if page == index:
        index, name = DOCS / "index.md", f"{page.parent.name}/index"

    assert re.search(rf"^{re.escape(name)}$", index.read_text(), re.MULTILINE)


# -- reference pages -------------------------------------------------------------------------------


def rows(page: str) -> dict[str, list[str]]:
    """The rows of every table of a page: text of the first cell without marks -> the others."""
    found = {}
    for line in (DOCS / "reference" / page).read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found[cells[0].replace("`", "")] = cells[1:]
    return found


def test_the_json_page_has_the_closed_lists() -> None:
    """Every cause with its sentence (more may follow), every kind and what, and no others."""
    text = (DOCS / "reference" / "json.md").read_text()
    lists = {
        heading: re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
        for heading, part in re.findall(
            r"^### (\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL
        )
    }
    part = re.search(r"^### Causes\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert part is not None
    sentences = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|$", part[1], re.MULTILINE))

    assert list(CAUSES) == lists["Causes"]
    assert list(KINDS) == lists["Kinds"]
    assert list(WHATS) == lists["Whats"]
    assert {} == {c: text for c, text in CAUSES.items() if not sentences[c].startswith(text)}


def options_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that `--help` of a command names."""
    with pytest.raises(SystemExit):
        parse([*command, "--help"])
    lines = re.findall(r"^  (-\S.*)$", capsys.readouterr().out, re.MULTILINE)
    names = {name for line in lines for name in re.findall(r"--[a-z][a-z-]+", line.split("  ")[0])}
    return names - {"--help"}


COMMANDS = [
    ["build"], ["plan"], ["explain"], ["advise"], ["probe"], ["cache", "ls"], ["cache", "du"],
    ["cache", "gc"], ["cache", "prune"], ["cache", "verify"], ["stats"], ["images"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_line_page_has_every_option(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command and every option of it is described."""
    text = (DOCS / "reference" / "command-line.md").read_text()
    named = set(re.findall(r"`(--[a-z][a-z-]+)", text))

    assert f"`{' '.join(command)}" in text
    assert set() == options_of(command, capsys) - named


def test_the_command_line_page_has_no_other_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is described that is not there."""
    text = (DOCS / "reference" / "command-line.md").read_text()
    table = {name for line in re.findall(r"^\| `[^|]*\|", text, re.MULTILINE) for name in
             re.findall(r"`(--[a-z][a-z-]+)", line)}  # fmt: skip
    real = {"--version"}
    for command in COMMANDS:
        real |= options_of(command, capsys)

    assert set() == table - real


def test_the_dockerfile_page_has_every_instruction_and_flag() -> None:
    """Each has a row, which says what both executors do with it in one of three words."""
    table = rows("dockerfile.md")
    ops = set()
    todo = [DockerfileInstruction]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if not kind.__subclasses__() and "op" in vars(kind):
            ops.add(kind.op)
    wanted = ops | {f"{op} --{flag}" for op, flags in FLAGS.items() for flag in flags}

    assert set() == wanted - set(table)
    for name in wanted:
        for cell in table[name][:2]:
            assert cell.split(",")[0].split(" ")[0].rstrip(":") in {
                "honoured",
                "recorded",
                "refused",
            }, name


def workspace_refusals() -> dict[str, str]:
    """Rows of the Dockerfile page that say "refused" for the workspace executor, with a sample."""
    return {
        name: cells[2].strip("`").replace("\\|", "|").replace("⏎", "\n")
        for name, cells in rows("dockerfile.md").items()
        if len(cells) > 2 and cells[1].startswith("refused")
    }


def test_what_the_page_says_is_refused_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sample of a refused row ends with 2 under the workspace executor."""
    from layercache.cli import main

    samples = workspace_refusals()
    assert samples
    for name, sample in samples.items():
        context = tmp_path / re.sub(r"\W", "_", name)
        context.mkdir()
        (context / "f").write_text("")
        (context / "Dockerfile").write_text(f"FROM x\n{sample}\nRUN true\n")
        options = ["--cache", str(tmp_path / "cache"), "--executor", "workspace", "-q"]

        assert 2 == main(["build", *options, str(context)]), name
        assert "workspace" in capsys.readouterr().err, name
