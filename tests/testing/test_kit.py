"""The kit itself: the command language, wrappers, oracle, fixture and generators do as they say."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import (
    BindMount,
    CacheMount,
    Copy,
    From,
    Run,
    SecretMount,
    TmpfsMount,
    User,
)
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import BuildError, StepFailed, UsageError
from layercache.model.instruction import Field
from layercache.testing.base_images import MemoryImage, MemoryImages
from layercache.testing.clocks import VirtualClock
from layercache.testing.commands import MemoryShell
from layercache.testing.executors import (
    CountingExecutor,
    FailingExecutor,
    MemoryExecutor,
    ScriptedExecutor,
    SlowExecutor,
    UnstableExecutor,
)
from layercache.testing.generating import SeededChoices, any_history
from layercache.testing.layers import Layers
from layercache.testing.memory import MemoryFiles, NotPermitted, snapshot
from layercache.testing.observing import RecordingObserver, RecordingWalker
from layercache.testing.oracle import clean_build, oracle
from layercache.testing.strategies import contexts, edit_histories, instructions, paths, recipes
from layercache.testing.wrong import ForgetfulKeys
from layercache.trees.in_memory import DictTree, directory, file, link

pytest_plugins = ["layercache.testing.pytest_plugin"]

DOCKERFILE = """\
FROM node:22
WORKDIR /app
COPY package*.json ./
RUN npm install
COPY . .
CMD ["node", "server.js"]
"""

# -- the fixture ----------------------------------------------------------------------------


def test_only_the_source_changes(layers):
    """The test of the guide, as it is written there."""
    layers.build(DOCKERFILE, {"package.json": "{}", "server.js": "1"})
    layers.edit("server.js", "2")
    layers.build().assert_reused("COPY package*.json ./", "RUN npm install").assert_rebuilt(
        "COPY . .", because="server.js"
    )


def test_what_the_fixture_asserts(layers):
    """Each assertion holds where it should, and fails with the whole build where not."""
    text = "FROM x AS unused\nRUN never\nFROM x\nCOPY a /a\nRUN build\n"
    first = layers.build(text, {"a": "1", "d/b": "2"})
    first.assert_rebuilt("COPY a /a", "RUN build", because="first-build")
    first.assert_skipped("RUN never")
    assert first.executions == layers.executions == ["build"]
    layers.build().assert_nothing_executed().assert_reused("COPY a /a", "1:2", "RUN b*", "COPY")
    layers.chmod("a", 0o755)
    changed = layers.build().assert_rebuilt("COPY a /a", because="a")
    changed.assert_rebuilt("RUN build", because="COPY a /a")
    for wrong in (
        lambda: changed.assert_reused("COPY a /a"),
        lambda: changed.assert_rebuilt("COPY a /a", because="b"),
        lambda: changed.assert_nothing_executed(),
        lambda: changed.assert_skipped("RUN build"),
        lambda: changed.assert_reused("RUN nothing of that name"),
        lambda: layers.build().assert_rebuilt("RUN build"),
    ):
        with pytest.raises(AssertionError, match="RUN build"):
            wrong()


def test_what_the_fixture_edits(layers):
    """Files, modes, names and the Dockerfile change as told; what is not there is an error."""
    layers.build("FROM x\nCOPY . /\n", {"a": file("1", 0o755), "d/b": "2", "d/c": "3"})
    layers.edit("a", "2").remove("d/b").rename("d/c", "e").chmod("e", 0o600)
    files = layers.build().files
    assert {name: (e.content, e.mode) for name, e in files.items()} == {
        "a": (b"2", 0o755),
        "e": (b"3", 0o600),
    }
    layers.dockerfile("FROM x\nCOPY e /f\n")
    assert sorted(layers.build().files) == ["f"]
    for wrong in (
        lambda: layers.remove("nothing"),
        lambda: layers.rename("nothing", "x"),
        lambda: layers.chmod("nothing", 0o600),
    ):
        with pytest.raises(UsageError, match="nothing"):
            wrong()


def test_options_of_the_fixture(layers):
    """Arguments, target, bypassing and plans are those of the builder."""
    text = "FROM x AS one\nARG V\nRUN echo $V > /v\nFROM one\nRUN two\n"
    assert layers.build(text, {}, args={"V": "1"}).files["v"].content == b"1\n"
    layers.build(args={"V": "1"}, target="one").assert_skipped("RUN two")
    layers.build(args={"V": "1"}, no_cache=True).assert_rebuilt("RUN two", because="no-cache")
    layers.plan(args={"V": "2"}).assert_rebuilt("RUN echo $V > /v", because="V")
    with pytest.raises(StepFailed):
        layers.build("FROM x\nRUN fail\n")


def test_the_plugin_is_loaded_only_when_asked_for(tmp_path):
    """With `-p` the fixture is there; without, it is not, as the distribution registers none."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "def test_it(layers):\n"
        "    layers.build('FROM x\\nCOPY a /\\n', {'a': '1'})\n"
        "    layers.build().assert_nothing_executed()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert plain.returncode == 1
    assert "fixture 'layers' not found" in plain.stdout
    asked = [*command, "-p", "layercache.testing.pytest_plugin"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


# -- commands -------------------------------------------------------------------------------


def _shell(files=None, **options):
    return MemoryShell(MemoryFiles(DictTree(files or {})), **options)


def _ran(script, files=None, **options):
    shell = _shell(files, **options)
    status = shell.script(script)
    return status, bytes(shell.output), shell.files


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("echo a  b", b"a b\n"),
        ("echo 'a  b' \"c  $A\" d\\ e", b"a  b c  1 d e\n"),
        ("echo '$A' ${A}x $NONE.", b"$A 1x .\n"),
        ("echo a; echo b\necho c # no\n# neither", b"a\nb\nc\n"),
        ("true && echo yes || echo no", b"yes\n"),
        ("false && echo yes || echo no", b"no\n"),
        ("false || true && echo both", b"both\n"),
        ("cat f g", b"onetwo"),
        ("cat f | upper", b"ONE"),
        ("upper < g", b"TWO"),
        ("printf %s-%s a b", b"a-b"),
        ("ls /", b"f\ng\n"),
        ("pwd", b"/\n"),
        ("id", b"0 0\n"),
        ("env A", b"1\n"),
        ("test -f f && echo file; test -d f || echo no", b"file\nno\n"),
        ("echo b > s && echo a >> s && sort s", b"a\nb\n"),
    ],
)
def test_commands(script, output):
    """Quotes, variables, operators, pipes and redirections mean what they mean in a shell."""
    status, out, _ = _ran(script, {"f": "one", "g": "two"}, environment={"A": "1"})
    assert (status, out) == (0, output)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 3; echo not", 3),
        ("fail", 1),
        ("fail 7", 7),
        ("cat nothing", 1),
        ("rm d", 1),
        ("mkdir f", 1),
        ("echo 1 > d", 1),
        ("echo 1 > no/such/directory", 1),
        ("mv", 2),
        ("chmod u+x f", 1),
        ("chown nobody f", 1),
        ("env NONE", 1),
        ("ln -s a f", 1),
        ("cp d e", 1),
        ("rm -r /", 1),
    ],
)
def test_commands_that_fail(script, status):
    """What a file system would refuse ends with a status."""
    assert _ran(script, {"f": "one", "d": directory()})[0] == status


