"""An executor sees of a step's inputs what the key saw, however it looks: no hit can be stale."""

from __future__ import annotations

import functools
import os
import random
import stat
from typing import Any

import attrs
import pytest

from layercache.builds.builder import Builder
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import BuildError, SourceError, UsageError
from layercache.model.descriptors import SCRATCH
from layercache.model.instruction import Field
from layercache.model.selectors import EVERYTHING, NOTHING, Files
from layercache.model.sources import ContextSource
from layercache.model.task import NewFile, Result
from layercache.model.tree import Node
from layercache.testing.executors import MemoryExecutor
from layercache.testing.memory import snapshot
from layercache.testing.workbench import Workbench
from layercache.trees.in_memory import DictTree, directory, file, link
from layercache.trees.selected_tree import SelectedTree
from layercache.trees.selection import fingerprint, select, tree_digest, walk

ROLE = "source"


@attrs.frozen
class Pack:
    """A step of a plug-in that reads what `patterns` name of the context."""

    patterns: tuple[str, ...]
    name = "PACK"

    def definition(self):
        return (Field("patterns", self.patterns),)

    def reads(self):
        return {ROLE: ("", Files(self.patterns))}

    @property
    def text(self):
        return "PACK " + " ".join(self.patterns)


class Curious:
    """Looks at everything of an input that it can get hold of, and writes it down."""

    traits = (Field("executor", "curious/1"),)

    def execute(self, task, blobs):
        lines = []
        for bound in task.inputs:
            if bound.role != ROLE:
                continue
            tree = blobs.tree(bound.subject)
            todo = [b""]
            while todo:
                path = todo.pop()
                node = tree.lookup(path)
                lines.append(f"{path!r} {node} {tree.digest(path).hex()}")
                if node.is_file:
                    with tree.open(path) as content:
                        lines.append(repr(content.read()))
                todo += [path + b"/" + n if path else n for n in tree.children(path)]
            for name in (b"other", b"d/unread", b"../x", b"d/../other"):
                lines.append(f"{name!r} {tree.lookup(name)} {tree.children(name)}")
                with pytest.raises(Exception, match="not a regular file"):
                    tree.open(name)
        return Result(blobs.layer({"seen": "\n".join(lines)}))


def seen(context, patterns):
    bench = Workbench({"": context})
    task = bench.task(Pack(patterns), SCRATCH, {ROLE: (ContextSource(""), Files(patterns))})
    state = bench.apply(Curious(), task)
    return bench.fingerprint(ContextSource(""), Files(patterns)), snapshot(bench.tree(state))


Contents = dict[str, str | bytes | tuple[Node, bytes]]

BEFORE: Contents = {
    "a.txt": "1",
    "other": "2",
    "d/read": "3",
    "d/unread": "4",
    "l": link("d"),
    "d/e/f": file("5", 0o600),
    "empty": directory(0o700),
}
CHANGES: dict[str, Contents] = {
    "another file": {"other": "changed"},
    "an unread sibling": {"d/unread": "changed and longer"},
    "a new file": {"d/new": "1"},
    "a mode on the way": {"d": directory(0o700)},
    "an owner on the way": {"d": directory(uid=7)},
    "the root": {".": directory(0o700)},
    "the time of what is read": {"d/read": file("3", mtime=77), "a.txt": file("1", mtime=78)},
    "a label of the host": {"a.txt": file("1", xattrs=((b"security.selinux", b"x"),))},
}


@pytest.mark.parametrize("patterns", [("d/read", "a.txt"), ("*.txt", "d/r*"), ("l/read", "a.txt")])
@pytest.mark.parametrize("change", CHANGES)
def test_what_the_key_does_not_see_shows_nowhere(change, patterns):
    """Two contexts of one fingerprint look the same to an executor that looks at everything."""
    one, two = seen(BEFORE, patterns), seen({**BEFORE, **CHANGES[change]}, patterns)

    assert one[0] == two[0]
    assert one[1]["seen"].content == two[1]["seen"].content


