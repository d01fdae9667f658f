"""Keys: frozen vectors, an injective framing, and exactly what counts in them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given

from layercache.dockerfile.lowering.lower import lower
from layercache.dockerfile.lowering.options import Lowered, Options
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import UsageError
from layercache.model.digests import Fingerprint
from layercache.model.framing import frame
from layercache.model.graph import Input, Step
from layercache.model.instruction import Field
from layercache.model.keys import InputMaterial, KeyMaterial, cache_key
from layercache.model.operations import PARENT, CopyFiles, CopySource, Exec, MakeDirectory, Mount
from layercache.model.selectors import Files
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.testing.cases import OPERATIONS, variants
from layercache.testing.strategies import values
from tests.solver.make_vectors import (
    DIRECTORY,
    SCHEMES,
    material_from_json,
    material_to_json,
    materials,
)
from tests.tally import law

# -- vectors --------------------------------------------------------------------------------


def _vectors(name):
    return json.loads((DIRECTORY / f"{name}.json").read_text(encoding="ascii"))


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_frozen_material_keeps_its_keys(name):
    """Material written down once has the key that it had then, on every version and platform."""
    for vector in _vectors(name):
        assert cache_key(material_from_json(vector["material"])) == vector["key"], vector["name"]


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_the_library_still_makes_that_material(name):
    """What strategies make of steps is what they made when the vectors were written."""
    frozen = {vector["name"]: vector["material"] for vector in _vectors(name)}
    current = {label: material_to_json(m) for label, m in materials(name).items()}
    assert current == frozen


def test_vectors_are_all_different():
    """No two vectors share a key, except where they are meant to."""
    for name in SCHEMES:
        keys: dict[str, str] = {}
        for vector in _vectors(name):
            material = json.dumps(vector["material"], sort_keys=True)
            assert keys.setdefault(vector["key"], material) == material


# -- framing --------------------------------------------------------------------------------


def _canonical(value):
    """A value so that equal ones are equal and others are not: 1, True and 1.0 apart."""
    if isinstance(value, tuple):
        return ("tuple", *map(_canonical, value))
    return (type(value).__name__, value)


@law(400)
@given(values(), values())
def test_framing_is_injective(one, two):
    """Two values have the same frame exactly when they are the same, types included."""
    assert (frame(one) == frame(two)) == (_canonical(one) == _canonical(two))


@law(200)
@given(values(), values(), values())
def test_frames_do_not_run_into_each_other(one, two, three):
    """However neighbours are cut, another sequence has another frame."""
    assert frame((one, two)) != frame(((one, two),))
    assert frame((one, (two, three))) != frame(((one, two), three))
    if _canonical(one) != _canonical(two):
        assert frame((one, two)) != frame((two, one))


def test_framing_knows_no_depth():
    """A value nested a hundred thousand deep is framed without recursion."""
    value: Any = ()
    for _ in range(100_000):
        value = (value,)
    assert len(frame(value)) < 10 * 100_001


@pytest.mark.parametrize("value", [1.5, [1], {"a": 1}, {1}, object(), (1, [2])])
def test_other_types_are_refused(value):
    """What can't be framed is a `UsageError` that says what can."""
    with pytest.raises(UsageError):
        frame(value)


def test_material_of_other_types_is_refused():
    """So is key material whose name, role, fingerprint or salt is no text."""
    read = InputMaterial("parent", (), Fingerprint("f"))
    good = KeyMaterial("content/1", "X", (), (), (read,), "salt")
    nothing: Any = None
    number: Any = 1
    raw: Any = b"parent"
    for wrong in (
        attrs.evolve(good, name=nothing),
        attrs.evolve(good, salt=number),
        attrs.evolve(good, inputs=(attrs.evolve(read, role=raw),)),
        attrs.evolve(good, inputs=(attrs.evolve(read, fingerprint=nothing),)),
    ):
        with pytest.raises(UsageError, match="these are texts"):
            cache_key(wrong)