def test_commands_that_change_files():
    """Copying, moving, removing, linking, modes and owners."""
    script = (
        "cp f g && cp -r d e && mv f d/moved && rm -rf d/x nothing && ln -s ../g d/l && "
        "chmod 600 g && chown 1:2 g && mkdir -p a/b/c && touch t && cat d/l > seen"
    )
    status, out, files = _ran(script, {"f": file("1", 0o755), "d/x": "2"})
    assert (status, out) == (0, b"")
    found = {name: (e.type, e.mode, e.uid, e.gid) for name, e in snapshot_of(files).items()}
    assert found["g"] == ("file", 0o600, 1, 2)
    assert found["d/moved"] == ("file", 0o755, 0, 0)
    assert found["e/x"] == ("file", 0o644, 0, 0)
    assert found["d/l"][0] == "link"
    assert found["a/b/c"][0] == "directory"
    assert found["t"] == ("file", 0o644, 0, 0)
    assert files.read("/seen") == b"1"
    assert "d/x" not in found


def snapshot_of(files):
    """A snapshot of files in memory."""
    return snapshot(files)


def test_links_stay_inside():
    """Links are followed inside the root, `..` stops there."""
    files = MemoryFiles(DictTree({"a": link("/../b"), "b": "1", "loop": link("loop")}))
    assert files.read("/a") == b"1"
    with pytest.raises(BuildError, match="loop"):
        files.read("/loop")
    with pytest.raises(NotPermitted):
        files.read("/nothing")


