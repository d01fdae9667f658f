"""What is expanded from build arguments reaches the cache as a digest, never in the clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercache import Builder, Dockerfile
from layercache.model.graph import Step
from tests.dockerfile.lowering.support import lowered

SECRET = "Tr0ub4dor"

TEXTS = {
    "ENV": "ENV A=x${S}y\nRUN env\n",
    "ENV of ENV": "ENV A=$S\nENV B=$A\nRUN env\n",
    "ENV of a stage": "ENV A=$S\nFROM one\nRUN env\n",
    "default": "ARG T=${S}2\nENV A=$T\nRUN env\n",
    "WORKDIR": "WORKDIR /x/$S\nRUN pwd\nWORKDIR y\nRUN pwd\n",
    "USER": "USER $S\nWORKDIR /x\nRUN id\n",
    "chown": "COPY --chown=$S:1 a /b\n",
    "destination": "COPY a /$S/\n",
    "relative destination": "WORKDIR /$S\nCOPY a b\n",
    "here-document": "COPY <<E /b\nx $S\nE\n",
    "exclude": "COPY --exclude=$S d /b\n",
    "source": "COPY x$S d*$S /b/\n",
    "bind source": "RUN --mount=type=bind,source=$S,target=/b true\n",
    "secret": "RUN --mount=type=secret,id=$S,target=/b true\n",
    "variable of a secret": "RUN --mount=type=secret,id=s,env=$S,target=/b true\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_fields_are_private(name: str) -> None:
    """Each field of each step that holds the value is marked: stores keep a keyed digest."""
    found = lowered("FROM base AS one\nARG S\n" + TEXTS[name], args={"S": SECRET})
    holding = [
        field
        for vertex in found.graph.vertices
        if isinstance(vertex, Step)
        for field in (
            *vertex.instruction.definition(),
            *(field for read in vertex.inputs for field in read.selector.definition()),
        )
        if SECRET in repr(field.value)
    ]
    assert holding or name == "bind source"  # of which the content alone counts
    assert all(field.private for field in holding)


def test_what_is_written_in_the_dockerfile_is_not() -> None:
    """No more is hidden than came from arguments: explanations show the rest."""
    text = "FROM base\nARG S\nENV A=$S\nENV A=plain\nWORKDIR /$S\nWORKDIR /w\nCOPY a /b\nRUN env\n"
    found = lowered(text, args={"S": SECRET})
    last = found.graph.vertices[-1]
    assert isinstance(last, Step)
    private = {field.label for field in last.instruction.definition() if field.private}
    assert private == {"env S"}


def test_keys_do_not_change_by_it() -> None:
    """A value that comes from an argument and one that is written give one step."""
    one = lowered("FROM base\nARG S=/w\nWORKDIR $S\n").graph.vertices[-1]
    two = lowered("FROM base\nARG S=/w\nWORKDIR /w\n").graph.vertices[-1]
    assert isinstance(one, Step)
    assert isinstance(two, Step)
    assert one.instruction == two.instruction


def test_nothing_in_a_cache_directory_holds_the_value(tmp_path: Path) -> None:
    """A whole build: no record, trail or name of the cache."""
    text = (
        "FROM scratch\nARG S\nENV A=$S\nARG M\nCOPY --chmod=6$M a /b\nWORKDIR /w\n"
        "COPY --exclude=$S a* /c/\nCOPY [^$S]* /d/\n"
    )
    with Builder(tmp_path / "cache") as builder:
        for content in ("1", "2"):
            args = {"S": SECRET, "M": "40"}
            builder.build(Dockerfile.parse(text), context={"a": content}, args=args)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert files
    assert all(SECRET.encode() not in path.read_bytes() for path in files)
