"""Stages: by name, number and case, what is needed, triggers, contexts, platforms."""

from __future__ import annotations

from typing import Any

import pytest

from layercache.dockerfile.lowering.options import ImageNeed, Needs
from layercache.errors import DockerfileError, LayerCacheError, UsageError
from layercache.model.graph import Base, Step
from layercache.model.image_config import ImageConfig
from layercache.model.operations import CopyFiles
from layercache.model.sources import ContextSource
from tests.dockerfile.lowering.support import base_image, folded, lowered, needs, steps

LINUX = ImageConfig.scratch("amd64")


def commands(text: str, **options: Any) -> list[str]:
    """The shell commands of the steps that the target needs."""
    return [s.instruction.args[-1] for s in steps(text, **options) if s.instruction.name == "RUN"]  # type: ignore[attr-defined]


def evaluated(text: str, **options: Any) -> list[tuple[int, int, bool]]:
    """Stage, index and whether it is a step, of every row."""
    rows = lowered(text, **options).rows
    return [(row.origin.stage, row.origin.index, row.vertex is not None) for row in rows]


THREE = "FROM base AS one\nRUN 1\nFROM base AS Two\nRUN 2\nFROM base\nCOPY --from=one /x /\nRUN 3\n"


@pytest.mark.parametrize("name", ["one", "ONE", "0"])
def test_stages_by_name_number_and_case(name: str) -> None:
    """--from names a stage in any letter case, or by its number."""
    text = THREE.replace("--from=one", f"--from={name}")
    assert commands(text) == ["1", "3"]


def test_a_copy_reads_the_stage() -> None:
    """The input of COPY --from is what the stage leaves."""
    graph = lowered(THREE).graph
    copy = next(
        v for v in graph.vertices if isinstance(v, Step) and isinstance(v.instruction, CopyFiles)
    )
    read = graph.vertices[copy.inputs[-1].vertex]
    assert isinstance(read, Step)
    assert read.origin.stage == 0


@pytest.mark.parametrize(
    ("target", "expected"),
    [(None, ["1", "3"]), ("one", ["1"]), ("TWO", ["2"]), ("two", ["2"])],
)
def test_targets(target: str | None, expected: list[str]) -> None:
    """A target is a stage by its name; without one it is the last stage."""
    assert commands(THREE, target=target) == expected


@pytest.mark.parametrize("target", ["0", "three", "base"])
def test_wrong_targets(target: str) -> None:
    """A number is no target, nor is the name of an image; what there is, is told."""
    with pytest.raises(UsageError) as caught:
        lowered(THREE, target=target)
    assert "one, two" in str(caught.value)


def test_unused_stages_are_listed_only() -> None:
    """Their instructions are rows without a step, whatever they are."""
    text = (
        "FROM nowhere/none:1 AS broken\nCOPY nothing /x\nENV A=${B:?no}\nWORKDIR /w\nRUN x\n"
        "FROM base\nRUN y\n"
    )
    found = lowered(text)
    assert [row.decides for row in found.rows] == [False, True, False, True, True, False, True]
    assert [row.vertex is not None for row in found.rows] == [False] * 6 + [True]


def test_later_stages_do_not_count() -> None:
    """Stages after the target are not looked into."""
    text = "FROM base AS one\nRUN 1\nFROM missing/image\nRUN ${X:?no}\nEXPOSE nothing\n"
    assert commands(text, target="one") == ["1"]


def test_chains_of_stages() -> None:
    """A stage from a stage is one chain of steps, with its configuration."""
    text = 'FROM base AS a\nRUN 1\nUSER app\nWORKDIR /w\nSHELL ["s"]\nFROM a\nRUN 2\n'
    last = steps(text)[-1].instruction
    assert last.args == ("s", "2")  # type: ignore[attr-defined]
    assert (last.user, last.workdir) == ("app", "/w")  # type: ignore[attr-defined]
    flat = 'FROM base\nRUN 1\nUSER app\nWORKDIR /w\nSHELL ["s"]\nRUN 2\n'
    assert [s.instruction for s in steps(flat)] == [s.instruction for s in steps(text)]