def test_an_unknown_command_depends_on_all_that_it_could_read():
    """A file, its mode, owner or time, a variable, the directory, the words: another output."""
    base = {"f": "1"}
    outputs = set()
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("x", base, {}),
        ("x y", base, {}),
        ("x", {"f": "2"}, {}),
        ("x", {"g": "1"}, {}),
        ("x", {"f": file("1", 0o755)}, {}),
        ("x", {"f": file("1", uid=1)}, {}),
        ("x", {"f": file("1", mtime=5)}, {}),
        ("x", {"f": link("1")}, {}),
        ("x", base, {"directory": "/d"}),
        ("x", base, {"sees": (("A", "1"),)}),
    ]
    for script, files, options in cases:
        status, _, after = _ran(script, files, **options)
        assert status == 0
        made = [p for p in snapshot(after) if p.startswith("made/")]
        outputs.add(after.read("/" + made[0]))
    assert len(outputs) == len(cases)
    assert _ran("x", base)[2].digest_of_all() == _ran("x", base)[2].digest_of_all()


# -- the executor ---------------------------------------------------------------------------


def _files_of(*instructions, context=None, executor=None, **options):
    executor = executor or MemoryExecutor(**options)
    result = Builder(executor=executor, jobs=1).build(list(instructions), context=context or {})
    return snapshot(result.tree())


def test_mounts():
    """Bind mounts show their source, cache mounts stay, tmpfs and secrets leave nothing."""
    executor = MemoryExecutor(secrets={"k": b"s"})
    context = {"src/a": "1", "src/d/b": "2"}
    steps = [
        Run(
            "cat /m/a /m/d/b /run/secrets/k > /seen && echo 1 > /c/kept && echo 2 > /t/gone",
            mounts=[
                BindMount("/m", source="src"),
                CacheMount("/c"),
                TmpfsMount("/t"),
                SecretMount("k"),
            ],
        ),
        Run("cat /c/kept > /again && ls / > /listing", mounts=[CacheMount("/c")]),
        Run("ls / > /bare"),
    ]
    files = _files_of(*steps, context=context, executor=executor)
    assert files["seen"].content == b"12s"
    assert files["again"].content == b"1\n"
    assert files["bare"].content == b"again\nbare\nlisting\nseen\n"
    assert sorted(files) == ["again", "bare", "listing", "seen"]


def test_mounts_are_read_only_unless_asked():
    """Writing to a bind mount fails; with `rw` it succeeds and changes nothing."""
    step = Run("echo 2 > /m/a", mounts=[BindMount("/m", source="src")])
    with pytest.raises(StepFailed, match="read-only"):
        _files_of(step, context={"src/a": "1"})
    step = Run("echo 2 > /m/a", mounts=[BindMount("/m", source="src", readonly=False)])
    assert _files_of(step, context={"src/a": "1"}) == {}


def test_a_missing_secret():
    """A secret that is required and not given fails the step; otherwise it is just not there."""
    step = Run("test -f /run/secrets/k || echo none > /f", mounts=[SecretMount("k")])
    assert _files_of(step)["f"].content == b"none\n"
    with pytest.raises(BuildError, match="secret 'k'"):
        _files_of(Run("x", mounts=[SecretMount("k", required=True)]))


def test_users():
    """What a command writes is its user's; names are looked up in the image."""
    files = _files_of(
        Run("mkdir /etc && echo user:x:7:8::: > /etc/passwd"), User("user"), Run("touch /f")
    )
    assert (files["f"].uid, files["f"].gid) == (7, 8)
    with pytest.raises(BuildError, match="nobody"):
        _files_of(User("nobody"), Run("touch /f"))


def test_here_documents():
    """A here-document is the script; one with an interpreter of its own is run from its file."""
    text = "FROM scratch\nRUN <<EOF\necho 1 > /a\necho 2 > /b\nEOF\n"
    text += "RUN <<EOF\n#!/bin/x\ntouch /c\nEOF\n"
    result = Builder(executor=MemoryExecutor(), jobs=1).build(Dockerfile.parse(text), context={})
    assert sorted(snapshot(result.tree())) == ["a", "b", "c"]


