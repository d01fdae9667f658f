"""Every kind of change that a key can see has an explanation that names it."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest

from layercache.model.digests import Fingerprint
from layercache.model.graph import Step
from layercache.model.instruction import Field
from layercache.model.keys import InputMaterial, KeyMaterial, cache_key
from layercache.model.operations import PARENT, SOURCE, Exec, Mount
from layercache.model.private import redact
from layercache.model.selectors import Files
from layercache.model.tree import Node
from layercache.reports.reasons import (
    CAUSES,
    KINDS,
    WHATS,
    Change,
    Earlier,
    Reason,
    compare,
    describe,
)
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.testing.base_images import MemoryImage
from layercache.testing.cases import variants
from layercache.testing.executors import MemoryExecutor
from layercache.testing.layers import Layers
from layercache.trees.in_memory import DictTree, directory, file, link
from layercache.trees.listing import (
    FileChange,
    decode_listing,
    diff_listings,
    encode_listing,
    listing,
)
from tests.narrow import reason_of

KEYS = ContentKeys()
COUNTING = [variant for variant in variants() if variant.counts]


def explained(old, new, files=None, *, base=False):
    """The reason for `new`, checked against the closed lists; both as a store would have them."""
    key = cache_key(old)
    reason = compare(Earlier(key, redact(key, old)), redact(key, new), files or {}, base=base)
    assert cache_key(new) != key
    assert reason.cause in CAUSES
    assert reason.compared_with == key
    assert reason.changes, "the key changed, and the explanation knows of no change"
    for change in reason.changes:
        assert change.kind in KINDS
        assert change.what in WHATS
    assert describe(reason, {})
    return reason


def _material(instruction, **more):
    step = Step(instruction, traits=more.pop("traits", ()))
    return attrs.evolve(KEYS.material(step, ()), **more)


def _labels(material):
    return {field.label: field for field in material.fields}


# -- generated from the material ------------------------------------------------------------


@pytest.mark.parametrize("variant", COUNTING, ids=lambda variant: variant.label)
def test_every_field_of_every_operation(variant):
    """Whatever field of an operation changes, the explanation names exactly what changed."""
    old, new = _material(variant.before), _material(variant.after)
    reason = explained(old, new)
    before, after = _labels(old), _labels(new)
    differ = {
        label
        for label in {*before, *after}
        if before.get(label) != after.get(label)
        and not (label == "env order" and set(before[label].value) != set(after[label].value))
    }
    if old.name != new.name:
        differ.add("name")

    named = {change.path for change in reason.changes}
    assert named == {label.removeprefix("env ").removeprefix("mount ") for label in differ}


def test_every_label_has_been_explained():
    """A field that no case above changes would have no tested explanation: it fails here."""
    labels = set()
    for variant in variants():
        labels |= set(_labels(_material(variant.before))) | set(_labels(_material(variant.after)))
    changed = set()
    for variant in COUNTING:
        before, after = _labels(_material(variant.before)), _labels(_material(variant.after))
        changed |= {n for n in {*before, *after} if before.get(n) != after.get(n)}
    # The rules of copying are the library's: they change with its version alone.
    never = {name for name in labels - changed - {"rules"} if not name.startswith("env ")}
    assert not never


PARENT_ENTRY = InputMaterial(PARENT, (Field("selector", "everything"),), Fingerprint("p"))
SOURCE_ENTRY = InputMaterial(SOURCE, tuple(Files(("a",)).definition()), Fingerprint("s"))
BASE = KeyMaterial(
    "content/1",
    "RUN",
    (Field("command", ("make",)), Field("env A", "1"), Field("env B", "2", private=True)),
    (Field("executor", "x/1"), Field("kernel", "6")),
    (PARENT_ENTRY, SOURCE_ENTRY),
    "salt",
)

WHOLE: dict[str, tuple[dict[str, Any], str, Any]] = {
    "scheme": ({"scheme": "chain/1"}, "scheme", ("scheme", "scheme", "value")),
    "salt": ({"salt": "pepper"}, "scheme", ("scheme", "salt", "value")),
    "name": ({"name": "ADD"}, "instruction", ("field", "name", "value")),
    "trait changed": (
        {"traits": (BASE.traits[0], Field("kernel", "7"))},
        "executor",
        ("executor", "kernel", "value"),
    ),
    "trait added": (
        {"traits": (*BASE.traits, Field("PATH", "/bin"))},
        "executor",
        ("executor", "PATH", "added"),
    ),
    "trait removed": (
        {"traits": BASE.traits[:1]},
        "executor",
        ("executor", "kernel", "removed"),
    ),
    "variable changed": (
        {"fields": (BASE.fields[0], Field("env A", "3"), BASE.fields[2])},
        "environment",
        ("variable", "A", "value"),
    ),
    "variable added": (
        {"fields": (*BASE.fields, Field("env C", "3"))},
        "environment",
        ("variable", "C", "added"),
    ),
    "variable removed": (
        {"fields": (BASE.fields[0], BASE.fields[2])},
        "environment",
        ("variable", "A", "removed"),
    ),
    "private variable": (
        {"fields": (*BASE.fields[:2], Field("env B", "3", private=True))},
        "environment",
        ("variable", "B", "value"),
    ),
    "field of another type": (
        {"fields": (BASE.fields[0], Field("env A", 1), BASE.fields[2])},
        "environment",
        ("variable", "A", "value"),
    ),
    "fields in another order": (
        {"fields": BASE.fields[::-1]},
        "instruction",
        ("field", "definition", "order"),
    ),
    "parent": (
        {"inputs": (attrs.evolve(PARENT_ENTRY, fingerprint=Fingerprint("q")), SOURCE_ENTRY)},
        "parent",
        ("step", "parent", "result"),
    ),
    "source": (
        {"inputs": (PARENT_ENTRY, attrs.evolve(SOURCE_ENTRY, fingerprint=Fingerprint("t")))},
        "source",
        ("source", "source", "content"),
    ),
    "source added": (
        {"inputs": (*BASE.inputs, attrs.evolve(SOURCE_ENTRY, role="mount /m"))},
        "instruction",
        ("source", "mount /m", "added"),
    ),
    "source removed": (
        {"inputs": (PARENT_ENTRY,)},
        "instruction",
        ("source", "source", "removed"),
    ),
    "sources in another order": (
        {"inputs": (SOURCE_ENTRY, PARENT_ENTRY)},
        "instruction",
        ("source", "inputs", "order"),
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_part_of_the_material(name):
    """Scheme, salt, name, fields, traits and inputs: each has a cause and a change of its own."""
    changes, cause, change = WHOLE[name]
    reason = explained(BASE, attrs.evolve(BASE, **changes))

    assert reason.cause == cause
    assert [(c.kind, c.path, c.what) for c in reason.changes] == [change]


def test_every_part_of_the_material_has_a_case():
    """Parts of `KeyMaterial` and `InputMaterial` without a case fail here."""
    touched = {name for changes, *_ in WHOLE.values() for name in changes}
    assert touched == {field.name for field in attrs.fields(KeyMaterial)}
    assert {field.name for field in attrs.fields(InputMaterial)} == {
        "role",
        "selector",
        "fingerprint",
    }


SELECTORS = {
    "patterns": Files(("b",)),
    "exclude": Files(("a",), exclude=("*.o",)),
    "parents": Files(("a",), parents=True),
    "wildcards": Files(("a",), wildcards=False),
    "fixed mode": Files(("a",), fixed_mode=True),
}


@pytest.mark.parametrize("name", SELECTORS)
def test_every_field_of_a_selection(name):
    """What a step selects of a source is named by the source's role and the field."""
    entry = attrs.evolve(SOURCE_ENTRY, selector=tuple(SELECTORS[name].definition()))
    reason = explained(BASE, attrs.evolve(BASE, inputs=(PARENT_ENTRY, entry)))

    assert reason.cause == "instruction"
    assert [(c.kind, c.path) for c in reason.changes] == [("field", f"source {name}")]
    fixed = Files(("a",), fixed_mode=True)  # named only where it is so
    assert {f.label for f in fixed.definition()} == {*SELECTORS, "selector"}