def test_a_number_is_no_base() -> None:
    """FROM 0 is an image of that name, not a stage."""
    assert needs("FROM base\nRUN 1\nFROM 0\nRUN 2\n") == [ImageNeed("0", "linux/amd64")]


def test_mounts_make_stages_needed() -> None:
    """RUN --mount=from makes a stage needed as COPY --from does."""
    text = "FROM base AS a\nRUN 1\nFROM base\nRUN --mount=from=A,target=/m 2\n"
    assert commands(text) == ["1", "2"]


def test_all_images_are_asked_for_at_once() -> None:
    """Images of FROM, --from and mounts are named together, each once."""
    text = (
        "FROM x:1 AS a\nRUN 1\nFROM --platform=linux/arm64 y AS b\nRUN 2\nFROM base\n"
        "COPY --from=a /1 /\nCOPY --from=b /2 /\nCOPY --from=z:3 /3 /\n"
        "RUN --mount=from=w,target=/m --mount=from=z:3,target=/n 3\n"
    )
    assert set(needs(text)) == {
        ImageNeed("x:1", "linux/amd64"),
        ImageNeed("y", "linux/arm64"),
        ImageNeed("z:3", "linux/amd64"),
        ImageNeed("w", "linux/amd64"),
    }
    assert len(needs(text)) == 4


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("FROM base\nCOPY --from=1 /x /\n", 2, "invalid stage index"),
        ("FROM base AS a\nCOPY --from=a /x /\n", 2, "itself"),
        ("FROM base\nCOPY --from=0 /x /\n", 2, "itself"),
        ("FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nCOPY --from=a /y /\n", 2, "before"),
        ("FROM base AS a\nCOPY --from=9 /x /\nFROM base\n", 2, "invalid stage index"),
        ("FROM $NOPE\n", 1, "empty"),
        ("ARG P\nFROM --platform=$P base\n", 2, "empty platform"),
        ("RUN x\nFROM base\n", 1, "FROM"),
    ],
)
def test_wrong_stages(text: str, line: int, part: str) -> None:
    """Wrong references are told with their line, some also where the stage is not needed."""
    with pytest.raises(DockerfileError) as caught:
        lowered(text)
    assert caught.value.line == line
    assert part in str(caught.value)


# -- named contexts -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ctx", "CTX", "ctx:latest", "docker.io/library/ctx"])
def test_named_directories(name: str) -> None:
    """A named context takes the place of an image, by its familiar name."""
    graph = lowered(f"FROM base\nCOPY --from={name} a /\n", contexts={"ctx": False}).graph
    assert ContextSource("ctx") in graph.vertices


def test_named_contexts_before_stages() -> None:
    """A named context takes the place of a stage, which is then not needed."""
    text = "FROM base AS one\nRUN 1\nFROM base\nCOPY --from=one a /\nRUN 2\n"
    assert commands(text, contexts={"one": False}) == ["2"]


def test_from_a_named_directory() -> None:
    """FROM a named context that is a directory has its files as root."""
    found = steps("FROM ctx\nRUN 1\n", contexts={"ctx": False})
    assert isinstance(found[0].instruction, CopyFiles)
    assert found[0].instruction.destination == "/"


def test_named_images() -> None:
    """A named context that is an image is asked for by its name."""
    assert needs("FROM ctx:latest\n", contexts={"ctx": True}) == [ImageNeed("ctx", "linux/amd64")]


def test_scratch_is_no_context() -> None:
    """FROM scratch is scratch whatever contexts there are."""
    found = lowered("FROM scratch\nCOPY a /\n", contexts={"scratch": False})
    bases = [v for v in found.graph.vertices if isinstance(v, Base)]
    assert [base.name for base in bases] == ["scratch"]
    assert not any(isinstance(v, Step) and v.origin.index == 0 for v in found.graph.vertices)


# -- ONBUILD --------------------------------------------------------------------------------


def triggered(*triggers: str) -> dict[str, ImageConfig]:
    return {"trig": ImageConfig(onbuild=triggers, architecture="amd64", os="linux")}


