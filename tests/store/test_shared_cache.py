"""Two machines and a cache between them, through the public API."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layercache import Builder, Dockerfile, Workspace, open_store
from layercache.builds.result import BuildResult

TEXT = "FROM scratch AS one\nCOPY a.txt /\nFROM scratch\n" + "".join(
    f"COPY --from=one a.txt /{number}\n" for number in range(20)
)


def build(machine: Path, project: str, shared: str) -> BuildResult:
    """One build on a machine: a directory with a local cache and a context of its own."""
    context = machine / project
    context.mkdir(parents=True, exist_ok=True)
    (context / "a.txt").write_text("alpha")
    store = open_store(str(machine / "cache"), cache_from=[shared], cache_to=[shared])
    with store:
        return Builder(store, executor=Workspace(machine / "work")).build(
            Dockerfile.parse(TEXT), context=context
        )


def layers_of(machine: Path) -> int:
    """Bytes of blobs that a machine has."""
    return sum(p.stat().st_size for p in (machine / "cache" / "blobs").rglob("*") if p.is_file())


@pytest.mark.parametrize("scheme", ["", "memory://shared-cache-test"])
def test_a_clean_machine_at_another_path_reuses_everything(tmp_path: Path, scheme: str) -> None:
    """Without running anything and without fetching a layer, whatever its paths are."""
    shared = scheme or str(tmp_path / "shared")
    first = build(tmp_path / "one", "here", shared)
    second = build(tmp_path / "two", "elsewhere/deeper", shared)

    assert {s.decision for s in first.steps} == {None, "miss"}
    assert {s.decision for s in second.steps} == {None, "hit"}
    assert first.image == second.image
    assert not (tmp_path / "two" / "cache" / "blobs").exists() or layers_of(tmp_path / "two") == 0


def test_a_shared_cache_that_is_gone_fails_nothing(tmp_path: Path) -> None:
    """The build goes on with what is here."""
    shared = tmp_path / "shared"
    build(tmp_path / "one", "here", str(shared))
    shutil.rmtree(shared)
    shared.write_text("not a directory any more")
    with pytest.raises(Exception, match="not a directory"):
        build(tmp_path / "two", "here", str(shared))
    shared.unlink()
    again = build(tmp_path / "two", "here", str(shared))

    assert {s.decision for s in again.steps} == {None, "miss"}
