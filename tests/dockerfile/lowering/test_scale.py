"""Long recipes cost in proportion to their length, shown by counting calls."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import DockerfileError
from layercache.model.digests import Fingerprint
from layercache.model.framing import framed_field
from layercache.model.graph import Step
from layercache.model.keys import cache_key
from layercache.model.operations import Exec
from layercache.model.records import Record
from layercache.solver.strategies import ContentKeys
from layercache.store.codec import encode_record
from tests.dockerfile.lowering.support import lowered


def calls(text: str, **options: Any) -> int:
    """How many Python functions and C functions lowering calls."""
    Dockerfile.parse(text)
    count = 0

    def profile(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        lowered(text, **options)
    finally:
        sys.setprofile(None)
    return count


LONG = {
    "commands": lambda n: "FROM base\n" + "".join(f"RUN {i}\n" for i in range(n)),
    "copies": lambda n: "FROM base\n" + "".join(f"COPY a{i} /b\n" for i in range(n)),
    "labels": lambda n: "FROM base\n" + "".join(f"LABEL l{i}=1\n" for i in range(n)),
    "ports": lambda n: "FROM base\n" + "".join(f"EXPOSE {i + 1}\n" for i in range(n)),
    "volumes": lambda n: "FROM base\n" + "".join(f"VOLUME /v{i}\n" for i in range(n)),
    "triggers": lambda n: "FROM base\n" + "".join(f"ONBUILD RUN {i}\n" for i in range(n)),
    "variables": lambda n: "FROM base\n" + "".join(f"ENV V{i}=$V{i - 1}x\n" for i in range(n)),
    "arguments": lambda n: "FROM base\n" + "".join(f"ARG V{i}=1\n" for i in range(n)),
    "stages": lambda n: "".join(f"FROM base AS s{i}\nRUN {i}\n" for i in range(n)) + "FROM s0\n",
    "chained stages": lambda n: (
        "FROM base AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\nRUN {i}\n" for i in range(n))
    ),
    "stages copied from": lambda n: (
        "FROM base AS s0\n"
        + "".join(f"FROM base AS s{i + 1}\nCOPY --from=s{i} /a /a\n" for i in range(n))
    ),
    "global arguments": lambda n: "".join(f"ARG A{i}=1\n" for i in range(n)) + "FROM base\n",
}


@pytest.mark.parametrize("kind", LONG)
def test_twice_the_length_is_twice_the_work(kind: str) -> None:
    """Four times as many lines take at most some four times as many calls."""
    few, many = calls(LONG[kind](100)), calls(LONG[kind](400))
    assert many < 5 * few


def test_a_long_chain() -> None:
    """Twenty thousand instructions, and stages in a chain of two thousand, are lowered."""
    assert len(lowered(LONG["commands"](20_000)).rows) == 20_001
    found = lowered(LONG["chained stages"](2_000))
    assert len(found.history) == 2_000


PRODUCTS = {
    "ENV and RUN": lambda n: "FROM base\n" + "".join(f"ENV V{i}=1\nRUN {i}\n" for i in range(n)),
    "ARG and RUN": lambda n: "FROM base\n" + "".join(f"ARG V{i}=1\nRUN {i}\n" for i in range(n)),
    "ENV before RUN": lambda n: (
        "FROM base\n" + "".join(f"ENV V{i}=1\n" for i in range(n)) + "RUN x\n" * n
    ),
    "ENV again and RUN": lambda n: (
        "FROM base\n"
        + "".join(f"ENV V{i}=1\n" for i in range(n))
        + "".join(f"ENV V{i}=2\nRUN {i}\n" for i in range(n))
    ),
    "configuration and RUN": lambda n: (
        "FROM base\n"
        + "".join(
            f"LABEL l{i}=1\nEXPOSE {i + 1}\nVOLUME /v{i}\nONBUILD RUN {i}\nRUN {i}\n"
            for i in range(n)
        )
    ),
    "a chain of stages": lambda n: (
        "FROM base AS s0\n"
        + "".join(
            f"ENV V{i}=1\nARG A{i}=2\nLABEL l{i}=1\nEXPOSE {i + 1}\nVOLUME /v{i}\n"
            for i in range(n)
        )
        + "".join(f"FROM s{i} AS s{i + 1}\nENV X{i}=1\nARG V{i}=3\nRUN x\n" for i in range(n))
    ),
    "a star of stages": lambda n: (
        "FROM base AS s0\n"
        + "".join(f"ENV V{i}=1\nARG V{i}=3\nLABEL l{i}=1\nARG A{i}=2\n" for i in range(n))
        + "".join(f"FROM s0 AS s{i + 1}\nENV X{i}=1\nRUN x\n" for i in range(n))
        + "FROM base\n"
        + "".join(f"COPY --from=s{i + 1} a b{i}\n" for i in range(n))
    ),
    "mounts": lambda n: (
        "FROM base AS a\nFROM base\nRUN " + "--mount=from=a,target=/m \\\n" * n + "x\n"
    ),
    "sources": lambda n: "FROM base\nCOPY " + "".join(f"s{i} \\\n" for i in range(n)) + "x/\n",
    "here-documents": lambda n: (
        "FROM base\nRUN "
        + "".join(f"<<E{i} " for i in range(n))
        + "\n"
        + "".join(f"x\nE{i}\n" for i in range(n))
    ),
    "long instructions": lambda n: (
        "FROM base\nENV " + "".join(f"A{i}=$B{i}a \\\n" for i in range(n)) + "c=1\n"
    ),
}
"""Recipes in which everything meets everything."""


def work(text: str) -> tuple[int, int]:
    """Calls of lowering and keys, and bytes of all that is framed, recorded and shown."""
    keys = ContentKeys()
    count = 0

    def profile(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        found = lowered(text)
        known = [
            (keys.material(vertex, [Fingerprint("f")] * len(vertex.inputs)), vertex)
            for vertex in found.graph.vertices
            if isinstance(vertex, Step)
        ]
        named = [cache_key(material) for material, _ in known]
    finally:
        sys.setprofile(None)
    framed = sum(
        len(field.framed or framed_field(field))
        for material, _ in known
        for field in material.fields
    )
    kept = sum(
        len(encode_record(Record(key, material, None)))
        for key, (material, _) in zip(named, known, strict=True)
    )
    shown = sum(len(entry.created_by) for entry, _ in found.history)
    return count, framed + kept + shown


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_is_twice_the_work(kind: str) -> None:
    """Keys, records and history of a recipe of twice the length take twice as much, all in all."""
    few, many = work(PRODUCTS[kind](600)), work(PRODUCTS[kind](1_200))
    assert many[0] < 2.3 * few[0]
    assert many[1] < 2.3 * few[1]


def test_twenty_thousand_of_both() -> None:
    """A variable and a command, twenty thousand times, are lowered."""
    found = lowered(PRODUCTS["ENV and RUN"](20_000))
    assert len(found.rows) == 40_001
    last = found.graph.vertices[found.target]
    assert isinstance(last, Step)
    assert isinstance(last.instruction, Exec)
    assert dict(last.instruction.env)["V19999"] == "1"
    assert [field.label for field in last.instruction.definition()][1:3] == ["environment", "user"]


def test_triggers_of_many_heirs_are_given_up() -> None:
    """Each heir runs each trigger: the product is what the recipe asks for, and is bounded."""
    text = "FROM base AS s0\n" + "".join(f"ONBUILD RUN {i}\n" for i in range(2_000))
    heirs = "".join(f"FROM s0 AS h{i}\n" for i in range(1, 2_000))
    copies = "FROM base\n" + "".join(f"COPY --from=h{i} a b\n" for i in range(1, 2_000))
    with pytest.raises(DockerfileError, match="too costly"):
        lowered(text + heirs + copies)


def test_history_shows_the_first_arguments() -> None:
    """The line of a command names arguments up to a length, and says that there are more."""
    text = "FROM base\n" + "".join(f"ARG V{i}={'x' * 90}\n" for i in range(100)) + "RUN x\n"
    line = lowered(text).history[-1][0].created_by
    assert line.startswith("RUN |100 V0=xxx")
    assert line.endswith(" … /bin/sh -c x # buildkit")
    assert len(line) < 2_200


def test_commands_share_what_they_see() -> None:
    """Many commands after many variables hold them once."""
    text = "FROM base\n" + "".join(f"ENV V{i}=1\n" for i in range(5_000)) + "RUN x\n" * 5_000
    found = lowered(text)
    one, other = (found.graph.vertices[row.vertex or 0] for row in found.rows[-2:])
    assert one.instruction.env is other.instruction.env  # type: ignore[union-attr]