@pytest.mark.parametrize(
    "files",
    [
        Files((".",)),
        Files(("d",)),
        Files(("l",)),
        Files(("l/e",)),
        Files(("*",)),
        Files(("d/*", "a.txt")),
        Files(("d/./e/f",), parents=True),
        Files(("**/f",), parents=True),
        Files((".",), exclude=("d/unread", "**/f")),
        Files(("empty",)),
        Files(("a.txt",), fixed_mode=True),
    ],
)
def test_the_part_answers_as_the_whole(files):
    """Selecting from what is shown gives the same matches, nodes and fingerprint."""
    whole = DictTree(BEFORE)
    part = SelectedTree(whole, [files])

    assert fingerprint(part, files) == fingerprint(whole, files)
    assert [(m.path, m.name, m.relative) for m in select(part, files)] == [
        (m.path, m.name, m.relative) for m in select(whole, files)
    ]
    for match in select(whole, files):
        there = [(r, p) for r, p, _ in walk(whole, match)]
        assert [(r, p) for r, p, _ in walk(part, match)] == there
    again = SelectedTree(part, [files])
    assert again.nodes == part.nodes
    assert tree_digest(again, b"") == tree_digest(part, b"")


def test_everything_is_everything_but_times():
    part = SelectedTree(DictTree(BEFORE), [EVERYTHING])
    assert set(part.nodes) == set(DictTree(BEFORE).nodes)
    assert set(SelectedTree(DictTree(BEFORE), [NOTHING]).nodes) == {b""}
    assert len({node.mtime for node in part.nodes.values() if not node.is_file}) == 1


def test_what_is_no_input_is_refused():
    """A source that no key sees, and the layers of a state that is read in part."""

    class Greedy(Curious):
        def execute(self, task, blobs):
            found = []
            attempts = [functools.partial(blobs.tree, ContextSource("secret"))]
            for bound in task.inputs:
                if bound.role == ROLE:
                    layer = bound.subject.layers[-1]
                    attempts += [
                        functools.partial(blobs.index, layer),
                        functools.partial(blobs.open, layer.descriptor.digest),
                        functools.partial(blobs.tree, SCRATCH.plus(layer).plus(layer)),
                    ]
                    tree = blobs.tree(bound.subject)
                    found.append(tree.children(b""))
            for attempt in attempts:
                with pytest.raises(BuildError, match=r"does not cover it|covers only a part"):
                    attempt()
                found.append("refused")
            return Result(blobs.layer({"found": repr(found)}))

    bench = Workbench({"": {}, "secret": {"s": "1"}})
    other = bench.state({"x": "1", "y": "2"})
    task = bench.task(Pack(("x",)), SCRATCH, {ROLE: (other, Files(("x",)))})
    state = bench.apply(Greedy(), task)

    content = snapshot(bench.tree(state))["found"].content
    assert content == b"[[b'x'], 'refused', 'refused', 'refused', 'refused']"


def test_a_layer_is_made_of_files_in_any_order():
    """Types, sizes, order and times are not the executor's work; equal files, equal bytes."""
    bench = Workbench()
    files: dict[str, NewFile] = {
        "a/x": b"1",
        "a-b": "text",
        "a": Node(mode=stat.S_IFDIR | 0o700),
        "run": (Node(mode=0o755), b"#!"),
        "l": Node(mode=stat.S_IFLNK | 0o777, link=b"a/x"),
        "a/gone": None,
        "owned": (Node(mode=0o600, uid=7, gid=8), "own"),
    }
    base = bench.state({"a/gone": "1"})
    one = bench.layer(files)
    two = bench.layer(dict(reversed(files.items())))
    found = snapshot(bench.tree(base.plus(one)))

    assert one == two
    assert {p: (e.type, e.mode, e.uid, e.content) for p, e in found.items()} == {
        "a": ("directory", 0o700, 0, b""),
        "a-b": ("file", 0o644, 0, b"text"),
        "a/x": ("file", 0o644, 0, b"1"),
        "l": ("link", 0o777, 0, b"a/x"),
        "owned": ("file", 0o600, 7, b"own"),
        "run": ("file", 0o755, 0, b"#!"),
    }
    assert bench.layer({}) is None


@pytest.mark.parametrize(
    "files",
    [{"../x": "1"}, {"": "1"}, {"a/./b": "1"}, {"a\0b": "1"}, {"a": 7}, {"a": "1", "a/b": "2"}],
)
def test_what_is_no_file_is_refused(files):
    with pytest.raises(UsageError):
        Workbench().layer(files)


