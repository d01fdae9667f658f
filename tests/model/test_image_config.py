"""The image configuration: what BuildKit writes, folded from instructions, read and written."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import UsageError
from layercache.model.digests import DiffID
from layercache.model.image_config import (
    DEFAULT_PATH,
    HealthcheckConfig,
    HistoryEntry,
    ImageConfig,
    ports,
)
from layercache.oci.manifests import decode, encode

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = WORDS.filter(lambda word: word and "=" not in word)
LISTS = st.lists(WORDS, max_size=3).map(tuple)


@st.composite
def configs(draw: st.DrawFn) -> ImageConfig:
    """Any configuration that the fold can make."""
    health = st.builds(
        HealthcheckConfig,
        test=LISTS,
        interval=st.integers(0, 10**12),
        timeout=st.integers(0, 10**12),
        retries=st.integers(0, 9),
    )
    unique = st.sets(WORDS.filter(bool), max_size=3).map(lambda items: tuple(sorted(items)))
    return ImageConfig(
        env=tuple(draw(st.dictionaries(NAMES, WORDS, max_size=4)).items()),
        cmd=draw(LISTS),
        entrypoint=draw(LISTS),
        user=draw(WORDS),
        workdir=draw(WORDS),
        exposed_ports=draw(unique),
        volumes=draw(unique),
        labels=tuple(sorted(draw(st.dictionaries(NAMES, WORDS, max_size=4)).items())),
        stop_signal=draw(WORDS),
        shell=draw(LISTS),
        onbuild=draw(LISTS),
        healthcheck=draw(st.none() | health),
        author=draw(WORDS),
        architecture=draw(WORDS),
        os=draw(WORDS),
        variant=draw(WORDS),
        os_version=draw(WORDS),
        os_features=draw(LISTS),
        args_escaped=draw(st.booleans()),
    )


@given(configs())
def test_written_and_read_it_is_the_same(config: ImageConfig) -> None:
    """A configuration survives JSON; what is absent stays absent; the bytes are one form."""
    written = encode(config.to_oci([]))
    again = ImageConfig.from_oci(decode(written, what="test"))
    if config.healthcheck == HealthcheckConfig():
        config = attrs.evolve(config, healthcheck=again.healthcheck)  # says nothing
    assert again == config
    assert encode(again.to_oci([])) == written or again.healthcheck is None


@given(configs(), NAMES, WORDS, WORDS)
def test_env_keeps_its_place(config: ImageConfig, name: str, first: str, second: str) -> None:
    """A variable set again keeps its place; a new one goes to the end; no name is there twice."""
    once = config.with_env(name, first)
    twice = once.with_env(name, second)
    assert [n for n, _ in once.env] == [n for n, _ in twice.env]
    assert dict(twice.env)[name] == second
    assert len(dict(twice.env)) == len(twice.env)
    if name not in dict(config.env):
        assert once.env[-1] == (name, first)


@given(configs(), LISTS)
def test_entrypoint_resets_only_an_inherited_cmd(
    config: ImageConfig, args: tuple[str, ...]
) -> None:
    """ENTRYPOINT drops the CMD of the base and keeps one of the same stage."""
    assert config.inherited().with_entrypoint(args).cmd == ()
    assert config.inherited().with_cmd(args).with_entrypoint(args).cmd == args
    stage = config.inherited().with_cmd(args).inherited()
    assert stage.with_entrypoint(args).cmd == ()


def test_shell_forms() -> None:
    """A shell form carries the effective shell; SHELL changes it for what follows."""
    config = ImageConfig().with_cmd("a b")
    assert config.cmd == ("/bin/sh", "-c", "a b")
    assert config.with_shell(["/bin/ash", "-ec"]).with_cmd("a b").cmd == ("/bin/ash", "-ec", "a b")
    assert config.with_cmd(["a", "b"]).cmd == ("a", "b")
    assert config.with_shell(["x"]).with_entrypoint("e").entrypoint == ("x", "e")
    assert config.config_to_oci()["ArgsEscaped"] is True


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["/a"], "/a"),
        (["a"], "/a"),
        (["/a", "b/"], "/a/b"),
        (["/a", "../../.."], "/"),
        (["//a//b/./c/"], "//a//b/./c/"),
        (["//a//b/./c/", "d/"], "/a/b/c/d"),
        (["/a/", ""], "/a/"),
        (["/a", "."], "/a"),
    ],
)
def test_workdir(steps: list[str], expected: str) -> None:
    """WORKDIR is kept as written; a relative one goes on from the last, cleaned."""
    config = ImageConfig()
    for step in steps:
        config = config.with_workdir(step)
    assert config.workdir == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", ["80/tcp"]),
        ("53/udp", ["53/udp"]),
        ("53/UDP", ["53/udp"]),
        ("80-82", ["80/tcp", "81/tcp", "82/tcp"]),
        ("127.0.0.1:8080:80", ["80/tcp"]),
        ("9/sctp", ["9/sctp"]),
    ],
)
def test_ports(spec: str, expected: list[str]) -> None:
    """EXPOSE knows ranges and protocols; where it is published to does not count."""
    assert list(ports(spec)) == expected


@pytest.mark.parametrize("spec", ["", "x", "80/http", "70000", "82-80", "-1", "80-", "1-65536"])
def test_ports_that_are_none(spec: str) -> None:
    """What is no port is refused, with the word in the message."""
    with pytest.raises(UsageError, match="EXPOSE"):
        ports(spec)


@pytest.mark.parametrize(
    ("signal", "good"),
    [
        ("9", True),
        ("SIGTERM", True),
        ("term", True),
        ("SIGRTMIN+3", True),
        ("0", False),
        ("SIGNONE", False),
        ("", False),
        ("-9", False),
        ("9 ", False),
    ],
)
def test_stop_signal(signal: str, good: bool) -> None:
    """STOPSIGNAL is kept as written when it is a signal."""
    if good:
        assert ImageConfig().with_stop_signal(signal).stop_signal == signal
    else:
        with pytest.raises(UsageError, match="STOPSIGNAL"):
            ImageConfig().with_stop_signal(signal)


def test_a_stage_starts_from_its_base() -> None:
    """PATH is always set, triggers are not passed on, everything else is."""
    base = ImageConfig(env=(("A", "1"),), onbuild=("RUN x",), user="u", os="linux")
    stage = base.inherited()
    assert stage.env == (("A", "1"), ("PATH", DEFAULT_PATH))
    assert stage.onbuild == ()
    assert stage.user == "u"
    assert ImageConfig(env=(("PATH", "/x"),)).inherited().env == (("PATH", "/x"),)
    scratch = ImageConfig.scratch("arm", variant="v7")
    assert (scratch.workdir, scratch.variant) == ("/", "v7")


def test_known_values() -> None:
    """Values as BuildKit writes them: sets as objects, durations in nanoseconds, the author."""
    config = (
        ImageConfig(os="linux", architecture="amd64")
        .with_expose("80")
        .with_volume("/v")
        .with_label("b", "2")
        .with_label("a", "1")
        .with_maintainer("me")
        .with_onbuild("RUN x")
        .with_healthcheck(HealthcheckConfig(test=("CMD-SHELL", "true"), interval=5_000_000_000))
    )
    written = config.to_oci([DiffID("sha256:" + "0" * 64)], "2001-01-01T00:00:00Z")
    assert list(written) == sorted(written)
    assert written["author"] == "me"
    assert written["config"] == {
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/v": {}},
        "Labels": {"a": "1", "b": "2"},
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000},
        "OnBuild": ["RUN x"],
    }
    text = "{Test:[CMD-SHELL true] Interval:1m30.5s Timeout:20ms "
    health = HealthcheckConfig(
        test=("CMD-SHELL", "true"),
        interval=90_500_000_000,
        timeout=20_000_000,
        start_interval=3600 * 10**9,
        retries=3,
    )
    assert str(health) == text + "StartPeriod:0s StartInterval:1h0m0s Retries:3}"


def test_history_entries() -> None:
    """History is marked as BuildKit marks it, and must fit the layers."""
    copy = HistoryEntry.of("COPY . .", layer=True)
    workdir = HistoryEntry.of("WORKDIR /a", layer=True, operation=False)
    assert copy.to_oci() == {
        "created_by": "COPY . . # buildkit",
        "comment": "buildkit.dockerfile.v0",
    }
    assert workdir.created_by == "WORKDIR /a"
    assert HistoryEntry.of("CMD x").to_oci()["empty_layer"] is True
    assert HistoryEntry.from_oci(copy.to_oci()) == copy
    with pytest.raises(UsageError, match="layers"):
        ImageConfig().to_oci([], None, [copy])


def test_what_docker_keeps_of_a_base() -> None:
    """Unknown fields of "config" are kept word for word; those of a container, and of the whole
    image that describe another image, are not."""
    base = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2001-01-01T00:00:00Z",
        "container": "abc",
        "container_config": {"Cmd": ["x"]},
        "moby.buildkit.cache.v0": "x",
        "config": {"Hostname": "h", "StopTimeout": 3, "Future": {"z": [1, None], "a": "ü"}},
    }
    written = ImageConfig.from_oci(base).to_oci([])
    assert written["config"] == {"Future": {"z": [1, None], "a": "ü"}, "StopTimeout": 3}
    assert sorted(written) == ["architecture", "config", "os", "rootfs"]


@pytest.mark.parametrize(
    "value",
    [
        {"config": []},
        {"config": {"Env": "A=1"}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": ["a"]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Healthcheck": "x"}},
        {"config": {"Healthcheck": {"Interval": "5s"}}},
        {"config": {"User": 5}},
        {"history": {"a": 1}},
        {"history": ["x"]},
        {"os": 1},
    ],
)
def test_wrong_types_are_refused(value: dict[str, Any]) -> None:
    """A configuration of wrong types is refused, never half understood."""
    with pytest.raises(UsageError, match="image configuration"):
        ImageConfig.from_oci(value)
