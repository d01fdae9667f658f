"""What comes from elsewhere is shown as text: it steers no terminal, page, table or diagram."""

from __future__ import annotations

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache import Builder, Dockerfile
from layercache.cli.summary import Plain, summary
from layercache.events import StepExecuted, StepOutput, StepStarted
from layercache.model.digests import CacheKey
from layercache.model.graph import Origin
from layercache.reports.chrome_trace import chrome_trace
from layercache.reports.markdown import markdown_summary
from layercache.reports.visible import visible, without_sequences

ATTACKS = [
    "\x1b]0;title\x07",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b[2J\x1b[H",
    "\x9b2J",
    "\x1bP1$r\x1b\\",
    "a\rb",
    "a\x08\x08b",
    "\u202etxt.exe",
    "\u2066x\u2069",
    "\x00\x7f\x85",
]
HTML = "<script>alert(1)</script>|`![x](http://e)](\\|"


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_steers(attack: str) -> None:
    """Written out as text, left away in the output of steps."""
    for shown in (visible(attack), without_sequences(attack)):
        assert all(c.isprintable() for c in shown)
    assert visible("plain \u00fc \u4e2d\t\n") == "plain \u00fc \u4e2d\t\n"


@given(st.text())
def test_visible_text_is_printable_and_stays(text: str) -> None:
    """Lines and tabs stay; doing it again changes nothing."""
    once = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", once)
    assert visible(once) == once
    assert "\x1b" not in without_sequences(text)


def test_colours_and_progress_bars_leave_their_text() -> None:
    """What people read stays."""
    assert without_sequences("\x1b[1;31mred\x1b[0m") == "red"
    assert without_sequences("10%\r50%\r100%\ndone\r\n") == "100%\ndone\n"


def origin(text: str) -> Origin:
    return Origin(stage=0, index=1, onbuild=None, line=1, op="RUN", text=text, stage_name="")


def shown(*chunks: bytes, raw: bool = False, text: str = "RUN x") -> str:
    out = io.StringIO()
    display = Plain(out, raw=raw)
    display(StepStarted(1, origin(text), CacheKey("k"), 0.0))
    for chunk in chunks:
        display(StepOutput(1, origin(text), chunk))
    display(StepExecuted(1, origin(text), CacheKey("k"), 0.0, 0.0))
    return out.getvalue()


def test_the_plain_display() -> None:
    """By default nothing steers, also where a sequence comes in pieces; `raw` shows all."""
    assert "\x1b" not in shown(b"a\x1b", b"]0;t\x07b\n", text="RUN \x1b[2J")
    assert "\x1b[31m" in shown(b"\x1b[31mred\n", raw=True)
    assert shown(b"a\n\nb", b"c\n", b"d") == "[0] RUN x\n    a\n    \n    bc\n    d\n"


def test_output_without_lines_is_linear() -> None:
    """What is held is bounded, so each byte is handled a fixed number of times."""

    class Counting(io.StringIO):
        longest = 0

        def write(self, text: str) -> int:
            self.longest = max(self.longest, len(text))
            return super().write(text)

    out = Counting()
    display = Plain(out)
    held = 0
    for _ in range(5_000):
        display(StepOutput(1, origin("RUN x"), b"x" * 1000))
        held = max(held, *(len(part) for part in display._partial.values()))
    display(StepExecuted(1, origin("RUN x"), CacheKey("k"), 0.0, 0.0))
    assert out.getvalue().count("x") == 5_000_000
    assert held <= 64 * 1024
    assert out.longest <= 66 * 1024


def test_reports(tmp_path: object) -> None:
    """HTML, Markdown, Mermaid, DOT, the Chrome trace and the summary hold no text as code."""
    text = f"FROM scratch\nCOPY a /b\nLABEL x='{HTML}\x1b[2J\u202e'\nCOPY ['{HTML[:20]}', '/x']\n"
    recipe = Dockerfile.parse(text.replace("COPY ['", 'COPY ["').replace("', '/x']", '", "/x"]'))
    result = Builder().build(recipe, context={"a": "1", HTML[:20]: "2"})
    page = result.to_html(title=HTML)
    assert "<script" not in page
    assert "default-src 'none'" in page
    markdown = markdown_summary(result.report, HTML)
    outside = re.sub(r"`[^`]*`", "", re.sub(r"\\[^\w\s]", "", markdown))
    assert "<script" not in outside
    assert "![" not in outside
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert '"<' not in result.to_mermaid()
    for made in (page, markdown, result.to_mermaid(), result.to_dot(), summary(result.report)):
        assert "\x1b" not in made
        assert "\u202e" not in made
    assert json.loads(chrome_trace(result.report))
