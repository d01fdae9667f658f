"""The work of a check grows with the file, also for hostile ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from layercache.checks import check_dockerfile, outline_of
from layercache.dockerfile.syntax.limits import Budget
from layercache.errors import DockerfileError


def calls_of(work: Callable[[], Any]) -> int:
    """The function calls that `work` makes, those of built-in functions too."""
    count = 0

    def counted(_frame: Any, event: str, _value: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


SHAPES: dict[str, Callable[[int], str]] = {
    "arguments before steps": lambda n: (
        "FROM a\n" + "".join(f"ARG A{i}\n" for i in range(n)) + "RUN x\n" * n
    ),
    "arguments that are used late": lambda n: (
        "FROM a\n"
        + "".join(f"ARG A{i}\n" for i in range(n))
        + "RUN x\n" * n
        + "".join(f"LABEL a=$A{i}\n" for i in range(n))
    ),
    "global arguments and stages": lambda n: (
        "".join(f"ARG A{i}=$A{i - 1}\n" for i in range(1, n)) + "FROM a:$A1\n" * n
    ),
    "variables of a stage": lambda n: (
        "FROM scratch\n" + "".join(f"ENV A{i}=1\nLABEL a=$A{i}\n" for i in range(n))
    ),
    "heirs of a stage": lambda n: (
        "FROM a AS s0\n"
        + "".join(f"ENV A{i}=1\n" for i in range(n))
        + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(n))
    ),
    "instructions of a stage": lambda n: "FROM a\n" + "WORKDIR /a\n" * n,
    "comments": lambda n: "# a\n" * n + "FROM a AS b\n" + "# a\n" * n + "ARG c\n",
    "copies between stages": lambda n: (
        "".join(f"FROM a AS s{i}\n" for i in range(n))
        + "FROM a\n"
        + "".join(f"COPY --from=s{i} a .\n" for i in range(n))
    ),
    "package managers in one script": lambda n: "FROM a\nRUN " + "apt " * n + "\n",
}


@pytest.mark.parametrize("work", [check_dockerfile, outline_of])
@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_file_is_twice_the_work(shape: str, work: Callable[[str], Any]) -> None:
    small, large = (SHAPES[shape](n) for n in (150, 300))
    work(small)  # whatever is made once
    assert calls_of(lambda: work(large)) < 2.4 * calls_of(lambda: work(small))


def test_the_search_for_similar_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each undefined variable is compared with all others: that counts against the file."""
    text = (
        "FROM scratch\n"
        + "".join(f"ENV A{i}=1\n" for i in range(100))
        + "".join(f"LABEL a=$B{i}\n" for i in range(100))
    )
    monkeypatch.setattr("layercache.checks.check.Budget", lambda: Budget(limit=1_000_000))
    with pytest.raises(DockerfileError, match="more than 1,000,000 steps"):
        check_dockerfile(text)
