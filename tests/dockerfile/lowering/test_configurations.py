"""Image configuration and history as BuildKit writes them."""

from __future__ import annotations

from typing import Any

import pytest

from layercache.model.image_config import HealthcheckConfig, ImageConfig
from tests.dockerfile.lowering.support import lowered

SECOND = 1_000_000_000


def history(body: str, **options: Any) -> list[tuple[str, bool]]:
    """Text and whether there is no layer, of every line."""
    found = lowered(f"FROM base\n{body}\n", **options)
    return [(entry.created_by, entry.empty_layer) for entry, _ in found.history]


@pytest.mark.parametrize(
    ("body", "line", "empty"),
    [
        ("RUN echo a", "RUN /bin/sh -c echo a # buildkit", False),
        ('RUN ["a", "b c"]', "RUN a b c # buildkit", False),
        ("COPY a b/ /c/", "COPY a b/ /c/ # buildkit", False),
        (
            "ENV D=/d\nCOPY --chown=root:$D --chmod=755 $D/x ${D}",
            "COPY --chown=root:/d --chmod=755 /d/x /d # buildkit",
            False,
        ),
        ("COPY --parents --link a /c", "COPY --parents a /c # buildkit", False),
        ("COPY <<x a /d/\nb\nx", "COPY a <<x /d/ # buildkit", False),
        ("ADD a /c", "ADD a /c # buildkit", False),
        ("WORKDIR /w", "WORKDIR /w", False),
        ("WORKDIR /", "WORKDIR /", True),
        ("ENV A=1 B='2 3'", "ENV A=1 B=2 3", True),
        ("ARG A=1 B", "ARG A=1 B", True),
        ("LABEL a=1 b=2", "LABEL a=1 b=2", True),
        ('CMD ["a", "b"]', 'CMD ["a" "b"]', True),
        ("CMD a b", 'CMD ["/bin/sh" "-c" "a b"]', True),
        ('ENTRYPOINT ["e"]', 'ENTRYPOINT ["e"]', True),
        ("USER u:g", "USER u:g", True),
        ("EXPOSE 80 90-91/udp", "EXPOSE [80/tcp 90/udp 91/udp]", True),
        ("VOLUME /b /a", "VOLUME [/b /a]", True),
        ('SHELL ["a", "b"]', "SHELL [a b]", True),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM", True),
        ("MAINTAINER me", "MAINTAINER me", True),
        (
            "HEALTHCHECK --interval=5s CMD a b",
            "HEALTHCHECK {Test:[CMD-SHELL a b] Interval:5s Timeout:0s StartPeriod:0s "
            "StartInterval:0s Retries:0}",
            True,
        ),
    ],
)
def test_lines_of_history(body: str, line: str, empty: bool) -> None:
    """Each instruction leaves one line, with or without a layer."""
    assert history(body)[-1] == (line, empty)


def test_triggers_leave_no_line() -> None:
    """ONBUILD is in the configuration alone."""
    assert history("ONBUILD RUN x") == []


@pytest.mark.parametrize(
    ("body", "args", "line"),
    [
        ("ARG A=1\nRUN x", {}, "RUN |1 A=1 /bin/sh -c x # buildkit"),
        ("ARG A=1\nRUN x", {"A": "2"}, "RUN |1 A=2 /bin/sh -c x # buildkit"),
        ("ARG A\nRUN x", {}, "RUN |1 A= /bin/sh -c x # buildkit"),
        ("ARG B=1\nARG A=2\nARG B=3\nRUN x", {}, "RUN |2 B=3 A=2 /bin/sh -c x # buildkit"),
        ("ARG A=1\nENV A=env\nRUN x", {}, "RUN |1 A=env /bin/sh -c x # buildkit"),
        ("ENV A=1\nRUN x", {}, "RUN /bin/sh -c x # buildkit"),
    ],
)
def test_arguments_in_history(body: str, args: dict[str, str], line: str) -> None:
    """The line of a command names every argument declared so far, with its value."""
    assert history(body, args=args)[-1][0] == line


def test_history_of_chained_stages() -> None:
    """It holds the lines of the stages it is made from, arguments included."""
    found = lowered("FROM base AS a\nARG A=1\nRUN 1\nFROM a AS b\nENV X=1\nFROM b\nRUN 2\n")
    assert [entry.created_by for entry, _ in found.history] == [
        "ARG A=1",
        "RUN |1 A=1 /bin/sh -c 1 # buildkit",
        "ENV X=1",
        "RUN |1 A=1 /bin/sh -c 2 # buildkit",
    ]


def test_lines_know_their_step() -> None:
    """A line with a layer names the step that makes it."""
    found = lowered("FROM base\nENV A=1\nRUN x\nCOPY a /\n")
    steps = [row.vertex for row in found.rows if row.vertex is not None]
    assert [vertex for _, vertex in found.history] == [None, *steps]


