"""Scopes of ENV and ARG: what a command sees, in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import DockerfileError
from layercache.model.image_config import ImageConfig
from tests.dockerfile.lowering.support import PATH, lowered, step, steps


def seen(text: str, **options: Any) -> tuple[tuple[str, str], ...]:
    """The environment of the last command, PATH apart."""
    env: tuple[tuple[str, str], ...] = steps(text, **options)[-1].instruction.env  # type: ignore[attr-defined]
    return tuple(pair for pair in env if pair[0] != "PATH")


@pytest.mark.parametrize(
    ("body", "env"),
    [
        ("ENV A=1 B=2", (("A", "1"), ("B", "2"))),
        ("ENV B=2\nENV A=1", (("B", "2"), ("A", "1"))),
        ("ENV A=1\nENV B=2\nENV A=3", (("B", "2"), ("A", "3"))),
        ("ENV A 1 2", (("A", "1 2"),)),
        ("ENV A=", (("A", ""),)),
        ("ENV A=1\nENV A=2 B=$A", (("A", "2"), ("B", "1"))),
        ("ARG A=1 B=$A", (("A", "1"), ("B", "1"))),
        ("ARG A", ()),
        ("ARG A=", (("A", ""),)),
        ("ENV A=env\nARG A=arg", (("A", "arg"),)),
        ("ARG A=arg\nENV A=env", (("A", "env"),)),
        ("ENV A=env\nARG A", (("A", "env"),)),
        ("ARG A=1\nENV B=b$A", (("A", "1"), ("B", "b1"))),
        ("ARG A=1\nARG A=2", (("A", "2"),)),
        ("ARG BUILDKIT_SBOM_SCAN_STAGE=true", ()),
    ],
)
def test_order_and_shadowing(body: str, env: tuple[tuple[str, str], ...]) -> None:
    """Later settings move to the end; one line sees what was before it, but for ARG."""
    assert seen(f"FROM base\n{body}\nRUN x\n") == env


@pytest.mark.parametrize(
    ("args", "env"),
    [
        ({}, (("A", "1"),)),
        ({"A": "2"}, (("A", "2"),)),
        ({"A": ""}, (("A", ""),)),
        ({"B": "2"}, (("A", "1"),)),
        ({"A": "$PATH"}, (("A", "$PATH"),)),
    ],
)
def test_passed_values(args: dict[str, str], env: tuple[tuple[str, str], ...]) -> None:
    """A passed value wins over the default and is taken as it is; undeclared ones are nothing."""
    assert seen("FROM base\nARG A=1\nRUN x\n", args=args) == env


def test_which_values_are_private() -> None:
    """Values of arguments are marked, ENV of the same name takes the mark away."""
    assert step("ARG A=1 B=2\nENV B=3 C=4\nRUN x").arguments == ("A",)
    assert step("ENV A=1\nARG A=2\nRUN x").arguments == ("A",)


def test_before_the_declaration() -> None:
    """An argument reaches the commands after its declaration only."""
    first, second = steps("FROM base\nRUN x\nARG A=1\nRUN y\n")
    assert first.instruction.env == (PATH,)  # type: ignore[attr-defined]
    assert second.instruction.env == (PATH, ("A", "1"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "args", "env"),
    [
        ("ARG A=1\nFROM base\nRUN x\n", {}, ()),
        ("ARG A=1\nFROM base\nARG A\nRUN x\n", {}, (("A", "1"),)),
        ("ARG A=1\nFROM base\nARG A\nRUN x\n", {"A": "2"}, (("A", "2"),)),
        ("ARG A=1\nFROM base\nARG A=3\nRUN x\n", {}, (("A", "3"),)),
        ("ARG A=1\nARG B=b$A\nFROM base\nARG B\nRUN x\n", {"A": "2"}, (("B", "b2"),)),
        ("ARG A\nFROM base\nARG A\nRUN x\n", {}, ()),
        ("FROM base\nARG A=1\nFROM base\nRUN x\n", {"A": "2"}, ()),
    ],
)
def test_global_arguments(
    text: str, args: dict[str, str], env: tuple[tuple[str, str], ...]
) -> None:
    """A stage sees a global argument only where it declares it again without a default."""
    assert seen(text, args=args) == env


def test_a_stage_from_a_stage() -> None:
    """It inherits arguments, but its ENV is set anew over those of the same name."""
    text = "FROM base AS one\nARG A=1\nENV B=env\nARG B=arg\nFROM one\nRUN x\n"
    assert dict(seen(text)) == {"A": "1", "B": "env"}


def test_an_image_with_an_environment() -> None:
    """ENV of the base image comes first, in its order; without PATH it gets one."""
    config = ImageConfig(env=(("B", "b"), ("A", "a")), architecture="amd64", os="linux")
    text = "FROM img\nENV B=c\nRUN x\n"
    env = steps(text, configs={"img": config})[-1].instruction.env  # type: ignore[attr-defined]
    assert env == (("A", "a"), PATH, ("B", "c"))


def test_the_executors_own_path() -> None:
    """Where commands run with the host's PATH, a base without one gets none."""
    config = ImageConfig(architecture="amd64", os="linux")
    found = steps("FROM img\nRUN x\n", configs={"img": config}, host_path=True)
    assert found[-1].instruction.env == ()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TARGETPLATFORM", "linux/arm/v7"),
        ("TARGETOS", "linux"),
        ("TARGETARCH", "arm"),
        ("TARGETVARIANT", "v7"),
        ("TARGETSTAGE", "last"),
        ("BUILDPLATFORM", "linux/amd64"),
        ("BUILDOS", "linux"),
        ("BUILDARCH", "amd64"),
        ("BUILDVARIANT", ""),
    ],
)
def test_automatic_arguments(name: str, value: str) -> None:
    """They are there once declared, and a passed value overrides them."""
    text = f"FROM base AS last\nARG {name}\nRUN x\n"
    options: dict[str, Any] = {"platform": "linux/arm/v7", "target": "last"}
    assert seen(text, **options) == ((name, value),)
    assert seen(text, args={name: "mine"}, **options) == ((name, "mine"),)
    assert seen("FROM base AS last\nRUN x\n", **options) == ()


