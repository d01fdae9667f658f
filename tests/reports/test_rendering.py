"""Reports as HTML, Markdown, Mermaid, DOT and trace files."""

from __future__ import annotations

import html
import html.parser
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from layercache import Builder
from layercache.cli import main
from layercache.reports.chrome_trace import chrome_trace
from layercache.reports.html import html_report
from layercache.reports.markdown import markdown_summary
from layercache.reports.reasons import Change, Reason
from layercache.reports.report import ErrorReport, Report, StepReport
from tests.reports.support import FILES, build


class Checker(html.parser.HTMLParser):
    """Notes tags that are not closed, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    """Every element is closed; no script, no address; the reason of each miss is there."""
    builder = Builder()
    build(builder, FILES)
    page = build(builder, {**FILES, "server.js": "2"}).to_html("My build")
    checker = Checker()
    checker.feed(page)

    assert checker.open == []
    assert checker.fetched == []
    assert "<script" not in page
    assert "content of server.js changed" in page
    assert "reused" in page


def test_the_page_has_the_advice_of_the_build_and_what_was_saved() -> None:
    """As the terminal shows it: the file, the command that it cost most, and all of the cost."""
    cause = Reason("files", (Change("file", path="a.py", what="content"),))
    follows = Reason("parent", step=(0, 1))
    steps = (
        StepReport(stage=0, index=1, op="COPY", text="COPY . .", decision="miss", reason=cause),
        *(
            StepReport(
                stage=0, index=n, op="RUN", text=f"RUN {n}", decision="miss", seconds=float(n),
                reason=follows,
            )
            for n in (2, 3)
        ),
        StepReport(stage=1, index=1, op="RUN", text="RUN x", decision="hit", saved_seconds=4.0),
    )  # fmt: skip
    page = html.unescape(html_report(Report(ok=True, steps=steps), advice=["one more"]))

    assert "<h2>Advice</h2><ul><li>one more</li><li>a.py changed, which cost 'RUN 3'" in page
    assert "'RUN 3' and 1 other 5.0 s: copy only" in page
    assert "saved 4.00 s" in page
    assert "Advice" not in html_report(Report(ok=True, steps=steps[3:]))


def test_text_of_a_recipe_never_becomes_markup() -> None:
    """Instructions, errors and titles are escaped in every form."""
    evil = '<img src=x onerror=alert(1)> & "quoted" | `code`'
    step = StepReport(stage=0, index=1, op="RUN", text=evil, decision="miss", seconds=1.0)
    report = Report(ok=False, steps=(step,), error=ErrorReport("step-failed", evil))
    page = html_report(report, evil)

    assert "<img" not in page
    assert "| miss | `<img src=x onerror=alert(1)> & \"quoted\" \\| 'code'` |" in markdown_summary(
        report
    )


def test_graphs_name_every_step_with_its_decision() -> None:
    """Mermaid and DOT have a vertex for each needed step and source, and their edges."""
    result = build(Builder(), FILES)
    mermaid, dot = result.to_mermaid(), result.to_dot()

    assert mermaid.startswith("flowchart TD\n")
    assert mermaid.count(":::miss") == 2
    assert mermaid.count(":::source") == 2
    assert '-. "source" .->' in mermaid
    assert dot.count("fillcolor") == 4
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot.encode(), check=True, capture_output=True)


def test_a_trace_file_has_an_event_for_each_decided_step() -> None:
    """Executed steps have a duration, reused ones carry what they saved."""
    builder = Builder()
    first = json.loads(chrome_trace(build(builder, FILES).report))
    second = json.loads(chrome_trace(build(builder, FILES).report))

    assert [e["ph"] for e in first["traceEvents"]] == ["X", "X", "M"]
    assert [e["ph"] for e in second["traceEvents"]] == ["i", "i", "M"]


@pytest.mark.parametrize("ending", ["html", "json", "md", "mmd", "dot", "trace"])
def test_the_command_line_writes_each_form(tmp_path: Path, ending: str) -> None:
    """--report FILE takes the form from the ending."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    target = tmp_path / f"report.{ending}"
    status = main(
        ["build", "--cache", str(tmp_path / "cache"), "-q", "--report", str(target), str(context)]
    )

    assert status == 0
    assert target.stat().st_size > 50


def test_an_unknown_form_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error lists the endings."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    status = main(
        ["build", "--cache", str(tmp_path / "cache"), "--report", "report.pdf", str(context)]
    )

    assert status == 2
    assert ".html" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    """A real headless browser lays the page out: what it has in its tree is what was written."""
    builder = Builder()
    build(builder, FILES)
    page = tmp_path / "report.html"
    page.write_text(build(builder, {**FILES, "server.js": "2"}).to_html("My build"))
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip

    assert "My build" in done.stdout
    assert "content of server.js changed" in done.stdout
    assert done.stdout.count("<tr>") >= 3