def test_a_base_image_is_not_a_step():
    """When the parent is a base image, that is the cause."""
    entry = attrs.evolve(PARENT_ENTRY, fingerprint=Fingerprint("q"))
    new = attrs.evolve(BASE, inputs=(entry, SOURCE_ENTRY))
    assert explained(BASE, new, base=True).cause == "base"


def test_two_mounts_of_one_target_are_told_apart():
    """Fields of one label are compared one by one, none hides another."""
    one = Mount(type="secret", target="/s", id="a")
    others = [attrs.evolve(one, id=name) for name in ("b", "c")]
    old, new = (_material(Exec(args=("x",), mounts=(one, other))) for other in others)
    reason = explained(old, new)
    assert [(c.kind, c.path) for c in reason.changes] == [("mount", "/s")]


def test_private_values_are_never_shown():
    """Of a private value the explanation says that it changed, and neither value."""
    old, new = (
        attrs.evolve(BASE, fields=(Field("env TOKEN", value, private=True),))
        for value in ("hunter2", "hunter3")
    )
    reason = explained(old, new)
    assert "hunter" not in repr(reason)
    assert "hunter" not in describe(reason, {})


def test_what_was_reused_by_less_is_compared_by_the_rest():
    """A record by what was looked at, and a step by its whole parent: the parent is the cause
    when nothing else differs, and no field of a selector is blamed."""
    looked = attrs.evolve(PARENT_ENTRY, selector=(Field("selector", "observed"),))
    old = attrs.evolve(BASE, inputs=(looked, SOURCE_ENTRY))
    assert explained(old, BASE).cause == "parent"
    changed = attrs.evolve(BASE, fields=(Field("command", ("other",)),))
    reason = explained(old, changed)
    assert reason.cause == "instruction"
    assert "selector" not in describe(reason, {})