def test_a_layer_of_a_directory(tmp_path):
    """Files, links and modes, never the clock or the owner; the same bytes from another copy."""
    layers = []
    for number in range(2):
        root = tmp_path / str(number)
        (root / "d").mkdir(parents=True)
        (root / "d/x").write_text("1")
        (root / "a-b").write_text("2")
        (root / "a").mkdir()
        os.symlink("d/x", root / "l")
        (root / "d/x").chmod(0o750)
        os.utime(root / "a-b", (number, number))
        bench = Workbench()
        layers.append(bench.layer_from(root))
        found = snapshot(bench.tree(SCRATCH.plus(layers[-1])))
    assert layers[0] == layers[1]
    assert {p: (e.type, e.mode, e.content) for p, e in found.items()} == {
        "a": ("directory", 0o755, b""),
        "a-b": ("file", 0o644, b"2"),
        "d": ("directory", 0o755, b""),
        "d/x": ("file", 0o750, b"1"),
        "l": ("link", 0o777, b"d/x"),
    }
    assert bench.layer_from(tmp_path / "0" / "a") is None


def test_what_was_logged_is_kept_and_shown_on_a_hit():
    """Output told by `blobs.log` alone is in the record, as that of commands is."""

    class Telling(MemoryExecutor):
        def execute(self, task, blobs):
            result = super().execute(task, blobs)
            blobs.log(b"told\n")
            return attrs.evolve(result, output=b"")

    builder = Builder(executor=Telling())
    for decision in ("miss", "hit"):
        result = builder.build(Dockerfile.parse("FROM scratch\nRUN write /f 1\n"))
        assert [s.decision for s in result.steps if s.op == "RUN"] == [decision]
        assert result.log(result.steps[-1]) == b"told\n"


ANYTHING: Any = "a layer"


@pytest.mark.parametrize("wrong", [None, "layer", 7, Result(ANYTHING)])
def test_a_result_of_another_type_names_executor_and_step(wrong):
    class Wrong(MemoryExecutor):
        def execute(self, task, blobs):
            return wrong

    with pytest.raises(BuildError, match=r"executor Wrong returned .* for RUN; .*Result") as raised:
        Builder(executor=Wrong()).build(Dockerfile.parse("FROM scratch\nRUN true\n"))
    assert raised.value.line == 2
    assert raised.value.report is not None


SELECTORS = (
    Files((".",)),
    Files(("d",)),
    Files(("l",)),
    Files(("*",)),
    Files(("d/*",)),
    Files(("a", "k")),
    Files(("lz",)),
    Files(("d/./e/c",), parents=True),
    Files(("**/*.txt",), parents=True),
    Files((".",), exclude=("d/e", "*.txt")),
    Files(("d",), fixed_mode=True),
    Files(("z/../d",)),
    Files(("d",), named=False),
)


def _tree(rng):
    found = {"d": directory(), "z": directory()}
    for path in ("a", "d/b", "d/e/c", "x.txt", "d/y.txt", "z/q"):
        if rng.random() < 0.8:
            found[path] = file(rng.choice("123"), rng.choice((0o644, 0o600, 0o755, 0o4755)))
    for path, target in (("l", "d"), ("d/m", "e/c"), ("k", "a"), ("lz", "l/e")):
        if rng.random() < 0.5:
            found[path] = link(target)
    return found


def _with_another_fact(rng, files):
    """The same paths, with one fact of one node otherwise."""
    path = rng.choice([*sorted(files), "."])
    node, data = files.get(path, directory())
    changes = {
        "mode": node.mode ^ rng.choice((0o100, 0o1, 0o4000, 0o1000, 0o20)),
        "uid": node.uid + 1,
        "gid": node.gid + 1,
        "mtime": node.mtime + 5,
        "xattrs": rng.choice(
            (((b"user.a", b"1"),), ((b"security.selinux", b"1"), (b"trusted.x", b"2")))
        ),
        "device": (1, 2),
    }
    if not node.is_file:
        changes["size"] = node.size + 4096
    label = rng.choice(sorted(changes))
    return label, {**files, path: (attrs.evolve(node, **{label: changes[label]}), data)}


def test_equal_fingerprints_look_equal():
    """Whichever fact of a node is another one: it counts, or it does not show."""
    equal = counted = 0
    for seed in range(3_000):
        rng = random.Random(seed)
        files = _tree(rng)
        label, changed = _with_another_fact(rng, files)
        selector = rng.choice(SELECTORS)
        try:
            one, two = (fingerprint(DictTree(t), selector) for t in (files, changed))
            parts = [SelectedTree(DictTree(t), [selector]) for t in (files, changed)]
        except SourceError:
            continue  # it names what is not there
        counted += one != two
        if one == two:
            equal += 1
            assert parts[0].nodes == parts[1].nodes, f"seed {seed}: {label} shows"
    assert equal > 1_000
    assert counted > 200