def test_target_stage_without_a_target() -> None:
    """Then it is called default."""
    assert seen("FROM base\nARG TARGETSTAGE\nRUN x\n") == (("TARGETSTAGE", "default"),)


@pytest.mark.parametrize(
    "name", ["HTTP_PROXY", "https_proxy", "Ftp_Proxy", "NO_PROXY", "all_proxy"]
)
def test_proxies(name: str) -> None:
    """Undeclared they reach the command in both cases and are no part of it."""
    found = step("RUN x", args={name: "p"})
    if name == "Ftp_Proxy":
        assert found.proxies == ()
        return
    assert set(found.proxies) == {(name.upper(), "p"), (name.lower(), "p")}
    assert found == step("RUN x")
    assert found.definition() == step("RUN x").definition()
    declared = step(f"ARG {name}\nRUN x", args={name: "p"})
    assert declared.env == (PATH, (name, "p"))
    assert name not in dict(declared.proxies)


def test_unused_arguments() -> None:
    """What was passed and nothing declares is told; proxies and the builder's own are not."""
    args = dict.fromkeys(["A", "B", "C", "HTTP_PROXY", "TARGETARCH", "SOURCE_DATE_EPOCH"], "1")
    args["BUILDKIT_INLINE_CACHE"] = "1"
    text = "ARG A\nFROM base AS unused\nARG C\nFROM base\nARG B\n"
    assert lowered(text, args=args).unused_args == ("C",)


def test_words_of_metadata() -> None:
    """Variables are expanded in what configures the image, and not in commands."""
    config = lowered(
        "FROM base\nARG V=7\nLABEL l=$V k$V=x\nEXPOSE $V 8$V\nVOLUME /v$V\nUSER u$V\n"
        'STOPSIGNAL $V\nWORKDIR /w$V\nCMD ["$V"]\nENTRYPOINT x $V\nHEALTHCHECK CMD y $V\n'
        "ONBUILD RUN $V\n"
    ).config
    assert config.labels == (("k7", "x"), ("l", "7"))
    assert config.exposed_ports == ("7/tcp", "87/tcp")
    assert config.volumes == ("/v7",)
    assert (config.user, config.stop_signal, config.workdir) == ("u7", "7", "/w7")
    assert config.cmd == ("$V",)
    assert config.entrypoint == ("/bin/sh", "-c", "x $V")
    assert config.healthcheck is not None
    assert config.healthcheck.test == ("CMD-SHELL", "y $V")
    assert config.onbuild == ("RUN $V",)