# -- end to end, down to the file -----------------------------------------------------------

TEXT = """\
FROM scratch
ARG V=1
ENV A=1
WORKDIR /w
COPY src /w/
RUN build
"""

FILES: dict[str, str | bytes | tuple[Node, bytes]] = {
    "src/a": file("1", 0o644),
    "src/b": link("a"),
    "src/d": directory(0o755),
    "src/c": "other",
    "src/long/way/down": "x",
    "unused": "1",
}


def _edited(path, value):
    return lambda layers: layers.edit(path, value)


EDITS = {
    # name: (edit, the changes of the COPY)
    "content": (_edited("src/a", "2"), [("src/a", "content")]),
    "mode": (lambda layers: layers.chmod("src/a", 0o755), [("src/a", "mode")]),
    "mode and content": (
        _edited("src/a", file("2", 0o755)),
        [("src/a", "content"), ("src/a", "mode")],
    ),
    "mode of a directory": (lambda layers: layers.chmod("src/d", 0o700), [("src/d", "mode")]),
    "setuid": (lambda layers: layers.chmod("src/a", 0o4755), [("src/a", "mode")]),
    "link": (_edited("src/b", link("c")), [("src/b", "link")]),
    "type": (_edited("src/b", "1"), [("src/b", "type")]),
    "added": (_edited("src/new", "n"), [("src/new", "added")]),
    "added below": (_edited("src/x/y/z", "n"), [("src/x/y/z", "added")]),
    "added empty directory": (_edited("src/e", directory()), [("src/e", "added")]),
    "removed": (lambda layers: layers.remove("src/a"), [("src/a", "removed")]),
    "removed directory": (lambda layers: layers.remove("src/d"), [("src/d", "removed")]),
    "removed below": (lambda layers: layers.remove("src/long"), [("src/long/way/down", "removed")]),
    "renamed": (lambda layers: layers.rename("src/c", "src/z"), [("src/z", "renamed")]),
    "moved": (lambda layers: layers.rename("src/c", "src/d/c"), [("src/d/c", "renamed")]),
    "capability": (
        _edited("src/a", file("1", xattrs=((b"security.capability", b"x"),))),
        [("src/a", "xattr")],
    ),
    "two files": (
        lambda layers: layers.edit("src/a", "2").edit("src/c", "3"),
        [("src/a", "content"), ("src/c", "content")],
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_files_are_named(layers, name):
    """A COPY that misses says which files changed, and how; what follows names the COPY."""
    edit, expected = EDITS[name]
    layers.build(TEXT, FILES)
    edit(layers)
    again = layers.build()
    copy, run = (again.find(text)[0] for text in ("COPY src /w/", "RUN build"))

    assert copy.reason.cause == "files"
    changes = [(c.path.replace("./", "src/"), c.what) for c in copy.reason.changes]
    assert [(p if p.startswith("src") else f"src/{p}", w) for p, w in changes] == expected
    assert run.reason.cause == "parent"
    assert run.reason.step == copy.place
    explanation = again.result.explain(copy)
    for path, _ in expected:
        assert path.rpartition("/")[2] in explanation


def test_what_is_not_copied_is_not_blamed(layers):
    """A file that no step takes changes nothing."""
    layers.build(TEXT, FILES)
    layers.edit("unused", "2")
    layers.build().assert_nothing_executed()


def test_the_owner_in_a_stage_is_named(layers):
    """Files of a stage have owners that count."""
    text = "FROM scratch AS s\nRUN write /f 1 && chown {} /f\nFROM scratch\nCOPY --from=s /f /g\n"
    layers.build(text.format(1), {})
    again = layers.build(text.format(2))
    (copy,) = again.find("COPY --from=s /f /g")
    assert [(c.kind, c.path, c.what) for c in copy.reason.changes] == [("file", "f", "owner")]


def test_an_attribute_of_a_directory_is_named():
    """An access control list of a directory counts; removed, changed and added it is found."""
    acl = ((b"system.posix_acl_default", b"1"),)
    other = ((b"system.posix_acl_default", b"2"),)
    lists = []
    for attributes in ((), acl, other):
        tree = DictTree({"src/d": directory(xattrs=attributes), "src/d/f": "1"})
        found = listing(tree, Files(("src",)))
        assert decode_listing(encode_listing(found)) == found
        lists.append(found)
    for old, new in itertools.permutations(lists, 2):
        assert diff_listings(old, new) == (FileChange("src/d", "xattr"),)


RECIPES = {
    # name: (what is replaced, by what, the step that misses, cause, kind and path of a change)
    "command": ("RUN build", "RUN build all", 5, "instruction", "field", "command"),
    "variable": ("A=1", "A=2", 5, "environment", "variable", "A"),
    "variable added": ("A=1", "A=1 Z=1", 5, "environment", "variable", "Z"),
    "argument": ("V=1", "V=2", 5, "environment", "variable", "V"),
    "user": ("RUN build", "USER 1\nRUN build", 6, "instruction", "field", "user"),
    "directory of a command": (
        "RUN build", "WORKDIR sub\nRUN build", 6, "instruction", "field", "workdir",
    ),
    "directory": ("/w\n", "/x\n", 3, "instruction", "field", "path"),
    "destination": ("src /w/", "src /w/s/", 4, "instruction", "field", "destination"),
    "owner": ("COPY src", "COPY --chown=1 src", 4, "instruction", "field", "chown"),
    "mode": ("COPY src", "COPY --chmod=600 src", 4, "instruction", "field", "chmod"),
    "link": ("COPY src", "COPY --link src", 4, "instruction", "field", "link"),
    "exclude": ("COPY src", "COPY --exclude=*.o src", 4, "instruction", "field", "exclude"),
    "parents": ("COPY src", "COPY --parents src", 4, "instruction", "field", "parents"),
    "another source": ("src /w/", "src unused /w/", 4, "instruction", "field", "sources"),
    "add": ("COPY src", "ADD src", 4, "first-build", None, None),
    "network": ("RUN build", "RUN --network=none build", 5, "instruction", "field", "network"),
    "mount": (
        "RUN build", "RUN --mount=type=tmpfs,target=/t build", 5, "instruction", "mount", "/t",
    ),
    "mount of files": (
        "RUN build", "RUN --mount=target=/t build", 5, "instruction", "source", "mount /t",
    ),
    "shell": ("RUN build", 'SHELL ["/bin/bash", "-c"]\nRUN build', 6, "instruction", "field",
              "command"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_changes_of_a_recipe_are_named(layers, name):
    """The first step that misses names what was edited, down to flag, variable or field."""
    old, new, index, cause, kind, path = RECIPES[name]
    layers.build(TEXT, FILES)
    again = layers.build(TEXT.replace(old, new))
    step = again.steps[index]

    assert step.decision == "miss"
    assert reason_of(step).cause == cause
    if kind is not None:
        assert (kind, path) in {(c.kind, c.path) for c in reason_of(step).changes}
        assert step.reason.compared_with is not None
    assert again.result.explain(step)


OPTIONS: dict[str, tuple[dict[str, Any], str, Any, Any]] = {
    "build argument": ({"args": {"V": "9"}}, "environment", "variable", "V"),
    "network": ({"network": "host"}, "instruction", "field", "network"),
    "hosts": ({"add_hosts": [("db", "10.0.0.1")]}, "instruction", "field", "hosts"),
    "memory": ({"shm_size": 1 << 20}, "instruction", "field", "shm size"),
    "limits": ({"ulimits": ["nofile=1"]}, "instruction", "field", "ulimits"),
    "platform": ({"platform": "linux/riscv64"}, "instruction", "field", "platform"),
    "bypassed": ({"no_cache": True}, "no-cache", None, None),
    "stage bypassed": ({"no_cache_filter": ["0"]}, "no-cache", None, None),
    "step bypassed": ({"no_cache": lambda origin: origin.op == "RUN"}, "no-cache", None, None),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_build_are_named(layers, name):
    """What was asked for otherwise on the command line is the reason of the RUN."""
    options, cause, kind, path = OPTIONS[name]
    layers.build(TEXT, FILES)
    again = layers.build(**options)
    (run,) = again.find("RUN build")

    assert run.reason.cause == cause
    if kind is not None:
        assert (kind, path) in {(c.kind, c.path) for c in run.reason.changes}


def test_a_value_of_a_build_argument_is_not_shown(layers):
    """A private value is in no report and no explanation."""
    layers.build(TEXT, FILES, args={"V": "hunter2"})
    again = layers.build(args={"V": "hunter3"})
    (run,) = again.find("RUN build")
    assert "hunter" not in again.result.explain(run)
    assert "hunter" not in str(again.result.to_dict())


def test_the_first_build_of_a_step(layers):
    """Nothing to compare with is said to be so."""
    first = layers.build(TEXT, FILES)
    assert {reason_of(s).cause for s in first.steps if s.decision == "miss"} == {"first-build"}


def _forget(layers, prefix):
    for info in list(layers.store.backend.list("")):
        if info.name.startswith(prefix):
            layers.store.backend.delete(info.name)


def test_a_record_that_is_gone(layers):
    """The same step as before, whose record somebody removed, is "evicted"."""
    layers.build(TEXT, FILES)
    _forget(layers, "ac/")
    again = Layers(store=_reopened(layers.store))
    reasons = {reason_of(s).cause for s in again.build(TEXT, FILES).steps if s.decision == "miss"}
    assert reasons == {"evicted"}


def _reopened(store):
    return type(store)(store.backend)


def test_a_layer_that_is_damaged(layers):
    """A hit whose blob turns out to be damaged is taken back: "lost"."""
    import io

    text = "FROM scratch\nRUN write /f 1\nRUN write /g 1\n"
    layers.build(text, {})
    store = _reopened(layers.store)
    for info in list(store.backend.list("blobs/")):
        with store.backend.read(info.name) as content:
            data = content.read()
        store.backend.write(info.name, io.BytesIO(bytes([data[0] ^ 1]) + data[1:]))
    _forget(layers, "index/")
    again = Layers(store=store)
    built = again.build(text + "RUN cat /f > /h\n", {})
    assert built.files["h"].content == b"1"
    assert "lost" in {reason_of(s).cause for s in built.steps if s.reason is not None}


def test_another_base_image():
    """The first step after FROM blames the image, what follows blames that step."""
    images = {"base": MemoryImage.of({"f": "1"})}
    layers = Layers(images=images)
    layers.build("FROM base\nRUN one\nRUN two\n", {})
    other = Layers(images={"base": MemoryImage.of({"f": "2"})}, store=layers.store)
    again = other.build("FROM base\nRUN one\nRUN two\n", {})
    assert [reason_of(s).cause for s in again.steps if s.reason] == ["base", "parent"]
    assert reason_of(again.steps[2]).step == (0, 1)


def test_another_executor():
    """What runs the commands is named by its trait."""
    layers = Layers(executor=MemoryExecutor(traits=[Field("kernel", "6")]))
    layers.build("FROM scratch\nRUN one\n", {})
    other = Layers(executor=MemoryExecutor(traits=[Field("kernel", "7")]), store=layers.store)
    (step,) = other.build("FROM scratch\nRUN one\n", {}).find("RUN one")
    assert reason_of(step).cause == "executor"
    assert [(c.path, c.old, c.new) for c in reason_of(step).changes] == [("kernel", "6", "7")]


def test_another_strategy():
    """Keys made by another rule say so."""
    layers = Layers()
    layers.build("FROM scratch\nRUN one\n", {})
    other = Layers(keys=ChainKeys(), store=layers.store)
    (step,) = other.build("FROM scratch\nRUN one\n", {}).find("RUN one")
    assert reason_of(step).cause == "scheme"
    salted = Layers(keys=ChainKeys("pepper"), store=layers.store)
    (step,) = salted.build("FROM scratch\nRUN one\n", {}).find("RUN one")
    assert [(c.kind, c.path) for c in reason_of(step).changes] == [("scheme", "salt")]
    assert "pepper" not in str(step.to_dict())


# -- the lists ------------------------------------------------------------------------------


FILE_CHANGES = ("content", "mode", "owner", "added", "removed", "renamed", "link", "type", "xattr")


def _all_kinds():
    """Cause, kind, what and which of every change that material can show."""
    pairs: list[tuple[KeyMaterial, KeyMaterial, Any]] = [
        (_material(v.before), _material(v.after), None) for v in COUNTING
    ]
    pairs += [(BASE, attrs.evolve(BASE, **changes), None) for changes, *_ in WHOLE.values()]
    for selector in SELECTORS.values():
        entry = attrs.evolve(SOURCE_ENTRY, selector=tuple(selector.definition()))
        pairs.append((BASE, attrs.evolve(BASE, inputs=(PARENT_ENTRY, entry)), None))
    now = Fingerprint("t")
    entry = attrs.evolve(SOURCE_ENTRY, fingerprint=now)
    for what in FILE_CHANGES:
        files = {now: [FileChange("f", what, "old" if what == "renamed" else None)]}
        pairs.append((BASE, attrs.evolve(BASE, inputs=(PARENT_ENTRY, entry)), files))
    other = attrs.evolve(PARENT_ENTRY, fingerprint=Fingerprint("q"))
    on_another_base = attrs.evolve(BASE, inputs=(other, SOURCE_ENTRY))
    reasons = [explained(BASE, on_another_base, base=True)]
    reasons += [explained(old, new, files) for old, new, files in pairs]
    for reason in reasons:
        yield from ((reason.cause, c.kind, c.what, c.path) for c in reason.changes)


def test_lists_are_closed_and_used():
    """At least sixty kinds of change are told apart, and the lists that JSON draws from hold
    what occurs and nothing else."""
    seen = set(_all_kinds())
    assert len(seen) >= 60
    elsewhere = {"first-build", "no-cache", "evicted", "lost", "observed", "audit"}
    assert {cause for cause, *_ in seen} | elsewhere == set(CAUSES)
    assert {kind for _, kind, *_ in seen} == set(KINDS)
    of_what_was_seen = {"time", "listing", "size", "metadata"}
    assert {what for _, _, what, _ in seen} | of_what_was_seen == set(WHATS)


def test_every_cause_can_be_described():
    """A reason without changes is described by the sentence of its cause."""
    for cause, sentence in CAUSES.items():
        assert describe(Reason(cause), {}) == sentence
    reason = Reason("parent", (Change("step", PARENT, "result"),), step=(0, 1))
    assert describe(reason, {(0, 1): "COPY . ."}) == "follows 'COPY . .'"
