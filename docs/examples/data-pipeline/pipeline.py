"""A custom build system: a data pipeline as stages over the workspace executor.

Each table is cleaned in a stage of its own, a last stage joins them. Editing one input runs its
own stage and the join again; when cleaning gives the same bytes as before (a comment was added,
say), not even the join runs: that is early cutoff.

    python pipeline.py DATA WORK [CACHE]
"""

from __future__ import annotations

import shlex
import sys

from layercache import Builder, Copy, From, Run, Workspace

PYTHON = shlex.quote(sys.executable)

CLEAN = """
import csv, sys
rows = [r for r in csv.reader(open(sys.argv[1])) if r and not r[0].startswith("#")]
csv.writer(open(sys.argv[2], "w")).writerows([rows[0], *sorted(rows[1:])])
"""

JOIN = """
import csv
prices = {r["region"]: float(r["price"]) for r in csv.DictReader(open("prices.csv"))}
total = {}
for row in csv.DictReader(open("orders.csv")):
    region = row["region"]
    total[region] = total.get(region, 0) + float(row["amount"]) * prices[region]
with open("report.txt", "w") as out:
    for region in sorted(total):
        out.write(f"{region} {total[region]:.2f}\\n")
"""


def python(script: str, *arguments: str) -> Run:
    """A step that runs a script; its text is part of the key, so an edit of it is seen."""
    return Run([sys.executable, "-c", script, *arguments])


RECIPE = [
    From("scratch", "orders"),
    Copy("orders.csv", "raw.csv"),
    python(CLEAN, "raw.csv", "orders.csv"),
    From("scratch", "prices"),
    Copy("prices.csv", "raw.csv"),
    python(CLEAN, "raw.csv", "prices.csv"),
    From("scratch", "report"),
    Copy("orders.csv", "./", from_="orders"),
    Copy("prices.csv", "./", from_="prices"),
    python(JOIN),
]


def build(data: str, work: str, cache: str | None = None) -> tuple[str, list[tuple[str, str]]]:
    """The report, and what was decided for each step."""
    builder = Builder(cache, executor=Workspace(work))
    result = builder.build(RECIPE, context=data)
    with result.tree().open(b"report.txt") as content:
        report = content.read().decode()
    return report, [(step.decision, step.text) for step in result.steps if step.decision]


if __name__ == "__main__":
    report, decisions = build(*sys.argv[1:4])
    for decision, text in decisions:
        print(f"{decision:5} {' '.join(text.split())[:60]}")
    print(report, end="")
