"""A report as one self-contained HTML page: timeline, reuse, sizes, causes, advice. Pure.

No script and no external resource, so that the page can be mailed, kept as a CI artefact and shown
in a notebook. Light or dark by the reader's preference.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as _escape
from typing import Final

from layercache.reports.hint import hint
from layercache.reports.reasons import CAUSES, describe
from layercache.reports.report import Report, StepReport
from layercache.reports.visible import visible
from layercache.reports.wording import DECISIONS, one_line, size_text

__all__ = ["html_fragment", "html_report"]

_STYLE: Final = """
.lc{--hit:#2e8b57;--miss:#c0562b;--quiet:#8a8f98;--wait:#b8860b;--line:#d9dce1;--ink:#1d2229;
--paper:#fff;--soft:#f4f5f7;font:14px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);max-width:1100px;margin:0 auto;padding:24px}
@media (prefers-color-scheme:dark){.lc{--line:#3a4048;--ink:#e6e8eb;--paper:#16191d;--soft:#20242a}}
.lc h1{font-size:20px;margin:0 0 4px}.lc h2{font-size:16px;margin:28px 0 8px}
.lc .sums{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.lc .sum{background:var(--soft);border-radius:8px;padding:10px 16px;min-width:110px}
.lc .sum b{display:block;font-size:20px}
.lc table{border-collapse:collapse;width:100%}.lc td,.lc th{text-align:left;padding:6px 8px;
border-bottom:1px solid var(--line);vertical-align:top}.lc th{font-weight:600}
.lc .n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.lc code{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
.lc .tag{display:inline-block;border-radius:10px;padding:0 8px;color:#fff;font-size:12px}
.lc .why{opacity:.8;font-size:13px}.lc .bar{position:relative;height:22px;margin:2px 0;
background:var(--soft);border-radius:4px;overflow:hidden}
.lc .bar i{position:absolute;top:0;bottom:0;min-width:2px;border-radius:4px;opacity:.5}
.lc .bar span{position:relative;padding:0 6px;font-size:12px;line-height:22px;white-space:nowrap}
.lc .scroll{overflow-x:auto}
"""

_COLOURS: Final = {
    "hit": "--hit",
    "miss": "--miss",
    "skip": "--quiet",
    "would-run": "--miss",
    "undetermined": "--wait",
}


def escape(text: str) -> str:
    """`text` as plain text in a page, with invisible characters written out."""
    return _escape(visible(text))


def html_report(report: Report, title: str = "Build", advice: Sequence[str] = ()) -> str:
    """A whole page; `advice` are sentences shown at the end, before the build's own advice."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'\">"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title></head><body style='margin:0'>"
        f"{html_fragment(report, title, advice)}</body></html>\n"
    )


def html_fragment(report: Report, title: str = "Build", advice: Sequence[str] = ()) -> str:
    """The report as an element, for a notebook."""
    decided = [step for step in report.steps if step.decision is not None]
    parts = [
        f"<style>{_STYLE}</style><div class='lc'><h1>{escape(title)}</h1>",
        _outcome(report),
        _sums(report, decided),
        _timeline(report, decided),
        _steps(report, decided),
        _causes(decided),
    ]
    advice = [*advice, *filter(None, [hint(report.steps)])]
    if advice:
        items = "".join(f"<li>{escape(line)}</li>" for line in advice)
        parts.append(f"<h2>Advice</h2><ul>{items}</ul>")
    return "".join(parts) + "</div>"


def _outcome(report: Report) -> str:
    if report.error is not None:
        return f"<p><b>Failed:</b> <code>{escape(report.error.message)}</code></p>"
    digest = report.image.config_digest if report.image is not None else None
    return f"<p>Image <code>{escape(digest)}</code></p>" if digest else "<p></p>"


def _sums(report: Report, decided: Sequence[StepReport]) -> str:
    counts = {
        "reused": sum(step.decision == "hit" for step in decided),
        "executed": sum(step.decision == "miss" for step in decided),
    }
    size = sum(step.size or 0 for step in decided)
    cells = [
        *((name, str(count)) for name, count in counts.items()),
        ("took", _seconds(report.seconds)),
        ("saved", _seconds(report.saved_seconds)),
        ("in layers", size_text(size, rounded=True)),
    ]
    shown = "".join(f"<div class='sum'><b>{value}</b>{name}</div>" for name, value in cells)
    return f"<div class='sums'>{shown}</div>"


def _timeline(report: Report, decided: Sequence[StepReport]) -> str:
    ran = [step for step in decided if step.decision == "miss" and step.started is not None]
    if not ran:
        return ""
    end = max((step.started or 0.0) + step.seconds for step in ran) or 1.0
    rows = []
    for step in sorted(ran, key=lambda s: s.started or 0.0):
        left = 100 * (step.started or 0.0) / end
        width = 100 * step.seconds / end
        rows.append(
            f"<div class='bar'><i style='left:{left:.2f}%;width:{width:.2f}%;"
            f"background:var(--miss)'></i><span>{escape(one_line(step.text, 100))} · "
            f"{_seconds(step.seconds)}</span></div>"
        )
    return f"<h2>Timeline</h2>{''.join(rows)}"


def _steps(report: Report, decided: Sequence[StepReport]) -> str:
    names = {step.place: step.text for step in report.steps}
    rows = []
    for step in decided:
        name, colour = DECISIONS[str(step.decision)], _COLOURS[str(step.decision)]
        if step.error:
            name = "failed"
        why = ""
        if step.reason is not None:
            why = f"<div class='why'>{escape(describe(step.reason, names))}</div>"
        seconds = _seconds(step.seconds)
        size = "" if step.size is None else size_text(step.size, rounded=True)
        if step.decision == "hit":
            seconds = f"<span class='why'>saved {_seconds(step.saved_seconds)}</span>"
        rows.append(
            f"<tr><td class='n'>{step.stage}.{step.index}</td>"
            f"<td><span class='tag' style='background:var({colour})'>{name}</span></td>"
            f"<td><code>{escape(step.text)}</code>{why}</td>"
            f"<td class='n'>{seconds}</td><td class='n'>{size}</td></tr>"
        )
    head = (
        "<tr><th>Step</th><th></th><th>Instruction</th><th class='n'>Seconds</th>"
        "<th class='n'>Layer</th></tr>"
    )
    return f"<h2>Steps</h2><div class='scroll'><table>{head}{''.join(rows)}</table></div>"


def _causes(decided: Sequence[StepReport]) -> str:
    found: dict[str, list[float]] = {}
    for step in decided:
        if step.reason is not None:
            found.setdefault(step.reason.cause, []).append(step.seconds)
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(CAUSES[cause])}</td><td class='n'>{len(seconds)}</td>"
        f"<td class='n'>{_seconds(sum(seconds))}</td></tr>"
        for cause, seconds in sorted(found.items(), key=lambda item: -sum(item[1]))
    )
    return (
        "<h2>Causes</h2><div class='scroll'><table><tr><th>Why</th><th class='n'>Steps</th>"
        f"<th class='n'>Seconds</th></tr>{rows}</table></div>"
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
