"""A catalogue of the library's operations: for each field, values that must change a key.

`tests` fail if an operation has a field that is not listed here, so that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from layercache._base.classes import evolve, field, frozen
from layercache.model.instruction import Instruction
from layercache.model.operations import CopyFiles, CopySource, Exec, MakeDirectory, Mount

__all__ = ["OPERATIONS", "Case", "Variant", "variants"]


@frozen
class Case:
    """One operation: a value of it, and for each field other values.

    `counts` are changes that may change a result, `cosmetic` changes that can't.
    """

    name: str
    base: Instruction
    counts: Mapping[str, tuple[Instruction, ...]]
    cosmetic: Mapping[str, tuple[Instruction, ...]] = field(factory=dict)


@frozen
class Variant:
    """One change of one field of one operation."""

    label: str
    before: Instruction
    after: Instruction
    counts: bool


def variants() -> Iterator[Variant]:
    """Every change of the catalogue."""
    for case in OPERATIONS:
        for changes, counts in ((case.counts, True), (case.cosmetic, False)):
            for name, values in changes.items():
                for number, after in enumerate(values):
                    yield Variant(f"{case.name}.{name}.{number}", case.base, after, counts)


def _changes(base: Any, **values: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    return {
        field: tuple(evolve(base, **{field: value}) for value in given)
        for field, given in values.items()
    }


_EXEC: Final = Exec(
    args=("/bin/sh", "-c", "make"),
    env=(("PATH", "/bin"), ("A", "1"), ("B", "2")),
    arguments=("B",),
    user="1",
    workdir="/app",
    hosts=(("db", "10.0.0.1"),),
    platform="linux/amd64",
    files=(("EOF", b"#!/bin/sh\n"),),
    tools=("gcc",),
)

_COPY: Final = CopyFiles(
    sources=(
        CopySource(role="source", pattern="a"),
        CopySource(role="", pattern="EOF", content=b"1"),
    ),
    destination="/app/",
    chown="1:1",
    chmod="0644",
    exclude=("*.o", "*.a"),
)


def _mounted(**fields: Any) -> Exec:
    return evolve(_EXEC, mounts=(Mount(**fields),))


def _mount_case(counts: Mapping[str, tuple[Any, ...]], **fields: Any) -> Case:
    cosmetic: dict[str, tuple[Any, ...]] = {
        "role": ("mount other",),
        "source": ("/elsewhere",),
        "readonly": (not fields.get("readonly", True),),
        "id": ("other",),
        "sharing": ("locked",),
        "mode": (0o711,),
        "uid": (5,),
        "gid": (5,),
        "size": (7,),
        "required": (True,),
        "env": ("OTHER",),
    }
    return Case(
        name=f"mount {fields['type']}",
        base=_mounted(**fields),
        counts={
            f: tuple(_mounted(**{**fields, f: v}) for v in values) for f, values in counts.items()
        },
        cosmetic={
            f: tuple(_mounted(**{**fields, f: v}) for v in values)
            for f, values in cosmetic.items()
            if f not in counts
        },
    )


_OWNER: Final[dict[str, tuple[Any, ...]]] = {
    "mode": (0o711, None),
    "uid": (5,),
    "gid": (5,),
}

OPERATIONS: Final = (
    Case(
        "Exec",
        _EXEC,
        counts=_changes(
            _EXEC,
            args=(
                ("/bin/sh", "-c", "make all"),
                ("/bin/sh", "-c", "make", ""),
                ("/bin/sh", "-c"),
                ("/bin/sh -c", "make"),
            ),
            env=(
                (("PATH", "/bin"), ("A", "2"), ("B", "2")),
                (("PATH", "/bin"), ("A", "1"), ("B", "")),
                (("PATH", "/bin"), ("A", "1")),
                (("PATH", "/bin"), ("A", "1"), ("B", "2"), ("C", "")),
                (("PATH", "/bin"), ("B", "2"), ("A", "1")),
                (("PATH", "/bin"), ("A", "2"), ("B", "1")),
                (("PATH", "/bin"), ("A1", ""), ("B", "2")),
            ),
            user=("2", "", "1:1"),
            workdir=("/", "/app/sub"),
            mounts=((Mount(type="tmpfs", target="/tmp"),),),
            network=("none", "host"),
            security=("insecure",),
            devices=(("vendor.com/gpu=1",),),
            hosts=((), (("db", "10.0.0.2"),), (("web", "10.0.0.1"),)),
            hostname=("builder", "other"),
            shm_size=(1 << 26, 0),
            ulimits=(("nofile=1024",),),
            platform=("linux/arm64", ""),
            files=((), (("EOF", b"#!/bin/sh\n1"),), (("END", b"#!/bin/sh\n"),)),
            tools=((), ("gcc", "make")),
        ),
        # Private values are stored differently, and proxies reach a command without counting.
        cosmetic=_changes(
            _EXEC,
            arguments=(("A",), ()),
            proxies=((("http_proxy", "x"),),),
            private=(("workdir",),),
        ),
    ),
    _mount_case(
        {"target": ("/b",), "readonly": (False,), "role": ("mount /b",)},
        type="bind",
        target="/a",
        role="mount /a",
    ),
    _mount_case(
        {"target": ("/b",), "readonly": (True,), "role": (None,), **_OWNER},
        type="cache",
        target="/a",
        role="mount /a",
        id="x",
        readonly=False,
        mode=0o755,
    ),
    _mount_case({"target": ("/b",), "size": (1, 2)}, type="tmpfs", target="/a"),
    _mount_case(
        {"target": ("/b", ""), "id": ("y",), "required": (True,), "env": ("T",), **_OWNER},
        type="secret",
        target="/a",
        id="x",
        mode=0o400,
    ),
    _mount_case(
        {"target": ("/b",), "id": ("y",), "required": (True,), "env": ("T",), **_OWNER},
        type="ssh",
        target="/a",
        id="x",
        mode=0o600,
    ),
    Case(
        "CopyFiles",
        _COPY,
        counts=_changes(
            _COPY,
            name=("ADD",),
            sources=(
                (CopySource(role="source", pattern="a"),),
                (CopySource(role="", pattern="EOF", content=b"1"), _COPY.sources[0]),
                (_COPY.sources[0], CopySource(role="", pattern="EOF", content=b"2")),
                (_COPY.sources[0], CopySource(role="", pattern="END", content=b"1")),
                (CopySource(role="source", pattern="b"), _COPY.sources[1]),
                (CopySource(role="remote 0", pattern="a"), _COPY.sources[1]),
                (CopySource(role="source", pattern="a", remote=True), _COPY.sources[1]),
            ),
            destination=("/app", "/"),
            chown=(None, "1", "0"),
            chmod=(None, "0755"),
            link=(True,),
            parents=(True,),
            exclude=((), ("*.a", "*.o"), ("*.o",)),
            unpack=(None, True),
            keep_git_dir=(True,),
        ),
        cosmetic=_changes(_COPY, private=(("sources",),)),
    ),
    Case(
        "MakeDirectory",
        MakeDirectory(path="/app", user="1"),
        counts=_changes(
            MakeDirectory(path="/app", user="1"), path=("/app/sub", "/"), user=("", "2")
        ),
        cosmetic=_changes(MakeDirectory(path="/app", user="1"), private=(("path",),)),
    ),
)
"""Every operation that the library itself lowers to."""
