"""Image references, platforms and outputs: how they are written, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.errors import UsageError
from layercache.images.output_spec import Annotation, OutputSpec, parse_annotation, parse_output
from layercache.oci.platforms import Platform, host_platform
from layercache.oci.references import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine", "alpine"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("ghcr.io/a/b-c__d.e:T.1", "ghcr.io/a/b-c__d.e:T.1", "ghcr.io/a/b-c__d.e:T.1"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", f"a@{DIGEST}"),
        (f"a:t@{DIGEST}", f"docker.io/library/a:t@{DIGEST}", f"a:t@{DIGEST}"),
        ("Host/a", "Host/a", "Host/a"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
    ],
)
def test_references(text: str, whole: str, familiar: str) -> None:
    """Docker's defaults are filled in, and left out again for people; both read back the same."""
    reference = Reference.parse(text)
    assert str(reference) == whole
    assert reference.familiar == familiar
    assert Reference.parse(whole) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "a:",
        "a:-x",
        "a@",
        "a//b",
        "/a",
        "a/",
        "a b",
        "a@sha256:12",
        "a@md5:" + "0" * 32,
        "0" * 64,
        "https://a/b",
        "a" * 300,
        "a:" + "t" * 129,
        "-a.com/b",
        "a.com:port/b",
        "ü",
        "a\n",
    ],
)
def test_references_that_are_none(text: str) -> None:
    """What is no reference is refused."""
    with pytest.raises(UsageError, match="not an image reference"):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text", ["u:s3cret@host/a", "u:s3cret@host:5000/a:t", "s3cret@h/a@" + DIGEST]
)
def test_user_information_is_refused_and_not_repeated(text: str) -> None:
    """A password in a reference is refused, and the error does not show it."""
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert "s3cret" not in str(caught.value)


@given(st.text(max_size=40) | st.from_regex(r"[a-z./:@_-]{1,30}", fullmatch=True))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    """Parsing ends in a reference that reads back as itself, or in UsageError; nothing else."""
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


def test_tags_and_pins() -> None:
    """latest is filled in where there is neither tag nor digest."""
    assert Reference.parse("a").tagged().tag == "latest"
    assert Reference.parse(f"a@{DIGEST}").tagged().tag is None
    assert str(Reference.parse("a:1").pinned(DIGEST)).endswith(f"a:1@{DIGEST}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("LINUX/AMD64", "linux/amd64"),
        ("arm64", "linux/arm64"),
    ],
)
def test_platforms(text: str, expected: str) -> None:
    """Each platform has one spelling."""
    assert str(Platform.parse(text)) == expected


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "linux/a b", "/"])
def test_platforms_that_are_none(text: str) -> None:
    """What is no platform is refused."""
    with pytest.raises(UsageError, match="not a platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7"]),
        ("linux/arm64/v8.2", ["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64"]),
        ("linux/arm64/v9", ["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64"]),
    ],
)
def test_which_platform_serves(wanted: str, offered: list[str]) -> None:
    """The exact one is best, then the older of the family, in order."""
    ranks = [Platform.parse(wanted).rank(Platform.parse(text)) for text in offered]
    assert None not in ranks
    assert ranks == sorted(ranks)  # type: ignore[type-var]
    assert ranks[0] == 0
    for other in ("linux/s390x", "windows/amd64", "linux/riscv64"):
        assert Platform.parse(wanted).rank(Platform.parse(other)) is None
    assert Platform.parse("linux/arm/v6").rank(Platform.parse("linux/arm/v7")) is None
    assert host_platform().os == "linux"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=oci,dest=a", OutputSpec(type="oci", dest="a")),
        ("type=oci,dest=a,tar=false", OutputSpec(type="oci", dest="a", tar=False)),
        ('type=oci,"dest=a,b"', OutputSpec(type="oci", dest="a,b")),
        ("out", OutputSpec(type="local", dest="out")),
        ("-", OutputSpec(type="tar", dest="-")),
        ("type=docker", OutputSpec(type="docker")),
        ("type=cacheonly", OutputSpec(type="cacheonly")),
        ('type=image,push=true,"name=a,b"', OutputSpec(type="registry", names=("a", "b"))),
        ("type=image,name=a", OutputSpec(type="cacheonly", names=("a",))),
        (
            "type=oci,dest=x,compression=gzip,compression-level=9,force-compression=1",
            OutputSpec(type="oci", dest="x", compression="gzip", level=9, force_compression=True),
        ),
        (
            "type=oci,dest=x,annotation.a=1,annotation-manifest-descriptor.b=2",
            OutputSpec(
                type="oci",
                dest="x",
                annotations=(Annotation("a", "1"), Annotation("b", "2", "manifest-descriptor")),
            ),
        ),
    ],
)
def test_outputs(text: str, expected: OutputSpec) -> None:
    """Outputs are written as buildx writes them."""
    assert parse_output(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=",
        "type=zip,dest=a",
        "dest=a",
        "type=oci",
        "type=local",
        "type=oci,dest=a,dest=b",
        "type=oci,dest=a,tar=maybe",
        "type=oci,dest=a,x=1",
        "type=local,dest=-",
        "type=oci,dest=-,tar=false",
        "type=oci,dest=a,compression=lzma",
        'type=oci,"dest=a',
        "type=oci,dest=a,compression-level=x",
        "type=oci,dest=a,compression-level=99",
        "type=oci,dest=a,oci-mediatypes=false",
        "type=oci,dest=a,annotation-index.a=1",
        "a,b",
    ],
)
def test_outputs_that_are_none(text: str) -> None:
    """What is no output is refused; nothing is ignored in silence."""
    with pytest.raises(UsageError, match=r"--(output|annotation)"):
        parse_output(text)


def test_annotations() -> None:
    """Annotations say what they belong to."""
    assert parse_annotation("a=b=c") == Annotation("a", "b=c")
    assert parse_annotation("manifest:a=") == Annotation("a", "")
    for text in ("a", "=b", "index:a=b", "x:a=b"):
        with pytest.raises(UsageError):
            parse_annotation(text)