def test_an_expansion_that_demands_a_value() -> None:
    """`${A:?}` fails where it stands, and only if the stage is needed."""
    text = "FROM base AS one\nENV B=${A:?no}\nFROM base\nRUN x\n"
    assert len(steps(text)) == 1
    with pytest.raises(DockerfileError) as caught:
        lowered(text, target="one")
    assert caught.value.line == 2


NAMES = st.sampled_from(["A", "B", "C"])
VALUES = st.sampled_from(["", "1", "2", "x$A", "${B:-d}", "y${C}z"])
LINES = st.one_of(
    st.tuples(st.just("ENV"), NAMES, VALUES),
    st.tuples(st.just("ARG"), NAMES, VALUES),
    st.tuples(st.just("ARG"), NAMES, st.none()),
    st.tuples(st.just("RUN"), st.none(), st.none()),
)


@given(st.lists(LINES, max_size=12), st.dictionaries(NAMES, st.sampled_from(["p", ""]), max_size=3))
def test_scopes_agree_with_a_plain_model(
    lines: list[tuple[str, str | None, str | None]], args: dict[str, str]
) -> None:
    """What each command sees is what a model of an ordered list of settings says."""
    model: list[tuple[str, str]] = []
    expected: list[dict[str, str]] = []
    order: list[list[str]] = []
    text = ["FROM base"]

    def value(name: str) -> str:
        return dict(model).get(name, "")

    def expand(word: str) -> str:
        table = {"x$A": "x" + value("A"), "${B:-d}": value("B") or "d"}
        return table.get(word, "y" + value("C") + "z" if word.startswith("y") else word)

    def put(name: str, found: str) -> None:
        model[:] = [pair for pair in model if pair[0] != name] + [(name, found)]

    for kind, name, word in lines:
        if kind == "RUN" or name is None:
            text.append("RUN x")
            expected.append(dict(model))
            order.append([pair[0] for pair in model])
            continue
        text.append(f"{kind} {name}" if word is None else f"{kind} {name}={word}")
        if kind == "ENV":
            put(name, expand(word or ""))
        elif name in args:
            put(name, args[name])
        elif word is not None:
            put(name, expand(word))
    found = steps("\n".join(text) + "\n", args=args)
    envs = [s.instruction.env[1:] for s in found]  # type: ignore[attr-defined]
    assert [dict(env) for env in envs] == expected
    assert [[name for name, _ in env] for env in envs] == order


_LINES = st.lists(
    st.tuples(st.sampled_from(["ENV", "ARG", "FROM", "RUN"]), st.sampled_from("ABCDE")),
    max_size=30,
)


@given(_LINES)
def test_what_heirs_see_is_the_configuration_behind_the_arguments(
    lines: list[tuple[str, str]],
) -> None:
    """However stages follow each other: arguments first, then the image's variables in their
    order there."""
    text, stage = "FROM base AS s0\n", 0
    config = dict([PATH])
    seen = dict(config)
    expected = []
    for number, (what, name) in enumerate(lines):
        if what == "FROM":
            text += f"FROM s{stage} AS s{stage + 1}\n"
            stage += 1
            seen = {n: v for n, v in seen.items() if n not in config} | config
        elif what == "RUN":
            text += f"RUN {number}\n"
            expected.append(tuple(seen.items()))
        else:
            text += f"{what} {name}={number}\n"
            seen.pop(name, None)
            seen[name] = str(number)
            if what == "ENV":
                config[name] = str(number)
    found = lowered(text)
    made = [one.instruction for one in steps(text)]
    assert [tuple(one.env) for one in made] == expected  # type: ignore[attr-defined]
    assert found.config.env == tuple(config.items())
