"""Long recipes cost in proportion to their length, shown by counting calls."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import DockerfileError
from tests.lowering.support import lowered


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


def test_what_grows_faster_is_given_up() -> None:
    """Commands that each see other ones of very many variables are bounded as a whole."""
    text = "FROM base\n" + "".join(f"ENV V{i}=1\n" for i in range(5_000))
    with pytest.raises(DockerfileError) as caught:
        lowered(text + "ENV V=1\nRUN x\n" * 2_000)
    assert "too costly" in str(caught.value)


def test_variables_of_commands_that_share_them_are_bounded_too() -> None:
    """Each key names every variable: twenty thousand of both would take minutes to hash."""
    text = "FROM base\n" + "".join(f"ENV V{i}=1\n" for i in range(20_000)) + "RUN x\n" * 20_000
    with pytest.raises(DockerfileError, match="too costly"):
        lowered(text)


def test_commands_share_what_they_see() -> None:
    """Many commands after many variables hold them once."""
    text = "FROM base\n" + "".join(f"ENV V{i}=1\n" for i in range(5_000)) + "RUN x\n" * 5_000
    found = lowered(text)
    one, other = (found.graph.vertices[row.vertex or 0] for row in found.rows[-2:])
    assert one.instruction.env is other.instruction.env  # type: ignore[union-attr]