def test_whatever_a_command_deletes_is_gone():
    """Files, directories, and a directory replaced by a file and the other way round."""
    files = _files_of(
        Run("mkdir -p /d/e /k && touch /d/e/f /a /k/l"),
        Run("rm -r /d && touch /d && rm /a && mkdir /a && touch /a/b && rm /k/l && touch /k/m"),
    )
    assert {name: e.type for name, e in files.items()} == {
        "a": "directory",
        "a/b": "file",
        "d": "file",
        "k": "directory",
        "k/m": "file",
    }


def test_an_unknown_instruction_is_refused():
    """An embedder's own type needs an executor of its own."""

    class Own:
        name = "OWN"

        def definition(self):
            return (Field("a", 1),)

    with pytest.raises(UsageError, match="does not know OWN"):
        _files_of(Own())


def test_executors_can_be_pickled():
    """For pools of processes; what they counted stays behind."""
    executor = MemoryExecutor(secrets={"k": b"s"}, traits=[Field("a", 1)])
    anything: Any = "x"
    executor.calls.append(anything)
    twin = pickle.loads(pickle.dumps(executor))
    assert twin.secrets == executor.secrets
    assert twin.traits == executor.traits
    assert twin.calls == []


def test_what_a_command_looked_at_is_known():
    """Traced, a command is reused on another parent if what it read is the same there; one that
    is unknown to the kit may have read anything."""
    text = "FROM x\nCOPY a /a\nCOPY b /b\nRUN cat /a > /c\nRUN unknown\n"
    layers = Layers()
    layers.build(text, {"a": "1", "b": "1"}, trace="auto")
    layers.edit("b", "2")
    again = layers.build(trace="auto")
    (read,) = again.find("RUN cat /a > /c")
    assert (read.decision, read.evidence) == ("hit", "trace")
    again.assert_rebuilt("RUN unknown", because="COPY b /b")
    layers.edit("a", "2")
    assert layers.build(trace="auto").files["c"].content == b"2"


# -- wrappers -------------------------------------------------------------------------------

STEPS = [Run("one"), Run("two"), Run("three")]


def test_counting():
    """Executions are counted, hits are not."""
    executor = CountingExecutor(MemoryExecutor())
    builder = Builder(executor=executor, jobs=1)
    builder.build(STEPS, context={})
    builder.build(STEPS, context={})
    assert executor.count == 3
    assert executor.texts == ["one", "two", "three"]


def test_scripts():
    """A script says what a command gives: files, an error, or whatever a function makes."""
    executor = ScriptedExecutor(
        {
            "one": {"/a/b": "1", "/c": b"2"},
            "two": {"/c": None},
            "three": lambda task, blobs: MemoryExecutor().execute(task, blobs),
            "four": StepFailed("no", status=9),
        }
    )
    files = _files_of(*STEPS, executor=executor)
    assert files["a/b"].content == b"1"
    assert "c" not in files
    assert [p for p in files if p.startswith("made/")]
    with pytest.raises(StepFailed, match="no"):
        _files_of(*STEPS, Run("four"), executor=executor)


@pytest.mark.parametrize("when", [{2}, {"two"}, lambda task: task.instruction.args[-1] == "two"])
def test_failing(when):
    """It fails at a call of that number, at a command of that text, or where a function says."""
    with pytest.raises(StepFailed, match="'two' failed on purpose"):
        _files_of(*STEPS, executor=FailingExecutor(MemoryExecutor(), when))


def test_waiting():
    """Time passes when the clock is advanced, and not before."""
    clock = VirtualClock()
    done = threading.Event()
    executor = SlowExecutor(MemoryExecutor(), 10, clock.sleep)

    def run() -> None:
        _files_of(Run("x"), executor=executor)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    clock.wait_for(1)
    clock.advance(9)
    time.sleep(0.02)
    assert not done.is_set()
    clock.advance(1)
    thread.join(30)
    assert done.is_set()
    assert clock.now() == 10
    with pytest.raises(TimeoutError):
        clock.wait_for(1, timeout=0.01)


def test_varying():
    """A layer of its own each time, the same for the same seed; each is logged."""
    layers = []
    for seed in (1, 1, 2):
        executor = UnstableExecutor(MemoryExecutor(), seed)
        builder = Builder(executor=executor, jobs=1)
        layers.append([builder.build(STEPS, context={}, no_cache=True).state for _ in range(2)])
        assert len(executor.log) == 6
        assert len({call.diff_id for call in executor.log}) == 6
    assert layers[0] == layers[1] != layers[2]
    assert layers[0][0] != layers[0][1]


