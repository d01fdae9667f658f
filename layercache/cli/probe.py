"""`layercache probe`: runs reused steps again, and reports results that differ."""

from __future__ import annotations

from argparse import Namespace

import attrs

from layercache.cli.request import prepare, print_json
from layercache.engine.probe import Probed
from layercache.reports.visible import visible

__all__ = ["probe"]


def probe(options: Namespace) -> int:
    """Build (unknown steps are executed), then run every reused command once more."""
    builder, request = prepare(options)
    builder.run(request)
    found = builder.probe(request)
    builder.close()
    builder.store.close()
    if options.json:
        print_json({"schema": 1, "steps": [attrs.asdict(step) for step in found]})
    else:
        shown = visible("\n".join(map(_shown, found)))
        print(shown or "no command of this recipe was reused")
    return 0


def _shown(step: Probed) -> str:
    text = " ".join(step.text.split())
    if step.error is not None:
        return f"failed   {text}\n    {step.error}"
    if step.steady:
        return f"steady   {text}"
    lines = [f"differs  {text}: {step.results} results in {step.runs + 1} runs"]
    if step.known_results > step.results:
        lines[0] += f", {step.known_results} known so far"
    lines += [f"    {path}" for path in step.paths[:20]]
    if len(step.paths) > 20:
        lines.append(f"    and {len(step.paths) - 20} more")
    lines += [f"    try: {line}" for line in step.advice]
    return "\n".join(lines)
