"""Instructions written by hand: checked when made, frozen, and with a text of their own."""

from __future__ import annotations

import pickle
import re
from typing import Any, cast

import attrs
import pytest

from layercache.dockerfile.instructions import (
    Add,
    Arg,
    BindMount,
    CacheMount,
    Cmd,
    Copy,
    DockerfileInstruction,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    HereDoc,
    Label,
    Onbuild,
    Run,
    SecretMount,
    Shell,
    User,
    Volume,
)
from layercache.errors import UsageError
from layercache.model.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (From("node:20", alias="Build"), "FROM node:20 AS build"),
        (Run("npm install"), "RUN npm install"),
        (Run(["npm", "ci"]), 'RUN ["npm", "ci"]'),
        (
            Run("x", mounts=[CacheMount("/c", mode=0o755), SecretMount("s")], network="none"),
            "RUN --mount=type=cache,target=/c,mode=0755 --mount=type=secret,id=s --network=none x",
        ),
        (
            Run("x", mounts=[BindMount("/m", "a b")]),
            "RUN --mount=type=bind,target=/m,source=a\\ b x",
        ),
        (Run("cat <<E", heredocs=[HereDoc("E", "a\n")]), "RUN cat <<E\na\nE"),
        (Run("--version"), "RUN -- --version"),
        (Copy("package*.json", "./"), "COPY package*.json ./"),
        (Copy("a b", "c/", chmod=0o644), 'COPY --chmod=0644 ["a b", "c/"]'),
        (
            Copy(HereDoc("E", "a\n", expand=False), "/x", link=True),
            "COPY --link <<'E' /x\na\nE",
        ),
        (Add("a.tar", "/", unpack=False), "ADD --unpack=false a.tar /"),
        (Env(A="1", B="x y"), "ENV A=1 B=x\\ y"),
        (Env({"A": "x y"}), "ENV A x y"),
        (Env([("A", '"x y"'), ("A", "2")]), 'ENV A="x y" A=2'),
        (Label({"a.b": "1"}), "LABEL a.b=1"),
        (Arg("V"), "ARG V"),
        (Arg("V", ""), "ARG V="),
        (Arg(("A", None), ("B", "1")), "ARG A B=1"),
        (Cmd(["node", "server.js"]), 'CMD ["node", "server.js"]'),
        (Expose(80, "53/udp"), "EXPOSE 80 53/udp"),
        (Healthcheck(None), "HEALTHCHECK NONE"),
        (Healthcheck("x", interval=5, retries=2), "HEALTHCHECK --interval=5s --retries=2 CMD x"),
        (Onbuild(Run("make")), "ONBUILD RUN make"),
    ],
)
def test_the_text_of_a_value(value: DockerfileInstruction, text: str) -> None:
    """Each has a canonical text, is hashable, and survives pickling."""
    assert value.text == text
    assert value.location is None
    assert {value: 1}[pickle.loads(pickle.dumps(value))] == 1


WRONG: Any = 7
OTHER: Any = "yes"
"""Values of types that no argument has here."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: From(""), "the image of FROM is empty"),
        (lambda: From("a", "1x"), "invalid name for a stage"),
        (lambda: Run(WRONG), "a list of texts"),
        (lambda: Run([WRONG]), "is a text, not 7"),
        (lambda: Run("a\0"), "NUL"),
        (lambda: Run("x", mounts=[OTHER]), "a mount of RUN is a BindMount"),
        (lambda: Run("x", network="lan"), "default, none or host"),
        (lambda: Run("cat <<E"), "announces: <<E"),
        (lambda: Run("cat", heredocs=[HereDoc("E")]), "announces: none"),
        (lambda: Copy("a"), "at least one source and a destination"),
        (lambda: Copy("a", HereDoc("E")), "can't be a here-document"),
        (lambda: Copy("a", "b", from_="$X"), "takes no variables"),
        (lambda: Copy("a", "b", chmod=0o10000), "modes go up to 7777"),
        (lambda: Copy("a", "b", link=OTHER), "link of COPY is True or False"),
        (lambda: Copy("a", "b", exclude="x"), "exclude of COPY is a list"),
        (lambda: Add(WRONG, "b"), "a source of ADD is a text"),
        (lambda: Env(), "at least one name"),
        (lambda: Env({"": "x"}), "a name of ENV is empty"),
        (lambda: Env(A=WRONG), "the value of A is a text"),
        (lambda: Arg("A=1"), "holds '='"),
        (lambda: cast("Any", Arg)("A", "1", "2"), "given as pairs"),
        (lambda: Shell([]), "at least one argument"),
        (lambda: Expose(), "at least one argument"),
        (lambda: Volume(" "), "is empty"),
        (lambda: User(""), "is empty"),
        (lambda: Healthcheck(""), "needs a command"),
        (lambda: Healthcheck(None, retries=1), "takes no options"),
        (lambda: Healthcheck("x", retries=-1), "retries of HEALTHCHECK can't be -1"),
        (lambda: Healthcheck("x", timeout="1"), "is not a duration"),
        (lambda: Onbuild(From("a")), "FROM isn't allowed"),
        (lambda: Onbuild(Onbuild(Run("x"))), "ONBUILD ONBUILD"),
        (lambda: Onbuild(OTHER), "is an instruction"),
        (lambda: CacheMount("/c", sharing="all"), "shared, private or locked"),
        (lambda: CacheMount("/c", uid=-1), "an owner of a mount can't be -1"),
        (lambda: BindMount("/c", from_="$X"), "takes no variables"),
        (lambda: SecretMount(), "an id or a target"),
        (lambda: HereDoc(""), "needs a name"),
        (lambda: HereDoc("E", "x"), "has no newline"),
        (lambda: HereDoc("E", "x\nE\n"), "its own end mark"),
    ],
)
def test_a_bad_value_is_refused_at_once(make: object, message: str) -> None:
    """The error comes from the constructor and names the field."""
    assert callable(make)
    with pytest.raises(UsageError, match=re.escape(message)):
        make()


def test_values_are_frozen() -> None:
    """No field can be set."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Cmd("x").command = "y"  # type: ignore[misc]


def test_equality_is_by_kind_and_content() -> None:
    """Classes of one shape differ; order of pairs counts; place and spelling do not."""
    other: object = Entrypoint("x")
    assert Cmd("x") != other
    assert Env(A="1", B="2") != Env(B="2", A="1")
    assert Cmd("x", source="cmd   x") == Cmd("x")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1ms", 10**6), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), (".5s", 5 * 10**8)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    """Durations are read as Go reads them."""
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1..s", "1 s", "9" * 50 + "h"])
def test_no_durations(text: str) -> None:
    """And nothing else is."""
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("64m", 64 << 20),
        ("1.5G", 3 << 29),
        ("2 KiB", 2048),
        ("7b", 7),
        ("1tb", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Units are of 1024, in any case."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "1x", "-1", "1e3", "9" * 30])
def test_no_sizes(text: str) -> None:
    """And nothing else is."""
    with pytest.raises(UsageError):
        parse_size(text)