def test_triggers_of_an_image() -> None:
    """They run first, in order, and are rows of their own after FROM."""
    found = lowered("FROM trig\nRUN 3\n", triggered("RUN 1", "ENV A=a", "RUN 2"))
    assert [(r.origin.op, r.origin.index, r.origin.onbuild) for r in found.rows] == [
        ("FROM", 0, None),
        ("RUN", 0, 0),
        ("ENV", 0, 1),
        ("RUN", 0, 2),
        ("RUN", 1, None),
    ]
    assert all(row.origin.line == 1 for row in found.rows[1:4])
    assert commands("FROM trig\nRUN 3\n", configs=triggered("RUN 1", "RUN 2")) == ["1", "2", "3"]
    assert found.config.onbuild == ()


def test_triggers_of_a_stage() -> None:
    """They fire in the stage made from it, and not in the one after that."""
    text = "FROM base AS a\nONBUILD RUN t\nFROM a AS b\nFROM b\nRUN x\n"
    assert commands(text) == ["t", "x"]
    assert lowered(text, target="a").config.onbuild == ("RUN t",)


def test_triggers_that_name_stages() -> None:
    """A trigger of an image or a stage makes a stage of this file needed."""
    image = "FROM base AS build\nRUN 1\nFROM trig\nRUN 2\n"
    assert commands(image, configs=triggered("COPY --from=build /x /y")) == ["1", "2"]
    stage = (
        "FROM base AS build\nRUN 1\nFROM base AS t\nONBUILD COPY --from=build /x /\nFROM t\nRUN 2\n"
    )
    assert commands(stage) == ["1", "2"]
    assert commands(stage, target="t") == []


def test_triggers_that_name_images() -> None:
    """Images that only triggers name are asked for."""
    found = folded("FROM trig\n", triggered("COPY --from=other /x /"))
    assert found == Needs((ImageNeed("other", "linux/amd64"),))


@pytest.mark.parametrize("trigger", ["nonsense", "WORKDIR", "COPY a", "RUN --mount=type=no x"])
def test_broken_triggers(trigger: str) -> None:
    """A trigger that can't be read is told at the line of FROM."""
    with pytest.raises(LayerCacheError) as caught:
        lowered("\nFROM trig\n", triggered(trigger))
    assert caught.value.line == 2


# -- no-cache, platforms, identity ----------------------------------------------------------


def test_no_cache_filters() -> None:
    """A filtered stage bypasses, and what is made from it; what it is made from does not."""
    text = "FROM base AS a\nRUN 1\nFROM a AS b\nRUN 2\nFROM b AS c\nRUN 3\n"
    found = steps(text, no_cache_stages=frozenset({"b"}))
    assert [s.bypass for s in found] == [False, True, True]


def test_no_cache_of_a_step() -> None:
    """A predicate picks single steps by their origin."""
    found = steps("FROM base\nRUN 1\nRUN 2\n", no_cache=lambda origin: origin.index == 2)
    assert [s.bypass for s in found] == [False, True]


def test_platform_of_the_base() -> None:
    """Commands run for the platform that the base image turned out to be of."""
    arm = ImageConfig.scratch("arm64")
    found = steps("FROM img\nRUN 1\n", configs={"img": arm}, platform="linux/amd64")
    assert found[-1].instruction.platform == "linux/arm64"  # type: ignore[attr-defined]


def test_equal_stages_have_equal_steps() -> None:
    """Names, numbers and places of stages are no part of what steps say."""
    one = steps("FROM base AS x\nRUN 1\nFROM base\nCOPY --from=x /a /b\nRUN 2\n")
    other = steps(
        "FROM base\nRUN 0\nFROM base AS y\nRUN 1\nFROM base\nCOPY --from=1 /a /b\nRUN 2\n"
    )
    assert [s.instruction.definition() for s in one] == [s.instruction.definition() for s in other]


def test_base_states() -> None:
    """The base is a source identified by its state, scratch has none."""
    image = base_image("base")
    vertices = lowered("FROM base\nRUN 1\n").graph.vertices
    assert Base("base", image.state) in vertices