# -- what counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Exec, CopyFiles, MakeDirectory])
def test_the_catalogue_has_every_field(kind):
    """An operation with a field that no case changes fails here."""
    case = next(case for case in OPERATIONS if case.name == kind.__name__)
    fields = {field.name for field in attrs.fields(kind)}
    assert fields == {*case.counts, *case.cosmetic}


def test_the_catalogue_has_every_kind_of_mount_and_field():
    """So does a mount."""
    fields = {field.name for field in attrs.fields(Mount)} - {"type"}
    kinds = set()
    for case in OPERATIONS:
        if case.name.startswith("mount "):
            kinds.add(case.name.removeprefix("mount "))
            assert fields <= {*case.counts, *case.cosmetic}, case.name
    assert kinds == {"bind", "cache", "tmpfs", "secret", "ssh"}


def test_sources_of_copies_count_field_by_field():
    """Each field of a source is in the key of the COPY."""
    base = CopySource(role="source", pattern="a")
    others: dict[str, Any] = {"role": "remote 0", "pattern": "b", "content": b"1", "remote": True}
    assert {field.name for field in attrs.fields(CopySource)} == set(others)
    key = _key(CopyFiles(sources=(base,), destination="/"))
    for name, value in others.items():
        changed = attrs.evolve(base, **{name: value})
        assert _key(CopyFiles(sources=(changed,), destination="/")) != key


def _key(instruction, keys=None):
    return cache_key((keys or ContentKeys()).material(Step(instruction), ()))


@pytest.mark.parametrize("keys", [ContentKeys(), ChainKeys()], ids=lambda keys: keys.scheme)
@pytest.mark.parametrize("variant", list(variants()), ids=lambda variant: variant.label)
def test_what_counts_changes_the_key(variant, keys):
    """Every change in the catalogue changes the key exactly when it counts."""
    changed = _key(variant.before, keys) != _key(variant.after, keys)
    assert changed == variant.counts


def test_all_of_the_material_is_in_the_key():
    """Scheme, name, fields, traits, inputs and salt: each part of each counts."""
    one, two = Field("a", 1), Field("a", 2)
    entry = InputMaterial("role", (one,), Fingerprint("f"))
    base = KeyMaterial("content/1", "X", (one,), (one,), (entry,), "salt")
    changes: dict[str, list[Any]] = {
        "scheme": ["content/2"],
        "name": ["Y", ""],
        "fields": [(), (two,), (Field("b", 1),), (one, one)],
        "traits": [(), (two,), (one, one)],
        "inputs": [
            (),
            (entry, entry),
            (attrs.evolve(entry, role="other"),),
            (attrs.evolve(entry, selector=(two,)),),
            (attrs.evolve(entry, fingerprint=Fingerprint("g")),),
        ],
        "salt": ["", "pepper"],
    }
    assert {field.name for field in attrs.fields(KeyMaterial)} == set(changes)
    assert len(changes["inputs"]) == 2 + len(attrs.fields(InputMaterial))
    keys = [cache_key(base)]
    for name, given_values in changes.items():
        keys += [cache_key(attrs.evolve(base, **{name: value})) for value in given_values]
    assert len(set(keys)) == len(keys)


def test_what_is_private_counts_and_only_the_mark_does_not():
    """A private value is in the key; that it is private is not."""
    plain, private = (
        KeyMaterial("content/1", "X", (Field("a", 1, private=p),)) for p in (False, True)
    )
    other = KeyMaterial("content/1", "X", (Field("a", 2, private=True),))
    assert cache_key(plain) == cache_key(private) != cache_key(other)


SELECTORS: dict[str, Any] = {
    "patterns": ("b",),
    "exclude": ("*.o",),
    "parents": True,
    "wildcards": False,
    "fixed_mode": True,
    "named": False,
}


