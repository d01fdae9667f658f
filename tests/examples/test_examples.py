"""The examples of custom build systems do what they say."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(path: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_asset_pipeline_runs_what_changed(tmp_path: Path) -> None:
    """Its own instruction types: a changed style sheet leaves the HTML steps reused."""
    assets = load("asset-pipeline/assets.py")
    site = tmp_path / "site"
    shutil.copytree(EXAMPLES / "asset-pipeline" / "site", site)
    arguments = (str(site), str(tmp_path / "out"), str(tmp_path / "cache"))
    first, second = assets.build(*arguments), assets.build(*arguments)
    (site / "extra.css").write_text("h1 { margin: 1px; }\n")
    third = assets.build(*arguments)

    assert [d for d, _ in first] == ["miss"] * 5
    assert [d for d, _ in second] == ["hit"] * 5
    assert [d for d, _ in third] == ["hit", "miss", "hit", "miss", "miss"]
    assert "margin: 1px" in (tmp_path / "out" / "all.css").read_text()


def test_the_data_pipeline_stops_where_the_data_is_the_same(tmp_path: Path) -> None:
    """A comment in an input reruns its cleaning and nothing after it; a new row does all."""
    pipeline = load("data-pipeline/pipeline.py")
    data = tmp_path / "data"
    shutil.copytree(EXAMPLES / "data-pipeline" / "data", data)
    arguments = (str(data), str(tmp_path / "work"), str(tmp_path / "cache"))
    report, _ = pipeline.build(*arguments)
    orders = data / "orders.csv"
    orders.write_text(orders.read_text() + "# checked\n")
    same, decisions = pipeline.build(*arguments)
    orders.write_text(orders.read_text() + "south,1\n")
    changed, _ = pipeline.build(*arguments)

    assert report == same == "north 30.00\nsouth 21.00\n"
    assert [d for d, _ in decisions] == ["miss", "miss", "hit", "hit", "hit", "hit", "hit"]
    assert changed == "north 30.00\nsouth 24.00\n"


def test_a_second_ci_machine_runs_nothing(tmp_path: Path) -> None:
    """Two machines with local caches of their own share one; workspaces at one path."""
    ci = load("ci-runner/ci.py")
    context = tmp_path / "context"
    context.mkdir()
    (context / "a.txt").write_text("1")
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM x\nCOPY a.txt /\nRUN cat a.txt a.txt > b.txt\n")
    shared = [str(tmp_path / "shared")]
    first = ci.run(str(dockerfile), str(context), local=str(tmp_path / "m"), shared=shared)
    shutil.rmtree(tmp_path / "m")
    second = ci.run(str(dockerfile), str(context), local=str(tmp_path / "m"), shared=shared)

    assert [s.decision for s in first.steps] == [None, "miss", "miss"]
    assert [s.decision for s in second.steps] == [None, "hit", "hit"]