# -- the oracle -----------------------------------------------------------------------------


def test_the_oracle_tells_everything_of_a_tree():
    """Type, mode, owner, content and time of each path."""
    found = oracle([Copy("a", "/d/", chown="1:2", chmod="600"), Run("ln -s a /d/l")], {"a": "1"})
    assert {name: (e.type, e.mode, e.uid, e.gid, e.content) for name, e in found.items()} == {
        "d": ("directory", 0o600, 1, 2, b""),
        "d/a": ("file", 0o600, 1, 2, b"1"),
        "d/l": ("link", 0o777, 0, 0, b"a"),
    }
    assert all(entry.mtime for name, entry in found.items() if name != "d")


def test_the_oracle_uses_no_cache():
    """It executes every step, equal ones too, each time it is asked."""
    text = "FROM scratch AS a\nRUN one\nFROM scratch\nRUN one\nCOPY --from=a / /x/\n"
    executor = CountingExecutor(MemoryExecutor())
    for _ in range(2):
        clean_build(Dockerfile.parse(text), {}, executor=executor)
    assert executor.texts == ["one"] * 4


def test_the_oracle_finds_a_forgetful_strategy():
    """A control: with a strategy that forgets the content of sources, the two differ."""
    layers = Layers(keys=ForgetfulKeys("input source"))
    text = "FROM scratch\nCOPY a /a\n"
    layers.build(text, {"a": "1"})
    stale = layers.edit("a", "2").build()
    assert stale.files["a"].content == b"1"
    assert oracle(Dockerfile.parse(text), layers.files)["a"].content == b"2"


def test_the_oracle_fails_as_a_build_does():
    """A missing source, a failing command: the error of the build."""
    with pytest.raises(BuildError, match="nothing"):
        oracle([Copy("nothing", "/")], {})
    with pytest.raises(StepFailed):
        oracle([Run("fail")], {})


# -- images, observers, generators ----------------------------------------------------------


def test_base_images():
    """FROM finds files, environment, working directory and triggers of an image in memory."""
    images = MemoryImages(
        {
            "base": MemoryImage.of(
                {"etc/a": "1"},
                env={"A": "x"},
                workdir="/w",
                user="5",
                shell=["/bin/x", "-c"],
                onbuild=["RUN touch /trigger"],
            )
        }
    )
    builder = Builder(executor=MemoryExecutor(base_images=True), images=images, jobs=1)
    result = builder.build([From("base"), Run("echo $A > f && pwd >> f")], context={})
    files = snapshot(result.tree())
    assert files["etc/a"].content == b"1"
    assert files["w/f"].content == b"x\n/w\n"
    assert files["w/f"].uid == 5
    assert "trigger" in files
    with pytest.raises(BuildError, match="no image 'other'"):
        builder.build([From("other"), Run("x")], context={})


def test_observing():
    """Events are kept by kind; a walker remembers graphs and walks."""
    observer, walker = RecordingObserver(), RecordingWalker()
    Builder(executor=MemoryExecutor(), observers=[observer], walker=walker, jobs=1).build(
        STEPS, context={}
    )
    assert observer.outcomes() == [("RUN one", "miss"), ("RUN two", "miss"), ("RUN three", "miss")]
    graph, walk = walker.last
    assert len(walk.decisions()) == 3
    assert walk.state(graph.targets[0]) is not None
    observer.clear()
    assert observer.events == []


def test_generators_decide_by_their_seed():
    """The same seed gives the same history, another one another."""
    one, two, three = (any_history(SeededChoices(seed), 5) for seed in (1, 1, 2))
    assert [v.text for v in one] == [v.text for v in two] != [v.text for v in three]


def text_of(recipe):
    """The canonical text of each instruction."""
    return [instruction.render() for instruction in recipe]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(recipes(), contexts(), instructions(["s0"]), paths(), edit_histories(2), st.data())
def test_strategies_give_what_they_say(recipe, context, instruction, path, history, data):
    """Recipes parse back to themselves, contexts are trees, paths are clean, histories go on."""
    text = "".join(f"{i.render()}\n" for i in recipe)
    assert [i.render() for i in Dockerfile.parse(text).instructions] == text_of(recipe)
    assert DictTree(context).children(b"")
    assert instruction.render()
    assert not path.startswith(b"/")
    assert b"//" not in path
    assert len(history) == 2
