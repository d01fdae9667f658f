"""Conformance suite for executors of commands.

    class TestMine(ExecutorSuite):
        def make(self, tmp_path):
            return MyExecutor(tmp_path)

Commands are simple lines for `/bin/sh` (echo, cat, ls, rm, mkdir, mv, exit); an executor that
needs a root file system for that overrides `base`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from layercache.errors import BuildError, StepFailed
from layercache.model.descriptors import SCRATCH, State
from layercache.model.framing import frame
from layercache.model.instruction import Field, Instruction, Source
from layercache.model.layer_times import LAYER_TIME
from layercache.model.operations import Exec, Mount
from layercache.model.selectors import Files, Selector
from layercache.model.task import CAPABILITIES, Executor, StepTraits, Task
from layercache.model.tree import Node, Tree
from layercache.testing.memory import snapshot
from layercache.testing.workbench import Workbench
from layercache.trees.selection import select, walk

__all__ = ["ExecutorSuite", "GuardedTree"]


class ExecutorSuite:
    """The contract of every executor: see exactly what the key covers, and return exactly the
    changes.

    Override `make`; override `base` if commands need files to run, and set `mounts` to False if
    bind mounts are refused.
    """

    mounts = True

    def make(self, tmp_path: Any) -> Executor:
        """A new executor; `tmp_path` is the same directory for all of one test."""
        raise TypeError("a suite says how to make its executor: override make(self, tmp_path)")

    def base(self, bench: Workbench) -> State:
        """The state that commands run on."""
        return SCRATCH

    def command(self, text: str, **fields: Any) -> Instruction:
        """The instruction that runs `text` in a shell; `fields` are those of `Exec`."""
        fields.setdefault("env", (("PATH", "/usr/local/bin:/usr/bin:/bin"),))
        return Exec(args=("/bin/sh", "-c", text), **fields)

    # -- helpers ----------------------------------------------------------------------------

    def run(self, executor: Executor, bench: Workbench, text: str, **fields: Any) -> State:
        """The state that a command leaves on the base."""
        task = self.task(executor, bench, self.command(text, **fields))
        return bench.apply(executor, task)

    def task(
        self,
        executor: Executor,
        bench: Workbench,
        instruction: Instruction,
        parent: State | None = None,
        inputs: Mapping[str, tuple[State | Source, Selector]] | None = None,
        *,
        bypass: bool = False,
    ) -> Task:
        """A task with the executor's traits."""
        return bench.task(
            instruction,
            self.base(bench) if parent is None else parent,
            inputs,
            traits=_traits(executor, instruction),
            bypass=bypass,
        )

    def test_what_it_can_do_is_declared(self, tmp_path: Any) -> None:
        """A capability counts only if it is declared: a class that has all of its names is
        derived from it."""
        kind = type(self.make(tmp_path))
        for capability in CAPABILITIES:
            if all(hasattr(kind, name) for name in vars(capability) if not name.startswith("_")):
                assert issubclass(kind, capability), f"{kind.__name__}: {capability.__name__}"

    def own(self, bench: Workbench, state: State) -> dict[str, Any]:
        """The part of a state that is not the base's."""
        base = snapshot(bench.tree(self.base(bench)))
        return {p: e for p, e in snapshot(bench.tree(state)).items() if base.get(p) != e}

    # -- what a command does ----------------------------------------------------------------

    def test_what_a_command_writes_is_in_the_layer(self, tmp_path: Any) -> None:
        """Files, directories and links, with their content; nothing else."""
        bench = Workbench()
        state = self.run(
            self.make(tmp_path),
            bench,
            "echo one > a && mkdir -p d/e && echo two > d/e/f && ln -s d/e l",
        )

        found = {p: (e.type, e.content) for p, e in self.own(bench, state).items()}
        assert found == {
            "a": ("file", b"one\n"),
            "d": ("directory", b""),
            "d/e": ("directory", b""),
            "d/e/f": ("file", b"two\n"),
            "l": ("link", b"d/e"),
        }

    def test_the_parent_is_below(self, tmp_path: Any) -> None:
        """A command sees the files of its parent; the layer holds only what it changed."""
        bench, executor = Workbench(), self.make(tmp_path)
        parent = bench.state({"in/a": "one\n", "in/b": "two\n"}, self.base(bench))
        command = self.command("cat in/a in/b > all && rm in/a && echo three >> in/b")
        state = bench.apply(executor, self.task(executor, bench, command, parent))

        tree = snapshot(bench.tree(state))
        assert tree["all"].content == b"one\ntwo\n"
        assert tree["in/b"].content == b"two\nthree\n"
        assert "in/a" not in tree
        layer = state.layers[-1]
        names = [entry.path for entry in bench.index(layer) if not entry.implied]
        assert sorted(names) == [b"all", b"in/a", b"in/b"]

    def test_nothing_changed_is_no_layer(self, tmp_path: Any) -> None:
        """A command that changes nothing gives no layer."""
        bench, executor = Workbench(), self.make(tmp_path)
        task = self.task(executor, bench, self.command("cat /nothing || exit 0"))

        assert bench.execute(executor, task).layer is None

    def test_variables_and_directory_are_seen(self, tmp_path: Any) -> None:
        """A command runs in its working directory and sees its variables."""
        bench, executor = Workbench(), self.make(tmp_path)
        parent = bench.state({"work/file": "1"}, self.base(bench))
        fields = {"env": (("PATH", "/bin:/usr/bin"), ("A", "x y")), "workdir": "/work"}
        command = self.command('echo "$A" > seen && ls > listing', **fields)
        state = bench.apply(executor, self.task(executor, bench, command, parent))

        tree = snapshot(bench.tree(state))
        assert tree["work/seen"].content == b"x y\n"
        assert tree["work/listing"].content == b"file\nlisting\nseen\n"

    def test_a_failing_command_raises(self, tmp_path: Any) -> None:
        """A failed command reports its status, and its writes are not visible to the next one."""
        bench, executor = Workbench(), self.make(tmp_path)
        status = None
        try:
            self.run(executor, bench, "echo left > behind; exit 3")
        except StepFailed as error:
            status = error.status
        assert status == 3
        state = self.run(executor, bench, "ls > listing")

        assert b"behind" not in snapshot(bench.tree(state))["listing"].content

    def test_output_is_told(self, tmp_path: Any) -> None:
        """What a command prints reaches the log and the result."""
        bench, executor = Workbench(), self.make(tmp_path)
        result = bench.execute(
            executor, self.task(executor, bench, self.command("echo hello && echo more"))
        )

        assert bytes(bench.output) == b"hello\nmore\n"
        assert result.output == b"hello\nmore\n"

    # -- deterministic, and nothing beyond the key ------------------------------------------

    def test_the_same_task_gives_the_same_layer(self, tmp_path: Any) -> None:
        """A task gives the same bytes again, from another executor, and after other tasks."""
        bench, executor = Workbench(), self.make(tmp_path)
        text = "echo one > a && mkdir d && echo two > d/b"
        first = self.run(executor, bench, text)
        self.run(executor, bench, "echo other > other")

        assert self.run(executor, bench, text) == first
        assert self.run(self.make(tmp_path), bench, text) == first

    def test_times_are_not_those_of_the_clock(self, tmp_path: Any) -> None:
        """No entry of a layer is newer than the constant of the scheme."""
        bench = Workbench()
        state = self.run(self.make(tmp_path), bench, "echo 1 > a && mkdir d && echo 1 > d/b")

        for entry in bench.index(state.layers[-1]):
            if entry.node is not None:
                assert entry.node.mtime <= LAYER_TIME

    def test_nothing_is_left_of_other_steps(self, tmp_path: Any) -> None:
        """A step sees its parent and nothing of earlier runs of the executor."""
        bench, executor = Workbench(), self.make(tmp_path)
        expected = self.run(self.make(tmp_path), bench, "ls > listing")
        self.run(executor, bench, "echo 1 > left && mkdir behind && echo 2 > behind/f")

        assert self.run(executor, bench, "ls > listing") == expected

    def test_what_no_key_sees_changes_nothing(self, tmp_path: Any) -> None:
        """A bypassed cache changes nothing: the layer is the same."""
        bench, executor = Workbench(), self.make(tmp_path)
        command = self.command("echo one > a && ls > listing")
        first = bench.apply(executor, self.task(executor, bench, command))
        other = Workbench({"": {"unseen": "2"}})
        again = other.apply(executor, self.task(executor, other, command, bypass=True))

        assert again == first

    def test_only_what_was_selected_is_read(self, tmp_path: Any) -> None:
        """A bind mount shows its source; no other file of the context is looked at."""
        if not self.mounts:
            return
        executor = self.make(tmp_path)
        bench = _GuardedBench({"": {"src/a": "1", "src/d/b": "2", "secret": "3"}})
        selector = Files(("src",), wildcards=False, named=False)
        mount = Mount(type="bind", target="/mnt", role="mount /mnt", source="/src")
        command = self.command("cat /mnt/a /mnt/d/b > all", mounts=(mount,))
        inputs = {"mount /mnt": (bench.context(), selector)}
        bench.guard(bench.context(), selector)
        state = bench.apply(executor, self.task(executor, bench, command, None, inputs))

        assert self.own(bench, state)["all"].content == b"12"
        assert not bench.trespasses, f"read though no key sees it: {bench.trespasses}"

    # -- the rest of the contract -----------------------------------------------------------

    def test_several_at_once(self, tmp_path: Any) -> None:
        """Steps that run side by side give what they give alone."""
        from concurrent.futures import ThreadPoolExecutor

        bench, executor = Workbench(), self.make(tmp_path)
        texts = [f"echo {n} > file && ls > listing" for n in range(6)]
        alone = [self.run(self.make(tmp_path), bench, text) for text in texts]
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(lambda text: self.run(executor, bench, text), texts))

        assert together == alone

    def test_a_layer_is_what_its_descriptor_says(self, tmp_path: Any) -> None:
        """The blob is there, and has the digest and size that the result names."""
        bench = Workbench()
        state = self.run(self.make(tmp_path), bench, "echo 1 > a")
        layer = state.layers[-1]

        assert bench.store.blobs.intact(layer.descriptor)

    def test_traits_are_facts(self, tmp_path: Any) -> None:
        """Traits are fields with labels of their own that stay the same."""
        executor = self.make(tmp_path)
        instruction = self.command("echo 1")
        traits = _traits(executor, instruction)

        assert isinstance(executor, Executor)
        assert all(isinstance(trait, Field) for trait in traits)
        assert len({trait.label for trait in traits}) == len(traits)
        for trait in traits:
            frame((trait.label, trait.value))
        assert list(traits) == list(_traits(executor, instruction))
        assert list(traits) == list(_traits(self.make(tmp_path), instruction))

    def test_a_cancelled_build_starts_nothing_that_lasts(self, tmp_path: Any) -> None:
        """When the build is cancelled, a step ends with an error, or is done as always."""
        bench, executor = Workbench(), self.make(tmp_path)
        expected = self.run(self.make(tmp_path), bench, "echo 1 > a")
        bench.stop = True
        try:
            state = self.run(executor, bench, "echo 1 > a")
        except BuildError:
            return
        assert state == expected