def test_selectors_count_field_by_field():
    """Each field of a selection of files is in the key, what the content tells apart."""
    counted = {field.name for field in attrs.fields(Files) if field.eq}
    assert counted == set(SELECTORS)
    base = Files(("a",))
    keys = {_with_selector(base)}
    for name, value in SELECTORS.items():
        keys.add(_with_selector(attrs.evolve(base, **{name: value})))
    assert len(keys) == 1 + len(SELECTORS)
    marked = attrs.evolve(base, private=("patterns",))
    assert (marked, _with_selector(marked)) == (base, _with_selector(base))


def _with_selector(files):
    step = Step(Exec(args=("a",)), (Input(PARENT, 0, files),))
    return cache_key(ContentKeys().material(step, (Fingerprint("f"),)))


def test_fields_of_steps_and_edges_that_do_not_count():
    """Place in the graph and in the file, bypassing and tracing are in no key."""
    step = Step(Exec(args=("a",)), (Input(PARENT, 3),), (Field("t", 1),))
    counted = {"instruction", "inputs", "traits"}
    free = {"bypass": True, "trace": "auto", "origin": None}
    assert {field.name for field in attrs.fields(Step)} <= counted | set(free)
    key = cache_key(ContentKeys().material(step, (Fingerprint("f"),)))
    for field in attrs.fields(Step):
        if field.name in free:
            other: dict[str, Any] = {field.name: free[field.name] or step.origin}
            changed = attrs.evolve(step, **other)
            assert cache_key(ContentKeys().material(changed, (Fingerprint("f"),))) == key
    moved = attrs.evolve(step, inputs=(Input(PARENT, 1),))
    assert cache_key(ContentKeys().material(moved, (Fingerprint("f"),))) == key


# -- text that means the same ---------------------------------------------------------------

PLAIN = """\
FROM scratch AS build
ARG VERSION=1
ENV A=1 B="two words"
WORKDIR /app
COPY --chmod=0644 a.txt b.txt ./
RUN make $A && make install
RUN ["make", "test"]
FROM scratch
COPY --from=build /app /app/
RUN --mount=type=cache,target=/cache --network=none run
"""

COSMETIC = {
    "lower case": (
        PLAIN.replace("FROM", "from").replace("COPY", "copy").replace("RUN", "run")
        .replace("ENV", "env").replace("ARG", "arg").replace("WORKDIR", "WorkDir")
    ),
    "comments": PLAIN.replace("\nRUN make", "\n# a comment\n\n# another\nRUN make"),
    "syntax line": "# syntax=docker/dockerfile:1\n" + PLAIN,
    "continued": PLAIN.replace("COPY --chmod=0644 a.txt", "COPY --chmod=0644 \\\n  a.txt"),
    "continued with comment": PLAIN.replace(
        "COPY --chmod=0644 a.txt", "COPY --chmod=0644 \\\n# why\n  a.txt"
    ),
    "blanks": PLAIN.replace("WORKDIR /app", "WORKDIR    /app  "),
    "blanks before": PLAIN.replace("WORKDIR", "   WORKDIR"),
    "quotes": PLAIN.replace("A=1", 'A="1"').replace('"two words"', "two\\ words"),
    "order of flags": PLAIN.replace(
        "--mount=type=cache,target=/cache --network=none",
        "--network=none --mount=type=cache,target=/cache",
    ),
    "order of mount options": PLAIN.replace("type=cache,target=/cache", "dst=/cache,type=cache"),
    "mode": PLAIN.replace("--chmod=0644", "--chmod=644"),
    "line ends": PLAIN.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + PLAIN,
    "no last newline": PLAIN.rstrip("\n"),
    "metadata": PLAIN.replace("RUN make $A", "LABEL x=y\nEXPOSE 80\nCMD run\nRUN make $A"),
    "shell as exec": PLAIN.replace(
        "RUN make $A && make install", 'RUN ["/bin/sh", "-c", "make $A && make install"]'
    ),
    "stage name": PLAIN.replace("AS build", "AS other").replace("--from=build", "--from=other"),
    "stage number": PLAIN.replace("--from=build", "--from=0"),
    "dotted source": PLAIN.replace("a.txt b.txt", "./a.txt x/../b.txt"),
    "argument without a value": PLAIN.replace("ENV A", "ARG NOTHING\nENV A"),
    "absolute destination": PLAIN.replace("b.txt ./", "b.txt /app/"),
    "escape": "# escape=`\n" + PLAIN,
}  # fmt: skip