def test_what_configures_the_image() -> None:
    """The fold of one of each."""
    config = lowered(
        "FROM base\nENV B=b A=a\nLABEL z=1 y=2\nLABEL z=3\nEXPOSE 80\nVOLUME /v\nUSER u\n"
        'WORKDIR /w\nCMD ["c"]\nENTRYPOINT ["e"]\nSTOPSIGNAL 9\nSHELL ["s"]\nMAINTAINER me\n'
        "ONBUILD RUN t\n"
        "HEALTHCHECK --interval=1m30s --timeout=2s --start-period=3s --start-interval=4s "
        '--retries=5 CMD ["h"]\nENV B=c\n',
        labels={"y": "option", "x": "new"},
    ).config
    assert config == ImageConfig(
        env=(
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("B", "c"),
            ("A", "a"),
        ),
        labels=(("x", "new"), ("y", "option"), ("z", "3")),
        exposed_ports=("80/tcp",),
        volumes=("/v",),
        user="u",
        workdir="/w",
        cmd=("c",),
        entrypoint=("e",),
        stop_signal="9",
        shell=("s",),
        author="me",
        onbuild=("RUN t",),
        healthcheck=HealthcheckConfig(
            test=("CMD", "h"),
            interval=90 * SECOND,
            timeout=2 * SECOND,
            start_period=3 * SECOND,
            start_interval=4 * SECOND,
            retries=5,
        ),
        args_escaped=True,
        architecture=config.architecture,
        os=config.os,
        variant=config.variant,
        cmd_set=config.cmd_set,
    )


@pytest.mark.parametrize(
    ("text", "cmd"),
    [
        ('FROM img\nENTRYPOINT ["e"]\n', ()),
        ('FROM img\nCMD ["own"]\nENTRYPOINT ["e"]\n', ("own",)),
        ('FROM img\nENTRYPOINT ["e"]\nCMD ["own"]\n', ("own",)),
        ("FROM img\nUSER u\n", ("base",)),
        ('FROM img AS a\nCMD ["own"]\nFROM a\nENTRYPOINT ["e"]\n', ()),
    ],
)
def test_cmd_and_entrypoint(text: str, cmd: tuple[str, ...]) -> None:
    """ENTRYPOINT drops a CMD that comes from the base, one of the stage stays."""
    image = ImageConfig(cmd=("base",), architecture="amd64", os="linux")
    assert lowered(text, {"img": image}).config.cmd == cmd


def test_metadata_makes_no_step() -> None:
    """Configuration is beside the graph: other metadata, the same steps."""
    one = lowered("FROM base\nRUN x\nCOPY a /\n")
    other = lowered(
        'FROM base\nLABEL a=1\nCMD ["c"]\nEXPOSE 1\nRUN x\nVOLUME /v\nCOPY a /\nUSER u\n'
        "HEALTHCHECK NONE\nSTOPSIGNAL 9\nONBUILD RUN y\nMAINTAINER m\n"
    )
    assert one.graph == other.graph
    assert one.config != other.config


def test_the_fold_depends_on_its_arguments_only() -> None:
    """Lowering twice gives equal graphs, configurations and histories."""
    text = "FROM base AS a\nARG A=1\nRUN 1\nFROM base\nCOPY --from=a /x /\nLABEL l=$A\nWORKDIR /w\n"
    one, other = lowered(text, args={"A": "2"}), lowered(text, args={"A": "2"})
    assert one == other


def test_configuration_of_the_base() -> None:
    """What the base says stays where the recipe says nothing."""
    image = ImageConfig(
        env=(("PATH", "/p"), ("A", "a")),
        cmd=("c",),
        entrypoint=("e",),
        user="u",
        workdir="/base",
        labels=(("l", "1"),),
        exposed_ports=("1/tcp",),
        volumes=("/v",),
        stop_signal="9",
        shell=("s", "-c"),
        architecture="amd64",
        os="linux",
    )
    found = lowered("FROM img\nCOPY a .\nRUN x\nEXPOSE 2\nVOLUME /w\nLABEL m=2\n", {"img": image})
    assert found.config.exposed_ports == ("1/tcp", "2/tcp")
    assert found.config.volumes == ("/v", "/w")
    assert found.config.labels == (("l", "1"), ("m", "2"))
    assert (found.config.cmd, found.config.entrypoint) == (("c",), ("e",))
    copy, run = (found.graph.vertices[row.vertex] for row in found.rows if row.vertex is not None)
    assert copy.instruction.destination == "/base/"  # type: ignore[union-attr]
    assert run.instruction.args == ("s", "-c", "x")  # type: ignore[union-attr]
    assert (run.instruction.user, run.instruction.workdir) == ("u", "/base")  # type: ignore[union-attr]