def _traits(executor: Executor, instruction: Instruction) -> tuple[Field, ...]:
    traits = tuple(executor.traits)
    if isinstance(executor, StepTraits):
        traits += tuple(executor.traits_of_steps([(instruction, "0")])[0])
    return traits


# -- guards ---------------------------------------------------------------------------------


class GuardedTree:
    """A tree that records every access to a file's content or node that was not selected.

    Access to directories on the way to selected files is permitted.
    """

    def __init__(self, tree: Tree, selector: Files, note: Callable[[bytes], None]) -> None:
        self._tree = tree
        self._note = note
        self._allowed: set[bytes] = {b""}
        for match in select(tree, selector):
            for _, path, _ in walk(tree, match):
                while path not in self._allowed:
                    self._allowed.add(path)
                    path = path.rpartition(b"/")[0]

    def lookup(self, path: bytes) -> Node | None:
        node = self._tree.lookup(path)
        if node is not None and path not in self._allowed:
            self._note(path)
        return node

    def children(self, path: bytes) -> Sequence[bytes]:
        return self._tree.children(path)

    def digest(self, path: bytes) -> bytes:
        return self._tree.digest(path)

    def open(self, path: bytes) -> BinaryIO:
        if path not in self._allowed:
            self._note(path)
        return self._tree.open(path)


class _GuardedBench(Workbench):
    """A workbench that records an executor's reads of a context beyond a selection."""

    def __init__(self, contexts: Mapping[str, Any]) -> None:
        super().__init__(contexts)
        self.trespasses: list[bytes] = []
        self._guards: dict[Source, Files] = {}

    def guard(self, subject: Source, selector: Files) -> None:
        self._guards[subject] = selector

    def tree(self, subject: State | Source) -> Tree:
        tree = super().tree(subject)
        if isinstance(subject, State) or subject not in self._guards:
            return tree
        return GuardedTree(tree, self._guards[subject], self.trespasses.append)