CHANGED = {
    "command": PLAIN.replace("make install", "make  install"),
    "quoted command": PLAIN.replace("make $A", 'make "$A"'),
    "variable": PLAIN.replace("A=1", "A=2"),
    "order of variables": PLAIN.replace('A=1 B="two words"', 'B="two words" A=1'),
    "argument": PLAIN.replace("VERSION=1", "VERSION=2"),
    "argument renamed": PLAIN.replace("VERSION", "Version"),
    "directory": PLAIN.replace("/app\n", "/App\n", 1),
    "case of a path": PLAIN.replace("a.txt", "A.txt"),
    "order of sources": PLAIN.replace("a.txt b.txt", "b.txt a.txt"),
    "slash": PLAIN.replace("/app /app/", "/app /app"),
    "exec form": PLAIN.replace('RUN ["make", "test"]', "RUN make test"),
    "network": PLAIN.replace(" --network=none", ""),
    "shell": PLAIN.replace("RUN make $A", 'SHELL ["/bin/bash", "-c"]\nRUN make $A'),
    "user": PLAIN.replace("RUN make $A", "USER 1\nRUN make $A"),
    "source escape": "# escape=`\n" + PLAIN.replace("A=1", "A=`1 C=\\"),
}


def _keys(text, **options):
    recipe = Dockerfile.parse(text)
    lowered = lower(recipe.instructions, Options(escape=recipe.escape, **options), {})
    assert isinstance(lowered, Lowered)
    keys = ContentKeys()
    return [
        cache_key(keys.material(vertex, [Fingerprint("f")] * len(vertex.inputs)))
        for vertex in lowered.graph.vertices
        if isinstance(vertex, Step)
    ]


@pytest.mark.parametrize("name", sorted(COSMETIC))
def test_cosmetic_changes_of_text_change_no_key(name):
    """Case, comments, blanks, quoting, order of flags: what means the same has the same keys."""
    assert COSMETIC[name] != PLAIN
    assert _keys(COSMETIC[name]) == _keys(PLAIN)


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_changes_of_meaning_change_a_key(name):
    """What a command or a copy would see otherwise has another key."""
    assert CHANGED[name] != PLAIN
    assert _keys(CHANGED[name]) != _keys(PLAIN)


def test_options_of_a_build():
    """Network, hosts, limits and platform count for commands; labels and target do not."""
    plain = _keys(PLAIN)
    for options in (
        {"network": "host"},
        {"hosts": (("db", "10.0.0.1"),)},
        {"shm_size": 1 << 20},
        {"ulimits": ("nofile=1",)},
        {"platform": "linux/arm64"},
        {"args": {"VERSION": "3"}},
    ):
        assert _keys(PLAIN, **options) != plain, options
    for options in ({"labels": {"a": "b"}}, {"args": {"UNDECLARED": "1"}}):
        assert _keys(PLAIN, **options) == plain, options


def test_proxies_count_only_where_they_are_declared():
    """http_proxy reaches commands and changes no key, until an ARG declares it."""
    proxy = {"http_proxy": "http://proxy"}
    assert _keys(PLAIN, args=proxy) == _keys(PLAIN)
    declared = PLAIN.replace("ARG VERSION=1", "ARG VERSION=1\nARG http_proxy")
    assert _keys(declared, args=proxy) != _keys(declared)
