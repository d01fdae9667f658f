"""Observers: OpenTelemetry spans and the live display."""

from __future__ import annotations

import io

import pytest

from layercache import Builder
from tests.reports.support import FILES, build


def test_spans_nest_below_the_build_and_carry_decisions() -> None:
    """One span for each build and each decided step, with the decision and the key."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from layercache.observers.otel import OtelSpans

    exporter = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    builder = Builder(observers=[OtelSpans(provider.get_tracer("test"))])
    build(builder, FILES)
    build(builder, FILES)
    spans = exporter.get_finished_spans()
    decisions = [s.attributes.get("layercache.decision") for s in spans if s.parent]

    assert [s.name for s in spans if not s.parent] == ["layercache build"] * 2
    assert decisions == ["miss", "miss", "hit", "hit"]
    assert all(span.end_time >= span.start_time for span in spans)


def test_the_live_display_survives_any_text() -> None:
    """Markup and control characters of steps and their output are shown as text."""
    console = pytest.importorskip("rich.console")
    from layercache.observers.live import Live

    out = io.StringIO()
    live = Live(console.Console(file=out, force_terminal=True, width=100))
    builder = Builder(observers=[live])
    build(builder, {"a[bold]": "x"}, "FROM scratch\nCOPY a* /[red]x/\n")

    assert "[red]x" in out.getvalue()
